"""Splats on their way into a file and out of one: checked, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from renderers.errors import SceneError
from renderers.splats import SH_SIZES, Splats
from scenegen.export.progress import progress

ROWS = 1 << 16
"""Splats converted at once: bounds the memory beyond the splats themselves."""
SPLATS_LIMIT = 10_000_000
"""Most splats read from a compressed file, which may promise any number in a few bytes. It is the
limit of the reference reader of .spz as well."""


@dataclass(frozen=True, eq=False)
class Rows:
    """A block of splats that can be written: on the CPU, float64, in range, finite as float32."""

    start: int
    """Row of the first of them."""
    means: Float[Tensor, "n 3"]
    quats: Float[Tensor, "n 4"]
    """Unit quaternions w x y z."""
    scales: Float[Tensor, "n 3"]
    opacities: Float[Tensor, " n"]
    colors: Float[Tensor, "n 3"]
    sh: Float[Tensor, "n k 3"] | None

    @property
    def place(self) -> slice:
        """Which rows of all these are."""
        return slice(self.start, self.start + len(self.means))


def rows_of(splats: Splats, title: str) -> Iterator[Rows]:
    """The splats block by block, with a bar on a terminal when it takes longer than a second.

    Args:
        splats: Opacities 0 to 1, scales not negative, quaternions not zero, all finite.
        title: What is being written, for the bar.

    Raises:
        SceneError: There are none, or a value is out of range.
    """
    if len(splats) == 0:
        raise SceneError(
            "there are no splats to write",
            why="an empty file would open as a blank scene in other programs",
            fix="create or grow the world first, or keep a larger part of it",
        )
    starts = range(0, len(splats), ROWS)
    for start in progress(starts, title, unit_scale=ROWS):
        yield _checked(splats[start : start + ROWS].detach(), start)


def _checked(part: Splats, start: int) -> Rows:
    means, quats, scales, opacities, colors = (
        values.cpu().double()
        for values in (part.means, part.quats, part.scales, part.opacities, part.colors)
    )
    sh = None if part.sh is None else part.sh.cpu().double()
    length = torch.linalg.norm(quats, dim=1, keepdim=True)
    _require(length > 0, start, "a quaternion is zero or NaN", "a rotation needs a direction")
    _require((opacities >= 0) & (opacities <= 1), start, "an opacity is not within 0 to 1")
    _require(scales >= 0, start, "a scale is negative or NaN")
    for values in (means, length, scales, colors, sh):
        if values is not None:
            finite = torch.isfinite(values.float())
            _require(finite, start, "a value is NaN, infinite or beyond float32")
    return Rows(start, means, quats / length, scales, opacities, colors, sh)


def _require(fine: Tensor, start: int, why: str, hint: str = "other programs would fail") -> None:
    if not fine.all():  # all() of all is ten times as fast as a row at a time
        row = start + int(torch.nonzero(~fine)[0, 0])
        raise SceneError(
            f"splat {row} cannot be written",
            why=f"{why}; {hint}",
            fix="drop such splats first: splats[mask] keeps the rows of a mask",
        )


def quantised(values: Tensor, low: float, high: float) -> UInt8[np.ndarray, "*shape"]:
    """Bytes: ``low`` becomes 0, ``high`` 255; rounded to nearest, clipped outside."""
    scaled = (values - low) * (255.0 / (high - low))
    return scaled.round().clamp(0.0, 255.0).to(torch.uint8).numpy()


def sh_size(degree: int) -> int:
    """Coefficients without the constant term of harmonics up to ``degree``, 0 to 3."""
    return {known: size for size, known in SH_SIZES.items()}[degree]


def splats_from(path: Path, fields: Mapping[str, Tensor | None], fix: str) -> Splats:
    """Splats from what a file held: float32, with unit quaternions, all finite.

    Args:
        path: The file, for the message.
        fields: The fields of :class:`Splats`; quaternions of any length above 0.
        fix: What helps against values that are not finite.

    Raises:
        SceneError: A value is not finite, a scale negative, or a quaternion zero.
    """
    values = {name: value for name, value in fields.items() if value is not None}
    length = torch.linalg.norm(values["quats"].double(), dim=1, keepdim=True)
    values["quats"] = values["quats"] / length
    values = {name: value.float().contiguous() for name, value in values.items()}
    fine = (values["scales"] >= 0).all(1)
    for value in values.values():
        fine &= torch.isfinite(value.reshape(len(fine), -1)).all(1)
    if not fine.all():
        raise bad_splats(
            path,
            f"{int((~fine).sum())} of {len(fine)} splats hold NaN, infinity, a negative scale or "
            f"a zero quaternion (the first is splat {int(torch.nonzero(~fine)[0, 0])})",
            fix,
        )
    return Splats(**values)


AGAIN = "export it again from the program that made it"


def bad_splats(path: Path, why: str, fix: str = AGAIN) -> SceneError:
    """The error for a file that does not hold splats."""
    return SceneError(f"cannot read {path} as splats", why=why, fix=fix)
