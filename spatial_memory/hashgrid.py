"""Neighbours in space, for surfels of any size: a voxel hash grid with one level per octave.

A surfel lives in the level whose voxels are 2 to 4 of its reaches wide, and a search looks at the
8 voxels of each level that come within half a voxel. What merges with a sample no larger than
itself is always within them. Of smaller surfels only those nearby are found, which is enough: where
small ones map a place, they lie close together.
"""

from __future__ import annotations

from math import floor, log2

import numpy as np

from renderers.kernels import kernel
from spatial_memory.columns import Columns, grown

REACH = 1.25
"""A sample merges with what lies within this many radii of a surfel: tiles of two views do not fit
each other, and without some slack each further view would fill the chinks of those before it."""
FINER = 0.4
"""A sample smaller than this share of a surfel's radius adds detail, and does not merge with it."""

FINEST = 0.125
"""A sample smaller than this share says nothing about the surfel: who saw it at its own scale
would not count as having seen surfels so small."""
OVERLAIN = 0.5
"""A surfel is overlain where the squares of the radii of finer samples on it come to this share of
its own: that is about a quarter of it."""

ENOUGH = 4
"""A sample only fills a chink where so many of AROUND lie on surfels."""
AROUND = np.array([(0.7 * np.cos(a), 0.7 * np.sin(a)) for a in np.arange(8) * np.pi / 4])
"""Places on a disc, in radii."""

NEW, COVERED = -1, -2
"""What stands for no surfel where a sample merges with none: because nothing is there, or because
it would only fill a chink between surfels that are fine enough."""

_LEVELS = 64
_MIDDLE_LEVEL = 32  # the level of voxels of 1 m


class HashGrid:
    """Chains of surfels by voxel. Answers do not depend on the order of insertion or removal.

    The table of chains grows with the surfels, one chain after the other being split in two
    (Litwin 1980, Linear hashing): it is never built anew.
    """

    def __init__(self) -> None:
        self._table, self._slots = np.zeros(2048, np.int32), 64
        self._entries = Columns(
            slot=(np.int32, ()), next=(np.int32, ()), level=(np.int8, ()), share=(np.float32, ())
        )
        self._population = np.zeros(_LEVELS, np.int64)

    @property
    def _heads(self) -> np.ndarray:
        """(slots,) first surfel of each chain, counted from 1."""
        return self._table[: self._slots]

    def extend(self, points: np.ndarray, radii: np.ndarray) -> None:
        """Insert the rows of ``points`` (n, 3) and ``radii`` (n,) that are not in the grid yet.

        Rows of radius 0 are left out.
        """
        done, count = len(self._entries), len(points)
        self._entries.append(count - done, slot=0, next=-1, level=0, share=0.0)
        e, before = self._entries, self._slots
        self._slots = max(before, 2 * count)
        self._table = grown(self._table, self._slots)
        _split(points, before, self._heads, e.slot, e.next, e.level)
        _insert(points, radii, done, self._heads, e.slot, e.next, e.level, self._population)

    def moved(self, rows: np.ndarray, points: np.ndarray, radii: np.ndarray) -> None:
        """Put ``rows`` into the voxels where they belong now."""
        e = self._entries
        _relink(rows, points, radii, self._heads, e.slot, e.next, e.level, self._population)

    def remove(self, rows: np.ndarray) -> None:
        """Take ``rows`` out, so that nothing matches them any more."""
        e = self._entries
        _unlink(rows, self._heads, e.slot, e.next, e.level, self._population)

    def match(
        self,
        samples: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
        surfels: tuple[np.ndarray, np.ndarray, np.ndarray],
        depth_share: float,
        min_cos: float,
        detail: float = 0.0,
    ) -> np.ndarray:
        """The surfel that each sample merges with.

        Args:
            samples: Points (m, 3), normals (m, 3), radii (m,) and depths (m,).
            surfels: Points (n, 3), normals (n, 3) and radii (n,), as inserted.
            depth_share: Largest distance of either from the plane of the other, as a share of the
                sample's depth: surfaces in front of each other stay apart, whatever their radii.
            min_cos: Smallest cosine between the normals.
            detail: Samples count as no smaller than this where they are compared with FINER, m.

        Returns:
            (m,) int64 rows: the nearest within REACH of the larger of the surfel's radius and the
            mean of both, then the lowest; one whose level is finer than the sample's only if
            there is none of a coarser level. NEW or COVERED for none.
        """
        out = np.empty(len(samples[0]), np.int64)
        e = self._entries
        levels = np.flatnonzero(self._population)
        rules = np.array([depth_share, min_cos, FINER, detail])
        _match(*samples, *surfels, levels, self._heads, e.next, e.level, rules, out)
        return out

    def overlain(
        self,
        samples: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
        surfels: tuple[np.ndarray, np.ndarray, np.ndarray],
        depth_share: float,
        min_cos: float,
        detail: float = 0.0,
    ) -> np.ndarray:
        """Surfels that finer samples lie on, so many that the place is mapped better without them.

        Args:
            samples: As for :meth:`match`.
            surfels: As for :meth:`match`.
            depth_share: As for :meth:`match`.
            min_cos: As for :meth:`match`.
            detail: As for :meth:`match`.

        Returns:
            (r,) int64 rows, ascending.
        """
        e = self._entries
        levels = np.flatnonzero(self._population)
        rules = np.array([depth_share, min_cos, FINER, detail, FINEST])
        rows = _overlay(*samples, *surfels, levels, self._heads, e.next, e.level, rules, e.share)
        found = rows[e.share[rows] >= OVERLAIN]
        e.share[rows] = 0.0
        return np.sort(found)


