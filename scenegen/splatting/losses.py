"""How far a picture is from another: absolute difference and structural similarity, fast.

The loss of Kerbl et al. 2023, eq. 7: ``0.8 L1 + 0.2 (1 - SSIM)``, averaged over weighted pixels.
SSIM is that of Wang et al. 2004, eq. 13, in a gaussian window. Pixels of weight zero and those
beyond the border do not exist: windows are cut off there and normalised again.

With d = image - target and s = image + target, SSIM is a product of two small complements,

    SSIM = (1 - mean(d)^2 / A) (1 - var(d) / B)
    A = (mean(s)^2 + mean(d)^2) / 2 + C1        B = (var(s) + var(d)) / 2 + C2

which takes four moments instead of five and keeps its digits where the pictures are alike.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from jaxtyping import Float
from numba import prange
from torch import Tensor

from renderers import SceneError
from renderers.kernels import RENDER_LOCK, kernel

f32 = np.float32
u64 = np.uint64
SSIM_SHARE = 0.2
"""Weight of 1 - SSIM in the loss; that of L1 is the rest (Kerbl et al. 2023, section 7)."""
RADIUS = 5
"""Half the width of the window, in pixels: 11 x 11 in all (Wang et al. 2004, section III.B)."""
SIGMA = 1.5
"""Standard deviation of the window, in pixels."""
C1, C2 = f32(0.01**2), f32(0.03**2)
"""Stabilisers for colours between 0 and 1 (Wang et al. 2004, section III.B)."""

_BELL = [math.exp(-0.5 * (k / SIGMA) ** 2) for k in range(RADIUS + 1)]
_G = [bell / (2 * sum(_BELL) - 1) for bell in _BELL]
G0, G1, G2, G3, G4, G5 = (f32(g) for g in _G)
"""The window along one axis, from its centre outwards."""
SIDE = 3 * RADIUS
"""Numbers of a row of colours that the window reaches to either side."""
ONE, TWO, HALF = f32(1.0), f32(2.0), f32(0.5)


def photometric_loss(
    image: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h_target w_target 3"],
    weights: Float[Tensor, "h_weights w_weights"] | None = None,
) -> Float[Tensor, ""]:
    """``0.8 L1 + 0.2 (1 - SSIM)`` between two pictures of one size: 0 when they agree.

    Args:
        image: What was drawn, 0 to 1; any float type, any device.
        target: What it should be, 0 to 1.
        weights: What each pixel counts, >= 0; alike when left out. The loss is the weighted mean
            over pixels. Pixels of weight 0 take no part at all, not even in their neighbours'
            windows: their colours do not matter.

    Returns:
        The loss, float32, on the device of ``image``.

    Differentiable in the image, once; target and weights are constants. Deterministic for any
    number of threads. Computed on the CPU in float32.

    Raises:
        SceneError: Shapes disagree, a weight is negative or not finite, or all are zero.
    """
    if target.shape != image.shape:
        raise SceneError(
            f"an image of {_size(image)} cannot be compared with a target of {_size(target)}",
            why="the loss compares pixel by pixel",
            fix="render on the pixel grid of the target",
        )
    loss = _Photometric.apply(image.cpu().float(), _plain(target), _shares(image, weights))
    return loss.to(image.device)


def psnr(
    image: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    weights: Float[Tensor, "h w"] | None = None,
) -> float:
    """Peak signal-to-noise ratio in dB, for colours in 0 to 1; infinite for equal pictures.

    Args:
        image: One picture.
        target: Another of the same size.
        weights: As for :func:`photometric_loss`.
    """
    square = (image.detach().cpu().double() - target.detach().cpu().double()).square().mean(-1)
    shares = torch.from_numpy(_shares(image, weights)).double()
    # what is masked may be NaN
    error = float(torch.where(shares > 0, shares * square, 0.0).sum() / shares.sum())
    return math.inf if error == 0.0 else -10.0 * math.log10(error)


def ssim(
    image: Float[Tensor, "h w 3"],
    target: Float[Tensor, "h w 3"],
    weights: Float[Tensor, "h w"] | None = None,
) -> float:
    """Structural similarity, 1 for equal pictures; windows and weights as in the loss.

    Args:
        image: One picture, 0 to 1.
        target: Another of the same size.
        weights: As for :func:`photometric_loss`.
    """
    image, target = image.detach().cpu().float(), target.detach().cpu().float()
    shares = torch.from_numpy(_shares(image, weights))
    l1 = float(torch.where(shares > 0, shares * (image - target).abs().mean(-1), 0.0).sum())
    loss = float(photometric_loss(image, target, weights))
    return 1.0 - (loss - (1.0 - SSIM_SHARE) * l1) / SSIM_SHARE


def _size(image: Tensor) -> str:
    return " x ".join(map(str, image.shape))


def _plain(values: Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().float().numpy())


def _shares(image: Tensor, weights: Tensor | None) -> np.ndarray:
    """(h, w) weights that sum to 1."""
    height, width = image.shape[:2]
    if weights is None:
        return np.full((height, width), 1.0 / (height * width), f32)
    if weights.shape != image.shape[:2]:
        raise SceneError(
            f"weights of {_size(weights)} for an image of {height} x {width}",
            why="every pixel has one weight",
            fix="pass weights of shape (h, w)",
        )
    plain = _plain(weights)
    total = float(plain.sum(dtype=np.float64))
    if not (math.isfinite(total) and total > 0.0 and float(plain.min()) >= 0.0):
        raise SceneError(
            "the weights of the pixels cannot be used",
            why="some are negative or not finite, or all are zero",
            fix="pass weights >= 0, with at least one above",
        )
    return (plain / total).astype(f32)


class _Photometric(torch.autograd.Function):
    """The loss, with its gradient computed along: both need the same moments."""

    @staticmethod
    def forward(ctx, image: Tensor, target: np.ndarray, shares: np.ndarray) -> Tensor:
        height, width = image.shape[:2]
        pixels = np.ascontiguousarray(image.detach().numpy())
        flat = (height, 3 * width)
        wanted = bool(ctx.needs_input_grad[0])
        gradient = np.empty(flat if wanted else (0, 0), f32)
        loss = _compare(pixels.reshape(flat), target.reshape(flat), shares, gradient)
        if wanted:
            ctx.save_for_backward(torch.from_numpy(gradient.reshape(height, width, 3)))
        return torch.tensor(loss, dtype=torch.float32)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * grads[0], None, None


def _compare(image: np.ndarray, target: np.ndarray, shares: np.ndarray, out: np.ndarray) -> float:
    """The loss of (h, 3 w) pictures; writes the gradient to ``out`` unless that is empty."""
    height, row = image.shape
    losses = np.empty(height, np.float64)
    # RADIUS rows of zeros above and below, so that no window needs a case of its own
    fields = np.empty((2, height + 2 * RADIUS, row), f32)
    slopes = np.empty((3, height + 2 * RADIUS, row) if out.size else (3, 0, 0), f32)
    with RENDER_LOCK:
        threads = numba.get_num_threads()
        mask = np.empty((height + 2 * RADIUS, row // 3), f32)
        _prepare(image, target, shares, threads, fields, mask, slopes)
        l1, ssim = f32(1.0 - SSIM_SHARE), f32(SSIM_SHARE)
        _measure(fields, mask, shares, (l1, ssim), threads, slopes, losses)
        if out.size:
            _spread(fields, slopes, shares, l1, threads, out)
    return float(losses.sum())


@kernel(parallel=True, fast=True)
def _prepare(image, target, shares, threads, fields, mask, slopes):
    """Difference and sum of two pictures where they count, zeros around.

    Args:
        image: (h, 3 w).
        target: (h, 3 w).
        shares: (h, w) weights.
        threads: Shares of the work.
        fields: (2, h + 2 RADIUS, 3 w) d, and s - 1: near zero, so that its variance keeps digits.
        mask: (h + 2 RADIUS, w), written: 1 where a pixel counts.
        slopes: (3, h + 2 RADIUS, 3 w) or empty; its rims are cleared.
    """
    height, width = shares.shape
    for share in prange(threads):
        for y in range(share, height + 2 * RADIUS, threads):
            row = y - RADIUS
            if row < 0 or row >= height:
                fields[0, y, :] = f32(0.0)
                fields[1, y, :] = f32(0.0)
                mask[y, :] = f32(0.0)
                if slopes.size:
                    slopes[:, y, :] = f32(0.0)
                continue
            for x in range(width):
                counts = shares[row, x] > f32(0.0)
                mask[y, x] = ONE if counts else f32(0.0)
                for i in range(3 * x, 3 * x + 3):
                    a, b = image[row, i], target[row, i]
                    fields[0, y, i] = a - b if counts else f32(0.0)
                    fields[1, y, i] = (a + b) - ONE if counts else f32(0.0)


@kernel(parallel=True, fast=True)
def _measure(fields, mask, shares, mix, threads, slopes, losses):
    """The loss of every row, and what each window's moments add to it.

    Args:
        fields: As ``_prepare`` wrote them.
        mask: Likewise.
        shares: (h, w) weights.
        mix: Weights of L1 and of 1 - SSIM.
        threads: Shares of the work.
        slopes: (3, h + 2 RADIUS, 3 w) or empty, written: derivatives of the loss by the windows'
            mean of d plus mean of s, mean of d^2, and mean of s^2, over the windows' mass.
        losses: (h,), written.
    """
    height, width = shares.shape
    size = 3 * width
    for share in prange(threads):
        sums = np.zeros((4, size + 2 * SIDE), np.float32)
        means = np.empty((4, size), np.float32)
        masses = np.zeros(width + 2 * RADIUS, np.float32)
        each = np.empty((2, size), np.float32)  # per colour: 1 / mass, share
        errors = np.empty(size, np.float32)
        for y in range(share, height, threads):
            _sum_columns(fields[0, y:], fields[1, y:], sums)
            for j in range(4):
                _sum_row(sums[j], means[j])
            _weigh_row(mask[y:], shares[y], masses, each)
            d = fields[0, y + RADIUS]
            if slopes.size:
                at = y + RADIUS
                _slopes_row(means, each, mix[1], slopes[0, at], slopes[1, at], slopes[2, at])
            _errors_row(d, means, each, mix, errors)
            total = 0.0
            for i in range(size):
                total += errors[i]
            losses[y] = total


@kernel(parallel=True, fast=True)
def _spread(fields, slopes, shares, l1, threads, out):
    """The gradient: every window's slopes go back to the pixels that it saw.

    Args:
        fields: As ``_prepare`` wrote them.
        slopes: As ``_measure`` wrote them.
        shares: (h, w) weights.
        l1: Weight of L1.
        threads: Shares of the work.
        out: (h, 3 w), written.
    """
    height, width = shares.shape
    size = 3 * width
    for share in prange(threads):
        sums = np.zeros((3, size + 2 * SIDE), np.float32)
        back = np.empty((3, size), np.float32)
        for y in range(share, height, threads):
            for j in range(3):
                _sum_column(slopes[j, y:], sums[j])
                _sum_row(sums[j], back[j])
            d, s = fields[0, y + RADIUS], fields[1, y + RADIUS]
            for x in range(width):
                weight = shares[y, x]
                per_color = weight * l1 / f32(3.0)
                for i in range(3 * x, 3 * x + 3):
                    sign = f32(d[i] > f32(0.0)) - f32(d[i] < f32(0.0))
                    spread = back[0, i] + TWO * (d[i] * back[1, i] + s[i] * back[2, i])
                    out[y, i] = per_color * sign + spread if weight > f32(0.0) else f32(0.0)


@kernel(fast=True)
def _sum_columns(d, s, sums):
    """Windows along the columns under ``d`` and ``s``, 11 rows each: d, s, d^2 and s^2."""
    taps = (G5, G4, G3, G2, G1, G0, G1, G2, G3, G4, G5)
    for i in range(d.shape[1]):
        sum_d = sum_s = sum_dd = sum_ss = f32(0.0)
        for k in range(11):
            here_d, here_s = d[u64(k), u64(i)], s[u64(k), u64(i)]
            part_d, part_s = taps[k] * here_d, taps[k] * here_s
            sum_d += part_d
            sum_s += part_s
            sum_dd += part_d * here_d
            sum_ss += part_s * here_s
        at = u64(i + SIDE)
        sums[u64(0), at], sums[u64(1), at] = sum_d, sum_s
        sums[u64(2), at], sums[u64(3), at] = sum_dd, sum_ss


@kernel(fast=True)
def _sum_column(rows, sums):
    """Windows along the columns under ``rows``, 11 of them."""
    for i in range(rows.shape[1]):
        j = u64(i)
        total = G0 * rows[u64(5), j]
        total += G1 * (rows[u64(4), j] + rows[u64(6), j])
        total += G2 * (rows[u64(3), j] + rows[u64(7), j])
        total += G3 * (rows[u64(2), j] + rows[u64(8), j])
        total += G4 * (rows[u64(1), j] + rows[u64(9), j])
        total += G5 * (rows[u64(0), j] + rows[u64(10), j])
        sums[u64(i + SIDE)] = total


@kernel(fast=True)
def _sum_row(padded, sums):
    """Windows along a row of colours with SIDE zeros at either end."""
    for i in range(sums.size):
        c = u64(i + SIDE)
        total = G0 * padded[c]
        total += G1 * (padded[c - u64(3)] + padded[c + u64(3)])
        total += G2 * (padded[c - u64(6)] + padded[c + u64(6)])
        total += G3 * (padded[c - u64(9)] + padded[c + u64(9)])
        total += G4 * (padded[c - u64(12)] + padded[c + u64(12)])
        total += G5 * (padded[c - u64(15)] + padded[c + u64(15)])
        sums[u64(i)] = total


@kernel(fast=True)
def _weigh_row(mask, shares, masses, each):
    """Per colour of a row: one over the mass of its window, and its share in the loss."""
    taps = (G5, G4, G3, G2, G1, G0, G1, G2, G3, G4, G5)
    width = shares.size
    for x in range(width):
        total = f32(0.0)
        for k in range(11):
            total += taps[k] * mask[u64(k), u64(x)]
        masses[u64(x + RADIUS)] = total
    for x in range(width):
        c = u64(x)
        total = f32(0.0)
        for k in range(11):
            total += taps[k] * masses[c + u64(k)]
        counts = shares[c] > f32(0.0)  # where a pixel counts its window has a mass
        inverse = ONE / total if counts else f32(0.0)
        for j in range(3):
            each[u64(0), u64(3) * c + u64(j)] = inverse
            each[u64(1), u64(3) * c + u64(j)] = shares[c] / f32(3.0)


@kernel(fast=True)
def _errors_row(d, means, each, mix, errors):
    """The loss of every colour of a row."""
    for i in range(errors.size):
        j = u64(i)
        inverse = each[u64(0), j]
        mean_d, mean_s = means[u64(0), j] * inverse, means[u64(1), j] * inverse
        var_d = means[u64(2), j] * inverse - mean_d * mean_d
        var_s = means[u64(3), j] * inverse - mean_s * mean_s
        light = mean_s + ONE
        a = mean_d * mean_d / (HALF * (light * light + mean_d * mean_d) + C1)
        b = var_d / (HALF * (var_s + var_d) + C2)
        errors[j] = each[u64(1), j] * (mix[0] * abs(d[j]) + mix[1] * (a + b - a * b))


@kernel(fast=True)
def _slopes_row(means, each, ssim, slope_mean, slope_dd, slope_ss):
    """Derivatives of the loss of every colour by the moments of its window, over its mass."""
    for i in range(slope_mean.size):
        j = u64(i)
        inverse = each[u64(0), j]
        mean_d, mean_s = means[u64(0), j] * inverse, means[u64(1), j] * inverse
        var_d = means[u64(2), j] * inverse - mean_d * mean_d
        var_s = means[u64(3), j] * inverse - mean_s * mean_s
        light = mean_s + ONE
        over_a = ONE / (HALF * (light * light + mean_d * mean_d) + C1)
        over_b = ONE / (HALF * (var_s + var_d) + C2)
        a, b = mean_d * mean_d * over_a, var_d * over_b
        weight = each[u64(1), j] * ssim * inverse
        by_a, by_b = weight * (ONE - b), weight * (ONE - a)
        by_dd = by_b * (ONE - HALF * b) * over_b
        by_ss = -HALF * by_b * b * over_b
        by_d = by_a * mean_d * over_a * (TWO - a) - TWO * mean_d * by_dd
        by_s = -by_a * a * light * over_a - TWO * mean_s * by_ss
        slope_mean[j], slope_dd[j], slope_ss[j] = by_d + by_s, by_dd, by_ss
