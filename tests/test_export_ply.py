"""3DGS .ply: values by hand, other programs' readers, and files nobody should trust."""

from __future__ import annotations

import csv
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import gsply
import numpy as np
import plyfile
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renderers import Camera, SceneError, Splats, make_renderer
from scenegen.export import read_ply, write_ply

SH_C0 = 0.28209479177387814
SPLAT_TRANSFORM = os.environ.get("SCENEGEN_SPLAT_TRANSFORM") or shutil.which("splat-transform")


def scene(k: int = 0) -> Splats:
    """Red to the right, green below, blue far ahead, white up left, a tilted grey needle."""
    generator = torch.Generator().manual_seed(3)
    return Splats(
        means=torch.tensor(
            [[1.0, 0, 3], [0, 0.5, 3], [0, 0, 5], [-0.7, -0.4, 4], [0.4, -0.3, 2.5]]
        ),
        quats=torch.tensor(
            [[1.0, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0.8, 0.2, -0.4, 0.4]]
        ),
        scales=torch.tensor(
            [
                [0.1, 0.1, 0.1],
                [0.2, 0.05, 0.1],
                [0.3, 0.3, 0.3],
                [0.05, 0.1, 0.2],
                [0.4, 0.03, 0.02],
            ]
        ),
        opacities=torch.tensor([0.5, 0.9, 0.7, 0.25, 0.99]),
        colors=torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0.5, 0.5, 0.5]]),
        sh=0.1 * torch.randn(5, k, 3, generator=generator) if k else None,
    )


def assert_same(got: Splats, want: Splats, atol: float = 1e-6) -> None:
    length = torch.linalg.norm(want.quats, dim=1, keepdim=True)
    torch.testing.assert_close(got.means, want.means, rtol=0, atol=0)
    torch.testing.assert_close(got.quats, want.quats / length, rtol=0, atol=atol)
    torch.testing.assert_close(got.scales, want.scales, rtol=atol, atol=1e-9)
    torch.testing.assert_close(got.opacities, want.opacities, rtol=0, atol=2 * atol)
    torch.testing.assert_close(got.colors, want.colors, rtol=0, atol=atol)
    assert (got.sh is None) == (want.sh is None)
    if want.sh is not None and got.sh is not None:
        torch.testing.assert_close(got.sh, want.sh, rtol=0, atol=0)


def test_values_by_hand(tmp_path: Path) -> None:
    """Splat 1: colour 0 1 0 -> (-+)0.5 / SH_C0 = 1.772454; ln 0.2 = -1.609438; logit 0.9 = ln 9."""
    write_ply(tmp_path / "a.ply", scene())
    data = (tmp_path / "a.ply").read_bytes()
    head, _, body = data.partition(b"end_header\n")
    assert head.decode().split("\n")[:2] == ["ply", "format binary_little_endian 1.0"]
    assert b"\ncomment scenegen " in head
    names = [line.split()[2] for line in head.decode().split("\n") if line.startswith("property")]
    core = "opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    assert names == f"x y z nx ny nz f_dc_0 f_dc_1 f_dc_2 {core}".split()
    rows = np.frombuffer(body, "<f4").reshape(5, 17)
    np.testing.assert_allclose(
        rows[1],
        [
            *(0, 0.5, 3, 0, 0, 0, -1.7724539, 1.7724539, -1.7724539, 2.1972246),
            *(-1.6094379, -2.9957323, -2.3025851, 1, 0, 0, 0),
        ],
        rtol=0,
        atol=1e-6,
    )
    np.testing.assert_allclose(rows[0, 9], 0.0, atol=1e-6)  # logit 0.5
    np.testing.assert_allclose(rows[4, 6:9], 0.0, atol=1e-6)  # grey
    np.testing.assert_allclose(rows[4, 13:], [0.8, 0.2, -0.4, 0.4], atol=1e-6)  # w x y z, unit


@pytest.mark.parametrize("k", [0, 3, 8, 15])
def test_round_trip(tmp_path: Path, k: int) -> None:
    write_ply(tmp_path / "a.ply", scene(k))
    assert_same(read_ply(tmp_path / "a.ply"), scene(k))


