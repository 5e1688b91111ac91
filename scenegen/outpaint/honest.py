"""The honest mode: what neither the world nor the memory shows stays unknown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera
from scenegen.outpaint.base import Reference


class Nothing:
    """Invents nothing: NaN wherever nothing is known."""

    def fill(
        self,
        rgb: Float[Tensor, "h w 3"],
        known: Bool[Tensor, "h w"],
        camera: Camera | None,
        depth: Float[Tensor, "h w"] | None,
        references: Sequence[Reference],
        seed: int,
    ) -> Float[Tensor, "h w 3"]:
        return torch.where(known[..., None], rgb, torch.nan)
