"""Tile lists to pixels: front-to-back blending (Kerbl et al. 2023, eq. 3).

The pixels of a tile live in one small array, in squares of four by four pixels, each one vector
per channel: the box of a small splat meets few squares. A splat touches only those that its box
meets and that are not finished. raster_back.py goes the same way again for gradients.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from renderers.kernels import kernel
from renderers.simd import (
    absolute,
    aligned,
    any_lane,
    both,
    exp2,
    fetch,
    fma,
    load16,
    most,
    select,
    smaller,
    spread16,
    square_columns,
    square_rows,
    store,
)

f32 = np.float32
u64 = np.uint64  # an index that cannot be negative needs no check
TILE = 16
"""Edge of a tile, in pixels."""
EDGE = 4
"""Edge of a square, in pixels."""
LANES = EDGE * EDGE
"""Pixels per vector."""
ACROSS = TILE // EDGE
"""Squares per row of squares of a tile."""
BATCH = 32
"""Splats drawn between two looks at what is finished."""
AHEAD = 6
"""Splats by which memory is asked in advance."""
CHANNELS = 10
"""Per pixel: transmittance (negative once finished), red, green, blue, depth; for gradients which
member of the tile's list was the last to add to it, and the opacity added up; and for details
median depth, greatest weight, and which member's it is."""
SQUARE = CHANNELS * LANES
"""Floats per square of a tile. The squares follow each other row by row."""


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
        pixels = aligned(ACROSS * ACROSS * SQUARE)
        active = np.empty(ACROSS * ACROSS, np.bool_)
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
def _place(row, column):
    """Where a pixel of a tile has its transmittance; the other channels are LANES apart."""
    square = row // EDGE * ACROSS + column // EDGE
    return square * SQUARE + row % EDGE * EDGE + column % EDGE


@kernel(fast=True)
def _clear(pixels, active, rows, columns):
    """An empty tile. What lies outside the image is finished."""
    pixels[:] = f32(0.0)
    active[:] = True
    for row in range(TILE):
        for column in range(TILE):
            inside = row < rows and column < columns
            pixels[_place(u64(row), u64(column))] = f32(1.0) if inside else f32(-1.0)


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
    """Blend one splat into the squares that its box meets."""
    x, y, low, high, first, end = _span(splat, top, left)
    paint = spread16(splat.red), spread16(splat.green), spread16(splat.blue), spread16(splat.depth)
    for row in range(low, high):
        v = square_rows() - (y - f32(row * EDGE))
        peak = splat.log_opacity - splat.fade * v * v
        across = square_columns() - (x + splat.shear * v)
        for column in range(first, end):
            square = u64(row * ACROSS + column)
            if active[square]:
                u = across + f32(column * EDGE)
                log_alpha = peak - splat.sharp * u * u
                _blend(log_alpha, paint, place, view, limits, pixels, square * u64(SQUARE))


@kernel(fast=True)
def _span(splat, top, left):
    """Centre from the tile's first pixel; rows and columns of squares, half open."""
    x, y = splat.x - (f32(left) + f32(0.5)), splat.y - (f32(top) + f32(0.5))
    low, high = _squares(y - splat.reach_y, y + splat.reach_y)
    first, end = _squares(x - splat.reach_x, x + splat.reach_x)
    return x, y, low, high, first, end


@kernel(fast=True)
def _squares(low, high):
    """Rows or columns of squares with a pixel between ``low`` and ``high``, half open."""
    first = np.int64(max(np.ceil(low), f32(0.0)))
    last = np.int64(min(np.floor(high), f32(TILE - 1)))
    if last < first:
        return 0, 0
    return first // EDGE, last // EDGE + 1


