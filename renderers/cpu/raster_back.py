"""Gradients of pixels back to what the camera saw of each splat.

The tiles are gone through from the back, from the last splat that each pixel took: what the pixel
shows behind a splat is then at hand, and its transmittance before the splat is that after it,
divided by what the splat lets through. A splat sums its gradient within a tile and writes it to a
place of its own; places are added up afterwards, in order, so that no thread waits for another
and the bits do not depend on their number.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from renderers.kernels import kernel
from renderers.simd import (
    aligned,
    both,
    exp2,
    fetch,
    fma,
    folded,
    halves,
    load16,
    select,
    smaller,
    spread16,
    square_columns,
    square_rows,
    store,
    total,
    totals,
)

f32 = np.float32
u64 = np.uint64
TILE, EDGE, LANES, ACROSS = 16, 4, 16, 4
AHEAD = 6
"""These are raster.py's: kernels read no constant of another file."""
CHANNELS = 8
"""Per pixel: transmittance behind the splat at hand; the place of the last splat; what lies behind,
times the gradient; and the gradients of red, green, blue, depth times opacity, and opacity."""
SQUARE = CHANNELS * LANES
SUMS = 10
"""Per splat: the moments of its gain, which are its sums times 1, u, v, u^2, u v and v^2; and
gradients of red, green, blue and depth."""


@kernel(parallel=True, fast=True)
def rasterise_back(
    records, starts, members, homes, tiles_x, threads, limits, background, picture, pulls, sums
):
    """Gradients of every splat in every tile.

    Args:
        records: project.RECORD each.
        starts: (t + 1,) as bin.TileLists has them; likewise ``members`` and ``homes``.
        members: (k,) records.
        homes: (k,) where the sums of each member go.
        tiles_x: Tiles per row of the image.
        threads: Shares of the work.
        limits: (log2 of the alpha cut, alpha max, transmittance stop, least alpha with a depth).
        background: (3,) sRGB.
        picture: What was drawn: traces (3, h, w) as raster.rasterise writes them, alpha (h, w)
            and depth (h, w).
        pulls: Gradients of rgb (h, w, 3), alpha (h, w) and depth (h, w).
        sums: (k, SUMS), written.
    """
    for share in prange(threads):
        pixels = aligned(ACROSS * ACROSS * SQUARE)
        lasts = np.empty(ACROSS * ACROSS, np.float32)
        for tile in range(share, starts.size - 1, threads):
            top, left = tile // tiles_x * TILE, tile % tiles_x * TILE
            _fetch_tile(pixels, top, left, limits[3], background, picture, pulls)
            last, first = _find_lasts(pixels, lasts), starts[tile]
            for k in range(starts[tile + 1] - 1, first - 1, -1):
                ahead = max(k - AHEAD, first)
                fetch(records, u64(members[ahead]))
                out, place = sums[homes[k]], k - first
                if place > last:
                    out[:] = f32(0.0)
                    continue
                _pull_splat(records[members[k]], f32(place), top, left, limits, pixels, lasts, out)


@kernel(fast=True)
def _fetch_tile(pixels, top, left, least_alpha, background, picture, pulls):
    """A tile when all is drawn, and the gradients of its pixels."""
    traces, alpha, depth = picture
    pull_rgb, pull_alpha, pull_depth = pulls
    rows, columns = min(TILE, alpha.shape[0] - top), min(TILE, alpha.shape[1] - left)
    for row in range(TILE):
        for column in range(TILE):
            square = row // EDGE * ACROSS + column // EDGE
            i = u64(square * SQUARE + row % EDGE * EDGE + column % EDGE)
            if row >= rows or column >= columns:
                for channel in range(CHANNELS):
                    pixels[i + u64(channel * LANES)] = f32(-1.0) if channel == 1 else f32(0.0)
                continue
            y, x = u64(top + row), u64(left + column)
            pixels[i], pixels[i + u64(LANES)] = traces[0, y, x], traces[1, y, x]
            pixels[i + u64(2 * LANES)] = f32(0.0)
            opacity = pull_alpha[y, x]
            for channel in range(3):
                pull = pull_rgb[y, x, channel]
                pixels[i + u64((3 + channel) * LANES)] = pull
                opacity -= pull * background[channel]
            per_alpha = f32(0.0)
            if alpha[y, x] > least_alpha:  # depth is a sum, divided by the opacity
                exact = traces[2, y, x]
                per_alpha = pull_depth[y, x] / exact
                opacity -= per_alpha * depth[y, x] * (alpha[y, x] / exact)
            pixels[i + u64(6 * LANES)], pixels[i + u64(7 * LANES)] = per_alpha, opacity


