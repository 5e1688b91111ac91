"""ViewMemory: what to write, what to retrieve, what to keep and what to forget."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from renderers.camera import Camera
from renderers.errors import SceneError
from spatial_memory import storage
from spatial_memory.forgetting import falls_on, least_missed, pixels_inside, replaced
from spatial_memory.retrieve import Retrieval, SelectRules, check_request, gather, select
from spatial_memory.sampling import sample_view
from spatial_memory.sight import sight_of
from spatial_memory.sights import Sights
from spatial_memory.store import ViewStore
from spatial_memory.surfels import FuseRules, Surfels
from spatial_memory.views import PROVENANCES, Array, View, make_view

logger = logging.getLogger("scenegen")


@dataclass(frozen=True)
class MemoryConfig:
    """How finely the memory maps the world, and when it trusts what it finds."""

    surfel_side: int = 128
    """Surfels along the longer side of a view, at most."""
    detail: float = 0.125
    """Flat surfaces are mapped with surfels of up to this radius, in metres, even where a view
    shows more: what is near takes no more memory, each time that somebody passes nearer."""
    least_piece: float = 0.003
    """What a view shows for the first time is mapped where it takes this share of the picture in
    one piece. Specks are others in each view, and would add up walk by walk."""
    sight_side: int = 192
    """Pixels along the longer side of the depth map that decides what a view has seen."""
    evidence_side: int = 128
    """Pixels along the longer side of the grid on which target views are compared."""
    merge_depth_share: float = 0.01
    """Surfels further off each other's planes than this share of their depth never merge."""
    merge_min_cos: float = 0.6
    """Surfels merge when the cosine between their normals is above this."""
    depth_tolerance: float = 0.03
    """Relative depth error within which a view has seen a surfel."""
    min_gain: float = 0.001
    """A view that hardly shows the target is taken only if it adds this share of the pixels."""
    min_coverage: float = 0.05
    """Below this share of the pixels in need, retrieval falls back to the nearest poses."""
    view_cache_mb: int = 256
    """Pixels of views kept in memory, in MB; others lie in files until somebody asks for them."""
    max_views: int = 5_000
    """Above this number, writing forgets the generated view that is missed least."""
    max_surfels: int = 5_000_000
    """Above this number, writing forgets generated views until the surfels fit."""
    replace_same_pose: bool = False
    """Whether a view replaces generated ones from the same place that show nothing more."""

    def __post_init__(self) -> None:
        for name in ("surfel_side", "sight_side", "evidence_side"):
            _check_range(name, getattr(self, name), 1, 4096)
        _check_range("detail", self.detail, 0, 1_000)
        for name in (
            "least_piece",
            "merge_depth_share",
            "depth_tolerance",
            "min_gain",
            "min_coverage",
        ):
            _check_range(name, getattr(self, name), 0, 1)
        _check_range("merge_min_cos", self.merge_min_cos, -1, 1)
        for name in ("view_cache_mb", "max_views", "max_surfels"):
            _check_range(name, getattr(self, name), 1, 1_000_000_000)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SceneError(
            f"the memory's {name} is {value}",
            why=f"it must lie between {low} and {high}",
            fix="use the default, or a value in that range",
        )


