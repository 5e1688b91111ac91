"""Small mathematics of image-shaped fields: slopes, normalisation, completion of unknown parts."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import label
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

JACOBI_ROUNDS = 6
"""Smoothing rounds on each level of the pyramid."""
LEAST, MOST = -5.0, 8.0
"""Range to which normalised disparity is clamped, in mean absolute deviations."""


def regions(mask: Bool[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    """Connected regions of a mask (by sides), numbered from 1; 0 outside."""
    names = np.zeros(mask.shape, dtype=np.int32)
    label(mask.numpy(), output=names)
    return torch.from_numpy(names)


def box_of(wanted: Bool[Tensor, "h w"], margin: int = 0) -> tuple[slice, slice]:
    """The rows and columns that hold all that is wanted, which is one pixel at least.

    Args:
        wanted: The pixels.
        margin: So many rows and columns more on each side, where there are any.
    """
    spans = [torch.nonzero(wanted.any(axis))[:, 0] for axis in (1, 0)]
    rows, columns = (
        slice(max(int(at[0]) - margin, 0), min(int(at[-1]) + 1 + margin, side))
        for at, side in zip(spans, wanted.shape, strict=True)
    )
    return rows, columns


def pull_push(values: Float[Tensor, "h w c"], known: Bool[Tensor, "h w"]) -> Float[Tensor, "h w c"]:
    """Fill unknown pixels smoothly and without a seam.

    Averages of the known pixels are pulled up a pyramid until nothing is unknown, and pushed
    back down where values are missing (Gortler et al. 1996, section 5.3.3). On each level some
    Jacobi rounds follow, so that the result nears the membrane through the known pixels (the
    solution of Laplace's equation). Known pixels come back unchanged.

    Args:
        values: Field to fill; what it holds at unknown pixels, NaN included, does not matter.
        known: Pixels whose values hold. When none does, the answer is zero everywhere.
    """
    weight = known.float()[None, None]
    planes = torch.where(known[..., None], values, 0.0).permute(2, 0, 1)[None]
    return torch.where(known[..., None], values, _filled(planes, weight)[0].permute(1, 2, 0))


def _filled(planes: Float[Tensor, "1 c h w"], weight: Float[Tensor, "1 1 h w"]) -> Tensor:
    """Weighted values of one pyramid level, with unknown places filled from the level above."""
    height, width = weight.shape[2:]
    if height == width == 1 or bool((weight > 0).all()):
        return planes / weight.clamp_min(1e-12)
    even = [0, width % 2, 0, height % 2]
    mass = avg_pool2d(torch.nn.functional.pad(weight, even), 2)
    total = avg_pool2d(torch.nn.functional.pad(planes, even), 2)
    strength = mass.clamp(max=1.0) / mass.clamp_min(1e-12)
    above = _filled(total * strength, mass * strength)
    size = (height + height % 2, width + width % 2)
    coarse = interpolate(above, size, mode="bilinear", align_corners=False)[..., :height, :width]
    known, values = weight > 0, planes / weight.clamp_min(1e-12)
    filled = torch.where(known, values, coarse)
    here = (..., *box_of(~known[0, 0], margin=1))
    part, known, values = filled[here], known[here], values[here]
    for _ in range(JACOBI_ROUNDS):
        part = torch.where(known, values, _neighbour_mean(part))
    filled[here] = part
    return filled


def _neighbour_mean(planes: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
    padded = torch.nn.functional.pad(planes, [1, 1, 1, 1], mode="replicate")
    beside = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return (beside + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]) / 4


def flatter_slope(values: Float[Tensor, "h w"], dim: int) -> Float[Tensor, "h w"]:
    """One-sided difference along ``dim`` with the smaller magnitude; one-sided at the border."""
    step = torch.diff(values, dim=dim)
    first, last = step.narrow(dim, 0, 1), step.narrow(dim, step.shape[dim] - 1, 1)
    back, ahead = torch.cat([first, step], dim=dim), torch.cat([step, last], dim=dim)
    return torch.where(back.abs() < ahead.abs(), back, ahead)


def normalised(
    disparity: Float[Tensor, "b h w"], surfaces: Bool[Tensor, "b h w"]
) -> Float[Tensor, "b h w"]:
    """Disparity minus the median of the surfaces, over their mean absolute deviation, clamped.

    Args:
        disparity: 1/z, or what is linear in it.
        surfaces: What is not sky. The sky does not count, but is mapped as well.
    """
    flat = disparity.flatten(1)
    surface = torch.where(surfaces.flatten(1), flat, torch.nan)
    middle = torch.nan_to_num(surface.nanmedian(1, keepdim=True).values)
    spread = torch.nan_to_num((surface - middle).abs().nanmean(1, keepdim=True)) + 1e-6
    return ((flat - middle) / spread).clamp(LEAST, MOST).view_as(disparity)
