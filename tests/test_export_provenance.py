"""Where splats come from, in a .ply: written, read back, ignored by others, and hostile files."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import gsply
import numpy as np
import plyfile
import pytest
import torch
from other_programs import needs, splat_transform
from splat_scenes import cloud

import scenegen
from renderers import SceneError
from scenegen import cli
from scenegen.export import ExportOptions, export_file, read_ply, read_provenance, write_ply

SAID = {
    "step": torch.tensor([1, 1, 2, 7, 1 << 24], dtype=torch.int32),
    "origin": torch.tensor([0, 0, 1, 1, 2], dtype=torch.uint8),
}


def test_it_comes_back_and_the_splats_do_too(tmp_path: Path) -> None:
    """More than a block of rows, in the order of the splats."""
    scene, step = cloud(70_000, degree=1), torch.arange(70_000, dtype=torch.int32)
    write_ply(tmp_path / "a.ply", scene, {"step": step, "origin": (step % 3).to(torch.uint8)})
    back = read_provenance(tmp_path / "a.ply")
    assert back is not None and set(back) == {"step", "origin"}
    assert torch.equal(back["step"], step) and torch.equal(back["origin"], step % 3)
    torch.testing.assert_close(read_ply(tmp_path / "a.ply").means, scene.means)
    write_ply(tmp_path / "b.ply", scene)
    assert read_provenance(tmp_path / "b.ply") is None


@needs("@playcanvas/splat-transform")
def test_splat_transform_reads_past_it(tmp_path: Path) -> None:
    scene = cloud(5, degree=1)
    write_ply(tmp_path / "a.ply", scene, SAID)
    splat_transform(tmp_path / "a.ply", tmp_path / "b.csv")
    with (tmp_path / "b.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    got = np.array([[float(row[axis]) for axis in "xyz"] for row in rows])
    distance = np.linalg.norm(got[:, None] - scene.means.numpy(), axis=2)
    assert sorted(distance.argmin(1)) == list(range(5)) and distance.min(1).max() < 1e-5


def test_plyfile_and_gsply_read_it_and_past_it(tmp_path: Path) -> None:
    scene = cloud(5, degree=1)
    write_ply(tmp_path / "a.ply", scene, SAID)
    vertex = plyfile.PlyData.read(tmp_path / "a.ply")["vertex"]
    assert vertex["provenance_step"].tolist() == [1, 1, 2, 7, 1 << 24]
    assert vertex["provenance_origin"].tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_allclose(gsply.plyread(tmp_path / "a.ply").means, scene.means)


def test_the_command_line_writes_what_the_world_knows(grown_world: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.ply"
    box = ["--crop", "-1", "-9", "0", "1", "9", "99"]
    assert cli.main(["export", str(grown_world), str(out), "--provenance", *box]) == 0
    world = scenegen.open(grown_world)
    x = world.splats.means[:, 0]
    z = world.splats.means[:, 2]
    kept = (x.abs() <= 1) & (world.splats.means[:, 1].abs() <= 9) & (z >= 0) & (z <= 99)
    back, want = read_provenance(out), world.provenance()
    assert back is not None and 0 < len(back["step"]) < len(kept)
    assert torch.equal(back["step"], want["step"][kept])
    assert torch.equal(back["origin"], want["origin"][kept].int())
    assert set(back["origin"].tolist()) == {0, 1}
    world.close()


def test_where_it_has_no_place_it_is_refused(tmp_path: Path) -> None:
    asked = ExportOptions(provenance=True)
    for name in ("a.spz", "a.glb"):
        with pytest.raises(SceneError, match=f"{name[1:]} has no place for it"):
            export_file(tmp_path / name, splats=cloud(5), options=asked, provenance=SAID)
    with pytest.raises(SceneError, match="none is given"):
        export_file(tmp_path / "a.ply", splats=cloud(5), options=asked)
    with pytest.raises(SceneError, match="merged splats have no one provenance"):
        ExportOptions(provenance=True, splats=10)
    assert list(tmp_path.iterdir()) == []


def poisoned(value: float) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        head, mark, body = data.partition(b"end_header\n")
        rows = np.frombuffer(body, "<f4").reshape(5, -1).copy()
        rows[2, -2] = value
        return head + mark + rows.tobytes()

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (poisoned(np.nan), "not a whole number"),
        (poisoned(-1.0), "not a whole number"),
        (poisoned(0.5), "not a whole number"),
        (poisoned(1e30), "not a whole number"),
        (lambda data: data[:-1], "cut short"),
        (lambda data: data.replace(b"float provenance_step", b"list uchar int step"), "not belong"),
        (lambda data: b"PK" + data, "not a PLY file"),
    ],
)
def test_bad_provenance_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes], text: str
) -> None:
    write_ply(tmp_path / "a.ply", cloud(5), SAID)
    (tmp_path / "b.ply").write_bytes(change((tmp_path / "a.ply").read_bytes()))
    with pytest.raises(SceneError, match=text):
        read_provenance(tmp_path / "b.ply")
