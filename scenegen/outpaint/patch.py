"""PatchMatch (Barnes et al. 2009): copies patches, from the view and from the retrieved views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera
from scenegen.outpaint.base import Reference

PATCH = 3
"""Radius of a patch, in pixels."""
MAX_REFERENCES = 1
"""Retrieved views beside the view itself: each adds its area to the search."""
WORK_SIDE = 512
"""Longer side at which patches are copied, in pixels; time grows with the area."""


class PatchMatch:
    """The view and its best reference lie side by side, and patches come from both."""

    def fill(
        self,
        rgb: Float[Tensor, "h w 3"],
        known: Bool[Tensor, "h w"],
        camera: Camera | None,
        depth: Float[Tensor, "h w"] | None,
        references: Sequence[Reference],
        seed: int,
    ) -> Float[Tensor, "h w 3"]:
        import patchmatch

        height, width = known.shape
        zoom = min(1.0, WORK_SIDE / max(height, width))
        size = (max(1, round(height * zoom)), max(1, round(width * zoom)))
        tiles = [(rgb, known)]
        tiles += [(view.rgb, view.known) for view in references[:MAX_REFERENCES]]
        image = torch.cat([_resized(picture, size) for picture, _ in tiles], dim=1)
        valid = torch.cat([_shrunk_mask(mask, size) for _, mask in tiles], dim=1)
        hole = torch.zeros_like(valid)
        hole[:, : size[1]] = ~valid[:, : size[1]]
        patchmatch.set_random_seed(seed)
        filled = patchmatch.inpaint(
            _bytes(image),
            hole.numpy().astype(np.uint8) * 255,
            global_mask=(~valid & ~hole).numpy().astype(np.uint8) * 255,
            patch_size=PATCH,
        )
        painted = torch.from_numpy(filled[:, : size[1]].astype(np.float32)) / 255
        return _resized(painted, (height, width))


def _bytes(image: Float[Tensor, "h w 3"]) -> np.ndarray:
    return (image * 255).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


def _resized(image: Float[Tensor, "h w 3"], size: tuple[int, int]) -> Tensor:
    planes = image.permute(2, 0, 1)[None]
    result = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True)
    return result[0].permute(1, 2, 0)


def _shrunk_mask(mask: Bool[Tensor, "h w"], size: tuple[int, int]) -> Tensor:
    """A small pixel is valid only when all it covers is."""
    planes = mask.float()[None, None]
    return torch.nn.functional.interpolate(planes, size, mode="area")[0, 0] > 0.999
