"""What past views really show of a target view, and how much of it a few of them can show at best.

Truth is a matrix of views x target pixels, from rays that are cast to the surface behind the
centre of each pixel. The sky is left out: it is no place, and no view explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float32, Float64

from benchmarks.memory_casting import World, pose
from renderers import Camera

GRID = (48, 36)
"""Columns and rows of the pixels of a target that are looked at."""
SHOWN = 0.01
"""A view that was chosen is right if it really shows this share of the target's pixels."""
ANSWERABLE = 0.5
"""Targets are places of which all views together show this share of the pixels at least."""
LEAST_SURFACE = 0.3
"""And of whose pixels this share is not sky."""
FOOLED = 0.5
"""A rule is fooled by walls where so many of its choices are on the other side of one, and show
nothing for it."""
FOV_DEGREES = 100.0
"""Horizontal field of view of targets: wider than that of views, so that it takes several."""
STEPS = 300
"""Of the search for prices, see best_cover."""
TRIALS = 1500
"""Places that are tried for targets."""
ASIDE = np.array([0.4, 0.2, 180.0, 10.0])
"""Targets are off the path (m, sideways and in height) and turned (degrees, right and up) by up
to this."""


@dataclass(frozen=True, eq=False)
class Question:
    """A target view, and the right answers."""

    target: Camera
    shown: Bool[np.ndarray, "v p"]
    """Which pixels each view really shows."""
    optimum: Cover

    def coverage(self, chosen: Sequence[int]) -> float:
        """Of the pixels that the best views show, how many the chosen ones show."""
        return float(self.shown[list(chosen)].any(0).sum()) / self.optimum.bound

    def right(self, chosen: Sequence[int]) -> list[bool]:
        """For each chosen view, whether it shows enough of the target."""
        return [bool(self.shown[view].mean() >= SHOWN) for view in chosen]


class Rule(Protocol):
    """Sees views one after the other, and names those that help with a new one."""

    def write(
        self, rgb: Float32[np.ndarray, "h w 3"], depth: Float32[np.ndarray, "h w"], camera: Camera
    ) -> None:
        """The next view."""

    def choose(self, target: Camera, k: int) -> Sequence[int]:
        """Up to ``k`` views, as they were counted from 0, the best first."""


def ask(
    world: World,
    views: Sequence[Camera],
    count: int,
    k: int,
    fool: Sequence[Rule] = (),
    seed: int = 1,
) -> list[Question]:
    """Targets near where the walk has passed, turned differently; always the same ones.

    Args:
        world: Where.
        views: The walk.
        count: How many are wanted; fewer come where the world has no such places.
        k: Views that an answer may name.
        fool: Only targets at which walls fool each of these rules, which have seen the walk.
        seed: Of the places tried.
    """
    rng = np.random.default_rng(seed)
    passed = world.length * min(1.0, len(views) / (world.lap or 1))
    found: list[Question] = []
    for _ in range(TRIALS):
        way, off = rng.uniform(0.0, passed), rng.uniform(-1.0, 1.0, 4) * ASIDE
        target = world.stand(way, *off, fov_degrees=FOV_DEGREES)
        if not world.free(pose(target)[1]) or not all(
            fooled(world, target, [views[i] for i in rule.choose(target, k)]) for rule in fool
        ):
            continue
        shown = truth(world, views, target)
        pixels = shown.shape[1]
        if pixels < LEAST_SURFACE * GRID[0] * GRID[1] or shown.any(0).mean() < ANSWERABLE:
            continue
        found.append(Question(target, shown, best_cover(shown, k)))
        if len(found) == count:
            break
    return found


def fooled(world: World, target: Camera, chosen: Sequence[Camera]) -> bool:
    """Whether as many as FOOLED of the chosen views are behind walls, and show nothing for it."""
    behind = world.blocked(pose(target)[1], np.stack([pose(view)[1] for view in chosen]))
    if behind.mean() < FOOLED:
        return False  # most places are not of interest: find out fast
    return bool((behind & (truth(world, chosen, target).mean(1) < SHOWN)).mean() >= FOOLED)


def pose_distances(target: Pose, poses: Sequence[Pose]) -> Float64[np.ndarray, " v"]:
    """``0.1 |dt| + angle`` to other poses, in metres and radians (arXiv 2506.18903)."""
    rotation, eye, _ = target
    turns = np.stack([turn for turn, _, _ in poses]) @ rotation.T
    steps = np.stack([place for _, place, _ in poses]) - eye
    cosines = 0.5 * (np.trace(turns, axis1=1, axis2=2) - 1.0)
    return 0.1 * np.linalg.norm(steps, axis=1) + np.arccos(cosines.clip(-1.0, 1.0))


def truth(world: World, views: Sequence[Camera], target: Camera) -> Bool[np.ndarray, "v p"]:
    """Which of the target's pixels that show a surface each view shows, too."""
    depth, points, normals = world.surfaces(target.resized(*GRID))
    solid = np.isfinite(depth)
    points, normals = points[solid], normals[solid]
    return np.stack([world.shows(view, points, normals) for view in views])


@dataclass(frozen=True)
class Cover:
    """The best that a few views can do."""

    pixels: int
    """Shown by the best views that were found."""
    bound: int
    """No choice shows more than this; the same number where the best was proven to be best."""
    views: tuple[int, ...]

    @property
    def proven(self) -> bool:
        """Whether there is nothing better."""
        return self.pixels == self.bound


