"""What the depth network is taught: normalised disparity, and the smaller heads."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from scenegen.fields import normalised
from scenegen.geometry.dpt import DepthPrediction
from scenegen.training.tokens import Sample

TRIM = 0.15
"""Share of each image's pixels, those with the largest errors, that count nothing."""
SCALES = 4
"""Halvings at which gradients are compared."""
STEEPEST = 2.0
"""Errors of gradients count no more than this."""
SKY, NORMALS, FOCAL, CONFIDENCE = 0.2, 0.1, 0.1, 0.05
"""Weights of the smaller heads against the disparity's 1."""
TRUSTED = 0.3
"""Error of the disparity at which confidence should be 1/e, in deviations."""


def depth_loss(
    prediction: DepthPrediction, truth: Sample, gradient_weight: float
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss of a batch, and its parts as numbers.

    Args:
        prediction: What the network said.
        truth: What is right.
        gradient_weight: Weight of the gradients' errors; rises during training.

    Differentiable in the prediction.
    """
    sky = truth.disparity <= 0
    target = normalised(truth.disparity, ~sky)
    error = prediction.disparity - target
    parts = {
        "disparity": _trimmed(error.abs()),
        "gradient": _gradients(error),
        "sky": binary_cross_entropy_with_logits(prediction.sky, sky.float()),
        "normals": _normals(prediction.normals, truth.normals, ~sky),
        "focal": (prediction.log_focal - truth.log_focal).abs().mean(),
        "confidence": binary_cross_entropy_with_logits(
            prediction.confidence, torch.exp(-error.detach().abs() / TRUSTED)
        ),
    }
    weights = {
        "disparity": 1.0,
        "gradient": gradient_weight,
        "sky": SKY,
        "normals": NORMALS,
        "focal": FOCAL,
        "confidence": CONFIDENCE,
    }
    total = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}


def _trimmed(error: Float[Tensor, "b h w"]) -> Float[Tensor, ""]:
    flat = error.flatten(1)
    some = flat.detach()[:, ::7]  # a quantile of every seventh pixel is as good
    limit = torch.quantile(some, 1 - TRIM, dim=1, keepdim=True)
    return torch.where(flat <= limit, flat, 0.0).mean()


def _gradients(error: Float[Tensor, "b h w"]) -> Float[Tensor, ""]:
    total = error.new_zeros(())
    for scale in range(SCALES):
        coarse = error[:, :: 2**scale, :: 2**scale]
        for dim in (1, 2):
            total = total + torch.diff(coarse, dim=dim).abs().clamp(max=STEEPEST).mean()
    return total / SCALES


def _normals(
    said: Float[Tensor, "b 3 h w"], right: Float[Tensor, "b 3 h w"], surface: Bool[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    miss = 1 - (said * right).sum(1)
    return (miss * surface).sum() / surface.sum().clamp_min(1)
