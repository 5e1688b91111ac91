"""Real photographs for training, from a folder that the user names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from renderers import SceneError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SHIPPED = ("Wine_by_Jakkub_Mede", "picosdeeuropa_by_Aitzol_Berasategi")
"""Photographs of assets/photos under the names that their packages give them: never trained on."""
HELD_OUT_EVERY = 8
"""One photograph in so many is held out as well, to measure."""
ZOOM = (1.1, 2.2)
"""Shorter side of a photograph over the crop, so that crops show parts of many sizes."""


def find_photographs(folder: Path) -> list[Path]:
    """All photographs below a folder, by name.

    Raises:
        SceneError: There are too few.
    """
    found = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    found = [path for path in found if path.stem not in SHIPPED]
    if len(found) < 2:
        raise SceneError(
            f"no photographs to train on in {folder}",
            why=f"{len(found)} files end in {', '.join(SUFFIXES)}; two are the least",
            fix="give the folder that holds them (--photos), or leave it out",
        )
    return found


def is_held_out(number: int) -> bool:
    """Whether the photograph with that number is measured with, and not trained on."""
    return number % HELD_OUT_EVERY == 0


def random_crop(path: Path, rng: np.random.Generator, side: int) -> Float[Tensor, "s s 3"]:
    """A square part of a photograph, some size, mirrored or not.

    Raises:
        SceneError: The file cannot be read.
    """
    zoom = rng.uniform(*ZOOM)
    least = round(side * zoom)
    try:
        with Image.open(path) as image:
            image.draft("RGB", (least, least))  # JPEG: decode no more than that
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError) as error:
        raise SceneError(
            f"cannot train on {path}", why=str(error), fix="remove it from the folder"
        ) from error
    scale = side * zoom / min(upright.size)
    size = [max(side, round(scale * length)) for length in upright.size]
    left, top = (int(rng.integers(length - side + 1)) for length in size)
    box = tuple(edge / scale for edge in (left, top, left + side, top + side))
    part = upright.resize((side, side), Image.Resampling.LANCZOS, box=_within(box, upright.size))
    rgb = torch.from_numpy(np.array(part)).float() / 255
    return rgb.flip(1) if rng.random() < 0.5 else rgb


def _within(box: tuple[float, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    width, height = size
    return (box[0], box[1], min(box[2], width), min(box[3], height))
