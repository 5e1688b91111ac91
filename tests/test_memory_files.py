"""The memory on disk, and what users can do wrong: crashes, damage, and requests without sense."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rooms import BOXES, SMALL, answers, photograph, remember, same_surfels, strolls
from safetensors import numpy as arrays_file
from safetensors import torch as tensors_file

from renderers import Camera, SceneError
from spatial_memory import MemoryConfig, ViewMemory, storage
from spatial_memory.surfels import COLUMNS


@pytest.fixture(scope="module")
def walk() -> list[Camera]:
    return strolls(12, seed=0)


def test_a_round_trip_through_a_folder_changes_nothing(walk: list[Camera], tmp_path: Path) -> None:
    memory = remember(walk[:6])
    memory.pin(4)
    memory.forget(2)
    memory.erase(BOXES[1])
    memory.save(tmp_path / "memory")
    back = ViewMemory.load(tmp_path / "memory")
    assert back.config == memory.config
    assert back.pinned == {4}
    assert list(back.views) == list(memory.views) == [0, 1, 3, 4, 5]
    for view_id, view in memory.views.items():
        other = back.views[view_id]
        for name in ("rgb", "depth", "known"):
            assert torch.equal(getattr(view, name), getattr(other, name))
        assert torch.equal(view.camera.cam_from_world, other.camera.cam_from_world)
        assert torch.equal(view.camera.px_from_cam, other.camera.px_from_cam)
        assert view.provenance == other.provenance
    assert same_surfels(memory, back)
    assert answers(memory) == answers(back)
    for each in (memory, back):  # and both go on alike
        assert each.write(*photograph(walk[7]), walk[7], provenance="generated") == 6
    assert same_surfels(memory, back)
    assert answers(memory) == answers(back)


def test_an_empty_memory_can_be_saved(tmp_path: Path) -> None:
    ViewMemory(SMALL).save(tmp_path)
    assert len(ViewMemory.load(tmp_path).views) == 0


def test_saving_again_replaces_and_leaves_no_litter(walk: list[Camera], tmp_path: Path) -> None:
    memory = remember(walk[:2])
    memory.save(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    memory.forget(0)
    memory.save(tmp_path)
    assert list(ViewMemory.load(tmp_path).views) == [1]
    names = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert names == ["memory.json", "notes.txt", "surfels", "view"]


def test_a_crash_while_saving_keeps_the_old_memory(
    walk: list[Camera], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails at the first file that the second save writes, then at the second, ..."""
    memory = remember(walk[:2])
    memory.save(tmp_path)
    old = answers(memory)
    memory.write(*photograph(walk[2]), walk[2])
    memory.forget(0)
    new = answers(memory)
    assert new != old
    real, left = storage._replace_file, 0

    def failing(path: Path, data: bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        real(path, data)

    monkeypatch.setattr(storage, "_replace_file", failing)
    for survive in range(2):  # before the surfels, and before the index
        left = survive
        with pytest.raises(SceneError, match="No space left on device"):
            memory.save(tmp_path)
        assert answers(ViewMemory.load(tmp_path)) == old
    left = 99
    memory.save(tmp_path)
    assert answers(ViewMemory.load(tmp_path)) == new


# ---------------------------------------------------------------- what users can do wrong

RGB = np.full((8, 12, 3), 0.5, np.float32)
DEPTH = np.full((8, 12), 2.0, np.float32)
HERE = Camera.from_fov(60.0, 12, 8)
NAN = np.full((8, 12), np.nan, np.float32)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"depth": DEPTH[:4]}, "depth has shape (4, 12)"),
        ({"rgb": RGB[..., :2]}, "rgb has shape (8, 12, 2)"),
        ({"known": np.ones((4, 4), np.bool_)}, "known has shape (4, 4)"),
        ({"known": np.ones((8, 12), np.int64)}, "the mask of known pixels is int64"),
        ({"depth": NAN}, "a view shows nothing"),
        ({"known": np.zeros((8, 12), np.bool_)}, "a view shows nothing"),
        ({"depth": -DEPTH}, "a view has 96 depths that are not positive"),
        ({"rgb": (RGB * 255).astype(np.uint8)}, "the colours of a view are uint8"),
        ({"rgb": RGB * np.nan}, "a view has 96 pixels whose colours are not finite"),
        ({"provenance": "dreamt"}, "unknown provenance 'dreamt'"),
        ({"camera": Camera.from_fov(60.0, 8, 12)}, "a camera of 8 x 12 cannot have taken"),
    ],
)
def test_a_view_that_cannot_be_is_an_error(arguments: dict[str, Any], says: str) -> None:
    memory = ViewMemory(SMALL)
    with pytest.raises(SceneError) as caught:
        memory.write(**({"rgb": RGB, "depth": DEPTH, "camera": HERE} | arguments))
    assert says in str(caught.value)
    assert len(memory.views) == 0 and len(memory.surfels) == 0


