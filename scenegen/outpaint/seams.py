"""No visible border between what is known and what is filled: colour and grain continue."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from scenegen.fields import pull_push

FADE_PX = 16.0
"""Distance from the rim at which its colour difference has faded to 1/e, in pixels."""


def continued_colors(
    painted: Float[Tensor, "h w 3"], rgb: Float[Tensor, "h w 3"], rim: Bool[Tensor, "h w"]
) -> Float[Tensor, "h w 3"]:
    """Carry the difference at a rim into the hole, fading (Perez et al. 2003).

    Args:
        painted: The filled view, right in all but its colours along the rim.
        rgb: The known view.
        rim: Known pixels along the hole that were painted as well.
    """
    if not rim.any():
        return painted
    offset = pull_push(rgb - painted, rim)
    distance = torch.from_numpy(distance_transform_edt(~rim.numpy())).float()
    return painted + offset * torch.exp(-distance / FADE_PX)[..., None]


def along(known: Bool[Tensor, "h w"], pixels: int) -> Bool[Tensor, "h w"]:
    """Known pixels within a distance of the hole, in pixels."""
    hole = (~known).float()[None, None]
    near = torch.nn.functional.max_pool2d(hole, 2 * pixels + 1, 1, pixels)[0, 0] > 0.5
    return known & near
