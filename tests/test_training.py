"""Training: the whole recipe in small, exact pictures, and the laws of what is learnt."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from renderers import Camera, SceneError
from scenegen.fields import normalised
from scenegen.geometry.dpt import DepthLayout, DepthNetwork, DepthPrediction, outline_image
from scenegen.geometry.weights import load_depth_network
from scenegen.models.weights import read_card
from scenegen.training import drawing, train_depth
from scenegen.training.__main__ import main
from scenegen.training.boxes import BoxWorld
from scenegen.training.evaluation import compare
from scenegen.training.fitting import predict
from scenegen.training.frames import frame_notes, read_frame
from scenegen.training.furniture import missing_furniture
from scenegen.training.gl import GlRenderer
from scenegen.training.lens import develop, jpeg
from scenegen.training.licences import Licences, is_taken
from scenegen.training.light import daylight, look
from scenegen.training.losses import depth_loss
from scenegen.training.probe import fit_room, solve_ridge
from scenegen.training.progress import Deadline
from scenegen.training.recipe import DepthRecipe, smoke_recipe
from scenegen.training.shapes import Array, Scene, quad, standing_ball, standing_box, standing_tube
from scenegen.training.tokens import Sample, TokenStore
from scenegen.training.tracks import COPYRIGHT, missing_tracks, read_track

SMALL = DepthRecipe(
    smoke=True, frames=16, head_samples=64, blocks_samples=16, batch=8, device="cpu"
)


@pytest.fixture
def no_backbone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing was pulled."""
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path / "no-models"))


@pytest.fixture(scope="module")
def gl() -> Iterator[GlRenderer]:
    try:
        yield GlRenderer()
    except SceneError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("no_backbone")
def test_smoke_runs_the_whole_recipe_and_says_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    small = ["--frames", "48", "--head-samples", "320", "--blocks-samples", "32", "--device", "cpu"]
    assert main(["depth", "--smoke", "--out", str(out), *small]) == 0
    said = capsys.readouterr().out
    assert "boxes drawn in software, no rooms or tracks" in said
    assert "tiny untrained branches, because the weights of DINOv2" in said
    for step in ("render 48/48", "probe", "head 320/320", "blocks 32/32", "evaluate", "export 1/1"):
        assert step in said
    network = load_depth_network(out / "depth.safetensors")
    card = read_card(out / "depth.safetensors")
    assert card["started_from"] == "random weights" and "worth nothing" in card["warning"]
    assert card["data"][0]["frames"] == 48 and card["data"][0]["held_out_frames"] == 12
    quality = card["quality_in_held_out_worlds"]["boxes"]
    assert quality[card["stage"]]["delta1"] > quality["constant"]["delta1"]
    with torch.no_grad():
        assert torch.isfinite(network(torch.rand(1, 3, 84, 112)).disparity).all()

    assert main(["depth", "--smoke", "--out", str(out), *small]) == 2
    assert "holds a training already" in capsys.readouterr().err
    assert main(["depth", "--smoke", "--out", str(out), *small, "--resume", "--seed", "1"]) == 2
    assert "of another recipe" in capsys.readouterr().err


@pytest.mark.usefixtures("no_backbone")
def test_a_training_in_pieces_is_the_same_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Cut every 7 times that somebody asks whether the time is over."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    list(train_depth(SMALL, whole))
    runs, asked = 0, itertools.count(1)

    def passed(deadline: Deadline) -> bool:
        if next(asked) % 7 == 0:
            deadline.end = 0.0
        return deadline.end == 0.0

    monkeypatch.setattr(Deadline, "passed", passed)
    while not (pieces / "depth.safetensors").exists():
        last = list(train_depth(SMALL, pieces, resume=runs > 0))[-1]
        runs += 1
        assert runs < 12
        assert last.step == "export" or "go on with --resume" in last.text
    assert runs > 2
    same = [(f / "depth.safetensors").read_bytes() for f in (whole, pieces)]
    assert same[0] == same[1]


@pytest.mark.usefixtures("no_backbone")
def test_steps_out_of_order_say_what_to_run_first(tmp_path: Path) -> None:
    for step, match in (
        ("tokens", "worlds are still to be drawn"),
        ("probe", "run the steps `render` and `tokens` first"),
        ("head", "run the step `probe` first"),
        ("blocks", "run the step `probe` first"),
        ("evaluate", "run the steps `render` and `tokens` first"),
        ("export", "run the steps `head` and `evaluate` first"),
    ):
        with pytest.raises(SceneError, match=match):
            list(train_depth(SMALL, tmp_path, step, resume=True))


