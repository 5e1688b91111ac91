"""The ground plane: what a camera at eye height knows without looking.

The camera is level, unless sky reaches below the middle of the picture: there is none below the
horizon, so the horizon is where it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import SceneError
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
LOWEST_SKY = 0.98
"""Sky is said to reach as far down as this share of it does not exceed."""
LOWEST_HORIZON = 0.9
"""The horizon is no lower than this share of the height: below it no ground could be told."""
ROUNDS = 12
"""Iterations of reweighted least squares."""
LOWEST, HIGHEST = 0.05, 100.0
"""Cameras are held at heights of this range above the ground, in metres."""


@dataclass(frozen=True)
class GroundFit:
    """Estimated disparity becomes metric as ``scale * disparity + shift``."""

    scale: float
    shift: float
    """In 1/metres."""

    def depth(self, depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """Estimated depth brought to metres, at most FARTHEST."""
        return 1.0 / (self.scale / depth + self.shift).clamp_min(1.0 / FARTHEST)


def check_eye_height(eye_height: float) -> None:
    """Refuse a height that no photograph is taken from.

    Raises:
        SceneError: It is outside LOWEST to HIGHEST, or not a number.
    """
    if not LOWEST <= eye_height <= HIGHEST:
        raise SceneError(
            f"an eye height of {eye_height:g} m is not one of a photograph",
            why=f"cameras are held {LOWEST:g} to {HIGHEST:g} metres above the ground",
            fix="give --eye-height in metres, or leave it out for 1.6",
        )


def on_ground(eye_height: float) -> str:
    """How it is said that the metres come from the ground."""
    return f"ground seen, {eye_height:g} m below the camera"


def ground_disparity(
    height: int,
    width: int,
    px_from_cam: Float[Tensor, "3 3"],
    eye_height: float = EYE_HEIGHT,
    horizon: float | None = None,
) -> Float[Tensor, "h w"]:
    """1/z of level ground below the camera; negative above the horizon.

    Args:
        height: Image height, in pixels.
        width: Image width, in pixels.
        px_from_cam: Intrinsics.
        eye_height: How far below the camera the plane is, in metres.
        horizon: Row of the horizon, in pixels; that of the principal point when left out.
    """
    rows = torch.arange(height) + 0.5
    middle = float(px_from_cam[1, 2]) if horizon is None else horizon
    slope = (rows - middle) / (px_from_cam[1, 1] * eye_height)
    return slope[:, None].expand(height, width)


def horizon_row(sky: Bool[Tensor, "h w"], px_from_cam: Float[Tensor, "3 3"]) -> float:
    """Row of the horizon, in pixels: of the principal point, or lower where sky reaches lower."""
    rows = torch.nonzero(sky.any(1))[:, 0] + 1.0
    if not len(rows):
        return float(px_from_cam[1, 2])
    seen = sky.float().sum(1)[sky.any(1)].cumsum(0)
    lowest = rows[int((seen < LOWEST_SKY * seen[-1]).sum())]
    return max(float(px_from_cam[1, 2]), min(float(lowest), LOWEST_HORIZON * sky.shape[0]))


def fit_ground(
    depth: Float[Tensor, "h w"],
    sky: Bool[Tensor, "h w"],
    px_from_cam: Float[Tensor, "3 3"],
    eye_height: float = EYE_HEIGHT,
    shifted: bool = True,
) -> GroundFit | None:
    """The scale and shift of disparity that put the ground where it has to be.

    Where the estimate itself shows ground (a surface facing up, below the horizon), the plane
    says how far it is; a scale and a shift fitted there robustly (Huber) hold for all.

    Args:
        depth: z in metres, up to scale and an offset in disparity.
        sky: Sky pixels, ignored.
        px_from_cam: Intrinsics, in pixels.
        eye_height: How far below the camera the ground is, in metres.
        shifted: Whether the disparity may be off by a shift; if not, the scale alone is fitted.

    Returns:
        The fit; None where too little ground is seen, or the scale would change tenfold.
    """
    height, width = depth.shape
    horizon = horizon_row(sky, px_from_cam)
    plane = ground_disparity(height, width, px_from_cam, eye_height, horizon)
    normals = disparity_normals(_smoothed(depth), px_from_cam)
    below = torch.arange(height)[:, None] > horizon + 0.06 * height
    ground = (normals[..., 1] < -UPRIGHT) & below & ~sky
    if ground.float().mean() < MIN_SHARE:
        return None
    every = max(1, int(ground.sum()) // MAX_SAMPLES)
    estimated, right = 1.0 / depth[ground][::every], plane[ground][::every]
    scale, shift = float((right / estimated).median()), 0.0
    if shifted:
        scale, shift = _fit_line(estimated, right)
    return GroundFit(scale, shift) if 0.1 < scale < 10 else None


def ground_aligned(
    depth: Float[Tensor, "h w"],
    sky: Bool[Tensor, "h w"],
    px_from_cam: Float[Tensor, "3 3"],
    eye_height: float = EYE_HEIGHT,
) -> Float[Tensor, "h w"]:
    """Bring estimated depth to metres by the ground, or leave it as it was: see fit_ground."""
    fit = fit_ground(depth, sky, px_from_cam, eye_height)
    return depth.clamp(max=FARTHEST) if fit is None else fit.depth(depth)


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
