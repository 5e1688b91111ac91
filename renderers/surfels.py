"""Z-buffer of surfels, oriented discs on surfaces: which one each pixel shows, and how squarely.

Exact where a disc is larger than a pixel (the ray of the pixel's centre is intersected with the
disc); a disc that slips between the centres still marks the pixel that its own centre falls in.
The answer does not depend on the number of threads: a pixel keeps the smallest of its keys
(depth, side, id), and the smallest of several smallest keys is the same however they were shared.

Surfels are drawn in blocks of N: ``_look`` measures all of a block in straight code for vector
units, ``_mark`` offers each to the pixel that its centre falls in, and ``_cover`` offers those
that may reach further to the box around them. Arithmetic is float32, relative to the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

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

f32, u32, u64 = np.float32, np.uint32, np.uint64
ZERO, HALF, ONE, INFINITY = f32(0.0), f32(0.5), f32(1.0), f32(np.inf)
FAR = f32(1e15)
"""Nothing farther than this is drawn, and no radius is larger, in metres: float32 has squares."""
N = 256
"""Surfels per block: a block and what is known of it stay in the processor's nearest cache."""
PITCH = N + 16
"""From one column of such a block to the next. Multiples of N would share lines of the cache."""
ROUNDING = f32(1e-5)
"""Bound on the rounding of a point in the camera frame, as a share of its distance."""
POSE_SLACK = 1.002
"""How much a pose may stretch a ball: poses are rigid up to camera.RIGID_TOLERANCE."""
CLEAR = f32(0.1)
"""Discs that come closer to the plane of the camera may cover any pixel: 1 - (reach / depth)^2."""
MARGIN = f32(0.01)
"""Pixels added around boxes, beside ROUNDING."""
WIDE, TALL = 4, 2
"""Pixels that are tested at once: together they fill a vector register."""
DONE, REACHES, CROSSES = u32(0), u32(1), u32(2)
"""What a disc may cover beside the pixel of its centre: nothing, its box, any pixel."""
_DROPPED_BITS = u32(13)  # of a float32 depth: 10 of 23 mantissa bits stay, steps of 0.1 %
_NOTHING = u32(0xFFFFFFFF)  # upper half of the key of an empty pixel, or of an offer that missed
_ID_BITS, _ID_MASK = u64(32), u64(0xFFFFFFFF)


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


class SurfelScene:
    """A copy of surfels, sorted so that whole blocks out of sight are skipped.

    Worth it from about twenty maps on: preparing takes as long as drawing those. The maps are the
    same as those of :func:`render_surfels`, bit by bit.
    """

    def __init__(
        self,
        points: Float[Tensor, "n 3"],
        normals: Float[Tensor, "n 3"],
        radii: Float[Tensor, " n"],
    ) -> None:
        """Copy and sort surfels; arguments and errors as for :func:`render_surfels`."""
        self._arrays = tuple(array.copy() for array in _plain(points, normals, radii))
        self._blocks = _pack(*self._arrays)

    def __len__(self) -> int:
        return len(self._arrays[2])

    def render(self, camera: Camera, *, backs: bool = False) -> SurfelMap:
        """Draw the surfels as they were when the scene was made. See :func:`render_surfels`."""
        return _render(self._arrays, self._blocks, True, camera, backs)


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
    no_blocks = np.empty((0, 7 * N), f32), np.empty(0, u32), np.empty((0, 4), f32)
    return _render(_plain(points, normals, radii), no_blocks, False, camera, backs)


def _plain(points: Tensor, normals: Tensor, radii: Tensor) -> tuple[np.ndarray, ...]:
    """The arrays in float32, all numbers of each in a row."""
    check_shapes(_Discs(points, normals, radii), points=("n", 3), normals=("n", 3), radii=("n",))
    return tuple(v.detach().cpu().float().numpy().reshape(-1) for v in (points, normals, radii))


