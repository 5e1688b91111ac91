"""Walking on surfels: feet on the ground, no way through walls. Values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renderers import SceneError
from spatial_memory.walking import Body, Terrain

BODY = Body(eye_height=1.6, radius=0.25, step=0.35)


def sheet(corner, along, across, normal, spacing=0.1):
    """Discs that cover a parallelogram."""
    a, b = np.array(along, float), np.array(across, float)
    i = (np.arange(round(np.linalg.norm(a) / spacing)) + 0.5) * spacing / np.linalg.norm(a)
    j = (np.arange(round(np.linalg.norm(b) / spacing)) + 0.5) * spacing / np.linalg.norm(b)
    points = np.array(corner, float) + (i[:, None, None] * a + j[None, :, None] * b).reshape(-1, 3)
    normals = np.tile(np.array(normal, float), (len(points), 1))
    return points, normals, np.full(len(points), 0.75 * spacing)


def terrain(*sheets) -> Terrain:
    return Terrain(*(np.concatenate(parts) for parts in zip(*sheets, strict=True)))


FLOOR = sheet((-3, 1.6, -3), (6, 0, 0), (0, 0, 9), (0, -1, 0))
WALL = sheet((-3, -1, 2), (6, 0, 0), (0, 2.6, 0), (0, 0, -1))
"""At z = 2, from the floor to 2.6 m above it."""


def test_level_ground_and_no_ground() -> None:
    assert terrain(FLOOR).ground((0, 0, 0), BODY) == pytest.approx(1.6, abs=1e-6)
    assert math.isnan(terrain(FLOOR).ground((50, 0, 0), BODY))
    assert math.isnan(terrain(WALL).ground((0, 0, 0), BODY))
    nothing = Terrain(np.empty((0, 3)), np.empty((0, 3)), np.empty(0))
    assert nothing.walk((0, 0, 0), (1, 5, 2), BODY) == pytest.approx((1, 0, 2))


def test_ground_too_high_or_too_deep_is_not_stood_on() -> None:
    table = sheet((-1, 0.8, -1), (2, 0, 0), (0, 0, 2), (0, -1, 0))
    cellar = sheet((-1, 3.0, -1), (2, 0, 0), (0, 0, 2), (0, -1, 0))
    assert math.isnan(terrain(table).ground((0, 0, 0), BODY))
    assert math.isnan(terrain(cellar).ground((0, 0, 0), BODY))
    assert terrain(table, FLOOR).ground((0, 0, 0), BODY) == pytest.approx(1.6, abs=1e-6)


def test_noise_of_the_ground_evens_out() -> None:
    points, normals, radii = FLOOR
    noisy = points + np.random.default_rng(0).normal(0, 0.01, points.shape) * [0, 1, 0]
    assert terrain((noisy, normals, radii)).ground((0, 0, 0), BODY) == pytest.approx(1.6, abs=0.02)


def test_forward_stops_a_radius_before_the_wall() -> None:
    x, y, z = terrain(FLOOR, WALL).walk((0, 0, 0), (0, 0, 5), BODY)
    assert (x, y) == pytest.approx((0, 0), abs=0.02)
    assert z == pytest.approx(2 - 0.25, abs=0.02)


def test_slanted_way_slides_along_the_wall() -> None:
    x, _, z = terrain(FLOOR, WALL).walk((0, 0, 1), (2, 0, 3), BODY)
    assert z == pytest.approx(1.75, abs=0.02)
    assert x == pytest.approx(2, abs=0.1)


@given(
    angle=st.floats(-180, 180), length=st.floats(0.01, 6), x=st.floats(-1, 1), z=st.floats(-1, 1)
)
def test_no_way_leads_through_four_walls(angle: float, length: float, x: float, z: float) -> None:
    """A closed room of 4 x 4 m: wherever one walks, one stays a radius inside."""
    turn = math.radians(angle)
    goal = (x + length * math.sin(turn), 0.0, z + length * math.cos(turn))
    x, y, z = ROOM.walk((x, 0, z), goal, BODY)
    assert max(abs(x), abs(z)) <= 2 - 0.25 + 0.02
    assert y == pytest.approx(0, abs=1e-3)


ROOM = terrain(
    sheet((-2, 1.6, -2), (4, 0, 0), (0, 0, 4), (0, -1, 0)),
    sheet((-2, -1, 2), (4, 0, 0), (0, 2.6, 0), (0, 0, -1)),
    sheet((-2, -1, -2), (4, 0, 0), (0, 2.6, 0), (0, 0, 1)),
    sheet((2, -1, -2), (0, 0, 4), (0, 2.6, 0), (-1, 0, 0)),
    sheet((-2, -1, -2), (0, 0, 4), (0, 2.6, 0), (1, 0, 0)),
)


def test_feet_follow_a_slope_and_steps() -> None:
    """A ramp of 1 in 5, then a stair of 0.2 m; a kerb of 0.5 m is a wall."""
    up = np.array([0, -5, -1]) / math.sqrt(26)  # rises forward: y falls as z grows
    ramp = sheet((-1, 1.6, 0), (2, 0, 0), (0, -0.6, 3), up)
    _, y, z = terrain(FLOOR, ramp).walk((0, 0, -1), (0, 0, 2), BODY)
    assert z == pytest.approx(2)
    assert y == pytest.approx(-0.4, abs=0.03)

    def kerb(height: float) -> Terrain:
        top = sheet((-1, 1.6 - height, 1), (2, 0, 0), (0, 0, 2), (0, -1, 0))
        side = sheet((-1, 1.6 - height, 1), (2, 0, 0), (0, height, 0), (0, 0, -1), spacing=0.05)
        return terrain(FLOOR, top, side)

    assert kerb(0.2).walk((0, 0, 0), (0, 0, 2), BODY) == pytest.approx((0, -0.2, 2), abs=0.02)
    assert kerb(0.5).walk((0, 0, 0), (0, 0, 2), BODY) == pytest.approx((0, 0, 0.75), abs=0.03)


def test_low_beam_is_bumped_into_and_a_high_one_is_not() -> None:
    def beam(y: float) -> Terrain:
        return terrain(FLOOR, sheet((-1, y, 1), (2, 0, 0), (0, 0.2, 0), (0, 0, -1)))

    assert beam(0.5).walk((0, 0, 0), (0, 0, 2), BODY)[2] == pytest.approx(0.75, abs=0.02)
    assert beam(-0.5).walk((0, 0, 0), (0, 0, 2), BODY)[2] == pytest.approx(2)


def test_who_stands_too_close_can_leave_and_comes_no_closer() -> None:
    close = (0.0, 0.0, 1.9)
    there = terrain(FLOOR, WALL)
    assert there.walk(close, (0, 0, 3), BODY)[2] == pytest.approx(1.9, abs=0.02)
    assert there.walk(close, (0, 0, 0), BODY)[2] == pytest.approx(0, abs=1e-6)


def test_squeezed_between_walls_the_walk_ends() -> None:
    """Two walls that meet in a wedge ahead."""
    left = sheet((-1, -1, 0), (1, 0, 2), (0, 2.6, 0), np.array([2, 0, -1]) / math.sqrt(5))
    right = sheet((1, -1, 0), (-1, 0, 2), (0, 2.6, 0), np.array([-2, 0, -1]) / math.sqrt(5))
    x, _, z = terrain(FLOOR, left, right).walk((0, 0, -1), (0, 0, 3), BODY)
    assert abs(x) < 0.05
    wanted = 2 - 0.25 * math.sqrt(5)  # where the wedge is a body wide
    assert z == pytest.approx(wanted, abs=0.15)


def test_settled_eyes_are_those_of_the_photograph() -> None:
    low = sheet((-1, 1.2, -1), (2, 0, 0), (0, 0, 2), (0, -1, 0))
    assert terrain(low).settled((0, 0, 0), BODY).eye_height == pytest.approx(1.2, abs=1e-6)
    assert terrain(WALL).settled((0, 0, 0), BODY) is BODY


def test_surfels_that_are_none_are_left_out() -> None:
    points, normals, radii = (values.copy() for values in WALL)
    points[::2] = np.nan
    radii[1::2] = 0.0
    assert len(Terrain(points, normals, radii)) == 0


@pytest.mark.parametrize("wrong", [{"eye_height": 0.1}, {"radius": 0.0}, {"drop": math.nan}])
def test_impossible_body_is_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(SceneError, match="not a body"):
        Body(**wrong)
