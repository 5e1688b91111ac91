"""The chunks of a world in one visitor's browser: one node each, nearest first, within a budget.

A world that is larger than the budget is thinned, chunks far from the visitor more than near ones.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import viser
from jaxtyping import Float
from torch import Tensor

from viewer.budget import BUDGET, check_budget
from viewer.scene import FLOOR_PX, WINDOW_HEIGHT, cloud, footprints, sized, thinned
from viewer.stage import Chunk

HEADROOM = 0.6
"""Share of the budget that is used after thinning while a world still grows."""
ROAM = 2.0
"""Metres that a visitor walks before the levels of detail of a thinned world are set anew."""


@dataclass(frozen=True, eq=False)
class _Shown:
    chunk: Chunk
    share: float
    node: viser.GaussianSplatHandle | None
    count: int


class SplatScene:
    """What one visitor's browser holds. Safe to use from any thread.

    Args:
        owner: Whose scene it is.
        budget: Splats sent at most; positive.
    """

    def __init__(self, owner: viser.ViserServer | viser.ClientHandle, budget: int = BUDGET) -> None:
        check_budget(budget)
        self._owner = owner
        self._lock = threading.RLock()
        self._budget, self._floor = budget, FLOOR_PX
        self._shown: dict[str, _Shown] = {}
        self._scale: float | None = None
        self._stand = torch.zeros(3)
        self._visible = True
        self.pixel = 1.0 / WINDOW_HEIGHT
        """Extent of a pixel of the expected window at a distance of 1."""

    @property
    def shown(self) -> int:
        """Splats in the browser."""
        return sum(part.count for part in self._shown.values())

    @property
    def budget(self) -> int:
        """Splats sent at most."""
        return self._budget

    def show(self, chunks: Sequence[Chunk], eye: Float[Tensor, " 3"]) -> None:
        """Bring the browser up to date. What did not change is not sent again.

        Args:
            chunks: All that there is.
            eye: Where the visitor stands, in metres.
        """
        with self._lock:
            growing = bool(self._shown)
            roamed = float(torch.linalg.norm(eye - self._stand)) > ROAM
            if self._scale is None or not chunks or (roamed and math.isfinite(self._scale)):
                self._scale, self._stand = scale_for(chunks, eye, self._budget), eye
            elif sum(counts(chunks, self._stand, self._scale)) > self._budget:
                room = HEADROOM * self._budget if growing else self._budget
                self._scale, self._stand = scale_for(chunks, eye, room), eye
            wanted = {c.name: (c, share_of(c, self._stand, self._scale)) for c in chunks}
            for name in [name for name in self._shown if name not in wanted]:
                self._remove(name)
            for chunk, share in sorted(wanted.values(), key=lambda pair: _distance(pair[0], eye)):
                part = self._shown.get(chunk.name)
                if part is None or chunk is not part.chunk or share != part.share:
                    self._send(chunk, share)

    def limit(
        self, chunks: Sequence[Chunk], eye: Float[Tensor, " 3"], budget: int, floor: float
    ) -> None:
        """Change the budget, and the size in pixels below which no splat falls.

        Raises:
            SceneError: The budget is not positive.
        """
        check_budget(budget)
        with self._lock:
            if floor != self._floor:
                self.clear()
            self._budget, self._floor, self._scale = budget, floor, None
            self.show(chunks, eye)

    def set_visible(self, visible: bool) -> None:
        """Show or hide all of it."""
        with self._lock:
            self._visible = visible
            for part in self._shown.values():
                if part.node is not None:
                    part.node.visible = visible

    def clear(self) -> None:
        """Take every chunk away."""
        with self._lock, self._owner.atomic():
            for name in list(self._shown):
                self._remove(name)
            self._scale = None

    def _remove(self, name: str) -> None:
        node = self._shown.pop(name).node
        if node is not None:
            node.remove()

    def _send(self, chunk: Chunk, share: float) -> None:
        node, count = None, 0
        old = self._shown.get(chunk.name)
        if len(chunk.splats):
            footprint = footprints(chunk.splats, chunk.eye, self.pixel)
            splats = sized(chunk.splats, footprint, self._floor)
            part = cloud(thinned(splats, share, footprint, room_of(chunk, self.pixel)))
            count = len(part.centers)
            with self._owner.atomic():  # the old is seen until the new is there
                if old is not None and old.node is not None:
                    old.node.remove()
                node = self._owner.scene.add_gaussian_splats(
                    f"/world/{chunk.name}",
                    part.centers,
                    part.covariances,
                    part.rgbs,
                    part.opacities,
                    visible=self._visible,
                )
            self._owner.flush()
        elif old is not None and old.node is not None:
            old.node.remove()
        self._shown[chunk.name] = _Shown(chunk, share, node, count)


def share_of(chunk: Chunk, eye: Float[Tensor, " 3"], scale: float) -> float:
    """Share of a chunk's splats that is drawn: what covers less of the picture needs fewer.

    Args:
        chunk: It was made for a view; that view's distance from the visitor counts.
        eye: Where the visitor stands, in metres.
        scale: The share of a chunk that was made for where the visitor stands, if below 1.
    """
    return min(1.0, scale / (1.0 + _distance(chunk, eye)) ** 2)


def room_of(chunk: Chunk, pixel: float) -> float:
    """Pixels of the view that a chunk was made for, for each of its splats.

    Args:
        chunk: Not empty.
        pixel: Extent of a pixel of the window at a distance of 1.
    """
    view = chunk.camera
    focal = float(view.px_from_cam[0, 0] * view.px_from_cam[1, 1])
    return view.width * view.height / focal / pixel**2 / len(chunk.splats)


def counts(chunks: Sequence[Chunk], eye: Float[Tensor, " 3"], scale: float) -> list[int]:
    """Splats of each chunk that are drawn. See :func:`share_of`."""
    sizes = [(len(chunk.splats), share_of(chunk, eye, scale)) for chunk in chunks]
    return [max(1, math.floor(count * share)) if count else 0 for count, share in sizes]


def scale_for(chunks: Sequence[Chunk], eye: Float[Tensor, " 3"], budget: float) -> float:
    """The largest scale at which the chunks are within the budget; infinite when all fit."""
    if sum(len(chunk.splats) for chunk in chunks) <= budget:
        return math.inf
    low, high = 0.0, (1.0 + max(_distance(chunk, eye) for chunk in chunks)) ** 2
    for _ in range(50):
        middle = 0.5 * (low + high)
        within = sum(counts(chunks, eye, middle)) <= budget
        low, high = (middle, high) if within else (low, middle)
    return low


def _distance(chunk: Chunk, eye: Float[Tensor, " 3"]) -> float:
    return float(torch.linalg.norm(chunk.eye - eye.to(chunk.eye)))
