"""The surfel map: oriented discs on every surface that was ever seen, and who has seen them.

Fusing a view does three things. Samples merge into surfels they coincide with; the others become
surfels of their own; and observers are noted both ways, by depth maps (:mod:`sight`): surfels
that the new view has seen, and earlier views that have seen the new surfels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from renderers.kernels import kernel
from spatial_memory.columns import Columns
from spatial_memory.hashgrid import HashGrid
from spatial_memory.observers import Observers
from spatial_memory.sampling import Samples
from spatial_memory.sight import Sight, seen_from

COLUMNS = {
    "points": (np.float32, (3,)),
    "normals": (np.float32, (3,)),
    "radii": (np.float32, ()),
    "colors": (np.float32, (3,)),
    "confidence": (np.float32, ()),
    "first_seen": (np.int32, ()),
    "last_seen": (np.int32, ()),
    "provenance": (np.uint8, ()),
}


@dataclass(frozen=True)
class FuseRules:
    """When a sample is taken for a surfel that is already there, and when a view has seen one."""

    depth_share: float
    """Largest distance off the plane to merge, as a share of the depth."""
    min_cos: float
    """Smallest cosine between normals to merge."""
    tolerance: float
    """Relative depth error within which a view has seen a surfel."""


class Surfels:
    """Struct of arrays, one row per surfel; rows keep their order for life."""

    points: np.ndarray
    """(n, 3) centres in the world, in metres."""
    normals: np.ndarray
    """(n, 3) unit normals, out of the surface."""
    radii: np.ndarray
    """(n,) in metres."""
    colors: np.ndarray
    """(n, 3) sRGB, 0 to 1."""
    confidence: np.ndarray
    """(n,) sum of cos / (1 + z) over the samples merged."""
    first_seen: np.ndarray
    """(n,) id of the view that made it."""
    last_seen: np.ndarray
    """(n,) id of the latest view that has seen it."""
    provenance: np.ndarray
    """(n,) index into views.PROVENANCES: the best of the samples merged."""

    def __init__(self) -> None:
        self._table = Columns(**COLUMNS)
        self._grid = HashGrid()
        self.observers = Observers()
        """Which views have seen which surfel."""

    def __len__(self) -> int:
        return len(self._table)

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in COLUMNS:
            raise AttributeError(f"surfels have no {name!r}")
        return getattr(self._table, name)

    def fuse(
        self,
        samples: Samples,
        view_id: int,
        provenance: int,
        sights: Mapping[int, Sight],
        rules: FuseRules,
    ) -> int:
        """Bring the samples of a new view into the map.

        Args:
            samples: What the view shows.
            view_id: Its id, above all earlier ones.
            provenance: Index into views.PROVENANCES.
            sights: The sights of all views held, the new one among them.
            rules: What merges, and what counts as seen.

        Returns:
            How many surfels are new.
        """
        matches = self._grid.match(
            (samples.points, samples.normals, samples.radii, samples.depths),
            (self.points, self.normals, self.radii),
            rules.depth_share,
            rules.min_cos,
        )
        new = matches < 0
        seen = seen_from(sights[view_id], self.points, self.normals, self.radii, rules.tolerance)
        seen[matches[~new]] = True
        self._update(samples, matches, provenance)
        rows = np.flatnonzero(seen)
        self.last_seen[rows] = view_id
        self.observers.add(rows, view_id)
        self._add(samples, new, view_id, provenance)
        self._note_earlier_views(int(new.sum()), view_id, sights, rules.tolerance)
        return int(new.sum())

    def _update(self, samples: Samples, matches: np.ndarray, provenance: int) -> None:
        """Move the surfels that were met again to the mean of what was seen, by confidence."""
        rows = np.unique(matches[matches >= 0])
        _average(
            samples.points,
            samples.normals,
            samples.radii,
            samples.colors,
            samples.weights,
            matches,
            rows,
            np.uint8(provenance),
            self.points,
            self.normals,
            self.radii,
            self.colors,
            self.confidence,
            self.provenance,
        )
        self._grid.moved(rows, self.points, self.radii)

    def _add(self, samples: Samples, new: np.ndarray, view_id: int, provenance: int) -> None:
        count, start = int(new.sum()), len(self)
        self._table.append(
            count,
            points=samples.points[new],
            normals=samples.normals[new],
            radii=samples.radii[new],
            colors=samples.colors[new],
            confidence=samples.weights[new],
            first_seen=view_id,
            last_seen=view_id,
            provenance=provenance,
        )
        self._grid.extend(self.points, self.radii)
        self.observers.add_surfels(count)
        self.observers.add(np.arange(start, start + count), view_id)

    def _note_earlier_views(
        self, count: int, view_id: int, sights: Mapping[int, Sight], tolerance: float
    ) -> None:
        start = len(self) - count
        points, normals, radii = self.points[start:], self.normals[start:], self.radii[start:]
        for earlier, sight in sights.items():
            if earlier != view_id and count:
                seen = seen_from(sight, points, normals, radii, tolerance)
                self.observers.add(start + np.flatnonzero(seen), earlier)

    def drop_view(self, view_id: int) -> int:
        """Forget what a view has seen, and the surfels that only it has seen; return how many."""
        orphans = self.observers.drop_view(view_id)
        self._keep(~orphans)
        return int(orphans.sum())

    def drop_box(self, low: np.ndarray, high: np.ndarray) -> int:
        """Forget the surfels whose centres lie in a box (corners included); return how many."""
        inside = np.all((self.points >= low) & (self.points <= high), axis=1)
        self._keep(~inside)
        return int(inside.sum())

    def _keep(self, mask: np.ndarray) -> None:
        if mask.all():
            return
        self._table.keep(mask)
        self.observers.keep_surfels(mask)
        self._index()

    def _index(self) -> None:
        self._grid = HashGrid()
        self._grid.extend(self.points, self.radii)

    def arrays(self) -> dict[str, np.ndarray]:
        """All columns and all observers, as arrays to save."""
        surfels, views = self.observers.pairs()
        columns = {name: getattr(self, name) for name in COLUMNS}
        return columns | {"observed_surfel": surfels, "observed_by": views}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Surfels:
        """The inverse of :meth:`arrays`.

        Raises:
            KeyError: A column is missing.
            ValueError: Shapes or dtypes do not fit, or observers point nowhere.
        """
        surfels = cls()
        count = len(arrays["radii"])
        for name, (dtype, shape) in COLUMNS.items():
            if arrays[name].shape != (count, *shape) or arrays[name].dtype != dtype:
                raise ValueError(f"column {name} is {arrays[name].dtype} {arrays[name].shape}")
        rows, views = arrays["observed_surfel"], arrays["observed_by"]
        if rows.ndim != 1 or rows.shape != views.shape:
            raise ValueError("observers are incomplete")
        if len(rows) and (rows.min() < 0 or rows.max() >= count):
            raise ValueError("observers of surfels that are not there")
        surfels._table.append(count, **{name: arrays[name] for name in COLUMNS})
        surfels.observers.restore(count, rows.astype(np.int32), views.astype(np.int32))
        surfels._index()
        return surfels


@kernel()
def _average(
    q_points, q_normals, q_radii, q_colors, q_weights, matches, rows, provenance,
    points, normals, radii, colors, confidence, best,
):  # fmt: skip
    """Confidence-weighted means of the surfels ``rows`` and the samples that match them.

    What was generated never moves what was observed, and what is observed replaces what was
    generated. ``provenance`` ranks the samples, ``best`` the surfels; 0 is best. A sample coarser
    than its surfel counts for less, by area.
    """
    sums = np.zeros((rows.shape[0], 11))
    for m in range(matches.shape[0]):
        if matches[m] < 0:
            continue
        into = sums[np.searchsorted(rows, matches[m])]
        coarser = max(1.0, np.float64(q_radii[m]) / radii[matches[m]])
        weight = q_weights[m] / (coarser * coarser)
        for axis in range(3):
            into[axis] += weight * q_points[m, axis]
            into[3 + axis] += weight * q_normals[m, axis]
            into[6 + axis] += weight * q_colors[m, axis]
        into[9] += weight * q_radii[m]
        into[10] += weight
    for r in range(rows.shape[0]):
        row, new = rows[r], sums[r]
        if new[10] <= 0.0 or provenance > best[row]:
            continue
        old = np.float64(confidence[row]) if provenance == best[row] else 0.0
        total = old + new[10]
        squared = 0.0
        for axis in range(3):
            points[row, axis] = (old * points[row, axis] + new[axis]) / total
            colors[row, axis] = (old * colors[row, axis] + new[6 + axis]) / total
            squared += (old * normals[row, axis] + new[3 + axis]) ** 2
        for axis in range(3):
            normals[row, axis] = (old * normals[row, axis] + new[3 + axis]) / np.sqrt(squared)
        radii[row] = max(radii[row], (old * radii[row] + new[9]) / total)  # or holes open
        confidence[row], best[row] = total, provenance
