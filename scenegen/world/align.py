"""Depth of a new view, fitted to the world that it continues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

from renderers import Camera
from scenegen.fields import pull_push
from scenegen.world.scale_field import ScaleField, fit_scale_field

NEAREST, FARTHEST = 0.25, 150.0
"""Surfaces of new views lie within this range, in metres."""
MAX_SAMPLES = 20_000
"""Known pixels that a fit uses, evenly chosen."""
ROUNDS = 15
"""Iterations of reweighted least squares."""
TOLERANCE = 0.08
"""Relative disparity residual at which a pixel weighs half."""
BLEND_SHARE, MIN_BLEND_PX = 0.06, 12
"""Width of the band along a hole in which known depth fades into the fitted estimate: share of the
image's longer side, and at least so many pixels."""
CARRY = 3.0
"""What the fit misses at the rim is carried this many bands into the hole, fading."""
RIM_PX = 9
"""Width of the known rim along a hole that is continued into it, in pixels."""
NEAR_SIDE, NEAR_SIDE_UP = 1.15, 1.6
"""A rim pixel is an occluder, and its depth not continued, when another surface within reach is
farther: along its row by the first factor, or along its column by the second, as grounds recede
upwards."""
SAME_SURFACE = 1.06
"""Neighbouring pixels whose depths differ by less than this factor are of one surface."""
REACH_PX = 27
"""How far along its row, across the hole too, an occluder's background is looked for, in pixels;
along its column it is RIM_PX."""
FREE_SPACE = 0.97
"""A new point blocks a past view when nearer than this share of what that view saw there."""
PUSHES = (1.0, 1.08, 1.2, 1.4, 1.7, 2.2, 3.0, 4.5, 7.0)
"""Factors by which a blocking point is pushed away along its ray, tried in order."""


