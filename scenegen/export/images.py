"""Pictures and depth maps as files: 8-bit PNG, and float32 NumPy arrays in metres."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from renderers.errors import SceneError
from scenegen.export.atomic import atomic_write

logger = logging.getLogger("scenegen")


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
    if depth.numel() == 0:
        raise _empty_picture(tuple(depth.shape))
    data = io.BytesIO()  # on a full disk numpy itself fails with an error that names no cause
    np.save(data, depth.detach().cpu().numpy().astype("<f4"), allow_pickle=False)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data.getbuffer())
    logger.info("%s: depth only; its camera is not stored in it", path)


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
