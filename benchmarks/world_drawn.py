"""A posed sequence where no real one is at hand: a walk on a race track never trained on.

The track is one of those in Debian's supertuxkart-data that our networks were kept from. Pictures
are drawn with one light and one exposure, and with cameras that are known exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from renderers import Camera, SceneError
from scenegen.export import write_png, write_transforms
from scenegen.training.gl import GlRenderer, missing_gl
from scenegen.training.licences import Licences
from scenegen.training.light import daylight, look
from scenegen.training.shots import aim
from scenegen.training.tracks import COPYRIGHT, missing_tracks, read_track
from scenegen.training.worlds import SHADOW_REACH

TRACK = "zengarden"
"""One of :data:`scenegen.training.tracks.HELD_OUT`, with a road among things near and far."""
WIDTH, HEIGHT, FOV = 768, 576, 65.0
EYE = 1.6
"""Height of the camera above the road, in metres."""
GRAY = 0.18
"""Mean of the logarithm of the first picture's light is brought to this, for all pictures."""


def drawn(out: Path, track: str = TRACK, place: float = 0.1, seed: int = 0) -> int:
    """Draw a sequence: one place, a step aside, then steps and turns around it.

    Args:
        out: Folder for the pictures and their transforms.json.
        track: Name of a track.
        place: Where along the road, 0 to 1.
        seed: Chooses the light.
    """
    for missing, what in ((missing_gl(), "drawn"), (missing_tracks(), "read")):
        if missing:
            raise SceneError(
                f"a track cannot be {what}",
                why=missing,
                fix="pip install moderngl, and apt-get install supertuxkart-data",
            )
    course = read_track(track, Licences(COPYRIGHT, gpl=False))
    renderer = GlRenderer()
    renderer.load(course.scene)
    start = int(place * len(course.path))
    ahead = course.path[(start + 2) % len(course.path)] - course.path[start]
    forward = aim(math.atan2(float(ahead[0]), float(ahead[2])), 0.03)
    eye = course.path[start] - np.array([0.0, EYE, 0.0])
    light = daylight(np.random.default_rng(seed), eye + 20 * forward, SHADOW_REACH)
    pose = torch.from_numpy(look(eye, eye + forward, 0.0)).float()
    lens = Camera.from_fov(FOV, WIDTH, HEIGHT).px_from_cam
    first = Camera(lens, pose, WIDTH, HEIGHT)
    cameras = list(_walk(first))
    names = [f"{number:02d}.png" for number in range(len(cameras))]
    exposure = None
    out.mkdir(parents=True, exist_ok=True)
    for name, camera in zip(names, cameras, strict=True):
        linear, _ = renderer.draw(camera, light)
        if exposure is None:
            exposure = GRAY / float(np.exp(np.log(linear.mean(2) + 1e-3).mean()))
        rgb = 1.0 - np.exp(-1.5 * exposure * linear)  # no highlight is clipped
        write_png(out / name, torch.from_numpy(rgb.clip(0, 1) ** (1 / 2.2)).float())
    write_transforms(out / "transforms.json", cameras, names)
    print(f"{len(cameras)} pictures of the track {course.name} in {out}")
    return 0


def _walk(first: Camera) -> Iterator[Camera]:
    """The place, the step that the scale is fitted on, and steps to all sides."""
    yield first
    yield first.moved(right=0.4)
    for way in (0.25, 0.5, 1.0):
        yield first.moved(right=way, yaw_degrees=-4.0)
        yield first.moved(right=-way, yaw_degrees=4.0)
        yield first.moved(forward=2 * way, down=-0.1)
        yield first.moved(forward=way, yaw_degrees=6.0)
