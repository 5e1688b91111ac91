"""Worlds of boxes on a floor, by ray casting in numpy: for smoke runs and tests, on any machine.

Exact like the big renderer: depth is that of the ray through the pixel's centre.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from renderers import Camera
from scenegen.training.shots import Shot, random_camera

Array = np.ndarray

BOXES = 14
"""Boxes in a world, between two and nine metres around its middle."""
AMBIENT = 0.35
"""Light that comes from everywhere, against 1 from the sun."""


class BoxWorld:
    """A floor with upright boxes under a sky."""

    def __init__(self, rng: np.random.Generator, sides: tuple[int, int]) -> None:
        """Build a world.

        Args:
            rng: Source of the random choices.
            sides: Shorter and longer side of its pictures, in pixels.
        """
        self.sides = sides
        angle, far = rng.uniform(0, 2 * np.pi, BOXES), rng.uniform(2, 9, BOXES)
        middle = np.stack([np.sin(angle) * far, np.zeros(BOXES), np.cos(angle) * far], axis=1)
        half = rng.uniform([0.2, 0.3, 0.2], [1.0, 3.0, 1.0], (BOXES, 3))
        self.low = middle - half * [1, 2, 1]
        self.high = middle + half * [1, 0, 1]
        self.colours = rng.uniform(0.1, 0.9, (BOXES + 1, 3))  # the last is the floor's
        sun = np.array([rng.normal(), -abs(rng.normal()) - 0.5, rng.normal()])
        self.sun = sun / np.linalg.norm(sun)

    def shoot(self, rng: np.random.Generator) -> Shot:
        """A picture from the middle, somewhere around eye height."""
        eye = np.array([rng.normal(0, 0.5), -rng.uniform(0.8, 2.0), rng.normal(0, 0.5)])
        yaw = rng.uniform(-np.pi, np.pi)
        target = eye + np.array([np.sin(yaw), rng.normal(0.15, 0.1), np.cos(yaw)])
        return self.draw(random_camera(rng, eye, target, self.sides))

    def draw(self, camera: Camera) -> Shot:
        """The picture that a camera takes."""
        lens = np.linalg.inv(camera.px_from_cam.double().numpy())
        pose = camera.cam_from_world.double().numpy()
        pixels = camera.pixel_centers().double().numpy().reshape(-1, 2)
        rays = np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1) @ lens.T @ pose[:3, :3]
        eye = -pose[:3, :3].T @ pose[:3, 3]
        depth, which, normals = self._hit(eye, rays)  # rays have z = 1 in the camera frame
        found = np.isfinite(depth)
        points = eye + rays * np.where(found, depth, 0)[:, None]
        shadow, _, _ = self._hit(points + 1e-4 * normals, np.broadcast_to(self.sun, rays.shape))
        facing = np.clip(normals @ self.sun, 0, 1) * ~np.isfinite(shadow)
        checks = 0.8 + 0.2 * (np.floor(points * 2).sum(1) % 2)
        light = (AMBIENT + (1 - AMBIENT) * facing) * checks
        up = np.clip(-rays[:, 1] / np.linalg.norm(rays, axis=1), 0, 1)[:, None]
        sky = np.array([0.75, 0.85, 1.0]) * (1 - up) + np.array([0.2, 0.4, 0.9]) * up
        colour = np.where(found[:, None], self.colours[which] * light[:, None], sky)
        shape = (camera.height, camera.width)
        linear = colour.reshape(*shape, 3).astype(np.float32)
        return Shot(linear, depth.reshape(shape).astype(np.float32), camera)

    def _hit(
        self, origins: Float[Array, "n 3"] | Float[Array, " 3"], rays: Float[Array, "n 3"]
    ) -> tuple[Array, Array, Array]:
        """First surface on each ray: how far in ray lengths (or inf), which one, its normal."""
        origins = np.broadcast_to(origins, rays.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1.0 / rays
            near = (self.low[None] - origins[:, None]) * inverse[:, None]  # (n, boxes, 3)
            far = (self.high[None] - origins[:, None]) * inverse[:, None]
            floor = -origins[:, 1] * inverse[:, 1]
        enter, leave = np.minimum(near, far), np.maximum(near, far)
        start, axis = enter.max(2), enter.argmax(2)
        start = np.where((start > 1e-6) & (start <= leave.min(2)), start, np.inf)
        start = np.concatenate([start, np.where(floor > 1e-6, floor, np.inf)[:, None]], axis=1)
        which = start.argmin(1)
        rows = np.arange(len(rays))
        floors = np.ones((len(rays), 1), dtype=np.int64)
        axes = np.concatenate([axis.astype(np.int64), floors], axis=1)[rows, which]
        normals = np.zeros(rays.shape)
        normals[rows, axes] = -np.sign(rays[rows, axes])
        distance = start[rows, which]
        return distance, which, normals
