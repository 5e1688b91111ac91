"""What a camera can see at most, found without looking at every surfel.

Surfels keep the order in which views added them, tile by tile of the picture, so neighbours in
that order are neighbours in space. A box around each run of BLOCK rows is therefore small, and
needs no care when the map grows: boxes only widen. All tests err on the side of seeing: what is
found depends on the boxes, what is then drawn or noted does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from renderers.kernels import kernel
from spatial_memory.columns import Columns

BLOCK = 64
"""Surfels per box: one tile of the picture that they come from."""
SMALLEST = 1.0 / 16.0
"""Smallest radius that a retrieval draws, in pixels. All that one view shows would cover less than
1 % of a picture in which its surfels are smaller."""

_STRETCH, _ROUNDING = 1.002, 1e-6  # poses are rigid up to 0.1 %; float32, with room to spare


@dataclass(frozen=True, eq=False)
class Frustum:
    """The part of the world that a camera can see, with a margin of half a pixel."""

    planes: np.ndarray
    """(6, 4) float64: points with ``n . p + d >= 0`` for all are inside; the first gives depth."""
    focal: float
    """The larger focal length, in pixels."""


def frustum(
    pose: np.ndarray, lens: np.ndarray, width: int, height: int, far: float = np.inf
) -> Frustum:
    """The frustum of a camera.

    Args:
        pose: (3, 4) cam_from_world.
        lens: (4,) focal lengths and principal point, in pixels.
        width: Image width, in pixels.
        height: Image height, in pixels.
        far: Depth beyond which nothing counts, in metres.
    """
    fx, fy, cx, cy = lens
    mx, my = 0.5 + 2e-5 * (fx + width), 0.5 + 2e-5 * (fy + height)
    across, down, depth = pose
    end = np.array([0.0, 0.0, 0.0, 1.0 if far == np.inf else far])
    planes = np.stack(
        [
            depth,
            fx * across + (cx + mx) * depth,
            (width + mx - cx) * depth - fx * across,
            fy * down + (cy + my) * depth,
            (height + my - cy) * depth - fy * down,
            end if far == np.inf else end - depth,
        ]
    )
    return Frustum(planes, float(max(fx, fy)))


class Blocks:
    """A box around each run of BLOCK surfels."""

    def __init__(self) -> None:
        self._rows = 0
        self._boxes = Columns(
            low=(np.float32, (3,)), high=(np.float32, (3,)), reach=(np.float32, ())
        )

    def extend(self, points: np.ndarray, radii: np.ndarray) -> None:
        """Take in the rows of ``points`` (n, 3) and ``radii`` (n,) that are new."""
        new = np.arange(self._rows, len(points))
        self._rows = len(points)
        blocks = -(-len(points) // BLOCK)
        self._boxes.append(blocks - len(self._boxes), low=np.inf, high=-np.inf, reach=0.0)
        self.widen(new, points, radii)

    def widen(self, rows: np.ndarray, points: np.ndarray, radii: np.ndarray) -> None:
        """Take in ``rows`` again, which may have moved or grown."""
        b = self._boxes
        _widen(rows, points, radii, b.low, b.high, b.reach)

    def in_sight(
        self,
        frustums: Sequence[Frustum],
        points: np.ndarray,
        radii: np.ndarray,
        smallest: float = 0.0,
        may_show: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Rows that some of the cameras may see.

        Args:
            frustums: The cameras.
            points: (n, 3) all surfels.
            radii: (n,); rows of radius 0 are left out.
            smallest: Leave out surfels whose radius is less than this in every image, in pixels.
            may_show: Tells of boxes, by their corners (b, 3), which to look into.

        Returns:
            (m,) int64, ascending: all that are visible and some that are not.
        """
        planes = np.stack([each.planes for each in frustums])
        focals = np.array([each.focal for each in frustums])
        b = self._boxes
        seen = np.empty(len(b), np.bool_)
        found = _sift(b.low, b.high, b.reach, planes, focals, smallest, seen)
        if may_show is not None:
            near = np.flatnonzero(seen)
            seen[near] = may_show(b.low[near], b.high[near])
            found = np.count_nonzero(seen)
        rows = np.empty(found * BLOCK, np.int64)
        return rows[: _pick(seen, points, radii, planes, focals, smallest, rows)]

    def in_box(self, low: np.ndarray, high: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Rows whose centres lie between two corners, these included: (m,) int64, ascending."""
        b = self._boxes
        touched = np.flatnonzero(((b.low <= high) & (b.high >= low)).all(1))
        rows = (touched[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
        rows = rows[rows < len(points)]
        return rows[((points[rows] >= low) & (points[rows] <= high)).all(1)]


def boxes_around(points: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, ...]:
    """Boxes around each run of BLOCK discs: corners (b, 3) and (b, 3), and largest radii (b,)."""
    blocks = -(-len(points) // BLOCK)
    low = np.full((blocks, 3), np.inf, np.float32)
    high, reach = -low, np.zeros(blocks, np.float32)
    _widen(np.arange(len(points)), points, radii, low, high, reach)
    return low, high, reach


def reached(
    planes: np.ndarray,
    focals: np.ndarray,
    boxes: tuple[np.ndarray, ...],
    smallest: float,
) -> np.ndarray:
    """Which of many frustums reach into any of some boxes.

    Args:
        planes: (n, 6, 4) as in :class:`Frustum`.
        focals: (n,) as in :class:`Frustum`.
        boxes: Lower corners (b, 3), upper corners (b, 3) and largest radii (b,).
        smallest: Leave out boxes in which no radius is as large as this, in pixels.

    Returns:
        (n,) bool.
    """
    low, high, reach = boxes
    out = np.empty(len(planes), np.bool_)
    whole = low.min(0), high.max(0), reach.max()
    _reach(planes, focals, low, high, reach, *whole, smallest, out)
    return out


@kernel()
def _widen(rows, points, radii, low, high, reach):
    for row in rows:
        if not radii[row] > 0.0:
            continue
        block = row // BLOCK
        size = abs(points[row, 0]) + abs(points[row, 1]) + abs(points[row, 2])
        pad = _STRETCH * radii[row] + _ROUNDING * size
        for axis in range(3):
            low[block, axis] = min(low[block, axis], points[row, axis] - pad)
            high[block, axis] = max(high[block, axis], points[row, axis] + pad)
        reach[block] = max(reach[block], radii[row])


@kernel()
def _inside(planes, focal, low, high, reach, smallest):
    """Whether a box is not wholly beyond one of the planes, nor all in it too small.

    Empty boxes are beyond all planes.
    """
    nearest = planes[0, 3]
    for axis in range(3):
        slope = planes[0, axis]
        nearest += slope * (low[axis] if slope > 0.0 else high[axis])
    if not (low[0] <= high[0] and reach * focal >= smallest * nearest):
        return False
    for plane in planes:
        value = plane[3]
        for axis in range(3):
            value += plane[axis] * (high[axis] if plane[axis] > 0.0 else low[axis])
        if value < 0.0:
            return False
    return True


@kernel()
def _sift(low, high, reach, planes, focals, smallest, seen):
    """Which boxes are in sight of some camera, and how many."""
    found = 0
    for block in range(low.shape[0]):
        seen[block] = False
        for c in range(planes.shape[0]):
            box = low[block], high[block], reach[block]
            seen[block] = seen[block] or _inside(planes[c], focals[c], *box, smallest)
        found += np.int64(seen[block])
    return found


@kernel()
def _pick(seen, points, radii, planes, focals, smallest, rows):
    """The surfels of these boxes that are large enough for some camera; how many."""
    count = 0
    for block in range(seen.shape[0]):
        if not seen[block]:
            continue
        for row in range(block * BLOCK, min((block + 1) * BLOCK, points.shape[0])):
            large = False
            for c in range(planes.shape[0]):
                z = planes[c, 0, 3]
                for axis in range(3):
                    z += planes[c, 0, axis] * points[row, axis]
                large |= radii[row] * focals[c] >= smallest * z
            if large and radii[row] > 0.0:
                rows[count] = row
                count += 1
    return count


@kernel()
def _reach(planes, focals, low, high, reach, lowest, highest, farthest, smallest, out):
    for view in range(planes.shape[0]):
        out[view] = False
        lens = planes[view], focals[view]
        if _inside(*lens, lowest, highest, farthest, smallest):
            for b in range(low.shape[0]):
                if _inside(*lens, low[b], high[b], reach[b], smallest):
                    out[view] = True
                    break