def best_cover(shown: Bool[np.ndarray, "v p"], k: int, nodes: int = 10_000) -> Cover:
    """The ``k`` rows that together have the most columns: branch and bound.

    Bounds come from prices: a column of worth w that costs u pays w - u to whoever covers it at
    all, and u to each row that has it. No choice is worth more than all that columns pay plus
    what the k richest rows earn, whatever the prices between 0 and w (Lagrangian relaxation).

    Args:
        shown: Which pixels each view shows.
        k: Views that may be taken.
        nodes: After so many branches the best that was found stays, with a bound above it.
    """
    rows = np.flatnonzero(shown.any(1))
    packed, worth = np.unique(np.packbits(shown[rows], axis=0), axis=1, return_counts=True)
    matrix = np.unpackbits(packed, axis=0, count=len(rows)).astype(np.float64)
    matrix, worth = matrix[:, matrix.any(0)], worth[matrix.any(0)].astype(np.float64)
    if len(rows) <= k:
        total = int(shown.any(0).sum())
        return Cover(total, total, tuple(rows.tolist()))
    first = _improve(matrix, worth, _greedy(matrix, worth, k))
    least = int(worth @ matrix[first].any(0))
    prices, bound = _prices(matrix, worth, k, least)
    earned = matrix @ prices
    kth = np.partition(earned, -k)[-k]
    keep = np.flatnonzero(bound - kth + np.minimum(earned, kth) >= least + 1 - 1e-6)
    keep = keep[np.argsort(-earned[keep], kind="stable")]
    search = _Search(matrix[keep], worth, prices, least, nodes, best=None)
    search.branch(np.arange(len(keep)), np.ones(len(worth), np.bool_), k, 0.0, ())
    chosen = first if search.best is None else keep[list(search.best)]
    limit = min(search.bound, int(bound + 1e-6), int(shown.any(0).sum()))
    return Cover(search.least, max(search.least, limit), tuple(rows[chosen].tolist()))


def _greedy(matrix: np.ndarray, worth: np.ndarray, k: int) -> list[int]:
    chosen: list[int] = []
    rest = worth.copy()
    for _ in range(k):
        chosen.append(int((matrix @ rest).argmax()))
        rest *= 1.0 - matrix[chosen[-1]]
    return chosen


def _improve(matrix: np.ndarray, worth: np.ndarray, chosen: list[int]) -> list[int]:
    """Exchange one row for a better one, until there is none."""
    value = worth @ matrix[chosen].any(0)
    for _ in range(10):
        before = value
        for i in range(len(chosen)):
            others = chosen[:i] + chosen[i + 1 :]
            covered = matrix[others].any(0)
            gains = matrix @ (worth * ~covered)
            if worth @ covered + gains.max() > value:
                chosen = [*others, int(gains.argmax())]
                value = worth @ matrix[chosen].any(0)
        if value == before:
            break
    return chosen


def _prices(matrix: np.ndarray, worth: np.ndarray, k: int, least: int) -> tuple[np.ndarray, float]:
    """Prices with a low bound, by subgradient steps of Polyak's length; and that bound."""
    prices = worth / np.maximum(1.0, np.minimum(k, matrix.sum(0)))
    best, lowest, pace = prices, np.inf, 1.0
    for _ in range(STEPS):
        earned = matrix @ prices
        richest = np.argpartition(-earned, k - 1)[:k]
        bound = (worth - prices).sum() + earned[richest].sum()
        if bound < lowest - 1e-9:
            best, lowest = prices, bound
        else:
            pace *= 0.98
        slope = matrix[richest].sum(0) - 1.0
        size = slope @ slope
        if size == 0.0 or lowest < least + 1 - 1e-6:
            break
        prices = (prices - pace * (bound - least) / size * slope).clip(0.0, worth)
    return best, float(lowest)


@dataclass
class _Search:
    """Depth first, the rows that earn most first."""

    matrix: np.ndarray
    worth: np.ndarray
    prices: np.ndarray
    least: int
    """Worth of the best choice so far."""
    nodes: int
    """Branches that may still be looked at."""
    best: tuple[int, ...] | None
    """Rows of that choice, if it was found here."""
    bound: int = field(default=0)
    """Highest bound of the branches that were not looked at."""

    def branch(
        self, rows: np.ndarray, free: np.ndarray, left: int, value: float, taken: tuple[int, ...]
    ) -> None:
        """Look for something better: ``left`` more of ``rows``, for the columns that are free."""
        if not len(rows):
            return
        gains = self.matrix[rows] @ (self.worth * free)
        top = int(gains.argmax())
        if value + gains[top] > self.least:
            self.least = round(value + gains[top])
            self.best = (*taken, int(rows[top]))
        if left == 1:
            return
        earned = self.matrix[rows] @ (self.prices * free)
        order = np.argsort(-earned, kind="stable")
        pays = ((self.worth - self.prices) * free).sum()
        for place, i in enumerate(order):
            rest = order[place:]
            bound = value + min(pays + earned[rest[:left]].sum(), _top(gains[rest], left))
            if bound < self.least + 1 - 1e-6:
                return
            if self.nodes <= 0:
                self.bound = max(self.bound, int(bound + 1e-6))
                return
            self.nodes -= 1
            row = int(rows[i])
            uncovered = free & (self.matrix[row] == 0)
            self.branch(rows[rest[1:]], uncovered, left - 1, value + gains[i], (*taken, row))


def _top(values: np.ndarray, count: int) -> float:
    return float(np.partition(values, max(0, len(values) - count))[-count:].sum())
