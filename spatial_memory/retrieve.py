"""Which past views explain what new cameras are about to see.

Surfels are drawn from every target camera, so that walls hide what is behind them; each visible
surfel names the views that have seen it. Views are then taken greedily by how many pixels they
add to those already explained: the second view of the same wall adds nothing, however good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from renderers.camera import Camera
from renderers.errors import SceneError
from renderers.evidence import count_evidence
from renderers.kernels import kernel
from renderers.surfels import render_surfels
from spatial_memory.sight import Sight
from spatial_memory.surfels import Surfels
from spatial_memory.views import Array, cam_from_world

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
    """Share of the target pixels that each chosen view added to those before it."""
    votes: tuple[float, ...]
    """Evidence for each chosen view on its own: cos / (1 + z) summed over the pixels it saw."""
    reasons: dict[int, str]
    """For every view held: what it would have added, and why it was taken or not."""


@dataclass(frozen=True)
class SelectRules:
    """How views are chosen."""

    side: int
    """Longer side of the grid on which evidence is counted, in pixels."""
    min_gain: float
    """Stop when no view adds this share of the target pixels."""
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
    seen, needed = [], []
    points, normals, radii = map(torch.from_numpy, (surfels.points, surfels.normals, surfels.radii))
    for camera, mask in zip(cameras, explained, strict=True):
        small = _on_side(camera, side)
        seen.append(render_surfels(points, normals, radii, small, backs=True))
        needed.append(_needed(mask, small))
    visible = count_evidence(seen, len(surfels), [torch.from_numpy(need) for need in needed])
    rows, pixels, weights = visible.rows.numpy(), visible.pixels.numpy(), visible.weights.numpy()
    total = sum(need.size for need in needed)
    done = total - sum(int(need.sum()) for need in needed)
    return Evidence(rows, pixels, weights, total, done)


def select(
    evidence: Evidence,
    surfels: Surfels,
    sights: Mapping[int, Sight],
    cameras: Sequence[Camera],
    k: int,
    pinned: Set[int],
    rules: SelectRules,
) -> Retrieval:
    """Greedy residual cover: pinned views first, then whoever adds most.

    Ties break by distance between poses, then by id. Where the views found explain next to
    nothing, the nearest poses fill up the answer.
    """
    if not sights:
        return Retrieval((), evidence.explained / evidence.total, (), (), {})
    contest = _Contest(evidence, surfels, sights, cameras)
    is_pinned = np.isin(contest.ids, np.array(sorted(pinned), np.int64))
    while len(contest.chosen) < k and (contest.free & is_pinned).any():
        contest.take(is_pinned, "pinned")
    least = max(1.0, rules.min_gain * evidence.total)
    while len(contest.chosen) < k and (contest.free & (contest.residual >= least)).any():
        contest.take(contest.residual >= least)
    needed = evidence.total - evidence.explained
    if sum(contest.gains) < rules.min_coverage * needed:
        while len(contest.chosen) < k and contest.free.any():
            contest.take_nearest()
    share = 1.0 / evidence.total
    return Retrieval(
        tuple(contest.chosen),
        min(1.0, (evidence.explained + sum(contest.gains)) * share),
        tuple(gain * share for gain in contest.gains),
        contest.votes(),
        contest.reasons(least),
    )


class _Contest:
    """All views held, what each would add, and those taken so far."""

    def __init__(
        self,
        evidence: Evidence,
        surfels: Surfels,
        sights: Mapping[int, Sight],
        cameras: Sequence[Camera],
    ) -> None:
        self.ids = np.array(list(sights), np.int64)
        self.free = np.ones(len(self.ids), np.bool_)
        """(n,) views that are not taken yet."""
        self.chosen: list[int] = []
        self.gains: list[int] = []
        """Pixels that each chosen view added."""
        observers = surfels.observers
        self._chains = (observers.first, observers.view, observers.next)
        self._evidence = evidence
        self._open = evidence.pixels.copy()  # pixels in need, per visible surfel
        self._gains = np.zeros(int(self.ids.max()) + 1, np.int64)  # by id
        _add_up(evidence.surfels, self._open, *self._chains, self._gains)
        self._alone = self.residual
        poses = np.stack([sight.pose for sight in sights.values()])
        self._distance = pose_distances(poses, cameras)
        self._taken_because: dict[int, str] = {}

    @property
    def residual(self) -> np.ndarray:
        """(n,) pixels that each view would add now."""
        return self._gains[self.ids]

    def take(self, allowed: np.ndarray, because: str = "") -> None:
        """Take the view that adds most; ties go to the nearer pose, then to the lower id."""
        self._take(np.lexsort((self.ids, self._distance, -self.residual, ~(allowed & self.free))))
        self._because(f"{because}; " if because else "")

    def take_nearest(self) -> None:
        """Take the view from the nearest pose, whatever it adds."""
        order = np.lexsort((self.ids, self._distance, ~self.free))
        self._take(order)
        distance = self._distance[order[0]]
        self._because(f"nearest pose ({distance:.2f}), as next to nothing is mapped here; ")

    def _take(self, order: np.ndarray) -> None:
        view_id = int(self.ids[order[0]])
        self.free[order[0]] = False
        self.chosen.append(view_id)
        self.gains.append(int(self._gains[view_id]))
        if self.gains[-1]:
            _explain(self._evidence.surfels, view_id, *self._chains, self._open, self._gains)

    def _because(self, cause: str) -> None:
        row = int(np.searchsorted(self.ids, self.chosen[-1]))
        shows, adds = self._share(int(self._alone[row])), self._share(self.gains[-1])
        self._taken_because[self.chosen[-1]] = f"taken: {cause}shows {shows}, adds {adds}"

    def _share(self, pixels: int) -> str:
        return f"{pixels / self._evidence.total:.1%}"

    def votes(self) -> tuple[float, ...]:
        """Weighted evidence for each chosen view, whoever else has seen the same."""
        votes = np.zeros(len(self._gains))
        _add_up(self._evidence.surfels, self._evidence.weights, *self._chains, votes)
        return tuple(float(votes[view_id]) for view_id in self.chosen)

    def reasons(self, least: float) -> dict[int, str]:
        """One line per view, for people.

        Args:
            least: Pixels below which a view is not worth taking.
        """
        lines: dict[int, str] = {}
        for view_id, alone, gain in zip(
            self.ids.tolist(), self._alone.tolist(), self.residual.tolist(), strict=True
        ):
            shows, adds = f"shows {self._share(alone)}", self._share(gain)
            if view_id in self._taken_because:
                lines[view_id] = self._taken_because[view_id]
            elif alone == 0:
                lines[view_id] = "not taken: has seen nothing that is visible and needed here"
            elif gain < least:
                lines[view_id] = f"not taken: {shows}, would add only {adds} to the views taken"
            else:
                lines[view_id] = f"not taken: {shows}, would add {adds}, but enough are taken"
        return lines


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
        target = cam_from_world(camera)
        turn = poses[:, :, :3] @ target[:, :3].T
        axis = turn - turn.transpose(0, 2, 1)
        sine = 0.5 * np.sqrt(axis[:, 0, 1] ** 2 + axis[:, 0, 2] ** 2 + axis[:, 1, 2] ** 2)
        angle = np.arctan2(sine, 0.5 * (np.trace(turn, axis1=1, axis2=2) - 1.0))
        step = _center(poses) - _center(target[None])
        best = np.minimum(best, METRE_IN_RADIANS * np.linalg.norm(step, axis=1) + angle)
    return best


def _center(poses: np.ndarray) -> np.ndarray:
    return -(poses[:, :, :3].transpose(0, 2, 1) @ poses[:, :, 3:])[..., 0]


@kernel()
def _add_up(surfels, amounts, first, view, following, sums):
    for m in range(len(surfels)):
        link = first[surfels[m]]
        while link >= 0:
            sums[view[link]] += amounts[m]
            link = following[link]


@kernel()
def _explain(surfels, view_id, first, view, following, pixels, gains):
    """Take the pixels of every surfel that the view has seen out of all gains."""
    for m in range(len(surfels)):
        if pixels[m] == 0:
            continue
        link = first[surfels[m]]
        while link >= 0 and view[link] != view_id:
            link = following[link]
        if link < 0:
            continue
        link = first[surfels[m]]
        while link >= 0:
            gains[view[link]] -= pixels[m]
            link = following[link]
        pixels[m] = 0


def _on_side(camera: Camera, side: int) -> Camera:
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