@pytest.mark.usefixtures("no_backbone")
def test_without_the_backbone_only_smoke_runs(tmp_path: Path) -> None:
    recipe = replace(DepthRecipe(), frames=0)
    with pytest.raises(SceneError, match="scenegen models pull dinov2-s"):
        list(train_depth(recipe, tmp_path, "tokens"))


def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drawing, "missing_gl", lambda: None)
    monkeypatch.setattr(drawing, "missing_tracks", lambda: "supertuxkart-data is not installed")
    monkeypatch.setattr(drawing, "missing_furniture", lambda: None)
    assert main(["depth", "--step", "render", "--out", str(tmp_path / "x")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 3 and error[0] == "error: cannot draw training scenes"
    assert error[1] == "  why: supertuxkart-data is not installed"
    assert "apt-get install" in error[2]


def test_box_depth_is_that_of_the_ray_through_the_pixel() -> None:
    """Where a ray meets the floor, unprojecting its depth gives height 0."""
    rng = np.random.default_rng(3)
    world = BoxWorld(rng, (42, 56))
    shot = world.shoot(rng)
    depth = torch.from_numpy(np.where(np.isfinite(shot.depth), shot.depth, 1.0))
    points = shot.camera.unproject(shot.camera.pixel_centers(), depth).numpy()
    on_floor = np.abs(points[..., 1]) < 1e-3
    inside = (points[:, :, None] > world.low - 1e-3) & (points[:, :, None] < world.high + 1e-3)
    on_box = inside.all(-1).any(-1)
    seen = np.isfinite(shot.depth)
    assert (on_floor | on_box)[seen].all() and on_floor.any()


def test_gl_depth_is_that_of_the_ray_through_the_pixel(gl: GlRenderer) -> None:
    scene = Scene()
    ground = quad([-40, 0, -40], [40, 0, -40], [40, 0, 40], [-40, 0, 40])
    scene.add_soup(ground, np.full(3, 0.5))
    scene.add_soup(
        standing_box(np.array([1.0, 2.0, 1.0])) + np.array([0, 0, 5]), np.array([0.7, 0.2, 0.2])
    )
    gl.load(scene)
    pose = look(np.array([0, -1.6, 0.0]), np.array([0.3, -1.2, 5.0]), 0.05)
    camera = Camera.from_fov(60, 90, 60, torch.tensor(pose, dtype=torch.float32))
    light = daylight(np.random.default_rng(0), np.zeros(3), 20.0)
    linear, depth = gl.draw(camera, light)
    assert linear.shape == (60, 90, 3) and np.isfinite(linear).all() and (linear >= 0).all()
    known = np.isfinite(depth)
    points = camera.unproject(
        camera.pixel_centers(), torch.from_numpy(np.where(known, depth, 1))
    ).numpy()
    floor = known & (np.abs(points[..., 1]) < 2e-3 * depth)
    front = known & (np.abs(points[..., 2] - 4.5) < 2e-3) & (points[..., 1] > -2.01)
    assert (floor | front | (np.abs(np.abs(points[..., 0]) - 0.5) < 0.01))[known].mean() > 0.995
    assert front.sum() > 100 and not known[0].any() and known[-1].all()
    again = gl.draw(camera, light)
    assert np.array_equal(again[0], linear) and np.array_equal(again[1], depth)


@pytest.mark.skipif(missing_tracks() is not None, reason=str(missing_tracks()))
def test_a_track_can_be_photographed(gl: GlRenderer) -> None:
    from scenegen.training.worlds import TrackWorld

    track = read_track("hacienda", Licences(COPYRIGHT, gpl=True))
    world = TrackWorld(gl, track)
    shot = world.shoot(np.random.default_rng(0))
    assert np.isfinite(shot.linear).all() and (shot.depth > 0).all()
    with pytest.raises(SceneError, match="cannot be trained on"):
        read_track("no-such-track", Licences(COPYRIGHT, gpl=True))


@pytest.mark.skipif(missing_furniture() is not None, reason=str(missing_furniture()))
def test_a_room_holds_fifteen_things_and_no_way_out(gl: GlRenderer) -> None:
    from scenegen.training.rooms import RoomWorld

    rng = np.random.default_rng(1)
    world = RoomWorld(gl, rng, {"floor": [], "wall": [], "any": []})
    assert sum(len(parts) for parts in world.room.scene.parts.values()) > 60
    assert len(world.room.interests) >= 15
    for _ in range(3):
        shot = world.shoot(rng)
        assert np.isfinite(shot.linear).all() and (shot.depth > 0).all()


@pytest.mark.parametrize(
    "soup",
    [standing_box(np.array([1.0, 2.0, 3.0])), standing_tube(0.5, 0.2, 2.0), standing_ball(1.0)],
)
def test_solids_stand_on_the_floor(soup: Array) -> None:
    heights = soup[..., 1]
    assert heights.max() == pytest.approx(0, abs=1e-9) and heights.min() == pytest.approx(-2.0)


def test_pictures_are_developed_alike_for_a_seed() -> None:
    linear = np.random.default_rng(0).uniform(0, 4, (30, 40, 3)).astype(np.float32)
    first, quality = develop(linear, np.random.default_rng(5))
    again, _ = develop(linear * 8, np.random.default_rng(5))  # exposure is metered
    assert np.abs(first.astype(int) - again).max() <= 2 and 40 <= quality <= 96
    assert 60 < first.mean() < 200 and jpeg(first, quality)[:2] == b"\xff\xd8"


@pytest.mark.usefixtures("no_backbone")
def test_frames_remember_how_they_came_about(tmp_path: Path) -> None:
    list(train_depth(SMALL, tmp_path / "run", "render"))
    folder = tmp_path / "run" / "frames"
    notes = frame_notes(folder)
    assert [note.index for note in notes] == list(range(SMALL.frames))
    held = {note.world for note in notes if note.held_out}
    assert held and not held & {note.world for note in notes if not note.held_out}
    frame = read_frame(folder, notes[3])
    assert frame.rgb.shape[:2] == frame.depth.shape == (notes[3].height, notes[3].width)
    (folder / "000003.npz").write_bytes(b"PK broken")
    with pytest.raises(SceneError, match=r"000003 is damaged\n  why: .*\n  fix: remove"):
        read_frame(folder, notes[3])
    (folder / "000004.json").write_text("{}")
    with pytest.raises(SceneError, match="is damaged"):
        frame_notes(folder)


def test_three_frames_in_five_are_indoors_and_every_tenth_round_is_held_out() -> None:
    visits = drawing.plan_visits(DepthRecipe(frames=1200))
    count = {kind: sum(v.count for v in visits if v.kind == kind) for kind in ("room", "track")}
    assert count == {"room": 720, "track": 480}
    assert sum(v.count for v in visits if v.held_out) == 120
    assert [v.first for v in visits[1:]] == list(np.cumsum([v.count for v in visits])[:-1])


def test_licences_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "copyright"
    path.write_text(
        "Format: x\n\nFiles: *\nCopyright: team\nLicense: GPL-3+\n\n"
        "Files: data/a/*\n data/b?.png\nCopyright: Ann\nLicense: CC-BY-SA-3.0\n text\n\n"
        "Files: data/a/bad.png\nCopyright: Bob\nLicense: GPL-2 and CC-BY-3.0\n"
    )
    strict, free = Licences(path, gpl=False), Licences(path, gpl=True)
    assert strict.may_train("data/a/deep/x.spm") and strict.may_train("data/b1.png")
    assert not strict.may_train("data/a/bad.png") and not strict.may_train("data/c.png")
    assert free.may_train("data/a/bad.png") and free.may_train("data/c.png")
    assert is_taken("GPL-2+ OR CC-BY-SA") and not is_taken("GPL and CC-BY-SA")
    with pytest.raises(SceneError, match="cannot read the licences"):
        Licences(tmp_path / "none", gpl=True)


def test_normalised_disparity_by_hand() -> None:
    """Surfaces 1, 2, 3, 4, 9: median 3, mean deviation (2 + 1 + 0 + 1 + 6) / 5 = 2; sky -1.5."""
    disparity = torch.tensor([[[1.0, 2.0, 3.0], [4.0, 9.0, 0.0]]])
    said = normalised(disparity, disparity > 0)
    torch.testing.assert_close(said, torch.tensor([[[-1.0, -0.5, 0.0], [0.5, 3.0, -1.5]]]))
    all_sky = torch.zeros(1, 4, 4)
    assert torch.isfinite(normalised(all_sky, all_sky > 0)).all()
    steep = torch.tensor([[[1.0, 1.0, 1.0, 50.0]]])
    assert normalised(steep, steep > 0).max() <= 8


def sample(disparity: torch.Tensor) -> Sample:
    normals = torch.zeros(len(disparity), 3, *disparity.shape[1:])
    normals[:, 2] = -1
    levels = [torch.zeros(len(disparity), 2, 4)] * 4
    fast, one = torch.zeros_like(disparity), torch.zeros(len(disparity))
    return Sample(levels, normals.abs(), fast, disparity, normals, one, one)


def test_the_truth_loses_nothing_but_its_doubts() -> None:
    disparity = torch.rand(2, 16, 24, generator=torch.Generator().manual_seed(0)) + 0.1
    disparity[:, :4] = 0
    truth = sample(disparity)
    right = DepthPrediction(
        disparity=normalised(disparity, disparity > 0).requires_grad_(),
        sky=torch.where(disparity <= 0, 30.0, -30.0),
        normals=truth.normals,
        confidence=torch.full_like(disparity, 30.0),
        log_focal=truth.log_focal,
        indoors=torch.full((2,), -30.0),
    )
    loss, parts = depth_loss(right, truth, 1.0)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-5)
    assert max(parts.values()) < 1e-5
    wrong = replace(right, disparity=torch.zeros_like(disparity), sky=-right.sky)
    worse, parts = depth_loss(wrong, truth, 1.0)
    assert float(worse) > 1 and parts["sky"] > 10


def test_the_last_blocks_start_where_the_cached_tokens_end() -> None:
    """Blocks that run anew from the third level give what was cached, before they are trained."""
    torch.manual_seed(0)
    layout = DepthLayout(width=24, heads=2, depth=12, positions=4, fusion=8, head=8)
    network, rgb = DepthNetwork(layout).eval(), torch.rand(2, 3, 28, 42)
    with torch.no_grad():
        network.head.out3.weight.normal_()
        levels = network.backbone(rgb)
        cached = replace(sample(torch.rand(2, 16, 24)), levels=levels, rgb=outline_image(rgb, 2, 3))
        said = [predict(network, cached, stage, 2).disparity for stage in ("head", "blocks")]
    torch.testing.assert_close(said[0], said[1])


def test_quality_ignores_scale_and_shift_and_knows_a_miss() -> None:
    right = np.linspace(0.1, 1.0, 50)
    assert compare(3 * right - 7, right) == pytest.approx(
        {"spearman": 1, "absrel": 0, "delta1": 1}, abs=1e-9
    )
    assert compare(-right, right)["spearman"] == pytest.approx(-1)
    flat = compare(np.zeros(50), right)
    assert flat["spearman"] == 0 and flat["delta1"] == pytest.approx(
        np.mean(np.maximum(0.55 / right, right / 0.55) < 1.25)
    )


def test_ridge_by_hand() -> None:
    """Two equations, x = (1, 2) and y = (2, 4), penalty 5: 10 / (5 + 5) = 1."""
    x, y = torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[2.0], [4.0]]).double()
    assert solve_ridge(x.T @ x, x.T @ y, 5.0).item() == pytest.approx(1.0)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from scenegen.training.__main__ import main\n"
        "try: main(['depth', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'moderngl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--smoke" in done.stdout and done.stdout.strip().endswith("[]")


