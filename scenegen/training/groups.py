"""A place seen several times: a target view and past views that show what it does not know.

The only data in which a retrieved view can be right. All views of a group share one light and one
exposure; what goes wrong between them is added later, by whoever uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera
from scenegen.training.boxes import BoxWorld
from scenegen.training.gl import SceneRenderer
from scenegen.training.light import Light
from scenegen.training.shapes import Scene
from scenegen.training.shots import Shot, worth_keeping

Array = np.ndarray

TURN, STEP = (10.0, 30.0), (0.05, 0.5)
"""How far a past view is turned towards the hidden side, in degrees, and moved, in metres."""
ATTEMPTS = 25
"""Targets tried before a world is given up."""


@dataclass(frozen=True, eq=False)
class Sight:
    """One view of a group; what :class:`scenegen.outpaint.Reference` asks for."""

    rgb: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"]
    camera: Camera
    known: Bool[Tensor, "h w"]


@dataclass(frozen=True, eq=False)
class Group:
    """A target, and past views, the first of which shows most of its hidden side."""

    target: Sight
    pasts: tuple[Sight, ...]
    side: int
    """On which side of the target the past views look further: 1 right, -1 left."""


@runtime_checkable  # the test-time type checker needs it
class Shooter(Protocol):
    """A world: see :class:`scenegen.training.worlds.World`."""

    def shoot(self, rng: np.random.Generator) -> Shot:
        """A picture from a random place in random light."""
        ...


class Recorder:
    """Stands between a world and its renderer and remembers the light of the last picture."""

    def __init__(self, renderer: SceneRenderer) -> None:
        self.renderer = renderer
        self.light: Light | None = None

    def load(self, scene: Scene) -> None:
        """Hand the scene on."""
        self.renderer.load(scene)

    def draw(self, camera: Camera, light: Light) -> tuple[Array, Array]:
        """Draw, and remember the light."""
        self.light = light
        return self.renderer.draw(camera, light)

    def again(self, camera: Camera) -> Shot:
        """A picture in the light of the last one."""
        assert self.light is not None
        linear, depth = self.renderer.draw(camera, self.light)
        return Shot(linear, depth, camera)


def shoot_group(
    world: Shooter,
    again: Callable[[Camera], Shot],
    rng: np.random.Generator,
    size: int,
    pasts: int = 2,
) -> Group | None:
    """Take a group of pictures; None where the world offers no place worth it.

    Args:
        world: Where.
        again: Takes a picture of that world with another camera, in the light of the last one.
        rng: Source of the random choices.
        size: Longer side, in pixels.
        pasts: How many past views.
    """
    for _ in range(ATTEMPTS):
        shot = world.shoot(rng)
        if worth_keeping(shot):
            break
    else:
        return None
    scale = size / max(shot.camera.width, shot.camera.height)
    camera = shot.camera.resized(
        round(scale * shot.camera.width), round(scale * shot.camera.height)
    )
    side = int(rng.choice([-1, 1]))
    cameras = [camera]
    for number in range(pasts):
        towards = side if number == 0 else int(rng.choice([-1, 1]))
        reach = float(rng.uniform(*STEP))
        turn = towards * float(rng.uniform(*TURN))
        direction = rng.uniform(-1, 1, 2) * reach
        moved = camera.moved(right=direction[0], forward=direction[1], yaw_degrees=turn)
        cameras.append(moved)
    shots = [again(each) for each in cameras]
    exposure = _exposure(shots[0], rng)
    views = [_developed(each, exposure) for each in shots]
    return Group(views[0], tuple(views[1:]), side)


def box_again(world: BoxWorld) -> Callable[[Camera], Shot]:
    """What :func:`shoot_group` asks for, in a world of boxes: its light never changes."""
    return world.draw


def _exposure(shot: Shot, rng: np.random.Generator) -> float:
    metered = float(np.exp(np.log(shot.linear.mean(2) + 1e-3).mean()))
    return float(rng.uniform(0.15, 0.25)) / metered


def _developed(shot: Shot, exposure: float) -> Sight:
    linear = torch.from_numpy(shot.linear).float() * exposure
    rgb = (linear / (1 + linear) * 1.25).clamp(0, 1) ** (1 / 2.2)  # a soft shoulder
    depth = torch.from_numpy(shot.depth).float()
    return Sight(rgb, depth, shot.camera, torch.ones_like(depth, dtype=torch.bool))
