"""Holes that are open to a side get something to arrive at: known pixels, mirrored beyond the side.

A network that continues into the open darkens, loses its colours and then its texture, the more so
the more often what it painted is continued. Between two known sides it does not. So known lines
(columns or rows) are laid out once more beyond the open side, mirrored, as a full circle is closed
by mirrored copies of the photograph; what is painted there is cut off again. To keep the cost, as
many lines are left out at the other side, where all is known.

Four quarters in a row, each continued from the last, drifted by 33 % in luminance, 42 % in
saturation and 12 % in the directions of edges without; by 8, 18 and 14 % when the mirror stands in
the middle of the hole, so that it ends as it begins, which draws stripes; and by 6, 9 and 11 % as
it is (five photographs, benchmarks/outpaint.py, before detail is mended). More than SKIPPED drifts
as little, and is further from what was there: LPIPS of a hidden quarter .130, .133 and .136 with 0,
this, and twice this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera

ANCHOR = 0.25
"""Lines that are laid out beyond a side, as a share of the view's."""
SKIPPED = 0.0625
"""Lines nearest to the hole that are not laid out again, likewise."""
OPEN = 0.5
"""A side is open where more than this share of it is unknown."""
USUAL = 0.9
"""The hole reaches as far as it does in this share of the open side: single gaps do not count."""


@dataclass(frozen=True)
class Axis:
    """Which columns, or rows, of a view are laid out."""

    lines: list[int]
    """Their numbers in the view, in the order in which they are laid out; some are there twice."""
    own: slice
    """Those of the view that are laid out as they are."""
    place: slice
    """Where among ``lines`` these are."""


@dataclass(frozen=True)
class Anchored:
    """A view as it is laid out for a network."""

    rows: Axis
    columns: Axis

    def spread(self, plane: Tensor) -> Tensor:
        """A plane (h, w) or (h, w, c) of the view, laid out."""
        return plane[self.rows.lines][:, self.columns.lines]

    def camera(self, camera: Camera) -> Camera:
        """The view's camera, widened to all that is laid out."""
        lens = camera.px_from_cam.clone()
        lens[0, 2] += self.columns.place.start - self.columns.own.start
        lens[1, 2] += self.rows.place.start - self.rows.own.start
        size = {"width": len(self.columns.lines), "height": len(self.rows.lines)}
        return replace(camera, px_from_cam=lens, **size)

    def gathered(self, painted: Tensor, rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w 3"]:
        """The view, as painted where it was laid out."""
        whole = rgb.clone()
        whole[self.rows.own, self.columns.own] = painted[self.rows.place, self.columns.place]
        return whole


def anchored(known: Bool[Tensor, "h w"]) -> Anchored:
    """How a view of which these pixels are known is laid out."""
    columns = _axis(known)
    return Anchored(_axis(known[:, columns.own].T), columns)


def _axis(known: Bool[Tensor, "n lines"]) -> Axis:
    """Along the second axis."""
    count = known.shape[1]
    after = _beyond(known)
    before = [count - 1 - line for line in reversed(_beyond(known.flip(1)))]
    first, last = 0, count
    if after and not before and known[:, : len(after)].all():
        first = min(len(after), min(after))
    if before and not after and known[:, count - len(before) :].all():
        last = count - min(len(before), count - 1 - max(before))
    lines = [*before, *range(first, last), *after]
    return Axis(lines, slice(first, last), slice(len(before), len(before) + last - first))


def _beyond(known: Bool[Tensor, "n lines"]) -> list[int]:
    """The lines that are laid out beyond the last one, in order."""
    count = known.shape[1]
    hidden = ~known
    if not hidden[:, -1].float().mean() > OPEN:
        return []
    reach = hidden.flip(1).int().cumprod(1).sum(1)[hidden[:, -1]]  # of the hole, from this side
    known_to = count - int(torch.quantile(reach.float(), USUAL))
    first = known_to - 1 - min(round(SKIPPED * count), known_to // 2)
    return list(range(first, max(first - round(ANCHOR * count), -1), -1))
