"""Where a body can stand and go: the surfel map as ground underfoot and as walls around.

The body is an upright cylinder. A surfel is ground where it faces up and lies no higher than a
step; any surfel that reaches into the cylinder above the step is in the way, and pushes the body
out sideways, so that it slides along walls. Steps are shorter than half the radius: nothing is
jumped over. Where nothing is mapped, the way is free and the ground goes on level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from renderers.errors import SceneError
from renderers.kernels import kernel
from spatial_memory.memory import ViewMemory

Point = tuple[float, float, float]
"""In the world (OpenCV axes: y points down), in metres."""

FOOT = 0.15
"""Radius of the patch of ground that carries the body, in metres."""
LEVEL = 0.6
"""Smallest cosine between straight up and the normal of ground: 53 degrees is steep to walk."""
THICK = 0.15
"""Ground within so many metres below the highest of the patch counts with it: noise evens out."""
PUSHES = 8
"""Times that walls push the body out, per step, until it has come to rest."""


@dataclass(frozen=True)
class Body:
    """Who walks: an upright cylinder that steps over what is low."""

    eye_height: float = 1.6
    """Height of the eyes above the ground, in metres."""
    radius: float = 0.25
    """Distance kept from walls, in metres."""
    step: float = 0.35
    """Height that is stepped up, in metres."""
    drop: float = 1.0
    """Height that is stepped down, in metres; deeper ground is not walked down to."""
    crown: float = 0.1
    """Height of the head above the eyes, in metres."""

    def __post_init__(self) -> None:
        if not (self.eye_height > self.step > 0 and self.radius > 0 and self.drop > 0):
            raise SceneError(
                "this is not a body that can walk",
                why=f"{self}: heights and radius are positive, and the eyes above the step",
                fix="use the defaults, or an eye height of a person in metres",
            )


class Terrain:
    """A copy of the surfels of a memory, to stand and walk on. Safe to use from any thread."""

    def __init__(self, points: np.ndarray, normals: np.ndarray, radii: np.ndarray) -> None:
        """Take surfels: points (n, 3) and radii (n,) in metres, unit normals (n, 3)."""
        good = np.isfinite(points).all(1) & np.isfinite(normals).all(1) & (radii > 0)
        self._surfels = tuple(
            np.ascontiguousarray(values[good], np.float32) for values in (points, normals, radii)
        )

    @classmethod
    def of(cls, memory: ViewMemory) -> Terrain:
        """The surfels of a memory as they are now. Not while another thread writes to it."""
        surfels = memory.surfels
        return cls(surfels.points, surfels.normals, surfels.radii)

    def __len__(self) -> int:
        return len(self._surfels[2])

    def ground(self, eye: Point, body: Body) -> float:
        """Height of the ground under a body, as the world's y (down is positive), in metres.

        Args:
            eye: Where its eyes are.
            body: Who stands there.

        Returns:
            The highest ground between a step up and a drop down from its feet; NaN where nothing
            is mapped there.
        """
        feet = eye[1] + body.eye_height
        return float(_ground(*self._surfels, *eye, feet - body.step, feet + body.drop, FOOT))

    def settled(self, eye: Point, body: Body) -> Body:
        """The same body with its eyes as high above the ground as they are at ``eye``.

        So that who stands where a photograph was taken sees the photograph. Where the ground is
        not between half and twice the body's eye height below, the body stays as it is.
        """
        low, high = 0.5 * body.eye_height, 2.0 * body.eye_height
        height = float(_ground(*self._surfels, *eye, eye[1] + low, eye[1] + high, FOOT)) - eye[1]
        return replace(body, eye_height=height) if height > body.step else body

    def walk(self, start: Point, goal: Point, body: Body) -> Point:
        """Where a body comes to that walks straight from one place towards another.

        Args:
            start: Where its eyes are.
            goal: Where its eyes want to be; the height does not matter.
            body: Who walks. It comes no nearer to walls than it is or than its radius allows.

        Returns:
            Where its eyes are then: before a wall or slid along it, and at eye height above the
            ground, at most a step higher or a drop lower per step of the way.
        """
        rules = body.radius, body.step, body.drop, body.eye_height, body.crown, FOOT
        return _walk(*self._surfels, *start, goal[0], goal[2], np.array(rules))


@kernel()
def _ground(points, normals, radii, x, y, z, top, bottom, foot):
    """The mean height of ground near the highest between ``top`` and ``bottom``; NaN for none."""
    highest, total, weight = np.inf, 0.0, 0.0
    for turn in range(2):
        for i in range(radii.shape[0]):
            up = -np.float64(normals[i, 1])
            if up < LEVEL:
                continue
            dx, dz = x - points[i, 0], z - points[i, 2]
            away = np.sqrt(dx * dx + dz * dz)
            if away > radii[i] + foot:
                continue
            # The plane of the disc under (x, z), or at its rim where it ends before.
            share = min(1.0, radii[i] / max(away, 1e-9))
            rise = (normals[i, 0] * dx + normals[i, 2] * dz) * share / up
            level = points[i, 1] + rise
            if not top <= level <= bottom:
                continue
            if turn == 0:
                highest = min(highest, level)
            elif level <= highest + THICK:
                near = 1.0 - away / (radii[i] + foot) + 1e-6
                total += near * level
                weight += near
        if highest == np.inf:
            return np.nan
    return total / weight


@kernel()
def _disc_offset(points, normals, radii, i, x, low, high, z):
    """From the nearest point of a disc to the axis of the body: (dx, dz, distance).

    The axis is the vertical line at (x, z) from ``high`` (smaller y) to ``low``; infinitely far
    where the nearest point is above or below it.
    """
    px, py, pz = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
    nx, ny, nz = np.float64(normals[i, 0]), np.float64(normals[i, 1]), np.float64(normals[i, 2])
    y = min(max(py, high), low)
    qx = qy = qz = 0.0
    for _ in range(2):
        off = (x - px) * nx + (y - py) * ny + (z - pz) * nz
        dx, dy, dz = x - off * nx - px, y - off * ny - py, z - off * nz - pz
        length = np.sqrt(dx * dx + dy * dy + dz * dz)
        share = min(1.0, radii[i] / max(length, 1e-12))
        qx, qy, qz = px + share * dx, py + share * dy, pz + share * dz
        y = min(max(qy, high), low)
    if qy < high - 1e-9 or qy > low + 1e-9:
        return 0.0, 0.0, np.inf
    return x - qx, z - qz, np.sqrt((x - qx) ** 2 + (z - qz) ** 2)


@kernel()
def _walk(points, normals, radii, x, y, z, goal_x, goal_z, rules):
    radius, step, drop, eye_height, crown, foot = rules
    length = np.sqrt((goal_x - x) ** 2 + (goal_z - z) ** 2)
    reach = length + radius
    near = np.empty(radii.shape[0], np.int64)
    count = 0
    for i in range(radii.shape[0]):
        dx, dz = points[i, 0] - x, points[i, 2] - z
        if dx * dx + dz * dz <= (reach + radii[i]) ** 2:
            near[count] = i
            count += 1
    near = near[:count]

    room = radius
    for i in near:
        low, high = y + eye_height - step, y - crown
        room = min(room, _disc_offset(points, normals, radii, i, x, low, high, z)[2])
    radius = max(room, 0.2 * radius)

    steps = max(1, int(np.ceil(length / (0.4 * radius))))
    stride_x, stride_z = (goal_x - x) / steps, (goal_z - z) / steps
    for _ in range(steps):
        low, high = y + eye_height - step, y - crown
        here_x, here_z = x + stride_x, z + stride_z
        free = False
        for _ in range(PUSHES):
            # The nearest alone: a wall of discs then pushes straight back, not along itself.
            nearest, out_x, out_z = np.inf, 0.0, 0.0
            for i in near:
                dx, dz, away = _disc_offset(points, normals, radii, i, here_x, low, high, here_z)
                if away < nearest:
                    nearest, out_x, out_z = away, dx, dz
            free = nearest >= radius - 1e-3
            if free or nearest < 1e-6:
                break
            here_x += (radius / nearest - 1.0) * out_x
            here_z += (radius / nearest - 1.0) * out_z
        if not free:
            break  # squeezed between walls: no farther
        x, z = here_x, here_z
        feet = y + eye_height
        ground = _ground(points, normals, radii, x, y, z, feet - step, feet + drop, foot)
        if not np.isnan(ground):
            y = ground - eye_height
    return x, y, z