@dataclass(frozen=True)
class Fit:
    """Estimated disparity becomes ``scale * disparity + shift`` in the world, then the field's."""

    scale: float
    shift: float
    """In 1/metres."""
    field: ScaleField | None
    """What else is to be corrected, smoothly over the view."""
    error: float
    """Median absolute log ratio of fitted and known depth."""
    pixels: int
    """Known pixels that the fit rests on."""

    def log_depth(self, estimated: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """Logarithm of the fitted depth, finite everywhere.

        Args:
            estimated: Depth, metres; +inf in the sky.
        """
        disparity = self.scale * torch.nan_to_num(1.0 / estimated, posinf=0.0) + self.shift
        log_depth = -torch.log(disparity.clamp(1.0 / FARTHEST, 1.0 / NEAREST))
        return log_depth if self.field is None else self.field.apply(log_depth)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a past view saw: the space in front of it is free."""

    camera: Camera
    depth: Float[Tensor, "h w"]
    """Metres; NaN unknown, +inf sky."""

    def depth_at(
        self, pixels: Float[Tensor, "n 2"], depth: Float[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        """What it saw where points project to; NaN where they are not in the picture.

        Args:
            pixels: As :meth:`renderers.Camera.project` gives them.
            depth: From there, too.
        """
        column, row = pixels.floor().nan_to_num(-1.0).clamp(-1e6, 1e6).long().unbind(-1)
        height, width = self.depth.shape
        inside = (depth > 0) & (column >= 0) & (row >= 0) & (column < width) & (row < height)
        seen = self.depth[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        return torch.where(inside, seen, math.nan)


def fit_depth(
    estimated: Float[Tensor, "h w"], known: Float[Tensor, "h w"], use: Bool[Tensor, "h w"]
) -> Fit:
    """Robust scale and shift from estimated to known disparity (Cauchy weights), and a scale field.

    Args:
        estimated: Estimated depth, metres.
        known: Depth of the world, metres.
        use: Pixels to compare; those not finite in both are left out.
    """
    use = use & torch.isfinite(estimated) & torch.isfinite(known) & (estimated > 0) & (known > 0)
    count = int(use.sum())
    if count < 50:
        return Fit(1.0, 0.0, None, math.inf, count)
    every = max(1, count // MAX_SAMPLES)
    x, y = 1.0 / estimated[use][::every].double(), 1.0 / known[use][::every].double()
    ratio = float((y / x).median())
    scale, shift = ratio, 0.0
    for _ in range(ROUNDS):
        residual = (scale * x + shift - y) / (ratio * x)
        weight = 1.0 / (1.0 + (residual / TOLERANCE) ** 2) / x**2  # relative errors count
        total = weight.sum()
        mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
        spread = (weight * (x - mean_x) ** 2).sum()
        scale = float((weight * (x - mean_x) * (y - mean_y)).sum() / spread.clamp_min(1e-30))
        shift = float(mean_y - scale * mean_x)
        # One depth only shows no shift, and an estimate that runs against the world none either.
        if spread < 1e-3 * total * mean_x**2 or scale < 0.05 * ratio:
            scale, shift = ratio, 0.0
            break
    affine = Fit(scale, shift, None, math.inf, count).log_depth(estimated)
    log_known = torch.log(torch.where(use, known, 1.0))
    fit = Fit(scale, shift, fit_scale_field(affine, log_known, use, MAX_SAMPLES), math.inf, count)
    missed = (fit.log_depth(estimated) - log_known)[use]
    return replace(fit, error=float(missed.abs().median()))


@dataclass(frozen=True, eq=False)
class Continuation:
    """Logarithms of depth that continue what is known: finite everywhere, meant for the hole."""

    fitted: Float[Tensor, "h w"]
    """The estimate, fitted to what is known."""
    membrane: Float[Tensor, "h w"]
    """What is known along the rim alone; the fitted estimate where there is no rim."""
    log_depth: Float[Tensor, "h w"]
    """What both make together."""


def metres(log_depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Depth of new surfaces, from its logarithm."""
    return torch.exp(log_depth).clamp(NEAREST, FARTHEST)


def continuation(
    estimated: Float[Tensor, "h w"],
    known: Float[Tensor, "h w"],
    hole: Bool[Tensor, "h w"],
    fit: Fit,
) -> Continuation:
    """Depth for a hole: continuous with what surrounds it, shaped by the estimate further in.

    What the fit misses along the rim fades out inside. Beside an occluder it is the background
    that continues; in the band along the rim, and so in all narrow holes, the rim alone decides.

    Args:
        estimated: Estimated depth of the whole view, metres; +inf in the sky.
        known: Depth of the world where it is known, metres.
        hole: Pixels to answer for.
        fit: From :func:`fit_depth`.
    """
    fitted = fit.log_depth(estimated)
    rim = rim_of(known, hole)
    if not rim.any():
        return Continuation(fitted, fitted, fitted)
    log_known = torch.where(rim, torch.log(torch.where(rim, known, 1.0)), 0.0)
    missed, membrane = pull_push(torch.stack([log_known - fitted, log_known], -1), rim).unbind(-1)
    band = max(MIN_BLEND_PX, round(BLEND_SHARE * max(hole.shape)))
    near, far = inwardness(hole, band), inwardness(hole, CARRY * band)
    log_depth = (1 - near) * membrane + near * (fitted + (1 - far) * missed)
    return Continuation(fitted, membrane, log_depth)


def behind_seen(
    depth: Float[Tensor, "h w"],
    wanted: Bool[Tensor, "h w"],
    camera: Camera,
    views: Sequence[Seen],
) -> Float[Tensor, "h w"]:
    """Push points out of the space that past views have seen to be free.

    Args:
        depth: Depth in ``camera``, metres; sky is left alone.
        wanted: Pixels to check.
        camera: The new view.
        views: Past views.

    Returns:
        Depth with each blocking point moved along its ray to the first of ``PUSHES`` at which it
        blocks no view; NaN where there is none.
    """
    check = wanted & torch.isfinite(depth)
    pixels, start = camera.pixel_centers()[check], depth[check]
    result = torch.full_like(start, math.nan)
    for push in PUSHES:
        left = torch.isnan(result)
        if not left.any():
            break
        candidate = start[left] * push
        points = camera.unproject(pixels[left], candidate)
        blocking = torch.zeros_like(candidate, dtype=torch.bool)
        for view in views:
            blocking |= _blocks(points, view)
        result[left] = torch.where(blocking, math.nan, candidate)
    pushed = depth.clone()
    pushed[check] = result
    return pushed


def _blocks(points: Float[Tensor, "n 3"], view: Seen) -> Bool[Tensor, " n"]:
    pixels, depth = view.camera.project(points)
    return depth < FREE_SPACE * view.depth_at(pixels, depth)  # NaN compares false: not free


def rim_of(known: Float[Tensor, "h w"], hole: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Known pixels along a hole, without those of occluders in front of what the hole uncovers."""
    usable = ~hole & torch.isfinite(known) & (known > 0)
    beside = max_pool2d(hole.float()[None, None], 2 * RIM_PX + 1, 1, RIM_PX)[0, 0] > 0
    solid, rim = torch.where(usable, known, 0.0), usable & beside
    rows, columns = torch.nonzero(rim, as_tuple=True)
    along = _farthest_other(solid, rows, columns, REACH_PX)
    upwards = _farthest_other(solid.T, columns, rows, RIM_PX)
    own = solid[rows, columns]
    rim[rows, columns] = (own * NEAR_SIDE >= along) & (own * NEAR_SIDE_UP >= upwards)
    return rim


def _farthest_other(
    solid: Float[Tensor, "h w"], rows: Int[Tensor, " n"], columns: Int[Tensor, " n"], reach: int
) -> Float[Tensor, " n"]:
    """Farthest depth within reach along the row that does not belong to the same surface.

    Args:
        solid: Depth, 0 where unknown.
        rows: Of the pixels to answer for.
        columns: The same.
        reach: In pixels, to both sides.
    """
    one, other = solid[:, :-1], solid[:, 1:]
    torn = torch.maximum(one, other) > SAME_SURFACE * torch.minimum(one, other)
    surface = torch.nn.functional.pad(torn.cumsum(1), (1, 0))
    own, farthest = surface[rows, columns], torch.zeros(len(rows))
    for step in (*range(-reach, 0), *range(1, reach + 1)):
        there = (columns + step).clamp(0, solid.shape[1] - 1)
        depth = torch.where(surface[rows, there] != own, solid[rows, there], 0.0)
        farthest = torch.maximum(farthest, depth)
    return farthest


def inwardness(hole: Bool[Tensor, "h w"], band: float) -> Float[Tensor, "h w"]:
    """0 at the rim of the hole, 1 at ``band`` pixels and more inside it."""
    from scipy.ndimage import distance_transform_edt

    distance = torch.from_numpy(distance_transform_edt(hole.numpy())).float()
    return (distance / band).clamp(0.0, 1.0) ** 2