@given(
    opacity=st.floats(0, 1),
    scale=st.floats(1e-9, 1e6),
    color=st.floats(-1, 2),
    position=st.floats(-1e6, 1e6, width=32),
)
def test_round_trip_of_any_value(
    tmp_path_factory: pytest.TempPathFactory,
    opacity: float,
    scale: float,
    color: float,
    position: float,
) -> None:
    path = tmp_path_factory.getbasetemp() / "value.ply"
    one = Splats(
        torch.full((1, 3), position),
        torch.tensor([[0.0, 3.0, 0.0, 4.0]]),
        torch.full((1, 3), scale),
        torch.tensor([opacity], dtype=torch.float32),
        torch.full((1, 3), color),
    )
    write_ply(path, one)
    back = read_ply(path)
    assert torch.equal(back.means, one.means)
    torch.testing.assert_close(back.scales, one.scales, rtol=3e-6, atol=0)
    torch.testing.assert_close(back.opacities, one.opacities, rtol=0, atol=2e-6)
    torch.testing.assert_close(back.colors, one.colors, rtol=0, atol=1e-6)
    torch.testing.assert_close(back.quats, torch.tensor([[0.0, 0.6, 0.0, 0.8]]))


def test_round_trip_renders_the_same(tmp_path: Path) -> None:
    camera = Camera.from_fov(60, 48, 36)
    before = make_renderer("reference").render(scene(3), camera)
    write_ply(tmp_path / "a.ply", scene(3))
    after = make_renderer("reference").render(read_ply(tmp_path / "a.ply"), camera)
    assert before.alpha.max() > 0.5
    torch.testing.assert_close(after.rgb, before.rgb, rtol=0, atol=1e-5)
    red, green = before.rgb[..., 0] - before.rgb[..., 1], before.rgb[..., 1] - before.rgb[..., 0]
    assert red.argmax() % 48 > 30  # to the right
    assert green.argmax() // 48 > 20  # below


def test_infinite_logarithms_are_clamped(tmp_path: Path) -> None:
    """logit(1 - 1e-6) = 13.815510; ln 1e-9 = -20.723266."""
    edge = scene()[:2]
    edge = Splats(edge.means, edge.quats, torch.zeros(2, 3), torch.tensor([0.0, 1.0]), edge.colors)
    write_ply(tmp_path / "a.ply", edge)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    np.testing.assert_allclose(vertex["opacity"], [-13.815510, 13.815510], atol=1e-4)
    np.testing.assert_allclose(vertex["scale_1"], -20.723266, atol=1e-4)
    back = read_ply(tmp_path / "a.ply")
    torch.testing.assert_close(back.opacities, edge.opacities, rtol=0, atol=1.1e-6)
    torch.testing.assert_close(back.scales, edge.scales, rtol=0, atol=1.1e-9)


@pytest.mark.parametrize("k", [0, 8])
def test_plyfile_reads_it(tmp_path: Path, k: int) -> None:
    want = scene(k)
    write_ply(tmp_path / "a.ply", want)
    ply = plyfile.PlyData.read(tmp_path / "a.ply")
    vertex = ply["vertex"]
    assert vertex.count == 5 and not ply.text and ply.byte_order == "<"
    assert all(prop.val_dtype == "f4" for prop in vertex.properties)
    np.testing.assert_array_equal(np.stack([vertex[n] for n in "xyz"], 1), want.means)
    rgb = np.stack([vertex[f"f_dc_{i}"] for i in range(3)], 1) * SH_C0 + 0.5
    np.testing.assert_allclose(rgb, want.colors, atol=1e-6)
    for channel in range(3 if k else 0):  # channel-major
        for i in range(k):
            assert want.sh is not None
            column = vertex[f"f_rest_{channel * k + i}"]
            np.testing.assert_array_equal(column, want.sh[:, i, channel])


@pytest.mark.parametrize("k", [0, 3, 15])
def test_gsply_reads_it(tmp_path: Path, k: int) -> None:
    want = scene(k)
    write_ply(tmp_path / "a.ply", want)
    data = gsply.plyread(tmp_path / "a.ply")
    assert len(data.means) == 5
    np.testing.assert_array_equal(data.means, want.means)
    np.testing.assert_allclose(np.exp(data.scales), want.scales, rtol=1e-5)
    np.testing.assert_allclose(1 / (1 + np.exp(-data.opacities)), want.opacities, atol=1e-6)
    np.testing.assert_allclose(data.sh0.reshape(5, 3) * SH_C0 + 0.5, want.colors, atol=1e-6)
    np.testing.assert_allclose(data.quats, want.quats, atol=1e-6)
    if want.sh is not None:
        np.testing.assert_allclose(data.shN.reshape(5, k, 3), want.sh, atol=1e-7)


def test_reads_what_gsply_writes(tmp_path: Path) -> None:
    """Another program's file: no normals, another order."""
    want = scene(3)
    assert want.sh is not None
    gsply.plywrite(
        str(tmp_path / "g.ply"),
        want.means.numpy(),
        want.scales.log().numpy(),
        want.quats.numpy(),
        torch.logit(want.opacities).numpy(),
        ((want.colors - 0.5) / SH_C0).numpy(),
        want.sh.numpy(),
    )
    assert_same(read_ply(tmp_path / "g.ply"), want)


