"""Which views have seen which surfel: one chain of view ids per surfel.

Appending is cheap; reading hops along a chain. Chains are laid out in a row again whenever the
number of links has doubled, so that hops stay within a cache line. No result depends on the
order within a chain.
"""

from __future__ import annotations

import numpy as np

from renderers.kernels import kernel
from spatial_memory.columns import Columns

_MIN_LINKS = 1 << 16


class Observers:
    """Sets of view ids, one per surfel."""

    def __init__(self) -> None:
        self._heads = Columns(first=(np.int32, ()))
        self._links = Columns(view=(np.int32, ()), next=(np.int32, ()))
        self._in_a_row = 0

    def __len__(self) -> int:
        return len(self._links)

    @property
    def first(self) -> np.ndarray:
        """(n,) int32 first link of each surfel, -1 for none."""
        return self._heads.first

    @property
    def view(self) -> np.ndarray:
        """(links,) int32 view id of each link."""
        return self._links.view

    @property
    def next(self) -> np.ndarray:
        """(links,) int32 following link, -1 at the end of a chain."""
        return self._links.next

    def add_surfels(self, count: int) -> None:
        """Make room for new surfels, which nobody has seen yet."""
        self._heads.append(count, first=-1)

    def add(self, surfels: np.ndarray, view_id: int) -> None:
        """Note that a view has seen these surfels; it must not be among their observers yet.

        Args:
            surfels: (m,) rows, each once.
            view_id: The view.
        """
        start = len(self._links)
        self._links.append(len(surfels), view=view_id, next=self._heads.first[surfels])
        self._heads.first[surfels] = np.arange(start, start + len(surfels), dtype=np.int32)
        if len(self._links) > max(2 * self._in_a_row, _MIN_LINKS):
            self.restore(len(self._heads), *self.pairs())

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """All (surfel, view) pairs as two int32 arrays, sorted by surfel, then by view."""
        surfels, views = np.empty(len(self), np.int32), np.empty(len(self), np.int32)
        _unchain(self.first, self.view, self.next, surfels, views)
        return surfels, views

    def restore(self, count: int, surfels: np.ndarray, views: np.ndarray) -> None:
        """Start again from pairs.

        Args:
            count: Number of surfels.
            surfels: (m,) rows, ascending.
            views: (m,) view ids, ascending within a surfel.
        """
        self._heads = Columns(first=(np.int32, ()))
        self._links = Columns(view=(np.int32, ()), next=(np.int32, ()))
        self._heads.append(count, first=-1)
        self._links.append(len(surfels), view=views, next=-1)
        _chain(np.ascontiguousarray(surfels), self.first, self.next)
        self._in_a_row = len(surfels)

    def drop_view(self, view_id: int) -> np.ndarray:
        """Forget what a view has seen.

        Returns:
            (n,) bool: the surfels that nobody else has seen.
        """
        surfels, views = self.pairs()
        others = views != view_id
        self.restore(len(self._heads), surfels[others], views[others])
        return self.first < 0

    def keep_surfels(self, mask: np.ndarray) -> None:
        """Drop the surfels where ``mask`` is False; the others close ranks."""
        surfels, views = self.pairs()
        row = np.cumsum(mask, dtype=np.int32) - 1
        kept = mask[surfels]
        self.restore(int(np.count_nonzero(mask)), row[surfels[kept]], views[kept])


@kernel()
def _unchain(first, view, following, surfels, views):
    count = 0
    for surfel in range(len(first)):
        start = count
        link = first[surfel]
        while link >= 0:
            surfels[count], views[count] = surfel, view[link]
            count += 1
            link = following[link]
        views[start:count].sort()


@kernel()
def _chain(surfels, first, following):
    for link in range(len(surfels) - 1, -1, -1):
        following[link] = first[surfels[link]]
        first[surfels[link]] = link
