"""Pictures, depth and normals as files: PNG for programs of others, NumPy arrays for all digits.

Depth as PNG is what depth cameras write and trainers read: 16-bit millimetres, 0 where there is
none. Normals as PNG are (n + 1) / 2 of x, y and z in 8 bits, black where there is none. A text tag
in the file says so.
"""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from renderers.errors import SceneError
from scenegen.export.atomic import atomic_write

logger = logging.getLogger("scenegen")

DEPTH_STEP = 0.001
"""Metres of one step of a depth PNG: it reaches 65.5 m."""
DEPTH_TAG = f"z in the camera frame, {DEPTH_STEP} m per step; 0: unknown, sky, or farther"
NORMALS_TAG = (
    "unit normal (n + 1) / 2 in the camera frame, x right, y down, z ahead; black: unknown"
)


def write_png(path: str | Path, rgb: Float[Tensor, "h w 3"]) -> None:
    """Write a picture as an 8-bit PNG.

    Args:
        path: The file. It appears whole or not at all.
        rgb: sRGB, 0 to 1; values outside are clipped.

    Raises:
        SceneError: The picture is empty or holds NaN, or the file cannot be written.
    """
    pixels = to_bytes(rgb)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")
    logger.info("%s: 8 bits per channel, values outside 0 to 1 clipped", path)


def write_depth(path: str | Path, depth: Float[Tensor, "h w"]) -> None:
    """Write a depth map as a float32 ``.npy`` file, for ``numpy.load``.

    Args:
        path: The file. It appears whole or not at all.
        depth: z in the camera frame, in metres; NaN where unknown, +inf for sky. Both are kept.

    Raises:
        SceneError: The map is empty, or the file cannot be written.
    """
    _write_array(path, depth)
    logger.info("%s: depth only; its camera is not stored in it", path)


def write_depth_png(path: str | Path, depth: Float[Tensor, "h w"]) -> None:
    """Write a depth map as a 16-bit PNG of millimetres, as depth cameras do.

    Args:
        path: The file. It appears whole or not at all.
        depth: z in the camera frame, in metres, not negative; NaN where unknown, +inf for sky.
            These and what is beyond 65.5 m become 0.

    Raises:
        SceneError: The map is empty, or the file cannot be written.
    """
    if depth.numel() == 0:
        raise _empty_picture(tuple(depth.shape))
    steps = (depth.detach().cpu().double() / DEPTH_STEP).round().numpy()
    known = np.isfinite(steps) & (steps >= 0) & (steps <= 65_535)
    pixels = np.where(known, steps.clip(1, None), 0).astype(np.uint16)
    _write_png(path, pixels, DEPTH_TAG)
    logger.info("%s: depth in millimetres; sky, unknown and beyond 65.5 m all become 0", path)


def write_normals(path: str | Path, normals: Float[Tensor, "h w 3"]) -> None:
    """Write normals as a float32 ``.npy`` file.

    Args:
        path: The file. It appears whole or not at all.
        normals: Unit vectors in the camera frame; NaN where unknown.

    Raises:
        SceneError: The map is empty, or the file cannot be written.
    """
    _write_array(path, normals)
    logger.info("%s: normals only; their camera is not stored in it", path)


def write_normals_png(path: str | Path, normals: Float[Tensor, "h w 3"]) -> None:
    """Write normals as an 8-bit PNG; arguments and errors as for :func:`write_normals`."""
    pixels = to_bytes(torch.nan_to_num(0.5 + 0.5 * normals, nan=0.0))
    _write_png(path, pixels, NORMALS_TAG)
    logger.info("%s: normals in 8 bits, about half a degree", path)


def _write_array(path: str | Path, values: Tensor) -> None:
    if values.numel() == 0:
        raise _empty_picture(tuple(values.shape))
    data = io.BytesIO()  # on a full disk numpy itself fails with an error that names no cause
    np.save(data, values.detach().cpu().numpy().astype("<f4"), allow_pickle=False)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.getbuffer())


def _write_png(path: str | Path, pixels: np.ndarray, tag: str) -> None:
    info = PngInfo()
    info.add_text("Description", tag)
    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", pnginfo=info)


def to_bytes(rgb: Float[Tensor, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in bytes: 0 to 1 becomes 0 to 255, rounded to nearest, clipped outside.

    Raises:
        SceneError: The picture is empty or holds NaN.
    """
    if rgb.numel() == 0:
        raise _empty_picture(tuple(rgb.shape))
    if torch.isnan(rgb).any():
        raise SceneError(
            "the picture holds NaN",
            why="a pixel without a colour cannot be stored",
            fix="fill unknown pixels with a background colour first",
        )
    scaled = rgb.detach().cpu().double().clamp(0.0, 1.0) * 255.0
    return (scaled + 0.5).to(torch.uint8).numpy()


def _empty_picture(shape: tuple[int, ...]) -> SceneError:
    return SceneError(
        "the picture has no pixels",
        why=f"its shape is {shape}",
        fix="render at a size of at least 1 x 1",
    )