def _pack(points: np.ndarray, normals: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, ...]:
    """Blocks of neighbours, without what can never be drawn.

    Returns:
        Blocks (b, 7 * N): centres, normals and radii, a column's N numbers side by side; the row
        of each surfel in them (b * N); and a ball around each block: centre and radius (b, 4).
        What fills up the last block has no radius.
    """
    table = np.concatenate([points.reshape(-1, 3), normals.reshape(-1, 3), radii[:, None]], 1)
    rows = np.flatnonzero(np.isfinite(table).all(1) & (radii > 0.0))
    rows = rows[np.argsort(_along_curve(table[rows, :3]))]
    filler = -len(rows) % N
    rows = np.concatenate([rows, rows[:1].repeat(filler)]).astype(u32)
    table = table[rows]
    table[len(rows) - filler :, 6] = 0.0
    columns = table.reshape(-1, N, 7).transpose(0, 2, 1)
    centres = columns[:, :3].astype(np.float64)
    middle = 0.5 * (centres.min(2) + centres.max(2))
    reach = np.sqrt(((centres - middle[:, :, None]) ** 2).sum(1)) + columns[:, 6]
    reach = POSE_SLACK * reach.max(1) + ROUNDING * np.abs(middle).max(1)
    balls = np.column_stack([middle, reach])
    balls[balls[:, 3] > FAR] = 0.0, 0.0, 0.0, np.inf  # never skipped
    balls = balls.astype(f32)
    return np.ascontiguousarray(columns).reshape(-1, 7 * N), rows, balls


def _along_curve(points: np.ndarray) -> np.ndarray:
    """(n,) places of (n, 3) points along a curve that keeps neighbours together (Morton 1966)."""
    steps = np.arange(1024, dtype=u32)  # per axis
    spread = sum(((steps >> u32(bit)) & u32(1)) << u32(3 * bit) for bit in range(10))
    places = np.zeros(len(points), u32)
    for axis in range(3):
        column = points[:, axis].astype(np.float64)
        low, high = column.min(initial=np.inf), column.max(initial=-np.inf)
        cells = (column - low) * (1023.0 / max(high - low, 1e-30))
        places |= np.asarray(spread)[cells.astype(np.int64)] << u32(axis)
    return places


