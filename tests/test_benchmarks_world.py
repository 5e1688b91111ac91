"""The benchmark of worlds: its sheets and sums by hand, its poses by pictures of a known world."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

import scenegen
from benchmarks import world as benchmark
from benchmarks import world_drawn
from benchmarks.world_views import SIDE, Shot, compared, fit_scale, read_shots
from renderers import Camera, SceneError
from scenegen.export import write_png, write_transforms
from scenegen.training.shapes import Scene
from scenegen.training.tracks import Track
from scenegen.world import Measure


def test_a_scale_comes_back_from_pictures_of_the_world(grown_world: Path) -> None:
    """A view 5 cm to the right, said to be 0.02 units away: a unit is 2.5 m."""
    with closing(scenegen.open(grown_world)) as world:
        moved = world.camera0.moved(right=0.05)
        rgb = world.render(moved).rgb.cpu()
        said = world.camera0.moved(right=0.02)
        assert fit_scale(world, Shot(said, rgb)) == pytest.approx(2.5, rel=0.02)


def test_pictures_are_read_with_their_cameras_from_the_first_one(tmp_path: Path) -> None:
    start = Camera.from_fov(60.0, 2 * SIDE, SIDE).moved(right=3.0, yaw_degrees=40.0)
    cameras = [start, start.moved(forward=0.5, yaw_degrees=10.0)]
    write_transforms(tmp_path / "transforms.json", cameras, ["a.png", "b.png"])
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, torch.rand(SIDE, 2 * SIDE, 3))
    first, second = read_shots(tmp_path / "transforms.json")
    assert first.rgb.shape == (SIDE // 2, SIDE, 3)
    assert first.camera.fov_degrees == pytest.approx(60.0, abs=1e-3)
    torch.testing.assert_close(first.camera.cam_from_world, torch.eye(4), atol=1e-6, rtol=0)
    wanted = Camera.from_fov(60.0, 10, 5).moved(forward=0.5, yaw_degrees=10.0).cam_from_world
    torch.testing.assert_close(second.camera.cam_from_world, wanted, atol=1e-5, rtol=0)


def test_pictures_elsewhere_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_png(tmp_path / "secret.png", torch.rand(8, 8, 3))
    file = folder / "transforms.json"
    write_transforms(file, [Camera.from_fov(60.0, 8, 8)], ["a.png"])
    file.write_text(file.read_text().replace("a.png", "../secret.png"))
    with pytest.raises(SceneError, match="outside its folder"):
        read_shots(file)


def test_median_and_worst_over_photographs(capsys: pytest.CaptureFixture[str]) -> None:
    def of(psnr: float, holes: float) -> dict[str, Measure]:
        return {
            "source": Measure("source", psnr, "dB", 32.0, True, ""),
            "holes": Measure("holes", holes, "%", 2.0, False, ""),
        }

    found = {"a": of(40.0, 0.5), "b": of(31.0, 1.0), "c": of(33.0, 1.5)}
    assert benchmark._summed_up(found) == [True, False]
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["source", "33", "31", "dB", "(>=", "32)", "MISSED", "b"]
    assert second.split() == ["holes", "1", "1.5", "%", "(<=", "2)", "c"]


def test_a_sheet_shows_views_in_reading_order() -> None:
    views = [torch.full((3, 4, 3), level) for level in (0.2, 0.4, 0.6, 0.8)]
    page = benchmark._sheet(views)
    width, height = benchmark.SHEET_WIDTH, benchmark.SHEET_WIDTH * 3 // 4
    assert page.size == (3 * width, 2 * height)
    levels = [page.getpixel((width // 2 + x * width, height // 2)) for x in range(3)]
    assert levels == [(51,) * 3, (102,) * 3, (153,) * 3]
    assert page.getpixel((width // 2, height + height // 2)) == (204,) * 3
    assert page.getpixel((2 * width, 2 * height - 1)) == (0,) * 3


def test_one_world_says_its_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = torch.rand(64, 96, 3)
    pixels[:32] = torch.tensor([0.5, 0.7, 0.95])
    write_png(tmp_path / "photo.png", pixels)
    settings = benchmark.Settings("photo", "draft", depth="prior", outpaint="patch")
    benchmark.one(tmp_path / "photo.png", settings, tmp_path / "sheet.jpg")
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = [row["name"] for row in rows]
    assert names[:2] == ["create", "memory"] and "source view" in names
    assert (tmp_path / "sheet.jpg").is_file()


def test_a_world_beats_the_picture_that_it_was_made_of(
    grown_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own views are drawn as they are; the photograph from elsewhere is not what they show."""
    with closing(scenegen.open(grown_world)) as world:
        shots = []
        for step in (0.0, 0.15, 0.2, 0.3):
            rgb = world.render(world.camera0.moved(right=step)).rgb.cpu()
            shots.append(Shot(world.camera0.moved(right=step / 2), rgb))  # a unit is 2 m
        assert compared(world, shots, most=2, grow=False, lpips=None) == 0
        said = capsys.readouterr().out
        assert "one unit of the poses is 2 m" in said and "2 pictures" in said
        blank = [Shot(shot.camera, torch.rand_like(shot.rgb)) for shot in shots[2:]]
        assert compared(world, [*shots[:2], *blank], most=2, grow=False, lpips=None) == 1


def test_a_drawn_sequence_has_one_exposure_and_exact_cameras(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A course to the east, in a world that is twice as bright from the second picture on."""

    class Renderer:
        drawn = 0

        def load(self, scene: object) -> None: ...

        def draw(self, camera: Camera, light: object) -> tuple[np.ndarray, np.ndarray]:
            self.drawn += 1
            level = 0.2 if self.drawn == 1 else 0.4
            shape = camera.height, camera.width
            return np.full((*shape, 3), level, np.float32), np.ones(shape, np.float32)

    road = np.array([[float(x), 0.0, 0.0] for x in range(10)])
    monkeypatch.setattr(world_drawn, "missing_gl", lambda: None)
    monkeypatch.setattr(world_drawn, "missing_tracks", lambda: None)
    monkeypatch.setattr(world_drawn, "Licences", lambda file, gpl: None)
    monkeypatch.setattr(world_drawn, "read_track", lambda name, use: Track(name, Scene(), road))
    monkeypatch.setattr(world_drawn, "GlRenderer", Renderer)
    monkeypatch.setattr(world_drawn, "WIDTH", 96)
    monkeypatch.setattr(world_drawn, "HEIGHT", 72)
    assert world_drawn.drawn(tmp_path) == 0
    first, second, *others = read_shots(tmp_path / "transforms.json")
    assert len(others) == 12
    moved = torch.linalg.inv(second.camera.cam_from_world)[:3, 3]
    torch.testing.assert_close(moved, torch.tensor([0.4, 0.0, 0.0]), atol=1e-4, rtol=0)
    light = [-(1 - shot.rgb.double().mean() ** 2.2).log() for shot in (first, second)]
    assert float(light[0]) == pytest.approx(1.5 * 0.18 * 0.2 / 0.201, rel=0.02)
    assert float(light[1] / light[0]) == pytest.approx(2.0, rel=0.03)


def test_nothing_is_drawn_without_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_drawn, "missing_gl", lambda: None)
    monkeypatch.setattr(world_drawn, "missing_tracks", lambda: "supertuxkart-data is not installed")
    with pytest.raises(SceneError, match="a track cannot be read"):
        world_drawn.drawn(tmp_path)