def test_smoke_is_small_unless_told() -> None:
    assert smoke_recipe(DepthRecipe(smoke=True)).frames == 64
    assert smoke_recipe(DepthRecipe(smoke=True, frames=100)).frames == 100
    assert math.gcd(*DepthRecipe().sides) % 14 == 0


class Drawn(TokenStore):
    """A store of one batch, for what is fitted in closed form."""

    def __init__(self, batch: Sample) -> None:
        self.batch = batch

    def batches(self, size: int, rng: np.random.Generator | None) -> list[list[tuple[int, int]]]:
        return [[(0, row) for row in range(len(self.batch.indoors))]]

    def read(self, places: list[tuple[int, int]]) -> Sample:
        return self.batch


def test_rooms_are_told_apart_by_hand() -> None:
    """One number x tells: 1 in three rooms, 0 in one street; tokens (1, -1, 1, -1) times x, which
    the norm leaves as they are.

    Both kinds weigh alike: the means are x = 1/2 and y = 0, the moments x'x = 1/4 and x'y = 1/2 in
    every pair of the four directions s = (1, -1, 1, -1). (s s' / 4 + 1) w = s / 2 gives w = s / 4,
    an answer of +-1/2, whose logit is 8 (+-1/2 + 1/4).
    """
    network = DepthNetwork(DepthLayout(width=4, heads=1, depth=4, positions=4, fusion=8, head=8))
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0])
    rooms = torch.tensor([1.0, 1.0, 1.0, 0.0])
    tokens = rooms[:, None, None] * sign.expand(4, 2, 4)
    frames = replace(sample(torch.rand(4, 8, 8)), levels=[tokens] * 4, indoors=rooms)
    assert fit_room(network, Drawn(frames), "cpu") == 4
    said = network.room(tokens[:, 0])[:, 0]
    torch.testing.assert_close(said, torch.tensor([6.0, 6.0, 6.0, -2.0]))
