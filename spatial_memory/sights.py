"""The sights of all views held, and which of them reach into some part of the world."""

from __future__ import annotations

import numpy as np

from spatial_memory.blocks import Frustum, frustum, reached
from spatial_memory.columns import Columns
from spatial_memory.sight import SMALLEST, Sight, farthest


class Sights:
    """Sights by view id, ascending. Frustums and poses lie in tables: thousands are tested fast."""

    def __init__(self, tolerance: float) -> None:
        """Hold nothing yet.

        Args:
            tolerance: Relative depth error within which a view has seen a surfel.
        """
        self.tolerance = tolerance
        self._sights: dict[int, Sight] = {}
        self._table = Columns(
            ids=(np.int64, ()),
            poses=(np.float64, (3, 4)),
            planes=(np.float64, (6, 4)),
            focals=(np.float64, ()),
        )

    def __len__(self) -> int:
        return len(self._sights)

    def __getitem__(self, view_id: int) -> Sight:
        return self._sights[view_id]

    @property
    def ids(self) -> np.ndarray:
        """(n,) int64 ids of all views, ascending."""
        return self._table.ids

    @property
    def poses(self) -> np.ndarray:
        """(n, 3, 4) float64 cam_from_world of all views, in this order."""
        return self._table.poses

    def add(self, view_id: int, sight: Sight) -> None:
        """Keep the sight of a new view, whose id is above all others."""
        it = self._frustum(sight)
        self._table.append(1, ids=view_id, poses=sight.pose, planes=it.planes, focals=it.focal)
        self._sights[view_id] = sight

    def replace(self, view_id: int, sight: Sight) -> None:
        """Put another sight in the place of one that is there; the pose stays."""
        self._table.planes[np.searchsorted(self.ids, view_id)] = self._frustum(sight).planes
        self._sights[view_id] = sight

    def remove(self, view_id: int) -> None:
        """Drop a view."""
        self._table.keep(self.ids != view_id)
        del self._sights[view_id]

    def frustum(self, view_id: int) -> Frustum:
        """The part of the world that a view may have seen."""
        return self._frustum(self._sights[view_id])

    def _frustum(self, sight: Sight) -> Frustum:
        rows, columns = sight.inverse.shape
        far = farthest(sight, self.tolerance)
        return frustum(sight.pose, sight.lens, columns, rows, far)

    def reaching(self, boxes: tuple[np.ndarray, ...]) -> np.ndarray:
        """Ids of the views that may have seen surfels in some boxes: (v,) int64, ascending.

        Args:
            boxes: Lower corners (b, 3), upper corners (b, 3) and largest radii (b,).
        """
        t = self._table
        return t.ids[reached(t.planes, t.focals, boxes, SMALLEST)]
