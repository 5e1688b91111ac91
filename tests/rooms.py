"""A world of boxes with exact answers: two rooms, and an inner wall with a doorway between them.

World axes as everywhere: x right, y down, z forward, metres; the floor is at y = 0. The rooms
span x from -4 to 0 and from 0.2 to 4; the wall between them has a doorway near its far end.
"""

from __future__ import annotations

import math

import numpy as np

from renderers import Camera
from spatial_memory import MemoryConfig, Retrieval, ViewMemory

SHELL = np.array([[-4.0, -2.6, 0.0], [4.0, 0.0, 6.0]])
"""The inside of the house."""
BOXES = np.array(
    [
        [[0.0, -2.6, 0.0], [0.2, 0.0, 4.6]],  # the wall; open from z = 4.6 on
        [[-3.2, -0.8, 2.2], [-2.4, 0.0, 3.0]],  # a crate in the left room
        [[2.0, -1.1, 2.5], [2.6, 0.0, 3.4]],  # a crate in the right room
    ]
)


def first_hits(eye: np.ndarray, directions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ray parameter (n,) and outward normal (n, 3) of the first surface along each ray.

    Args:
        eye: (3,) or (n, 3) starting points, inside the house.
        directions: (n, 3), not normalised: points are ``eye + t * direction``.
    """
    directions = np.where(directions == 0.0, 1e-12, directions)
    to_low, to_high = (SHELL[0] - eye) / directions, (SHELL[1] - eye) / directions
    t_axis = np.maximum(to_low, to_high)
    axis = t_axis.argmin(1)
    best = t_axis.min(1)
    rows = np.arange(len(directions))
    normals = np.zeros(directions.shape)
    normals[rows, axis] = -np.sign(directions[rows, axis])
    for low, high in BOXES:
        to_low, to_high = (low - eye) / directions, (high - eye) / directions
        enter, leave = np.minimum(to_low, to_high), np.maximum(to_low, to_high).min(1)
        axis, t = enter.argmax(1), enter.max(1)
        hit = (t > 0) & (t < leave) & (t < best)
        best = np.where(hit, t, best)
        side = np.zeros(directions.shape)
        side[rows, axis] = -np.sign(directions[rows, axis])
        normals[hit] = side[hit]
    return best, normals


def pose(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation cam_from_world, position in the world and intrinsics, float64."""
    matrix = camera.cam_from_world.double().numpy()
    return matrix[:3, :3], -matrix[:3, :3].T @ matrix[:3, 3], camera.px_from_cam.double().numpy()


def rays(camera: Camera) -> np.ndarray:
    """(h * w, 3) directions with z = 1 in the camera frame, so that t is depth."""
    rotation, _, k = pose(camera)
    v, u = np.meshgrid(np.arange(camera.height) + 0.5, np.arange(camera.width) + 0.5, indexing="ij")
    local = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u)], -1)
    return local.reshape(-1, 3) @ rotation


def photograph(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """rgb (h, w, 3) and depth (h, w), float32; colours follow position, as if painted."""
    _, eye, _ = pose(camera)
    depth, normals = first_hits(eye, rays(camera))
    points = eye + depth[:, None] * rays(camera)
    rgb = 0.5 + 0.3 * np.sin(3.0 * points) + 0.1 * normals
    shape = (camera.height, camera.width)
    return rgb.reshape(*shape, 3).astype(np.float32), depth.reshape(shape).astype(np.float32)


def truly_seen(target: Camera, view: Camera, slack: float = 0.01) -> np.ndarray:
    """(h * w,) bool: target pixels whose surface point the view sees, by casting rays to it."""
    _, eye, _ = pose(target)
    depth, normals = first_hits(eye, rays(target))
    points = eye + depth[:, None] * rays(target)
    rotation, origin, k = pose(view)
    local = (points - origin) @ rotation.T
    z = np.maximum(local[:, 2], 1e-9)
    u, v = k[0, 0] * local[:, 0] / z + k[0, 2], k[1, 1] * local[:, 1] / z + k[1, 2]
    inside = (local[:, 2] > 0.05) & (u >= 0) & (v >= 0) & (u <= view.width) & (v <= view.height)
    t, _ = first_hits(origin, points - origin)
    facing = ((origin - points) * normals).sum(1) > 0
    return inside & facing & (t > 1.0 - slack)


SMALL = MemoryConfig(surfel_side=64, sight_side=96, evidence_side=64)
"""A coarse memory, so that tests are fast."""


def stand(
    x: float, z: float, heading: float, y: float = -1.5, size: tuple[int, int] = (96, 64)
) -> Camera:
    """Camera at (x, y, z) that looks along ``heading`` degrees: 0 is forward (z), 90 right (x)."""
    way = math.radians(heading)
    target = (x + math.sin(way), y + 0.1, z + math.cos(way))
    return Camera.look_at((x, y, z), target, 70.0, *size)


def strolls(count: int, seed: int) -> list[Camera]:
    """Cameras at random places in both rooms, never inside a box."""
    rng = np.random.default_rng(seed)
    cameras: list[Camera] = []
    while len(cameras) < count:
        eye = rng.uniform((-3.6, -1.8, 0.5), (3.6, -1.0, 5.5))
        if not any(((eye > low - 0.25) & (eye < high + 0.25)).all() for low, high in BOXES):
            cameras.append(stand(eye[0], eye[2], rng.uniform(0, 360), eye[1]))
    return cameras


def remember(cameras: list[Camera], config: MemoryConfig = SMALL) -> ViewMemory:
    memory = ViewMemory(config)
    for camera in cameras:
        memory.write(*photograph(camera), camera)
    return memory


TARGETS = strolls(10, seed=1)
"""Where tests look from."""


def answers(memory: ViewMemory) -> list[Retrieval]:
    return [memory.retrieve(TARGETS[i : i + 2], k=4) for i in range(0, len(TARGETS), 2)]


def same_surfels(one: ViewMemory, two: ViewMemory) -> bool:
    a, b = one.surfels.arrays(), two.surfels.arrays()
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)
