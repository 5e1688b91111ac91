"""No visible border between what is known and what is filled: colour, sharpness, grain continue.

Known pixels are never touched, so all of it happens inside the hole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, gaussian_filter, maximum_filter
from torch import Tensor
from torch.nn.functional import avg_pool2d

from scenegen.fields import box_of

FADE_PX = 16.0
"""Distance from the rim at which its colour difference has faded to 1/e, in pixels."""
GONE = 6.0
"""Distance, in FADE_PX, from which on it counts as faded: a quarter of a percent is left."""
SOFTENS = 0.4
"""By how much the difference along the rim is blurred (standard deviation) at a distance of 1. A
membrane (Perez et al. 2003) would lose single pixels at once, and show where they end."""
BLURS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Standard deviations of the blurs that are made, in pixels; others are mixed from two of these."""
GRAIN_PX = 48
"""Known pixels within this distance of the hole tell how grainy the picture is."""
CALM = 0.25
"""Grain is read where the picture is calm: at this quantile of local fine contrast."""
MOST_GRAIN = 6 / 255
"""Standard deviation of the grain that is added, at most."""


def continued_colors(
    painted: Float[Tensor, "h w 3"], rgb: Float[Tensor, "h w 3"], rim: Bool[Tensor, "h w"]
) -> Float[Tensor, "h w 3"]:
    """Carry the difference at a rim into the hole, ever softer and fading.

    Args:
        painted: The filled view, right in all but its colours along the rim.
        rgb: The known view.
        rim: Known pixels next to the hole that were painted as well.
    """
    if not rim.any():
        return painted
    found: Any = distance_transform_edt(~rim.numpy(), return_indices=True)
    near = torch.from_numpy(found[0]).float()
    here = box_of(near < GONE * FADE_PX)
    near = near[here]
    rows, columns = (torch.from_numpy(index).long()[here] for index in found[1])
    spread = (rgb - painted)[rows, columns]  # (h, w, 3): that of the nearest rim pixel
    offset = _softened(spread, SOFTENS * near) * torch.exp(-near / FADE_PX)[..., None]
    continued = painted.clone()
    continued[here] += offset
    return continued


def _softened(field: Float[Tensor, "h w 3"], sigma: Float[Tensor, "h w"]) -> Tensor:
    """Blurred by another standard deviation at each pixel, up to the last of BLURS."""
    values = field.numpy()
    stack = [gaussian_filter(values, (blur, blur, 0)) if blur else values for blur in BLURS]
    levels = torch.from_numpy(np.stack(stack))  # (n, h, w, 3)
    edges = torch.tensor(BLURS)
    above = torch.bucketize(sigma, edges).clamp(1, len(BLURS) - 1)
    share = ((sigma - edges[above - 1]) / (edges[above] - edges[above - 1])).clamp(0, 1)
    index = above[None, ..., None].expand(1, *field.shape)
    low, high = levels.gather(0, index - 1)[0], levels.gather(0, index)[0]
    return low + share[..., None] * (high - low)


def with_grain(
    rgb: Float[Tensor, "h w 3"], known: Bool[Tensor, "h w"], new: Bool[Tensor, "h w"], seed: int
) -> Float[Tensor, "h w 3"]:
    """Add to new pixels the grain that known ones have and they lack.

    Args:
        rgb: The whole view.
        known: Where its grain is right.
        new: Where it is to be made right.
        seed: Same seed, same grain.
    """
    beside = along(known, GRAIN_PX)
    if not beside.any() or not new.any():
        return rgb
    box = box_of(beside | new)
    fine = _fine_contrast(rgb[box])
    there, here = (float(torch.quantile(fine[m[box]][::7], CALM)) for m in (beside, new))
    sigma = min(max(there - here, 0.0) ** 0.5, MOST_GRAIN)
    draw = torch.Generator().manual_seed(seed)
    noise = sigma * torch.randn(*new.shape, 1, generator=draw)
    return torch.where(new[..., None], rgb + noise, rgb)


def _fine_contrast(rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w"]:
    """Variance of white grain that would explain the finest detail around each pixel."""
    gray = rgb.mean(-1)[None, None]
    detail = gray - avg_pool2d(gray, 3, 1, 1, count_include_pad=False)
    power = avg_pool2d(detail**2, 7, 1, 3, count_include_pad=False)[0, 0]
    return power / (8 / 9)  # what the mean of nine takes out of white noise


def along(known: Bool[Tensor, "h w"], pixels: int) -> Bool[Tensor, "h w"]:
    """Known pixels within a distance of the hole, in pixels."""
    near = maximum_filter((~known).numpy(), 2 * pixels + 1, mode="constant")  # a square
    return known & torch.from_numpy(near)
