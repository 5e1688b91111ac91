"""Choosing cameras in a world, and refusing pictures that teach nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32

from renderers import Camera
from scenegen.training.light import look

Array = np.ndarray

SIDES = (252, 336)
"""Shorter and longer side of a frame, in pixels: 18 x 24 tokens."""
PORTRAIT = 0.25
"""Share of frames that are upright."""
TOO_NEAR, TOO_NEAR_SHARE = 0.2, 0.05
"""A frame is refused when more than this share of it is nearer than this, in metres."""
MOST_SKY = 0.7
"""A frame with more sky than this share is refused."""
LEAST_SPREAD = 0.22
"""A frame whose log depth spreads less than this (standard deviation) is a wall: refused."""


@dataclass(frozen=True, eq=False)
class Shot:
    """A picture as the world gives it, before a camera's own effects."""

    linear: Float32[Array, "h w 3"]
    depth: Float32[Array, "h w"]
    """z in metres; +inf in the sky."""
    camera: Camera


def random_camera(
    rng: np.random.Generator,
    eye: Float[Array, " 3"],
    target: Float[Array, " 3"],
    sides: tuple[int, int] = SIDES,
) -> Camera:
    """A camera with a random lens, slight roll and random format that looks at a target."""
    short, long = sides
    width, height = (short, long) if rng.random() < PORTRAIT else (long, short)
    focal = long / 2 / math.tan(math.radians(rng.uniform(45, 92)) / 2)  # on the longer side
    lens = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    pose = look(eye, target, math.radians(rng.normal(0, 2)))
    return Camera(lens, torch.from_numpy(pose).float(), width, height)


def worth_keeping(shot: Shot) -> bool:
    """Whether a picture shows something: depth that varies, not all sky, nothing in the face."""
    surface = shot.depth[np.isfinite(shot.depth)]
    if surface.size < (1 - MOST_SKY) * shot.depth.size:
        return False
    near = (surface < TOO_NEAR).sum() / shot.depth.size
    bright = shot.linear.mean(2)
    varied = bright.std() > 0.08 * bright.mean()
    return bool(near < TOO_NEAR_SHARE and np.log(surface).std() > LEAST_SPREAD and varied)


def aim(yaw: float, pitch: float) -> Float[Array, " 3"]:
    """Unit direction from a yaw to the right and a pitch downwards, in radians."""
    return np.array(
        [math.cos(pitch) * math.sin(yaw), math.sin(pitch), math.cos(pitch) * math.cos(yaw)]
    )
