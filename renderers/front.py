"""What each pixel shows first, from the list of splats that touch it: plain torch, any device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from renderers.base import ALPHA_CUT, ALPHA_MAX, MEDIAN_ALPHA, TRANSMITTANCE_STOP


@dataclass(frozen=True, eq=False)
class Front:
    """What is in front in the pixels that a list of pairs names, one row per pixel."""

    pixels: Int64[Tensor, " p"]
    """The pixels, rising: row times width plus column."""
    median_depth: Float[Tensor, " p"]
    """Depth at which the opacity reaches MEDIAN_ALPHA, in metres; NaN where it stays below."""
    top_pairs: Int64[Tensor, " p"]
    """The pair of greatest weight, the nearest of equals; -1 where none has any."""
    top_weights: Float[Tensor, " p"]
    """The weight of that pair, 0 to 1."""


def pair_alphas(
    pixels: Int64[Tensor, " m"],
    width: int,
    means2d: Float[Tensor, "m 2"],
    conics: Float[Tensor, "m 3"],
    opacities: Float[Tensor, " m"],
) -> Float[Tensor, " m"]:
    """Alpha of one splat at one pixel, for many such pairs.

    Args:
        pixels: Row times width plus column.
        width: Image width, in pixels.
        means2d: Centre of the splat in the image, in pixels.
        conics: Inverse covariance (xx, xy, yy), in 1 / square pixels.
        opacities: Opacity at that centre, 0 to 1.

    Returns:
        Alpha, at most ALPHA_MAX; 0 where it is below ALPHA_CUT.
    """
    dx = means2d[:, 0] - (pixels % width + 0.5)
    dy = means2d[:, 1] - (pixels // width + 0.5)
    a, b, c = conics.unbind(-1)
    falloff = torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alphas = torch.clamp(opacities * falloff, max=ALPHA_MAX)
    return torch.where(alphas >= ALPHA_CUT, alphas, 0.0)


def front_of(
    pixels: Int64[Tensor, " m"], alphas: Float[Tensor, " m"], depths: Float[Tensor, " m"]
) -> Front:
    """Blend pairs of a pixel and a splat front to back and say what is in front.

    Args:
        pixels: Pixel of each pair. Those of one pixel stand together, nearest first; pixels rise.
        alphas: Opacity of the splat at the pixel, as :func:`pair_alphas` gives it.
        depths: Depth of the splat's centre, in metres.

    Not differentiable.
    """
    shown, place, counts = torch.unique_consecutive(pixels, return_inverse=True, return_counts=True)
    first = torch.ones_like(pixels, dtype=torch.bool)
    first[1:] = pixels[1:] != pixels[:-1]
    after = _running_product(1 - alphas, first, int(counts.max()) if len(counts) else 0)
    before = torch.where(first, 1.0, after.roll(1))
    weights = torch.where(after > TRANSMITTANCE_STOP, before * alphas, 0.0)

    half = _first_pairs(place, (alphas > 0) & (after <= 1 - MEDIAN_ALPHA), len(shown))
    median = alphas.new_full((len(shown),), math.nan)
    median[half >= 0] = depths[half[half >= 0]]
    top_weights = alphas.new_zeros(len(shown)).scatter_reduce(0, place, weights, "amax")
    top = _first_pairs(place, (weights > 0) & (weights == top_weights[place]), len(shown))
    return Front(shown, median, top, top_weights)


def _first_pairs(
    place: Int64[Tensor, " m"], wanted: Bool[Tensor, " m"], count: int
) -> Int64[Tensor, " p"]:
    """The first wanted pair of each of ``count`` pixels, -1 where there is none."""
    none = len(place)
    pairs = torch.where(wanted, torch.arange(none, device=place.device), none)
    first = place.new_full((count,), none).scatter_reduce(0, place, pairs, "amin")
    return torch.where(first < none, first, -1)


def _running_product(
    values: Float[Tensor, " m"], first: Bool[Tensor, " m"], longest: int
) -> Float[Tensor, " m"]:
    """Product of each run of values up to and including each place.

    Products and not sums of logarithms, so that half of one is half to the bit.

    Args:
        values: The runs, one behind the other.
        first: Where a run begins.
        longest: Length of the longest run.
    """
    reach = 1  # values[i] is the product of the last `reach` of its run; `whole`: of all so far
    whole = first.clone()
    while reach < longest:
        further = torch.where(whole[reach:], 1.0, values[:-reach])
        values = torch.cat([values[:reach], values[reach:] * further])
        whole = torch.cat([whole[:reach], whole[reach:] | whole[:-reach]])
        reach *= 2
    return values
