"""Which splats each tile of the image must draw, nearest first.

Only visible splats are sorted, not their copies per tile. Every loop over splats is cut into one
run per thread, and all counts are kept per run, so that the result does not depend on their number.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int32, Int64, UInt32
from numba import prange

from renderers.kernels import kernel

f32 = np.float32
u64 = np.uint64  # an index that cannot be negative needs no check
EXACT_ABOVE = 4
"""Tiles of a box beyond which its empty corners are worth looking for."""
DIGIT_BITS = 11
"""Bits per pass of the radix sort: three passes for the 32 of a depth."""
DIGITS = 1 << DIGIT_BITS


def depth_order(
    keys: UInt32[np.ndarray, " m"], slots: Int32[np.ndarray, " m"], threads: int
) -> Int32[np.ndarray, " m"]:
    """``slots`` by rising key, equal keys in the order given. Both inputs are overwritten."""
    spare_keys, spare_slots = np.empty_like(keys), np.empty_like(slots)
    digits = np.empty((threads, DIGITS), np.int64)
    for shift in range(0, 32, DIGIT_BITS):
        _sort_digit(keys, slots, shift, threads, digits, spare_keys, spare_slots)
        keys, slots, spare_keys, spare_slots = spare_keys, spare_slots, keys, slots
    return slots


def tile_lists(
    records: np.ndarray,
    boxes: np.ndarray,
    order: Int32[np.ndarray, " m"],
    tiles_x: int,
    tiles_y: int,
    tile: int,
    log_cut: np.float32,
    threads: int,
) -> tuple[Int64[np.ndarray, " t1"], Int32[np.ndarray, " k"]]:
    """Splats of each tile, in ``order``.

    Args:
        records: project.RECORD each.
        boxes: project.BOX each.
        order: Records to draw, nearest first.
        tiles_x: Tiles per row of the image.
        tiles_y: Rows of tiles.
        tile: Edge of a tile, in pixels.
        log_cut: log2 of the alpha below which a splat adds nothing.
        threads: Runs to cut the work into.

    Returns:
        ``starts`` and ``members``: tile ``t`` draws ``records[members[starts[t]:starts[t + 1]]]``.
    """
    places = np.zeros((threads, tiles_x * tiles_y), np.int64)
    _visit_tiles(
        records, boxes, order, tiles_x, tile, log_cut, False, places, np.empty(0, np.int32)
    )
    starts = np.empty(tiles_x * tiles_y + 1, np.int64)
    _counts_to_places(places, starts)
    members = np.empty(starts[-1], np.int32)
    _visit_tiles(records, boxes, order, tiles_x, tile, log_cut, True, places, members)
    return starts, members


@kernel(parallel=True, fast=True)
def depth_keys(records, counts, starts, size, keys, slots):
    """Compact the visible records of all blocks: their depth as a sortable key, and their place.

    Args:
        records: (b * size,) project.RECORD; the first ``counts[b]`` of each block are visible.
        counts: (b,) visible records.
        starts: (b,) where each block's go.
        size: Records per block.
        keys: (m,) written: the bits of a positive float rise with it.
        slots: (m,) written.
    """
    for b in prange(counts.size):
        for i in range(counts[b]):
            keys[starts[b] + i] = f32(records[b * size + i].depth).view(np.uint32)
            slots[starts[b] + i] = b * size + i


@kernel(parallel=True, fast=True)
def _sort_digit(keys, slots, shift, threads, digits, keys_out, slots_out):
    """One stable pass of a radix sort, by the DIGIT_BITS above ``shift``."""
    mask, down = np.uint32(DIGITS - 1), np.uint32(shift)
    run = (keys.size + threads - 1) // threads
    for t in prange(threads):
        digits[t] = 0
        for i in range(t * run, min(keys.size, (t + 1) * run)):
            digits[t, np.int64((keys[i] >> down) & mask)] += 1
    place = 0
    for digit in range(DIGITS):
        for t in range(threads):
            count = digits[t, digit]
            digits[t, digit] = place
            place += count
    for t in prange(threads):
        for i in range(t * run, min(keys.size, (t + 1) * run)):
            digit = np.int64((keys[i] >> down) & mask)
            keys_out[digits[t, digit]] = keys[i]
            slots_out[digits[t, digit]] = slots[i]
            digits[t, digit] += 1


@kernel(fast=True)
def _counts_to_places(places, starts):
    """Turn counts per run and tile into the first place of each; ``starts`` gets the tiles'."""
    total = 0
    for tile in range(places.shape[1]):
        starts[tile] = total
        for run in range(places.shape[0]):
            count = places[run, tile]
            places[run, tile] = total
            total += count
    starts[places.shape[1]] = total


@kernel(parallel=True, fast=True)
def _visit_tiles(records, boxes, order, tiles_x, tile, log_cut, fill, places, members):
    """Count the tiles of each splat in ``places``, or fill ``members`` and advance ``places``."""
    runs = places.shape[0]
    run = (order.size + runs - 1) // runs
    for t in prange(runs):
        place = places[t]
        for i in range(t * run, min(order.size, (t + 1) * run)):
            box = boxes[order[i]]
            x0, x1 = np.int64(box.x0), np.int64(box.x1)
            y0, y1 = np.int64(box.y0), np.int64(box.y1)
            corners = min(x1 - x0, y1 - y0) > 1 and (x1 - x0) * (y1 - y0) > EXACT_ABOVE
            for row in range(y0, y1):
                first, last = x0, x1
                if corners:
                    first, last = _tiles_in_row(
                        records[order[i]], x0, x1, row * tile, tile, log_cut
                    )
                for column in range(first, last):
                    k = u64(row * tiles_x + column)
                    if fill:
                        members[u64(place[k])] = order[i]
                    place[k] += 1


@kernel(fast=True)
def _tiles_in_row(splat, first, last, top, tile, log_cut):
    """Tiles, half open, that an ellipse covers in the row of tiles that starts at ``top``.

    Exact: the ellipse's widest extent between the first and the last pixel centres of that row.
    """
    low = max(f32(top) + f32(0.5) - splat.y, -splat.reach_y)
    high = min(f32(top + tile) - f32(0.5) - splat.y, splat.reach_y)
    if low > high:
        return first, first
    span = splat.log_opacity - log_cut
    steep = max(splat.sharp, f32(1e-30))
    widest = splat.shear * splat.reach_y * splat.reach_y / splat.reach_x  # v of the rightmost point
    v = min(max(widest, low), high)
    right = splat.shear * v + math.sqrt(max(span - splat.fade * v * v, f32(0.0)) / steep)
    v = min(max(-widest, low), high)
    left = splat.shear * v - math.sqrt(max(span - splat.fade * v * v, f32(0.0)) / steep)
    # a tile counts when a pixel centre of it lies inside
    inverse = f32(1.0) / f32(tile)
    begin = np.ceil((splat.x + max(left, -splat.reach_x) + f32(0.5)) * inverse) - f32(1.0)
    end = np.floor((splat.x + min(right, splat.reach_x) - f32(0.5)) * inverse) + f32(1.0)
    begin = min(max(begin, f32(first)), f32(last))
    end = min(max(end, begin), f32(last))
    return np.int64(begin), np.int64(end)
