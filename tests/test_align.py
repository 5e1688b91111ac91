"""Depth of new views: the fit, the seam, the background behind edges, and free space."""

from __future__ import annotations

import math

import pytest
import torch

from renderers import Camera, Splats
from scenegen.world.align import Fit, Seen, behind_seen, continuation, fit_depth, metres, rim_of
from scenegen.world.grow import BESIDE, behind_photo

CAMERA = Camera.from_fov(60, 80, 60)


def slanted() -> torch.Tensor:
    """A ground-like surface from 2 m at the bottom to about 12 m at the top."""
    return (1 / torch.linspace(1 / 12, 1 / 2, 60))[:, None].expand(60, 80).clone()


def right_hole(start: int = 56) -> torch.Tensor:
    hole = torch.zeros(60, 80, dtype=torch.bool)
    hole[:, start:] = True
    return hole


def test_fit_gives_scale_and_shift_back_in_spite_of_outliers() -> None:
    truth = slanted()
    estimated = 1 / ((1 / truth - 0.03) / 1.7)
    spoiled = truth.clone()
    spoiled[:, ::5] = 40.0
    fit = fit_depth(estimated, spoiled, ~right_hole())
    assert fit.scale == pytest.approx(1.7, rel=0.02)
    assert fit.shift == pytest.approx(0.03, abs=0.003)
    assert fit.error < 0.02
    assert fit.pixels == 60 * 56


def test_fit_of_one_depth_only_is_a_scale() -> None:
    fit = fit_depth(torch.full((60, 80), 3.0), torch.full((60, 80), 6.0), ~right_hole())
    assert (fit.scale, fit.shift) == (pytest.approx(0.5), 0.0)


def test_an_estimate_that_runs_against_the_world_is_not_turned_round() -> None:
    fit = fit_depth(slanted().flip(0), slanted(), ~right_hole())
    assert fit.scale > 0


def test_nothing_to_compare_is_the_identity() -> None:
    unknown = torch.full((60, 80), math.nan)
    fit = fit_depth(slanted(), unknown, torch.ones(60, 80, dtype=torch.bool))
    assert (fit.scale, fit.shift, fit.pixels) == (1.0, 0.0, 0) and math.isinf(fit.error)


def test_the_seam_is_continuous_and_the_far_side_follows_the_estimate() -> None:
    truth, hole = slanted(), right_hole(40)
    wavy = truth * (1 + 0.1 * torch.sin(torch.arange(80) / 40.0))  # a smooth error of the estimate
    known = torch.where(hole, math.nan, truth)
    fit = fit_depth(wavy, known, ~hole)
    depth = metres(continuation(wavy, known, hole, fit).log_depth)
    seam = (depth[:, 40] / truth[:, 39]).log().abs()
    assert seam[12:].max() < 0.06  # nearest the horizon a row is no neighbour of the next
    assert (depth[:, 40:] / truth[:, 40:]).log().abs().median() < 0.12


def test_a_narrow_hole_beside_an_occluder_continues_the_background() -> None:
    """A pole at 2 m in front of a wall at 8 m; the hole is what the pole uncovers."""
    known = torch.full((60, 80), 8.0)
    known[:, 30:40] = 2.0
    hole = torch.zeros(60, 80, dtype=torch.bool)
    hole[:, 40:44] = True
    estimated = torch.full((60, 80), 8.0)
    estimated[:, 28:44] = 2.5  # as blurred as small networks are
    made = continuation(
        estimated, torch.where(hole, math.nan, known), hole, Fit(1.0, 0.0, None, 0.0, 1)
    )
    depth = metres(made.log_depth)
    torch.testing.assert_close(depth[hole], torch.full((240,), 8.0), rtol=0.25, atol=0)
    assert depth[hole].median() > 7.0


