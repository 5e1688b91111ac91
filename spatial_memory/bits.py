"""Sets of views as entries of bits: the kernels of spatial_memory/observers.py.

Arrays by block: ``start``, ``count`` and ``size`` of its slot. Arrays by place in the pool:
``pool``, the view of an entry, and ``bits``, which of the block's surfels it has seen. By surfel:
``counts``, how many views have seen it. By view: ``alone``, how many surfels only it has seen.
"""

from __future__ import annotations

import numpy as np

from renderers.kernels import kernel

BLOCK = 64
"""Surfels per block: one bit each."""


@kernel()
def _capacity(size):
    return 2 << np.int64(size) if size > 0 else 0


@kernel()
def places_needed(blocks, count):
    """A bound on the places that blocks take when they get these entries."""
    places, i = 0, 0
    while i < len(blocks):
        first = i
        while i < len(blocks) and blocks[i] == blocks[first]:
            i += 1
        places += 8 + 4 * (count[blocks[first]] + i - first)
    return places


@kernel()
def merge_entries(
    blocks, views, masks, start, count, size, pool, bits, counts, alone, free, used, place
):  # fmt: skip
    """Add entries. ``place`` tells where a view stands in the current block; -1: nowhere."""
    for i in range(len(blocks)):
        block, view = blocks[i], views[i]
        if i == 0 or block != blocks[i - 1]:
            for k in range(count[block]):
                place[pool[start[block] + k]] = k
        if place[view] < 0:
            if count[block] == _capacity(size[block]):
                _move(block, start, count, size, pool, bits, free, used)
            place[view] = count[block]
            pool[start[block] + count[block]] = view
            bits[start[block] + count[block]] = 0
            count[block] += 1
        entry = start[block] + place[view]
        for bit in range(BLOCK):
            if (masks[i] & ~bits[entry]) >> bit & 1:
                row = block * BLOCK + bit
                if counts[row] == 0:
                    alone[view] += 1
                elif counts[row] == 1:
                    alone[_only(bit, block, start, count, pool, bits)] -= 1
                counts[row] += 1
        bits[entry] |= masks[i]
        if i + 1 == len(blocks) or block != blocks[i + 1]:
            for k in range(count[block]):
                place[pool[start[block] + k]] = -1


@kernel()
def _move(block, start, count, size, pool, bits, free, used):
    """Put a block's entries into a slot twice as large."""
    old, larger = start[block], size[block] + 1
    slot = np.int64(free[larger])
    if slot >= 0:
        free[larger] = pool[slot]
    else:
        slot = used[0]
        used[0] += _capacity(larger)
    for k in range(count[block]):
        pool[slot + k], bits[slot + k] = pool[old + k], bits[old + k]
    if size[block] > 0:
        pool[old], free[size[block]] = free[size[block]], old
    start[block], size[block] = slot, larger


@kernel()
def _only(bit, block, start, count, pool, bits):
    """The view that has seen a surfel which one view has seen."""
    entry = start[block]
    while entry < start[block] + count[block] - 1 and not bits[entry] >> bit & 1:
        entry += 1
    return pool[entry]


@kernel()
def _find(block, view_id, start, count, pool):
    """The entry of a view in a block; -1 for none."""
    for entry in range(start[block], start[block] + count[block]):
        if pool[entry] == view_id:
            return entry
    return -1


@kernel()
def _clear(block, entry, start, count, pool, bits):
    """Remove an entry."""
    last = start[block] + count[block] - 1
    pool[entry], bits[entry] = pool[last], bits[last]
    count[block] -= 1


@kernel()
def rows_seen(blocks, view_id, start, count, size, pool, bits, counts, alone, rows):
    found = 0
    for block in blocks:
        entry = _find(block, view_id, start, count, pool)
        for bit in range(BLOCK if entry >= 0 else 0):
            if bits[entry] >> bit & 1:
                rows[found] = np.int64(block) * BLOCK + bit
                found += 1
    return found


@kernel()
def withdraw_bits(blocks, masks, view_id, start, count, size, pool, bits, counts, alone):
    for i in range(len(blocks)):
        block = blocks[i]
        entry = _find(block, view_id, start, count, pool)
        if entry < 0:
            continue
        gone = bits[entry] & masks[i]
        bits[entry] &= ~gone
        if bits[entry] == 0:
            _clear(block, entry, start, count, pool, bits)
        for bit in range(BLOCK):
            if gone >> bit & 1:
                row = block * BLOCK + bit
                counts[row] -= 1
                if counts[row] == 0:
                    alone[view_id] -= 1
                elif counts[row] == 1:
                    alone[_only(bit, block, start, count, pool, bits)] += 1


