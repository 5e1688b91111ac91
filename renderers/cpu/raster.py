"""Tile lists to pixels: front-to-back blending (Kerbl et al. 2023, eq. 3).

The pixels of a tile live in one small array, row by row and in a row channel by channel, so that
eight neighbours are one vector. A splat touches only the halves of rows that its box meets and
that are not finished. raster_back.py goes the same way again for gradients.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from renderers.kernels import kernel
from renderers.simd import (
    absolute,
    any_lane,
    both,
    count_up,
    exp2,
    fetch,
    fma,
    load,
    most,
    select,
    smaller,
    spread,
    store,
)

f32 = np.float32
u64 = np.uint64  # an index that cannot be negative needs no check
TILE = 16
"""Edge of a tile, in pixels."""
LANES = 8
"""Pixels per vector."""
BATCH = 32
"""Splats drawn between two looks at what is finished."""
AHEAD = 6
"""Splats by which memory is asked in advance."""
LEFT, RIGHT = 1, 2
"""Halves of a row, as bits."""
CHANNELS = 10
"""Per pixel: transmittance (negative once finished), red, green, blue, depth; for gradients which
member of the tile's list was the last to add to it, and the opacity added up; and for details
median depth, greatest weight, and which member's it is."""
ROW = CHANNELS * TILE
"""Floats per row of a tile."""


@kernel(parallel=True, fast=True)
def rasterise(
    records, starts, members, tiles_x, threads, limits, background, rgb, alpha, depth, traces, front
):
    """Draw every tile.

    Args:
        records: project.RECORD each.
        starts: (t + 1,) as bin.TileLists has them.
        members: (k,) likewise.
        tiles_x: Tiles per row of the image.
        threads: Shares of the work.
        limits: (log2 of the alpha cut, alpha max, transmittance stop, least alpha with a depth,
            transmittance that the median splat is the first to reach).
        background: (3,) sRGB.
        rgb: (h, w, 3), written.
        alpha: (h, w), written.
        depth: (h, w), written, metres.
        traces: (3, h, w), written, or None: transmittance; the place in its tile's list of the
            last splat that added to it, -1 where there is none; and the opacity, added up, which
            keeps its digits where it is faint and 1 less the transmittance does not.
        front: For :class:`renderers.base.Details`, or None: median depth, ids (int64) and weights,
            each (h, w), written.
    """
    height, width = alpha.shape
    for share in prange(threads):
        pixels = np.empty(TILE * ROW, np.float32)
        active = np.empty(TILE, np.int64)
        for tile in range(share, starts.size - 1, threads):
            top, left = tile // tiles_x * TILE, tile % tiles_x * TILE
            _clear(pixels, active, height - top, width - left)
            splats = members[starts[tile] : starts[tile + 1]]
            _blend_tile(records, splats, top, left, limits, pixels, active, traces, front)
            _store(pixels, top, left, limits, background, rgb, alpha, depth)
            if traces is not None:
                _store_traces(pixels, top, left, traces)
            if front is not None:
                _store_front(records, splats, pixels, top, left, limits, front)


@kernel(fast=True)
def _clear(pixels, active, rows, columns):
    """An empty tile. What lies outside the image is finished."""
    pixels[:] = f32(0.0)
    for row in range(TILE):
        active[row] = LEFT | RIGHT if row < rows else 0
        for column in range(TILE):
            inside = row < rows and column < columns
            pixels[u64(row * ROW + column)] = f32(1.0) if inside else f32(-1.0)


@kernel(fast=True)
def _blend_tile(records, splats, top, left, limits, pixels, active, traces, front):
    """Blend the splats of one tile, nearest first, until every pixel is finished."""
    for k in range(splats.size):
        if k % BATCH == 0 and not _any_active(pixels, active):
            break
        fetch(records, u64(splats[min(k + AHEAD, splats.size - 1)]))
        place = None if traces is None else f32(k)
        view = None if front is None else f32(k)
        _blend_splat(records[splats[k]], place, view, top, left, limits, pixels, active)


@kernel(fast=True)
def _blend_splat(splat, place, view, top, left, limits, pixels, active):
    """Blend one splat into the halves of rows that its box meets."""
    x, y, low, high, halves = _span(splat, top, left)
    log_opacity, fade, shear, sharp = splat.log_opacity, splat.fade, splat.shear, splat.sharp
    paint = spread(splat.red), spread(splat.green), spread(splat.blue), spread(splat.depth)
    across_left, across_right = count_up() - x, count_up() - (x - f32(LANES))
    for row in range(low, high + 1):
        at = active[u64(row)] & halves
        v = f32(row) - y
        peak = log_opacity - fade * v * v
        i = u64(row * ROW)
        if at & LEFT:
            u = across_left - shear * v
            _blend(peak - sharp * u * u, paint, place, view, limits, pixels, i)
        if at & RIGHT:
            u = across_right - shear * v
            _blend(peak - sharp * u * u, paint, place, view, limits, pixels, i + u64(LANES))