class ViewMemory:
    """Remembers views by the surfaces they have seen. Safe to use from several threads."""

    def __init__(
        self, config: MemoryConfig | None = None, folder: str | Path | None = None
    ) -> None:
        """Start with nothing.

        Args:
            config: Resolution, rules and budgets.
            folder: Where pixels go that do not fit into the cache, as long as the memory lives;
                the system's place for temporary files when left out.
        """
        self.config = c = config or MemoryConfig()
        self.views = ViewStore(
            c.view_cache_mb * 1_000_000, None if folder is None else Path(folder)
        )
        """All views held, by id."""
        self._surfels = Surfels()
        self.sights = Sights(c.depth_tolerance)
        """How far all views held have seen, by id."""
        self._pinned: set[int] = set()
        self._told = False  # that it is over its budget
        self._lock = threading.RLock()

    @property
    def surfels(self) -> Surfels:
        """The surfaces that the views have seen. Its arrays are valid until the next change."""
        with self._lock:
            self._surfels.tidy()
            return self._surfels

    @property
    def pinned(self) -> frozenset[int]:
        """Ids of the views that every retrieval takes first."""
        return frozenset(self._pinned)

    def write(
        self,
        rgb: Array,
        depth: Array,
        camera: Camera,
        provenance: str = "observed",
        known: Array | None = None,
    ) -> int:
        """Remember a view.

        Args:
            rgb: (h, w, 3) sRGB, 0 to 1.
            depth: (h, w) z in the camera frame, metres; NaN unknown, +inf sky.
            camera: Where the view was taken from.
            provenance: "observed" or "generated".
            known: (h, w) bool mask of the pixels that this view adds or shows validly; all when
                left out.

        Returns:
            The id of the view: 0, 1, 2 and so on. Ids are never used twice.

        Raises:
            SceneError: See :func:`spatial_memory.views.make_view`. Nothing was written then.
        """
        view = make_view(rgb, depth, camera, provenance, known)
        c = self.config
        samples, sight = sample_view(view, c.surfel_side, c.detail), sight_of(view, c.sight_side)
        rules = FuseRules(c.merge_depth_share, c.merge_min_cos, c.detail, c.least_piece)
        with self._lock:
            view_id = self.views.add(view)
            self.sights.add(view_id, sight)
            rank = PROVENANCES.index(provenance)
            self._surfels.fuse(samples, view_id, rank, self.sights, rules)
            if c.replace_same_pose:
                superfluous = replaced(view_id, self.sights, self._surfels.observers)
                for other in filter(self._may_forget, superfluous):
                    self._drop(other)
            self._keep_budgets(view_id)
        return view_id

    def _keep_budgets(self, newest: int) -> None:
        """Forget what is missed least until views and surfels are within their budgets."""
        c = self.config
        while True:
            excess = max(0, self._surfels.alive - c.max_surfels)
            if len(self.views) <= c.max_views and excess == 0:
                self._told = False
                return
            spare = [i for i in self.views if i != newest and self._may_forget(i)]
            victim = least_missed(np.array(spare, np.int64), self._surfels.observers, excess)
            if victim is None:
                if not self._told:
                    logger.warning(
                        "the memory is over its budget (%d views, %d surfels) and keeps all: "
                        "what is left is pinned, observed or new",
                        len(self.views),
                        self._surfels.alive,
                    )
                self._told = True
                return
            self._drop(victim)

    def _may_forget(self, view_id: int) -> bool:
        return self.views.provenance(view_id) != "observed" and view_id not in self._pinned

    def _drop(self, view_id: int) -> None:
        self.views.remove(view_id)
        self.sights.remove(view_id)
        self._surfels.drop_view(view_id)

    def retrieve(
        self,
        cameras: Sequence[Camera],
        k: int = 4,
        explained: Sequence[Array | None] | None = None,
    ) -> Retrieval:
        """The past views that together explain most of what the cameras see.

        Args:
            cameras: One or more target views, of any size.
            k: Largest number of views to return.
            explained: For each camera a (h, w) bool mask of the pixels that need no explanation,
                for example because the current render shows them; or None.

        Returns:
            Views best first, pinned ones before all others. Fewer than ``k`` where more would
            add nothing; none from an empty memory.

        Raises:
            SceneError: No camera, ``k`` below 1, or masks that do not fit the cameras.
        """
        masks = check_request(cameras, k, explained)
        c = self.config
        rules = SelectRules(c.evidence_side, c.min_gain, c.min_coverage)
        with self._lock:
            evidence = gather(self._surfels, cameras, masks, rules.side)
            return select(evidence, self._surfels, self.sights, cameras, k, self._pinned, rules)

    def pin(self, view_id: int, pinned: bool = True) -> None:
        """Take this view first in every retrieval and never forget it; or stop doing so.

        Raises:
            SceneError: There is no such view.
        """
        with self._lock:
            self.views.check(view_id)
            (self._pinned.add if pinned else self._pinned.discard)(int(view_id))

    def forget(self, view_id: int) -> None:
        """Drop a view, what it has seen, and the surfels that no other view has seen.

        Raises:
            SceneError: There is no such view, or it is pinned.
        """
        with self._lock:
            self.views.check(view_id)
            if view_id in self._pinned:
                raise SceneError(
                    f"view {view_id} cannot be forgotten",
                    why="it is pinned",
                    fix=f"unpin it first: memory.pin({view_id}, pinned=False)",
                )
            self._drop(view_id)

    def erase(self, box: Array | Sequence[Sequence[float]]) -> int:
        """Forget what is inside a box: its surfels, and the pixels of views that show it.

        Args:
            box: (2, 3) smallest and largest corner in the world, in metres.

        Returns:
            How many surfels were erased.

        Raises:
            SceneError: The box is not two corners in this order.
        """
        corners = np.asarray(box, np.float64)
        if corners.shape != (2, 3) or not (corners[0] <= corners[1]).all():
            raise SceneError(
                "this is not a box",
                why="a box is two corners (2, 3), the smaller coordinates first, without NaN",
                fix="pass [[x0, y0, z0], [x1, y1, z1]] in metres",
            )
        corners = np.clip(corners, -1e30, 1e30)  # planes times infinity would be NaN
        with self._lock:
            around = corners[:1], corners[1:], np.array([np.inf])
            for view_id in self.sights.reaching(around).tolist():
                self._erase_pixels(view_id, corners)
            return self._surfels.drop_box(*corners)

    def _erase_pixels(self, view_id: int, corners: np.ndarray) -> None:
        """Take the pixels inside a box out of a view; it no longer votes for what they show."""
        view, observers = self.views[view_id], self._surfels.observers
        inside = pixels_inside(view, corners)
        if not inside.any():
            return
        rest = replace(view, known=view.known & ~inside)
        self.views.replace(view_id, rest)
        self.sights.replace(view_id, sight_of(rest, self.config.sight_side))
        rows = observers.seen_by(view_id)
        gone = falls_on(view, inside, self._surfels.points[rows])
        observers.withdraw(rows[gone], view_id)

    def save(self, folder: str | Path) -> None:
        """Write the memory to a folder, in place of what was saved there before.

        Stopping at any moment leaves either the old or the new memory, never a mixture.

        Raises:
            SceneError: The folder cannot be written.
        """
        with self._lock:
            config, pinned = self.config.__dict__, sorted(self._pinned)
            storage.save(Path(folder), config, pinned, self.views, self.surfels)

    @classmethod
    def load(cls, folder: str | Path) -> ViewMemory:
        """Read a memory that :meth:`save` wrote. It gives the same answers, bit for bit.

        Every file is read once, to see that it is whole. Later the pixels that do not fit into the
        cache are read from the folder, which must therefore stay.

        Raises:
            SceneError: There is none, it is damaged, or a newer release wrote it.
        """
        saved = storage.read(Path(folder), MemoryConfig.__dataclass_fields__)
        memory = cls(MemoryConfig(**saved.config))
        memory._pinned = set(saved.pinned)

        def look(view_id: int, view: View) -> None:
            memory.sights.add(view_id, sight_of(view, memory.config.sight_side))

        storage.restore(saved, memory.views, memory._surfels, look)
        return memory
