"""Splats as viser draws them: sized, thinned and packed for a browser.

What is sent is a copy for the eye. Exports and renders keep the splats as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from renderers import Splats
from renderers.reference import rotation_matrices

WINDOW_HEIGHT = 600
"""Height of the window that the size floor is made for, in pixels: that of a small laptop."""
BLUR = 0.3
"""Variance that the browser adds to every splat on the screen, in square pixels."""
FLOOR_PX = 0.7
"""Smallest standard deviation of a splat in that window, in pixels."""
FLOOR_PX_MAX = 1.5
"""Largest floor, in pixels: fainter splats than this helps with may vanish."""
COVER = 0.5
"""Variance of splats that cover a picture without gaps, in units of the area that each has: where
worlds finer than the window are thinned, more would be drawn over and over."""
SIGMA_MIN, SIGMA_MAX = 5e-4, 250.0
"""Standard deviations whose squares float16 holds, in metres (0 below 2.4e-4, inf from 256)."""
FAR = 1500.0
"""Nothing is drawn beyond this distance from the origin, in metres: the sky ends at 400. The
browser sorts by depth in 65,536 steps over the whole range, so far strays cost order up close."""
GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0


@dataclass(frozen=True, eq=False)
class Cloud:
    """Arguments of viser's ``add_gaussian_splats``."""

    centers: Float[np.ndarray, "n 3"]
    """In metres."""
    covariances: Float[np.ndarray, "n 3 3"]
    """In square metres."""
    rgbs: UInt8[np.ndarray, "n 3"]
    """sRGB levels."""
    opacities: UInt8[np.ndarray, "n 1"]
    """0 to 255."""


def covariances(
    quats: Float[Tensor, "n 4"], scales: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 3 3"]:
    """Second moments ``R S S^T R^T`` in the world, in square metres (Kerbl et al. 2023, eq. 6).

    Args:
        quats: Rotations world_from_splat (w, x, y, z), of any length but zero.
        scales: Standard deviations along the axes of the splats, in metres.
    """
    factor = rotation_matrices(quats) * scales[:, None, :]
    return factor @ factor.transpose(1, 2)


def drawable(splats: Splats) -> Bool[Tensor, " n"]:
    """Which splats a browser can draw: finite in every field, a rotation, and not beyond FAR."""
    finite = torch.isfinite(splats.opacities)
    for values in (splats.means, splats.quats, splats.scales, splats.colors):
        finite = finite & torch.isfinite(values).all(dim=1)
    turned = splats.quats.abs().amax(dim=1) > 1e-6
    near = torch.linalg.norm(splats.means, dim=1) <= FAR
    return finite & turned & near


def floor_px(opacities: Float[Tensor, " n"], smallest: float = FLOOR_PX) -> Float[Tensor, " n"]:
    """Standard deviation in pixels below which a splat must not fall, so that it is drawn.

    The browser drops a splat when ``opacity * (sigma^2 + BLUR)^2 < 1/4``; fainter ones need more.
    """
    least = (0.5 / opacities.clamp_min(1e-6).sqrt() - BLUR).clamp_min(0.0).sqrt()
    return least.clamp(smallest, max(smallest, FLOOR_PX_MAX))


def footprints(splats: Splats, eye: Float[Tensor, " 3"], pixel: float) -> Float[Tensor, " n"]:
    """Extent of a pixel of the window where each splat is, in metres.

    Args:
        splats: Finite splats.
        eye: Where they are expected to be seen from, in metres.
        pixel: Extent of a pixel of the window at a distance of 1, without unit.
    """
    return pixel * torch.linalg.norm(splats.means - eye.to(splats.means), dim=1)


def sized(splats: Splats, footprint: Float[Tensor, " n"], smallest: float = FLOOR_PX) -> Splats:
    """Splats with a size floor, so that they do not vanish where they are less than a pixel.

    Args:
        splats: Finite splats.
        footprint: Extent of a pixel of the window where each splat is, in metres.
        smallest: The floor for opaque splats, in pixels.
    """
    floor = floor_px(splats.opacities, smallest) * footprint
    scales = torch.maximum(splats.scales, floor[:, None]).clamp(SIGMA_MIN, SIGMA_MAX)
    return replace(splats, scales=scales)


def kept_rows(count: int, kept: int) -> Int[Tensor, " kept"]:
    """Rows that stay when ``count`` are thinned to ``kept``, in order and evenly spread.

    Multiples of the golden ratio fill the unit interval evenly from any start, so neighbours in
    a row and across rows are thinned alike, and fewer rows are always among more.
    """
    keys = torch.arange(count, dtype=torch.float64).mul_(GOLDEN).frac_()
    return torch.argsort(keys, stable=True)[:kept].sort().values


def thinned(
    splats: Splats, share: float, footprint: Float[Tensor, " n"], room: float = math.inf
) -> Splats:
    """A share of the splats, grown so that they cover the same area on the screen.

    Args:
        splats: All of them.
        share: How many stay, above 0 to 1.
        footprint: Extent of a pixel of the window where each splat is, in metres.
        room: Area of the picture for each of them, in pixels: more than COVER of it says nothing.

    The browser adds BLUR to every splat, grown or not, so the growth makes up for that as well:
    ``sigma'^2 + BLUR = min(sigma^2 + BLUR, COVER room) / share``. None shrinks.
    """
    kept = max(1, math.floor(len(splats) * share))
    if kept >= len(splats):
        return splats
    rows = kept_rows(len(splats), kept)
    pixel = footprint[rows, None] ** 2
    old = splats.scales[rows] ** 2
    enough = (old + BLUR * pixel).clamp_max(COVER * room * pixel)
    variance = torch.maximum(old, enough * (len(splats) / kept) - BLUR * pixel)
    return replace(splats[rows], scales=variance.sqrt().clamp_max(SIGMA_MAX))


def cloud(splats: Splats) -> Cloud:
    """Finite splats as arrays for viser. View-dependent colour is left out: it has none."""
    return Cloud(
        centers=splats.means.float().numpy(),
        covariances=covariances(splats.quats.float(), splats.scales.float()).numpy(),
        rgbs=_levels(splats.colors),
        opacities=_levels(splats.opacities[:, None]),
    )


def _levels(values: Tensor) -> UInt8[np.ndarray, "n c"]:
    return (values.float() * 255.0).round().clamp(0, 255).to(torch.uint8).numpy()
