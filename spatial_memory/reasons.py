"""Why views were taken or not: for every view held, in numbers and in words.

A retrieval keeps arrays only; records and sentences are made when somebody reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

PINNED, MOST, NEAREST = "pinned", "adds most", "nearest pose"
FILLS = "a place was left"
UNSEEN, LITTLE, ENOUGH = "shows nothing", "adds too little", "enough are taken"
HIDDEN = "hidden by what nobody has seen"
"""Why a view was taken, and why not."""


class Candidate(NamedTuple):
    """One view that a retrieval considered."""

    view_id: int
    taken: bool
    cause: str
    """One of PINNED, MOST, FILLS, NEAREST where taken; one of UNSEEN, HIDDEN, LITTLE, ENOUGH
    where not."""
    shows: float
    """Share of the target pixels that it shows and that nothing had explained."""
    adds: float
    """Share that it added when it was taken, or would add to all that were taken."""
    distance: float | None
    """Distance of its pose, in radians, where that decided (see retrieve.pose_distances)."""

    @property
    def reason(self) -> str:
        """One line for people."""
        shows = f"shows {self.shows:.1%}"
        if self.cause == UNSEEN:
            return "not taken: has seen nothing that is visible and needed here"
        if self.cause == HIDDEN:
            return f"not taken: {shows}, but across space that no view has looked through"
        if self.cause == LITTLE:
            return f"not taken: {shows}, would add only {self.adds:.1%} to the views taken"
        if self.cause == ENOUGH:
            return f"not taken: {shows}, would add {self.adds:.1%}, but enough are taken"
        what = f"{shows}, adds {self.adds:.1%}"
        if self.cause == PINNED:
            return f"taken: pinned; {what}"
        if self.cause == FILLS:
            return f"taken: {what}, which is little or in doubt, but a place was left"
        if self.cause == NEAREST:
            return (
                f"taken: nearest pose ({self.distance:.2f}), "
                f"as next to nothing is mapped here; {what}"
            )
        return f"taken: {what}"


@dataclass(frozen=True, eq=False)
class Candidates(Sequence[Candidate]):
    """All views that a retrieval considered, by rising id."""

    ids: np.ndarray
    """(n,) int64 view ids, rising."""
    shows: np.ndarray
    """(n,) share of the target pixels that each shows."""
    adds: np.ndarray
    """(n,) share that each would add to the views taken."""
    hidden: np.ndarray
    """(n,) share that each would add to them if nothing hid it, see freespace.behind_unknown."""
    least: float
    """Share below which a view is not worth taking."""
    taken: dict[int, tuple[str, float, float | None]]
    """Cause, share added and distance of those taken, by id."""

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Candidate, ...]: ...
    def __getitem__(self, index: int | slice) -> Candidate | tuple[Candidate, ...]:
        """One candidate, or some, by their place among the ids."""
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        columns = self.ids, self.shows, self.adds, self.hidden
        return self._make(*(column[index].item() for column in columns))

    def __iter__(self) -> Iterator[Candidate]:
        columns = self.ids, self.shows, self.adds, self.hidden
        return iter(map(self._make, *(column.tolist() for column in columns)))

    def foremost(self, count: int) -> list[int]:
        """Ids of the views taken, and of up to ``count`` others, those that show most: rising."""
        rest = np.flatnonzero(
            ~np.isin(self.ids, np.array([*self.taken], np.int64)) & (self.shows > 0.0)
        )
        most = rest[np.argsort(-self.shows[rest], kind="stable")[:count]]
        return sorted([*self.taken, *self.ids[most].tolist()])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def _make(self, view_id: int, shows: float, adds: float, hidden: float) -> Candidate:
        if view_id in self.taken:
            cause, added, distance = self.taken[view_id]
            return Candidate(view_id, True, cause, shows, added, distance)
        cause = UNSEEN if shows == 0.0 else LITTLE if adds < self.least else ENOUGH
        if cause == LITTLE and adds + hidden >= self.least:
            cause = HIDDEN
        return Candidate(view_id, False, cause, shows, adds, None)
