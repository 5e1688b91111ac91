"""The kernels of refinement: rows in sight, rows gathered, and one step of Adam within limits."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from renderers.kernels import kernel

f32 = np.float32
REACH = 3.0
"""How far a splat's mean, and the ends of its axes around it, may go from where depth put them, in
sizes of the splat: about a pixel. Else long splats at a rim turn out of the surface like spikes."""
STRETCH = 2.0
"""Factor by which a scale may grow or shrink, within REACH."""
COLUMNS = 14
"""Numbers per splat: mean (3), quaternion (4), scales (3), opacity, colour (3)."""
MEMORY_1, MEMORY_2 = f32(0.9), f32(0.999)
"""Decay of the averages of the gradient and of its square (Kingma and Ba 2015, section 2)."""
LOG_1, LOG_2 = f32(math.log(0.9)), f32(math.log(0.999))
TINY = f32(1e-20)
ONE, HALF = f32(1.0), f32(0.5)
CHUNK = 4096
"""Splats that one thread changes at a time."""


@kernel(parallel=True, fast=True)
def in_sight(table, pose, lens, flags):
    """Which splats can touch an image: ``lens`` is (fx, fy, cx, cy, width, height) in pixels."""
    fx, fy, cx, cy, width, height = lens
    for i in prange(flags.size):
        p = table[i]
        x = pose[0, 0] * p[0] + pose[0, 1] * p[1] + pose[0, 2] * p[2] + pose[0, 3]
        y = pose[1, 0] * p[0] + pose[1, 1] * p[1] + pose[1, 2] * p[2] + pose[1, 3]
        z = pose[2, 0] * p[0] + pose[2, 1] * p[1] + pose[2, 2] * p[2] + pose[2, 3]
        # 3.4 standard deviations of what a splat may grow to, and the way that it may go
        reach = max(max(abs(p[7]), abs(p[8])), abs(p[9])) * f32(3.4 * STRETCH + REACH)
        inverse = ONE / max(z, f32(1e-3))
        slope_x, slope_y = x * inverse, y * inverse
        spread = reach * inverse * (ONE + abs(slope_x) + abs(slope_y))
        u, v = fx * slope_x + cx, fy * slope_y + cy
        wide, tall = fx * spread + f32(4.0), fy * spread + f32(4.0)  # 4: the low-pass filter's
        inside = (u + wide > f32(0.0)) & (u - wide < width)
        inside &= (v + tall > f32(0.0)) & (v - tall < height)
        flags[i] = inside & (z + reach > f32(0.0))  # false for NaN


@kernel(parallel=True, fast=True)
def gather(table, rows, means, quats, scales, opacities, colors):
    """Copy some rows of the table, column by column of Splats."""
    for i in prange(rows.size):
        p = table[rows[i]]
        for k in range(3):
            means[i, k], scales[i, k], colors[i, k] = p[k], p[7 + k], p[11 + k]
        for k in range(4):
            quats[i, k] = p[3 + k]
        opacities[i, 0] = p[10]


@kernel(parallel=True, fast=True)
def move(table, rows, gradients, moments, seen, pulls, anchors, rates, limits):
    """One step of Adam (Kingma and Ba 2015, algorithm 1) for the splats that a view shows.

    Splats without a gradient wait, averages and all: they are out of sight, not settled.

    Args:
        table: (n, COLUMNS), changed.
        rows: (m,) int32 rows that were drawn, none twice.
        gradients: (m, 3), (m, 4), (m, 3), (m,) and (m, 3): by the fields of Splats.
        moments: (n, 2, COLUMNS) averages of the gradient and of its square, changed.
        seen: (n,) steps that each splat took, changed.
        pulls: (n,) sum of the lengths of its mean's gradients, in sizes, changed.
        anchors: (n, ANCHORS).
        rates: One for each of the five fields.
        limits: (REACH, STRETCH, OPACITY_LIMIT).
    """
    means, quats, scales, opacities, colors = gradients
    for part in prange(-(-rows.size // CHUNK)):
        slope, step = np.empty(COLUMNS, np.float32), np.empty(COLUMNS, np.float32)
        for i in range(part * CHUNK, min(rows.size, (part + 1) * CHUNK)):
            row = rows[i]
            p, anchor = table[row], anchors[row]
            size, opacity = anchor[10], p[10]
            for k in range(3):  # in sizes, and by the logarithm
                slope[k], slope[7 + k] = means[i, k] * size, scales[i, k] * p[7 + k]
                slope[11 + k] = colors[i, k]
            for k in range(4):
                slope[3 + k] = quats[i, k]
            slope[10] = opacities[i] * opacity * (ONE - opacity)  # by the logit
            total = f32(0.0)
            for k in range(COLUMNS):
                total += abs(slope[k])
            if not (total > f32(0.0) and total < f32(np.inf)):
                continue
            seen[row] += 1
            pulls[row] += math.sqrt(slope[0] * slope[0] + slope[1] * slope[1] + slope[2] * slope[2])
            _adam(slope, moments[row, 0], moments[row, 1], f32(seen[row]), step)
            _apply(p, anchor, step, rates, limits)


@kernel(fast=True)
def _adam(slope, first, second, count, step):
    """Update both averages; the step for a rate of 1."""
    # not powers: those of whole numbers compile to a call that numba's linker does not know
    whole_1, whole_2 = ONE - math.exp(count * LOG_1), ONE - math.exp(count * LOG_2)
    for k in range(COLUMNS):
        first[k] = MEMORY_1 * first[k] + (ONE - MEMORY_1) * slope[k]
        second[k] = MEMORY_2 * second[k] + (ONE - MEMORY_2) * slope[k] * slope[k]
        step[k] = -(first[k] / whole_1) / (math.sqrt(second[k] / whole_2) + TINY)


@kernel(fast=True)
def _apply(p, anchor, step, rates, limits):
    """Change one splat, within its limits."""
    reach, stretch, high = limits
    low, long = min(anchor[7], anchor[8]), max(anchor[7], anchor[8])
    way = reach * min(max(low, anchor[9]), long)  # sizes: the middle one of three scales
    long = max(long, anchor[9])
    size = anchor[10]
    for k in range(3):
        p[k] += size * rates[0] * step[k]
        scale = p[7 + k] * math.exp(rates[2] * step[7 + k])
        highest = min(anchor[7 + k] * stretch, anchor[7 + k] + way)
        lowest = max(anchor[7 + k] / stretch, anchor[7 + k] - way)
        bounded = min(max(abs(scale), lowest), highest)
        p[7 + k] = bounded if scale >= f32(0.0) else -bounded
        p[11 + k] = min(max(p[11 + k] + rates[4] * step[11 + k], f32(0.0)), ONE)
    for k in range(4):
        p[3 + k] += rates[1] * step[3 + k]
    opacity = min(max(p[10], ONE - high), high)
    odds = opacity / (ONE - opacity) * math.exp(rates[3] * step[10])
    p[10] = min(max(odds / (ONE + odds), ONE - high), high)
    _hold(p[:3], anchor[:3], reach * size)
    _unit(p[3:7])
    _hold(p[3:7], anchor[3:7], HALF * way / long)  # between quaternions is half the angle
    _unit(p[3:7])


@kernel(fast=True)
def _hold(point, home, limit):
    """Pull ``point`` to within ``limit`` of ``home``."""
    square = f32(0.0)
    for k in range(point.size):
        square += (point[k] - home[k]) ** 2
    if square > limit * limit:
        share = limit / math.sqrt(square)
        for k in range(point.size):
            point[k] = home[k] + share * (point[k] - home[k])


@kernel(fast=True)
def _unit(quat):
    square = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3]
    for k in range(4):
        quat[k] /= math.sqrt(square)
