"""What a view hides is not looked into, and nothing that a view has seen is ever lost by it."""

from __future__ import annotations

import numpy as np
import pytest
from rooms import photograph, remember, strolls

from renderers import Camera
from spatial_memory.blocks import BLOCK, boxes_around
from spatial_memory.sight import Sight, may_show, seen_from, sight_of
from spatial_memory.views import make_view

TOLERANCE = 0.03


def sight(depth: np.ndarray) -> Sight:
    """Of a camera at the origin that looks forward, 90 degrees wide."""
    height, width = depth.shape
    rgb = np.zeros((height, width, 3), np.float32)
    camera = Camera.from_fov(90.0, width, height)
    return sight_of(make_view(rgb, depth.astype(np.float32), camera, "observed", None), width)


def shown(depth: np.ndarray, low: tuple[float, ...], high: tuple[float, ...]) -> bool:
    corners = np.array([low], np.float32), np.array([high], np.float32)
    return bool(may_show(sight(depth), *corners, TOLERANCE)[0])


@pytest.mark.parametrize("half", [0.05, 1.0])  # on few pixels, and on many tiles
def test_a_box_behind_a_wall_by_hand(half: float) -> None:
    wall = np.full((60, 80), 2.0)
    for z, seen in ((1.0, True), (2.05, True), (2.07, False), (9.0, False)):
        assert shown(wall, (-half, -half, z), (half, half, z + 0.5)) == seen
    door = wall.copy()
    door[28:32, 38:42] = 8.0
    assert shown(door, (-half, -half, 4.5), (half, half, 8.0))
    assert not shown(door, (3.0 - half, -half, 4.5), (3.0 + half, half, 8.0))


def test_sky_and_the_unknown_hide_what_no_surface_is_beside() -> None:
    low, high = (-0.05, -0.05, 5.0), (0.05, 0.05, 6.0)
    for nothing in (np.inf, np.nan):
        picture = np.full((60, 80), nothing)
        picture[:, 70:] = 9.0
        assert not shown(picture, low, high)
        picture[30, 40] = 2.0  # beside the sky, inverse depth goes from 1/2 to 0
        assert shown(picture, low, high) == (nothing == np.inf)


def test_what_sticks_out_of_the_picture_is_looked_into() -> None:
    wall = np.full((60, 80), 2.0)
    assert shown(wall, (-9.0, -1.0, 5.0), (-4.0, 1.0, 6.0))  # at its left border
    assert shown(wall, (-1.0, -1.0, -1.0), (1.0, 1.0, 6.0))  # around the camera


@pytest.mark.parametrize("seed", range(4))
def test_nothing_that_was_seen_is_lost(seed: int) -> None:
    surfels, rng = remember(strolls(12, seed)).surfels, np.random.default_rng(seed)
    discs = surfels.points, surfels.normals, surfels.radii
    blocks = boxes_around(surfels.points, surfels.radii)[:2]
    pads = 1.01 * surfels.radii[:, None]
    alone = surfels.points - pads, surfels.points + pads
    hidden = [0, 0]
    for camera in strolls(8, seed + 10):
        rgb, depth = photograph(camera)
        for nothing in (np.inf, np.nan):
            y, x = rng.integers(0, 50), rng.integers(0, 80)
            depth[y : y + 10, x : x + 10] = nothing
        view = sight_of(make_view(rgb, depth, camera, "observed", None), 96)
        seen = np.flatnonzero(seen_from(view, *discs, TOLERANCE))
        for i, (boxes, run) in enumerate(((blocks, BLOCK), (alone, 1))):
            looked = may_show(view, boxes[0], boxes[1], TOLERANCE)
            assert looked[seen // run].all()
            hidden[i] += int(np.count_nonzero(~looked))
    assert hidden[0] > 0 and hidden[1] > 1_000  # in 8 views