def _render(
    arrays: tuple[np.ndarray, ...],
    blocks: tuple[np.ndarray, ...],
    packed: bool,
    camera: Camera,
    backs: bool,
) -> SurfelMap:
    view, lens = _view(camera), _lens(camera)
    shape = (camera.height, camera.width)
    ids, depth, cos = np.empty(shape, np.int64), np.empty(shape, f32), np.empty(shape, f32)
    # Spare pixels below and to the right take what is offered beyond the edges. Rows take an odd
    # number of cache lines, or pixels above each other would be in each other's way.
    room = (camera.height + TALL, 8 * ((camera.width + WIDE + 7) // 8 | 1))
    if len(arrays[2]) < MIN_PARALLEL:
        keys = np.empty((1, *room), u64)
        _fill_share(*arrays, *blocks, packed, view, lens, backs, 0, keys)
        _resolve_share(*arrays, view, lens, keys, 0, ids, depth, cos)
    else:
        with RENDER_LOCK:
            keys = np.empty((min(numba.get_num_threads(), MAX_SHARES), *room), u64)
            _fill(*arrays, *blocks, packed, view, lens, backs, keys)
            _resolve(*arrays, view, lens, keys, ids, depth, cos)
    return SurfelMap(torch.from_numpy(ids), torch.from_numpy(depth), torch.from_numpy(cos))


def _view(camera: Camera) -> tuple[np.float32, ...]:
    """Rotation (9), centre of the camera (3), and what rounding took from the centre (3)."""
    pose = camera.cam_from_world.detach().cpu().double().numpy()[:3]
    eye = -np.linalg.solve(pose[:, :3], pose[:, 3])  # exact also for a slightly skewed pose
    return tuple(f32(value) for value in (*pose[:, :3].flat, *eye, *(eye - eye.astype(f32))))


def _lens(camera: Camera) -> tuple[np.float32, ...]:
    """Focal lengths, principal point, inverse focal lengths, size, NEAR, factor on backs."""
    k = camera.px_from_cam.detach().cpu().double().numpy()
    pinhole = (k[0, 0], k[1, 1], k[0, 2], k[1, 2], 1.0 / k[0, 0], 1.0 / k[1, 1])
    lens = (*pinhole, camera.width, camera.height, NEAR, 1.0 + BACK_SLACK)
    return tuple(f32(value) for value in lens)


@kernel(parallel=True)
def _fill(points, normals, radii, blocks, rows, balls, packed, view, lens, backs, keys):
    for s in numba.prange(keys.shape[0]):
        _fill_share(points, normals, radii, blocks, rows, balls, packed, view, lens, backs, s, keys)


@kernel()
def _fill_share(
    points, normals, radii, blocks, rows, balls, packed, view, lens, backs, share, keys
):  # fmt: skip
    """Draw one block in ``keys.shape[0]`` into the z-buffer of a share."""
    stride, own = keys.shape[2], keys[share].reshape(-1)
    own[:] = (u64(_NOTHING) << _ID_BITS) | _ID_MASK
    spare = u32(own.shape[0] - 1)
    block, ids, offers = np.empty(7 * N, f32), np.empty(N, u32), np.empty(WIDE * TALL, u32)
    discs, spots = np.empty(12 * PITCH, f32), np.empty(3 * PITCH, u32)
    count = balls.shape[0] if packed else (radii.shape[0] + N - 1) // N
    for b in range(share, count, keys.shape[0]):
        if packed:
            x, y, z = _placed(balls[b, 0], balls[b, 1], balls[b, 2], view)
            if not _in_sight(x, y, z, balls[b, 3], lens):
                continue
            block, ids = blocks[b], rows[b * N : (b + 1) * N]
        elif not _load(points, normals, radii, b * N, view, lens, block, ids):
            continue
        _look(block, view, lens, backs, stride, spare, discs, spots)
        _mark(spots, ids, own)
        _cover(discs, spots, ids, lens, stride, offers, own)


@kernel()
def _load(points, normals, radii, start, view, lens, block, ids):
    """Fill a block from plain arrays; False, without normals, where nothing of it is in sight."""
    stop = min(N, radii.shape[0] - start)
    points, normals = points[3 * start : 3 * (start + stop)], normals[3 * start :]
    radii = radii[start : start + stop]
    for i in range(stop):
        for axis in range(3):
            block[axis * N + i] = points[3 * i + axis]
        block[6 * N + i] = radii[i]
    block[6 * N + stop : 7 * N] = ZERO
    seen = 0
    for i in range(N):
        x, y, z = _placed(block[i], block[N + i], block[2 * N + i], view)
        seen += np.int32(_in_sight(x, y, z, block[6 * N + i], lens))
    if seen > 0:
        for i in range(stop):
            for axis in range(3):
                block[(3 + axis) * N + i] = normals[3 * i + axis]
        ids[:] = np.arange(start, start + N)
    return seen > 0


@kernel()
def _placed(x, y, z, view):
    """A point of the world in the camera frame."""
    return _turned(x - view[9] - view[12], y - view[10] - view[13], z - view[11] - view[14], view)


@kernel()
def _turned(x, y, z, view):
    """A direction of the world in the camera frame."""
    return (
        view[0] * x + view[1] * y + view[2] * z,
        view[3] * x + view[4] * y + view[5] * z,
        view[6] * x + view[7] * y + view[8] * z,
    )


@kernel()
def _in_sight(x, y, z, radius, lens):
    """Whether a ball reaches beyond NEAR and is not wholly outside one edge of the image."""
    fx, fy, left, top, _, _, width, height, near, _ = lens
    right, bottom = width - left, height - top
    radius += ROUNDING * (abs(x) + abs(y) + abs(z)) if radius > ZERO else -INFINITY
    seen = (z + radius > near) & (-fx * x - left * z <= radius * (fx + abs(left)))
    seen &= fx * x - right * z <= radius * (fx + abs(right))
    seen &= -fy * y - top * z <= radius * (fy + abs(top))
    return seen & (fy * y - bottom * z <= radius * (fy + abs(bottom)))


@kernel()
def _look(block, view, lens, backs, stride, spare, discs, spots):
    """Measure a block.

    Args:
        spots: Written, 3 columns: the pixel that the centre falls in, the rank offered there, and
            DONE or REACHES.
        discs: Written, 12 columns: centre, normal, radius, factor on the depth, and the first and
            last column and row whose pixels it may cover.
    """
    fx, fy, cx, cy, ifx, ify, width, height, near, push = lens
    line = np.int32(stride)
    for i in range(N):
        x, y, z = _placed(block[i], block[N + i], block[2 * N + i], view)
        nx, ny, nz = _turned(block[3 * N + i], block[4 * N + i], block[5 * N + i], view)
        radius = min(block[6 * N + i], FAR)
        offset = nx * x + ny * y + nz * z  # negative: the normal points to the camera's side
        back = offset > ZERO
        drawn = (radius > ZERO) & (block[6 * N + i] < INFINITY) & (z + radius > near)
        drawn &= ((offset < ZERO) | (back & backs)) & (abs(offset) < INFINITY)
        drawn &= abs(x) + abs(y) + abs(z) < FAR
        factor = push if back else ONE
        u, v = fx * x / z + cx, fy * y / z + cy
        inside = drawn & (z > near) & (u >= ZERO) & (u < width) & (v >= ZERO) & (v < height)
        own_column, own_row = np.int32(u if inside else ZERO), np.int32(v if inside else ZERO)
        column, row = f32(own_column), f32(own_row)
        dx, dy = (column + HALF - cx) * ifx, (row + HALF - cy) * ify
        hit = _meet(x, y, z, nx, ny, nz, radius, dx, dy)
        left, right, top, bottom, fits = _box(x, y, z, nx, ny, nz, radius, lens)
        done = inside & (left >= column) & (right <= column) & (top >= row) & (bottom <= row)
        done = fits & (done | (left > right) | (top > bottom))
        spots[i] = u32(own_row * line + own_column) if inside else spare
        spots[PITCH + i] = _rank(hit if hit > near else z, factor) if inside else _NOTHING
        spots[2 * PITCH + i] = DONE if (not drawn) | done else REACHES if fits else CROSSES
        discs[i], discs[PITCH + i], discs[2 * PITCH + i] = x, y, z
        discs[3 * PITCH + i], discs[4 * PITCH + i], discs[5 * PITCH + i] = nx, ny, nz
        discs[6 * PITCH + i], discs[7 * PITCH + i] = radius, factor
        discs[8 * PITCH + i], discs[9 * PITCH + i] = left, right
        discs[10 * PITCH + i], discs[11 * PITCH + i] = top, bottom


@kernel()
def _meet(x, y, z, nx, ny, nz, radius, dx, dy):
    """Depth at which the ray (dx, dy, 1) meets the disc; -1 where it misses.

    All is measured from the point of the ray at the depth of the disc's centre: these numbers are
    as small as the disc, and lose no digits.
    """
    slope = nx * dx + ny * dy + nz
    px, py = x - dx * z, y - dy * z
    ez = nx * px + ny * py
    # The meeting point minus the centre, times the slope.
    ex, ey = ez * dx - slope * px, ez * dy - slope * py
    reach = (radius * slope) * (radius * slope)
    met = (ex * ex + ey * ey + ez * ez <= reach) & (reach > ZERO)
    return z + ez / slope if met else -ONE


@kernel()
def _rank(depth, factor):
    """Upper half of a key: the quantised depth, then the side."""
    bits = f32(depth * factor).view(np.uint32) >> _DROPPED_BITS
    return (bits << u32(1)) | u32(factor > ONE)


@kernel(fast=True)  # the margin takes up what rounding gives
def _box(x, y, z, nx, ny, nz, radius, lens):
    """First and last column and row whose centres a disc may cover, and whether that holds.

    The edges are where planes through the camera touch the disc: roots of a quadratic in u or v
    whose coefficients are those of the disc's dual conic (Hartley & Zisserman 2004, 2.2.3).
    """
    fx, fy, cx, cy, _, _, width, height, _, _ = lens
    xx, yy, zz, rr = nx * nx, ny * ny, z * z, radius * radius
    length = xx + yy + nz * nz
    below = length * zz - rr * (xx + yy)
    in_x, in_y = x * nx + z * nz, y * ny + z * nz
    half_u = radius * sqrt(max(ZERO, length * (in_x * in_x + yy * (x * x + zz - rr))))
    half_v = radius * sqrt(max(ZERO, length * (in_y * in_y + xx * (y * y + zz - rr))))
    mid_u, mid_v = length * x * z + rr * nx * nz, length * y * z + rr * ny * nz
    mid_u, half_u = fx * mid_u / below, fx * half_u / below
    mid_v, half_v = fy * mid_v / below, fy * half_v / below
    reach_u = half_u + MARGIN + ROUNDING * (abs(mid_u) + half_u)
    reach_v = half_v + MARGIN + ROUNDING * (abs(mid_v) + half_v)
    columns = _first(cx + mid_u - reach_u, width), _last(cx + mid_u + reach_u, width)
    rows = _first(cy + mid_v - reach_v, height), _last(cy + mid_v + reach_v, height)
    return *columns, *rows, (z > ZERO) & (below > CLEAR * length * zz)


@kernel()
def _first(edge, size):
    """First pixel whose centre is not before ``edge``."""
    return np.ceil(min(max(edge - HALF, ZERO), size))


@kernel()
def _last(edge, size):
    return np.floor(min(max(edge - HALF, -ONE), size - ONE))


@kernel()
def _mark(spots, ids, keys):
    for i in range(N):
        pixel = u64(spots[i])
        keys[pixel] = min(keys[pixel], (u64(spots[PITCH + i]) << _ID_BITS) | u64(ids[i]))


@kernel()
def _cover(discs, spots, ids, lens, stride, offers, keys):
    for i in range(N):
        if spots[2 * PITCH + i] == DONE:
            continue
        x, y, z, radius = discs[i], discs[PITCH + i], discs[2 * PITCH + i], discs[6 * PITCH + i]
        nx, ny, nz = discs[3 * PITCH + i], discs[4 * PITCH + i], discs[5 * PITCH + i]
        if spots[2 * PITCH + i] == CROSSES:
            if not _in_sight(x, y, z, radius, lens):
                continue
            discs[8 * PITCH + i], discs[9 * PITCH + i] = ZERO, lens[6] - ONE
            discs[10 * PITCH + i], discs[11 * PITCH + i] = ZERO, lens[7] - ONE
        factor, right, bottom = discs[7 * PITCH + i], discs[9 * PITCH + i], discs[11 * PITCH + i]
        row, surfel = discs[10 * PITCH + i], u64(ids[i])
        while row <= bottom:
            column = discs[8 * PITCH + i]
            while column <= right:
                for lane in range(WIDE * TALL):
                    u, v = column + f32(lane & (WIDE - 1)), row + f32(lane >= WIDE)
                    dx, dy = (u + HALF - lens[2]) * lens[4], (v + HALF - lens[3]) * lens[5]
                    hit = _meet(x, y, z, nx, ny, nz, radius, dx, dy)
                    met = (hit > lens[8]) & (u <= right) & (v <= bottom)
                    offers[lane] = _rank(hit, factor) if met else _NOTHING
                pixel = np.int64(row) * stride + np.int64(column)
                for lane in range(WIDE):
                    key = (u64(offers[lane]) << _ID_BITS) | surfel
                    keys[u64(pixel + lane)] = min(keys[u64(pixel + lane)], key)
                if row < bottom:
                    pixel += stride
                    for lane in range(WIDE):
                        key = (u64(offers[WIDE + lane]) << _ID_BITS) | surfel
                        keys[u64(pixel + lane)] = min(keys[u64(pixel + lane)], key)
                column += f32(WIDE)
            row += f32(TALL)


@kernel(parallel=True)
def _resolve(points, normals, radii, view, lens, keys, ids, depth, cos):
    for share in numba.prange(keys.shape[0]):
        _resolve_share(points, normals, radii, view, lens, keys, share, ids, depth, cos)


@kernel()
def _resolve_share(points, normals, radii, view, lens, keys, share, ids, depth, cos):
    """Smallest key of all shares, and what its surfel looks like in each pixel, unquantised."""
    found = np.empty(7 * PITCH, f32)
    for row in range(share, ids.shape[0], keys.shape[0]):
        for start in range(0, ids.shape[1], N):
            part = slice(start, min(start + N, ids.shape[1]))
            _collect(points, normals, radii, keys[:, row, part], ids[row, part], found)
            _measure(
                found, view, lens, row, start, ids[row, part], depth[row, part], cos[row, part]
            )


@kernel()
def _collect(points, normals, radii, keys, ids, found):
    for i in range(ids.shape[0]):
        key = keys[0, i]
        for share in range(1, keys.shape[0]):
            key = min(key, keys[share, i])
        ids[i] = -1
        if u32(key >> _ID_BITS) != _NOTHING:
            row = key & _ID_MASK
            ids[i] = np.int64(row)
            for axis in range(3):
                found[axis * PITCH + i] = points[u64(3) * row + u64(axis)]
                found[(3 + axis) * PITCH + i] = normals[u64(3) * row + u64(axis)]
            found[6 * PITCH + i] = radii[row]


@kernel()
def _measure(found, view, lens, row, start, ids, depth, cos):
    dy = (f32(row) + HALF - lens[3]) * lens[5]
    for i in range(ids.shape[0]):
        dx = (f32(np.int32(start + i)) + HALF - lens[2]) * lens[4]
        x, y, z = _placed(found[i], found[PITCH + i], found[2 * PITCH + i], view)
        nx, ny, nz = _turned(found[3 * PITCH + i], found[4 * PITCH + i], found[5 * PITCH + i], view)
        hit = _meet(x, y, z, nx, ny, nz, min(found[6 * PITCH + i], FAR), dx, dy)
        there, met = ids[i] >= 0, hit > lens[8]
        rx, ry, rz = (dx, dy, ONE) if met else (x, y, z)
        slope = (nx * rx + ny * ry + nz * rz) / sqrt(rx * rx + ry * ry + rz * rz)
        depth[i] = (hit if met else z) if there else f32(np.nan)
        cos[i] = -slope if there else ZERO
