"""Which splats each tile of the image must draw, nearest first.

Only visible splats are sorted, not their copies per tile. Every loop over splats is cut into one
run per thread, and all counts are kept per run, so that the result does not depend on their number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64, UInt32
from numba import prange

from renderers.kernels import kernel
from renderers.simd import fetch

f32 = np.float32
u64 = np.uint64  # an index that cannot be negative needs no check
EXACT_ABOVE = 4
"""Tiles of a box beyond which its empty corners are worth looking for."""
MASK_BITS = 64
"""Tiles of a box up to which it is remembered which of them are hit."""
FEW = 32
"""Splats of equal depth up to which they are put in order one by one."""
DIGIT_BITS = 11
"""Bits per pass of the radix sort: three passes for the 32 of a depth."""
DIGITS = 1 << DIGIT_BITS
AHEAD = 12
"""Splats by which memory is asked in advance, where their order is that of depth."""


@dataclass(frozen=True, eq=False)
class TileLists:
    """Splats per tile: tile ``t`` draws ``records[members[starts[t]:starts[t + 1]]]``, in order."""

    starts: Int64[np.ndarray, " t1"]
    """Where each tile's members begin, and the end of the last."""
    members: Int32[np.ndarray, " k"]
    """Records."""
    firsts: Int64[np.ndarray, " r1"]
    """``firsts[r]:firsts[r + 1]`` number the members of record ``r``, tile by tile. As homes."""
    homes: Int64[np.ndarray, " h"]
    """That number of each member: neighbours of a record have neighbouring numbers. Empty unless
    asked for."""


def nearest_first(
    records: np.ndarray, shown: Int32[np.ndarray, " m"], threads: int
) -> Int32[np.ndarray, " m"]:
    """``shown``, which rises, by the depth of the records; equal depths by row."""
    keys = np.empty(shown.size, np.uint32)
    _depth_keys(records, shown, keys)
    keys, slots = sort(keys, shown.copy(), threads)
    crowded = np.empty(threads, np.bool_)
    _settle_ties(keys, slots, records, crowded)
    if crowded.any():  # such as a wall that faces the camera: then by row first
        _, slots = sort(records["row"][shown].astype(np.uint32), shown.copy(), threads)
        _depth_keys(records, slots, keys)
        _, slots = sort(keys, slots, threads)
    return slots


def sort(
    keys: UInt32[np.ndarray, " m"], slots: Int32[np.ndarray, " m"], threads: int
) -> tuple[UInt32[np.ndarray, " m"], Int32[np.ndarray, " m"]]:
    """Keys and slots by rising key, equal keys in the order given. Both inputs are overwritten."""
    spare_keys, spare_slots = np.empty_like(keys), np.empty_like(slots)
    digits = np.empty((threads, DIGITS), np.int64)
    for shift in range(0, 32, DIGIT_BITS):
        _sort_digit(keys, slots, shift, threads, digits, spare_keys, spare_slots)
        keys, slots, spare_keys, spare_slots = spare_keys, spare_slots, keys, slots
    return keys, slots