ONE = np.ones((8, 12), np.bool_)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda m: m.retrieve([], k=4), "there is no camera"),
        (lambda m: m.retrieve([HERE], k=0), "cannot retrieve 0 views"),
        (lambda m: m.retrieve([HERE], explained=[]), "do not fit the target cameras"),
        (lambda m: m.retrieve([HERE], explained=[ONE[:2]]), "do not fit the target cameras"),
        (lambda m: m.retrieve([HERE], explained=[ONE * 0.5]), "explained pixels is not bool"),
        (lambda m: m.pin(7), "the memory has no view 7\n  why: it holds: 0"),
        (lambda m: m.forget(-1), "the memory has no view -1"),
        (lambda m: m.views[1], "the memory has no view 1"),
        (lambda m: (m.pin(0), m.forget(0)), "view 0 cannot be forgotten\n  why: it is pinned"),
        (lambda m: m.erase([[0.0, 0.0, 0.0]]), "this is not a box"),
        (lambda m: m.erase([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]), "this is not a box"),
        (lambda m: m.erase([[math.nan, 0.0, 0.0], [1.0, 1.0, 1.0]]), "this is not a box"),
        (lambda _: ViewMemory().views[0], "why: it is empty"),
        (lambda _: MemoryConfig(surfel_side=0), "the memory's surfel_side is 0"),
        (lambda _: MemoryConfig(min_gain=1.5), "the memory's min_gain is 1.5"),
        (lambda _: MemoryConfig(merge_min_cos=math.nan), "the memory's merge_min_cos is nan"),
    ],
)
def test_a_request_that_makes_no_sense_is_an_error(
    call: Callable[[ViewMemory], object], says: str
) -> None:
    memory = ViewMemory(SMALL)
    memory.write(RGB, DEPTH, HERE)
    with pytest.raises(SceneError) as caught:
        call(memory)
    assert says in str(caught.value)
    assert list(memory.views) == [0]


def the(folder: Path, kind: str) -> Path:
    return next(folder.glob(f"{kind}-*"))


def rewrite(folder: Path, change: Callable[[dict], object], sealed: bool = False) -> None:
    """Change memory.json; ``sealed`` also renews its hash, as a careful forger would."""
    index = json.loads((folder / "memory.json").read_text())
    change(index)
    if sealed:
        content = {k: v for k, v in index.items() if k not in ("format", "version", "hash")}
        index["hash"] = storage._content_hash(content)
    (folder / "memory.json").write_text(json.dumps(index))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: (f / "memory.json").unlink(), "there is no memory in"),
        (lambda f: cut(f / "memory.json"), "is damaged"),
        (lambda f: (f / "memory.json").write_text("[]"), "is damaged"),
        (lambda f: rewrite(f, lambda i: i.update(format="other")), "has format 'other'"),
        (lambda f: rewrite(f, lambda i: i.update(version=3)), "saved by a newer release"),
        (lambda f: rewrite(f, lambda i: i.update(pinned=[0])), "was changed after it was saved"),
        (lambda f: rewrite(f, lambda i: i.update(pinned=[9]), True), "views that it does not hold"),
        (lambda f: rewrite(f, lambda i: i.pop("surfels"), True), "is damaged"),
        (lambda f: rewrite(f, lambda i: i["config"].update(x=1), True), "unknown fields"),
        (lambda f: rewrite(f, lambda i: i["views"].clear(), True), "views that it does not hold"),
        (
            lambda f: rewrite(f, lambda i: i["surfels"][0].update(file="../x"), True),
            "is not a file of this folder",
        ),
        (lambda f: the(f, "view").unlink(), "is missing"),
        (lambda f: the(f, "surfels").unlink(), "is missing"),
        (lambda f: flip(the(f, "view")), "other contents than were saved"),
        (lambda f: cut(the(f, "surfels")), "other contents than were saved"),
    ],
)
def test_a_damaged_folder_is_refused(
    tmp_path: Path, harm: Callable[[Path], object], says: str
) -> None:
    memory = ViewMemory(SMALL)
    memory.write(RGB, DEPTH, HERE)
    memory.save(tmp_path)
    assert len(ViewMemory.load(tmp_path).views) == 1
    harm(tmp_path)
    with pytest.raises(SceneError) as caught:
        ViewMemory.load(tmp_path)
    assert says in str(caught.value)


