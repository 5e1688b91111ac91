"""The loop end to end on a small photograph: events, journal, reopening, growing, crashes."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scenegen
from renderers import SceneError, make_renderer
from scenegen.world import Committed, Finished, Loaded, Planned, Retrieved, Scaled, Skipped

SETTINGS = {
    **{"quality": "draft", "depth": "prior", "outpaint": "patch", "renderer": "cpu"},
    "layers": False,  # see test_layers.py
}


def write_photo(path: Path, width: int = 256, height: int = 192) -> Path:
    """A bright sky, a red house on the left, a blue one on the right, a paved ground."""
    generator = torch.Generator().manual_seed(11)
    image = torch.empty(height, width, 3)
    image[:] = torch.tensor([0.55, 0.75, 0.98])
    image[height // 4 : 5 * height // 8, : width // 3] = torch.tensor([0.7, 0.2, 0.15])
    image[height // 4 : 5 * height // 8, 2 * width // 3 :] = torch.tensor([0.15, 0.25, 0.6])
    image[5 * height // 8 :] = torch.tensor([0.45, 0.42, 0.38])
    speckle = 0.05 * torch.randn(height // 4, width // 4, 1, generator=generator)
    speckle = speckle.repeat_interleave(4, 0).repeat_interleave(4, 1)
    image = (image + speckle).clamp(0, 1)
    Image.fromarray((image.numpy() * 255).astype("uint8")).save(path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photo(tmp_path_factory.mktemp("photo") / "house.png")


@pytest.fixture(scope="module")
def made(photo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list]:
    """A world with two grown steps, and the events of its making."""
    folder = tmp_path_factory.mktemp("worlds") / "house"
    events = list(scenegen.create_events(photo, folder, extent="photo", **SETTINGS))
    world = scenegen.open(folder)
    camera = world.camera0
    path = [camera.moved(right=0.3), camera, camera.moved(yaw_degrees=15)]
    events += list(world.grow(path))
    world.close()
    return folder, events


@pytest.fixture
def copied(made: tuple[Path, list], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0], tmp_path / "copy"))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean()))


def test_events_tell_the_story_in_order(made: tuple[Path, list]) -> None:
    names = [type(event).__name__ for event in made[1]]
    assert names == [
        "Loaded", "Scaled", "Committed", "Finished",
        "Planned", "Retrieved", "Committed", "Skipped", "Retrieved", "Committed", "Finished",
    ]  # fmt: skip
    loaded, scaled, first = made[1][:3]
    assert isinstance(loaded, Loaded) and "usual lens assumed" in str(loaded)
    assert isinstance(scaled, Scaled) and "ground supposed 1.6 m below" in str(scaled)
    assert isinstance(first, Committed) and first.step == 0
    assert isinstance(made[1][4], Planned) and len(made[1][4].cameras) == 3
    retrieved = made[1][5]
    assert isinstance(retrieved, Retrieved) and retrieved.view_ids == (0,)
    assert retrieved.coverage > 0.5
    skipped = made[1][7]
    assert isinstance(skipped, Skipped) and skipped.hole_share < 0.001
    assert isinstance(made[1][-1], Finished) and made[1][-1].steps == 3
    assert all(str(event) for event in made[1])


def test_the_photograph_comes_back_from_its_own_camera(
    made: tuple[Path, list], photo: Path
) -> None:
    world = scenegen.open(made[0])
    picture = torch.from_numpy(np.array(Image.open(photo))).float() / 255
    render = world.render(world.camera0)
    assert render.rgb.shape == picture.shape
    assert psnr(render.rgb, picture) > 30
    assert render.alpha.min() > 0.95
    assert torch.isposinf(render.depth[4, 100:156]).all()  # sky
    assert 1.5 < float(render.depth[-2, 128]) < 5  # the ground near the feet


def test_eye_height_sets_the_size_of_the_world_and_is_stated(photo: Path, tmp_path: Path) -> None:
    """The prior's ground is a plane below the camera: at twice the height it is twice as far.

    28 mm equivalent on 4:3 is a focal length of 256 * 28 / (0.8 * 43.27) = 207.1 px. The sky ends
    at row 120, below the middle: all but 2 % of its 18,400 pixels, 85 a row there, lie above row
    116, the horizon. The centre of row 190 is 74.5 px below: 0.8 * 207.1 / 74.5 = 2.224 m away.
    """
    worlds = {
        height: scenegen.create(
            photo, tmp_path / f"{height}", extent="photo", eye_height=height, **SETTINGS
        )
        for height in (0.8, 1.6)
    }
    low, high = (world.render(world.camera0).depth[190, 128] for world in worlds.values())
    assert float(low) == pytest.approx(2.224, rel=0.02)
    assert float(high / low) == pytest.approx(2.0, rel=0.02)
    world = worlds[0.8]
    assert world.eye_height == world.settings["eye_height"] == 0.8
    assert "0.8 m below the camera" in world.settings["scale_source"]
    assert "usual lens assumed" in world.settings["scale_source"]
    assert world.settings["scale_source"] in (world.folder / "README.txt").read_text()


def test_an_eye_height_of_nobody_is_refused_before_anything_is_written(
    photo: Path, tmp_path: Path
) -> None:
    for height in (0.0, -1.0, 1e6, math.nan):
        with pytest.raises(SceneError, match="is not one of a photograph"):
            scenegen.create(photo, tmp_path / "w", eye_height=height, **SETTINGS)
    assert not (tmp_path / "w").exists()


def test_growth_fills_what_the_path_uncovers_and_leaves_the_photograph(
    made: tuple[Path, list],
) -> None:
    world = scenegen.open(made[0])
    turned = world.camera0.moved(yaw_degrees=15)
    grown = world.render(turned)
    assert float((grown.alpha < 0.7).float().mean()) < 0.01
    photograph, renderer = world.chunks[0], make_renderer("cpu")
    assert float((renderer.render(photograph, turned).alpha < 0.7).float().mean()) > 0.1
    before = renderer.render(photograph, world.camera0)
    at_home = psnr(world.render(world.camera0).rgb, before.rgb)
    assert at_home > 35  # observed pixels are not painted over


def test_what_is_new_renders_as_it_was_painted(grown_world: Path) -> None:
    """36.9 dB where each new splat has the colour of its pixel, and blurs into its neighbours."""
    with closing(scenegen.open(grown_world)) as world:
        *_, last = world.memory.views
        view = world.memory.views[last]
        assert view.provenance == "generated" and view.known.float().mean() > 0.2
        off = (world.render(view.camera).rgb - view.rgb)[view.known]
        assert -10 * math.log10(float((off**2).mean())) > 41


def test_a_reopened_world_is_the_same_to_the_bit(made: tuple[Path, list], copied: Path) -> None:
    first, second = scenegen.open(made[0]), scenegen.open(copied)
    assert [step.id for step in first.steps] == [0, 1, 2]
    assert [step.parent for step in first.steps] == [None, 0, 1]
    assert [step.provenance for step in first.steps] == ["observed", "generated", "generated"]
    assert len(first.memory.views) == 3 and len(first.memory.surfels) > 100
    camera = first.camera0.moved(forward=0.4, yaw_degrees=7)
    assert torch.equal(first.render(camera).rgb, second.render(camera).rgb)
    assert first.memory.retrieve([camera]).view_ids == second.memory.retrieve([camera]).view_ids


def test_the_same_seed_makes_the_same_world(photo: Path, tmp_path: Path) -> None:
    worlds = [
        scenegen.create(photo, tmp_path / name, extent="photo", seed=4, **SETTINGS)
        for name in ("a", "b")
    ]
    for world in worlds:
        list(world.grow([world.camera0.moved(yaw_degrees=12)]))
    assert torch.equal(worlds[0].splats.means, worlds[1].splats.means)
    assert torch.equal(worlds[0].splats.colors, worlds[1].splats.colors)


def test_the_journal_says_how_each_step_was_made(made: tuple[Path, list]) -> None:
    world = scenegen.open(made[0])
    info = world.steps[2].info
    assert info["depth"] == "prior" and info["outpaint"] == "patch"
    assert info["retrieved"]["view_ids"][0] in (0, 1)
    assert set(info["retrieved"]["reasons"]) >= {str(i) for i in info["retrieved"]["view_ids"]}
    assert info["fit"]["scale"] > 0 and info["seconds"] > 0
    assert world.settings["photo"] == "house.png"
    assert (made[0] / "README.txt").read_text().startswith("This folder is a 3D world")


def test_named_paths_continue_from_where_the_world_ends(copied: Path) -> None:
    world = scenegen.open(copied)
    turned = world.camera0.moved(yaw_degrees=15)  # where the last walk of the fixture ended
    torch.testing.assert_close(world.walker.cam_from_world, turned.cam_from_world)
    list(world.grow("left", 0.3))
    world.close()
    expected = turned.moved(right=-0.3).cam_from_world
    torch.testing.assert_close(scenegen.open(copied).walker.cam_from_world, expected)


def test_views_of_the_extent_are_no_walk(photo: Path, tmp_path: Path) -> None:
    """Else `grow --path forward` would start from the last view that `look` had planned."""
    world = scenegen.create(photo, tmp_path / "w", extent="photo", **SETTINGS)
    list(world.visit([world.camera0.moved(yaw_degrees=12)]))
    assert torch.equal(world.walker.cam_from_world, world.camera0.cam_from_world)


def test_stopping_half_way_keeps_what_was_committed(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    for event in scenegen.create_events(photo, folder, extent="look", **SETTINGS):
        if isinstance(event, Committed) and event.step == 1:
            break
    world = scenegen.open(folder)
    assert len(world.steps) == 2
    assert len(list(world.grow([world.camera0.moved(yaw_degrees=10)]))) >= 3


def test_killing_the_process_loses_at_most_the_step_in_flight(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    code = (
        "import os, scenegen\n"
        "from scenegen.world import stepfiles\n"
        "rename = stepfiles.Path.rename\n"
        "def die(self, target):\n"
        "    rename(self, target)\n"
        "    if target.name == '0001': os._exit(9)\n"  # after the folder, before the journal
        "stepfiles.Path.rename = die\n"
        f"settings = {SETTINGS!r}\n"
        f"for e in scenegen.create_events({str(photo)!r}, {str(folder)!r}, **settings): pass\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 9, result.stderr
    assert (folder / "steps" / "0001").is_dir()
    (folder / "steps" / ".0007.part").mkdir()  # and one that was killed earlier still
    world = scenegen.open(folder)
    assert len(world.steps) == 1
    assert len(list(world.grow([world.camera0.moved(yaw_degrees=10)]))) >= 3
    world.close()
    assert sorted(path.name for path in (folder / "steps").iterdir()) == ["0000", "0001"]
    again = scenegen.open(folder)
    assert len(again.steps) == 2 and len(again.chunks[1]) > 100


def test_reading_a_world_does_not_disturb_who_writes_it(photo: Path, tmp_path: Path) -> None:
    """A second process opens the world at the moment when a step lies half written."""
    folder = tmp_path / "busy"
    world = scenegen.create(photo, folder, extent="photo", **SETTINGS)
    in_flight = folder / "steps" / ".0001.part"
    in_flight.mkdir()
    (in_flight / "splats.safetensors").write_bytes(b"half")
    scenegen.open(folder).close()
    assert (in_flight / "splats.safetensors").read_bytes() == b"half"
    list(world.grow([world.camera0.moved(yaw_degrees=10)]))
    assert len(scenegen.open(folder).steps) == 2


def test_a_budget_that_no_photograph_fits_is_refused(photo: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="a budget of 5000 splats is too small"):
        scenegen.create(photo, tmp_path / "w", budget=5000)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "steps/0001/view.safetensors").unlink(), "step 1 .* is damaged"),
        (lambda f: (f / "steps/0001/splats.safetensors").write_bytes(b"\x00" * 64), "is damaged"),
        (lambda f: overwrite_journal(f), "(?s)is not a database.*scenegen repair"),
        (lambda f: shutil.rmtree(f / "steps"), "is damaged"),
        (lambda f: set_format(f, 99), "reads up to 3"),
    ],
)
def test_damaged_worlds_say_so(copied: Path, damage: Callable, message: str) -> None:
    damage(copied)
    with pytest.raises(SceneError, match=message):
        scenegen.open(copied)


def overwrite_journal(folder: Path) -> None:
    """Its write-ahead log goes too: while that is there, SQLite restores the journal from it."""
    (folder / "world.db").write_bytes(b"not a database at all" * 50)
    for log in folder.glob("world.db-*"):
        log.unlink()


def test_a_journal_comes_back_from_its_log(copied: Path, tmp_path: Path) -> None:
    steps = len(scenegen.open(copied).steps)
    connection = sqlite3.connect(copied / "world.db")
    connection.execute("VACUUM")  # writes every page, and into the log alone
    damaged = Path(shutil.copytree(copied, tmp_path / "damaged"))
    connection.close()
    (damaged / "world.db").write_bytes(b"not a database at all" * 50)
    assert len(scenegen.open(damaged).steps) == steps


def set_format(folder: Path, version: int) -> None:
    connection = sqlite3.connect(folder / "world.db")
    connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (json.dumps(version),))
    connection.commit()
    connection.close()


def test_not_a_world(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="there is no such folder"):
        scenegen.open(tmp_path / "nowhere")
    with pytest.raises(SceneError, match="there is no world"):
        scenegen.open(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": "best"}, "unknown depth backend"),
        ({"outpaint": "best"}, "unknown outpaint backend"),
        ({"renderer": "best"}, "unknown renderer backend"),
        ({"quality": "best"}, "unknown quality"),
        ({"extent": "everything"}, "unknown extent"),
        ({"fov": 300.0}, "not one of a photograph"),
        ({"colour": "red"}, "unknown setting 'colour'"),
    ],
)
def test_bad_settings_leave_nothing_behind(
    photo: Path, tmp_path: Path, settings: dict, message: str
) -> None:
    with pytest.raises(SceneError, match=message):
        scenegen.create(photo, tmp_path / "world", **settings)
    assert not (tmp_path / "world").exists()


def test_a_taken_folder_is_left_alone(photo: Path, made: tuple[Path, list], tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(SceneError, match="it holds other files"):
        scenegen.create(photo, tmp_path, **SETTINGS)
    with pytest.raises(SceneError, match="already holds a world"):
        scenegen.create(photo, made[0], **SETTINGS)
    with pytest.raises(SceneError, match="it is a file"):
        scenegen.create(photo, photo, **SETTINGS)
    with pytest.raises(SceneError, match="not a folder that may be written to"):
        scenegen.create(photo, tmp_path / "diary.txt" / "world", **SETTINGS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["diary.txt"]


def test_a_read_only_place_is_noticed_before_the_work(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o555)
    if os.access(tmp_path, os.W_OK):  # root writes everywhere
        monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(SceneError, match="may be written to"):
        scenegen.create(photo, tmp_path / "world", **SETTINGS)
    tmp_path.chmod(0o755)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="mounting a small file system needs root",
)
def test_a_full_disk_is_an_error_and_leaves_nothing(photo: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow mounts")
    try:
        with pytest.raises(SceneError, match="disk has room"):
            scenegen.create(photo, disk / "world", extent="photo", **SETTINGS)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_view_that_shows_nothing_known_is_refused(copied: Path) -> None:
    world = scenegen.open(copied)
    with pytest.raises(SceneError, match="smaller steps or turns"):
        list(world.grow([world.camera0.moved(yaw_degrees=180)]))


def test_depth_of_sky_and_nothing(made: tuple[Path, list]) -> None:
    world = scenegen.open(made[0])
    behind = world.render(world.camera0.moved(yaw_degrees=180))
    assert torch.isnan(behind.depth).all() and math.isclose(float(behind.alpha.max()), 0.0)


def test_the_networks_give_the_same_bytes_for_any_number_of_threads(tmp_path: Path) -> None:
    """With the depth and the outpainter that come with the install."""
    photo, before, made = write_photo(tmp_path / "house.png", 128, 96), torch.get_num_threads(), []
    settings = {**SETTINGS, "depth": "dpt", "outpaint": "own", "extent": "photo", "layers": True}
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            world = scenegen.create(photo, tmp_path / str(threads), **settings)
            list(world.grow([world.camera0.moved(yaw_degrees=15)]))
            made.append([step.files for step in world.steps])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(made[0]) == 3 and made[0] == made[1]