@kernel(fast=True)
def _blend(log_alpha, paint, place, view, limits, pixels, i):
    """Blend one splat into a square: transmittances at ``i``, the channels LANES apart."""
    log_cut, alpha_max, stop, half = limits[0], limits[1], limits[2], limits[4]
    red, green, blue, depth = paint
    before = load16(pixels, i)
    weight = before * smaller(exp2(log_alpha), alpha_max)
    weight = select(log_alpha >= log_cut, weight, f32(0.0))
    after = before - weight
    going_on = after > stop  # false for good once the sign has turned
    weight = select(going_on, weight, f32(0.0))
    store(pixels, i, select(going_on, after, f32(0.0) - absolute(before)))
    j = i + u64(LANES)
    store(pixels, j, fma(weight, red, load16(pixels, j)))
    j = i + u64(2 * LANES)
    store(pixels, j, fma(weight, green, load16(pixels, j)))
    j = i + u64(3 * LANES)
    store(pixels, j, fma(weight, blue, load16(pixels, j)))
    j = i + u64(4 * LANES)
    store(pixels, j, fma(weight, depth, load16(pixels, j)))
    if place is not None:
        j = i + u64(5 * LANES)
        store(pixels, j, most(load16(pixels, j), select(weight > f32(0.0), place, f32(0.0))))
        j = i + u64(6 * LANES)
        store(pixels, j, load16(pixels, j) + weight)
    if view is not None:
        j = i + u64(7 * LANES)
        crossing = both(both(before > half, after <= half), going_on)
        store(pixels, j, most(load16(pixels, j), select(crossing, depth, f32(0.0))))
        j = i + u64(8 * LANES)
        best = load16(pixels, j)
        heavier = weight > best
        store(pixels, j, most(best, weight))
        j = i + u64(9 * LANES)
        store(pixels, j, most(load16(pixels, j), select(heavier, view, f32(0.0))))


@kernel(fast=True)
def _store_traces(pixels, top, left, traces):
    """Copy what :func:`_store` leaves behind. A pixel to which nothing was added is clear."""
    rows, columns = min(TILE, traces.shape[1] - top), min(TILE, traces.shape[2] - left)
    for row in range(rows):
        y = u64(top + row)
        for column in range(columns):
            x, i = u64(left + column), _place(u64(row), u64(column))
            opacity = pixels[i + u64(6 * LANES)]
            traces[0, y, x] = abs(pixels[i])
            traces[1, y, x] = pixels[i + u64(5 * LANES)] if opacity > f32(0.0) else f32(-1.0)
            traces[2, y, x] = opacity


@kernel(fast=True)
def _any_active(pixels, active):
    """Update which squares still have an unfinished pixel; return whether any has."""
    remaining = False
    for square in range(ACROSS * ACROSS):
        if active[square]:
            active[square] = any_lane(load16(pixels, u64(square * SQUARE)) > f32(0.0))
            remaining |= active[square]
    return remaining


@kernel(fast=True)
def _store(pixels, top, left, limits, background, rgb, alpha, depth):
    """Copy a tile to the image, over the background."""
    red, green, blue = background[0], background[1], background[2]
    rows, columns = min(TILE, alpha.shape[0] - top), min(TILE, alpha.shape[1] - left)
    for row in range(rows):
        y = u64(top + row)
        for column in range(columns):
            x, i = u64(left + column), _place(u64(row), u64(column))
            clear = abs(pixels[i])
            opacity = f32(1.0) - clear
            alpha[y, x] = opacity
            shown = pixels[i + u64(4 * LANES)] / opacity
            depth[y, x] = shown if opacity > limits[3] else f32(np.nan)
            rgb[y, x, 0] = pixels[i + u64(LANES)] + clear * red
            rgb[y, x, 1] = pixels[i + u64(2 * LANES)] + clear * green
            rgb[y, x, 2] = pixels[i + u64(3 * LANES)] + clear * blue


@kernel(fast=True)
def _store_front(records, splats, pixels, top, left, limits, front):
    """Copy a tile to the maps of what is in front."""
    median, ids, weights = front
    rows, columns = min(TILE, ids.shape[0] - top), min(TILE, ids.shape[1] - left)
    for row in range(rows):
        for column in range(columns):
            y, x, i = top + row, left + column, _place(u64(row), u64(column))
            crossed = abs(pixels[i]) <= limits[4]
            median[y, x] = pixels[i + u64(7 * LANES)] if crossed else f32(np.nan)
            weights[y, x] = pixels[i + u64(8 * LANES)]
            ids[y, x] = -1
            if weights[y, x] > f32(0.0):
                ids[y, x] = records[splats[np.int64(pixels[i + u64(9 * LANES)])]].row