def test_reads_any_order_type_and_extra_property(tmp_path: Path) -> None:
    want = scene()
    write_ply(tmp_path / "a.ply", want)
    rows = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"].data
    names = [name for name in reversed(rows.dtype.names) if not name.startswith("n")]
    kinds = [(n, "f8" if n == "x" else "f4") for n in names]
    mixed = np.zeros(5, [*kinds[:4], ("segment", "u1"), *kinds[4:]])
    for name in names:
        mixed[name] = rows[name]
    elements = [
        plyfile.PlyElement.describe(mixed, "vertex"),
        plyfile.PlyElement.describe(np.zeros(2, [("a", "i4")]), "after"),
    ]
    plyfile.PlyData(elements, comments=["made elsewhere"]).write(tmp_path / "b.ply")
    assert_same(read_ply(tmp_path / "b.ply"), want)


def test_reads_infinite_logits_and_windows_line_ends(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", scene())
    data = (tmp_path / "a.ply").read_bytes()
    head, mark, body = data.partition(b"end_header\n")
    rows = np.frombuffer(body, "<f4").reshape(5, 17).copy()
    rows[0, 9], rows[1, 9], rows[2, 10] = np.inf, -np.inf, -np.inf
    crlf = (head + mark).replace(b"\n", b"\r\n")
    (tmp_path / "b.ply").write_bytes(crlf + rows.tobytes())
    back = read_ply(tmp_path / "b.ply")
    assert back.opacities[:2].tolist() == [1.0, 0.0]
    assert back.scales[2, 0] == 0


def test_many_splats_keep_their_order(tmp_path: Path) -> None:
    """More than one block of rows, not a multiple of it."""
    n = 70_001
    many = Splats(
        torch.arange(n * 3).reshape(n, 3).float(),
        torch.tensor([[1.0, 0, 0, 0]]).expand(n, 4),
        torch.full((n, 3), 0.1),
        torch.linspace(0.1, 0.9, n),
        torch.rand(n, 3, generator=torch.Generator().manual_seed(0)),
    )
    write_ply(tmp_path / "a.ply", many)
    assert_same(read_ply(tmp_path / "a.ply"), many)


def test_the_log_says_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scenegen"):
        write_ply(tmp_path / "a.ply", scene())
    assert "5 splats" in caplog.text and "no memory" in caplog.text


# What cannot be written


def changed(**fields: torch.Tensor) -> Splats:
    base = scene()
    values = {n: getattr(base, n) for n in ("means", "quats", "scales", "opacities", "colors")}
    return Splats(**(values | fields))


@pytest.mark.parametrize(
    ("splats", "text"),
    [
        (changed(opacities=torch.tensor([0.5, 0.5, 1.5, 0, 0])), "splat 2 .*\n.*opacity is not"),
        (changed(opacities=torch.full((5,), torch.nan)), "opacity is not within 0 to 1"),
        (changed(scales=-scene().scales), "a scale is negative"),
        (changed(quats=torch.zeros(5, 4)), "a quaternion is zero"),
        (changed(means=torch.full((5, 3), torch.nan)), "NaN, infinite or beyond float32"),
        (changed(colors=torch.full((5, 3), torch.inf)), "NaN, infinite or beyond float32"),
        (changed(means=torch.full((5, 3), 1e300, dtype=torch.float64)), "beyond float32"),
        (Splats.empty(), "no splats to write"),
    ],
)
def test_bad_splats_are_refused(tmp_path: Path, splats: Splats, text: str) -> None:
    (tmp_path / "a.ply").write_text("older")
    with pytest.raises(SceneError, match=text):
        write_ply(tmp_path / "a.ply", splats)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]
    assert (tmp_path / "a.ply").read_text() == "older"


# What cannot be read


def edited(change: Callable[[bytes], bytes]) -> Callable[[bytes, bytes], bytes]:
    return lambda head, body: change(head) + body


def swapped(old: bytes, new: bytes) -> Callable[[bytes, bytes], bytes]:
    return edited(lambda head: head.replace(old, new))


def poisoned(column: int | slice, value: float) -> Callable[[bytes, bytes], bytes]:
    def change(head: bytes, body: bytes) -> bytes:
        rows = np.frombuffer(body, "<f4").reshape(5, 17).copy()
        rows[3, column] = value
        return head + rows.tobytes()

    return change


