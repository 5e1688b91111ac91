"""Which views have seen which surfel: sets of view ids, kept per block of 64 neighbouring rows.

A view that sees a surfel mostly sees its neighbours too. So a block has one entry per view, with
one bit per surfel: 12 bytes for up to 64 pairs. The entries of a block lie in a slot of 4, 8, 16
... places in one pool. A block that outgrows its slot moves into one twice as large and leaves the
old one to others, so that adding costs what is added, whatever is there already. No result
depends on the order of entries.

Two more things are kept at hand: how many surfels only one view has seen, which is what
forgetting it would lose, and the blocks in which a view has seen anything.
"""

from __future__ import annotations

import numpy as np

from spatial_memory.bits import (
    BLOCK,
    add_up,
    find_holders,
    forget_bits,
    list_entries,
    merge_entries,
    places_needed,
    renumber,
    rows_seen,
    take_out,
    unpack,
    withdraw_bits,
)
from spatial_memory.columns import Columns, grown

_CLASSES = 30  # slots of 4, 8 ... 2^31 places
_MAX_PARTS = 16


class Observers:
    """Sets of view ids, one per surfel."""

    def __init__(self) -> None:
        self._counts = Columns(seen_by=(np.int32, ()))
        self._slots = Columns(start=(np.int32, ()), count=(np.int32, ()), size=(np.int8, ()))
        self._views, self._masks = np.zeros(1024, np.int32), np.zeros(1024, np.int64)
        self._free = np.full(_CLASSES, -1, np.int32)  # first free slot of each size
        self._used = np.zeros(1, np.int64)  # places given out so far
        self._alone = np.zeros(64, np.int64)  # by view id
        self._blocks: dict[int, list[np.ndarray]] = {}

    @property
    def view_ids(self) -> frozenset[int]:
        """Ids of all views that have seen anything."""
        return frozenset(self._blocks)

    def add_surfels(self, count: int) -> None:
        """Make room for new surfels, which nobody has seen yet."""
        self._counts.append(count, seen_by=0)
        blocks = -(-len(self._counts) // BLOCK) - len(self._slots)
        self._slots.append(blocks, start=0, count=0, size=0)

    def add(self, surfels: np.ndarray, view_id: int) -> None:
        """Note that a view has seen these surfels.

        Args:
            surfels: (m,) rows, ascending.
            view_id: The view.
        """
        blocks, masks = _grouped(surfels)
        if len(blocks):
            self._merge(blocks, np.full(len(blocks), view_id, np.int32), masks)
            self._note(view_id, blocks)

    def add_table(self, first: int, views: np.ndarray, seen: np.ndarray) -> None:
        """Note what many views have seen of neighbouring surfels.

        Args:
            first: Block of the first surfel, which is the first of its block.
            views: (v,) view ids.
            seen: (v, m) bool: which of the surfels from there on each has seen.
        """
        table = np.zeros((len(views), -(-seen.shape[1] // BLOCK) * BLOCK // 8), np.uint8)
        bits = np.packbits(seen, axis=1, bitorder="little")
        table[:, : bits.shape[1]] = bits
        masks = table.view("<i8").T  # (blocks, v)
        blocks, columns = np.nonzero(masks)
        self.restore(first + blocks, views[columns].astype(np.int32), masks[blocks, columns])

    def _merge(self, blocks: np.ndarray, views: np.ndarray, masks: np.ndarray) -> None:
        """Add entries: block, view and bits of each. Those of one block stand together."""
        room = int(self._used[0]) + places_needed(blocks, self._slots.count)
        self._views, self._masks = grown(self._views, room), grown(self._masks, room)
        self._alone = grown(self._alone, int(views.max()) + 1)
        place = np.full(len(self._alone), -1, np.int32)
        merge_entries(blocks, views, masks, *self._state(), self._free, self._used, place)

    def _state(self) -> tuple[np.ndarray, ...]:
        s = self._slots
        counts, pools = self._counts.seen_by, (self._views, self._masks)
        return s.start, s.count, s.size, *pools, counts, self._alone

    def _note(self, view_id: int, blocks: np.ndarray) -> None:
        parts = self._blocks.setdefault(view_id, [])
        parts.append(blocks.astype(np.int32))
        if len(parts) > _MAX_PARTS:
            parts[:] = [distinct(np.concatenate(parts))]

    def seen_by(self, view_id: int) -> np.ndarray:
        """Rows that a view has seen: (m,) int64, ascending."""
        if view_id not in self._blocks:
            return np.empty(0, np.int64)
        blocks = distinct(np.concatenate(self._blocks[view_id]))
        rows = np.empty(len(blocks) * BLOCK, np.int64)
        return rows[: rows_seen(blocks, view_id, *self._state(), rows)]

    def seen_alone(self, view_ids: np.ndarray) -> np.ndarray:
        """How many surfels each of these views (v,) has seen and no other view: (v,) int64."""
        self._alone = grown(self._alone, int(view_ids.max(initial=-1)) + 1)
        return self._alone[view_ids]

    def withdraw(self, surfels: np.ndarray, view_id: int) -> None:
        """Note that a view no longer shows these surfels: (m,) rows, ascending."""
        blocks, masks = _grouped(surfels)
        withdraw_bits(blocks, masks, view_id, *self._state())

    def drop_view(self, view_id: int) -> np.ndarray:
        """Forget what a view has seen.

        Returns:
            (m,) int64, ascending: rows that nobody has seen now.
        """
        rows = self.seen_by(view_id)
        self.withdraw(rows, view_id)
        self._blocks.pop(view_id, None)
        return rows[self._counts.seen_by[rows] == 0]

    def drop_surfels(self, rows: np.ndarray) -> None:
        """Forget who has seen these rows (m,), ascending."""
        blocks, masks = _grouped(rows)
        forget_bits(blocks, masks, *self._state())

    def add_up(
        self, surfels: np.ndarray, amounts: np.ndarray, counted: np.ndarray, sums: np.ndarray
    ) -> None:
        """Add the amount of each surfel to the sums of all views that have seen it.

        Args:
            surfels: (m,) rows, ascending.
            amounts: (m,) what each is worth.
            counted: Whether the sum of a view matters: bool, by view id.
            sums: By view id; changed.
        """
        add_up(surfels, amounts, *self._state(), counted, sums)

    def take_out(
        self, surfels: np.ndarray, view_id: int, amounts: np.ndarray, sums: np.ndarray
    ) -> None:
        """Take the amounts of all surfels that a view has seen out of all sums, and set them to 0.

        Args:
            surfels: (m,) rows, ascending.
            view_id: The view.
            amounts: (m,) as in :meth:`add_up`; changed.
            sums: By view id; changed.
        """
        take_out(surfels, view_id, amounts, *self._state(), sums)

    def holders(self, surfels: np.ndarray, view_ids: np.ndarray) -> np.ndarray:
        """Which of a few views have seen each surfel.

        Args:
            surfels: (m,) rows, ascending.
            view_ids: (v,) up to 62 views.

        Returns:
            (m,) int64: bit i stands for the i-th of the views.
        """
        place = np.full(len(self._alone), -1, np.int64)
        place[view_ids] = np.arange(len(view_ids))
        held = np.empty(len(surfels), np.int64)
        find_holders(surfels, place, *self._state(), held)
        return held

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All (surfel, view) pairs as two int32 arrays, sorted by surfel, then by view."""
        count = int(self._counts.seen_by.sum(dtype=np.int64))
        surfels, views = np.empty(count, np.int32), np.empty(count, np.int32)
        unpack(*self.entries(0, len(self._slots)), surfels, views)
        return surfels, views

    def entries(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What there is of the blocks from ``start`` to ``stop``.

        Returns:
            (b,) int32 number of entries of each block; view ids, int32, and bits, int64, of all
            entries, block by block and by rising view id.
        """
        starts, counts = self._slots.start[start:stop], self._slots.count[start:stop].copy()
        count = int(counts.sum(dtype=np.int64))
        views, masks = np.empty(count, np.int32), np.empty(count, np.int64)
        list_entries(starts, counts, self._views, self._masks, views, masks)
        return counts, views, masks

    def restore(self, blocks: np.ndarray, views: np.ndarray, masks: np.ndarray) -> None:
        """Add entries of surfels that are there already.

        Args:
            blocks: (e,) the block of each, ascending.
            views: (e,) view ids, int32.
            masks: (e,) int64 bits.
        """
        if len(blocks) == 0:
            return
        self._merge(blocks, views, masks)
        order = np.argsort(views, kind="stable")
        found, first = np.unique(views[order], return_index=True)
        for view_id, part in zip(found.tolist(), np.split(blocks[order], first[1:]), strict=True):
            self._note(view_id, part)


def distinct(rows: np.ndarray) -> np.ndarray:
    """Each of some integers from 0 on once, ascending; unlike numpy's own this sorts."""
    rows = np.sort(rows)
    return rows[np.diff(rows, prepend=-1) > 0]


def single_bits(surfels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The block (m,) int64 and the bit (m,) int64 of each of some rows."""
    rows = surfels.astype(np.int64)
    return rows // BLOCK, np.left_shift(np.int64(1), rows % BLOCK)


def renumbered(
    first: int, entries: tuple[np.ndarray, np.ndarray, np.ndarray], rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Entries after some surfels have gone and the others have closed ranks.

    Args:
        first: The first block.
        entries: What :meth:`Observers.entries` gave for it and those after it.
        rows: (n,) new row of every old row, -1 for those gone.

    Returns:
        Blocks, views and bits, as for :meth:`Observers.restore`.
    """
    room = 2 * len(entries[1])
    blocks, views, masks = (
        np.empty(room, np.int64),
        np.empty(room, np.int32),
        np.empty(room, np.int64),
    )
    count = renumber(first, *entries, rows, blocks, views, masks)
    return blocks[:count], views[:count], masks[:count]


def _grouped(surfels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows, ascending, as blocks (b,) and bits (b,)."""
    blocks, bits = single_bits(surfels)
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    return blocks[starts], np.bitwise_or.reduceat(bits, starts) if len(starts) else bits
