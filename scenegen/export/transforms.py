"""Cameras as NeRF ``transforms.json``, as nerfstudio and instant-ngp read them.

``transform_matrix`` is world_from_cam with OpenGL camera axes (x right, y up, z backwards). The
world keeps its own axes, so the first camera of a world, the identity, is diag(1, -1, -1, 1).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.camera import Camera
from renderers.errors import SceneError
from scenegen.export.atomic import atomic_write, cannot_read

logger = logging.getLogger("scenegen")

FILE_LIMIT = 64 * 1024 * 1024
"""Largest file read, in bytes."""
FRAME_LIMIT = 100_000
"""Most cameras read from one file."""
SIDE_LIMIT = 16_384
"""Largest image width or height read, in pixels."""
PIXEL_LIMIT = 1 << 26
"""Most pixels of an image: drawing them takes about 2 GB."""
PINHOLES = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE")
"""Camera models that are a pinhole once their distortion is zero."""

_FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_LENS = ("fl_x", "fl_y", "cx", "cy", "w", "h")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


def write_transforms(
    path: str | Path,
    cameras: Sequence[Camera],
    file_names: Sequence[str | Mapping[str, str]] | None = None,
    whole: Mapping[str, Any] | None = None,
) -> None:
    """Write cameras. One lens for all is written once, otherwise with each frame.

    Args:
        path: The file. It appears whole or not at all.
        cameras: At least one, without skew.
        file_names: The picture of each camera, relative to the file, or its files by the names
            of their entries; ``00000.png``, ``00001.png`` and so on when left out.
        whole: Further entries for all frames.

    Raises:
        SceneError: No cameras, a skewed one, another number of names than of cameras, or the
            file cannot be written.
    """
    names = [f"{i:05d}.png" for i in range(len(cameras))] if file_names is None else file_names
    if not cameras or len(names) != len(cameras):
        raise SceneError(
            f"{len(cameras)} cameras and {len(names)} file names cannot be written",
            why="there must be at least one camera, and one name for each",
            fix="pass as many file names as cameras, or none",
        )
    lenses = [_lens_of(camera, index) for index, camera in enumerate(cameras)]
    shared = all(lens == lenses[0] for lens in lenses)
    frames: list[dict[str, Any]] = []
    for camera, lens, name in zip(cameras, lenses, names, strict=True):
        files = {"file_path": name} if isinstance(name, str) else name
        frame: dict[str, Any] = {**files, **({} if shared else lens)}
        pose = camera.posed(camera.cam_from_world.detach().cpu().double())
        matrix = pose.world_from_cam @ _FLIP + 0.0  # adding 0 turns -0 into 0
        frames.append(frame | {"transform_matrix": matrix.tolist()})
    head = {"camera_model": "OPENCV", **(whole or {}), **(lenses[0] if shared else {})}
    content = head | {"frames": frames}
    text = json.dumps(content, indent=1, allow_nan=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    logger.info("%s: %d cameras; no pictures, no points", path, len(cameras))


def read_transforms(path: str | Path) -> list[Camera]:
    """Read cameras, of this project or of another.

    ``fl_x fl_y cx cy w h`` stand in the file or in the frame, which goes before. A missing
    ``fl_x`` is taken from ``camera_angle_x`` (radians), a missing ``fl_y`` is ``fl_x`` or from
    ``camera_angle_y``, a missing centre is the middle. Lens distortion is dropped, with a warning.

    Args:
        path: The file, at most FILE_LIMIT bytes and FRAME_LIMIT frames.

    Returns:
        At least one camera, float32, in the order of the file.

    Raises:
        SceneError: There is no such file, or it does not hold valid pinhole cameras.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, dict):
        raise _bad(path, "it is not a JSON object", "give a NeRF transforms.json")
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames:
        raise _bad(path, "it has no list of 'frames'", "give a NeRF transforms.json")
    if len(frames) > FRAME_LIMIT:
        raise _bad(path, f"it has {len(frames)} frames; {FRAME_LIMIT} are read", "split the file")
    known = (*_LENS, *_DISTORTION, "camera_angle_x", "camera_angle_y", "camera_model")
    shared = {name: content[name] for name in known if name in content}
    distorted = 0
    cameras: list[Camera] = []
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise _bad(path, f"frame {index} is not an object", "see docs/formats.md")
        values = shared | frame
        model = values.get("camera_model", "OPENCV")
        if model not in PINHOLES:
            raise _bad(
                path,
                f"frame {index} has camera model {str(model)[:40]!r}; only pinholes are drawn",
                f"undistort the pictures, or use one of {', '.join(PINHOLES)}",
            )
        distorted += any(values.get(name) not in (None, 0, 0.0) for name in _DISTORTION)
        cameras.append(_camera(values, f"frame {index}", path))
    if distorted:
        logger.warning("%s: lens distortion of %d frames is dropped", path, distorted)
    return cameras


