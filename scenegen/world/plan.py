"""Which views to visit, so that the space around the photograph fills without large open holes."""

from __future__ import annotations

from collections.abc import Mapping

from renderers import Camera
from scenegen.config import Extent

Move = Mapping[str, float]

LOOK: tuple[Move, ...] = (
    # First sideways and forwards: these holes lie between known surfaces, the easiest to fill.
    {"right": 0.3},
    {"right": -0.3},
    {"forward": 0.5},
    {"pitch_degrees": -14.0},
    # Then outwards, both sides in turn, never far beyond what exists.
    {"yaw_degrees": 15.0},
    {"yaw_degrees": -15.0},
    {"yaw_degrees": 30.0},
    {"yaw_degrees": -30.0},
    {"yaw_degrees": 44.0},
    {"yaw_degrees": -44.0},
    # Last, between the two: what both uncover together.
    {"right": 0.3, "forward": 0.3, "yaw_degrees": 20.0},
    {"right": -0.3, "forward": 0.3, "yaw_degrees": -20.0},
)
"""Metres and degrees, as :meth:`renderers.Camera.moved` takes them."""

EXTENTS: dict[Extent, tuple[Move, ...]] = {"photo": (), "look": LOOK}


def planned_cameras(camera: Camera, extent: Extent) -> tuple[Camera, ...]:
    """Views to visit around the photograph's camera, in order."""
    return tuple(camera.moved(**move) for move in EXTENTS[extent])
