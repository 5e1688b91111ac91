"""MI-GAN (Sargsyan et al. 2023), trained on Places2, as a ready ONNX pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera
from scenegen.models.onnx import onnx_session
from scenegen.outpaint.base import Reference


class MiGan:
    """Fills from the view alone, without references. The seed changes nothing."""

    def __init__(self) -> None:
        self.session = onnx_session("migan")

    def fill(
        self,
        rgb: Float[Tensor, "h w 3"],
        known: Bool[Tensor, "h w"],
        camera: Camera | None,
        depth: Float[Tensor, "h w"] | None,
        references: Sequence[Reference],
        seed: int,
    ) -> Float[Tensor, "h w 3"]:
        image = (rgb * 255).round().to(torch.uint8).permute(2, 0, 1)[None]
        mask = known.to(torch.uint8)[None, None] * 255
        (result,) = self.session.run(None, {"image": image.numpy(), "mask": mask.numpy()})
        return torch.from_numpy(result)[0].permute(1, 2, 0).float() / 255
