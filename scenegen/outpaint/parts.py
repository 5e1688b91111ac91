"""Parts of a picture at one level of a network, so that only what is needed is computed.

A hole at the side of a view needs the last levels of the synthesis there alone. And where a level
is large, it is made a few rows at a time, from memory that is at hand: asking the system for so
much at once takes as long as the computation. Neither changes the picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from scenegen.fields import box_of

BELOW = 3
"""Pixels around what the level below makes of a part. At its border it loses one in convolutions,
one more before it is doubled, and half of one then: five of the part's own pixels at most."""
BESIDE = 4
"""Rows around a strip that are computed and thrown away; even, for levels are halved."""
STRIP = 1 << 21
"""Numbers that a strip holds, about: 8 MiB."""


@dataclass(frozen=True)
class Part:
    """A rectangle of pixels of one level."""

    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, plane: Tensor) -> Part:
        """All of a plane (..., h, w)."""
        return cls(0, plane.shape[-2], 0, plane.shape[-1])

    @classmethod
    def around(cls, wanted: Bool[Tensor, "h w"]) -> Part:
        """The smallest one that holds all that is wanted; of no pixels where nothing is."""
        if not wanted.any():
            return cls(0, 0, 0, 0)
        rows, columns = box_of(wanted)
        return cls(rows.start, rows.stop, columns.start, columns.stop)

    def grown(self, pixels: int, within: Part) -> Part:
        """With a margin, cut off at the border of another."""
        return Part(
            max(self.top - pixels, within.top),
            min(self.bottom + pixels, within.bottom),
            max(self.left - pixels, within.left),
            min(self.right + pixels, within.right),
        )

    def meeting(self, other: Part) -> Part:
        """The rows that it shares with another, over its own columns."""
        top = max(self.top, other.top)
        return Part(top, max(min(self.bottom, other.bottom), top), self.left, self.right)

    def halved(self) -> Part:
        """What it covers on the level below."""
        return Part(self.top // 2, -(-self.bottom // 2), self.left // 2, -(-self.right // 2))

    def doubled(self) -> Part:
        """What it covers on the level above."""
        return Part(2 * self.top, 2 * self.bottom, 2 * self.left, 2 * self.right)

    def cut(self, plane: Tensor, place: Part) -> Tensor:
        """These pixels of a plane (..., h, w) that covers the rectangle ``place``."""
        rows = slice(self.top - place.top, self.bottom - place.top)
        return plane[..., rows, self.left - place.left : self.right - place.left]

    def strips(self, channels: int) -> Iterator[Part]:
        """Its rows, an even number at a time, that many channels deep."""
        rows = max(STRIP // (channels * max(self.right - self.left, 1)) // 2 * 2, 2 * BESIDE)
        for top in range(self.top, self.bottom, rows):
            yield Part(top, min(top + rows, self.bottom), self.left, self.right)
