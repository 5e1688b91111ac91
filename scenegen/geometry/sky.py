"""Which pixels show the sky, without a network: a border from above, then a colour model."""

from __future__ import annotations

import kornia
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scenegen.fields import regions

WORK_WIDTH = 192
"""The border is searched at this width, in pixels."""
THRESHOLDS = 16
"""Gradient thresholds tried for the border."""
BOTTOM_WEIGHT = 2.0
"""Weight of the sky's own variance against that of the rest (gamma in the paper)."""
MIN_SHARE = 0.04
"""Less sky than this share of the image counts as none."""
MIN_BRIGHTNESS = 0.35
"""A sky darker than this mean luminance is not believed: dark ceilings, night."""
MIN_BLUE, MIN_LEAD = 0.02, 0.20
"""A sky is bluer than red by the first, or brighter than the rest of the image by the second."""
MAX_BELOW = 0.03
"""Share of the image that a sky which is not blue may cover below the middle: plain walls do."""
SEEN_SHARE, SEEN_EPS = 24, 1e-3
"""What a network saw follows the image within one in so many of its columns, where colours differ
by more than the second (squared, 0 to 1)."""
MIN_CHANCE, MIN_SEEN = 0.6, 0.02
"""What a network sees with less than the first chance is no sky, nor is less than the second, as a
share of the image."""
COLOUR_TOLERANCE = 0.09
"""Colour distance (0 to 1, Euclidean) to the fitted sky colour that still is sky."""


def find_sky(rgb: Float[Tensor, "h w 3"]) -> Bool[Tensor, "h w"]:
    """Pixels that show the sky; none where the top of the image does not look like one.

    The border follows Shen and Wang 2013 ("Sky region detection in a single image"): in each
    column the first strong gradient from above, with the threshold that separates two
    homogeneous regions best (their eq. 2). A colour that varies smoothly over the image
    (quadratic in x and y) is then fitted to it, which finds the sky between branches and frees
    roofs that the border swallowed.
    """
    height, width = rgb.shape[:2]
    work = (max(16, round(height * WORK_WIDTH / width)), WORK_WIDTH)
    small = _resized(rgb.permute(2, 0, 1)[None], work)[0].permute(1, 2, 0)
    seed = _above_border(small)
    if seed is None or not _looks_like_sky(small, seed):
        return torch.zeros(height, width, dtype=torch.bool)
    likeness = _colour_likeness(small, seed)
    sky = kornia.filters.median_blur((likeness > 0.5).float()[None, None], 3)
    fine = kornia.filters.guided_blur(
        rgb.permute(2, 0, 1)[None], _resized(sky, (height, width)), max(3, width // 60) | 1, 1e-4
    )
    found = _without_islands(fine[0, 0] > 0.5)
    if found.float().mean() < MIN_SHARE:
        return torch.zeros_like(found)
    return found


def seen_sky(rgb: Float[Tensor, "h w 3"], chance: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """The sky that a network saw, softly and on a coarse grid, along the image's outlines.

    Args:
        rgb: The image, 0 to 1.
        chance: How likely each pixel shows the sky.
    """
    window = max(3, rgb.shape[1] // SEEN_SHARE) | 1
    fine = kornia.filters.guided_blur(
        rgb.permute(2, 0, 1)[None], chance[None, None], window, SEEN_EPS, subsample=2
    )
    found = fine[0, 0] > MIN_CHANCE
    return found if found.float().mean() >= MIN_SEEN else torch.zeros_like(found)


def _without_islands(sky: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Sky that also takes in what hangs in it without touching the ground: clouds, birds."""
    names = regions(~sky)
    standing = torch.unique(names[sky.shape[0] // 2 :])
    return ~torch.isin(names, standing[standing > 0])


def _above_border(small: Float[Tensor, "h w 3"]) -> Bool[Tensor, "h w"] | None:
    """The region above the best border, or None when there is no border at all."""
    luminance = kornia.color.rgb_to_grayscale(small.permute(2, 0, 1)[None])
    gradient = kornia.filters.sobel(kornia.filters.gaussian_blur2d(luminance, (5, 5), (1.0, 1.0)))
    gradient = gradient[0, 0].clone()
    gradient[0] = 0
    rows = torch.arange(small.shape[0])[:, None]
    best, best_energy = None, -1.0
    for threshold in torch.linspace(0.01, 0.25, THRESHOLDS):
        strong = gradient > threshold
        first = torch.where(strong.any(0), strong.float().argmax(0), small.shape[0])
        region = rows < first
        share = region.float().mean()
        if not 0.5 * MIN_SHARE < share < 0.95:
            continue
        energy = 1.0 / (BOTTOM_WEIGHT * _spread(small[region]) + _spread(small[~region]) + 1e-9)
        if energy > best_energy:
            best, best_energy = region, energy
    return best


def _spread(colours: Float[Tensor, "n 3"]) -> float:
    """Generalised variance of colours: determinant of the covariance plus its largest value."""
    covariance = torch.cov(colours.T.double())
    return float(torch.linalg.det(covariance) * 1e3 + torch.linalg.eigvalsh(covariance)[-1])


def _looks_like_sky(small: Float[Tensor, "h w 3"], seed: Bool[Tensor, "h w"]) -> bool:
    above, below = small[seed].mean(0), small[~seed].mean(0)
    bright = float(above.mean())
    blue = float(above[2] - above[0]) > MIN_BLUE
    lead = bright - float(below.mean()) > MIN_LEAD
    low = float(seed[seed.shape[0] // 2 :].float().mean()) / 2
    spans = float(seed[: max(2, seed.shape[0] // 40)].float().mean()) > 0.25
    return (
        bright > MIN_BRIGHTNESS and spans and (blue or (lead and bright > 0.6 and low < MAX_BELOW))
    )


def _colour_likeness(
    small: Float[Tensor, "h w 3"], seed: Bool[Tensor, "h w"]
) -> Float[Tensor, "h w"]:
    """1 where the colour is the sky's at that place and the place is not below the sky."""
    height, width = seed.shape
    y = torch.linspace(-1, 1, height)[:, None].expand(height, width)
    x = torch.linspace(-1, 1, width)[None].expand(height, width)
    basis = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=-1).double()
    error = torch.zeros(height, width, dtype=torch.float64)
    for _ in range(3):  # refit without outliers: birds, wires, roofs above the border
        keep = seed & (error < 2 * COLOUR_TOLERANCE)
        if keep.sum() < 32:
            break
        fit = torch.linalg.lstsq(basis[keep], small[keep].double()).solution
        error = torch.linalg.norm(small.double() - basis @ fit, dim=-1)
    like = (error < COLOUR_TOLERANCE) | (seed & (error < 2.5 * COLOUR_TOLERANCE))
    lowest = int(torch.nonzero(seed.float().mean(1) > 0.02)[-1])
    like[min(height, lowest + height // 20) :] = False
    return like.float()


def _resized(planes: Float[Tensor, "1 c h w"], size: tuple[int, int]) -> Float[Tensor, "1 c _ _"]:
    return torch.nn.functional.interpolate(
        planes, size, mode="bilinear", antialias=True, align_corners=False
    )
