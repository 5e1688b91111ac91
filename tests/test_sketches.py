"""Shares and pictures of a view, and ways to it. By hand, on worlds of two walls."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from renderers import Camera, Splats, join, make_renderer
from scenegen.world.maps import LEAST, SIDE, Map
from scenegen.world.paths import STEP_DEGREES, STEP_METRES, approach, between, growth_view
from scenegen.world.sketches import (
    LATEST,
    NEWEST,
    NOTHING,
    SEEN,
    SKETCHES,
    SKY,
    Scenery,
    shares_of,
    sketch,
)  # fmt: skip
from spatial_memory import ViewMemory

CAMERA = Camera.from_fov(90.0, 40, 30)
RENDERER = make_renderer("cpu")


def wall(left: float, right: float, depth: float = 2.0) -> Splats:
    """Opaque splats at one depth, as high as the view and from ``left`` to ``right``, -1 to 1."""
    x = torch.linspace(left * depth, right * depth, round(40 * (right - left)))
    y = torch.linspace(-0.75 * depth, 0.75 * depth, 60)
    grid = torch.cartesian_prod(x, y)
    n = len(grid)
    return Splats(
        torch.cat([grid, torch.full((n, 1), depth)], dim=1),
        torch.tensor([1.0, 0, 0, 0]).repeat(n, 1), torch.full((n, 3), 0.03 * depth),
        torch.full((n,), 0.99), torch.full((n, 3), 0.5),
    )  # fmt: skip


SCENERY = Scenery.of([wall(-1, -0.5), wall(-0.5, 0.5)], ["observed", "generated"], 60.0)
"""A quarter of the view was photographed, a half invented, a quarter is unknown."""


def test_shares_by_hand() -> None:
    shares = shares_of(SCENERY, CAMERA, RENDERER)
    assert shares.seen == pytest.approx(0.25, abs=0.06)
    assert shares.invented == pytest.approx(0.5, abs=0.06)
    assert shares.unknown == pytest.approx(0.25, abs=0.06)
    assert shares.seen + shares.invented + shares.unknown == pytest.approx(1.0)


def test_shares_of_nothing() -> None:
    nothing = Scenery.of([], [], math.inf)
    assert shares_of(nothing, CAMERA, RENDERER).unknown == 1.0
    for kind in SKETCHES:
        picture = sketch(kind, nothing, ViewMemory(), CAMERA, RENDERER)
        assert picture.shape == (30, 40, 3)
        torch.testing.assert_close(picture, torch.tensor(NOTHING).expand_as(picture))


def test_age_goes_by_the_order_of_inventions() -> None:
    parts = [wall(-1, 0)[:2], wall(-1, 0)[:3], wall(-1, 0)[:1]]
    ages = Scenery.of(parts, ["observed", "generated", "generated"], 60.0).age
    torch.testing.assert_close(ages, torch.tensor([0, 0, 0.5, 0.5, 0.5, 1.0]))


def middle(picture: torch.Tensor, column: int) -> torch.Tensor:
    return picture[15, column]


def test_provenance_is_blue_where_seen_and_red_where_invented_last() -> None:
    picture = sketch("provenance", SCENERY, ViewMemory(), CAMERA, RENDERER)
    torch.testing.assert_close(middle(picture, 4), torch.tensor(SEEN), rtol=0, atol=0.03)
    torch.testing.assert_close(middle(picture, 20), torch.tensor(LATEST), rtol=0, atol=0.03)
    torch.testing.assert_close(middle(picture, 37), torch.tensor(NOTHING), rtol=0, atol=0.03)
    assert NEWEST != LATEST


def test_depth_is_bright_near_and_blue_in_the_sky() -> None:
    parts = [wall(-1, -0.4, 2.0), wall(-0.4, 0.4, 8.0), wall(0.4, 1.0, 50.0)]
    scenery = Scenery.of(parts, ["observed"] * 3, 60.0)
    picture = sketch("depth", scenery, ViewMemory(), CAMERA, RENDERER)
    assert middle(picture, 4).sum() > middle(picture, 20).sum() + 0.5
    torch.testing.assert_close(middle(picture, 36), torch.tensor(SKY), rtol=0, atol=0.02)


def test_normals_of_a_wall_face_the_camera() -> None:
    picture = sketch("normals", SCENERY, ViewMemory(), CAMERA, RENDERER)
    torch.testing.assert_close(
        middle(picture, 20), torch.tensor([0.5, 0.5, 1.0]), rtol=0, atol=0.05
    )


def test_surfels_show_what_the_memory_holds() -> None:
    memory = ViewMemory()
    depth = torch.full((30, 40), 2.0)
    memory.write(torch.full((30, 40, 3), 0.8), depth, CAMERA)
    picture = sketch("surfels", SCENERY, memory, CAMERA, RENDERER)
    assert middle(picture, 20).tolist() == pytest.approx([0.8] * 3, abs=0.05)
    behind = sketch("surfels", SCENERY, memory, CAMERA.moved(forward=4, yaw_degrees=180), RENDERER)
    assert middle(behind, 20)[1] < middle(behind, 20)[0]  # the back of what was seen


def test_map_shows_what_is_there_and_where_one_stands() -> None:
    """A wall 2 m ahead, from -2 to 2 m: the middle is 1 m ahead, and half a side is 3 m."""
    memory = ViewMemory()
    memory.write(torch.full((30, 40, 3), 0.8), torch.full((30, 40), 2.0), CAMERA)
    plan = Map.of(memory)
    assert plan.half == LEAST
    rows, columns = np.where((plan.picture > 150).all(-1))
    metre = SIDE / (2 * LEAST)
    assert rows.mean() == pytest.approx(SIDE / 2 - metre, abs=4)
    ends = SIDE / 2 - 2 * metre, SIDE / 2 + 2 * metre
    assert (columns.min(), columns.max()) == pytest.approx(ends, abs=6)
    here = round(SIDE / 2 + metre)
    assert plan.drawn(CAMERA)[here, SIDE // 2].tolist() == [255, 255, 255]
    far = plan.drawn(CAMERA.moved(right=100.0))
    assert far[here, SIDE - 1].tolist() == [255, 255, 255]
    assert (Map.of(ViewMemory()).picture == Map.of(ViewMemory()).picture[0, 0]).all()


# Ways -----------------------------------------------------------------------------------------


def test_way_to_a_turned_view_is_cut_into_steps() -> None:
    goal = CAMERA.moved(forward=0.1, yaw_degrees=44.0)
    way = approach([CAMERA, CAMERA.moved(right=9.0)], goal)
    assert len(way) == math.ceil(44.0 / STEP_DEGREES)
    torch.testing.assert_close(way[-1].cam_from_world, goal.cam_from_world, rtol=0, atol=1e-5)
    turned = [math.degrees(math.asin(float(c.world_from_cam[0, 2]))) for c in way]
    assert turned == pytest.approx([44 / 3, 88 / 3, 44], abs=1e-3)


def test_way_starts_at_the_nearest_known_view() -> None:
    known = [CAMERA, CAMERA.moved(right=1.0), CAMERA.moved(yaw_degrees=90.0)]
    way = approach(known, CAMERA.moved(right=1.0 + 2.5 * STEP_METRES))
    assert [float(c.center[0]) for c in way] == pytest.approx(
        [1 + STEP_METRES * 2.5 / 3 * k for k in (1, 2, 3)], abs=1e-5
    )
    assert len(approach(known, CAMERA)) == 1


def test_smooth_path_goes_through_its_poses() -> None:
    stops = [CAMERA.moved(right=x, forward=x * x) for x in (0.0, 1.0, 2.0)]
    path = between([stop.cam_from_world for stop in stops], CAMERA, 20)
    assert len(path) == 20
    for index, stop in ((9, stops[1]), (19, stops[2])):
        torch.testing.assert_close(path[index].center, stop.center, rtol=0, atol=1e-5)
    places = torch.stack([CAMERA.center, *(camera.center for camera in path)])
    assert float(torch.linalg.norm(places.diff(dim=0).diff(dim=0), dim=1).max()) < 0.1


@pytest.mark.parametrize("size", [(1600, 900), (400, 800), (3000, 300), (7, 7)])
def test_grown_view_is_as_large_as_the_worlds_and_as_high_as_the_window(
    size: tuple[int, int],
) -> None:
    window = Camera.from_fov(70.0, *size)
    view = growth_view(window, Camera.from_fov(60.0, 768, 512))
    assert max(view.width, view.height) == 768
    assert view.width % 2 == view.height % 2 == 0
    assert 0.5 <= view.width / view.height <= 2.0

    def high(camera: Camera) -> float:
        return camera.height / float(camera.px_from_cam[1, 1])

    assert high(view) == pytest.approx(high(window), rel=0.01)


def test_joined_scenery_keeps_the_order() -> None:
    assert len(SCENERY.splats) == len(join([wall(-1, -0.5), wall(-0.5, 0.5)])) == len(SCENERY.age)
