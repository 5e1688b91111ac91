"""The order in which views are visited, how far they step, and what they may cost."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from renderers import Camera
from scenegen.world.plan import EXTENTS, allowance, best_first, planned_cameras


def test_views_that_turn_share_what_is_left_of_the_budget() -> None:
    camera = Camera.from_fov(63, 768, 576)
    aside, turned = camera.moved(right=0.3), camera.moved(yaw_degrees=15)
    assert allowance(90_000, [aside, turned, turned]) == 86_000  # 2,000 are kept for each
    assert allowance(98_000, [turned, aside, turned, turned]) == 32_000
    assert allowance(-5, [turned]) == 2_000  # a hole is worse


def test_plans_stay_level_and_step_as_far_as_is_safe() -> None:
    """What is 5 m away allows a step of .08 diagonals (960 pixels) per focal length (470)."""
    camera = Camera.from_fov(78.5, 768, 576)
    depth = torch.full((576, 768), 5.0)
    cameras = planned_cameras(camera, "look", depth)
    assert len(cameras) == 14 and planned_cameras(camera, "photo", depth) == ()
    assert all(float(c.cam_from_world[0, 1]) == 0.0 for c in cameras)  # no roll
    places = torch.stack([c.center for c in cameras])
    assert float(places[:, 0].max()) == pytest.approx(0.08 * 960 / 470 * 5.0, abs=0.01)
    assert float(places[:, 2].max()) == pytest.approx(0.15 * 5.0)
    near = torch.stack([c.center for c in planned_cameras(camera, "look", 0.01 * depth)])
    far = torch.stack([c.center for c in planned_cameras(camera, "look", 100 * depth)])
    assert near.abs().max() == pytest.approx(0.1) and far.abs().max() == pytest.approx(1.0)
    for fov in (30.0, 46.0, 63.0, 90.0):
        turns = sorted(
            {abs(move.get("yaw_degrees", 0.0)) for move in EXTENTS["look"](fov)
             if set(move) == {"yaw_degrees"}}
        )  # fmt: skip
        gaps = [b - a for a, b in zip([0.0, *turns], turns, strict=False)]
        assert max(gaps) <= 0.24 * fov + 1e-6 and turns[-1] == pytest.approx(44)


def test_the_view_that_explains_most_comes_first_if_it_can_be_filled_well() -> None:
    """Known are 60 degrees ahead, and more behind a gap of 25 to the right; views are 60 wide.

    Seen whole the gap lies between known surfaces, and 25 of 60 degrees can be filled; seen from
    its rim it is open, and too much. On the left all is open: 15 degrees come before 30.
    """
    camera = Camera.from_fov(60, 48, 36)
    known = {*range(-30, 30), *range(55, 100)}
    turns = {degrees: camera.moved(yaw_degrees=degrees) for degrees in (-30, -15, 5, 60, 50)}

    def seen(view: Camera) -> SimpleNamespace:
        yaw = math.degrees(math.atan2(*view.world_from_cam[[0, 2], 2].tolist()))
        across = [round(yaw) - 30 + 60 * (i + 0.5) / view.width for i in range(view.width)]
        hole = torch.tensor([math.floor(degrees) not in known for degrees in across])
        return SimpleNamespace(hole=hole.expand(view.height, -1))

    order = []
    for ahead in best_first([*turns.values()], cast(Any, seen)):
        yaw = next(degrees for degrees, view in turns.items() if view is ahead[0])
        order.append(yaw)
        known |= {*range(yaw - 30, yaw + 30)}
    assert order == [50, -15, -30, 5, 60]
