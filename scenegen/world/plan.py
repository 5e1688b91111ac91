"""Which views to visit, so that the space around the photograph fills without large open holes.

What may be visited is fixed by the extent and by how far one can step; the order is found on the
way, from what the world shows by then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera
from scenegen.config import Extent
from scenegen.world.circle import JOIN, joins

if TYPE_CHECKING:
    from scenegen.world.grow import Look

Move = Mapping[str, float]

NEW_SHARE = 0.24
"""Share of a view that a turn makes new on an open side: what an outpainter continues well."""
LOOK_DEGREES = 44.0
"""How far `look` turns to either side."""
GROUND: Move = {"pitch_degrees": -14.0}
"""The ground at the feet, in any direction."""
ASIDE_DEGREES = 20.0
"""How far views from beside the photograph and a little above are turned, outwards and inwards."""
LEAST_STEP_METRES, MOST_STEP_METRES = 0.1, 1.0
"""A step aside or ahead, at least and at most: in between, the safe range decides."""


def steps_beside(reach: float, ahead: float) -> tuple[Move, ...]:
    """Steps to the sides and ahead, and turned from beside, as far as is safe.

    Args:
        reach: Safe range to either side, in metres.
        ahead: Safe range forwards, in metres.
    """
    side, forward = (min(max(r, LEAST_STEP_METRES), MOST_STEP_METRES) for r in (reach, ahead))
    corners = [
        {"right": sign * side, "down": -0.5 * side, "yaw_degrees": turn * ASIDE_DEGREES}
        for sign in (1.0, -1.0)
        for turn in (sign, -sign)
    ]
    return ({"right": side}, {"right": -side}, {"forward": forward}, *corners)


def look_moves(fov_degrees: float) -> tuple[Move, ...]:
    """Turns of the extent `look`, as :meth:`renderers.Camera.moved` takes them.

    Args:
        fov_degrees: Horizontal field of view; narrow lenses turn in smaller steps.
    """
    turns = math.ceil(LOOK_DEGREES / (NEW_SHARE * fov_degrees))
    angles = [LOOK_DEGREES * (i + 1) / turns for i in range(turns)]
    outwards = [{"yaw_degrees": side * angle} for angle in angles for side in (1.0, -1.0)]
    return (GROUND, *outwards)


def around_moves(fov_degrees: float) -> tuple[Move, ...]:
    """Turns of the extent `around`: what is left between the copies of :mod:`circle`.

    Args:
        fov_degrees: Horizontal field of view.
    """
    circle = [{"yaw_degrees": angle} for angle in joins(fov_degrees)]
    views = math.ceil(360.0 / fov_degrees)
    feet = [{"yaw_degrees": 360.0 * i / views, **GROUND} for i in range(views)]
    return (*circle, *feet)


OPEN_SHARE = 0.3
"""A hole at the rim of a view is continued well up to this share of it, and up to JOIN where it
lies between what is known on both sides."""
PLAN_SCALE = 4
"""Views are drawn so many times smaller to choose among them."""
RIM = 0.5
"""A hole is open to a side where more than this share of the view's rim there is unknown."""


def best_first(cameras: Sequence[Camera], look: Callable[[Camera], Look]) -> Iterator[list[Camera]]:
    """The view that explains most new area of those that can be filled well, again and again.

    Steep turns wait until those before them have narrowed their holes; what lies between known
    views may be wider than what is open to a side.

    Args:
        cameras: The views to visit.
        look: What the world shows from a view by now.

    Yields:
        The next view, and after it those that are left.
    """
    left = list(cameras)
    while left:
        gains = [_gain(look(_small(camera)).hole) for camera in left]
        left.insert(0, left.pop(max(range(len(left)), key=gains.__getitem__)))
        yield list(left)
        left.pop(0)


def in_order(cameras: Sequence[Camera]) -> Iterator[list[Camera]]:
    """Every view in turn, and after it those that are left."""
    return (list(cameras[place:]) for place in range(len(cameras)))


def _small(camera: Camera) -> Camera:
    return camera.resized(camera.width // PLAN_SCALE, camera.height // PLAN_SCALE)


def _gain(hole: Bool[Tensor, "h w"]) -> float:
    """New area of a view as a share of it; below zero, the more the worse, where it is too much."""
    share = float(hole.float().mean())
    rims = (hole[0], hole[-1], hole[:, 0], hole[:, -1])
    is_open = any(float(rim.float().mean()) > RIM for rim in rims)
    return share if share <= (OPEN_SHARE if is_open else JOIN) else -share


SAME_PLACE = 1e-4
"""Cameras less than this from the world's origin, in metres, only turn there."""
LEAST_STEP = 2_000
"""Splats that every view may add: a hole is worse than fewer splats elsewhere."""


def allowance(left: int, cameras: Sequence[Camera]) -> int:
    """Splats that the first of some planned views may add.

    Views that turn show what was never seen, and share what is left evenly. A step aside uncovers
    little, and may have what it needs. LEAST_STEP is kept for each of the others.

    Args:
        left: What all of them may add.
        cameras: The views still to be visited, in order.
    """
    turns = [bool(camera.center.norm() < SAME_PLACE) for camera in cameras]
    free = left - LEAST_STEP * len(cameras)
    return LEAST_STEP + max(0, free // (sum(turns) if turns[0] else 1))


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
"""Turns of each extent."""


def planned_cameras(
    camera: Camera, extent: Extent, depth: Float[Tensor, "h w"]
) -> tuple[Camera, ...]:
    """Views to visit around the photograph's camera.

    Args:
        camera: The photograph's.
        extent: How much is built.
        depth: Of the photograph, in metres.
    """
    turns = EXTENTS[extent](camera.fov_degrees)
    beside = steps_beside(*safe_range(depth, camera)) if turns else ()
    return tuple(camera.moved(**move) for move in (*turns, *beside))
