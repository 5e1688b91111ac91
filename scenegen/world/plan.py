"""Which views to visit, so that the space around the photograph fills without large open holes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import Camera
from scenegen.config import Extent
from scenegen.world.circle import joins

Move = Mapping[str, float]

NEW_SHARE = 0.24
"""Share of a view that may be new on an open side: what an outpainter continues well."""
LOOK_DEGREES = 44.0
"""How far `look` turns to either side."""
GROUND: Move = {"pitch_degrees": -14.0}
"""The ground at the feet, in any direction."""
BETWEEN: tuple[Move, ...] = (
    {"right": 0.3},
    {"right": -0.3},
    {"forward": 0.5},
    GROUND,
)
"""Steps whose holes lie between known surfaces, the easiest to fill, and the ground at the feet."""
CORNERS: tuple[Move, ...] = (
    {"right": 0.3, "forward": 0.3, "yaw_degrees": 20.0},
    {"right": -0.3, "forward": 0.3, "yaw_degrees": -20.0},
)
"""What stepping and turning uncover together."""


def look_moves(fov_degrees: float) -> tuple[Move, ...]:
    """Moves of the extent `look`, as :meth:`renderers.Camera.moved` takes them.

    Args:
        fov_degrees: Horizontal field of view; narrow lenses turn in smaller steps.
    """
    turns = math.ceil(LOOK_DEGREES / (NEW_SHARE * fov_degrees))
    angles = [LOOK_DEGREES * (i + 1) / turns for i in range(turns)]
    outwards = [{"yaw_degrees": side * angle} for angle in angles for side in (1.0, -1.0)]
    return (*BETWEEN, *outwards, *CORNERS)


def around_moves(fov_degrees: float) -> tuple[Move, ...]:
    """Moves of the extent `around`: what is left between the copies of :mod:`circle`.

    Args:
        fov_degrees: Horizontal field of view.
    """
    circle = [{"yaw_degrees": angle} for angle in joins(fov_degrees)]
    views = math.ceil(360.0 / fov_degrees)
    feet = [{"yaw_degrees": 360.0 * i / views, **GROUND} for i in range(1, views)]
    return (*circle, *BETWEEN, *CORNERS, *feet)


SAME_PLACE = 1e-4
"""Cameras less than this from the world's origin, in metres, only turn there."""
LEAST_STEP = 2_000
"""Splats that a view may always add: a hole is worse than a budget passed by a little."""


def allowance(left: int, cameras: Sequence[Camera]) -> int:
    """Splats that the first of some planned views may add.

    Views that turn show what was never seen, and share what is left evenly. A step aside uncovers
    little, and may have what it needs.

    Args:
        left: What all of them may add.
        cameras: The views still to be visited, in order.
    """
    turns = [bool(camera.center.norm() < SAME_PLACE) for camera in cameras]
    return max(LEAST_STEP, left // (sum(turns) if turns[0] else 1))


NEAR_SHARE = 0.02
"""Share of a view's surfaces that are nearer than the depth that measures its safe range."""
LATERAL, FORWARD = 0.08, 0.15
"""Safe range: sideways in image diagonals over focal length, and forwards; times that depth."""


def safe_range(depth: Float[Tensor, "h w"], camera: Camera) -> tuple[float, float]:
    """How far one can step from a view before what it shows falls apart, in metres.

    Args:
        depth: Of the view, in metres; what is not finite does not count.
        camera: The view.

    Returns:
        To either side, and forwards.
    """
    surfaces = depth[torch.isfinite(depth)]
    near = float(surfaces.quantile(NEAR_SHARE)) if len(surfaces) else 1.0
    diagonal = math.hypot(camera.width, camera.height) / float(camera.px_from_cam[0, 0])
    return LATERAL * diagonal * near, FORWARD * near


EXTENTS: dict[Extent, Callable[[float], tuple[Move, ...]]] = {
    "photo": lambda fov_degrees: (),
    "look": look_moves,
    "around": around_moves,
}


def planned_cameras(camera: Camera, extent: Extent) -> tuple[Camera, ...]:
    """Views to visit around the photograph's camera, in order."""
    return tuple(camera.moved(**move) for move in EXTENTS[extent](camera.fov_degrees))
