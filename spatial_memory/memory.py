"""ViewMemory: what to write, what to retrieve, what to keep and what to forget."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from renderers.camera import Camera
from renderers.errors import SceneError
from spatial_memory import storage
from spatial_memory.retrieve import Retrieval, SelectRules, check_request, gather, select
from spatial_memory.sampling import sample_view
from spatial_memory.sight import Sight, sight_of
from spatial_memory.surfels import FuseRules, Surfels
from spatial_memory.views import (
    PROVENANCES,
    Array,
    View,
    ViewStore,
    cam_from_world,
    lens_of,
    make_view,
)


@dataclass(frozen=True)
class MemoryConfig:
    """How finely the memory maps the world, and when it trusts what it finds."""

    surfel_side: int = 128
    """Surfels along the longer side of a view."""
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
    min_gain: float = 0.01
    """Retrieval stops when no view adds this share of the target pixels."""
    min_coverage: float = 0.05
    """Below this share of the pixels in need, retrieval falls back to the nearest poses."""

    def __post_init__(self) -> None:
        for name in ("surfel_side", "sight_side", "evidence_side"):
            _check_range(name, getattr(self, name), 1, 4096)
        for name in ("merge_depth_share", "depth_tolerance", "min_gain", "min_coverage"):
            _check_range(name, getattr(self, name), 0, 1)
        _check_range("merge_min_cos", self.merge_min_cos, -1, 1)


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SceneError(
            f"the memory's {name} is {value}",
            why=f"it must lie between {low} and {high}",
            fix="use the default, or a value in that range",
        )


class ViewMemory:
    """Remembers views by the surfaces they have seen. Safe to use from several threads."""

    def __init__(self, config: MemoryConfig | None = None) -> None:
        self.config = config or MemoryConfig()
        self.views = ViewStore()
        """All views held, by id."""
        self.surfels = Surfels()
        """The surfaces they have seen."""
        self._sights: dict[int, Sight] = {}
        self._pinned: set[int] = set()
        self._lock = threading.RLock()

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
        samples, sight = sample_view(view, c.surfel_side), sight_of(view, c.sight_side)
        rules = FuseRules(c.merge_depth_share, c.merge_min_cos, c.depth_tolerance)
        with self._lock:
            view_id = self.views.add(view)
            self._sights[view_id] = sight
            rank = PROVENANCES.index(provenance)
            self.surfels.fuse(samples, view_id, rank, self._sights, rules)
        return view_id

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
            evidence = gather(self.surfels, cameras, masks, rules.side)
            return select(evidence, self.surfels, self._sights, cameras, k, self._pinned, rules)

    def pin(self, view_id: int, pinned: bool = True) -> None:
        """Take this view first in every retrieval and never forget it; or stop doing so.

        Raises:
            SceneError: There is no such view.
        """
        with self._lock:
            _ = self.views[view_id]
            (self._pinned.add if pinned else self._pinned.discard)(int(view_id))

    def forget(self, view_id: int) -> None:
        """Drop a view, what it has seen, and the surfels that no other view has seen.

        Raises:
            SceneError: There is no such view, or it is pinned.
        """
        with self._lock:
            _ = self.views[view_id]
            if view_id in self._pinned:
                raise SceneError(
                    f"view {view_id} cannot be forgotten",
                    why="it is pinned",
                    fix=f"unpin it first: memory.pin({view_id}, pinned=False)",
                )
            self.views.remove(view_id)
            del self._sights[view_id]
            self.surfels.drop_view(view_id)

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
        with self._lock:
            for view_id, view in self.views.items():
                shows = _shows_box(view, corners)
                if shows is not None:
                    rest = replace(view, known=view.known & ~shows)
                    self.views.replace(view_id, rest)
                    self._sights[view_id] = sight_of(rest, self.config.sight_side)
            return self.surfels.drop_box(*corners)

    def save(self, folder: str | Path) -> None:
        """Write the memory to a folder, in place of what was saved there before.

        Stopping at any moment leaves either the old or the new memory, never a mixture.

        Raises:
            SceneError: The folder cannot be written.
        """
        with self._lock:
            kept = storage.Kept(
                self.config.__dict__, self.views, self.surfels, sorted(self._pinned)
            )
            storage.save(Path(folder), kept)

    @classmethod
    def load(cls, folder: str | Path) -> ViewMemory:
        """Read a memory that :meth:`save` wrote. It gives the same answers, bit for bit.

        Raises:
            SceneError: There is none, it is damaged, or a newer release wrote it.
        """
        kept = storage.load(Path(folder), MemoryConfig.__dataclass_fields__)
        memory = cls(MemoryConfig(**kept.config))
        memory.views, memory.surfels = kept.views, kept.surfels
        memory._pinned = set(kept.pinned)
        for view_id, view in memory.views.items():
            memory._sights[view_id] = sight_of(view, memory.config.sight_side)
        return memory


def _shows_box(view: View, corners: np.ndarray) -> torch.Tensor | None:
    """(h, w) pixels whose surface lies inside the box; None where there are none."""
    pose, (fx, fy, cx, cy) = cam_from_world(view.camera), lens_of(view.camera)
    height, width = view.depth.shape
    if _out_of_sight(corners, pose, (fx, fy, cx, cy), width, height):
        return None
    z = np.where(torch.isfinite(view.depth), view.depth.numpy(), np.nan).astype(np.float64)
    x = (np.arange(width) + 0.5 - cx) / fx * z - pose[0, 3]
    y = ((np.arange(height) + 0.5 - cy) / fy)[:, None] * z - pose[1, 3]
    z = z - pose[2, 3]
    inside = np.ones(z.shape, np.bool_)
    for axis in range(3):
        world = pose[0, axis] * x + pose[1, axis] * y + pose[2, axis] * z
        inside &= (world >= corners[0, axis]) & (world <= corners[1, axis])
    return torch.from_numpy(inside) if inside.any() else None


def _out_of_sight(
    corners: np.ndarray, pose: np.ndarray, lens: tuple[float, ...], width: int, height: int
) -> bool:
    """Whether all eight corners are beyond the same side of what the camera sees."""
    fx, fy, cx, cy = lens
    pick = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, 8)
    eight = np.stack([corners[pick[axis], axis] for axis in range(3)])  # (3, 8)
    x, y, z = pose[:, :3] @ eight + pose[:, 3:]
    return bool(
        (z <= 0).all()
        or (fx * x < -cx * z).all()
        or (fy * y < -cy * z).all()
        or (fx * x > (width - cx) * z).all()
        or (fy * y > (height - cy) * z).all()
    )
