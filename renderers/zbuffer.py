"""Discs into a z-buffer, and out of it again: the kernels of renderers/surfels.py.

Surfels are drawn in blocks of N: ``_look`` measures all of a block in straight code for vector
units, ``_mark`` offers each to the pixel that its centre falls in, ``_bound`` puts boxes around
those that may reach further, and ``_cover`` offers these to the pixels of their boxes. Arithmetic
is float32, relative to the camera.

More than 400 lines, as kernels call no function of another file (see kernels.py).
"""

from __future__ import annotations

from math import sqrt

import numba
import numpy as np

from renderers.kernels import kernel
from renderers.simd import fetch, larger, load, load_rows, smaller, spread, store

f32, u32, u64 = np.float32, np.uint32, np.uint64
ZERO, HALF, ONE, INFINITY = f32(0.0), f32(0.5), f32(1.0), f32(np.inf)
FAR = f32(1e15)
"""Nothing farther than this is drawn, in metres: float32 cannot hold the squares."""
N = 256
"""Surfels per block: a block and what is known of it stay in the processor's nearest cache."""
PITCH = N + 16
"""From one column of such a block to the next. Multiples of N would share lines of the cache."""
LANES = 8
"""Numbers of a vector of renderers/simd.py."""
STRETCH = f32(1.002)
"""How much a pose may stretch a ball: poses are rigid up to camera.RIGID_TOLERANCE."""
ROUNDING = f32(1e-5)
"""Bound on the rounding of a point in the camera frame, as a share of its distance."""
CLEAR = f32(0.1)
"""Discs that come closer to the plane of the camera may cover any pixel: 1 - (reach / depth)^2."""
MARGIN = f32(0.01)
"""Pixels added around boxes, beside ROUNDING."""
WELL = f32(1.01)
"""Factor on what a ball covers in the image, against rounding."""
WIDE, TALL = 4, 2
"""Pixels that are tested at once: together they fill a vector register."""
PIECE = 32
"""Surfels that are given boxes together, where one of them needs one, and that are skipped
together, where all are out of sight. A block is some of these."""
DONE, REACHES, CROSSES, OPEN = u32(0), u32(1), u32(2), u32(3)
"""What a disc may cover beside the pixel of its centre: nothing, its box, any pixel, not known."""
_DROPPED_BITS = u32(13)  # of a float32 depth: 10 of 23 mantissa bits stay, steps of 0.1 %
NOTHING = u32(0xFFFFFFFF)  # upper half of the key of an empty pixel, or of an offer that missed
_ID_BITS, _ID_MASK = u64(32), u64(0xFFFFFFFF)


@kernel(parallel=True)
def fill(arrays, blocks, view, lens, backs, keys):
    for share in numba.prange(keys.shape[0]):
        fill_share(arrays, blocks, view, lens, backs, np.int64(share), keys)


@kernel()
def fill_share(arrays, blocks, view, lens, backs, share, keys):
    """Draw one block in ``keys.shape[0]`` into the z-buffer of a share."""
    columns, rows, balls, are_sorted = blocks
    shares, stride, own = keys.shape[0], keys.shape[2], keys[share].reshape(-1)
    own[:] = (u64(NOTHING) << _ID_BITS) | _ID_MASK
    scratch = np.empty(12 * PITCH, f32), np.empty(3 * PITCH, u32), np.empty(WIDE * TALL, u32)
    if not are_sorted:
        _sift(arrays, view, lens, backs, share, shares, stride, scratch, own)
    for b in range(share, balls.shape[0], shares):
        x, y, z = _placed(balls[b, 0], balls[b, 1], balls[b, 2], view)
        if _in_sight(x, y, z, balls[b, 3], lens):
            ids = rows[b * N : (b + 1) * N]
            _draw(columns[b], ids, view, lens, backs, stride, scratch, own)


@kernel()
def _sift(arrays, view, lens, backs, share, shares, stride, scratch, keys):
    """Draw what is in sight of every ``shares``-th N of the plain arrays, once a block is full.

    By the PIECE: surfels mostly come in the order of the pixels that they were made from, and a
    piece is looked at, and copied, much faster than its surfels one by one.
    """
    points, _, radii = arrays
    block, ids, ends = np.zeros(7 * N, f32), np.zeros(N, u32), np.empty(7 * LANES, f32)
    filled = 0
    for start in range(share * N, radii.shape[0], shares * N):
        for first in range(start, min(start + N, radii.shape[0]), PIECE):
            count = min(PIECE, radii.shape[0] - first)
            if count < PIECE or _piece_in_sight(points, radii, first, view, lens, ends):
                _copy(arrays, first, count, filled, block, ids)
                filled += count
            if filled == N:
                _draw(block, ids, view, lens, backs, stride, scratch, keys)
                filled = 0
    block[6 * N + filled :] = ZERO
    _draw(block, ids, view, lens, backs, stride, scratch, keys)


