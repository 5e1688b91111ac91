"""Worlds that begin with splats of others, take in second worlds, and grow places anew."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli import fails
from test_world_edits import HOUSE, reopened, same

import scenegen
from benchmarks import journal
from renderers import Camera, SceneError, Splats
from scenegen import cli
from scenegen.config import ImportConfig
from scenegen.export import write_ply, write_transforms
from scenegen.export.placement import Y_UP, Z_UP, Placement
from scenegen.world import import_splats, pose_at, pose_from, remake
from scenegen.world.events import Erased

PLAIN: dict[str, Any] = {"depth": "prior", "outpaint": "patch", "renderer": "cpu"}


def wall() -> Splats:
    """A wall 2.4 m wide and 1.8 m high, 2 m ahead; red to the right and green downwards."""
    y, x = torch.meshgrid(
        torch.linspace(-0.9, 0.9, 37), torch.linspace(-1.2, 1.2, 49), indexing="ij"
    )
    means = torch.stack([x, y, torch.full_like(x, 2.0)], -1).reshape(-1, 3)
    count = len(means)
    return Splats(
        means,
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        torch.tensor([[0.04, 0.04, 0.001]]).repeat(count, 1),
        torch.full((count,), 0.99),
        torch.stack([means[:, 0] / 3 + 0.5, means[:, 1] / 3 + 0.5, torch.full((count,), 0.2)], -1),
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_ply(tmp_path / "wall.ply", wall())
    return tmp_path / "wall.ply"


@pytest.fixture
def cameras(tmp_path: Path) -> Path:
    """Two small views, the second one a step aside."""
    first = Camera.from_fov(60.0, 96, 72)
    write_transforms(tmp_path / "cameras.json", [first, first.moved(right=0.2)])
    return tmp_path / "cameras.json"


def test_a_file_of_splats_becomes_a_world_that_grows(
    file: Path, cameras: Path, tmp_path: Path
) -> None:
    world = import_splats(file, tmp_path / "w", ImportConfig(camera=cameras, **PLAIN))
    assert [step.provenance for step in world.steps] == ["imported"] * 2
    assert [len(chunk) for chunk in world.chunks] == [49 * 37, 0]
    view = world.memory.views[0]
    shown = view.known[30:40, 40:50]
    assert shown.all() and torch.allclose(view.depth[30:40, 40:50], torch.tensor(2.0), atol=0.02)
    assert (view.rgb - world.render(world.camera0).rgb).abs()[view.known].max() < 0.03
    surfels = world.memory.surfels
    points, radii = torch.from_numpy(surfels.points), torch.from_numpy(surfels.radii)
    assert points[:, 2].min() > 1.9
    mapped = (torch.cdist(wall().means, points) <= radii).any(1)
    assert mapped.float().mean() > 0.95  # of all that is on the wall, its rim included
    assert set(world.provenance()["origin"].tolist()) == {2}
    with pytest.raises(SceneError, match="cannot undo"):
        world.undo()
    list(world.grow([world.camera0.moved(right=0.4, yaw_degrees=15)]))
    assert world.steps[-1].provenance == "generated" and len(world.chunks[-1]) > 100
    assert same(world, again := reopened(world))
    assert [one.difference for one in remake(again)] == [None] * 3


@pytest.mark.parametrize(("up", "axes"), [("y", Y_UP), ("z", Z_UP)])
def test_other_axes_and_units_are_turned_to_ours(up: str, axes: tuple, tmp_path: Path) -> None:
    """The same wall in a file of other axes, in decimetres; the cameras are those of the file."""
    write_ply(tmp_path / "turned.ply", Placement(axes, 10.0).splats(wall()))
    turn = torch.tensor(axes, dtype=torch.float32)
    pose = torch.eye(4)
    pose[:3, :3] = turn.T
    home = Camera.from_fov(60.0, 96, 72)
    write_transforms(tmp_path / "cameras.json", [home.posed(pose)])
    config = ImportConfig(camera=tmp_path / "cameras.json", up=up, scale=0.1, **PLAIN)  # type: ignore[arg-type]
    world = import_splats(tmp_path / "turned.ply", tmp_path / "w", config)
    assert torch.allclose(world.splats.means, wall().means, atol=1e-5)
    assert torch.allclose(world.camera0.cam_from_world, torch.eye(4), atol=1e-6)


def test_without_cameras_one_stands_at_the_origin_and_turns(file: Path, tmp_path: Path) -> None:
    argv = ["import", file, tmp_path / "w", "--quality", "draft", "--depth", "prior"]
    assert cli.main([str(word) for word in [*argv, "--outpaint", "patch"]]) == 0
    world = scenegen.open(tmp_path / "w")
    assert (world.camera0.width, world.camera0.height) == (512, 384)
    assert torch.equal(world.camera0.cam_from_world, torch.eye(4)) and len(world.steps) >= 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--scale", "0"], "a scale of 0"),
        (["--scale", "nan"], "a scale of nan"),
        (["--fov", "200"], "a field of view of 200"),
        (["--up", "y"], "sees nothing of wall.ply"),
        (["--camera", "nowhere.json"], "no such file"),
        (["--eye-height", "-1"], "eye"),
        (["--depth", "nothing"], "nothing"),
    ],
)
def test_what_makes_no_world_leaves_nothing(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    argv = ["import", file, tmp_path / "w", "--quality", "draft", "--renderer", "cpu"]
    given = argv if "--depth" in words else [*argv, "--depth", "prior"]
    assert says in fails(capsys, *given, "--outpaint", "patch", *words)
    assert not (tmp_path / "w").exists()


def test_a_file_that_is_none_and_a_folder_that_is_taken(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.ply").write_bytes(b"ply\nnot at all")
    fails(capsys, "import", tmp_path / "bad.ply", tmp_path / "w", *_words())
    fails(capsys, "import", tmp_path / "none.spz", tmp_path / "w", *_words())
    assert "cannot become a world" in fails(capsys, "import", file, tmp_path, *_words())


def _words() -> list[str]:
    return ["--depth", "prior", "--outpaint", "patch", "--renderer", "cpu"]


def test_places_by_hand_and_by_law(tmp_path: Path) -> None:
    """2 m ahead of a world that is twice as large, stands at (1, 0, 0) and looks to the right."""
    pose = pose_at((1.0, 0.0, 0.0), 90.0, 2.0)
    assert torch.allclose(
        pose.splats(wall()).means.mean(0), torch.tensor([5.0, 0.0, 0.0]), atol=1e-5
    )
    camera = Camera.from_fov(50.0, 64, 48).moved(right=0.3, yaw_degrees=20, pitch_degrees=5)
    points = wall().means
    moved = pose.splats(wall()).means
    (px, depth), (px2, depth2) = camera.project(points), pose.camera(camera).project(moved)
    assert torch.allclose(px, px2, atol=1e-3) and torch.allclose(2 * depth, depth2, atol=1e-4)
    home = Camera.from_fov(50.0, 64, 48).moved(right=1.0, yaw_degrees=90.0)
    write_transforms(tmp_path / "pose.json", [home])
    read = pose_from(tmp_path / "pose.json", 2.0)
    assert torch.allclose(read.rotation, pose.rotation, atol=1e-6)
    assert torch.allclose(read.place, pose.place, atol=1e-6)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(SceneError, match="no place for a world"):
            pose_at(scale=bad)


def test_a_second_world_is_one_change(tmp_path: Path, grown_world: Path) -> None:
    world = journal.begin(tmp_path / "one")
    journal.add(world, 1)
    other = scenegen.open(grown_world)
    before = len(world.splats), len(world.memory.surfels)
    steps = world.merge(other, pose_at((2.0, 0.0, 1.0), 30.0, 0.5))
    assert [step.id for step in steps] == [2, 3, 4] and world.head == 4
    assert list(world.memory.views) == [0, 1, 2, 3, 4]
    assert [world.memory.views[i].provenance for i in (2, 3)] == ["observed", "generated"]
    assert len(world.splats) > before[0] and len(world.memory.surfels) > before[1] + 100
    assert steps[1].info["merged"]["seal"] == other.journal.seals[1]
    ours, theirs = world.memory.views[3], other.memory.views[1]
    assert torch.equal(ours.rgb, theirs.rgb)
    assert torch.equal(ours.depth, 0.5 * theirs.depth) or ours.depth.isnan().any()
    assert same(world, again := reopened(world))
    assert [entry.id for entry in again.undo()] == [4, 3, 2] and again.head == 1
    assert (len(again.splats), len(again.memory.surfels)) == before
    assert [entry.id for entry in again.redo()] == [2, 3, 4]
    assert same(again, reopened(again))
    with pytest.raises(SceneError, match="beyond the sky"):
        scenegen.open(tmp_path / "one").merge(other, pose_at((500.0, 0.0, 0.0)))


def test_a_merge_that_fails_leaves_nothing(
    tmp_path: Path, grown_world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, other = journal.begin(tmp_path / "one"), scenegen.open(grown_world)
    write, written = world._store.files.write, []

    def full(number: int, contents: dict[str, bytes]) -> None:
        if number == 2:
            raise OSError(28, "No space left on device")
        written.append(number)
        write(number, contents)

    monkeypatch.setattr(world._store.files, "write", full)
    with pytest.raises(SceneError, match="No space left"):
        world.merge(other, pose_at())
    assert written == [1] and [path.name for path in (tmp_path / "one/steps").iterdir()] == ["0000"]
    assert world.head == 0 and same(world, scenegen.open(tmp_path / "one"))


def test_a_place_is_grown_anew_in_one_change(grown_world: Path, tmp_path: Path) -> None:
    world = scenegen.open(shutil.copytree(grown_world, tmp_path / "w"))
    before, count = world.render(world.camera0).rgb, len(world.steps)
    erased, *_ = list(world.regenerate(HOUSE))
    assert isinstance(erased, Erased) and erased.splats > 100
    assert len(world.steps) > count and world.render(world.camera0).alpha.min() > 0.5
    after = world.render(world.camera0).rgb
    assert not torch.equal(before, after)
    assert [one.difference for one in remake(world)] == [None] * len(world.journal.path(world.head))
    assert world.undo()[-1].id == 3 and world.head == 2
    assert torch.equal(world.render(world.camera0).rgb, before)
    world.redo()
    assert torch.equal(reopened(world).render(world.camera0).rgb, after)


def test_commands(
    grown_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cameras: Path
) -> None:
    one, two = (shutil.copytree(grown_world, tmp_path / name) for name in "ab")
    assert cli.main(["merge", str(one), str(two), "--at", "3", "0", "2", "--yaw", "90"]) == 0
    assert "steps 3 to 5: 3 views" in capsys.readouterr().out
    assert "--pose, and --at" in fails(capsys, "merge", one, two, "--yaw", 9, "--pose", cameras)
    box = [str(value) for corner in HOUSE for value in corner]
    assert cli.main(["memory", "erase", str(two), "--box", *box, "--regenerate"]) == 0
    assert "splats added" in capsys.readouterr().out
