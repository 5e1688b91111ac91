"""Where a camera goes: named motions, and camera files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp

from renderers import Camera, SceneError
from scenegen.export.colmap import read_colmap
from scenegen.export.transforms import read_transforms
from spatial_memory import ViewMemory
from spatial_memory.forgetting import pixels_inside

STEP_METRES = 0.35
"""Distance between two growth steps of a walk: holes stay narrow enough to outpaint."""
STEP_DEGREES = 15.0
"""Turn between two growth steps: about a quarter of a usual view is new."""
FLY_DEGREES = 10.0
"""Largest turn to a side of the path "fly"."""
FILM_FRAMES = 60
"""Frames of a named path in a film: two seconds."""
MOST_SHOWING = 6
"""Views from which a place is grown anew."""
WIDEST = 2.0
"""Width to height of a view that is grown, at most, and height to width."""

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
        name: A name of ``NAMED_PATHS``; "around" for a full turn to the right; "turntable" for a
            full circle around the point ``distance`` ahead; or "fly": ahead in a gentle S.
        distance: Length of the walk, in metres; ignored by "around".
        frames: Number of cameras.

    Raises:
        SceneError: The name is unknown.
    """
    if name == "around":
        return [camera.moved(yaw_degrees=360.0 * (i + 1) / frames) for i in range(frames)]
    shares = [(i + 1) / frames for i in range(frames)]
    if name == "turntable":
        pivot = camera.moved(forward=distance)
        return [pivot.moved(yaw_degrees=360.0 * t).moved(forward=-distance) for t in shares]
    if name == "fly":
        swing = [math.sin(2.0 * math.pi * t) for t in shares]
        return [
            camera.moved(
                right=0.15 * distance * s, forward=distance * t, yaw_degrees=FLY_DEGREES * s
            )
            for t, s in zip(shares, swing, strict=True)
        ]
    if name not in NAMED_PATHS:
        raise SceneError(
            f"unknown path {name!r}",
            why=f"named paths are {', '.join(NAMED_PATHS)}, around, turntable and fly",
            fix="use one of them, or a transforms.json file",
        )
    move = NAMED_PATHS[name]
    return [move(camera, distance * (i + 1) / frames) for i in range(frames)]


def path_cameras(camera: Camera, path: str | Path, distance: float, *, film: bool) -> list[Camera]:
    """Cameras of a named motion or of a camera file.

    Args:
        camera: Start of a named motion.
        path: A name, the file name of a NeRF transforms.json, or a folder of COLMAP text.
        distance: Length of a named walk, in metres.
        film: Many cameras, for a smooth film; otherwise few, for growth.

    Raises:
        SceneError: The name is unknown or the file cannot be read.
    """
    if str(path).endswith(".json"):
        return read_transforms(Path(path))
    if Path(path).is_dir():
        return read_colmap(path)
    if film:
        return motion(camera, str(path), distance, FILM_FRAMES)
    length = 360.0 / STEP_DEGREES if str(path) == "around" else abs(distance) / STEP_METRES
    return motion(camera, str(path), distance, max(1, round(length)))


def growth_view(view: Camera, like: Camera) -> Camera:
    """The view to grow so that ``view`` shows no holes, as large as the world's views.

    Args:
        view: What somebody sees, of any shape.
        like: A view of the world: its longer side, in pixels, is taken over.
    """
    aspect = min(max(view.width / view.height, 1.0 / WIDEST), WIDEST)
    side = max(like.width, like.height)
    width = side if aspect >= 1.0 else round(side * aspect / 2) * 2
    height = side if aspect < 1.0 else round(side / aspect / 2) * 2
    half_height = 0.5 * view.height / float(view.px_from_cam[1, 1])
    fov = 2.0 * math.degrees(math.atan(half_height * width / height))
    return Camera.from_fov(fov, width, height, view.cam_from_world)


def showing(memory: ViewMemory, box: Sequence[Sequence[float]]) -> list[Camera]:
    """Cameras of the views that show most of a place, most first.

    Args:
        memory: What is remembered.
        box: Smallest and largest corner of the place, in metres.
    """
    corners = np.asarray(box, np.float64)
    pixels = {i: int((pixels_inside(v, corners) & v.known).sum()) for i, v in memory.views.items()}
    best = sorted((i for i in pixels if pixels[i]), key=lambda i: (-pixels[i], i))
    return [memory.views[i].camera for i in best[:MOST_SHOWING]]


def approach(known: Sequence[Camera], goal: Camera) -> list[Camera]:
    """Views to grow, in order, so that a goal beyond the rim of the world is reached.

    Args:
        known: Views that the world has; one at least.
        goal: The last of the answers. The others are taken with its lens, from the nearest of
            the known views on, at most STEP_METRES and STEP_DEGREES apart.
    """
    steps, start = min(((_steps(camera, goal), camera) for camera in known), key=lambda p: p[0])
    count = max(1, math.ceil(steps))
    return between([start.cam_from_world, goal.cam_from_world], goal, count)


def between(poses: Sequence[torch.Tensor], lens: Camera, count: int) -> list[Camera]:
    """Cameras along a smooth path through some poses, evenly spread in time; the last at its end.

    Args:
        poses: cam_from_world (4, 4) each, two at least. Positions follow a Catmull-Rom spline,
            orientations turn at constant speed from one to the next.
        lens: The lens and the pixel grid of all of them.
        count: How many cameras; the first pose is not among them.
    """
    worlds = [torch.linalg.inv(pose.double()).numpy() for pose in poses]
    turns = Slerp(range(len(worlds)), Rotation.from_matrix([w[:3, :3] for w in worlds]))
    places = np.array([w[:3, 3] for w in worlds])
    padded = np.concatenate([2 * places[:1] - places[1:2], places, 2 * places[-1:] - places[-2:-1]])
    cameras = []
    for time in np.linspace(0.0, len(worlds) - 1, count + 1)[1:]:
        leg = min(int(time), len(worlds) - 2)
        pose = np.eye(4)
        pose[:3, :3] = turns(time).as_matrix().T
        pose[:3, 3] = -pose[:3, :3] @ _spline(padded[leg : leg + 4], time - leg)
        cameras.append(lens.posed(torch.from_numpy(pose).float()))
    return cameras


def _spline(points: np.ndarray, t: float) -> np.ndarray:
    """Catmull-Rom between the second and the third of four points (4, 3)."""
    a, b, c, d = points
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )


def _steps(start: Camera, goal: Camera) -> float:
    """How many growth steps lie between two views."""
    metres = float(torch.linalg.norm(goal.center - start.center))
    turn = goal.cam_from_world[:3, :3].double() @ start.cam_from_world[:3, :3].double().T
    degrees = math.degrees(math.acos(max(-1.0, min(1.0, (float(turn.trace()) - 1.0) / 2.0))))
    return max(metres / STEP_METRES, degrees / STEP_DEGREES)