def test_a_slope_along_the_rim_is_no_occluder() -> None:
    """A wall that recedes by 3 % a pixel ends at an open side, and goes on from where it is."""
    known = (4.0 * 1.03 ** torch.arange(40.0)).flip(0).repeat(60, 2)[:, :80]
    hole = right_hole(40)
    rim = rim_of(torch.where(hole, math.nan, known), hole)
    assert rim[:, 39].all()
    made = continuation(
        torch.full((60, 80), 12.0),
        torch.where(hole, math.nan, known),
        hole,
        Fit(1.0, 0.0, None, 0.0, 1),
    )
    depth = metres(made.log_depth)
    torch.testing.assert_close(depth[:, 40], known[:, 39], rtol=0.1, atol=0)


def test_points_are_pushed_out_of_seen_free_space() -> None:
    """The past view looks along z at a wall 10 m away; the new view, 1 m to the right of it,
    proposes a surface at 4 m: in plain sight of the past view, so it goes behind the wall."""
    past = Seen(CAMERA, torch.full((60, 80), 10.0))
    new_view = CAMERA.moved(right=1.0)
    wanted = torch.ones(60, 80, dtype=torch.bool)
    depth = behind_seen(torch.full((60, 80), 4.0), wanted, new_view, [past])
    pixels, _ = past.camera.project(
        new_view.unproject(new_view.pixel_centers(), torch.full((60, 80), 4.0))
    )
    seen = (pixels[..., 0] >= 0) & (pixels[..., 0] < 80)
    assert (depth[seen] >= 9.7).all()
    assert (depth[~seen] == 4.0).all()
    assert torch.equal(
        behind_seen(torch.full((60, 80), 11.0), wanted, new_view, [past]),
        torch.full((60, 80), 11.0),
    )


def test_in_front_of_the_sky_there_is_no_place_at_all() -> None:
    past = Seen(CAMERA, torch.full((60, 80), math.inf))
    wanted = torch.ones(60, 80, dtype=torch.bool)
    assert torch.isnan(behind_seen(torch.full((60, 80), 4.0), wanted, CAMERA, [past])).all()
    unknown = Seen(CAMERA, torch.full((60, 80), math.nan))
    kept = behind_seen(torch.full((60, 80), 4.0), wanted, CAMERA, [unknown])
    assert (kept == 4.0).all()


def test_nothing_new_stands_before_what_the_photograph_shows() -> None:
    """A wall at 10 m, sky above it: what is new goes 0.3 % behind the wall, or away."""
    depth = torch.full((60, 80), 10.0)
    depth[:10] = math.inf
    points = torch.tensor(
        [
            [0.0, 0.0, 9.9],  # of the wall, a little before it: put behind
            [0.0, 0.0, 4.0],  # before the wall: left out
            [0.0, 0.0, 12.0],  # behind it
            [0.0, -4.0, 9.9],  # before the sky: left out
            [9.0, 0.0, 4.0],  # out of the picture
            [0.0, 0.0, -1.0],  # behind the camera
            [0.0, -49.0, 90.0],  # sky before the sky: it stays
        ]
    )
    added = behind_photo(solid(points), Seen(CAMERA, depth), sky_radius=100.0)
    wall = torch.tensor([[0.0, 0.0, 10.03]])
    torch.testing.assert_close(added.means, torch.cat([wall, points[[2, 4, 5, 6]]]))


def test_what_a_thing_hides_fades_beside_its_outline() -> None:
    """A thing at 4 m in columns 20 to 39 of 80, and a wall at 10 m behind it."""
    depth = torch.full((60, 80), 10.0)
    depth[:, 20:40] = 4.0
    rows = torch.full((4,), 30.5)
    pixels = torch.stack([torch.tensor([37.5, 39.5, 39.5, 41.5]), rows], -1)
    # deep behind the thing; at its outline; there, but behind the wall too; behind the wall
    points = CAMERA.unproject(pixels, torch.tensor([6.0, 6.0, 12.0, 12.0]))
    added = behind_photo(solid(points), Seen(CAMERA, depth), sky_radius=100.0)
    torch.testing.assert_close(added.means, points)
    assert added.opacities.tolist() == [1.0, BESIDE, 1.0, 1.0]


def solid(points: torch.Tensor) -> Splats:
    count = len(points)
    return Splats(
        points,
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        torch.full((count, 3), 0.01),
        torch.ones(count),
        torch.zeros(count, 3),
    )