@kernel()
def _level_of(radius):
    """Level whose voxels are 2 to 4 reaches wide."""
    level = floor(log2(REACH * radius)) + 2 + _MIDDLE_LEVEL
    return min(max(level, 0), _LEVELS - 1)


@kernel()
def _slot(i, j, k, level, slots):
    """A place in the table of chains, which has 64 ``slots`` at least.

    Blocks of 4x4x4 voxels lie together: a search that looks at 8 of them waits for memory once.
    """
    mask = slots - 1
    for shift in (1, 2, 4, 8, 16):
        mask |= mask >> shift
    mixed = (i >> 2) * 73856093 ^ (j >> 2) * 19349663 ^ (k >> 2) * 83492791 ^ level * 2654435761
    mixed ^= mixed >> 17
    place = (mixed << 6 | (i & 3) << 4 | (j & 3) << 2 | k & 3) & mask
    return place if place < slots else place & mask >> 1


@kernel()
def _slot_of(points, row, level, slots):
    scale = 2.0 ** (_MIDDLE_LEVEL - level)
    i = floor(points[row, 0] * scale)
    j = floor(points[row, 1] * scale)
    k = floor(points[row, 2] * scale)
    return _slot(i, j, k, level, slots)


@kernel()
def _insert(points, radii, start, heads, slot, following, levels, population):
    for row in range(start, points.shape[0]):
        if not radii[row] > 0.0:
            continue
        level = _level_of(radii[row])
        place = _slot_of(points, row, level, len(heads))
        slot[row], levels[row], following[row] = place, level, heads[place] - 1
        heads[place] = row + 1
        population[level] += 1


@kernel()
def _split(points, before, heads, slot, following, levels):
    """Fill the slots from ``before`` on with what belongs there of the chains of others."""
    top = 1
    for place in range(before, len(heads)):
        while 2 * top <= place:
            top *= 2
        rest, row = place - top, heads[place - top] - 1
        heads[rest] = 0
        while row >= 0:
            after = following[row]
            slot[row] = _slot_of(points, row, levels[row], place + 1)
            following[row] = heads[slot[row]] - 1
            heads[slot[row]] = row + 1
            row = after


