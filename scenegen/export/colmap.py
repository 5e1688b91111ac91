"""Cameras as COLMAP's text files, which trainers of splats read: cameras, images and points.

A camera of COLMAP is ours: x right, y down, z forward, cam_from_world, pixel centres at 0.5.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from renderers.camera import Camera
from renderers.errors import SceneError
from renderers.splats import Splats
from scenegen.export.atomic import atomic_write, cannot_read
from scenegen.export.budget import quats_of, rotations_of
from scenegen.export.sheets import lens_of
from scenegen.export.transforms import FILE_LIMIT, FRAME_LIMIT, PIXEL_LIMIT, SIDE_LIMIT

logger = logging.getLogger("scenegen")

POINTS = 100_000
"""Points written at most: trainers start from them."""


def write_colmap(
    folder: str | Path, cameras: Sequence[Camera], file_names: Sequence[str], splats: Splats
) -> None:
    """Write cameras.txt, images.txt and points3D.txt into a folder that exists.

    Args:
        folder: Where to; each file appears whole or not at all.
        cameras: At least one.
        file_names: The picture of each camera.
        splats: Their centres and colours become the points, evenly chosen.

    Raises:
        SceneError: A file cannot be written.
    """
    folder = Path(folder)
    lenses = [f"{c.width} {c.height} " + " ".join(f"{v:.9g}" for v in lens_of(c)) for c in cameras]
    number = {lens: index + 1 for index, lens in enumerate(dict.fromkeys(lenses))}
    poses = torch.stack([camera.cam_from_world.detach().cpu().double() for camera in cameras])
    images = []
    for index, (quat, pose) in enumerate(zip(quats_of(poses[:, :3, :3]), poses, strict=True)):
        values = " ".join(f"{v:.12g}" for v in [*quat.tolist(), *pose[:3, 3].tolist()])
        images.append(f"{index + 1} {values} {number[lenses[index]]} {file_names[index]}\n")
    step = max(1, math.ceil(len(splats) / POINTS))
    colors = (splats.colors[::step].clamp(0, 1) * 255).round().int().tolist()
    means = splats.means[::step].tolist()
    points = [
        f"{index + 1} {x:.7g} {y:.7g} {z:.7g} {r} {g} {b} 0\n"
        for index, ((x, y, z), (r, g, b)) in enumerate(zip(means, colors, strict=True))
    ]
    for name, lines in (
        ("cameras.txt", [f"{key} PINHOLE {lens}\n" for lens, key in number.items()]),
        ("images.txt", images),
        ("points3D.txt", points),
    ):
        with atomic_write(folder / name) as temporary:
            # An image has a second line, of its matched points: there are none.
            text = "\n".join(lines) + "\n" if name == "images.txt" else "".join(lines)
            temporary.write_text(text, encoding="utf-8")
    logger.info("%s: %d cameras and %d points for COLMAP", folder, len(cameras), len(points))


def read_colmap(folder: str | Path) -> list[Camera]:
    """Read the cameras of cameras.txt and images.txt, by the number of their image.

    Args:
        folder: Holds both files, of at most FILE_LIMIT bytes and FRAME_LIMIT images.

    Returns:
        At least one camera, float32.

    Raises:
        SceneError: A file is missing or broken, or a camera is no pinhole.
    """
    folder = Path(folder)
    lenses: dict[str, tuple[torch.Tensor, int, int]] = {}
    for words in _lines(folder / "cameras.txt"):
        if words:
            lenses[words[0]] = _lens(words, folder / "cameras.txt")
    path = folder / "images.txt"
    lines = _lines(path)
    if len(lines) > 2 * FRAME_LIMIT + 1:
        raise _bad(path, f"it has more than {FRAME_LIMIT} images", "split it")
    cameras: dict[int, Camera] = {}
    for words in lines[::2]:  # every second line lists matched points
        if not words:
            continue
        try:
            values = torch.tensor([float(word) for word in words[1:8]], dtype=torch.float64)
            lens, width, height = lenses[words[8]]
            pose = torch.eye(4, dtype=torch.float64)
            pose[:3, :3], pose[:3, 3] = rotations_of(values[None, :4])[0], values[4:7]
            cameras[int(words[0])] = Camera(lens, pose.float(), width, height)
        except (ValueError, IndexError, KeyError, RuntimeError) as error:
            why = f"'{' '.join(words)[:60]}' is not an image: {error}"
            raise _bad(path, why, "export it as text: colmap model_converter") from error
        except SceneError as error:
            raise _bad(path, f"image {words[0][:20]}: {error.why}", "correct it") from error
    if not cameras:
        raise _bad(path, "it names no image", "give the folder of a COLMAP model in text")
    return [cameras[key] for key in sorted(cameras)]


def _lens(words: list[str], path: Path) -> tuple[torch.Tensor, int, int]:
    try:
        model, width, height = words[1], int(words[2]), int(words[3])
        values = [float(word) for word in words[4:]]
        if model == "SIMPLE_PINHOLE":
            values = [values[0], *values]
        if model not in ("PINHOLE", "SIMPLE_PINHOLE"):
            why = f"camera {words[0][:20]} is {model[:30]}; only pinholes are drawn"
            raise _bad(path, why, "undistort it: colmap image_undistorter")
        fx, fy, cx, cy = values
    except (ValueError, IndexError) as error:
        raise _bad(path, f"'{' '.join(words)[:60]}' is not a camera", "correct it") from error
    sides = 1 <= width <= SIDE_LIMIT and 1 <= height <= SIDE_LIMIT
    if not (sides and width * height <= PIXEL_LIMIT):
        fix = f"give sides of 1 to {SIDE_LIMIT}, and at most {PIXEL_LIMIT} pixels"
        raise _bad(path, f"a picture of {width} x {height}", fix)
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]), width, height


def _lines(path: Path) -> list[list[str]]:
    """The words of each line that is no comment; empty lines count, they are lists of points."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(data) > FILE_LIMIT:
        raise _bad(path, f"it is larger than {FILE_LIMIT >> 20} MiB", "split it")
    lines = data.decode("utf-8", "replace").splitlines()
    return [line.split() for line in lines if not line.startswith("#")]


def _bad(path: Path, why: str, fix: str) -> SceneError:
    return SceneError(f"cannot read cameras from {path}", why=why, fix=fix)
