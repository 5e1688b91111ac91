"""Z-buffer of surfels, oriented discs on surfaces: which one each pixel shows, and how squarely.

Exact where a disc is larger than a pixel (the ray of the pixel's centre is intersected with the
disc); a disc that slips between the centres still marks the pixel that its own centre falls in.
The answer does not depend on the number of threads: a pixel keeps the smallest of its keys
(depth, side, id), and the smallest of several smallest keys is the same however they were shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, sqrt

import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from renderers.camera import Camera
from renderers.errors import check_shapes
from renderers.kernels import RENDER_LOCK, kernel

NEAR = 0.01
"""Nothing nearer than this is drawn, in metres."""
BACK_SLACK = 0.02
"""Share of its depth by which a disc seen from behind yields to discs seen from the front."""
MIN_PARALLEL = 200_000
"""Fewer surfels than this are drawn by the calling thread: waking others would take longer."""
MAX_SHARES = 8
"""Z-buffers filled side by side at most: each thread has its own, and they cost memory."""

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)
_ID_BITS = np.uint64(32)
_ID_MASK = np.uint64(0xFFFFFFFF)
_DROPPED_BITS = np.uint64(13)  # of a float32 depth: 10 of 23 mantissa bits stay, steps of 0.1 %
_ONE = np.uint64(1)


@dataclass(frozen=True, eq=False)
class SurfelMap:
    """What a camera sees of a set of surfels, one entry per pixel."""

    ids: Int64[Tensor, "h w"]
    """Row of the surfel in front; -1 where there is none."""
    depth: Float32[Tensor, "h w"]
    """z in the camera frame where the ray meets the surfel, in metres; NaN where there is none."""
    cos: Float32[Tensor, "h w"]
    """Cosine between ray and surfel normal: 1 seen squarely, towards 0 at a grazing angle,
    negative from behind, 0 where there is none."""

    def __post_init__(self) -> None:
        check_shapes(self, ids=("h", "w"), depth=("h", "w"), cos=("h", "w"))


@dataclass(frozen=True, eq=False)
class _Discs:
    """Carrier for the shape check."""

    points: Tensor
    normals: Tensor
    radii: Tensor


def render_surfels(
    points: Float[Tensor, "n 3"],
    normals: Float[Tensor, "n 3"],
    radii: Float[Tensor, " n"],
    camera: Camera,
    *,
    backs: bool = False,
) -> SurfelMap:
    """Draw surfels into a z-buffer.

    Depths within 0.1 % of each other tie, and the surfel with the lower row wins. Surfels with
    NaN or infinity in them, or without a positive radius, are not drawn.

    Args:
        points: Centres in the world, in metres.
        normals: Unit normals in the world, pointing out of the surface.
        radii: Radii, in metres.
        camera: The view.
        backs: Also draw surfels seen from behind, as blockers: what nobody has seen from this
            side still hides what lies behind it. They yield to fronts within BACK_SLACK.

    Returns:
        Ids, depths and cosines on the camera's pixel grid.

    Raises:
        SceneError: The arrays disagree in length or have another shape.

    Safe to call from several Python threads. Not differentiable.
    """
    check_shapes(_Discs(points, normals, radii), points=("n", 3), normals=("n", 3), radii=("n",))
    p, n, r = (_plain(values) for values in (points, normals, radii))
    pose = np.ascontiguousarray(camera.cam_from_world.detach().cpu().double().numpy()[:3])
    k = camera.px_from_cam.detach().cpu().double().numpy()
    lens = np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2], 1.0 / k[0, 0], 1.0 / k[1, 1]])
    shape = (camera.height, camera.width)
    ids, depth = np.empty(shape, np.int64), np.empty(shape, np.float32)
    cos = np.empty(shape, np.float32)
    if len(p) < MIN_PARALLEL:
        keys = np.empty((1, *shape), np.uint64)
        _fill_share(p, n, r, pose, lens, NEAR, BACK_SLACK, backs, 0, keys)
        _resolve_alone(p, n, r, pose, lens, NEAR, keys, ids, depth, cos)
    else:
        with RENDER_LOCK:
            keys = np.empty((min(numba.get_num_threads(), MAX_SHARES), *shape), np.uint64)
            _fill(p, n, r, pose, lens, NEAR, BACK_SLACK, backs, keys)
            _resolve(p, n, r, pose, lens, NEAR, keys, ids, depth, cos)
    return SurfelMap(torch.from_numpy(ids), torch.from_numpy(depth), torch.from_numpy(cos))


def _plain(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().float().numpy())


@kernel()
def _fill_share(points, normals, radii, pose, lens, near, slack, backs, share, keys):
    """Draw one share of the surfels, of ``keys.shape[0]``, into its own z-buffer."""
    shares, count = keys.shape[0], points.shape[0]
    own = keys[share]
    own[:] = _EMPTY
    for i in range(share * count // shares, (share + 1) * count // shares):
        _draw(points, normals, radii, i, pose, lens, near, slack, backs, own)


@kernel(parallel=True)
def _fill(points, normals, radii, pose, lens, near, slack, backs, keys):
    for share in numba.prange(keys.shape[0]):
        _fill_share(points, normals, radii, pose, lens, near, slack, backs, share, keys)


@kernel()
def _draw(points, normals, radii, i, pose, lens, near, slack, backs, keys):
    """Offer surfel ``i`` to every pixel it covers."""
    x, y, z = _moved(points, i, pose, 1.0)
    radius = np.float64(radii[i])
    height, width = keys.shape
    if not (radius > 0.0 and np.isfinite(radius) and z + radius > near):
        return
    if _beyond_edges(x, y, z, radius, lens, width, height):
        return
    nx, ny, nz = _moved(normals, i, pose, 0.0)
    offset = nx * x + ny * y + nz * z  # negative: the normal points to the camera's side
    if not (offset < 0.0 or (offset > 0.0 and backs)) or not np.isfinite(offset):
        return
    reach_z = radius * sqrt(max(0.0, 1.0 - nz * nz))
    if z + reach_z <= near:
        return
    nearest, farthest = 1.0 / max(z - reach_z, near), 1.0 / (z + reach_z)
    side = _ONE if offset > 0.0 else np.uint64(0)
    push = 1.0 + slack if offset > 0.0 else 1.0
    reach_x = radius * sqrt(max(0.0, 1.0 - nx * nx))
    left, right = _span(x, reach_x, nearest, farthest, lens[0], lens[2], width)
    reach_y = radius * sqrt(max(0.0, 1.0 - ny * ny))
    top, bottom = _span(y, reach_y, nearest, farthest, lens[1], lens[3], height)
    own_row, own_column = _own_pixel(x, y, z, near, lens, height, width)
    for row in range(top, bottom + 1):
        dy = (row + 0.5 - lens[3]) * lens[5]
        for column in range(left, right + 1):
            dx = (column + 0.5 - lens[2]) * lens[4]
            hit = _meet(x, y, z, nx, ny, nz, offset, radius, dx, dy)
            if hit > near:
                _offer(keys, row, column, hit * push, side, i)
                if row == own_row and column == own_column:
                    own_row = -1  # no need for the fallback
    if own_row >= 0:
        _offer(keys, own_row, own_column, z * push, side, i)


@kernel()
def _beyond_edges(x, y, z, radius, lens, width, height):
    """Whether a ball lies outside one of the four planes through the edges of the image."""
    fx, fy, left, top = lens[0], lens[1], lens[2], lens[3]
    right, bottom = width - left, height - top
    return (
        -fx * x - left * z > radius * (fx + abs(left))
        or fx * x - right * z > radius * (fx + abs(right))
        or -fy * y - top * z > radius * (fy + abs(top))
        or fy * y - bottom * z > radius * (fy + abs(bottom))
    )


@kernel()
def _own_pixel(x, y, z, near, lens, height, width):
    """The pixel that the centre of a surfel falls in; (-1, -1) outside the image."""
    if z > near:
        u, v = lens[0] * x / z + lens[2], lens[1] * y / z + lens[3]
        if 0.0 <= u < width and 0.0 <= v < height:
            return int(v), int(u)
    return -1, -1


@kernel()
def _moved(vectors, i, pose, one):
    """Row ``i`` in the camera frame: a point where ``one`` is 1, a direction where it is 0."""
    a, b, c = np.float64(vectors[i, 0]), np.float64(vectors[i, 1]), np.float64(vectors[i, 2])
    return (
        pose[0, 0] * a + pose[0, 1] * b + pose[0, 2] * c + pose[0, 3] * one,
        pose[1, 0] * a + pose[1, 1] * b + pose[1, 2] * c + pose[1, 3] * one,
        pose[2, 0] * a + pose[2, 1] * b + pose[2, 2] * c + pose[2, 3] * one,
    )


@kernel()
def _span(middle, reach, nearest, farthest, focal, centre, size):
    """First and last pixel whose centre may see the interval ``middle +- reach``.

    ``nearest`` and ``farthest`` are 1 / z of the ends of the disc.
    """
    low, high = middle - reach, middle + reach
    first = focal * low * (nearest if low < 0.0 else farthest) + centre - 1e-6
    last = focal * high * (nearest if high > 0.0 else farthest) + centre + 1e-6
    if first > size or last < 0.0:
        return 0, -1
    first, last = max(first, 0.0), min(last, np.float64(size))
    return ceil(first - 0.5), min(floor(last - 0.5), size - 1)


@kernel()
def _meet(x, y, z, nx, ny, nz, offset, radius, dx, dy):
    """Depth at which the ray (dx, dy, 1) meets the disc; -1 where it misses."""
    slope = nx * dx + ny * dy + nz
    if slope * offset <= 0.0:  # parallel, or behind the camera
        return -1.0
    # The meeting point minus the centre, times the slope: misses, most of all, cost no division.
    ex, ey, ez = offset * dx - slope * x, offset * dy - slope * y, offset - slope * z
    reach = radius * slope
    return offset / slope if ex * ex + ey * ey + ez * ez <= reach * reach else -1.0


@kernel()
def _offer(keys, row, column, depth, side, i):
    bits = np.uint64(np.float32(depth).view(np.uint32)) >> _DROPPED_BITS
    key = (((bits << _ONE) | side) << _ID_BITS) | np.uint64(i)
    if key < keys[row, column]:
        keys[row, column] = key


@kernel(parallel=True)
def _resolve(points, normals, radii, pose, lens, near, keys, ids, depth, cos):
    for row in numba.prange(ids.shape[0]):
        _resolve_row(points, normals, radii, pose, lens, near, row, keys, ids, depth, cos)


@kernel()
def _resolve_alone(points, normals, radii, pose, lens, near, keys, ids, depth, cos):
    for row in range(ids.shape[0]):
        _resolve_row(points, normals, radii, pose, lens, near, row, keys, ids, depth, cos)


@kernel()
def _resolve_row(points, normals, radii, pose, lens, near, row, keys, ids, depth, cos):
    """Smallest key of all shares, and what its surfel looks like in each pixel, unquantised."""
    dy = (row + 0.5 - lens[3]) * lens[5]
    for column in range(ids.shape[1]):
        key = keys[0, row, column]
        for share in range(1, keys.shape[0]):
            key = min(key, keys[share, row, column])
        if key == _EMPTY:
            ids[row, column], depth[row, column], cos[row, column] = -1, np.nan, 0.0
            continue
        i = np.int64(key & _ID_MASK)
        dx = (column + 0.5 - lens[2]) * lens[4]
        x, y, z = _moved(points, i, pose, 1.0)
        nx, ny, nz = _moved(normals, i, pose, 0.0)
        offset = nx * x + ny * y + nz * z
        hit = _meet(x, y, z, nx, ny, nz, offset, np.float64(radii[i]), dx, dy)
        if hit > near:
            slope = (nx * dx + ny * dy + nz) / sqrt(dx * dx + dy * dy + 1.0)
        else:
            hit, slope = z, offset / sqrt(x * x + y * y + z * z)
        ids[row, column], depth[row, column], cos[row, column] = i, hit, -slope
