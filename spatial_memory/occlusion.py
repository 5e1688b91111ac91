"""What lies wholly behind the surfaces that a view shows, found box by box.

A frustum goes on behind walls, and of the map in it a view has mostly seen one room. A box is
hidden that begins farther away than every surface where it falls: of the depth map itself where
that is small, else of tiles that keep the farthest surface. All tests err on the side of seeing.
"""

from __future__ import annotations

from math import floor

import numpy as np

from renderers.kernels import kernel

TILE = 8
"""Pixels along the side of a tile."""
NEAREST = 1e-3
"""What comes nearer to the plane of the camera than this is never taken for hidden, in metres."""


def farthest_surfaces(inverse: np.ndarray, far: float) -> np.ndarray:
    """The farthest surface in each tile of a map of inverse depth, and within a pixel of it.

    Args:
        inverse: (rows, columns) 1/m; 0 is sky, NaN unknown.
        far: Depth of the farthest surface of all, in metres. It stands for tiles that show sky
            beside a surface: between the two, inverse depth takes any value.

    Returns:
        (tiles down, tiles across) float32 depth, in metres; 0 where there is no surface.
    """
    rows, columns = inverse.shape
    tiles = np.empty((-(-rows // TILE), -(-columns // TILE)), np.float32)
    _farthest(inverse, far, tiles)
    return tiles


@kernel()
def in_front(low, high, inverse, tiles, far, lens, pose, tolerance, out):
    """Find out which boxes are not hidden.

    Args:
        low: (n, 3) lower corners, in metres.
        high: (n, 3) upper corners.
        inverse: (rows, columns) as for :func:`farthest_surfaces`.
        tiles: What that gave.
        far: Depth of the farthest surface of all, in metres.
        lens: (4,) focal lengths and principal point, in pixels of the map.
        pose: (3, 4) cam_from_world.
        tolerance: Relative error in depth within which something lies on a surface.
        out: (n,) bool, becomes the answer.
    """
    rows, columns = inverse.shape
    for box in range(low.shape[0]):
        nearest, left, top, right, bottom = np.inf, np.inf, np.inf, -np.inf, -np.inf
        for corner in range(8):
            x = np.float64(high[box, 0] if corner & 1 else low[box, 0])
            y = np.float64(high[box, 1] if corner & 2 else low[box, 1])
            z = np.float64(high[box, 2] if corner & 4 else low[box, 2])
            depth = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
            nearest = min(nearest, depth)
            if depth < NEAREST:
                break
            across = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
            down = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
            u, v = lens[0] * across / depth + lens[2], lens[1] * down / depth + lens[3]
            left, right = min(left, u), max(right, u)
            top, bottom = min(top, v), max(bottom, v)
        # At the border of the picture a disc counts by where its plane is, not its centre.
        whole = nearest >= NEAREST and left > 0.0 and top > 0.0
        whole = whole and right < columns and bottom < rows
        out[box] = not whole
        if whole:
            x0, x1 = max(floor(left) - 1, 0), min(floor(right) + 1, columns - 1)
            y0, y1 = max(floor(top) - 1, 0), min(floor(bottom) + 1, rows - 1)
            if max(x1 - x0, y1 - y0) <= TILE:
                deepest = _deepest(inverse, x0, x1, y0, y1, far)
            else:
                deepest = _deepest_tile(tiles, x0 // TILE, x1 // TILE, y0 // TILE, y1 // TILE)
            out[box] = nearest <= (1.0 + tolerance) * deepest


@kernel()
def _farthest(inverse, far, tiles):
    rows, columns = inverse.shape
    for down in range(tiles.shape[0]):
        for across in range(tiles.shape[1]):
            x0, y0 = across * TILE, down * TILE
            x1, y1 = min(x0 + TILE, columns - 1), min(y0 + TILE, rows - 1)
            tiles[down, across] = _deepest(inverse, max(x0 - 1, 0), x1, max(y0 - 1, 0), y1, far)


@kernel()
def _deepest(inverse, x0, x1, y0, y1, far):
    """Depth of the farthest surface in a part of the map, ends included; 0 for none."""
    least, sky = np.inf, False
    for y in range(y0, y1 + 1):
        for x in range(x0, x1 + 1):
            sky |= inverse[y, x] == 0.0
            if inverse[y, x] > 0.0:
                least = min(least, np.float64(inverse[y, x]))
    if least == np.inf:
        return 0.0
    return 1.0001 * (far if sky else 1.0 / least)  # rounding


@kernel()
def _deepest_tile(tiles, x0, x1, y0, y1):
    deepest = 0.0
    for y in range(y0, y1 + 1):
        for x in range(x0, x1 + 1):
            deepest = max(deepest, np.float64(tiles[y, x]))
    return deepest
