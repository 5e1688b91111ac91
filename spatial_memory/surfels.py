"""The surfel map: oriented discs on every surface that was ever seen, and who has seen them.

Fusing a view does four things. Samples merge into surfels they coincide with; the others become
surfels of their own; observers are noted both ways, by depth maps (:mod:`sight`): surfels that the
new view has seen, and earlier views that have seen the new surfels; and surfels go that finer
samples have taken the place of, unless what was observed would give way to what was generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from renderers.kernels import kernel
from spatial_memory.blocks import Blocks, boxes_around
from spatial_memory.columns import Columns
from spatial_memory.hashgrid import NEW, HashGrid
from spatial_memory.observers import BLOCK, Observers, distinct, renumbered, single_bits
from spatial_memory.regions import specks
from spatial_memory.sampling import Samples
from spatial_memory.sight import SMALLEST, may_show, seen_from
from spatial_memory.sights import Sights

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


_AT_ONCE = 4096  # blocks that are copied together


@dataclass(frozen=True)
class FuseRules:
    """When a sample is taken for a surfel that is already there, and when a view has seen one."""

    depth_share: float
    """Largest distance off the plane to merge, as a share of the depth."""
    min_cos: float
    """Smallest cosine between normals to merge."""
    detail: float = 0.0
    """Samples smaller than this are as good as samples of this radius, in metres."""
    least_piece: float = 0.0
    """Share of the picture that a piece of new surface takes, if it is to be mapped."""


class Surfels:
    """Struct of arrays, one row per surfel; rows keep their order for life.

    What is dropped leaves gaps, rows of radius 0, until :meth:`tidy` closes them: that costs as
    much as all surfels, and is done once a quarter of them is gone or somebody wants to see them.
    """

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
        self._gaps = 0
        self._start()

    def _start(self) -> None:
        self._grid, self.blocks = HashGrid(), Blocks()
        self.observers = Observers()
        """Which views have seen which surfel."""

    def __len__(self) -> int:
        return len(self._table)

    @property
    def alive(self) -> int:
        """How many surfels there are, gaps not counted."""
        return len(self._table) - self._gaps

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in COLUMNS:
            raise AttributeError(f"surfels have no {name!r}")
        return getattr(self._table, name)

    def discs(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Copies of points (m, 3), normals (m, 3) and radii (m,) of some rows."""
        points = np.empty((len(rows), 3), np.float32)
        normals, radii = np.empty_like(points), np.empty(len(rows), np.float32)
        _copy(rows, self.points, self.normals, self.radii, points, normals, radii)
        return points, normals, radii

    def fuse(
        self, samples: Samples, view_id: int, provenance: int, sights: Sights, rules: FuseRules
    ) -> int:
        """Bring the samples of a new view into the map.

        Args:
            samples: What the view shows.
            view_id: Its id, above all earlier ones.
            provenance: Index into views.PROVENANCES.
            sights: The sights of all views held, the new one among them.
            rules: What merges.

        Returns:
            How many surfels are new.
        """
        known = self.points, self.normals, self.radii
        shown = samples.points, samples.normals, samples.radii, samples.depths
        limits = rules.depth_share, rules.min_cos, rules.detail
        matches = self._grid.match(shown, known, *limits)
        coarse = self._grid.overlain(shown, known, *limits)
        coarse = coarse[self.provenance[coarse] >= provenance]
        new = matches == NEW
        new &= ~specks(samples, new, rules.least_piece)
        met = distinct(matches[matches >= 0])
        lens, sight = [sights.frustum(view_id)], sights[view_id]
        shown = partial(may_show, sight, tolerance=sights.tolerance)
        near = self.blocks.in_sight(lens, self.points, self.radii, SMALLEST, shown)
        seen = seen_from(sight, *known, sights.tolerance, near)
        rows = distinct(np.concatenate([near[seen], met]))
        self._update(samples, matches, met, provenance)
        self.last_seen[rows] = view_id
        self.observers.add(rows, view_id)
        self._add(samples, new, view_id, provenance)
        count = int(np.count_nonzero(new))
        if count:
            self._note_earlier_views(len(self) - count, view_id, sights)
        self._drop(coarse)
        return count

    def _update(
        self, samples: Samples, matches: np.ndarray, rows: np.ndarray, provenance: int
    ) -> None:
        """Move the surfels that were met again to the mean of what was seen, by confidence."""
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
        self.blocks.widen(rows, self.points, self.radii)

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
        self._index()
        self.observers.add_surfels(count)
        self.observers.add(np.arange(start, start + count), view_id)

    def _index(self) -> None:
        self._grid.extend(self.points, self.radii)
        self.blocks.extend(self.points, self.radii)

    def _note_earlier_views(self, start: int, view_id: int, sights: Sights) -> None:
        """Find the views that have seen the surfels from ``start`` on."""
        discs = self.points[start:], self.normals[start:], self.radii[start:]
        views = sights.reaching(boxes_around(discs[0], discs[2]))
        views = views[views != view_id]
        seen = np.zeros((len(views), start % BLOCK + len(discs[0])), np.bool_)
        for row, earlier in zip(seen, views.tolist(), strict=True):
            row[start % BLOCK :] = seen_from(sights[earlier], *discs, sights.tolerance)
        self.observers.add_table(start // BLOCK, views, seen)

    def drop_view(self, view_id: int) -> int:
        """Forget what a view has seen, and the surfels that only it has seen; return how many."""
        return self._drop(self.observers.drop_view(view_id))

    def drop_box(self, low: np.ndarray, high: np.ndarray) -> int:
        """Forget the surfels whose centres lie in a box (corners included); return how many."""
        rows = self.blocks.in_box(low, high, self.points)
        return self._drop(rows[self.radii[rows] > 0.0])

    def _drop(self, rows: np.ndarray) -> int:
        self._grid.remove(rows)
        self.observers.drop_surfels(rows)
        self.radii[rows] = 0.0
        self._gaps += len(rows)
        if self._gaps > len(self) // 4:
            self.tidy()
        return len(rows)

    def tidy(self) -> None:
        """Close the gaps; the order of rows stays."""
        if self._gaps:
            kept, old = self.radii > 0.0, self.observers
            rows = np.where(kept, np.cumsum(kept) - 1, -1)
            self._table.keep(kept)
            self._gaps = 0
            self._start()
            self.observers.add_surfels(len(self))
            for first in range(0, -(-len(rows) // BLOCK), _AT_ONCE):
                entries = old.entries(first, first + _AT_ONCE)
                self.observers.restore(*renumbered(first, entries, rows))
            self._index()

    def arrays(self, start: int = 0, stop: int | None = None) -> dict[str, np.ndarray]:
        """All columns and all observers of some rows, as arrays to save. There must be no gaps.

        Args:
            start: First row, a multiple of observers.BLOCK.
            stop: Row after the last one; all when left out.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        assert self._gaps == 0 and start % BLOCK == 0
        counts, views, masks = self.observers.entries(start // BLOCK, -(-stop // BLOCK))
        columns = {name: getattr(self, name)[start:stop] for name in COLUMNS}
        return columns | {"entries": counts, "entry_views": views, "entry_masks": masks}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add rows that :meth:`arrays` gave.

        Raises:
            KeyError: A column is missing.
            ValueError: Shapes or dtypes do not fit, or observers point nowhere.
        """
        count = len(arrays["radii"])
        for name, (dtype, shape) in COLUMNS.items():
            if arrays[name].shape != (count, *shape) or arrays[name].dtype != dtype:
                raise ValueError(f"column {name} is {arrays[name].dtype} {arrays[name].shape}")
        if count and not arrays["radii"].min() > 0.0:
            raise ValueError("a surfel has no radius")
        first = len(self)
        blocks, views, masks = _entries_of(arrays, count)
        if len(blocks) and (first % BLOCK or blocks.min() < 0 or views.min() < 0):
            raise ValueError("observers of surfels that are not there")
        self._table.append(count, **{name: arrays[name] for name in COLUMNS})
        self.observers.add_surfels(count)
        self.observers.restore(first // BLOCK + blocks, views, masks)
        self._index()


def _entries_of(
    arrays: Mapping[str, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Blocks, views and bits of observers in files; version 1 had (surfel, view) pairs."""
    if "observed_surfel" in arrays:
        rows, views = arrays["observed_surfel"], arrays["observed_by"]
        if rows.ndim != 1 or rows.shape != views.shape or rows.max(initial=-1) >= count:
            raise ValueError("observers of surfels that are not there")
        blocks, bits = single_bits(rows)
        return blocks, views.astype(np.int32), bits
    counts, views, masks = (arrays[name] for name in ("entries", "entry_views", "entry_masks"))
    blocks = np.repeat(np.arange(len(counts)), counts)
    if not (len(counts) == -(-count // BLOCK) and blocks.shape == views.shape == masks.shape):
        raise ValueError("observers are incomplete")
    if count % BLOCK and (masks[blocks == count // BLOCK] >> (count % BLOCK)).any():
        raise ValueError("observers of surfels that are not there")
    return blocks, views.astype(np.int32), masks.astype(np.int64)


@kernel()
def _copy(rows, points, normals, radii, some_points, some_normals, some_radii):
    for m in range(len(rows)):
        for axis in range(3):
            some_points[m, axis] = points[rows[m], axis]
            some_normals[m, axis] = normals[rows[m], axis]
        some_radii[m] = radii[rows[m]]


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
