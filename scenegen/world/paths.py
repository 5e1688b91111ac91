"""Where a camera goes: named motions, and camera files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from renderers import Camera, SceneError
from scenegen.export.transforms import read_transforms

STEP_METRES = 0.35
"""Distance between two growth steps of a walk: holes stay narrow enough to outpaint."""
STEP_DEGREES = 15.0
"""Turn between two growth steps: about a quarter of a usual view is new."""
FILM_FRAMES = 60
"""Frames of a named path in a film: two seconds."""

NAMED_PATHS: dict[str, Callable[[Camera, float], Camera]] = {
    "forward": lambda camera, metres: camera.moved(forward=metres),
    "left": lambda camera, metres: camera.moved(right=-metres),
    "right": lambda camera, metres: camera.moved(right=metres),
    "up": lambda camera, metres: camera.moved(down=-metres),
}
"""The camera after some metres of each motion. "around" turns on the spot instead."""


def motion(camera: Camera, name: str, distance: float, frames: int) -> list[Camera]:
    """Cameras along a named motion, evenly spaced; the last one is at its end.

    Args:
        camera: Where the motion starts; not among the answers unless the motion ends there.
        name: A name of ``NAMED_PATHS``, or "around" for a full turn to the right.
        distance: Length of the walk, in metres; ignored by "around".
        frames: Number of cameras.

    Raises:
        SceneError: The name is unknown.
    """
    if name == "around":
        return [camera.moved(yaw_degrees=360.0 * (i + 1) / frames) for i in range(frames)]
    if name not in NAMED_PATHS:
        raise SceneError(
            f"unknown path {name!r}",
            why=f"named paths are {', '.join(NAMED_PATHS)} and around",
            fix="use one of them, or a transforms.json file",
        )
    move = NAMED_PATHS[name]
    return [move(camera, distance * (i + 1) / frames) for i in range(frames)]


def path_cameras(camera: Camera, path: str | Path, distance: float, *, film: bool) -> list[Camera]:
    """Cameras of a named motion or of a camera file.

    Args:
        camera: Start of a named motion.
        path: A name, or the file name of a NeRF transforms.json.
        distance: Length of a named walk, in metres.
        film: Many cameras, for a smooth film; otherwise few, for growth.

    Raises:
        SceneError: The name is unknown or the file cannot be read.
    """
    if str(path).endswith(".json"):
        return read_transforms(Path(path))
    if film:
        return motion(camera, str(path), distance, FILM_FRAMES)
    length = 360.0 / STEP_DEGREES if str(path) == "around" else abs(distance) / STEP_METRES
    return motion(camera, str(path), distance, max(1, round(length)))
