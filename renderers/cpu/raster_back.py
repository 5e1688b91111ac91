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
    both,
    count_up,
    exp2,
    fma,
    load,
    select,
    smaller,
    spread,
    store,
    total,
)

f32 = np.float32
u64 = np.uint64
TILE = 16
LANES = 8
"""These are raster.py's: kernels read no constant of another file."""
CHANNELS = 8
"""Per pixel: transmittance behind the splat at hand; the place of the last splat; what lies behind,
times the gradient; and the gradients of red, green, blue, depth times opacity, and opacity."""
ROW = CHANNELS * TILE
SUMS = 10
"""Gradients per splat: x, y, sharp, shear, fade, log opacity, red, green, blue, depth."""
LN2 = f32(np.log(2.0))


@kernel(parallel=True, fast=True)
def rasterise_back(records, starts, members, homes, tiles_x, threads, limits, traces, pulls, sums):
    """Gradients of every splat in every tile.

    Args:
        records: project.RECORD each.
        starts: (t + 1,) as bin.TileLists has them; likewise ``members`` and ``homes``.
        members: (k,) records.
        homes: (k,) where the gradient of each member goes.
        tiles_x: Tiles per row of the image.
        threads: Shares of the work.
        limits: (log2 of the alpha cut, alpha max, ...).
        traces: (3, h, w) as raster.rasterise writes them.
        pulls: (5, h, w) gradient of each pixel's red, green, blue, depth times opacity, opacity.
        sums: (k, SUMS), written.
    """
    for share in prange(threads):
        pixels = np.empty(TILE * ROW, np.float32)
        lasts = np.empty(TILE, np.float32)
        for tile in range(share, starts.size - 1, threads):
            top, left = tile // tiles_x * TILE, tile % tiles_x * TILE
            last = _fetch(pixels, lasts, top, left, traces, pulls)
            for k in range(starts[tile + 1] - 1, starts[tile] - 1, -1):
                out, place = sums[homes[k]], k - starts[tile]
                out[:] = f32(0.0)
                if place <= last:
                    _pull_splat(
                        records[members[k]], f32(place), top, left, limits, pixels, lasts, out
                    )


@kernel(fast=True)
def _fetch(pixels, lasts, top, left, traces, pulls):
    """A tile when all is drawn. ``lasts`` gets the greatest place per row; returns that of all."""
    rows, columns = min(TILE, traces.shape[1] - top), min(TILE, traces.shape[2] - left)
    pixels[:] = f32(0.0)
    greatest = f32(-1.0)
    for row in range(TILE):
        lasts[row] = f32(-1.0)
        for column in range(TILE):
            i = u64(row * ROW + column)
            pixels[i + u64(TILE)] = f32(-1.0)
            if row < rows and column < columns:
                y, x = u64(top + row), u64(left + column)
                pixels[i], pixels[i + u64(TILE)] = traces[0, y, x], traces[1, y, x]
                lasts[row] = max(lasts[row], traces[1, y, x])
                for channel in range(5):
                    pixels[i + u64((3 + channel) * TILE)] = pulls[channel, y, x]
        greatest = max(greatest, lasts[row])
    return greatest


@kernel(fast=True)
def _pull_splat(splat, place, top, left, limits, pixels, lasts, out):
    """Add the gradient of one splat over a tile to ``out``, and move the tile before it."""
    x, y = splat.x - (f32(left) + f32(0.5)), splat.y - (f32(top) + f32(0.5))
    low = np.int64(max(np.ceil(y - splat.reach_y), f32(0.0)))
    high = np.int64(min(np.floor(y + splat.reach_y), f32(TILE - 1)))
    begin = 0 if x - splat.reach_x <= f32(LANES - 1) else LANES
    end = TILE if x + splat.reach_x >= f32(LANES) else LANES
    for column in range(begin, end, LANES):
        _pull_half(splat, place, x - f32(column), y, low, high, limits, pixels, lasts, column, out)


@kernel(fast=True)
def _pull_half(splat, place, x, y, low, high, limits, pixels, lasts, column, out):
    """Eight columns of a tile; ``x`` is counted from the first of them.

    With log2 alpha = log_opacity - fade v^2 - sharp u^2 and u = column - x - shear v, all its
    derivatives are multiples of the gradient's moments: its sums times 1, u, u^2, u v, v and v^2.
    """
    log_cut, alpha_max = limits[0], limits[1]
    red, green, blue = spread(splat.red), spread(splat.green), spread(splat.blue)
    depth, shear, sharp = spread(splat.depth), spread(splat.shear), spread(splat.sharp)
    across = count_up() - x
    zero = spread(f32(0.0))
    m, mu, muu, muv, mv, mvv = zero, zero, zero, zero, zero, zero
    sum_red, sum_green, sum_blue, sum_depth = zero, zero, zero, zero
    for row in range(low, high + 1):
        if lasts[row] < place:
            continue
        i = u64(row * ROW + column)
        v = f32(row) - y
        u = across - shear * v
        log_alpha = (splat.log_opacity - splat.fade * v * v) - sharp * u * u
        raw = exp2(log_alpha)
        added = both(log_alpha >= log_cut, load(pixels, i + u64(TILE)) >= place)
        alpha = select(added, smaller(raw, alpha_max), f32(0.0))
        through = f32(1.0) - alpha
        before = load(pixels, i) / through
        store(pixels, i, before)
        weight = before * alpha
        pull_red, pull_green = load(pixels, i + u64(3 * TILE)), load(pixels, i + u64(4 * TILE))
        pull_blue, pull_depth = load(pixels, i + u64(5 * TILE)), load(pixels, i + u64(6 * TILE))
        pull = fma(pull_red, red, load(pixels, i + u64(7 * TILE)))
        pull = fma(pull_depth, depth, fma(pull_blue, blue, fma(pull_green, green, pull)))
        behind = load(pixels, i + u64(2 * TILE))
        store(pixels, i + u64(2 * TILE), fma(alpha, pull, through * behind))
        # dL/d ln alpha: what this splat shows, less what it hides
        gain = weight * (pull - behind)
        gain = select(raw <= alpha_max, gain, f32(0.0))
        gain_u, gain_v = gain * u, gain * v
        m, mu, mv = m + gain, mu + gain_u, mv + gain_v
        muu, muv, mvv = fma(gain_u, u, muu), fma(gain_u, v, muv), fma(gain_v, v, mvv)
        sum_red, sum_green = fma(weight, pull_red, sum_red), fma(weight, pull_green, sum_green)
        sum_blue, sum_depth = fma(weight, pull_blue, sum_blue), fma(weight, pull_depth, sum_depth)
    steep = f32(2.0) * LN2 * splat.sharp
    out[0] += steep * total(mu)
    out[1] += f32(2.0) * LN2 * splat.fade * total(mv) - steep * splat.shear * total(mu)
    out[2] -= LN2 * total(muu)
    out[3] += steep * total(muv)
    out[4] -= LN2 * total(mvv)
    out[5] += LN2 * total(m)
    out[6] += total(sum_red)
    out[7] += total(sum_green)
    out[8] += total(sum_blue)
    out[9] += total(sum_depth)
