"""Tile lists to pixels: front-to-back blending (Kerbl et al. 2023, eq. 3).

The pixels of a tile live in one small array. A row of a tile is cut into strips of as many pixels
as one vector register holds; a splat touches only the rows and strips that its box meets.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from renderers.kernels import kernel

f32 = np.float32
i32 = np.int32  # loop counters of vector loops: AVX2 turns 32-bit integers into floats, not 64-bit
u64 = np.uint64  # an index that cannot be negative needs no check
TILE = 16
"""Edge of a tile, in pixels."""
STRIP = 8
"""Pixels in a strip: the floats of one AVX register."""
CHECK_EVERY = 16
"""Splats between two looks at which rows of a tile are finished."""
CHANNELS = 5
"""Per pixel: transmittance (negative once finished), red, green, blue, depth."""
ROW = CHANNELS * TILE
"""Floats per row of a tile, channel by channel."""

# exp2(8 s) = p(s)^8, where p is the polynomial of degree 5 that fits exp2 on [-1, 0] best (Remez
# exchange, relative error 7.5e-8). The powers of 8 turn p(s) into a polynomial of 8 s.
P0 = f32(0.9999999250635262)
P1 = f32(0.6931422525933734 / 8**1)
P2 = f32(0.2401721892495853 / 8**2)
P3 = f32(0.05527972258362717 / 8**3)
P4 = f32(0.009188611733260795 / 8**4)
P5 = f32(0.0009387883376086673 / 8**5)


@kernel(parallel=True, fast=True)
def rasterise(records, starts, members, tiles_x, threads, limits, background, rgb, alpha, depth):
    """Draw every tile.

    Args:
        records: project.RECORD each.
        starts: (t + 1,) as bin.tile_lists returns.
        members: (k,) likewise.
        tiles_x: Tiles per row of the image.
        threads: Shares of the work.
        limits: (log2 of the alpha cut, alpha max, transmittance stop, least alpha with a depth).
        background: (3,) sRGB.
        rgb: (h, w, 3), written.
        alpha: (h, w), written.
        depth: (h, w), written, metres.
    """
    height, width = alpha.shape
    for share in prange(threads):
        pixels = np.empty(TILE * ROW, np.float32)
        active = np.empty(TILE, np.bool_)
        for tile in range(share, starts.size - 1, threads):
            top, left = tile // tiles_x * TILE, tile % tiles_x * TILE
            splats = members[starts[tile] : starts[tile + 1]]
            _clear(pixels, active, height - top, width - left)
            _blend_tile(records, splats, top, left, limits, pixels, active)
            _store(pixels, top, left, limits, background, rgb, alpha, depth)


@kernel(fast=True)
def _clear(pixels, active, rows, columns):
    """An empty tile. What lies outside the image counts as finished."""
    pixels[:] = f32(0.0)
    for row in range(TILE):
        active[row] = row < rows
        for column in range(TILE):
            inside = row < rows and column < columns
            pixels[u64(row * ROW + column)] = f32(1.0) if inside else f32(-1.0)


@kernel(fast=True)
def _blend_tile(records, splats, top, left, limits, pixels, active):
    """Blend the splats of one tile, nearest first, until every pixel is finished."""
    first_x, first_y = f32(left) + f32(0.5), f32(top) + f32(0.5)
    for k in range(splats.size):
        if k % CHECK_EVERY == CHECK_EVERY - 1 and not _any_active(pixels, active):
            break
        splat = records[splats[k]]
        x, y = splat.x - first_x, splat.y - first_y  # from the tile's first pixel
        low = i32(max(np.ceil(y - splat.reach_y), f32(0.0)))
        high = i32(min(np.floor(y + splat.reach_y), f32(TILE - 1)))
        begin = i32(0) if x - splat.reach_x <= f32(STRIP - 1) else i32(STRIP)
        end = i32(TILE) if x + splat.reach_x >= f32(STRIP) else i32(STRIP)
        log_opacity, fade, shear, sharp = splat.log_opacity, splat.fade, splat.shear, splat.sharp
        paint = (splat.red, splat.green, splat.blue, splat.depth)
        for row in range(low, high + 1):
            if active[row]:
                v = f32(row) - y
                peak, center = log_opacity - fade * v * v, x + shear * v
                _blend_row(peak, center, sharp, paint, begin, end, limits, pixels, u64(row * ROW))


@kernel(fast=True)
def _blend_row(peak, center, sharp, paint, begin, end, limits, pixels, start):
    """Blend one splat into columns ``begin`` to ``end`` of a row: straight code for vectors."""
    log_cut, alpha_max, stop = limits[0], limits[1], limits[2]
    red, green, blue, depth = paint
    for column in range(begin, end):
        i = start + u64(column)
        u = f32(column) - center
        t = peak - sharp * u * u  # log2 alpha
        tt = t * t
        p = (P0 + P1 * t) + tt * ((P2 + P3 * t) + tt * (P4 + P5 * t))
        p *= p
        p *= p
        p *= p
        opacity = min(p, alpha_max) if t >= log_cut else f32(0.0)
        before = pixels[i]
        weight = before * opacity
        after = before - weight
        going_on = after > stop  # false for good once the sign has turned
        weight = weight if going_on else f32(0.0)
        pixels[i] = after if going_on else -abs(before)
        pixels[i + u64(TILE)] += weight * red
        pixels[i + u64(2 * TILE)] += weight * green
        pixels[i + u64(3 * TILE)] += weight * blue
        pixels[i + u64(4 * TILE)] += weight * depth


@kernel(fast=True)
def _any_active(pixels, active):
    """Update which rows still have an unfinished pixel; return whether any has."""
    remaining = False
    for row in range(TILE):
        if active[row]:
            going_on = False
            for column in range(TILE):
                going_on |= pixels[u64(row * ROW + column)] > f32(0.0)
            active[row] = going_on
            remaining |= going_on
    return remaining


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
