"""A photograph as a tensor: what the first view of a world is made of."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.errors import check_shapes
from scenegen.image.picture import MAX_PIXELS, load_picture


@dataclass(frozen=True, eq=False)
class Photo:
    """One photograph at working size."""

    rgb: Float[Tensor, "h w 3"]
    """Colours, sRGB, float32 in [0, 1], upright. Both sides are even."""
    fov_degrees: float | None
    """Horizontal field of view of ``rgb``, in degrees; None when the file does not say."""
    fov_source: str
    """Where the field of view comes from, in plain words: "EXIF 35 mm equivalent 28 mm"."""
    name: str
    """File name, with its suffix."""
    original_size: tuple[int, int]
    """Width and height of the file, upright, in pixels."""

    def __post_init__(self) -> None:
        check_shapes(self, rgb=("h", "w", 3))


def load_photo(
    path: str | os.PathLike[str], long_side: int = 768, max_pixels: int = MAX_PIXELS
) -> Photo:
    """Load a photograph: as :func:`scenegen.image.picture.load_picture`, which says more.

    Raises:
        SceneError: The file is missing, or is no photograph that can be used.
    """
    found = load_picture(path, long_side, max_pixels)
    rgb = torch.from_numpy(found.rgb)
    return Photo(rgb, found.fov_degrees, found.fov_source, found.name, found.original_size)
