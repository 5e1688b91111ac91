"""How right, how alike and how seamless a filled hole is. Pictures are (h, w, 3), 0 to 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

OWN_PX = 24
"""Width of the known strip along a seam with whose gradients the seam's are compared."""
BINS = 8
"""Directions that edges are told apart by."""


def psnr(filled: Tensor, truth: Tensor, hole: Tensor) -> float:
    """Peak signal over noise in the hole, dB."""
    return -10 * math.log10(float(((filled - truth)[hole] ** 2).mean()) + 1e-12)


def ssim(filled: Tensor, truth: Tensor, hole: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), windows of 7 pixels, mean over the hole."""
    a, b = (image.permute(2, 0, 1)[None].double() for image in (filled, truth))

    def mean(image: Tensor) -> Tensor:
        return avg_pool2d(image, 7, 1, 3, count_include_pad=False)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    both = mean(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    score = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    score = score / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(score[0].mean(0)[hole].mean())


def seam(filled: Tensor, first: int) -> float:
    """Gradient across a vertical seam over the picture's own beside it; 1 is no seam at all.

    Args:
        filled: A picture that is known to the left of column ``first`` and filled from there on.
        first: The first filled column.
    """
    steps = torch.diff(filled, dim=1).abs()  # between columns i and i + 1
    own = steps[:, max(0, first - 1 - OWN_PX) : first - 1]
    return float(steps[:, first - 1].mean() / own.mean().clamp_min(1e-6))


def luminance(image: Tensor) -> float:
    """Mean of the luma (BT.709)."""
    return float((image @ torch.tensor([0.2126, 0.7152, 0.0722])).mean())


def saturation(image: Tensor) -> float:
    """Mean difference of the largest and the smallest channel."""
    return float((image.amax(-1) - image.amin(-1)).mean())


def edge_directions(image: Tensor) -> Tensor:
    """Shares of edge strength by direction (BINS,), smoothed over neighbouring directions."""
    gray = image.mean(-1)
    dy, dx = gray[2:, 1:-1] - gray[:-2, 1:-1], gray[1:-1, 2:] - gray[1:-1, :-2]
    strength, angle = torch.hypot(dx, dy), torch.atan2(dy, dx) % math.pi
    place = (angle / math.pi * BINS).long().clamp(max=BINS - 1)
    shares = torch.zeros(BINS).index_add(0, place.flatten(), strength.flatten())
    shares = (shares.roll(1) + 2 * shares + shares.roll(-1)) / 4
    return shares / shares.sum().clamp_min(1e-9)


def drifts(late: Tensor, early: Tensor) -> dict[str, float]:
    """How far a late strip is from an early one, as shares: of luminance, saturation, edges.

    That of the edges is the share of edge strength that changed its direction.
    """
    edges = 0.5 * float((edge_directions(late) - edge_directions(early)).abs().sum())
    return {
        "luminance": abs(luminance(late) / luminance(early) - 1),
        "saturation": abs(saturation(late) / saturation(early) - 1),
        "edges": edges,
    }
