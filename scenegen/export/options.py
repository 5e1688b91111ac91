"""What of a world is exported, and where it lies in the file. Nothing heavy: it is help text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from renderers.errors import SceneError


@dataclass(frozen=True)
class ExportOptions:
    """What of a world is exported, and where it lies in the file."""

    splats: int | None = None
    """Most splats: more are merged, the least visible first, so that no holes appear."""
    crop: tuple[float, float, float, float, float, float] | None = None
    """Keep only what is in this box: X0 Y0 Z0 X1 Y1 Z1 in metres; x right, y down, z forward."""
    up: Literal["-y", "y", "z"] | None = None
    """Axis that points up in the file; the one usual for the format when left out."""
    ground: bool = False
    """Put the origin on the ground, below where the photograph was taken."""
    origin: tuple[float, float, float] | None = None
    """Point that becomes the origin: X Y Z in metres; x right, y down, z forward."""
    scale: float = 1.0
    """Units of the file for one metre: 100 for centimetres."""
    provenance: bool = False
    """Also write where each splat comes from: the number of its step, and 0 photograph, 1
    generated, 2 imported. Only .ply holds it, and not together with --splats."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise SceneError(
                f"a scale of {self.scale} is impossible",
                why="lengths are multiplied by it",
                fix="give a number above 0, such as 100 for centimetres",
            )
        if self.origin and not all(map(math.isfinite, self.origin)):
            raise SceneError(
                f"{self.origin} cannot be the origin",
                why="it holds NaN or infinity",
                fix="give X Y Z in metres",
            )
        if self.crop:
            low, high = self.crop[:3], self.crop[3:]
            if not all(-math.inf < a <= b < math.inf for a, b in zip(low, high, strict=True)):
                raise SceneError(
                    f"this is not a box: {self.crop}",
                    why="a box is two corners, the smaller x, y and z first",
                    fix="give X0 Y0 Z0 X1 Y1 Z1 in metres, with X0 <= X1, Y0 <= Y1 and Z0 <= Z1",
                )
        if self.provenance and self.splats is not None:
            raise SceneError(
                "merged splats have no one provenance",
                why="--splats merges splats of several steps into one",
                fix="leave out --splats or --provenance",
            )
        if self.splats is not None and self.splats < 1:
            raise SceneError(
                f"a budget of {self.splats} splats is impossible",
                why="there is nothing to see without splats",
                fix="give a number such as 500000",
            )
