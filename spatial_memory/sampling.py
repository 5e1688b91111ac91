"""One view to surfels: where its surfaces are, which way they face and how far a sample reaches.

A plane is affine in inverse depth: ``1/z = a u + b v + c``. So each sample fits that to its 5x5
neighbours at full resolution (least squares: central differences, averaged), leaving out those
beyond a depth step. Being on a surface is judged against this plane, not against constant depth:
ground at a grazing angle stays, pixels that fly between two surfaces go.

What is near and flat needs no surfel per cell. Up to 8x8 cells give one, as long as it is no larger
than is asked for and all of them lie on its plane: a quadtree over the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np

from renderers.kernels import kernel
from spatial_memory.views import View, lens_of, world_from_cam

PLANE_TOLERANCE = 0.025
"""Relative deviation in inverse depth up to which a neighbour is on the sample's plane."""
STEEP = 0.1
"""Relative depth range over the 5x5 window from which a plane may be the blur between two
surfaces: then all of the window must lie on it."""
MIN_COS = 0.01
"""Nothing is mapped at a more grazing angle: at 1.6 m above it, ground ends 160 m away."""
MARGIN = 1.1
"""Radius in units of the one that just tiles the surface: samples are not exactly regular."""
MAX_STRETCH = 8.0
"""Longest radius of a surface seen at a grazing angle, in units of one seen squarely."""

FLAT = 0.01
"""Relative deviation in inverse depth up to which cells lie on one plane."""

NEAREST, FARTHEST = 1e-3, 1e12
"""Nothing nearer or farther is mapped, in metres: float32 must hold radii and squares."""

_REACH = 2  # the window is 5x5
_TILE = 8  # cells along the side of a tile
_MIN_INLIERS, _MIN_SHARE, _STEEP_SHARE = 6, 0.4, 0.9


@dataclass(frozen=True, eq=False)
class Samples:
    """Surfels of one view, before they meet the map. Float32, in the world."""

    points: np.ndarray
    """(n, 3), in metres."""
    normals: np.ndarray
    """(n, 3) unit vectors on the side of the camera."""
    radii: np.ndarray
    """(n,), in metres: neighbouring discs just overlap on the surface."""
    colors: np.ndarray
    """(n, 3) sRGB, 0 to 1: mean of the surface within the sample's cell."""
    depths: np.ndarray
    """(n,) z in the camera frame, in metres."""
    weights: np.ndarray
    """(n,) how well the view sees it: cos / (1 + z), as in VMem (arXiv 2506.18903)."""
    cells: np.ndarray
    """(n, 4) int32 row and column of its first cell, and how many rows and columns it takes."""
    grid: tuple[int, int]
    """Rows and columns of all cells."""

    def __len__(self) -> int:
        return len(self.points)


def sample_view(view: View, side: int, detail: float = 0.0) -> Samples:
    """Surfels of a view, at most one per cell of a grid whose longer side has ``side`` cells.

    A cell gives the known pixel nearest to its centre that lies on a surface, if any. Surfels come
    tile by tile, so that neighbours in the picture are neighbours in the list.

    Args:
        view: What was seen.
        side: Cells along the longer side.
        detail: Cells of one flat surface are taken together while their surfel's radius is no
            larger than this, in metres.
    """
    height, width = view.depth.shape
    columns, rows = grid_size(width, height, side)
    depth = np.where(view.known.numpy(), view.depth.numpy(), np.float32(np.nan))
    lens = lens_of(view.camera)
    found = np.empty((rows * columns, 11), np.float64)
    at = np.empty((rows * columns, 4), np.int32)
    limits = np.array([PLANE_TOLERANCE, STEEP, MARGIN, MAX_STRETCH, MIN_COS, NEAREST, FARTHEST])
    count = _sample(depth, view.rgb.numpy(), rows, columns, lens, limits, detail, found, at)
    found = found[:count]
    pose = world_from_cam(view.camera)
    as32 = np.float32
    return Samples(
        points=(found[:, 0:3] @ pose[:, :3].T + pose[:, 3]).astype(as32),
        normals=(found[:, 3:6] @ pose[:, :3].T).astype(as32),
        radii=found[:, 6].astype(as32),
        colors=found[:, 7:10].astype(as32),
        depths=found[:, 2].astype(as32),
        weights=(found[:, 10] / (1.0 + found[:, 2])).astype(as32),
        cells=at[:count].copy(),
        grid=(rows, columns),
    )


