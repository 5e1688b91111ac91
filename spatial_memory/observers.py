"""Which views have seen which surfel: one set of view ids per surfel.

All sets lie in one pool of int32, each in a slot of 4, 8, 16 ... places. A set that outgrows its
slot moves into one twice as large and leaves the old one to others, so that adding costs what is
added, whatever is there already. No result depends on the order within a set.

Two more things are kept at hand: how many surfels only one view has seen, which is what
forgetting it would lose, and the blocks of rows in which a view has seen anything.
"""

from __future__ import annotations

import numpy as np

from renderers.kernels import kernel
from spatial_memory.columns import Columns

_CLASSES = 30  # slots of 4, 8 ... 2^31 places
_MAX_PARTS = 16


class Observers:
    """Sets of view ids, one per surfel."""

    def __init__(self, block: int) -> None:
        """Create sets for no surfels.

        Args:
            block: Rows per block.
        """
        self._block = block
        self._sets = Columns(start=(np.int32, ()), count=(np.int32, ()), size=(np.int8, ()))
        self._pool = np.empty(1024, np.int32)
        self._free = np.full(_CLASSES, -1, np.int32)  # first free slot of each size
        self._used = np.zeros(1, np.int64)  # places of the pool given out so far
        self._alone = np.zeros(64, np.int64)
        self._blocks: dict[int, list[np.ndarray]] = {}

    @property
    def sets(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start and length of each surfel's set, int32 (n,), and the pool that holds them all."""
        return self._sets.start, self._sets.count, self._pool

    @property
    def view_ids(self) -> frozenset[int]:
        """Ids of all views that have seen anything."""
        return frozenset(self._blocks)

    def add_surfels(self, count: int) -> None:
        """Make room for new surfels, which nobody has seen yet."""
        self._sets.append(count, start=0, count=0, size=0)

    def add(self, surfels: np.ndarray, view_id: int) -> None:
        """Note that a view has seen these surfels; it must not be among their observers yet.

        Args:
            surfels: (m,) rows, ascending, each once.
            view_id: The view.
        """
        if len(surfels) == 0:
            return
        s = self._sets
        self._pool = _grown(
            self._pool, int(self._used[0]) + _places_needed(surfels, s.count, s.size)
        )
        self._alone = _grown(self._alone, view_id + 1)
        _add(surfels, view_id, s.start, s.count, s.size, *self._state())
        self._note_blocks(view_id, surfels // self._block)

    def _state(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self._pool, self._free, self._used, self._alone

    def _note_blocks(self, view_id: int, blocks: np.ndarray) -> None:
        first = np.ones(len(blocks), np.bool_)
        first[1:] = blocks[1:] != blocks[:-1]
        parts = self._blocks.setdefault(view_id, [])
        parts.append(blocks[first].astype(np.int32))
        if len(parts) > _MAX_PARTS:
            parts[:] = [np.unique(np.concatenate(parts))]

    def seen_by(self, view_id: int) -> np.ndarray:
        """Rows that a view has seen: (m,) int64, ascending."""
        if view_id not in self._blocks:
            return np.empty(0, np.int64)
        blocks = np.unique(np.concatenate(self._blocks[view_id]))
        rows = np.empty(len(blocks) * self._block, np.int64)
        return rows[: _seen_by(blocks, self._block, view_id, *self.sets, rows)]

    def seen_alone(self, view_ids: np.ndarray) -> np.ndarray:
        """How many surfels each of these views (v,) has seen and no other view: (v,) int64."""
        self._alone = _grown(self._alone, int(view_ids.max(initial=-1)) + 1)
        return self._alone[view_ids]

    def withdraw(self, surfels: np.ndarray, view_id: int) -> None:
        """Note that a view no longer shows these surfels (m,)."""
        _withdraw(surfels, view_id, *self.sets, self._alone)

    def drop_view(self, view_id: int) -> np.ndarray:
        """Forget what a view has seen.

        Returns:
            (m,) int64, ascending: rows that nobody has seen now.
        """
        rows = self.seen_by(view_id)
        self.withdraw(rows, view_id)
        self._blocks.pop(view_id, None)
        return rows[self._sets.count[rows] == 0]

    def drop_surfels(self, rows: np.ndarray) -> None:
        """Forget who has seen these rows, and let others have their places."""
        s = self._sets
        _empty(rows, s.start, s.count, s.size, self._pool, self._free, self._alone)

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All (surfel, view) pairs as two int32 arrays, sorted by surfel, then by view."""
        counts, views = self.sets_of(0, len(self._sets))
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts), views

    def sets_of(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Sizes of the sets of rows ``start`` to ``stop``; the sets in a row, each ascending."""
        starts, counts = self._sets.start[start:stop], self._sets.count[start:stop].copy()
        views = np.empty(int(counts.sum(dtype=np.int64)), np.int32)
        _unpack(starts, counts, self._pool, views)
        return counts, views

    def append(self, counts: np.ndarray, views: np.ndarray) -> None:
        """Add surfels together with their sets.

        Args:
            counts: (n,) size of each set.
            views: The sets, one after another, each without repetition.
        """
        first = len(self._sets)
        self.add_surfels(len(counts))
        s = self._sets
        self._alone = _grown(self._alone, int(views.max(initial=-1)) + 1)
        self._pool = _grown(self._pool, int(self._used[0]) + _slots(counts))
        _pack(first, counts, views, s.start, s.count, s.size, self._pool, self._used, self._alone)
        self._list_blocks(first, counts, views)

    def _list_blocks(self, first: int, counts: np.ndarray, views: np.ndarray) -> None:
        last, fill = np.full(len(self._alone), -1), np.zeros(len(self._alone), np.int64)
        _blocks_by_view(first, counts, views, self._block, last, fill, np.empty(0, np.int32))
        ends = np.cumsum(fill)
        starts, blocks = ends - fill, np.empty(int(ends[-1]), np.int32)
        last[:] = -1
        _blocks_by_view(first, counts, views, self._block, last, starts.copy(), blocks)
        for view_id in np.flatnonzero(fill).tolist():
            self._note_blocks(view_id, blocks[starts[view_id] : ends[view_id]])


def _grown(array: np.ndarray, size: int) -> np.ndarray:
    """The array, or a copy with at least ``size`` places; new ones are 0."""
    if size <= len(array):
        return array
    grown = np.zeros(max(size, 2 * len(array)), array.dtype)
    grown[: len(array)] = array
    return grown


@kernel()
def _capacity(size):
    return 2 << np.int64(size) if size > 0 else 0


@kernel()
def _places_needed(surfels, count, size):
    """Places that the sets which are full will take when they grow."""
    places = 0
    for row in surfels:
        if count[row] == _capacity(size[row]):
            places += _capacity(size[row] + 1)
    return places


@kernel()
def _add(surfels, view_id, start, count, size, pool, free, used, alone):
    for row in surfels:
        if count[row] == _capacity(size[row]):
            _move(row, start, count, size, pool, free, used)
        if count[row] == 0:
            alone[view_id] += 1
        elif count[row] == 1:
            alone[pool[start[row]]] -= 1
        pool[start[row] + count[row]] = view_id
        count[row] += 1


@kernel()
def _move(row, start, count, size, pool, free, used):
    """Put a set into a slot twice as large."""
    old, larger = start[row], size[row] + 1
    slot = np.int64(free[larger])
    if slot >= 0:
        free[larger] = pool[slot]
    else:
        slot = used[0]
        used[0] += _capacity(larger)
    for i in range(count[row]):
        pool[slot + i] = pool[old + i]
    if size[row] > 0:
        pool[old], free[size[row]] = free[size[row]], old
    start[row], size[row] = slot, larger


@kernel()
def _empty(rows, start, count, size, pool, free, alone):
    for row in rows:
        if count[row] == 1:
            alone[pool[start[row]]] -= 1
        if size[row] > 0:
            pool[start[row]], free[size[row]] = free[size[row]], start[row]
        count[row] = size[row] = 0


@kernel()
def _seen_by(blocks, length, view_id, start, count, pool, rows):
    found = 0
    for block in blocks:
        for row in range(block * length, min((block + 1) * length, len(start))):
            for i in range(start[row], start[row] + count[row]):
                if pool[i] == view_id:
                    rows[found] = row
                    found += 1
                    break
    return found


@kernel()
def _withdraw(surfels, view_id, start, count, pool, alone):
    for row in surfels:
        i, end = start[row], start[row] + count[row]
        while i < end and pool[i] != view_id:
            i += 1
        if i == end:
            continue
        pool[i] = pool[end - 1]
        count[row] -= 1
        if count[row] == 1:
            alone[pool[start[row]]] += 1
        elif count[row] == 0:
            alone[view_id] -= 1


@kernel()
def _unpack(starts, counts, pool, views):
    done = 0
    for row in range(len(starts)):
        for i in range(counts[row]):
            views[done + i] = pool[starts[row] + i]
        views[done : done + counts[row]].sort()
        done += counts[row]


@kernel()
def _slots(counts):
    """Places in slots that hold sets of these sizes."""
    places = 0
    for n in counts:
        size = 0
        while _capacity(size) < n:
            size += 1
        places += _capacity(size)
    return places


@kernel()
def _pack(first, counts, views, start, count, size, pool, used, alone):
    done = 0
    for i in range(len(counts)):
        row, n = first + i, counts[i]
        while _capacity(size[row]) < n:
            size[row] += 1
        start[row], count[row] = used[0], n
        used[0] += _capacity(size[row])
        for k in range(n):
            pool[start[row] + k] = views[done + k]
        if n == 1:
            alone[views[done]] += 1
        done += n


@kernel()
def _blocks_by_view(first, counts, views, length, last, fill, out):
    """Move ``fill`` on once per block in which a view has seen anything; note the block there."""
    done = 0
    for i in range(len(counts)):
        block = (first + i) // length
        for view in views[done : done + counts[i]]:
            if last[view] != block:
                last[view] = block
                if len(out) > 0:
                    out[fill[view]] = block
                fill[view] += 1
        done += counts[i]