def _lens_of(camera: Camera, index: int) -> dict[str, float | int]:
    lens = camera.px_from_cam.detach().cpu().double()
    plain = torch.diag(lens.diagonal())
    plain[:2, 2], plain[2, 2] = lens[:2, 2], 1.0
    if not torch.equal(plain, lens):
        raise SceneError(
            f"camera {index} cannot be written to transforms.json",
            why="the format holds focal lengths and a centre, and this lens has more (skew)",
            fix="use a camera without skew",
        )
    numbers = (lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2])
    focal_and_center = dict(zip(_LENS, map(float, numbers), strict=False))
    return focal_and_center | {"w": camera.width, "h": camera.height}


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise cannot_read(path, error) from error
    if len(data) > FILE_LIMIT:
        raise _bad(path, f"it is larger than {FILE_LIMIT >> 20} MiB", "split the file")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"it is not JSON: {error}", "check the file in an editor") from error


def _camera(values: dict[str, Any], frame: str, path: Path) -> Camera:
    matrix = _matrix(values.get("transform_matrix"), frame, path)
    width, height = (_side(values, name, frame, path) for name in ("w", "h"))
    if width * height > PIXEL_LIMIT:
        why = f"{frame} has {width} x {height} pixels; {PIXEL_LIMIT} are drawn at most"
        raise _bad(path, why, "scale 'w', 'h', 'fl_x', 'fl_y', 'cx' and 'cy' down")
    fl_x = _focal(values, "x", width, frame, path)
    fl_y = _focal(values, "y", height, frame, path)
    if fl_x is None:
        raise _bad(path, f"{frame} has no 'fl_x'", "add 'fl_x' in pixels, or 'camera_angle_x'")
    cx = _number(values, "cx", frame, path)
    cy = _number(values, "cy", frame, path)
    lens = [
        [fl_x, 0.0, width / 2 if cx is None else cx],
        [0.0, fl_x if fl_y is None else fl_y, height / 2 if cy is None else cy],
        [0.0, 0.0, 1.0],
    ]
    world_from_cam = matrix @ _FLIP
    rotation, center = world_from_cam[:3, :3], world_from_cam[:3, 3]
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ center
    try:
        return Camera(torch.tensor(lens), pose.float(), width, height)
    except SceneError as error:
        why = f"{frame}: {error.why}"
        raise _bad(path, why, "give rotations without scale, and lengths above 0") from error


def _matrix(value: Any, frame: str, path: Path) -> Float[Tensor, "4 4"]:
    fits = isinstance(value, list) and len(value) == 4
    fits = fits and all(isinstance(row, list) and len(row) == 4 for row in value)
    if not (fits and all(_is_number(entry) for row in value for entry in row)):
        raise _bad(path, f"{frame} has no 4 x 4 'transform_matrix' of finite numbers", "add it")
    matrix = torch.tensor(value, dtype=torch.float64)
    if not torch.allclose(matrix[3], _FLIP[3], rtol=0, atol=1e-6):
        raise _bad(path, f"the last row of {frame}'s matrix is not 0 0 0 1", "transpose it")
    return matrix


def _side(values: dict[str, Any], name: str, frame: str, path: Path) -> int:
    value = _number(values, name, frame, path)
    if value is None or value != int(value) or not 1 <= value <= SIDE_LIMIT:
        found = "is missing" if value is None else f"is {value:g}"
        raise _bad(
            path,
            f"'{name}' of {frame} {found}",
            f"give the image size in pixels, 1 to {SIDE_LIMIT}, as 'w' and 'h'",
        )
    return int(value)


def _focal(values: dict[str, Any], axis: str, side: int, frame: str, path: Path) -> float | None:
    focal = _number(values, f"fl_{axis}", frame, path)
    angle = _number(values, f"camera_angle_{axis}", frame, path)
    if focal is not None or angle is None:
        return focal
    if not 0 < angle < math.pi:
        raise _bad(path, f"'camera_angle_{axis}' of {frame} is {angle:g}", "give radians, 0 to pi")
    return 0.5 * side / math.tan(angle / 2)


def _number(values: dict[str, Any], name: str, frame: str, path: Path) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if not _is_number(value):
        raise _bad(path, f"'{name}' of {frame} is not a finite number", "correct it")
    return float(value)


def _is_number(value: Any) -> bool:
    """Whether it is a number of sensible size; JSON's true, NaN and 1e999 are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e12 < value < 1e12


def _bad(path: Path, why: str, fix: str) -> SceneError:
    return SceneError(f"cannot read cameras from {path}", why=why, fix=fix)