@kernel(fast=True)
def _find_lasts(pixels, lasts):
    """Write the greatest place of a last splat per square; return that of all."""
    greatest = f32(-1.0)
    for square in range(ACROSS * ACROSS):
        lasts[square] = f32(-1.0)
        for lane in range(LANES):
            lasts[square] = max(lasts[square], pixels[u64(square * SQUARE + LANES + lane)])
        greatest = max(greatest, lasts[square])
    return greatest


@kernel(fast=True)
def _pull_splat(splat, place, top, left, limits, pixels, lasts, out):
    """Write the sums of one splat over a tile to ``out``, and move the tile before it."""
    x, y = splat.x - (f32(left) + f32(0.5)), splat.y - (f32(top) + f32(0.5))
    low, high = _squares(y - splat.reach_y, y + splat.reach_y)
    first, end = _squares(x - splat.reach_x, x + splat.reach_x)
    zero = spread16(f32(0.0))
    sums = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    paint = spread16(splat.red), spread16(splat.green), spread16(splat.blue), spread16(splat.depth)
    for row in range(low, high):
        v = square_rows() - (y - f32(row * EDGE))
        peak = splat.log_opacity - splat.fade * v * v
        across = square_columns() - (x + splat.shear * v)
        for column in range(first, end):
            square = u64(row * ACROSS + column)
            if lasts[square] >= place:
                u = across + f32(column * EDGE)
                log_alpha = peak - splat.sharp * u * u
                i = square * u64(SQUARE)
                sums = _pull_square(log_alpha, u, v, paint, place, limits, pixels, i, sums)
    m, mu = halves(folded(sums[0], sums[1]))
    mv, muu = halves(folded(sums[2], sums[3]))
    muv, mvv = halves(folded(sums[4], sums[5]))
    red, green = halves(folded(sums[6], sums[7]))
    blue, depth = halves(folded(sums[8], sums[9]))
    store(out, u64(0), totals(m, mu, mv, muu, muv, mvv, red, green))
    out[8], out[9] = total(blue), total(depth)


@kernel(fast=True)
def _squares(low, high):
    """As in raster.py."""
    first = np.int64(max(np.ceil(low), f32(0.0)))
    last = np.int64(min(np.floor(high), f32(TILE - 1)))
    if last < first:
        return 0, 0
    return first // EDGE, last // EDGE + 1


@kernel(fast=True)
def _pull_square(log_alpha, u, v, paint, place, limits, pixels, i, sums):
    """Add a square to ``sums``, and move it before the splat."""
    log_cut, alpha_max = limits[0], limits[1]
    red, green, blue, depth = paint
    m, mu, mv, muu, muv, mvv, sum_red, sum_green, sum_blue, sum_depth = sums
    raw = exp2(log_alpha)
    added = both(log_alpha >= log_cut, load16(pixels, i + u64(LANES)) >= place)
    alpha = select(added, smaller(raw, alpha_max), f32(0.0))
    through = f32(1.0) - alpha
    before = load16(pixels, i) / through
    store(pixels, i, before)
    weight = before * alpha
    pull_red, pull_green = load16(pixels, i + u64(3 * LANES)), load16(pixels, i + u64(4 * LANES))
    pull_blue, pull_depth = load16(pixels, i + u64(5 * LANES)), load16(pixels, i + u64(6 * LANES))
    pull = fma(pull_red, red, load16(pixels, i + u64(7 * LANES)))
    pull = fma(pull_depth, depth, fma(pull_blue, blue, fma(pull_green, green, pull)))
    behind = load16(pixels, i + u64(2 * LANES))
    store(pixels, i + u64(2 * LANES), fma(alpha, pull, through * behind))
    # dL/d ln alpha: what this splat shows, less what it hides
    gain = weight * (pull - behind)
    gain = select(raw <= alpha_max, gain, f32(0.0))
    gain_u, gain_v = gain * u, gain * v
    m, mu, mv = m + gain, mu + gain_u, mv + gain_v
    muu, muv, mvv = fma(gain_u, u, muu), fma(gain_u, v, muv), fma(gain_v, v, mvv)
    sum_red, sum_green = fma(weight, pull_red, sum_red), fma(weight, pull_green, sum_green)
    sum_blue, sum_depth = fma(weight, pull_blue, sum_blue), fma(weight, pull_depth, sum_depth)
    return m, mu, mv, muu, muv, mvv, sum_red, sum_green, sum_blue, sum_depth
