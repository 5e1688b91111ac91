"""Worlds from above, to see with one's own eyes what a rule has chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.memory_casting import World, pose
from renderers import Camera

SIDE = 640
"""Longer side of each plan, in pixels."""
MARGIN = 1.0
"""Around all that is walked, in metres, but for what the walls take."""
WALLS, LOW, WALK = (60, 60, 60), (205, 205, 205), (150, 180, 230)
TARGET, RIGHT, WRONG = (30, 90, 220), (20, 150, 60), (215, 50, 40)
"""Colours of what stands at eye height, of what is lower or on another storey, and of views."""


def plans(
    world: World,
    views: Sequence[Camera],
    target: Camera,
    answers: Mapping[str, tuple[Sequence[int], Sequence[bool]]],
) -> Image.Image:
    """One plan per rule, side by side: the target in blue, what was chosen in green or red.

    Args:
        world: Where.
        views: The walk, as dots.
        target: The view that was asked for.
        answers: By rule, what it chose, and whether that shows the target.
    """
    places = np.stack([pose(view)[1] for view in (*views, target)])[:, [0, 2]]
    low, high = places.min(0) - MARGIN, places.max(0) + MARGIN
    scale = SIDE / float((high - low).max())
    size = np.ceil((high - low) * scale).astype(int)
    sheet = Image.new("RGB", (int(size[0]) * len(answers), int(size[1]) + 14), "white")
    for i, (name, (chosen, right)) in enumerate(answers.items()):
        plan = _Plan((int(size[0]), int(size[1])), low, scale)
        plan.boxes(world, float(pose(target)[1][1]))
        for view in views:
            plan.dot(view)
        for view, good in zip(chosen, right, strict=True):
            plan.view(views[view], RIGHT if good else WRONG)
        plan.view(target, TARGET)
        sheet.paste(plan.image, (i * int(size[0]), 14))
        ImageDraw.Draw(sheet).text((i * int(size[0]) + 4, 1), name, fill="black")
    return sheet


class _Plan:
    """Looking down; z is up in the picture."""

    def __init__(self, size: tuple[int, int], low: np.ndarray, scale: float) -> None:
        self.image = Image.new("RGB", size, "white")
        self._draw, self._low, self._scale = ImageDraw.Draw(self.image), low, scale

    def _px(self, x: float, z: float) -> tuple[float, float]:
        u, v = (x - self._low[0]) * self._scale, (z - self._low[1]) * self._scale
        return float(u), float(self.image.height - v)

    def boxes(self, world: World, eye: float) -> None:
        """What crosses the height of the eye (y, in metres), over what is lower by a storey."""
        tall = (world.boxes[:, 0, 1] < eye) & (world.boxes[:, 1, 1] > eye)
        near = (world.boxes[:, 0, 1] > eye) & (world.boxes[:, 0, 1] < eye + 1.3)
        for kind, color in ((near, LOW), (tall, WALLS)):
            for (x0, _, z0), (x1, _, z1) in world.boxes[kind]:
                self._draw.rectangle((*self._px(x0, z1), *self._px(x1, z0)), fill=color)

    def dot(self, view: Camera) -> None:
        """Where a view was taken."""
        _, eye, _ = pose(view)
        u, v = self._px(eye[0], eye[2])
        self._draw.ellipse((u - 2, v - 2, u + 2, v + 2), fill=WALK)

    def view(self, view: Camera, color: tuple[int, int, int]) -> None:
        """A view, and the edges of its field of view, 1.5 m long."""
        rotation, eye, _ = pose(view)
        heading, half = (
            math.atan2(rotation[2, 0], rotation[2, 2]),
            math.radians(view.fov_degrees / 2),
        )
        start = self._px(eye[0], eye[2])
        for way in (heading - half, heading + half):
            end = self._px(eye[0] + 1.5 * math.sin(way), eye[2] + 1.5 * math.cos(way))
            self._draw.line((*start, *end), fill=color, width=2)
        u, v = start
        self._draw.ellipse((u - 4, v - 4, u + 4, v + 4), fill=color)
