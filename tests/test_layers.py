"""What continues behind the edges of a photograph: where, how far, and what it does to a world."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from test_world import SETTINGS, write_photo
from torch import Tensor

import scenegen
from renderers import Camera, SceneError
from scenegen.splatting.losses import psnr
from scenegen.world import World
from scenegen.world.grow import COVERED
from scenegen.world.layer import behind_edges, uncovered
from scenegen.world.plan import safe_range

CAMERA = Camera.from_fov(70.0, 160, 120)


def post(near: float = 1.0, far: float = 3.0) -> Tensor:
    """Depth of a post in the middle columns before a wall."""
    depth = torch.full((120, 160), far)
    depth[:, 60:100] = near
    return depth


def layer_of(depth: Tensor):
    """Red before blue."""
    rgb = torch.where(
        depth[..., None] < 2, torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.8])
    )
    return behind_edges(
        rgb, depth, CAMERA, outpaint_backend="patch", seed=0, sky_radius=100.0, eye_height=1.6
    )


def test_the_safe_range_by_hand() -> None:
    """Two pixels in a hundred are at 2 m or nearer; the diagonal is 200 px."""
    depth = torch.full((120, 160), 5.0)
    depth[:3] = 2.0
    focal = float(CAMERA.px_from_cam[0, 0])
    right, forward = safe_range(depth, CAMERA)
    assert right == pytest.approx(0.08 * 200 / focal * 2.0)
    assert forward == pytest.approx(0.15 * 2.0)
    assert safe_range(torch.full((120, 160), math.inf), CAMERA)[1] == pytest.approx(0.15)


def test_the_band_is_as_wide_as_a_step_uncovers() -> None:
    """Shift f t (1/1 - 1/3) with t = 0.08 * 200 / f * 1: 10.7 px; the next window is 16."""
    band = uncovered(post(), CAMERA)
    assert band[60, 60:76].all() and band[60, 84:100].all()
    assert not band[60, 76:84].any()
    assert not band[:, :60].any() and not band[:, 100:].any()


def test_walls_grounds_and_relief_uncover_nothing() -> None:
    rows = torch.arange(120.0)[:, None].expand(120, 160)
    ground = 1.6 * 114 / (rows + 1)  # from the horizon down
    for depth in (torch.full((120, 160), 3.0), ground, post(2.95, 3.0)):
        assert not uncovered(depth, CAMERA).any()
        assert layer_of(depth) is None


def test_the_far_side_goes_on_behind_the_near_one() -> None:
    depth = post()
    data = layer_of(depth)
    assert data is not None
    assert torch.equal(data.known, uncovered(depth, CAMERA))
    torch.testing.assert_close(data.depth[data.known], torch.full((int(data.known.sum()),), 3.0))
    assert torch.isnan(data.depth[~data.known]).all()
    behind = data.rgb[data.known].mean(0)
    assert behind[2] > 0.7 and behind[0] < 0.2  # of the wall's colour
    assert bool((data.splats.means[:, 2] > 2.9).all())


def test_sky_goes_on_as_sky() -> None:
    data = layer_of(post(far=math.inf))
    assert data is not None
    assert torch.isposinf(data.depth[data.known]).all()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, World]:
    """The same photograph without and with its second layer."""
    folder = tmp_path_factory.mktemp("layers")
    photo = write_photo(folder / "house.png", 192, 144)
    plain = scenegen.create(photo, folder / "plain", extent="photo", **SETTINGS)
    layered = {**SETTINGS, "layers": True}
    return plain, scenegen.create(photo, folder / "layered", extent="photo", **layered)


def test_a_step_aside_uncovers_less_and_the_photograph_stays(worlds: tuple[World, World]) -> None:
    plain, layered = worlds
    assert len(plain.steps) == 1 and len(layered.steps) == 2
    step = layered.steps[1]
    assert step.provenance == "generated" and step.info["layer"] == 1
    aside = layered.camera0.moved(
        right=safe_range(torch.as_tensor(plain.memory.views[0].depth), layered.camera0)[0]
    )
    inner = slice(20, -20)
    holes = [
        float((world.render(aside).alpha[inner, inner] < COVERED).float().mean())
        for world in worlds
    ]
    assert holes[1] < 0.5 * holes[0] or holes[0] == 0.0
    photo = torch.as_tensor(plain.memory.views[0].rgb)
    before, after = (psnr(world.render(world.camera0).rgb, photo) for world in worlds)
    assert after > before - 0.5


def test_it_is_invented_and_says_so(worlds: tuple[World, World], tmp_path: Path) -> None:
    layered = worlds[1]
    with pytest.raises(SceneError, match="nothing was remembered for step 1"):
        layered.recall_step(1)
    again = scenegen.open(layered.folder)
    assert torch.equal(again.splats.means, layered.splats.means)
    list(again.grow([again.camera0.moved(yaw_degrees=12)]))
    assert again.recall_step(2).choice.view_ids


def test_the_rim_of_a_hole_becomes_solid(tmp_path: Path) -> None:
    """Where the world was thin beside a hole, the background does not shine through any more."""
    photo = write_photo(tmp_path / "house.png", 128, 96)
    world = scenegen.create(photo, tmp_path / "world", extent="photo", **SETTINGS)
    camera = world.camera0.moved(yaw_degrees=12)
    before = world.render(camera).alpha
    thin = (before >= COVERED) & (before < 0.95)
    hole = (before < COVERED).float()[None, None]
    thin &= torch.nn.functional.max_pool2d(hole, 5, 1, 2)[0, 0] > 0
    assert thin.sum() > 20
    list(world.grow([camera]))
    after = world.render(camera).alpha
    assert float(after[thin].mean()) > 0.97 > float(before[thin].mean())
