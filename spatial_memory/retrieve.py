"""Which past views explain what new cameras are about to see.

Surfels are drawn from every target camera, so that walls hide what is behind them; each visible
surfel names the views that have seen it. Views are then taken by how many pixels they add to those
already explained: the second view of the same wall adds nothing, however good. Greedily first, and
then the best few of the candidates that show most, as far as a short search finds them (cover.py).
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64

from renderers.camera import Camera
from renderers.errors import SceneError
from renderers.evidence import count_evidence
from renderers.surfels import render_surfels
from spatial_memory.blocks import SMALLEST, frustum
from spatial_memory.cover import CANDIDATES, best_cover
from spatial_memory.freespace import out_of_sight
from spatial_memory.observers import Observers
from spatial_memory.reasons import FILLS, MOST, NEAREST, PINNED, Candidate, Candidates
from spatial_memory.sights import Sights
from spatial_memory.surfels import Surfels
from spatial_memory.views import Array, cam_from_world, lens_of

SURE = 0.01
"""A view that surely shows this share of the target pixels may take a place that is left, for
however little it adds, and is believed for what is in doubt, too."""
METRE_IN_RADIANS = 0.1
"""Weight of a metre against a radian in the distance between poses (VMem, arXiv 2506.18903)."""


@dataclass(frozen=True)
class Retrieval:
    """Past views chosen for some target cameras, best first, and why."""

    view_ids: tuple[int, ...]
    """The chosen views."""
    coverage: float
    """Share of the target pixels that these views have seen, or that were explained already."""
    gains: tuple[float, ...]
    """Share of the target pixels that each chosen view surely added to those before it."""
    votes: tuple[float, ...]
    """Evidence for each chosen view on its own: cos / (1 + z) summed over the pixels it saw."""
    candidates: Sequence[Candidate] = field(repr=False)
    """Every view held, by rising id: what it shows, what it would add, taken or not and why."""

    @cached_property
    def reasons(self) -> dict[int, str]:
        """For every view held: what it would have added, and why it was taken or not."""
        return {each.view_id: each.reason for each in self.candidates}

    def main_reasons(self, others: int) -> dict[int, str]:
        """The same for those taken and for up to ``others`` more, those that show most."""
        if not isinstance(self.candidates, Candidates):
            return {}
        places = np.searchsorted(self.candidates.ids, self.candidates.foremost(others))
        few = map(self.candidates.__getitem__, places.tolist())
        return {each.view_id: each.reason for each in few}


@dataclass(frozen=True)
class SelectRules:
    """How views are chosen."""

    side: int
    """Longer side of the grid on which evidence is counted, in pixels."""
    min_gain: float
    """A view that shows less than SURE must add this share of the target pixels."""
    min_coverage: float
    """Below this share of the pixels in need, the nearest poses fill up the answer."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the target cameras show of the map, counted per visible surfel."""

    surfels: np.ndarray
    """(m,) int64 rows, ascending."""
    pixels: np.ndarray
    """(m,) int64 pixels in need that show each."""
    weights: np.ndarray
    """(m,) float64 sum of cos / (1 + z) over these pixels."""
    total: int
    """All target pixels."""
    explained: int
    """Those that were explained already."""


def gather(
    surfels: Surfels, cameras: Sequence[Camera], explained: Sequence[Array | None], side: int
) -> Evidence:
    """Draw the map from all cameras and count.

    Args:
        surfels: The map.
        cameras: Target views.
        explained: For each camera a (h, w) bool mask of pixels in no need, or None.
        side: Longer side of the evidence grid, in pixels.
    """
    small = [on_side(camera, side) for camera in cameras]
    near = surfels.blocks.in_sight(
        [frustum(cam_from_world(c), lens_of(c), c.width, c.height) for c in small],
        surfels.points,
        surfels.radii,
        SMALLEST,
    )
    points, normals, radii = map(torch.from_numpy, surfels.discs(near))
    seen = [render_surfels(points, normals, radii, camera, backs=True) for camera in small]
    needed = [_needed(mask, camera) for camera, mask in zip(small, explained, strict=True)]
    visible = count_evidence(seen, len(near), [torch.from_numpy(need) for need in needed])
    rows, pixels, weights = visible.rows.numpy(), visible.pixels.numpy(), visible.weights.numpy()
    total = sum(need.size for need in needed)
    done = total - sum(int(need.sum()) for need in needed)
    return Evidence(near[rows], pixels, weights, total, done)


