"""What is new in a view, piece by piece: pieces that are worth a place in the map, and specks."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from renderers.kernels import kernel
from spatial_memory.sampling import Samples

_TOUCHING = np.ones((3, 3))  # cells touch at their corners, too


def specks(samples: Samples, new: np.ndarray, least: float) -> np.ndarray:
    """Which new samples belong to a piece of the picture too small to matter.

    Args:
        samples: What a view shows.
        new: (n,) bool, the samples that the map does not know.
        least: A piece matters if it takes this share of the picture.

    Returns:
        (n,) bool.
    """
    picture = np.zeros(samples.grid, np.bool_)
    _paint(picture, samples.cells[new])
    pieces = np.zeros(samples.grid, np.int32)
    ndimage.label(picture, _TOUCHING, output=pieces)
    small = np.bincount(pieces.ravel()) < least * picture.size
    return new & small[pieces[samples.cells[:, 0], samples.cells[:, 1]]]


@kernel()
def _paint(picture, cells):
    for row, column, high, wide in cells:
        picture[row : row + high, column : column + wide] = True
