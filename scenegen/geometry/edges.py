"""Depth edges: steps where the photograph has outlines, instead of ramps (rubber sheets)."""

from __future__ import annotations

import math

import kornia
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

GUIDE_SHARE = 1 / 48
"""Radius of the guided filter, as a share of the image's longer side: a network's own blur."""
GUIDE_EPS = 1e-3
"""Colour variance below which the guided filter smooths (0 to 1 squared)."""
BEND_LOW, BEND_HIGH = 0.02, 0.06
"""Departure from a plane, over mean disparity, from which and above which the guide is followed:
elsewhere it would only print the image's texture into the surface."""
SHOCK_WINDOWS = (17, 17, 13, 13, 9, 9, 7, 5, 5)
"""Windows in which ramps are steepened, one round each, in pixels: from a network's blur down."""


def sharpen(
    depth: Float[Tensor, "h w"], rgb: Float[Tensor, "h w 3"], sky: Bool[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """Align depth edges with the image and turn their ramps into steps.

    A guided filter (He et al. 2010) on disparity first moves the middle of each ramp to the
    outline in the image. Shock filtering (after Osher and Rudin 1990) then moves each pixel of
    the ramp towards the nearer of its two sides, round after round. Surfaces that only recede,
    such as the ground towards the horizon, are linear in disparity: each pixel is in the middle
    of its window's range, and stays as it is.

    Args:
        depth: z in metres, finite and positive.
        rgb: The image the depth belongs to, 0 to 1.
        sky: Its sky; not mixed into surfaces.
    """
    disparity = fill_sky(1.0 / depth, sky)
    low, high = disparity.min(), disparity.max()
    window = 2 * max(2, round(GUIDE_SHARE * max(depth.shape))) + 1
    margin = max(window, sum(SHOCK_WINDOWS) // 2)
    planes = pad(_planes(rgb), [margin] * 4, mode="replicate")
    wide = _continued(disparity, margin)
    scale = disparity.mean()
    guided = kornia.filters.guided_blur(
        planes, (wide / scale)[None, None], window, GUIDE_EPS, subsample=4
    )
    follow = _bend(wide, low, window)
    steep = wide + follow * (guided[0, 0] * scale - wide)
    for size in SHOCK_WINDOWS:
        steep = _steepened(steep, size)
    sharp = (wide + follow * (steep - wide))[margin:-margin, margin:-margin]
    return 1.0 / torch.clamp(sharp, low, high)


def _continued(disparity: Float[Tensor, "h w"], margin: int) -> Tensor:
    """The field with a margin in which planes go on, so that its border bends nothing."""
    for dim in (0, 1):
        first, last = (disparity.narrow(dim, i, 1) for i in (0, disparity.shape[dim] - 1))
        slope_first = disparity.narrow(dim, 1, 1) - first
        slope_last = last - disparity.narrow(dim, disparity.shape[dim] - 2, 1)
        steps = torch.arange(1, margin + 1, dtype=disparity.dtype)
        steps = steps[:, None] if dim == 0 else steps[None]
        before = (first - steps * slope_first).flip(dim)
        disparity = torch.cat([before, disparity, last + steps * slope_last], dim)
    return disparity


def _bend(
    disparity: Float[Tensor, "h w"], least: Float[Tensor, ""], size: int
) -> Float[Tensor, "h w"]:
    """0 where surfaces are plane within a window of ``size`` pixels, 1 around depth edges."""
    plane = disparity[None, None]
    mean = _box(plane, size)
    bend = _window_max((plane - mean).abs() / mean.clamp_min(least), size)
    rise = _box(bend, size)[0, 0]
    return ((rise - BEND_LOW) / (BEND_HIGH - BEND_LOW)).clamp(0.0, 1.0)


def _steepened(disparity: Float[Tensor, "h w"], window: int) -> Float[Tensor, "h w"]:
    """One round: a smooth S-curve over each window's range, with its middle as fixed point."""
    plane = disparity[None, None]
    near, far = _window_max(plane, window), -_window_max(-plane, window)
    spread = near - far
    t = (plane - far) / spread.clamp_min(1e-12)
    steep = far + spread * t**3 * (10 - 15 * t + 6 * t * t)
    return torch.where(spread > 1e-9, steep, plane)[0, 0]


def fill_sky(disparity: Float[Tensor, "h w"], sky: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Continue the surfaces a little into the sky, so that filters see no false edge there."""
    weight = (~sky).float()[None, None]
    values, size = disparity[None, None] * weight, 31
    near_surface = _box(weight, size)
    spread = _box(values, size) / near_surface.clamp_min(1e-6)
    filled = torch.where(near_surface > 1e-6, spread, disparity.min())
    return torch.where(sky, filled[0, 0], disparity)


def _box(plane: Float[Tensor, "1 1 h w"], size: int) -> Float[Tensor, "1 1 h w"]:
    return kornia.filters.box_blur(plane, size, separable=True)


def _window_max(plane: Float[Tensor, "1 1 h w"], window: int) -> Float[Tensor, "1 1 h w"]:
    """Largest value in a square window of odd side; twenty times as fast as a max pool.

    The largest of two neighbours, of two such pairs, and so on: log2(window) steps a side.
    """
    side = window // 2
    wide = pad(plane, [side] * 4, value=-math.inf)
    for dim in (2, 3):
        reach = 1
        while reach < window:
            step = min(reach, window - reach)
            length = wide.shape[dim] - step
            wide = torch.maximum(wide.narrow(dim, 0, length), wide.narrow(dim, step, length))
            reach += step
    return wide


def _planes(rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "1 3 h w"]:
    return rgb.permute(2, 0, 1)[None]
