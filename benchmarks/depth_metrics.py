"""How well a depth map tells the truth, when scale and shift of its disparity are forgiven."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor
from torch.nn.functional import max_pool2d

STEPS = (1.05, 1.10, 1.15, 1.20, 1.25)
"""Ratios of neighbouring depths above which there is a boundary (Bochkovskii et al. 2024)."""
NEAR_PX = 2
"""A boundary is found when it lies within this many pixels, along rows and columns."""
FACTOR = 1.25
"""Largest ratio of a depth to the true one that delta1 counts as right."""


def aligned(disparity: Float[Tensor, "h w"], truth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Depth from disparity by the scale and shift that fit the true disparity best (least squares).

    Nothing lies beyond the farthest true depth. An answer that is flat, or runs against the
    truth, becomes the median true depth: it tells nothing.

    Args:
        disparity: Larger is nearer, in any unit; 0 is as far as it goes.
        truth: Depth in metres; NaN where it is not known.
    """
    known = torch.isfinite(truth)
    x, y = disparity[known].double(), 1.0 / truth[known].double()
    spread = x - x.mean()
    variance = (spread**2).sum()
    scale = float((spread * y).sum() / variance) if variance > 0 else 0.0
    if not scale > 0:
        return torch.full_like(truth, float(truth[known].median()))
    shift = float(y.mean() - scale * x.mean())
    return (1.0 / (scale * disparity.double() + shift).clamp_min(float(y.min()))).float()


def spearman(disparity: Float[Tensor, "h w"], truth: Float[Tensor, "h w"]) -> float:
    """Rank correlation of an answer and the true disparity, -1 to 1; 0 for a flat answer."""
    known = torch.isfinite(truth)
    ranks = [
        torch.from_numpy(rankdata(values.double().numpy()))
        for values in (disparity[known], 1.0 / truth[known])
    ]
    a, b = (rank - rank.mean() for rank in ranks)
    length = float(a.norm() * b.norm())
    return float(a @ b) / length if length > 0 else 0.0


def absrel(depth: Float[Tensor, "h w"], truth: Float[Tensor, "h w"]) -> float:
    """Mean of the error over the true depth."""
    known = torch.isfinite(truth)
    return float(((depth - truth)[known].abs() / truth[known]).mean())


def delta1(depth: Float[Tensor, "h w"], truth: Float[Tensor, "h w"]) -> float:
    """Share of pixels off by a factor of less than FACTOR, 0 to 1."""
    known = torch.isfinite(truth)
    ratio = depth[known] / truth[known]
    return float((torch.maximum(ratio, 1.0 / ratio) < FACTOR).float().mean())


def boundary_f1(depth: Float[Tensor, "h w"], truth: Float[Tensor, "h w"]) -> float | None:
    """How well steps of depth are where the true ones are: F1, 0 to 1, mean over STEPS.

    Precision is the share of steps with a true one within NEAR_PX, recall that of true steps with
    one of the answer. Both count only where the truth is known on either side.

    Returns:
        None where the truth has no step at all.
    """
    scores = []
    for least in STEPS:
        found, right = _steps(depth, truth, least), _steps(truth, truth, least)
        if not right.any():
            continue
        hits = float((found & _near(right)).sum())
        precision = hits / max(1.0, float(found.sum()))
        recall = float((right & _near(found)).sum()) / float(right.sum())
        both = precision + recall
        scores.append(2 * precision * recall / both if both > 0 else 0.0)
    return sum(scores) / len(scores) if scores else None


def _steps(
    depth: Float[Tensor, "h w"], truth: Float[Tensor, "h w"], least: float
) -> Bool[Tensor, "h w"]:
    """Pixels whose right or lower neighbour is farther or nearer by a factor above ``least``."""
    steps = torch.zeros_like(depth, dtype=torch.bool)
    for dim in (0, 1):
        length = depth.shape[dim] - 1
        one, other = (depth.narrow(dim, start, length) for start in (0, 1))
        known = torch.isfinite(truth.narrow(dim, 0, length) * truth.narrow(dim, 1, length))
        steep = known & (torch.maximum(one / other, other / one) > least)
        steps.narrow(dim, 0, length).logical_or_(steep)
    return steps


def _near(steps: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    size = 2 * NEAR_PX + 1
    return max_pool2d(steps.float()[None, None], size, 1, NEAR_PX)[0, 0] > 0
