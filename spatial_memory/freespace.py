"""What a camera can see only through space that no view has looked through.

A map of surfaces does not tell free space from space that nobody knows: where no view has seen a
wall, the map is open, and shows what lies in the next room. But every view has looked through the
space in front of all that it shows, be it new or known from other views. A line of sight that
leaves such space and comes back into it further on has crossed what nobody has seen, most likely
a wall. (Occupancy grids know the same of each voxel: Moravec & Elfes 1985. Here depth maps are
asked along few lines instead.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderers.camera import Camera
from renderers.kernels import kernel
from spatial_memory.sight import Sight
from spatial_memory.sights import Sights
from spatial_memory.views import world_from_cam

WITNESSES = 64
"""So many views are asked what space they have looked through."""
STEPS = 32
"""Points that are looked at along each line."""
GAP = 4
"""So many of them that nobody has looked through, after one that somebody has, are a gap."""
END = 0.96
"""Share of a line that is looked at: its end is the surface itself."""


def out_of_sight(
    points: np.ndarray, shown: np.ndarray, sights: Sights, cameras: Sequence[Camera]
) -> np.ndarray:
    """Which points cameras see only through space that no view has looked through.

    Args:
        points: (n, 3) float32, in the world, in metres.
        shown: (v,) how much each view shows of what the cameras see: those that show most are
            asked, the lower ids of equals.
        sights: Of all views, in this order.
        cameras: One or more.

    Returns:
        (n,) bool.
    """
    most = np.lexsort((sights.ids, -shown))[:WITNESSES]
    witnesses = [sights[i] for i in sights.ids[most[shown[most] > 0]].tolist()]
    eyes = np.unique([world_from_cam(camera)[:, 3] for camera in cameras], axis=0)
    return behind_unknown(points, eyes, witnesses, sights.tolerance)


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
        seen, left = np.zeros((len(points), STEPS), np.bool_), np.full(len(points), STEPS)
        for sight in sights:
            view = sight.through, sight.lens, sight.pose
            _look_through(*view, eye, points, tolerance, seen, left)
        gaps = np.logical_or.accumulate(seen, 1) & ~seen
        hidden &= np.count_nonzero(gaps, 1) >= GAP
    return hidden


@kernel()
def _look_through(inverse, lens, pose, eye, points, tolerance, seen, left):
    """Note the points along the lines from ``eye`` that lie in front of what a view shows.

    ``left`` counts those of each line that are not noted yet.
    """
    rows, columns = inverse.shape
    steps = seen.shape[1]
    x0, y0, z0 = _placed(pose, eye[0], eye[1], eye[2])
    for i in range(seen.shape[0]):
        if left[i] == 0:
            continue
        x1, y1, z1 = _placed(pose, points[i, 0], points[i, 1], points[i, 2])
        if z0 <= 0.0 and z1 <= 0.0:
            continue
        for step in range(steps):
            share = END * (step + 0.5) / steps
            depth = z0 + share * (z1 - z0)
            if seen[i, step] or not depth > 0.0:
                continue
            u = lens[0] * (x0 + share * (x1 - x0)) / depth + lens[2]
            v = lens[1] * (y0 + share * (y1 - y0)) / depth + lens[3]
            if 0.0 <= u < columns and 0.0 <= v < rows:
                seen[i, step] = depth * inverse[int(v), int(u)] <= 1.0 + tolerance
                left[i] -= np.int64(seen[i, step])


@kernel()
def _placed(pose, x, y, z):
    """A point of the world in the camera frame."""
    return (
        pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3],
        pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3],
        pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3],
    )
