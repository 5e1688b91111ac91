"""A full circle out of one photograph: copies of it, all round, with joins to be filled between.

An outpainter that turns on and on from one photograph drifts into stripes. So the circle is laid
out with copies, every other one mirrored: across each join the same thing continues on both sides,
and what is left to invent lies between known surfaces. The copies are an invention, and say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from renderers import Camera, Splats
from scenegen.world.arrays import StepData

JOIN = 0.5
"""A join of up to this share of a view is filled at once: an outpainter sees both its ends."""
OPEN = 0.24
"""Wider ones are first narrowed from both ends, by this share of a view at most."""


@dataclass(frozen=True)
class Copy:
    """Where a copy of the photograph stands."""

    yaw_degrees: float
    """How far it is turned to the right, in degrees."""
    flip: bool
    """Whether it is mirrored from left to right."""


def copies(fov_degrees: float) -> tuple[Copy, ...]:
    """The copies that close a circle, without the photograph itself: an odd number of them.

    Args:
        fov_degrees: Horizontal field of view of the photograph.
    """
    turn = _turn(fov_degrees)
    return tuple(Copy(k * turn, k % 2 == 1) for k in range(1, round(360.0 / turn)))


def joins(fov_degrees: float) -> tuple[float, ...]:
    """Directions of the views that fill what lies between the copies, in order, in degrees."""
    turn = _turn(fov_degrees)
    gap = turn - fov_degrees
    rounds = max(0, math.ceil((gap / fov_degrees - JOIN) / (2 * OPEN) - 1e-9))
    share = (gap - JOIN * fov_degrees) / (2 * rounds) if rounds else 0.0
    aside = [turn / 2 - i * share for i in range(1, rounds + 1)]  # of the middle of the join
    around = [(k + 0.5) * turn for k in range(round(360.0 / turn))]
    narrowing = [m + side * by for by in aside for m in around for side in (-1.0, 1.0)]
    return (*narrowing, *around)


def _turn(fov_degrees: float) -> float:
    """Angle between copies: as many as there is room for, an even number."""
    return 180.0 / max(1, math.floor(180.0 / fov_degrees))


def copied(data: StepData, camera: Camera, copy: Copy) -> tuple[Camera, StepData]:
    """A step of the camera at the origin, as it stands in its copy.

    Args:
        data: The step. Its splats have plain colours.
        camera: Where it was seen from.
        copy: Where it goes.
    """
    splats, planes = data.splats, (data.rgb, data.depth, data.known)
    if copy.flip:
        splats, planes = _flipped(splats), tuple(plane.flip(1) for plane in planes)
    facing = camera.moved(yaw_degrees=copy.yaw_degrees)
    return facing, StepData(_turned(splats, copy.yaw_degrees), *planes)


def _flipped(splats: Splats) -> Splats:
    """Reflected in the plane x = 0.

    With M = diag(-1, 1, 1), ``R`` becomes ``M R M``: the same angle about the axis (x, -y, -z).
    """
    means = splats.means * torch.tensor([-1.0, 1.0, 1.0])
    quats = splats.quats * torch.tensor([1.0, 1.0, -1.0, -1.0])
    return replace(splats, means=means, quats=quats)


def _turned(splats: Splats, yaw_degrees: float) -> Splats:
    """Turned to the right about the vertical axis."""
    assert splats.sh is None, "worlds hold plain colours"
    half = math.radians(yaw_degrees) / 2
    cos, sin = math.cos(half), math.sin(half)
    c, s = math.cos(2 * half), math.sin(2 * half)
    turn = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], dtype=torch.float64)
    means = (splats.means.double() @ turn.T).float()
    w, x, y, z = splats.quats.double().unbind(-1)  # (cos, 0, sin, 0) * quat
    quats = torch.stack(
        [cos * w - sin * y, cos * x + sin * z, cos * y + sin * w, cos * z - sin * x], dim=-1
    )
    return replace(splats, means=means, quats=quats.float())