BAD_FILES = {
    "not ply": (lambda h, b: b"PK\x03\x04" + b, "is not a PLY file"),
    "empty": (lambda h, b: b"", "is not a PLY file"),
    "ascii": (swapped(b"binary_little_endian", b"ascii"), "format is 'ascii 1.0'"),
    "big endian": (swapped(b"little", b"big"), "only 'binary_little_endian 1.0' is read"),
    "no format": (swapped(b"format ", b"comment "), "no format line"),
    "endless header": (lambda h, b: h.replace(b"end_", b"") * 50, "does not end within 16384"),
    "cut short": (lambda h, b: h + b[:-1], "5 splats are promised, 4 are there"),
    "header only": (lambda h, b: h, "5 splats are promised, 0 are there"),
    "huge count": (swapped(b"vertex 5", b"vertex 99999999999999"), "cut short"),
    "absurd count": (swapped(b"vertex 5", b"vertex " + b"9" * 5000), "its number of splats is"),
    "negative": (swapped(b"vertex 5", b"vertex -5"), "its number of splats is '-5'"),
    "none": (swapped(b"vertex 5", b"vertex 0"), "holds no splats"),
    "other first": (swapped(b"element vertex", b"element face 2\nelement vertex"), "not 'vertex'"),
    "no element": (swapped(b"element vertex 5\n", b""), "first element is not 'vertex'"),
    "no property": (edited(lambda h: h.replace(b"property", b"comment")), "have no properties"),
    "missing": (swapped(b"scale_1", b"other"), "it has no scale_1"),
    "integers": (swapped(b"float opacity", b"int opacity"), "opacity is stored as an integer"),
    "unknown type": (swapped(b"float opacity", b"half opacity"), "'property half opacity' does"),
    "list": (swapped(b"float nx", b"list uchar int nx"), "does not belong in the header"),
    "twice": (swapped(b"float nx", b"float x"), "'property float x' does not belong"),
    "strange sh": (swapped(b"nx", b"f_rest_0"), "it has 1 f_rest properties"),
    "gap in sh": (swapped(b"nx", b"f_rest_7"), "it has no f_rest_0"),
    "nan": (poisoned(1, np.nan), r"1 of 5 splats hold NaN.*the first is splat 3"),
    "nan opacity": (poisoned(9, np.nan), "1 of 5 splats hold NaN"),
    "infinite": (poisoned(0, np.inf), "1 of 5 splats hold NaN"),
    "exploding scale": (poisoned(10, 1000.0), "1 of 5 splats hold NaN"),
    "zero quaternion": (poisoned(slice(13, 17), 0.0), "or a zero quaternion"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(tmp_path: Path, name: str) -> None:
    write_ply(tmp_path / "a.ply", scene())
    head, mark, body = (tmp_path / "a.ply").read_bytes().partition(b"end_header\n")
    change, text = BAD_FILES[name]
    (tmp_path / "b.ply").write_bytes(change(head + mark, body))
    with pytest.raises(SceneError, match=text):
        read_ply(tmp_path / "b.ply")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="there is no such file"):
        read_ply(tmp_path / "nothing.ply")
    with pytest.raises(SceneError, match="cannot read"):
        read_ply(tmp_path)


@given(cut=st.integers(0, 640), flip=st.integers(0, 639), bit=st.integers(0, 7))
def test_damaged_files_give_splats_or_a_scene_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.ply"
    write_ply(path, scene())
    data = bytearray(path.read_bytes()[: 640 if cut < 5 else -cut])
    data[flip % len(data)] ^= 1 << bit
    path.write_bytes(data)
    try:
        splats = read_ply(path)
    except SceneError:
        return
    assert len(splats) >= 1 and torch.isfinite(splats.means).all()


# splat-transform (npm @playcanvas/splat-transform)


@pytest.mark.skipif(
    SPLAT_TRANSFORM is None,
    reason="no splat-transform: set SCENEGEN_SPLAT_TRANSFORM or put it on the PATH",
)
@pytest.mark.parametrize("k", [0, 15])
def test_splat_transform_reads_it(tmp_path: Path, k: int) -> None:
    assert SPLAT_TRANSFORM is not None
    want = scene(k)
    write_ply(tmp_path / "a.ply", want)
    for name in ("b.csv", "b.ply"):
        subprocess.run(
            [SPLAT_TRANSFORM, "-q", tmp_path / "a.ply", tmp_path / name], check=True, timeout=120
        )
    with (tmp_path / "b.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    table = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    order = np.lexsort(np.stack([table[n] for n in "zyx"]))
    ours = np.lexsort(want.means.numpy().T[::-1])
    positions = np.stack([table[n] for n in "xyz"], 1)[order]
    np.testing.assert_allclose(positions, want.means[ours], atol=1e-6)
    rgb = np.stack([table[f"f_dc_{i}"] for i in range(3)], 1)[order] * SH_C0 + 0.5
    np.testing.assert_allclose(rgb, want.colors[ours], atol=1e-6)
    back = read_ply(tmp_path / "b.ply")
    theirs = np.lexsort(back.means.numpy().T[::-1])
    assert_same(back[torch.from_numpy(theirs)], want[torch.from_numpy(ours)])
