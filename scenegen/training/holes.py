"""Holes as a walk makes them: open sides, gaps between known sides, what a step uncovers."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

BAND, GAP = (0.2, 0.55), (0.2, 0.5)
"""Share of the picture that an open side or a gap takes."""
SHIFT = (0.05, 0.25)
"""How far the nearest surfaces move at a step, as a share of the picture."""
NEAR_SHARE = 0.02
"""Share of a view that is nearer than what counts as its nearest surfaces."""
SAME_SURFACE = 0.97
"""What is farther than this share of a disparity says lies behind it."""
KINDS = {"band": 0.6, "gap": 0.15, "warp": 0.25}
"""How often each kind comes."""


def random_known(rng: np.random.Generator, side: int) -> Bool[Tensor, "s s"]:
    """Which pixels of a square picture stay known."""
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    if kind == "warp":
        return _uncovered(rng, side)
    known = torch.ones(side, side, dtype=torch.bool)
    wide = round(side * rng.uniform(*(BAND if kind == "band" else GAP)))
    first = 0 if kind == "band" else round(rng.uniform(0.2, 0.8) * (side - wide))
    known[:, first : first + wide] = False
    known = known.flip(1) if rng.random() < 0.5 else known
    return known.T.contiguous() if rng.random() < 0.2 else known


def _uncovered(rng: np.random.Generator, side: int) -> Bool[Tensor, "s s"]:
    """What a step to the side leaves open behind near surfaces, and at one edge."""
    near = torch.from_numpy(rng.standard_normal((1, 1, 5, 5))).float()
    bulge = interpolate(near, (side, side), mode="bicubic")[0, 0]
    ground = torch.linspace(0, 1, side)[:, None].expand(side, side)
    disparity = 0.3 * ground + 0.7 * (bulge > 0.6).float() + 0.1 * bulge.sigmoid()
    shift = side * rng.uniform(*SHIFT) * disparity
    columns = (torch.arange(side) + shift).round().long()
    known = torch.zeros(side, side + 1, dtype=torch.bool)
    known.scatter_(1, columns.clamp(max=side), True)
    known = known[:, :side]
    return known.flip(1) if rng.random() < 0.5 else known.contiguous()


def uncovered_by_step(depth: Float[Tensor, "h w"], reach: float) -> Bool[Tensor, "h w"]:
    """Which pixels of a view were seen before a step to the side: not what near things hid.

    Args:
        depth: Of the view, metres; +inf sky. NaN counts as far.
        reach: How far its nearest surfaces moved to the right, as a share of its width; to the
            left where it is negative.
    """
    if reach < 0:
        return uncovered_by_step(depth.flip(1), -reach).flip(1)
    width = depth.shape[1]
    near = torch.nan_to_num(1.0 / depth, nan=0.0)
    near = near / near.quantile(1 - NEAR_SHARE).clamp_min(1e-9)
    before = (torch.arange(width) + reach * width * near).floor().long()  # columns in that view
    front = torch.zeros(depth.shape[0], width + 1)
    front.scatter_reduce_(1, before.clamp(max=width), near, "amax")
    front = max_pool2d(front[None], (1, 3), 1, (0, 1))[0]  # a surface seen wider has no cracks
    return (before < width) & (near >= SAME_SURFACE * front.gather(1, before.clamp(max=width)))