@kernel()
def _relink(rows, points, radii, heads, slot, following, levels, population):
    for row in rows:
        level = _level_of(radii[row])
        place = _slot_of(points, row, level, len(heads))
        if place == slot[row] and level == levels[row]:
            continue
        _leave(row, heads, slot, following, levels, population)
        population[level] += 1
        slot[row], levels[row], following[row] = place, level, heads[place] - 1
        heads[place] = row + 1


@kernel()
def _unlink(rows, heads, slot, following, levels, population):
    for row in rows:
        _leave(row, heads, slot, following, levels, population)


@kernel()
def _leave(row, heads, slot, following, levels, population):
    """Take a surfel out of its chain."""
    before, here = -1, heads[slot[row]] - 1
    while here != row:
        before, here = here, following[here]
    if before < 0:
        heads[slot[row]] = following[row] + 1
    else:
        following[before] = following[row]
    population[levels[row]] -= 1


@kernel()
def _off_plane(normals, row, dx, dy, dz):
    """How far a step leads off a plane, in metres."""
    return abs(normals[row, 0] * dx + normals[row, 1] * dy + normals[row, 2] * dz)


@kernel()
def _aligned(normals, row, q_normals, m, dx, dy, dz, limit, min_cos):
    """Whether surfel and sample, a step apart, lie near each other's planes and face alike."""
    cos = normals[row, 0] * q_normals[m, 0] + normals[row, 1] * q_normals[m, 1]
    cos += normals[row, 2] * q_normals[m, 2]
    near = _off_plane(normals, row, dx, dy, dz) <= limit
    return near and _off_plane(q_normals, m, dx, dy, dz) <= limit and cos > min_cos


@kernel()
def _match(
    q,
    q_normals,
    q_radii,
    q_depths,
    points,
    normals,
    radii,
    levels,
    heads,
    following,
    at,
    rules,
    out,
):
    depth_share, min_cos, finer, detail = rules
    surfels, grid = (points, normals, radii), (levels, heads, following, at)
    for m in range(q.shape[0]):
        x, y, z = np.float64(q[m, 0]), np.float64(q[m, 1]), np.float64(q[m, 2])
        limit = depth_share * q_depths[m]
        best, best_row = np.inf, np.int64(-1)
        own, largest = _level_of(q_radii[m]), max(np.float64(q_radii[m]), detail) / finer
        for level in levels[::-1]:
            scale = 2.0 ** (_MIDDLE_LEVEL - level)
            if 0.25 > largest * REACH * scale:
                continue  # every surfel of this level is too large
            if best_row >= 0 and level < own:
                break
            i, j, k = floor(x * scale - 0.5), floor(y * scale - 0.5), floor(z * scale - 0.5)
            for voxel in range(8):
                di, dj, dk = voxel >> 2, voxel >> 1 & 1, voxel & 1
                row = heads[_slot(i + di, j + dj, k + dk, level, len(heads))] - 1
                while row >= 0:
                    if at[row] == level and radii[row] <= largest:
                        dx, dy, dz = points[row, 0] - x, points[row, 1] - y, points[row, 2] - z
                        distance = dx * dx + dy * dy + dz * dz
                        radius = np.float64(radii[row])
                        reach = REACH * max(radius, 0.5 * (radius + q_radii[m]))
                        if (
                            distance <= reach * reach
                            and (distance < best or (distance == best and row < best_row))
                            and _aligned(normals, row, q_normals, m, dx, dy, dz, limit, min_cos)
                        ):
                            best, best_row = distance, np.int64(row)
                    row = following[row]
        out[m] = best_row
        if best_row < 0 and _covered(
            q, q_normals, q_radii, m, surfels, grid, limit, min_cos, largest
        ):
            out[m] = COVERED


