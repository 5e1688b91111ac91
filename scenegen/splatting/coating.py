"""A coarse layer just behind the splats, so that gaps between them show the surface, not the void.

Splats narrow enough to keep the photograph sharp leave a grid of small gaps when the camera turns
or comes closer. One wide splat per block of pixels, a little farther away, fills these gaps with
the right colour and is hidden where the splats in front are dense.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from renderers import Camera, Splats
from scenegen.splatting.lifting import SIGMA_PX, lift, on_sky_shell

BLOCK = 3
"""Side of a block, in pixels: one splat of the undercoat for nine in front."""
COAT_SIGMA = 0.5
"""Standard deviation of a splat of the undercoat, in blocks: neighbours cover each other's rims."""
FLAT = 1.15
"""Blocks whose depths differ by more than this factor are at an edge and get no undercoat."""
BEHIND = 0.01
"""The undercoat lies at least this much farther away, as a share of depth."""
BEHIND_SLOPE = 2.0
"""On surfaces that recede it lies behind what is this many blocks farther up, so that it covers
none of it."""


def undercoat(
    rgb: Float[Tensor, "h w 3"],
    depth: Float[Tensor, "h w"],
    camera: Camera,
    keep: Bool[Tensor, "h w"] | None = None,
    sky_radius: float = 100.0,
) -> Splats:
    """Splats that fill the gaps between those of :func:`scenegen.splatting.lift`.

    Args:
        rgb: Colours, 0 to 1.
        depth: z in metres; +inf is sky; NaN gives nothing.
        camera: The view that the pixels belong to.
        keep: Pixels that were lifted; all when left out.
        sky_radius: As for ``lift``.
    """
    solid = on_sky_shell(depth, camera, sky_radius)
    keep = torch.isfinite(solid) if keep is None else keep & torch.isfinite(solid)
    planes = torch.where(keep, solid, 1.0)[None, None]
    far = max_pool2d(planes, BLOCK)[0, 0]
    near = -max_pool2d(-planes, BLOCK)[0, 0]
    whole = avg_pool2d(keep.float()[None, None], BLOCK)[0, 0] > 0.999
    colors = avg_pool2d(rgb.permute(2, 0, 1)[None], BLOCK)[0].permute(1, 2, 0)
    pushed = far * (1.0 + BEHIND + BEHIND_SLOPE * (far / near - 1.0))
    flat = whole & (far < FLAT * near)
    height, width = far.shape
    shrink = torch.diag(torch.tensor([1 / BLOCK, 1 / BLOCK, 1.0])).to(camera.px_from_cam)
    coarse = Camera(shrink @ camera.px_from_cam, camera.cam_from_world, width, height)
    coat = lift(colors, pushed, coarse, flat, sky_radius)
    return replace(coat, scales=coat.scales * (COAT_SIGMA / SIGMA_PX))