@kernel()
def forget_bits(blocks, masks, start, count, size, pool, bits, counts, alone):
    for i in range(len(blocks)):
        block = blocks[i]
        for bit in range(BLOCK):
            if masks[i] >> bit & 1:
                if counts[block * BLOCK + bit] == 1:
                    alone[_only(bit, block, start, count, pool, bits)] -= 1
                counts[block * BLOCK + bit] = 0
        for entry in range(start[block] + count[block] - 1, start[block] - 1, -1):
            bits[entry] &= ~masks[i]
            if bits[entry] == 0:
                _clear(block, entry, start, count, pool, bits)


@kernel()
def add_up(surfels, amounts, start, count, size, pool, bits, counts, alone, counted, sums):
    m = 0
    while m < len(surfels):
        block, first, shown = surfels[m] // BLOCK, m, 0
        while m < len(surfels) and surfels[m] // BLOCK == block:
            shown |= 1 << (surfels[m] % BLOCK)
            m += 1
        for entry in range(start[block], start[block] + count[block]):
            if counted[pool[entry]] and bits[entry] & shown:
                for i in range(first, m):
                    if bits[entry] >> (surfels[i] % BLOCK) & 1:
                        sums[pool[entry]] += amounts[i]


@kernel()
def find_holders(surfels, place, start, count, size, pool, bits, counts, alone, held):
    m = 0
    while m < len(surfels):
        block, first = surfels[m] // BLOCK, m
        while m < len(surfels) and surfels[m] // BLOCK == block:
            held[m] = 0
            m += 1
        for entry in range(start[block], start[block] + count[block]):
            bit = place[pool[entry]]
            for i in range(first, m if bit >= 0 else first):
                held[i] |= (bits[entry] >> (surfels[i] % BLOCK) & 1) << bit


@kernel()
def take_out(surfels, view_id, amounts, start, count, size, pool, bits, counts, alone, sums):
    m = 0
    while m < len(surfels):
        block, first, taken = surfels[m] // BLOCK, m, 0
        seen = _find(block, view_id, start, count, pool)
        while m < len(surfels) and surfels[m] // BLOCK == block:
            if seen >= 0 and amounts[m] != 0:
                taken |= bits[seen] & (1 << (surfels[m] % BLOCK))
            m += 1
        for entry in range(start[block], start[block] + count[block] if taken else 0):
            for i in range(first, m if bits[entry] & taken else first):
                if (bits[entry] & taken) >> (surfels[i] % BLOCK) & 1:
                    sums[pool[entry]] -= amounts[i]
        for i in range(first, m if taken else first):
            if taken >> (surfels[i] % BLOCK) & 1:
                amounts[i] = 0


@kernel()
def list_entries(starts, counts, pool, bits, views, masks):
    done = 0
    for block in range(len(starts)):
        start, n = starts[block], counts[block]
        order = np.argsort(pool[start : start + n])
        for k in range(n):
            views[done + k], masks[done + k] = pool[start + order[k]], bits[start + order[k]]
        done += n


@kernel()
def unpack(counts, views, masks, surfels, out):
    done = found = 0
    for block in range(len(counts)):
        for bit in range(BLOCK):
            for entry in range(done, done + counts[block]):
                if masks[entry] >> bit & 1:
                    surfels[found], out[found] = block * BLOCK + bit, views[entry]
                    found += 1
        done += counts[block]


@kernel()
def renumber(first, counts, views, masks, rows, new_blocks, new_views, new_masks):
    done = found = 0
    for block in range(len(counts)):
        before = (first + block) * BLOCK
        now = rows[before : before + BLOCK]
        highest = now.max() // BLOCK
        for target in range(max(highest - 1, 0), highest + 1):  # of one block, two have parts
            for entry in range(done, done + counts[block]):
                mask = 0
                for bit in range(len(now)):
                    if now[bit] // BLOCK == target and masks[entry] >> bit & 1:
                        mask |= 1 << (now[bit] % BLOCK)
                if mask != 0:
                    new_blocks[found], new_masks[found] = target, mask
                    new_views[found] = views[entry]
                    found += 1
        done += counts[block]
    return found
