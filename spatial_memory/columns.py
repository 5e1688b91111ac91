"""A struct of arrays that grows: each column is one numpy array with room to spare."""

from __future__ import annotations

from typing import Any

import numpy as np

LARGE = 1 << 17
"""Places up to which an array grows by doubling."""
RESERVE = 1 << 23
"""Places that a larger one has at once, if it needs no more."""
STEP = 1 << 20
"""Places that are added to an array that moves without being copied, at least."""


def room_for(needed: int, before: int) -> int:
    """How many places an array should have that has too few.

    Twice as many as before, so that growth costs what is added. But copying what is large makes
    somebody wait: from LARGE on it moves once, to where there is room for millions. Places that
    nobody has written to take addresses, not memory.

    Args:
        needed: Places needed, above ``before``.
        before: Places that it has.
    """
    return max(needed, 2 * before, 1024 if needed <= LARGE else RESERVE)


def grown(array: np.ndarray, size: int) -> np.ndarray:
    """An array with at least ``size`` places, new ones 0, in place of one that nobody else holds.

    Where it is large the system moves its pages and copies nothing (Linux; others copy), so it
    takes little more than it needs.
    """
    if size > len(array):
        before = len(array)
        room = max(size, 2 * before if size <= LARGE else before + max(STEP, before // 16))
        array.resize(room, refcheck=False)
    return array


class Columns:
    """Named columns of equal length. ``table.name`` is a view of the rows in use.

    A view is valid until the next :meth:`append` or :meth:`keep`.
    """

    def __init__(self, **columns: tuple[Any, tuple[int, ...]]) -> None:
        """Create an empty table.

        Args:
            columns: Name to dtype and shape of one row, for example ``p=(np.float32, (3,))``.
        """
        self._rows = 0
        self._room = {
            name: np.empty((0, *shape), np.dtype(dtype)) for name, (dtype, shape) in columns.items()
        }

    def __len__(self) -> int:
        return self._rows

    def __getattr__(self, name: str) -> np.ndarray:
        room = self.__dict__.get("_room", {})
        if name not in room:
            raise AttributeError(f"no column {name!r}; there are {', '.join(room)}")
        return room[name][: self._rows]

    def names(self) -> tuple[str, ...]:
        """Names of all columns, in the order of their creation."""
        return tuple(self._room)

    def append(self, rows: int, **values: Any) -> None:
        """Add rows at the end.

        Args:
            rows: How many.
            values: One value, or one array of ``rows`` values, for every column.
        """
        assert values.keys() == self._room.keys()
        end = self._rows + rows
        for name, column in self._room.items():
            if end > len(column):
                room = room_for(end, len(column))
                grown = np.empty((room, *column.shape[1:]), column.dtype)
                grown[: self._rows] = column[: self._rows]
                self._room[name] = grown
            self._room[name][self._rows : end] = values[name]
        self._rows = end

    def keep(self, mask: np.ndarray) -> None:
        """Drop the rows where ``mask`` is False; the order of the others stays."""
        kept = {name: getattr(self, name)[mask] for name in self._room}
        self._room = kept
        self._rows = int(np.count_nonzero(mask))
