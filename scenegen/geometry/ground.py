"""The ground plane: what a level camera at eye height knows without looking."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scenegen.geometry.base import EYE_HEIGHT
from scenegen.geometry.normals import disparity_normals

UPRIGHT = 0.7
"""A surface whose normal points up by more than this (cosine) may be ground."""
MIN_SHARE = 0.04
"""Ground must cover this share of the image before a scale is fitted to it."""
FARTHEST = 150.0
"""No surface is placed farther than this, in metres: parallax ends well before."""
HUBER = 0.05
"""Residual over mean disparity beyond which a ground pixel weighs less."""
MAX_SAMPLES = 20_000
"""Ground pixels that the fit uses, evenly chosen."""
ROUNDS = 12
"""Iterations of reweighted least squares."""


def ground_disparity(
    height: int, width: int, px_from_cam: Float[Tensor, "3 3"]
) -> Float[Tensor, "h w"]:
    """1/z of a level plane EYE_HEIGHT below the camera; negative above the horizon.

    Args:
        height: Image height, in pixels.
        width: Image width, in pixels.
        px_from_cam: Intrinsics; the horizon is at the row of the principal point.
    """
    rows = torch.arange(height) + 0.5
    slope = (rows - px_from_cam[1, 2]) / (px_from_cam[1, 1] * EYE_HEIGHT)
    return slope[:, None].expand(height, width)


def ground_aligned(
    depth: Float[Tensor, "h w"], sky: Bool[Tensor, "h w"], px_from_cam: Float[Tensor, "3 3"]
) -> Float[Tensor, "h w"]:
    """Bring estimated depth to metres with one scale and shift of its disparity.

    Where the estimate itself shows ground (a surface facing up, below the horizon), the plane
    says how far it is; a scale and a shift fitted there robustly (Huber) carry over to all.
    Where too little ground is seen, the depth comes back as it was.

    Args:
        depth: z in metres, up to scale and an offset in disparity.
        sky: Sky pixels, ignored.
        px_from_cam: Intrinsics, in pixels.
    """
    plane = ground_disparity(depth.shape[0], depth.shape[1], px_from_cam)
    normals = disparity_normals(_smoothed(depth), px_from_cam)
    below = torch.arange(depth.shape[0])[:, None] > px_from_cam[1, 2] + 0.06 * depth.shape[0]
    ground = (normals[..., 1] < -UPRIGHT) & below & ~sky
    if ground.float().mean() < MIN_SHARE:
        return depth.clamp(max=FARTHEST)
    every = max(1, int(ground.sum()) // MAX_SAMPLES)
    scale, shift = _fit_line(1.0 / depth[ground][::every], plane[ground][::every])
    if not 0.1 < scale < 10:
        return depth.clamp(max=FARTHEST)
    return 1.0 / (scale / depth + shift).clamp_min(1.0 / FARTHEST)


def _fit_line(x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> tuple[float, float]:
    """Robust ``y = scale x + shift`` by reweighted least squares."""
    x, y = x.double(), y.double()
    limit = HUBER * float(y.mean())
    weight = torch.ones_like(x)
    scale, shift = 1.0, 0.0
    for _ in range(ROUNDS):
        total = weight.sum()
        mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
        variance = (weight * (x - mean_x) ** 2).sum().clamp_min(1e-12)
        scale = float((weight * (x - mean_x) * (y - mean_y)).sum() / variance)
        shift = float(mean_y - scale * mean_x)
        error = (y - scale * x - shift).abs()
        weight = torch.where(error < limit, 1.0, limit / error.clamp_min(1e-12))
    return scale, shift


def _smoothed(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    size = (max(3, max(depth.shape) // 40)) | 1
    plane = torch.nn.functional.pad((1.0 / depth)[None, None], [size // 2] * 4, mode="replicate")
    return 1.0 / torch.nn.functional.avg_pool2d(plane, size, 1)[0, 0]
