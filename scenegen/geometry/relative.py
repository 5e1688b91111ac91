"""From what general networks say to metres: the ground decides, where it is seen."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scenegen.geometry.ground import FARTHEST, fit_ground, on_ground

NEAREST = 0.1
"""No surface is placed nearer than this, in metres."""
USUAL_DEPTH, USUAL_DEPTH_OUTDOORS = 3.0, 10.0
"""Median depth supposed where no ground tells, in metres, and where sky is seen."""
SPREAD = 20.0
"""Without ground nothing is placed farther or nearer than this many times the median depth."""
ROUNDS = 3
"""What looks like ground depends on the shift of disparity, which the ground tells."""
LOST = 0.05
"""A shift that sends this share of all surfaces to infinity says that the camera is not level."""


def metric_depth(
    disparity: Float[Tensor, "h w"],
    sky: Bool[Tensor, "h w"],
    px_from_cam: Float[Tensor, "3 3"],
    eye_height: float,
) -> tuple[Float[Tensor, "h w"], str]:
    """Bring disparity that is known up to scale and shift to metric depth.

    The ground, where it is seen, tells both. Where its shift would send much of the scene to
    infinity, as for a camera that looks down, the ground tells the scale alone. Without ground
    the median depth is supposed.

    Args:
        disparity: Larger is nearer; up to a positive scale and a shift.
        sky: Sky pixels, ignored.
        px_from_cam: Intrinsics, in pixels.
        eye_height: Height of the camera above the ground, in metres.

    Returns:
        Depth in metres, finite and positive, and where its scale comes from.
    """
    surfaces = ~sky if bool((~sky).any()) else torch.ones_like(sky)
    usual = USUAL_DEPTH_OUTDOORS if sky.any() else USUAL_DEPTH
    middle = disparity[surfaces].median().clamp_min(1e-9)
    start = (disparity / middle).clamp(1.0 / SPREAD, SPREAD) / usual  # 1/m, roughly
    fitted, supposed, found = start, 1.0 / start, False
    for _ in range(ROUNDS):
        fit = fit_ground(_up_to_farthest(fitted), sky, px_from_cam, eye_height)
        if fit is None:
            break
        fitted, found = fit.scale * fitted + fit.shift, True
    lost = (fitted[surfaces] < 1.01 / FARTHEST).float().mean()
    if found and float(lost) < LOST:
        return _up_to_farthest(fitted), on_ground(eye_height)
    fit = fit_ground(supposed, sky, px_from_cam, eye_height, shifted=False)
    if fit is not None:
        return fit.depth(supposed), f"{on_ground(eye_height)}, by a camera that is not level"
    return supposed, f"no ground seen: a median depth of {usual:g} m supposed"


def _up_to_farthest(disparity: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    return 1.0 / disparity.clamp_min(1.0 / FARTHEST)


def scaled_depth(
    depth: Float[Tensor, "h w"],
    sky: Bool[Tensor, "h w"],
    px_from_cam: Float[Tensor, "3 3"],
    eye_height: float,
) -> tuple[Float[Tensor, "h w"], str]:
    """Scale metric depth to the ground, where that is seen; arguments as for metric_depth.

    Returns:
        Depth in metres, finite and positive, and where its scale comes from.
    """
    depth = depth.clamp(NEAREST, FARTHEST)
    fit = fit_ground(depth, sky, px_from_cam, eye_height, shifted=False)
    if fit is None:
        return depth, "metres learnt by the network, as too little ground is seen"
    return fit.depth(depth), on_ground(eye_height)
