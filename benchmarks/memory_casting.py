"""Worlds of boxes with exact depth and exact visibility, by casting rays; and walks through them.

World axes as everywhere: x right, y down, z forward, metres; the ground is at y = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64

from renderers import Camera
from renderers.kernels import kernel

FOV_DEGREES = 75.0
"""Horizontal field of view of all views."""
SIZE = (160, 120)
"""Width and height of all views, in pixels."""
EYE = 1.5
"""Height of the eyes above the floor, in metres."""
GLANCES = (0.0, 30.0, 0.0, -30.0, 0.0, 75.0, 0.0, -75.0)
"""Walkers look ahead and around, in turn, in degrees to the right."""
AHEAD = 1.2
"""Looking ahead is to look at the place on the path that is so far away, in metres."""
SWAY = np.array([0.12, 0.03, 5.0, 4.0])
"""Walkers are off the path (m, sideways and in height) and turned (degrees, right and up) by
this: no two laps are the same. Half width of a uniform distribution."""


@dataclass(frozen=True, eq=False)
class World:
    """Solid boxes, and a walk between them."""

    boxes: Float64[np.ndarray, "n 2 3"]
    """Smallest and largest corner of each, in metres."""
    path: Float64[np.ndarray, "m 3"]
    """Corners of the way that is walked, on the floor, in metres."""
    lap: int | None = None
    """Views for one time along the path, which is closed then; None: all views."""

    def first_hits(
        self, eye: Float64[np.ndarray, " 3"], directions: Float64[np.ndarray, "n 3"]
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n 3"]]:
        """Ray parameter and outward normal of the first surface along each ray.

        Args:
            eye: Starting point, in no box.
            directions: Not normalised: points are ``eye + t * direction``.

        Returns:
            +inf and 0 where a ray meets nothing.
        """
        t, normals = np.empty(len(directions)), np.zeros(directions.shape)
        _first_hits(*self._nearest_first(eye), eye, directions, t, normals)
        return t, normals

    def photograph(
        self, camera: Camera
    ) -> tuple[Float32[np.ndarray, "h w 3"], Float32[np.ndarray, "h w"]]:
        """Colours and depth (m, +inf for the sky). Colours follow position, as if painted."""
        depth, points, normals = self.surfaces(camera)
        rgb = 0.5 + 0.3 * np.sin(3.0 * np.where(np.isfinite(points), points, 0.0)) + 0.1 * normals
        shape = (camera.height, camera.width)
        return rgb.reshape(*shape, 3).astype(np.float32), depth.reshape(shape).astype(np.float32)

    def surfaces(
        self, camera: Camera
    ) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]:
        """Depth, point and normal behind the centre of every pixel; inf for the sky."""
        rotation, eye, lens = pose(camera)
        v, u = np.indices((camera.height, camera.width)) + 0.5
        local = [(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)]
        directions = np.stack(local, -1).reshape(-1, 3) @ rotation
        depth, normals = self.first_hits(eye, directions)
        solid = np.isfinite(depth)
        points = np.full(directions.shape, np.inf)
        points[solid] = eye + depth[solid, None] * directions[solid]
        return depth, points, normals

    def shows(
        self,
        camera: Camera,
        points: Float64[np.ndarray, "n 3"],
        normals: Float64[np.ndarray, "n 3"],
    ) -> Bool[np.ndarray, " n"]:
        """Whether a camera sees points of surfaces: framed, from the front, nothing between."""
        rotation, eye, lens = pose(camera)
        seen = np.empty(len(points), np.bool_)
        frame = np.array([camera.width, camera.height], np.float64)
        near = self._nearest_first(eye)
        _shows(*near, eye, rotation, lens, frame, points, normals, seen)
        return seen

    def blocked(
        self, eye: Float64[np.ndarray, " 3"], goals: Float64[np.ndarray, "n 3"]
    ) -> np.ndarray:
        """(n,) whether a box stands between the eye and each of the goals."""
        return self.first_hits(eye, goals - eye)[0] < 1.0

    def free(self, eye: Float64[np.ndarray, " 3"], room: float = 0.1) -> bool:
        """Whether there is so much room (m) around a place, along every axis."""
        inside = (eye > self.boxes[:, 0] - room) & (eye < self.boxes[:, 1] + room)
        return not inside.all(1).any()

    def walk(self, count: int, seed: int = 0) -> list[Camera]:
        """Cameras along the path; each lap differs from the others by how the walker sways."""
        sway = np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 4)) * SWAY
        lap = self.lap or count
        sway[:, 2] += [GLANCES[i % lap % len(GLANCES)] for i in range(count)]
        step = self.length / lap
        return [self.stand((i + 0.5) * step, *off) for i, off in enumerate(sway)]

    @property
    def length(self) -> float:
        """Of the path, in metres."""
        return float(np.linalg.norm(np.diff(self.path, axis=0), axis=1).sum())

    def place(self, way: float) -> np.ndarray:
        """(3,) the point of the floor that is so far along the path, in metres."""
        lengths = np.linalg.norm(np.diff(self.path, axis=0), axis=1)
        ends = np.concatenate([[0.0], np.cumsum(lengths)])
        way = way % ends[-1] if self.lap else min(way, ends[-1])
        return np.array([np.interp(way, ends, self.path[:, axis]) for axis in range(3)])

    def stand(
        self,
        way: float,
        aside: float,
        up: float,
        turn: float,
        nod: float,
        fov_degrees: float = FOV_DEGREES,
    ) -> Camera:
        """A camera above the path.

        Args:
            way: How far along the path, in metres.
            aside: How far to the right of it, in metres.
            up: How much higher than usual, in metres.
            turn: To the right of where the path leads, in degrees.
            nod: Upwards, in degrees.
            fov_degrees: Horizontal field of view.
        """
        here = self.place(way)
        ahead = self.place(way + AHEAD) - here
        if not self.lap and np.hypot(ahead[0], ahead[2]) < 0.1:  # at the end of the path
            ahead = here - self.place(way - AHEAD)
        heading = math.atan2(ahead[0], ahead[2])
        eye = here + np.array([aside * math.cos(heading), -EYE - up, -aside * math.sin(heading)])
        heading, nod = heading + math.radians(turn), math.radians(nod)
        look = [math.sin(heading), -math.tan(nod), math.cos(heading)]
        return Camera.look_at(eye.tolist(), (eye + look).tolist(), fov_degrees, *SIZE)

    def _nearest_first(self, eye: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes, and their distances from the eye in metres: ascending, so that rays can stop."""
        gaps = np.maximum(self.boxes[:, 0] - eye, eye - self.boxes[:, 1]).clip(0.0)
        away = np.linalg.norm(gaps, axis=1)
        order = away.argsort(kind="stable")
        return self.boxes[order], away[order]


