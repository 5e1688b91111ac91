"""How well the depth of a hole is told, and how well it goes on across the hole's rim."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from benchmarks.depth_metrics import FACTOR

NEAR_SHARE = 0.06
"""What lies less than this share of a view's longer side inside a hole is near its rim."""


def hole_errors(
    depth: Float[Tensor, "h w"], truth: Float[Tensor, "h w"], hole: Bool[Tensor, "h w"]
) -> dict[str, float]:
    """Errors in a hole, of the logarithm of depth: median, mean, mean near the rim and far from it.

    And delta1, the share of pixels off by a factor below FACTOR. A measure is left out where the
    truth has no pixel for it.

    Args:
        depth: The answer, metres, finite.
        truth: Metres; what is not finite does not count.
        hole: Pixels that were not known.
    """
    counted = hole & torch.isfinite(truth)
    error = (torch.log(depth) - torch.log(truth)).abs()
    inside = torch.from_numpy(distance_transform_edt(hole.numpy())).float()
    near = inside <= NEAR_SHARE * max(hole.shape)
    found = {}
    if counted.any():
        found["median"] = float(error[counted].median())
        found["mean"] = float(error[counted].mean())
    for name, part in (("near", counted & near), ("far", counted & ~near)):
        if part.any():
            found[name] = float(error[part].mean())
    if counted.any():
        within = torch.exp(error[counted]) < FACTOR
        found["delta1"] = float(within.float().mean())
    return found


def seam_steps(
    depth: Float[Tensor, "h w"], truth: Float[Tensor, "h w"], hole: Bool[Tensor, "h w"]
) -> Float[Tensor, " n"]:
    """By how much the step of log depth across a hole's rim differs from the true one.

    Args:
        depth: Known depth outside the hole, the answer inside, metres.
        truth: Metres; steps from or to what is not finite do not count.
        hole: Pixels that were not known.
    """
    found = []
    log_depth, log_truth = torch.log(depth), torch.log(truth)
    for dim in (0, 1):
        crossing = torch.diff(hole.int(), dim=dim) != 0
        steps = torch.diff(log_depth, dim=dim) - torch.diff(log_truth, dim=dim)
        found.append(steps[crossing & torch.isfinite(steps)].abs())
    return torch.cat(found)