def select(
    evidence: Evidence,
    surfels: Surfels,
    sights: Sights,
    cameras: Sequence[Camera],
    k: int,
    pinned: Set[int],
    rules: SelectRules,
) -> Retrieval:
    """Residual cover: pinned views first, then those that add most together, one after another.

    Ties break by distance between poses, then by id. Places that are left go to views that add
    less, or add it across space that nobody has looked through, if they surely show the place.
    Where the views found explain next to nothing, the nearest poses fill up the answer.
    """
    if len(sights) == 0:
        return Retrieval((), evidence.explained / evidence.total, (), (), ())
    contest = _Contest(evidence, surfels, sights, cameras)
    is_pinned = np.isin(contest.ids, np.array(sorted(pinned), np.int64))
    while len(contest.chosen) < k and (contest.free & is_pinned).any():
        contest.take(is_pinned, PINNED)
    needed = evidence.total - evidence.explained
    least = max(1.0, rules.min_gain * evidence.total)
    together = contest.best_together(k - len(contest.chosen))
    for allowed in (together, np.ones_like(together)):
        while len(contest.chosen) < k and (worth := allowed & (contest.residual >= least)).any():
            contest.take(worth)
    while len(contest.chosen) < k and (worth := contest.believed > 0).any():
        contest.take(worth, FILLS)
    if sum(contest.gains) < rules.min_coverage * needed:
        while len(contest.chosen) < k and contest.free.any():
            contest.take_nearest()
    share = 1.0 / evidence.total
    return Retrieval(
        tuple(contest.chosen),
        min(1.0, (evidence.explained + sum(contest.gains)) * share),
        tuple(gain * share for gain in contest.gains),
        contest.votes(),
        contest.candidates(least),
    )


class _Tally:
    """Pixels in need by the surfel that they show, and what each view would explain of them."""

    def __init__(
        self, observers: Observers, rows: np.ndarray, pixels: np.ndarray, ids: int
    ) -> None:
        self.rows, self.open = rows, pixels.copy()
        self.by_id = np.zeros(ids, np.int64)
        self._observers = observers
        observers.add_up(rows, self.open, np.ones(ids, np.bool_), self.by_id)

    def copy(self) -> _Tally:
        """One that can be changed by itself."""
        other = copy(self)
        other.open, other.by_id = self.open.copy(), self.by_id.copy()
        return other

    def take_out(self, view_id: int) -> int:
        """Take out what a view explains; return how many pixels that are."""
        count = int(self.by_id[view_id])
        if count:
            self._observers.take_out(self.rows, view_id, self.open, self.by_id)
        return count


