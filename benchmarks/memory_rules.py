"""Rules that choose past views for a new one: ours, and those it is measured against.

ours     spatial_memory.ViewMemory
latest   the views taken last
pose     the nearest poses, by 0.1 |dt| + angle (arXiv 2506.18903)
fov      the largest overlap of fields of view, walls or not
vmem     the published rule of VMem, see benchmarks.memory_vmem
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.memory_casting import Pose, pose
from benchmarks.memory_truth import Rule, pose_distances
from benchmarks.memory_vmem import VMem
from renderers import Camera
from spatial_memory import MemoryConfig, ViewMemory

FOV_GRID = (16, 12)
"""Columns and rows of the rays that fields of view are compared on."""
FOV_DEPTHS = np.array([0.5, 1.0, 2.0, 3.0, 4.5, 6.0])
"""Points on each ray, in metres; what is further away than the last is out of every view."""


class Ours:
    """The memory of this project."""

    def __init__(self, config: MemoryConfig | None = None) -> None:
        self.memory = ViewMemory(config or MemoryConfig())

    def write(self, rgb: np.ndarray, depth: np.ndarray, camera: Camera) -> None:
        """The next view."""
        self.memory.write(rgb, depth, camera)

    def choose(self, target: Camera, k: int) -> Sequence[int]:
        """Views with the greatest joint evidence; fewer than ``k`` where more add nothing."""
        return self.memory.retrieve([target], k).view_ids


class Latest:
    """The views taken last."""

    def __init__(self) -> None:
        self._count = 0

    def write(self, rgb: np.ndarray, depth: np.ndarray, camera: Camera) -> None:
        """The next view."""
        self._count += 1

    def choose(self, target: Camera, k: int) -> Sequence[int]:
        """The last ``k``, the latest first."""
        return range(self._count - 1, max(-1, self._count - 1 - k), -1)


class NearestPose:
    """The nearest poses."""

    def __init__(self) -> None:
        self._poses: list[Pose] = []

    def write(self, rgb: np.ndarray, depth: np.ndarray, camera: Camera) -> None:
        """The next view."""
        self._poses.append(pose(camera))

    def choose(self, target: Camera, k: int) -> Sequence[int]:
        """The nearest first."""
        return pose_distances(pose(target), self._poses).argsort(kind="stable")[:k].tolist()


class FieldOfView:
    """The largest overlap of fields of view, as if nothing stood in the way."""

    def __init__(self) -> None:
        self._cameras: list[tuple[np.ndarray, np.ndarray]] = []

    def write(self, rgb: np.ndarray, depth: np.ndarray, camera: Camera) -> None:
        """The next view."""
        rotation, eye, lens = pose(camera)
        scale = 2.0 * lens[:2] / (camera.width, camera.height)  # the frame is from -1 to 1
        shift = 2.0 * lens[2:] / (camera.width, camera.height) - 1.0
        frame = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]], [0, 0, 1]])
        self._cameras.append((frame @ rotation, -frame @ rotation @ eye))

    def choose(self, target: Camera, k: int) -> Sequence[int]:
        """By how many points of the target's field of view are in each view's, too."""
        rotation, eye, lens = pose(target.resized(*FOV_GRID))
        v, u = (np.indices(FOV_GRID[::-1]) + 0.5).reshape(2, -1)
        rays = np.stack([(u - lens[2]) / lens[0], (v - lens[3]) / lens[1], np.ones_like(u)], -1)
        points = (rays * FOV_DEPTHS[:, None, None]).reshape(-1, 3) @ rotation + eye
        matrices, offsets = map(np.stack, zip(*self._cameras, strict=True))
        x, y, z = (points @ (matrices[:, i].T) + offsets[:, i] for i in range(3))  # (points, views)
        inside = (z > 0.0) & (z <= FOV_DEPTHS[-1]) & (np.abs(x) <= z) & (np.abs(y) <= z)
        return (-inside.sum(0)).argsort(kind="stable")[:k].tolist()


RULES: dict[str, Callable[[], Rule]] = {
    "ours": Ours,
    "latest": Latest,
    "pose": NearestPose,
    "fov": FieldOfView,
    "vmem": VMem,
}