@kernel()
def _copy(arrays, first, count, place, block, ids):
    """Put surfels from the plain arrays into a block."""
    points, normals, radii = arrays
    whole = count // LANES * LANES
    for i in range(0, whole, LANES):
        centres = load_rows(points, u64(3 * (first + i)))
        facing = load_rows(normals, u64(3 * (first + i)))
        for axis in range(3):
            store(block, u64(axis * N + place + i), centres[axis])
            store(block, u64((3 + axis) * N + place + i), facing[axis])
        store(block, u64(6 * N + place + i), load(radii, u64(first + i)))
    for i in range(whole, count):
        for axis in range(3):
            block[axis * N + place + i] = points[3 * (first + i) + axis]
            block[(3 + axis) * N + place + i] = normals[3 * (first + i) + axis]
        block[6 * N + place + i] = radii[first + i]
    for i in range(count):
        ids[u64(place + i)] = first + i


@kernel()
def _piece_in_sight(points, radii, first, view, lens, ends):
    """Whether a ball around a whole PIECE is in sight. What is NaN does not count."""
    low_a = low_b = low_c = spread(INFINITY)
    high_a = high_b = high_c = spread(-INFINITY)
    for i in range(3 * first, 3 * (first + PIECE), 3 * LANES):  # in three vectors x, y, z, x, ...
        a, b = load(points, u64(i)), load(points, u64(i + LANES))
        c = load(points, u64(i + 2 * LANES))
        low_a, low_b, low_c = smaller(a, low_a), smaller(b, low_b), smaller(c, low_c)
        high_a, high_b, high_c = larger(a, high_a), larger(b, high_b), larger(c, high_c)
    radius = spread(ZERO)
    for i in range(first, first + PIECE, LANES):
        radius = larger(load(radii, u64(i)), radius)
    found = low_a, low_b, low_c, high_a, high_b, high_c, radius
    for line in range(7):
        store(ends, u64(line * LANES), found[line])
    reach = ZERO
    for lane in range(6 * LANES, 7 * LANES):
        reach = ends[lane] if ends[lane] > reach else reach
    x, wide = _middle(ends, 0)
    y, tall = _middle(ends, 1)
    z, deep = _middle(ends, 2)
    reach = STRETCH * (reach + sqrt(wide * wide + tall * tall + deep * deep))
    reach += ROUNDING * (abs(x) + abs(y) + abs(z))
    x, y, z = _placed(x, y, z, view)
    return not reach < FAR or _in_sight(x, y, z, reach, lens)


@kernel()
def _middle(ends, axis):
    """Middle between the ends of an axis, and how far it is to them."""
    low, high = ends[axis], ends[3 * LANES + axis]
    for i in range(axis + 3, 3 * LANES, 3):
        low = ends[i] if ends[i] < low else low
        high = ends[3 * LANES + i] if ends[3 * LANES + i] > high else high
    return HALF * (low + high), HALF * (high - low)


