"""What a camera can see only through space that no view has looked through.

A map of surfaces does not tell free space from space that nobody knows: where no view has seen a
wall, the map is open, and shows what lies in the next room. But every view has looked through the
space in front of all that it shows. A line of sight that leaves such space and comes back into it
further on has crossed what nobody has seen, most likely a wall. (Occupancy grids know the same of
each voxel: Moravec & Elfes 1985. Here depth maps are asked along few lines instead.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderers.kernels import kernel
from spatial_memory.sight import Sight

STEPS = 32
"""Points that are looked at along each line."""
GAP = 4
"""So many of them that nobody has looked through, after one that somebody has, are a gap."""
END = 0.96
"""Share of a line that is looked at: its end is the surface itself."""


def behind_unknown(
    points: np.ndarray, eyes: np.ndarray, sights: Sequence[Sight], tolerance: float
) -> np.ndarray:
    """Which points every eye sees only across a gap in the space that views have looked through.

    Args:
        points: (n, 3) float32, in the world, in metres.
        eyes: (e, 3) positions of cameras, in metres, one or more.
        sights: The views.
        tolerance: Relative error in depth: space up to so much behind a surface counts as seen.

    Returns:
        (n,) bool.
    """
    hidden = np.ones(len(points), np.bool_)
    for eye in eyes:
        seen = np.zeros((len(points), STEPS), np.bool_)
        for sight in sights:
            _look_through(sight.inverse, sight.lens, sight.pose, eye, points, tolerance, seen)
        gaps = np.logical_or.accumulate(seen, 1) & ~seen
        hidden &= np.count_nonzero(gaps, 1) >= GAP
    return hidden


@kernel()
def _look_through(inverse, lens, pose, eye, points, tolerance, seen):
    """Note the points along the lines from ``eye`` that lie in front of what a view shows."""
    rows, columns = inverse.shape
    for i in range(seen.shape[0]):
        for step in range(seen.shape[1]):
            if seen[i, step]:
                continue
            share = END * (step + 0.5) / seen.shape[1]
            x = eye[0] + share * (points[i, 0] - eye[0])
            y = eye[1] + share * (points[i, 1] - eye[1])
            z = eye[2] + share * (points[i, 2] - eye[2])
            depth = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
            if not depth > 0.0:
                continue
            across = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
            down = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
            u, v = lens[0] * across / depth + lens[2], lens[1] * down / depth + lens[3]
            if 0.0 <= u < columns and 0.0 <= v < rows:
                seen[i, step] = depth * inverse[int(v), int(u)] <= 1.0 + tolerance