def write_version_1(memory: ViewMemory, folder: Path) -> None:
    """What the first release wrote: float colours, a byte per known pixel, pairs of observers."""

    def blob(kind: str, data: bytes) -> dict[str, str]:
        sha256 = hashlib.sha256(data).hexdigest()
        path = folder / f"{kind}-{sha256[:16]}.safetensors"
        path.write_bytes(data)
        return {"file": path.name, "sha256": sha256}

    views = []
    for view_id, view in memory.views.items():
        tensors = {
            "rgb": view.rgb,
            "depth": view.depth,
            "known": view.known,
            "px_from_cam": view.camera.px_from_cam,
            "cam_from_world": view.camera.cam_from_world,
        }
        entry = {"id": view_id, "provenance": view.provenance}
        views.append(entry | blob("view", tensors_file.save(tensors)))
    surfels, by = memory.surfels.observers.pairs()
    columns = {name: getattr(memory.surfels, name) for name in COLUMNS}
    columns |= {"observed_surfel": surfels, "observed_by": by}
    config = {k: v for k, v in memory.config.__dict__.items() if k in VERSION_1_CONFIG}
    content = {
        "config": config,
        "next_id": memory.views.next_id,
        "pinned": sorted(memory.pinned),
        "views": views,
        "surfels": blob("surfels", arrays_file.save(columns)),
    }
    sealed = {"format": "scenegen-memory", "version": 1, "hash": storage._content_hash(content)}
    (folder / "memory.json").write_text(json.dumps(sealed | content))


VERSION_1_CONFIG = """surfel_side sight_side evidence_side merge_depth_share merge_min_cos
depth_tolerance min_gain min_coverage""".split()


def test_folders_of_version_1_are_read(walk: list[Camera], tmp_path: Path) -> None:
    memory = remember(walk[:4])
    memory.pin(2)
    memory.forget(1)
    write_version_1(memory, tmp_path)
    back = ViewMemory.load(tmp_path)
    assert back.pinned == {2} and list(back.views) == [0, 2, 3]
    assert same_surfels(memory, back) and answers(memory) == answers(back)
    assert torch.equal(memory.views[3].rgb, back.views[3].rgb)
    back.save(tmp_path)
    assert json.loads((tmp_path / "memory.json").read_text())["version"] == 2
    assert answers(ViewMemory.load(tmp_path)) == answers(memory)


def test_surfels_in_several_files_are_the_same(
    walk: list[Camera], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PART", 1024)
    memory = remember(walk[:4])
    memory.save(tmp_path)
    assert len(list(tmp_path.glob("surfels-*"))) == -(-len(memory.surfels) // 1024)
    back = ViewMemory.load(tmp_path)
    assert same_surfels(memory, back) and answers(memory) == answers(back)


@pytest.mark.parametrize(
    "harm",
    [
        lambda a: a.pop("points"),
        lambda a: a.update(points=a["points"][:-1]),
        lambda a: a.update(normals=a["normals"].astype(np.float64)),
        lambda a: a.update(radii=0 * a["radii"]),
        lambda a: a.update(entries=a["entries"][:-1]),
        lambda a: a.update(entries=a["entries"] + 1),
        lambda a: a.update(entry_views=a["entry_views"] - 1),
        lambda a: a.update(entry_views=a["entry_views"] + 7),
        lambda a: a.update(entry_masks=a["entry_masks"] | -1),
    ],
)
def test_surfels_that_cannot_be_are_refused(
    tmp_path: Path, harm: Callable[[dict[str, np.ndarray]], object]
) -> None:
    """Whole files with sealed hashes, but nonsense in them."""
    memory = ViewMemory(SMALL)
    memory.write(RGB, DEPTH, HERE)
    memory.save(tmp_path)
    path = the(tmp_path, "surfels")
    arrays = arrays_file.load(path.read_bytes())
    harm(arrays)
    data = arrays_file.save(arrays)
    path.write_bytes(data)
    new = hashlib.sha256(data).hexdigest()
    rewrite(tmp_path, lambda i: i["surfels"][0].update(sha256=new), sealed=True)
    with pytest.raises(SceneError, match="is damaged"):
        ViewMemory.load(tmp_path)


def test_saving_repairs_what_was_damaged(tmp_path: Path) -> None:
    memory = ViewMemory(SMALL)
    memory.write(RGB, DEPTH, HERE)
    memory.save(tmp_path)
    flip(the(tmp_path, "view"))
    memory.save(tmp_path)
    assert len(ViewMemory.load(tmp_path).views) == 1


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SceneError, match="cannot save the memory to"):
        ViewMemory(SMALL).save(tmp_path / "file")
    with pytest.raises(SceneError, match="there is no memory in"):
        ViewMemory.load(tmp_path / "nowhere")