def grid_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Columns and rows of a grid of ``side`` cells along the longer side, never above 1 per pixel.

    Args:
        width: Image width, in pixels.
        height: Image height, in pixels.
        side: Cells along the longer side, at most.
    """
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


@kernel()
def _sample(depth, rgb, rows, columns, lens, limits, detail, found, at):
    """Fill ``found`` with point (3), normal (3), radius, colour (3), cosine; ``at`` with cells.

    Returns the count.
    """
    count = 0
    plane, extent = np.empty(3), np.empty(2)
    todo = np.empty((4 * _TILE, 4), np.int64)  # blocks of cells, depth first
    across = -(-columns // _TILE)
    for tile in range(-(-rows // _TILE) * across):
        todo[0] = tile // across * _TILE, tile % across * _TILE, _TILE, _TILE
        left = 1
        while left > 0:
            left -= 1
            row, column, high, wide = todo[left]
            if row >= rows or column >= columns:
                continue
            cells = row, min(row + high, rows), column, min(column + wide, columns)
            grid, out = (rows, columns), found[count]
            extent[:] = high, wide
            if _surfel(depth, rgb, cells, grid, lens, limits, detail, plane, extent, out):
                at[count] = row, column, cells[1] - row, cells[3] - column
                count += 1
            elif high * wide > 1:
                if wide == 1 or (high > 1 and extent[0] >= extent[1]):
                    high //= 2
                    todo[left] = row + high, column, high, wide
                else:
                    wide //= 2
                    todo[left] = row, column + wide, high, wide
                todo[left + 1] = row, column, high, wide
                left += 2
    return count


@kernel()
def _surfel(depth, rgb, cells, grid, lens, limits, detail, plane, extent, out):
    """The surfel of some cells, or False: of several, only where they show one flat surface.

    ``extent`` becomes how high and how wide they are on that surface, where there is one.
    """
    height, width = depth.shape
    (first, last, start, end), (rows, columns) = cells, grid
    cell_h, cell_w = height / rows, width / columns
    top, bottom = first * height // rows, last * height // rows
    left, right = start * width // columns, end * width // columns
    mid_u, mid_v = 0.5 * (start + end) * cell_w, 0.5 * (first + last) * cell_h
    several = end - start > 1 or last - first > 1
    x, y = int(mid_u), int(mid_v)
    if not _fit_plane(depth, x, y, limits, plane):
        if several:
            return False
        x, y = _nearest_on_surface(depth, left, right, top, bottom, limits, plane)
    if x < 0 or not limits[5] <= depth[y, x] <= limits[6]:
        return False
    # To the very centre of the cells if that is in the pixel: regular discs tile.
    du, dv = mid_u - (x + 0.5), mid_v - (y + 0.5)
    if max(abs(du), abs(dv)) > 0.5:
        du = dv = 0.0
    u, v = x + 0.5 + du, y + 0.5 + dv
    plane[2] = 1.0 / depth[y, x] + plane[0] * du + plane[1] * dv
    _disc(u, v, plane, cell_w * (end - start), cell_h * (last - first), lens, limits, extent, out)
    if several and not (out[6] <= detail and _flat(depth, u, v, plane, cells, grid)):
        return False
    if not (out[10] >= limits[4] and 0.0 < np.float32(out[6]) < np.inf):
        return False
    _mean_color(depth, rgb, x, y, left, right, top, bottom, out)
    return True


@kernel()
def _flat(depth, u, v, plane, cells, grid):
    """Whether the middles of all cells lie on the plane, which is given at (u, v)."""
    (first, last, start, end), (rows, columns) = cells, grid
    for row in range(first, last):
        y = int((row + 0.5) * depth.shape[0] / rows)
        for column in range(start, end):
            x = int((column + 0.5) * depth.shape[1] / columns)
            there = plane[2] + plane[0] * (x + 0.5 - u) + plane[1] * (y + 0.5 - v)
            if not abs(_inverse(depth, x, y) - there) <= FLAT * there:
                return False
    return True


@kernel()
def _nearest_on_surface(depth, left, right, top, bottom, limits, plane):
    """The pixel on a surface nearest to the centre of the cell, and its plane; (-1, -1): none."""
    mid_x, mid_y = 0.5 * (left + right - 1), 0.5 * (top + bottom - 1)
    best, best_x, best_y = np.inf, -1, -1
    trial = np.empty(3)
    for y in range(top, bottom):
        for x in range(left, right):
            distance = (x - mid_x) ** 2 + (y - mid_y) ** 2
            if distance < best and _fit_plane(depth, x, y, limits, trial):
                best, best_x, best_y = distance, x, y
                plane[:] = trial
    return best_x, best_y


@kernel()
def _inverse(depth, x, y):
    """1/z; NaN outside the image and where nothing is known, and for the sky."""
    if x < 0 or y < 0 or x >= depth.shape[1] or y >= depth.shape[0]:
        return np.nan
    z = np.float64(depth[y, x])
    return 1.0 / z if z > 0.0 and z < np.inf else np.nan


@kernel()
def _flatter(before, here, after):
    """The one-sided slope of smaller magnitude; 0 where neither side is known."""
    back, ahead = here - before, after - here
    if np.isnan(back):
        return 0.0 if np.isnan(ahead) else ahead
    return back if np.isnan(ahead) or abs(back) < abs(ahead) else ahead


@kernel()
def _fit_plane(depth, x, y, limits, plane):
    """Slopes in u and v and the value of 1/z at the pixel, into ``plane``; False off surfaces."""
    here = _inverse(depth, x, y)
    if np.isnan(here):
        return False
    slope_u = _flatter(_inverse(depth, x - 1, y), here, _inverse(depth, x + 1, y))
    slope_v = _flatter(_inverse(depth, x, y - 1), here, _inverse(depth, x, y + 1))
    tolerance = limits[0] * here
    total = inliers = 0
    su = sv = suu = suv = svv = si = siu = siv = 0.0
    for dv in range(-_REACH, _REACH + 1):
        for du in range(-_REACH, _REACH + 1):
            value = _inverse(depth, x + du, y + dv) - here
            if np.isnan(value):
                continue
            total += 1
            if abs(value - (slope_u * du + slope_v * dv)) > tolerance:
                continue
            inliers += 1
            su, sv, si = su + du, sv + dv, si + value
            suu, suv, svv = suu + du * du, suv + du * dv, svv + dv * dv
            siu, siv = siu + value * du, siv + value * dv
    if inliers < _MIN_INLIERS or inliers < _MIN_SHARE * total:
        return False
    mu, mv, mi = su / inliers, sv / inliers, si / inliers
    suu, suv, svv = suu - su * mu, suv - su * mv, svv - sv * mv
    siu, siv = siu - si * mu, siv - si * mv
    determinant = suu * svv - suv * suv
    if determinant < 1e-6:  # all in one line: the plane may turn around it
        return False
    a = (siu * svv - siv * suv) / determinant
    b = (siv * suu - siu * suv) / determinant
    value = here + mi - a * mu - b * mv
    steep = 2 * _REACH * (abs(a) + abs(b)) > limits[1] * here
    if steep and inliers < _STEEP_SHARE * total:
        return False
    plane[0], plane[1], plane[2] = a, b, value
    return abs(value - here) <= tolerance and value > 0.0


@kernel()
def _disc(u, v, plane, cell_w, cell_h, lens, limits, extent, out):
    """Point, normal and radius of the disc on ``plane`` that covers one cell, in the camera."""
    a, b, value = plane[0], plane[1], plane[2]
    z = 1.0 / value
    px, py = (u - lens[2]) / lens[0] * z, (v - lens[3]) / lens[1] * z
    nx, ny = a * lens[0], b * lens[1]
    nz = value + a * (lens[2] - u) + b * (lens[3] - v)
    length = sqrt(nx * nx + ny * ny + nz * nz)
    out[0], out[1], out[2] = px, py, z
    out[3], out[4], out[5] = -nx / length, -ny / length, -nz / length
    # The cell's edges carried on to the plane; half the longer diagonal reaches every corner.
    ku, kv = -z * a * cell_w, -z * b * cell_h
    ux, uy, uz = z * cell_w / lens[0] + ku * px, ku * py, ku * z
    vx, vy, vz = kv * px, z * cell_h / lens[1] + kv * py, kv * z
    one = sqrt((ux + vx) ** 2 + (uy + vy) ** 2 + (uz + vz) ** 2)
    other = sqrt((ux - vx) ** 2 + (uy - vy) ** 2 + (uz - vz) ** 2)
    extent[0], extent[1] = sqrt(vx * vx + vy * vy + vz * vz), sqrt(ux * ux + uy * uy + uz * uz)
    facing = z * sqrt((cell_w / lens[0]) ** 2 + (cell_h / lens[1]) ** 2)
    out[6] = 0.5 * limits[2] * min(max(one, other), limits[3] * facing)
    cos = (nx * px + ny * py + nz * z) / (length * sqrt(px * px + py * py + z * z))
    out[10] = max(cos, 0.0)


@kernel()
def _mean_color(depth, rgb, x, y, left, right, top, bottom, out):
    """Mean colour of the pixel and of the others of its cell within 5 % of its depth."""
    surface = depth[y, x]
    red, green, blue = np.float64(rgb[y, x, 0]), np.float64(rgb[y, x, 1]), np.float64(rgb[y, x, 2])
    count = 1
    for j in range(top, bottom):
        for i in range(left, right):
            if (i != x or j != y) and abs(depth[j, i] - surface) <= 0.05 * surface:
                red, green, blue = red + rgb[j, i, 0], green + rgb[j, i, 1], blue + rgb[j, i, 2]
                count += 1
    out[7], out[8], out[9] = red / count, green / count, blue / count