def tile_lists(
    records: np.ndarray,
    boxes: np.ndarray,
    order: Int32[np.ndarray, " m"],
    tiles_x: int,
    tiles_y: int,
    tile: int,
    log_cut: np.float32,
    threads: int,
    homes: bool = False,
) -> TileLists:
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
        homes: Also number the members record by record, for gradients.
    """
    places = np.zeros((threads, tiles_x * tiles_y), np.int64)
    sorted_boxes, hits = np.empty(order.size, boxes.dtype), np.empty(order.size, np.uint64)
    firsts = np.zeros(len(records) + 1 if homes else 1, np.int64)
    _find_tiles(
        records, boxes, order, tiles_x, tile, log_cut, places, sorted_boxes, hits, firsts[1:]
    )
    starts = np.empty(tiles_x * tiles_y + 1, np.int64)
    _counts_to_places(places, starts)
    members = np.empty(starts[-1], np.int32)
    np.cumsum(firsts, out=firsts)
    numbers = np.empty(starts[-1] if homes else 0, np.int64)
    _fill_tiles(
        records, sorted_boxes, order, tiles_x, tile, log_cut, places, hits, members, firsts, numbers
    )
    return TileLists(starts, members, firsts, numbers)


@kernel(parallel=True, fast=True)
def find_shown(counts, starts, size, shown):
    """List the visible records of all blocks.

    Args:
        counts: (b,) the first this many records of each block are visible.
        starts: (b,) where each block's go.
        size: Records per block.
        shown: (m,) written.
    """
    for b in prange(counts.size):
        for i in range(counts[b]):
            shown[starts[b] + i] = b * size + i


@kernel(parallel=True, fast=True)
def _depth_keys(records, slots, keys):
    """Write the depths of records as sortable keys: the bits of a positive float rise with it."""
    for i in prange(slots.size):
        keys[i] = f32(records[slots[i]].depth).view(np.uint32)


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
def _settle_ties(keys, slots, records, crowded):
    """Put slots of equal key in the order of their rows.

    Args:
        keys: (m,) rising.
        slots: (m,) records, reordered within equal keys.
        records: project.RECORD each.
        crowded: (threads,) bool, written: whether a share of the work found a tie of more than
            FEW, and left it. A tie belongs to the share that it begins in.
    """
    threads = crowded.size
    run = (keys.size + threads - 1) // threads
    for t in prange(threads):
        crowded[t] = False
        for i in range(t * run, min(keys.size, (t + 1) * run)):
            if (i > 0 and keys[i] == keys[i - 1]) or i + 1 == keys.size or keys[i] != keys[i + 1]:
                continue
            end = i + 2
            while end < keys.size and keys[end] == keys[i]:
                end += 1
            if end - i > FEW:
                crowded[t] = True
                continue
            for j in range(i + 1, end):  # insertion
                slot, k = slots[j], j
                row = records[slot].row
                while k > i and records[slots[k - 1]].row > row:
                    slots[k] = slots[k - 1]
                    k -= 1
                slots[k] = slot


@kernel(parallel=True, fast=True)
def _find_tiles(records, boxes, order, tiles_x, tile, log_cut, places, sorted_boxes, hits, counts):
    """Count the tiles of each splat in ``places`` and ``counts``; remember them in ``hits``.

    ``counts`` is of all records, or empty.
    """
    runs = places.shape[0]
    run = (order.size + runs - 1) // runs
    for t in prange(runs):
        place = places[t]
        for i in range(t * run, min(order.size, (t + 1) * run)):
            ahead = u64(order[min(i + AHEAD, order.size - 1)])
            fetch(boxes, ahead)
            fetch(records, ahead)
            box = boxes[order[i]]
            sorted_boxes[i] = box
            x0, x1 = np.int64(box.x0), np.int64(box.x1)
            y0, y1 = np.int64(box.y0), np.int64(box.y1)
            corners = min(x1 - x0, y1 - y0) > 1 and (x1 - x0) * (y1 - y0) > EXACT_ABOVE
            mask, count = u64(0), 0
            for row in range(y0, y1):
                first, last = x0, x1
                if corners:
                    first, last = _tiles_in_row(
                        records[order[i]], x0, x1, row * tile, tile, log_cut
                    )
                count += last - first
                bit = (row - y0) * (x1 - x0) - x0
                for column in range(first, last):
                    place[u64(row * tiles_x + column)] += 1
                    mask |= u64(1) << u64((bit + column) & (MASK_BITS - 1))
            hits[i] = mask
            if counts.size:
                counts[order[i]] = count


@kernel(parallel=True, fast=True)
def _fill_tiles(
    records, boxes, order, tiles_x, tile, log_cut, places, hits, members, firsts, homes
):
    """Write ``members``, and ``homes`` if there are any, and advance ``places``."""
    runs = places.shape[0]
    run = (order.size + runs - 1) // runs
    numbered = homes.size > 0
    for t in prange(runs):
        place = places[t]
        for i in range(t * run, min(order.size, (t + 1) * run)):
            box, mask = boxes[i], hits[i]
            if numbered:
                fetch(firsts, u64(order[min(i + AHEAD, order.size - 1)]))
            home = firsts[order[i]] if numbered else 0
            x0, x1 = np.int64(box.x0), np.int64(box.x1)
            large = (x1 - x0) * (np.int64(box.y1) - np.int64(box.y0)) > MASK_BITS
            for row in range(np.int64(box.y0), np.int64(box.y1)):
                first, last = x0, x1
                if large:
                    first, last = _tiles_in_row(
                        records[order[i]], x0, x1, row * tile, tile, log_cut
                    )
                for column in range(first, last):
                    if large or mask & u64(1):
                        k = u64(row * tiles_x + column)
                        members[u64(place[k])] = order[i]
                        if numbered:
                            homes[u64(place[k])] = home
                            home += 1
                        place[k] += 1
                    mask >>= u64(1)


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