@kernel()
def _covered(q, q_normals, q_radii, m, surfels, grid, limit, min_cos, largest):
    """Whether half of a sample lies on surfels that are fine enough."""
    nx, ny, nz = q_normals[m, 0], q_normals[m, 1], q_normals[m, 2]
    sign = 1.0 if nz >= 0.0 else -1.0  # axes: Duff et al., Building an orthonormal basis, 2017
    a, b = -1.0 / (sign + nz), -nx * ny / (sign + nz)
    found = 0
    for i in range(len(AROUND)):
        s, t = q_radii[m] * AROUND[i, 0], q_radii[m] * AROUND[i, 1]
        x = q[m, 0] + s * (1.0 + sign * nx * nx * a) + t * b
        y = q[m, 1] + s * sign * b + t * (sign + ny * ny * a)
        z = q[m, 2] - s * sign * nx - t * ny
        found += np.int64(_on_surfel(x, y, z, q_normals, m, surfels, grid, limit, min_cos, largest))
        if found >= ENOUGH or found + len(AROUND) - 1 - i < ENOUGH:
            break
    return found >= ENOUGH


@kernel()
def _on_surfel(x, y, z, q_normals, m, surfels, grid, limit, min_cos, largest):
    """Whether a place on a sample lies within REACH of the radius of a surfel of its surface."""
    points, normals, radii = surfels
    levels, heads, following, at = grid
    for level in levels[::-1]:
        scale = 2.0 ** (_MIDDLE_LEVEL - level)
        if 0.25 > largest * REACH * scale:
            continue
        i, j, k = floor(x * scale - 0.5), floor(y * scale - 0.5), floor(z * scale - 0.5)
        for voxel in range(8):
            di, dj, dk = voxel >> 2, voxel >> 1 & 1, voxel & 1
            row = heads[_slot(i + di, j + dj, k + dk, level, len(heads))] - 1
            while row >= 0:
                if at[row] == level and radii[row] <= largest:
                    dx, dy, dz = points[row, 0] - x, points[row, 1] - y, points[row, 2] - z
                    reach = REACH * radii[row]
                    if dx * dx + dy * dy + dz * dz <= reach * reach and _aligned(
                        normals, row, q_normals, m, dx, dy, dz, limit, min_cos
                    ):
                        return True
                row = following[row]
    return False


@kernel()
def _overlay(
    q,
    q_normals,
    q_radii,
    q_depths,
    points,
    normals,
    radii,
    levels,
    heads,
    following,
    at,
    rules,
    shares,
):
    """Add up how much finer samples overlie each surfel, in ``shares``; return which any does."""
    depth_share, min_cos, finer, detail, finest = rules
    rows, count = np.empty(1024, np.int64), 0
    for m in range(q.shape[0]):
        x, y, z = np.float64(q[m, 0]), np.float64(q[m, 1]), np.float64(q[m, 2])
        radius, limit = np.float64(q_radii[m]), depth_share * q_depths[m]
        least, most = max(radius, detail) / finer, radius / finest  # radii of what is overlain
        for level in levels:
            scale = 2.0 ** (_MIDDLE_LEVEL - level)
            if 0.5 <= least * REACH * scale or 0.25 > most * REACH * scale:
                continue  # every surfel of this level is too small, or too large
            i, j, k = floor(x * scale - 0.5), floor(y * scale - 0.5), floor(z * scale - 0.5)
            for voxel in range(8):
                di, dj, dk = voxel >> 2, voxel >> 1 & 1, voxel & 1
                row = heads[_slot(i + di, j + dj, k + dk, level, len(heads))] - 1
                while row >= 0:
                    reach = np.float64(radii[row])
                    if at[row] == level and least < reach <= most:
                        dx, dy, dz = points[row, 0] - x, points[row, 1] - y, points[row, 2] - z
                        if dx * dx + dy * dy + dz * dz <= reach * reach and _aligned(
                            normals, row, q_normals, m, dx, dy, dz, limit, min_cos
                        ):
                            if shares[row] == 0.0:
                                if count == len(rows):
                                    rows = np.append(rows, np.empty_like(rows))
                                rows[count] = row
                                count += 1
                            shares[row] += (radius / reach) ** 2
                    row = following[row]
    return rows[:count]