Pose = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rotation cam_from_world (3, 3), position in the world (3,), lens (fx, fy, cx, cy); float64."""


def pose(camera: Camera) -> Pose:
    """Of a camera, as plain numbers."""
    matrix, k = camera.cam_from_world.double().numpy(), camera.px_from_cam.double().numpy()
    rotation = np.ascontiguousarray(matrix[:3, :3])
    return rotation, -rotation.T @ matrix[:3, 3], np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])


@kernel()
def _enters(box, eye, direction):
    """Ray parameter where a ray enters a box, and the axis of that side; inf where it misses."""
    enter, leave, side = -np.inf, np.inf, 0
    for axis in range(3):
        d = direction[axis] if direction[axis] != 0.0 else 1e-12
        one, other = (box[0, axis] - eye[axis]) / d, (box[1, axis] - eye[axis]) / d
        if min(one, other) > enter:
            enter, side = min(one, other), axis
        leave = min(leave, max(one, other))
    return (enter if 0.0 < enter < leave else np.inf), side


@kernel()
def _first_hits(boxes, away, eye, directions, t, normals):
    for r in range(len(directions)):
        way = directions[r]
        length = np.sqrt(way[0] ** 2 + way[1] ** 2 + way[2] ** 2)
        best, side = np.inf, 0
        for b in range(len(boxes)):
            if away[b] > best * length:
                break
            enter, axis = _enters(boxes[b], eye, way)
            if enter < best:
                best, side = enter, axis
        t[r] = best
        if best < np.inf:
            normals[r, side] = -np.sign(way[side])


@kernel()
def _shows(boxes, away, eye, rotation, lens, frame, points, normals, seen):
    way = np.empty(3)
    for i in range(len(points)):
        seen[i] = False
        for axis in range(3):
            way[axis] = points[i, axis] - eye[axis]
        x, y, z = rotation @ way
        if z <= 0.0 or np.dot(way, normals[i]) >= 0.0:
            continue
        u, v = lens[0] * x / z + lens[2], lens[1] * y / z + lens[3]
        if not (0.0 <= u <= frame[0] and 0.0 <= v <= frame[1]):
            continue
        seen[i] = True
        length = np.sqrt(np.dot(way, way))
        for b in range(len(boxes)):
            if away[b] > length:
                break
            if _enters(boxes[b], eye, way)[0] < 1.0 - 1e-6:  # its own box is entered at 1
                seen[i] = False
                break
