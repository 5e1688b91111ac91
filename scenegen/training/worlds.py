"""The worlds that frames are taken in, and who draws them."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np

from scenegen.training.gl import SceneRenderer
from scenegen.training.light import daylight
from scenegen.training.shots import Shot, aim, random_camera
from scenegen.training.tracks import Track

Array = np.ndarray

SHADOW_REACH = 35.0
"""Half the side of the shadow map outdoors, in metres."""


@runtime_checkable  # the test-time type checker needs it
class World(Protocol):
    """A place where pictures can be taken."""

    def shoot(self, rng: np.random.Generator) -> Shot:
        """A picture from a random place in random light."""
        ...


class TrackWorld:
    """A race track, seen from around its road."""

    def __init__(self, renderer: SceneRenderer, track: Track) -> None:
        self.renderer, self.path = renderer, track.path
        renderer.load(track.scene)

    def shoot(self, rng: np.random.Generator) -> Shot:
        """A picture from eye height over the road, sometimes higher, mostly along the road."""
        place = int(rng.integers(len(self.path)))
        ahead = self.path[(place + 2) % len(self.path)] - self.path[place]
        height = rng.choice(
            [rng.uniform(1.3, 1.9), rng.uniform(0.5, 3.0), rng.uniform(2.0, 8.0)],
            p=[0.45, 0.4, 0.15],
        )
        eye = self.path[place] + np.array([rng.normal(0, 1.8), -height, rng.normal(0, 1.8)])
        along = rng.random() < 0.55
        yaw = np.arctan2(ahead[0], ahead[2]) + (
            rng.normal(0, 0.45) if along else rng.uniform(-np.pi, np.pi)
        )
        pitch = np.radians(np.clip(rng.normal(2, 7), -15, 22))
        forward = aim(float(yaw), float(pitch))
        light = daylight(rng, eye + 20 * forward, SHADOW_REACH)
        camera = random_camera(rng, eye, eye + forward)
        return Shot(*self.renderer.draw(camera, light), camera)
