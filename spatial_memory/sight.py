"""Has a view seen a surfel? Its own depth map answers, so occlusion is exact from its pose.

A surfel is seen where it faces the view, falls on a known pixel, and lies at the depth that the
view has there. This finds the observers of a surfel whatever the scale they saw it at, which
merging alone does not: a distant view merges with one of the many surfels that it sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from renderers.kernels import kernel
from spatial_memory.occlusion import farthest_surfaces, in_front
from spatial_memory.sampling import grid_size
from spatial_memory.views import View, cam_from_world, lens_of, world_from_cam

SMALLEST = 1.0 / 16.0
"""Radius below which a surfel is too small to count as seen, in pixels of the sight. Seen from
about 20 times as far as it was mapped from, a place is no picture of itself any more."""


@dataclass(frozen=True, eq=False)
class Sight:
    """A view's depth on a small grid, and its camera, as plain numbers."""

    inverse: np.ndarray
    """(rows, columns) float32 inverse depth, 1/m; 0 is sky, NaN unknown."""
    through: np.ndarray
    """The same of all pixels that have a depth, known or not: how far the view has looked."""
    lens: np.ndarray
    """(4,) float64 focal lengths and principal point, in pixels of the grid."""
    pose: np.ndarray
    """(3, 4) float64 cam_from_world."""
    center: np.ndarray
    """(3,) float64 position in the world, in metres."""
    far: float
    """Depth of the farthest surface in any pixel, in metres; 0 where there is none."""


def sight_of(view: View, side: int) -> Sight:
    """The sight of a view, on a grid whose longer side has at most ``side`` pixels."""
    height, width = view.depth.shape
    columns, rows = grid_size(width, height, side)
    inverse = np.empty((rows, columns), np.float32)
    depth, known = view.depth.numpy(), view.known.numpy()
    far, through = _shrink(depth, known, inverse), inverse
    if not known.all():
        through = np.empty_like(inverse)
        _shrink(depth, np.ones_like(known), through)
    lens = lens_of(view.camera) * np.array([columns / width, rows / height] * 2)
    pose, center = cam_from_world(view.camera), world_from_cam(view.camera)[:, 3]
    return Sight(inverse, through, lens, pose, center, far)


def may_show(sight: Sight, low: np.ndarray, high: np.ndarray, tolerance: float) -> np.ndarray:
    """Which boxes, by their corners (n, 3), are not hidden behind what a view shows: (n,) bool."""
    out = np.empty(len(low), np.bool_)
    tiles = farthest_surfaces(sight.inverse, sight.far)
    view = sight.inverse, tiles, sight.far, sight.lens, sight.pose
    in_front(low, high, *view, tolerance, out)
    return out


