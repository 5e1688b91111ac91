"""Files made to harm: they promise much, point in rings, or name one thing a thousand times."""

from __future__ import annotations

import gzip
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from splat_scenes import cloud
from test_export_around import GOOD
from test_export_gltf import parts, together
from test_transforms import IDENTITY, LENS

from renderers import SceneError
from scenegen.export import export_file, read_splats, read_transforms
from scenegen.export.colmap import read_colmap
from scenegen.export.gltf_splats import HEAD_LIMIT

INFINITE = float("inf")


def tree_and_body(folder: Path, count: int = 20) -> tuple[dict[str, Any], bytes]:
    export_file(folder / "a.splats.glb", splats=cloud(count, degree=1))
    return parts((folder / "a.splats.glb").read_bytes())


def read_tree(folder: Path, tree: Any, body: bytes) -> int:
    (folder / "b.splats.glb").write_bytes(together(tree, body))
    return len(read_splats(folder / "b.splats.glb"))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t["accessors"][0].update(count=INFINITE), "its description is broken"),
        (lambda t: t["bufferViews"][0].update(byteOffset=INFINITE), "its description is broken"),
        (lambda t: t["bufferViews"][0].update(byteOffset=1 << 62), "cut short"),
        (lambda t: t["accessors"][0].update(byteOffset=-1), "cut short"),
        (lambda t: t["accessors"][0].update(count=1 << 62), "differ in length|cut short"),
        (lambda t: t["accessors"][0].update(bufferView="0"), "its description is broken"),
        (lambda t: t["accessors"][0].update(sparse={}), "not stored as float32 in the file"),
        (lambda t: t["bufferViews"][0].update(buffer=1), "not stored as float32 in the file"),
        (lambda t: t["nodes"].append({"children": [0], "scale": [2, 2, 2]}), "by a node"),
        (lambda t: t.update(nodes=[{"children": [[]]}]), "its description is broken"),
        (lambda t: t.update(nodes=7), "its description is broken"),
    ],
)
def test_gltf_that_lies_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], text: str
) -> None:
    tree, body = tree_and_body(tmp_path)
    change(tree)
    with pytest.raises(SceneError, match=text):
        read_tree(tmp_path, tree, body)


def test_gltf_in_rings_and_chains_is_read_in_no_time(tmp_path: Path) -> None:
    """50,000 nodes that all show the splats, each the child of the one before, the last of it."""
    tree, body = tree_and_body(tmp_path)
    count = 50_000
    tree["nodes"] = [{"mesh": 0, "children": [(i + 1) % count]} for i in range(count)]
    assert read_tree(tmp_path, tree, body) == 20


def test_gltf_that_names_one_thing_often_is_read_once(tmp_path: Path) -> None:
    tree, body = tree_and_body(tmp_path, 2000)
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    attributes |= {f"_{i}": attributes["POSITION"] for i in range(20_000)}
    tracemalloc.start()
    assert read_tree(tmp_path, tree, body) == 2000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * HEAD_LIMIT


def test_a_deep_description_is_refused(tmp_path: Path) -> None:
    text = b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text), len(text), b"JSON")
    (tmp_path / "a.splats.glb").write_bytes(head + text + struct.pack("<I4s", 0, b"BIN\0"))
    (tmp_path / "t.json").write_bytes(text)
    with pytest.raises(SceneError, match=r"is not JSON|no part of it uses"):
        read_splats(tmp_path / "a.splats.glb")
    with pytest.raises(SceneError, match=r"is not JSON|no list of 'frames'"):
        read_transforms(tmp_path / "t.json")


@pytest.mark.parametrize("count", [10_000_000, 10_000_001, 2**32 - 1])
def test_an_spz_that_promises_millions_takes_no_memory(tmp_path: Path, count: int) -> None:
    """1.2 MB could hold ten million splats, for all that can be known; these do not."""
    header = struct.pack("<IIIBBBB", 0x5053474E, 3, count, 3, 12, 0, 0)
    (tmp_path / "a.spz").write_bytes(gzip.compress(header + bytes(1_200_000), 0))
    tracemalloc.start()
    with pytest.raises(SceneError, match=r"cut short|promises"):
        read_splats(tmp_path / "a.spz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\boot.ini", "\0", 7])
def test_names_of_files_in_transforms_are_never_followed(tmp_path: Path, name: Any) -> None:
    frame = {"file_path": name, "depth_file_path": name, "transform_matrix": IDENTITY}
    (tmp_path / "t.json").write_text(json.dumps(LENS | {"frames": [frame]}))
    assert len(read_transforms(tmp_path / "t.json")) == 1


def test_pictures_too_large_to_draw_are_refused(tmp_path: Path) -> None:
    """Each side is allowed, but not both at once."""
    frames = [{"file_path": "a.png", "transform_matrix": IDENTITY}]
    content = LENS | {"w": 16_384, "h": 16_384, "frames": frames}
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(SceneError, match="16384 x 16384 pixels; 67108864 are drawn at most"):
        read_transforms(tmp_path / "t.json")
    for file, text in GOOD.items():
        (tmp_path / file).write_text(text.replace("8 6", "16384 16384"))
    with pytest.raises(SceneError, match="a picture of 16384 x 16384"):
        read_colmap(tmp_path)


@settings(max_examples=60)
@given(
    which=st.sampled_from(sorted(GOOD)), at=st.integers(0, 200),
    new=st.binary(max_size=12) | st.sampled_from([b" nan", b" inf", b"-", b"9" * 400, b"\n", b"#"]),
)  # fmt: skip
def test_damaged_colmap_raises_only_our_error(
    tmp_path_factory: pytest.TempPathFactory, which: str, at: int, new: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "colmap"
    folder.mkdir(exist_ok=True)
    for name, text in GOOD.items():
        data = text.encode()
        (folder / name).write_bytes(data[:at] + new + data[at + 1 :] if name == which else data)
    try:
        cameras = read_colmap(folder)
    except SceneError as error:
        assert error.what and error.why and error.fix
        return
    assert cameras[0].width * cameras[0].height <= 1 << 26


@settings(max_examples=60)
@given(
    at=st.integers(0, 3000), new=st.binary(max_size=8) | st.sampled_from([b"1e999", b"-1", b"{}"])
)
def test_damaged_descriptions_raise_only_our_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, new: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp()
    tree, body = tree_and_body(folder)
    text = json.dumps(tree).encode()
    text = text[: at % len(text)] + new + text[at % len(text) + 1 :]
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 28 + len(text) + len(body), len(text), b"JSON")
    whole = head + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    (folder / "d.splats.glb").write_bytes(whole)
    try:
        assert len(read_splats(folder / "d.splats.glb")) >= 1
    except SceneError as error:
        assert error.what and error.why and error.fix
