"""Outpainting that remembers: past views drawn as the target would see them, judged and merged."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from rooms import photograph, stand, truly_seen
from test_world import SETTINGS, psnr, write_photo

import scenegen
from renderers import Camera, SceneError
from scenegen import outpaint
from scenegen.outpaint.composite import composite
from scenegen.outpaint.warping import SKY, warp
from scenegen.world import Committed, Skipped

SIZE = (192, 128)
TARGET = stand(-2.0, 1.0, 20.0, size=SIZE)
"""In the left room; its right third is hidden in these tests."""
PAST = stand(-2.2, 1.2, 45.0, size=SIZE)
"""From beside it, turned to what is hidden."""


@dataclass(frozen=True, eq=False)
class Past:
    rgb: torch.Tensor
    known: torch.Tensor
    depth: torch.Tensor
    camera: Camera


def seen_from(camera: Camera) -> Past:
    rgb, depth = (torch.from_numpy(values) for values in photograph(camera))
    return Past(rgb.clamp(0, 1), torch.ones_like(depth, dtype=torch.bool), depth, camera)


def half_known() -> tuple[Past, torch.Tensor, torch.Tensor]:
    """The target, its known pixels and its depth as far as it is known."""
    whole = seen_from(TARGET)
    known = whole.known.clone()
    known[:, 128:] = False
    return whole, known, torch.where(known, whole.depth, math.nan)


def wall(depth: float, camera: Camera, generator: int = 0) -> Past:
    """A wall parallel to the image, with one random colour per pixel."""
    draw = torch.Generator().manual_seed(generator)
    shape = (camera.height, camera.width)
    rgb = torch.rand(*shape, 3, generator=draw)
    return Past(rgb, torch.ones(shape, dtype=torch.bool), torch.full(shape, depth), camera)


def test_a_step_to_the_right_moves_a_wall_by_whole_pixels() -> None:
    """f = 32 px; 0.25 m to the right before a wall at 2 m is 32 * 0.25 / 2 = 4 px to the left.

    The mesh ends at the outermost pixel centres, so the last column is not drawn beyond them.
    """
    camera = Camera.from_fov(90, 64, 48)
    past = wall(2.0, camera)
    drawn = warp(past, camera.moved(right=0.25))
    torch.testing.assert_close(drawn.rgb[:, :60], past.rgb[:, 4:], rtol=0, atol=2e-4)
    torch.testing.assert_close(drawn.depth[:, :60], torch.full((48, 60), 2.0), rtol=1e-6, atol=0)
    assert not drawn.valid[:, 60:].any() and (drawn.rgb[:, 60:] == 0).all()


def test_a_step_forward_leaves_no_cracks() -> None:
    """From 2 m to 1 m before the wall every pixel becomes four; all of the view is covered."""
    camera = Camera.from_fov(90, 64, 48)
    drawn = warp(wall(2.0, camera), camera.moved(forward=1.0))
    assert drawn.valid.all()
    torch.testing.assert_close(drawn.depth, torch.ones(48, 64), rtol=1e-6, atol=0)


def test_the_sky_turns_but_does_not_shift() -> None:
    camera = Camera.from_fov(90, 64, 48)
    sky = wall(math.inf, camera)
    stepped = warp(sky, camera.moved(right=3.0))
    assert torch.isposinf(stepped.depth[:, 1:-1]).all() and SKY > 1e5
    torch.testing.assert_close(stepped.rgb[:, 1:-1], sky.rgb[:, 1:-1], rtol=0, atol=1e-2)
    assert not warp(sky, camera.moved(yaw_degrees=180)).valid.any()


def test_outlines_are_torn_and_backs_show_nothing() -> None:
    """A pillar at 1 m before a wall at 4 m, from 0.5 m to the side: the gap stays empty."""
    camera = Camera.from_fov(90, 64, 48)
    past = wall(4.0, camera)
    depth = past.depth.clone()
    depth[:, 24:40] = 1.0
    drawn = warp(replace(past, depth=depth), camera.moved(right=0.5))
    # The pillar moves by 16 px, to 8..24; the wall by 4: 20..36 of it was hidden by the pillar.
    assert (drawn.depth[24, 9:23] == 1.0).all()
    assert not drawn.valid[24, 25:35].any()
    torch.testing.assert_close(drawn.depth[24, 37:58], torch.full((21,), 4.0))
    behind = Camera.look_at((0, 0, 8), (0, 0, 4), 90, 64, 48)
    other_side = warp(past, behind)
    assert not other_side.valid.any() and torch.isfinite(other_side.back).any()


def test_the_nearest_surface_wins_and_the_best_view_colours_it() -> None:
    camera = Camera.from_fov(90, 64, 48)
    known = torch.zeros(48, 64, dtype=torch.bool)
    far, near, near_too = wall(4.0, camera), wall(2.0, camera, 1), wall(2.02, camera, 2)
    past = composite(torch.zeros(48, 64, 3), known, camera, None, (far, near, near_too))
    assert (past.source[1:-1, 1:-1] == 1).all()
    torch.testing.assert_close(past.rgb[1:-1, 1:-1], near.rgb[1:-1, 1:-1], rtol=0, atol=2e-4)


def test_what_was_seen_is_remembered_and_the_rest_stays_unknown() -> None:
    whole, known, depth = half_known()
    past = seen_from(PAST)
    done = outpaint.complete(whole.rgb, known, TARGET, depth, (past,), backend="none")
    assert torch.equal(done.rgb[known], whole.rgb[known])
    assert not done.invented.any() and (done.rgb[~known & ~done.remembered] == 0).all()
    truly = torch.from_numpy(truly_seen(TARGET, PAST)).view(known.shape) & ~known
    assert float((done.remembered & truly).sum() / truly.sum()) > 0.97
    assert float((done.remembered & ~truly).sum() / done.remembered.sum()) < 0.02
    assert psnr(done.rgb[done.remembered], whole.rgb[done.remembered]) > 32
    error = (done.depth / whole.depth).log().abs()[done.remembered]
    assert float(error.quantile(0.98)) < 0.01 and torch.isnan(done.depth[~done.remembered]).all()


def test_exposure_is_found_in_the_overlap() -> None:
    whole, known, depth = half_known()
    past = seen_from(PAST)
    dark = replace(past, rgb=past.rgb * torch.tensor([0.8, 0.9, 0.7]))
    done = outpaint.complete(whole.rgb, known, TARGET, depth, (dark,), backend="none")
    assert done.verdicts[0].used and "agree" in done.verdicts[0].reason
    assert done.verdicts[0].gain == pytest.approx((1 / 0.8, 1 / 0.9, 1 / 0.7), rel=0.02)
    assert psnr(done.rgb[done.remembered], whole.rgb[done.remembered]) > 30


@pytest.mark.parametrize("wrong", ["another place", "other colours"])
def test_a_wrong_view_changes_nothing(wrong: str) -> None:
    whole, known, depth = half_known()
    past = seen_from(PAST)
    if wrong == "another place":  # seen from the other room, with the pose of this one
        past = replace(seen_from(stand(2.0, 1.0, 160.0, size=SIZE)), camera=PAST)
    else:
        past = replace(past, rgb=1 - past.rgb)
    alone = outpaint.complete(whole.rgb, known, TARGET, depth, (), 3, backend="patch")
    done = outpaint.complete(whole.rgb, known, TARGET, depth, (past,), 3, backend="patch")
    assert done.verdicts[0].rejected and not done.remembered.any()
    assert torch.equal(done.rgb, alone.rgb)


def test_without_a_camera_views_are_textures_only() -> None:
    whole, known, _ = half_known()
    done = outpaint.complete(whole.rgb, known, references=(seen_from(PAST),), backend="patch")
    assert done.verdicts == () and torch.equal(done.invented, ~known)


def test_none_leaves_the_unknown_unknown_in_a_world(tmp_path: Path) -> None:
    """Nothing is committed but what the photograph shows, and alpha is 0 elsewhere."""
    photo = write_photo(tmp_path / "house.png", 128, 96)
    settings = {**SETTINGS, "outpaint": "none"}
    events = list(scenegen.create_events(photo, tmp_path / "w", extent="look", **settings))
    skipped = [event for event in events if isinstance(event, Skipped)]
    assert len(skipped) > 4 and "never seen" in str(skipped[-1])
    world = scenegen.open(tmp_path / "w")
    turned = world.camera0.moved(yaw_degrees=20)
    away = world.camera0.moved(yaw_degrees=180)
    events = list(world.grow([turned, away]))
    assert [type(e) for e in events if isinstance(e, (Committed, Skipped))] == [Skipped, Skipped]
    assert world.settings["outpaint"] == "none"
    assert all(step.info["invented"] == 0.0 for step in world.steps[1:])
    assert float(world.render(turned).alpha[:, -10:].max()) == 0.0
    with pytest.raises(SceneError, match="no full circle"):
        scenegen.create(photo, tmp_path / "circle", extent="around", **settings)


def test_the_journal_says_what_was_remembered_and_what_invented(grown_world: Path) -> None:
    world = scenegen.open(grown_world)
    for step in world.steps[1:]:
        shares = step.info["remembered"], step.info["invented"]
        assert min(shares) >= 0 and sum(shares) == pytest.approx(step.info["hole_share"], abs=1e-6)
        assert step.info["rejected"] == {}