class _Contest:
    """All views held, what each would add, and those taken so far."""

    def __init__(
        self, evidence: Evidence, surfels: Surfels, sights: Sights, cameras: Sequence[Camera]
    ) -> None:
        self.ids = sights.ids.copy()
        self.chosen: list[int] = []
        self.gains: list[int] = []
        """Pixels that each chosen view added."""
        self.free = np.ones(len(self.ids), np.bool_)
        """(n,) views that are not taken yet."""
        self._observers, self._evidence = surfels.observers, evidence
        rows, pixels, ids = evidence.surfels, evidence.pixels, int(self.ids[-1]) + 1
        self._alone = _Tally(self._observers, rows, pixels, ids).by_id[self.ids]
        hidden = out_of_sight(surfels.points[rows], self._alone, sights, cameras)
        self._doubt = _Tally(self._observers, rows[hidden], pixels[hidden], ids)
        self._sure = _Tally(self._observers, rows[~hidden], pixels[~hidden], ids)
        self._surely = self.residual
        self._distance = pose_distances(sights.poses, cameras)
        self._taken: dict[int, tuple[str, float, float | None]] = {}

    @property
    def residual(self) -> np.ndarray:
        """(n,) pixels that each view would add now."""
        return self._sure.by_id[self.ids]

    @property
    def believed(self) -> np.ndarray:
        """(n,) the same with those in doubt, of free views that surely show the place; else 0."""
        sure = self.free & (self._surely >= SURE * self._evidence.total)
        return np.where(sure, self.residual + self._doubt.by_id[self.ids], 0)

    def best_together(self, count: int) -> np.ndarray:
        """(n,) which of the free views, up to so many, add most together."""
        best, shown = np.zeros(len(self.ids), np.bool_), np.flatnonzero(self._sure.open)
        rows = self._foremost(count)
        if len(rows):
            masks = self._observers.holders(self._sure.rows[shown], self.ids[rows])
            best[rows] = best_cover(masks, self._sure.open[shown], len(rows), count)
        return best

    def _foremost(self, count: int) -> list[int]:
        """Rows of CANDIDATES for so many places: as many for each, those that add most there.

        Where a place was passed often, the views that show most of it all show the same. So what
        fills one place is taken out before the next is looked at.
        """
        rest, rows = self._sure.copy(), []
        for place in range(min(count, CANDIDATES)):
            adds = rest.by_id[self.ids]
            allowed = self.free & (adds > 0)
            allowed[rows] = False
            most = self._ranked(allowed, adds)[: (CANDIDATES - len(rows)) // (count - place) or 1]
            if len(most) == 0:
                break
            rows += most.tolist()
            rest.take_out(int(self.ids[most[0]]))
        return rows

    def _ranked(self, allowed: np.ndarray, adds: np.ndarray) -> np.ndarray:
        """Rows of views by what they add; ties go to the nearer pose, then to the lower id."""
        rows = np.flatnonzero(allowed)
        return rows[np.lexsort((rows, self._distance[rows], -adds[rows]))]

    def take(self, allowed: np.ndarray, cause: str = MOST) -> None:
        """Take the first in rank."""
        self._take(int(self._ranked(allowed & self.free, self.residual)[0]), cause)

    def take_nearest(self) -> None:
        """Take the view from the nearest pose, whatever it adds."""
        row = int(np.where(self.free, self._distance, np.inf).argmin())
        self._take(row, NEAREST, float(self._distance[row]))

    def _take(self, row: int, cause: str, distance: float | None = None) -> None:
        view_id = int(self.ids[row])
        self.free[row] = False
        self.chosen.append(view_id)
        self.gains.append(self._sure.take_out(view_id))
        self._doubt.take_out(view_id)
        self._taken[view_id] = cause, self.gains[-1] / self._evidence.total, distance

    def votes(self) -> tuple[float, ...]:
        """Weighted evidence for each chosen view, whoever else has seen the same."""
        votes = np.zeros(len(self._sure.by_id))
        counted = np.zeros(len(votes), np.bool_)
        counted[self.chosen] = True
        self._observers.add_up(self._evidence.surfels, self._evidence.weights, counted, votes)
        return tuple(float(votes[view_id]) for view_id in self.chosen)

    def candidates(self, least: float) -> Candidates:
        """What became of every view.

        Args:
            least: Pixels below which a view is not worth taking.
        """
        share = 1.0 / self._evidence.total
        doubt = self._doubt.by_id[self.ids]
        shares = self._alone * share, self.residual * share, doubt * share
        return Candidates(self.ids, *shares, least * share, self._taken)


def pose_distances(
    poses: Float64[np.ndarray, "n 3 4"], cameras: Sequence[Camera]
) -> Float64[np.ndarray, " n"]:
    """Distance of every pose to the nearest target pose, ``0.1 |dt| + angle``, in float64.

    Args:
        poses: cam_from_world of the views.
        cameras: Target views, one or more.

    Returns:
        In radians; metres count METRE_IN_RADIANS.
    """
    best = np.full(len(poses), np.inf)
    for camera in cameras:
        angles, steps = pose_gaps(poses, cam_from_world(camera))
        best = np.minimum(best, METRE_IN_RADIANS * steps + angles)
    return best


def pose_gaps(
    poses: Float64[np.ndarray, "n 3 4"], target: Float64[np.ndarray, "3 4"]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Angles in radians and steps in metres between poses and a target pose, cam_from_world."""
    turn = poses[:, :, :3] @ target[:, :3].T
    axis = turn - turn.transpose(0, 2, 1)
    sine = 0.5 * np.sqrt(axis[:, 0, 1] ** 2 + axis[:, 0, 2] ** 2 + axis[:, 1, 2] ** 2)
    angles = np.arctan2(sine, 0.5 * (np.trace(turn, axis1=1, axis2=2) - 1.0))
    return angles, np.linalg.norm(_center(poses) - _center(target[None]), axis=1)


def _center(poses: np.ndarray) -> np.ndarray:
    return -(poses[:, :, :3].transpose(0, 2, 1) @ poses[:, :, 3:])[..., 0]


def on_side(camera: Camera, side: int) -> Camera:
    """The camera on a grid whose longer side has ``side`` pixels."""
    scale = side / max(camera.width, camera.height)
    width, height = (max(1, round(size * scale)) for size in (camera.width, camera.height))
    return camera.resized(width, height)


def _needed(explained: Array | None, grid: Camera) -> np.ndarray:
    """(rows, columns) pixels of the grid that nothing explains yet, by their centres."""
    if explained is None:
        return np.ones((grid.height, grid.width), np.bool_)
    mask = np.asarray(explained)
    rows = ((np.arange(grid.height) + 0.5) * mask.shape[0] / grid.height).astype(np.int64)
    columns = ((np.arange(grid.width) + 0.5) * mask.shape[1] / grid.width).astype(np.int64)
    return ~mask[rows[:, None], columns[None, :]]


def check_request(
    cameras: Sequence[Camera], k: int, explained: Sequence[Array | None] | None
) -> Sequence[Array | None]:
    """Check what a caller asks for.

    Returns:
        One mask or None per camera.

    Raises:
        SceneError: No camera, ``k`` below 1, or masks that do not fit the cameras.
    """
    if k < 1:
        raise SceneError(
            f"cannot retrieve {k} views",
            why="k is the largest number of views to return",
            fix="ask for 1 or more",
        )
    if len(cameras) == 0:
        raise SceneError(
            "there is no camera to retrieve views for",
            why="the list of target cameras is empty",
            fix="pass at least one camera",
        )
    if explained is None:
        return [None] * len(cameras)
    fits = len(explained) == len(cameras) and all(
        mask is None or tuple(mask.shape) == (camera.height, camera.width)
        for camera, mask in zip(cameras, explained, strict=True)
    )
    if not fits:
        raise SceneError(
            "the masks of explained pixels do not fit the target cameras",
            why="each camera needs one bool mask (height, width) of its own size, or None",
            fix="pass as many masks as cameras, such as `render.alpha > 0.5`",
        )
    if any(
        mask is not None and str(mask.dtype) not in ("bool", "torch.bool") for mask in explained
    ):
        raise SceneError(
            "a mask of explained pixels is not bool",
            why="a pixel is explained or it is not",
            fix="compare with a threshold, such as `render.alpha > 0.5`",
        )
    return explained
