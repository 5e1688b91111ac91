"""Light, air and sky of a training scene, and where its shadows fall."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Light:
    """All that shines. Colours are linear and may exceed 1."""

    main: Float[Array, " 4"]
    """The light that casts shadows: a direction towards it (w = 0) or a place in metres (w = 1)."""
    main_colour: Float[Array, " 3"]
    """At a surface that faces it; for a place, at one metre."""
    above: Float[Array, " 3"]
    """What comes from everywhere above."""
    below: Float[Array, " 3"]
    """What comes from everywhere below."""
    sky_top: Float[Array, " 3"]
    sky_low: Float[Array, " 3"]
    """Sky in the zenith and at the horizon."""
    shadow_from_world: Float[Array, "4 4"]
    """Clip coordinates of the shadow map."""
    clouds: float = 0.0
    """Share of the sky that clouds cover, 0 to 1."""
    haze: float = 0.0
    """Extinction of the air, per metre."""
    lamps: tuple[tuple[Array, Array], ...] = field(default=())
    """Up to three places (metres) and colours (at one metre) that cast no shadows."""
    walls: tuple[Array, Array] | None = None
    """Two corners of the room, whose corners are darker; None outdoors."""


def look(eye: Float[Array, " 3"], target: Float[Array, " 3"], roll: float = 0.0) -> Array:
    """Pose ``cam_from_world`` (4, 4) that looks from one point to another, roll in radians."""
    forward = target - eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross([0.0, 1.0, 0.0], forward)
    if np.linalg.norm(right) < 1e-6:  # straight up or down
        right = np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward])
    pose[:3, 3] = -pose[:3, :3] @ eye
    return pose


def lens_clip(px_from_cam: Array, width: int, height: int, near: float, far: float) -> Array:
    """Clip coordinates (4, 4) from the camera frame.

    Row 0 of the image is the lowest row of the frame buffer, which is the first one read.
    """
    fx, fy, cx, cy = px_from_cam[0, 0], px_from_cam[1, 1], px_from_cam[0, 2], px_from_cam[1, 2]
    depth = [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)]
    return np.array(
        [
            [2 * fx / width, 0, 2 * cx / width - 1, 0],
            [0, 2 * fy / height, 2 * cy / height - 1, 0],
            depth,
            [0, 0, 1, 0],
        ]
    )


def sun_shadow(toward: Float[Array, " 3"], centre: Float[Array, " 3"], reach: float) -> Array:
    """Shadow map of parallel light around a point.

    Args:
        toward: Unit direction towards the light.
        centre: Middle of the map, in metres.
        reach: Half the side of the map, in metres; casters up to four times as far count.
    """
    clip = np.diag([1 / reach, 1 / reach, 1 / (4 * reach), 1.0])
    return clip @ look(centre, centre - toward)


def lamp_shadow(place: Float[Array, " 3"], fov_degrees: float = 150.0) -> Array:
    """Shadow map of a lamp that hangs at a place and shines down."""
    focal = 0.5 / math.tan(math.radians(fov_degrees) / 2)
    lens = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    return lens_clip(lens, 1, 1, 0.05, 30.0) @ look(place, place + np.array([0.0, 1.0, 0.0]))


def daylight(rng: np.random.Generator, centre: Float[Array, " 3"], reach: float) -> Light:
    """A random outdoor light: clear, cloudy, overcast or low sun, with or without haze."""
    kind = rng.choice(["clear", "cloudy", "overcast", "low"], p=[0.4, 0.25, 0.2, 0.15])
    height = math.radians(rng.uniform(4, 18) if kind == "low" else rng.uniform(20, 75))
    turn = rng.uniform(-math.pi, math.pi)
    toward = np.array(
        [math.cos(height) * math.sin(turn), -math.sin(height), math.cos(height) * math.cos(turn)]
    )
    sun = {"clear": 2.6, "cloudy": 1.8, "overcast": 0.12, "low": 1.6}[kind] * rng.uniform(0.8, 1.2)
    warm = np.array([1.0, 0.72, 0.45]) if kind == "low" else np.array([1.0, 0.95, 0.86])
    blue = np.array([0.16, 0.32, 0.75]) * rng.uniform(0.5, 1.4)
    pale = np.array([0.62, 0.72, 0.85]) * rng.uniform(0.7, 1.2)
    gray = np.full(3, rng.uniform(0.6, 1.1)) * np.array([0.95, 1.0, 1.05])
    top, low = (gray, gray * rng.uniform(0.9, 1.3)) if kind == "overcast" else (blue, pale)
    if kind == "low":
        low = low * np.array([1.35, 0.95, 0.7])
    above = (1.1 if kind == "overcast" else 0.55) * (0.5 * top + 0.5 * low)
    haze = 10.0 ** rng.uniform(-3.3, -1.9) if rng.random() < 0.35 else 1e-4
    return Light(
        main=np.append(toward, 0.0),
        main_colour=sun * warm,
        above=above,
        below=above * rng.uniform(0.25, 0.6) * np.array([1.0, 0.92, 0.8]),
        sky_top=top,
        sky_low=low,
        shadow_from_world=sun_shadow(toward, centre, reach),
        clouds={"clear": rng.uniform(0, 0.25), "cloudy": rng.uniform(0.35, 0.7)}.get(kind, 0.3),
        haze=haze,
    )