@kernel()
def _draw(block, ids, view, lens, backs, stride, scratch, keys):
    """Draw a block."""
    discs, spots, offers = scratch
    _look(block, view, lens, backs, stride, u32(keys.shape[0] - 1), discs, spots)
    _mark(spots, ids, keys)
    _bound(discs, spots, lens)
    _cover(discs, spots, ids, lens, stride, offers, keys)


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

    Writes ``spots``, 3 columns: the pixel that the centre falls in, the rank offered there, and
    DONE or OPEN; and ``discs``, 12 columns: centre, normal, radius, factor on depths, and four of
    which two get the column and row of that pixel. :func:`_bound` writes all four: first and last
    column and first and last row that may be covered; and turns OPEN to what the disc may cover.
    """
    fx, fy, cx, cy, ifx, ify, width, height, near, push = lens
    line = np.int32(stride)
    aside, above = max(cx, width - cx) * ifx, max(cy, height - cy) * ify
    wide = WELL * fx * sqrt(ONE + aside * aside)
    tall = WELL * fy * sqrt(ONE + above * above)
    for i in range(N):
        x, y, z = _placed(block[i], block[N + i], block[2 * N + i], view)
        nx, ny, nz = _turned(block[3 * N + i], block[4 * N + i], block[5 * N + i], view)
        radius = block[6 * N + i]
        offset = nx * x + ny * y + nz * z  # negative: the normal points to the camera's side
        back = offset > ZERO
        drawn = (radius > ZERO) & (radius < INFINITY) & (z + radius > near)
        drawn &= ((offset < ZERO) | (back & backs)) & (abs(offset) < INFINITY)
        drawn &= abs(x) + abs(y) + abs(z) < FAR
        factor = push if back else ONE
        u, v = fx * x / z + cx, fy * y / z + cy
        inside = drawn & (z > near) & (u >= ZERO) & (u < width) & (v >= ZERO) & (v < height)
        own_column, own_row = np.int32(u if inside else ZERO), np.int32(v if inside else ZERO)
        column, row = f32(own_column), f32(own_row)
        dx, dy = (column + HALF - cx) * ifx, (row + HALF - cy) * ify
        hit = _meet(x, y, z, nx, ny, nz, radius, dx, dy)
        # a ball around the disc that comes to no other pixel's centre
        share = radius / (z - radius)
        small = (abs(u - column - HALF) + share * wide + MARGIN < ONE) & (z > radius)
        small &= abs(v - row - HALF) + share * tall + MARGIN < ONE
        spots[i] = u32(own_row * line + own_column) if inside else spare
        spots[PITCH + i] = _rank(hit if hit > near else z, factor) if inside else NOTHING
        spots[2 * PITCH + i] = DONE if (not drawn) | (inside & small) else OPEN
        discs[i], discs[PITCH + i], discs[2 * PITCH + i] = x, y, z
        discs[3 * PITCH + i], discs[4 * PITCH + i], discs[5 * PITCH + i] = nx, ny, nz
        discs[6 * PITCH + i], discs[7 * PITCH + i] = radius, factor
        discs[8 * PITCH + i] = column if inside else -INFINITY
        discs[10 * PITCH + i] = row if inside else -INFINITY


@kernel()
def _bound(discs, spots, lens):
    """Put boxes around discs that are OPEN, and find which of these are DONE after all."""
    for start in range(0, N, PIECE):
        open_ones = 0
        for i in range(start, start + PIECE):
            open_ones += np.int32(spots[2 * PITCH + i] == OPEN)
        if not open_ones:
            continue
        for i in range(start, start + PIECE):
            x, y, z, radius = discs[i], discs[PITCH + i], discs[2 * PITCH + i], discs[6 * PITCH + i]
            nx, ny, nz = discs[3 * PITCH + i], discs[4 * PITCH + i], discs[5 * PITCH + i]
            column, row, state = discs[8 * PITCH + i], discs[10 * PITCH + i], spots[2 * PITCH + i]
            left, right, top, bottom, fits = _box(x, y, z, nx, ny, nz, radius, lens)
            done = (left >= column) & (right <= column) & (top >= row) & (bottom <= row)
            done = fits & (done | (left > right) | (top > bottom))
            found = DONE if done else REACHES if fits else CROSSES
            spots[2 * PITCH + i] = found if state == OPEN else state
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
    """Offer each surfel to the pixel that its centre falls in."""
    for i in range(N):
        pixel = u64(spots[i])
        keys[pixel] = min(keys[pixel], (u64(spots[PITCH + i]) << _ID_BITS) | u64(ids[i]))


@kernel()
def _cover(discs, spots, ids, lens, stride, offers, keys):
    """Offer every disc to the pixels of its box that it covers."""
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
                    offers[lane] = _rank(hit, factor) if met else NOTHING
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
def resolve(arrays, view, lens, keys, ids, depth, cos):
    for share in numba.prange(keys.shape[0]):
        resolve_share(arrays, view, lens, keys, np.int64(share), ids, depth, cos)


@kernel()
def resolve_share(arrays, view, lens, keys, share, ids, depth, cos):
    """Smallest key of all shares, and what its surfel looks like in each pixel, unquantised."""
    found = np.empty(7 * PITCH, f32)
    for row in range(share, ids.shape[0], keys.shape[0]):
        for start in range(0, ids.shape[1], N):
            part = slice(start, min(start + N, ids.shape[1]))
            _collect(arrays, keys[:, row, part], ids[row, part], found)
            out = ids[row, part], depth[row, part], cos[row, part]
            _measure(found, view, lens, row, start, out)


@kernel()
def _collect(arrays, keys, ids, found):
    """Which surfel is in front, and its numbers, for a piece of a row of pixels."""
    points, normals, radii = arrays
    for i in range(ids.shape[0]):
        key = keys[0, i]
        for share in range(1, keys.shape[0]):
            key = min(key, keys[share, i])
        ids[i] = -1
        if u32(key >> _ID_BITS) != NOTHING:
            row = key & _ID_MASK
            ids[i] = np.int64(row)
            fetch(points, u64(3) * row)
            fetch(normals, u64(3) * row)
            fetch(radii, row)
    for i in range(ids.shape[0]):
        if ids[i] >= 0:
            row = u64(ids[i])
            for axis in range(3):
                found[axis * PITCH + i] = points[u64(3) * row + u64(axis)]
                found[(3 + axis) * PITCH + i] = normals[u64(3) * row + u64(axis)]
            found[6 * PITCH + i] = radii[row]


@kernel()
def _measure(found, view, lens, row, start, out):
    """Depth and cosine of these surfels in the pixels of ``row`` from column ``start`` on."""
    ids, depth, cos = out
    dy = (f32(row) + HALF - lens[3]) * lens[5]
    for i in range(ids.shape[0]):
        dx = (f32(np.int32(start + i)) + HALF - lens[2]) * lens[4]
        x, y, z = _placed(found[i], found[PITCH + i], found[2 * PITCH + i], view)
        nx, ny, nz = _turned(found[3 * PITCH + i], found[4 * PITCH + i], found[5 * PITCH + i], view)
        hit = _meet(x, y, z, nx, ny, nz, found[6 * PITCH + i], dx, dy)
        there, met = ids[i] >= 0, hit > lens[8]
        rx, ry, rz = (dx, dy, ONE) if met else (x, y, z)
        slope = (nx * rx + ny * ry + nz * rz) / sqrt(rx * rx + ry * ry + rz * rz)
        depth[i] = (hit if met else z) if there else f32(np.nan)
        cos[i] = -slope if there else ZERO