@kernel(fast=True)
def _span(splat, top, left):
    """Centre from the tile's first pixel; first and last row; halves of rows."""
    x, y = splat.x - (f32(left) + f32(0.5)), splat.y - (f32(top) + f32(0.5))
    low = np.int64(max(np.ceil(y - splat.reach_y), f32(0.0)))
    high = np.int64(min(np.floor(y + splat.reach_y), f32(TILE - 1)))
    halves = LEFT if x - splat.reach_x <= f32(LANES - 1) else 0
    halves |= RIGHT if x + splat.reach_x >= f32(LANES) else 0
    return x, y, low, high, halves


@kernel(fast=True)
def _blend(log_alpha, paint, place, view, limits, pixels, i):
    """Blend one splat into eight pixels: transmittances at ``i``, the channels TILE apart."""
    log_cut, alpha_max, stop, half = limits[0], limits[1], limits[2], limits[4]
    red, green, blue, depth = paint
    before = load(pixels, i)
    weight = before * smaller(exp2(log_alpha), alpha_max)
    weight = select(log_alpha >= log_cut, weight, f32(0.0))
    after = before - weight
    going_on = after > stop  # false for good once the sign has turned
    weight = select(going_on, weight, f32(0.0))
    store(pixels, i, select(going_on, after, f32(0.0) - absolute(before)))
    j = i + u64(TILE)
    store(pixels, j, fma(weight, red, load(pixels, j)))
    j = i + u64(2 * TILE)
    store(pixels, j, fma(weight, green, load(pixels, j)))
    j = i + u64(3 * TILE)
    store(pixels, j, fma(weight, blue, load(pixels, j)))
    j = i + u64(4 * TILE)
    store(pixels, j, fma(weight, depth, load(pixels, j)))
    if place is not None:
        j = i + u64(5 * TILE)
        store(pixels, j, most(load(pixels, j), select(weight > f32(0.0), place, f32(0.0))))
        j = i + u64(6 * TILE)
        store(pixels, j, load(pixels, j) + weight)
    if view is not None:
        j = i + u64(7 * TILE)
        crossing = both(both(before > half, after <= half), going_on)
        store(pixels, j, most(load(pixels, j), select(crossing, depth, f32(0.0))))
        j = i + u64(8 * TILE)
        best = load(pixels, j)
        heavier = weight > best
        store(pixels, j, most(best, weight))
        j = i + u64(9 * TILE)
        store(pixels, j, most(load(pixels, j), select(heavier, view, f32(0.0))))


@kernel(fast=True)
def _store_traces(pixels, top, left, traces):
    """Copy what :func:`_store` leaves behind. A pixel to which nothing was added is clear."""
    rows, columns = min(TILE, traces.shape[1] - top), min(TILE, traces.shape[2] - left)
    for row in range(rows):
        for column in range(columns):
            clear = abs(pixels[row * ROW + column])
            last = pixels[row * ROW + 5 * TILE + column]
            traces[0, top + row, left + column] = clear
            opacity = pixels[row * ROW + 6 * TILE + column]
            traces[1, top + row, left + column] = last if opacity > f32(0.0) else f32(-1.0)
            traces[2, top + row, left + column] = opacity


@kernel(fast=True)
def _any_active(pixels, active):
    """Update which halves of rows still have an unfinished pixel; return whether any has."""
    remaining = 0
    for row in range(TILE):
        if active[row]:
            i = u64(row * ROW)
            at = LEFT if any_lane(load(pixels, i) > f32(0.0)) else 0
            at |= RIGHT if any_lane(load(pixels, i + u64(LANES)) > f32(0.0)) else 0
            active[row] = at
            remaining |= at
    return remaining != 0


@kernel(fast=True)
def _store(pixels, top, left, limits, background, rgb, alpha, depth):
    """Copy a tile to the image, over the background."""
    red, green, blue = background[0], background[1], background[2]
    rows, columns = min(TILE, alpha.shape[0] - top), min(TILE, alpha.shape[1] - left)
    for row in range(rows):
        line = pixels[row * ROW : (row + 1) * ROW]
        y = u64(top + row)
        for column in range(columns):
            x, i = u64(left + column), u64(column)
            clear = abs(line[i])
            opacity = f32(1.0) - clear
            alpha[y, x] = opacity
            shown = line[i + u64(4 * TILE)] / opacity
            depth[y, x] = shown if opacity > limits[3] else f32(np.nan)
            rgb[y, x, 0] = line[i + u64(TILE)] + clear * red
            rgb[y, x, 1] = line[i + u64(2 * TILE)] + clear * green
            rgb[y, x, 2] = line[i + u64(3 * TILE)] + clear * blue


@kernel(fast=True)
def _store_front(records, splats, pixels, top, left, limits, front):
    """Copy a tile to the maps of what is in front."""
    median, ids, weights = front
    rows, columns = min(TILE, ids.shape[0] - top), min(TILE, ids.shape[1] - left)
    for row in range(rows):
        line = pixels[row * ROW : (row + 1) * ROW]
        for column in range(columns):
            y, x = top + row, left + column
            crossed = abs(line[column]) <= limits[4]
            median[y, x] = line[7 * TILE + column] if crossed else f32(np.nan)
            weights[y, x] = line[8 * TILE + column]
            ids[y, x] = -1
            if weights[y, x] > f32(0.0):
                ids[y, x] = records[splats[np.int64(line[9 * TILE + column])]].row