def seen_from(
    sight: Sight,
    points: np.ndarray,
    normals: np.ndarray,
    radii: np.ndarray,
    tolerance: float,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """Which surfels a view has seen.

    Args:
        sight: The view.
        points: (n, 3) centres in the world, in metres.
        normals: (n, 3) unit normals.
        radii: (n,) in metres; a disc counts while its centre is half a radius beyond the border.
        tolerance: Relative error in depth that still counts as the same surface.
        rows: (m,) those that are asked for; all when left out.

    Returns:
        (m,) bool.
    """
    rows = np.arange(len(points)) if rows is None else rows
    seen = np.empty(len(rows), np.bool_)
    rules = np.array([tolerance, farthest(sight, tolerance), SMALLEST])
    view = sight.inverse, sight.lens, sight.pose, sight.center
    _see(*view, points, normals, radii, rows, rules, seen)
    return seen


def farthest(sight: Sight, tolerance: float) -> float:
    """Depth beyond which a view has seen nothing, in metres."""
    return (1.0 + tolerance) * sight.far


@kernel()
def _shrink(depth, known, inverse):
    """Inverse depth at the centre of each grid pixel: interpolated on a surface, else nearest.

    Returns the depth of the farthest surface in the picture.
    """
    height, width = depth.shape
    rows, columns = inverse.shape
    corner = np.empty(4)
    for row in range(rows):
        v = (row + 0.5) * height / rows - 0.5
        y0 = min(max(int(np.floor(v)), 0), max(height - 2, 0))
        y1 = min(y0 + 1, height - 1)
        wy = min(max(v - y0, 0.0), 1.0)
        for column in range(columns):
            u = (column + 0.5) * width / columns - 0.5
            x0 = min(max(int(np.floor(u)), 0), max(width - 2, 0))
            x1 = min(x0 + 1, width - 1)
            wx = min(max(u - x0, 0.0), 1.0)
            for i in range(4):
                x, y = (x1 if i % 2 else x0), (y1 if i // 2 else y0)
                corner[i] = 1.0 / np.float64(depth[y, x]) if known[y, x] else np.nan
            top = (1.0 - wx) * corner[0] + wx * corner[1]
            bottom = (1.0 - wx) * corner[2] + wx * corner[3]
            near = corner[(1 if wx > 0.5 else 0) + (2 if wy > 0.5 else 0)]
            low = min(min(corner[0], corner[1]), min(corner[2], corner[3]))
            high = max(max(corner[0], corner[1]), max(corner[2], corner[3]))
            smooth = high <= 1.1 * low and not np.isnan(np.sum(corner))
            inverse[row, column] = (1.0 - wy) * top + wy * bottom if smooth else near
    far = 0.0
    for y in range(height):
        for x in range(width):
            if known[y, x] and depth[y, x] < np.inf:
                far = max(far, np.float64(depth[y, x]))
    return far


@kernel()
def _see(inverse, lens, pose, center, points, normals, radii, asked, rules, seen):
    rows, columns = inverse.shape
    tolerance, far, smallest = rules
    focal = max(lens[0], lens[1])
    for place in range(len(asked)):
        i = asked[place]
        seen[place] = False
        x, y, z = np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2])
        depth = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
        if radii[i] * focal < smallest * depth:
            continue
        nx, ny, nz = normals[i, 0], normals[i, 1], normals[i, 2]
        offset = nx * (center[0] - x) + ny * (center[1] - y) + nz * (center[2] - z)
        if not (0.0 < depth <= far and offset > 0.0):
            continue
        across = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
        down = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
        u, v = lens[0] * across / depth + lens[2], lens[1] * down / depth + lens[3]
        margin = 0.5 * radii[i] / depth
        if not (
            -margin * lens[0] <= u <= columns + margin * lens[0]
            and -margin * lens[1] <= v <= rows + margin * lens[1]
        ):
            continue
        if not (0.0 <= u <= columns and 0.0 <= v <= rows):
            # The nearest point of the picture instead, and the depth of the disc's plane there.
            u, v = min(max(u, 0.0), np.float64(columns)), min(max(v, 0.0), np.float64(rows))
            dx, dy = (u - lens[2]) / lens[0], (v - lens[3]) / lens[1]
            slope = (
                nx * (pose[0, 0] * dx + pose[1, 0] * dy + pose[2, 0])
                + ny * (pose[0, 1] * dx + pose[1, 1] * dy + pose[2, 1])
                + nz * (pose[0, 2] * dx + pose[1, 2] * dy + pose[2, 2])
            )
            if not slope < 0.0:
                continue
            depth = -offset / slope
        seen[place] = _agrees(inverse, u, v, depth, tolerance)


@kernel()
def _agrees(inverse, u, v, depth, tolerance):
    """Whether the map has this depth at (u, v): between its four neighbours, or at one of them."""
    rows, columns = inverse.shape
    u = min(max(u - 0.5, 0.0), columns - 1.0)
    v = min(max(v - 0.5, 0.0), rows - 1.0)
    x0, y0 = min(int(u), max(columns - 2, 0)), min(int(v), max(rows - 2, 0))
    x1, y1 = min(x0 + 1, columns - 1), min(y0 + 1, rows - 1)
    a, b = np.float64(inverse[y0, x0]), np.float64(inverse[y0, x1])
    c, d = np.float64(inverse[y1, x0]), np.float64(inverse[y1, x1])
    wx, wy = u - x0, v - y0
    middle = (1.0 - wy) * ((1.0 - wx) * a + wx * b) + wy * ((1.0 - wx) * c + wx * d)
    return (
        abs(depth * middle - 1.0) <= tolerance
        or abs(depth * a - 1.0) <= tolerance
        or abs(depth * b - 1.0) <= tolerance
        or abs(depth * c - 1.0) <= tolerance
        or abs(depth * d - 1.0) <= tolerance
    )
