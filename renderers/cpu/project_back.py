"""Gradients of what the camera saw of each splat back to the splat and to the camera's pose.

Splats are handled eight at a time: their numbers are laid side by side in a small table, line by
line, and every line of the derivation below is one vector of it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from renderers.kernels import kernel
from renderers.simd import absolute, both, fma, larger, load, root, select, smaller, store, total

f32 = np.float32
u64 = np.uint64
LANES = 8
GROUP = 256
"""Splats whose gradients of the pose are added up together."""
SUMS = 10
"""As in raster_back.py."""
MEAN, QUAT, SCALE, SHAPE, PULL, OPACITY = 0, 3, 7, 10, 13, 23
LINES = 24
"""Lines of the table: inputs mean (3), quaternion (4), scale (3), the record's sharp, shear and
fade, SUMS gradients, opacity. Gradients of mean, quaternion, scale and opacity replace these."""
POSE = 12
"""Gradients of the pose: 9 of the rotation, row by row, and 3 of the translation."""
HALF_LOG2E = f32(0.5 * math.log2(math.e))
HALF_OVER_LN2 = f32(0.5 / math.log(2.0))


@kernel(parallel=True, fast=True)
def gather(firsts, by_tile, sums):
    """Add up each record's gradients over its tiles, in order.

    Args:
        firsts: (r + 1,) as bin.TileLists has them.
        by_tile: (k, SUMS) as raster_back.rasterise_back writes them.
        sums: (r, SUMS), written.
    """
    for i in prange(sums.shape[0]):
        for j in range(SUMS):
            sums[i, j] = f32(0.0)
        for home in range(firsts[i], firsts[i + 1]):
            for j in range(SUMS):
                sums[i, j] += by_tile[home, j]


@kernel(parallel=True, fast=True)
def project_back(
    records,
    shown,
    sums,
    means,
    quats,
    scales,
    opacities,
    pose,
    lens,
    eps2d,
    fading,
    scale_max,
    grad_means,
    grad_quats,
    grad_scales,
    grad_opacities,
    grad_colors,
    grad_pose,
):
    """Gradients of the splats' fields.

    Args:
        records: project.RECORD each.
        shown: (m,) records that gradients are for.
        sums: (r, SUMS) gradients of the records.
        means: (n, 3), metres; likewise quats (n, 4) wxyz, scales (n, 3) and opacities (n,).
        quats: See means.
        scales: See means.
        opacities: See means.
        pose: (3, 4) cam_from_world.
        lens: As for project.project.
        eps2d: Variance of the low-pass filter, square pixels.
        fading: As for project.project.
        scale_max: Scales count as no larger than this, metres.
        grad_means: (n, 3), added to.
        grad_quats: (n, 4), written; likewise scales, opacities and colours.
        grad_scales: See grad_quats.
        grad_opacities: See grad_quats.
        grad_colors: See grad_quats.
        grad_pose: (g, POSE) float64, written, one line per GROUP of ``shown``.
    """
    for group in prange(grad_pose.shape[0]):
        table = np.zeros(LINES * LANES, np.float32)
        grad_pose[group] = 0.0
        start, stop = group * GROUP, min(shown.size, (group + 1) * GROUP)
        for first in range(start, stop, LANES):
            count = min(LANES, stop - first)
            for lane in range(LANES):  # spare lanes repeat a splat without gradient
                i = shown[first + min(lane, count - 1)]
                _lay_out(records[i], sums[i], means, quats, scales, opacities, table, lane)
                if lane >= count:
                    for line in range(PULL, PULL + SUMS):
                        table[line * LANES + lane] = f32(0.0)
            _derive(table, pose, lens, eps2d, fading, scale_max, grad_pose[group])
            for lane in range(count):
                i = shown[first + lane]
                row = records[i].row
                for axis in range(3):
                    grad_means[row, axis] += table[(MEAN + axis) * LANES + lane]
                    grad_scales[row, axis] = table[(SCALE + axis) * LANES + lane]
                    grad_colors[row, axis] = sums[i, 6 + axis]
                for axis in range(4):
                    grad_quats[row, axis] = table[(QUAT + axis) * LANES + lane]
                grad_opacities[row] = table[OPACITY * LANES + lane]


@kernel(fast=True)
def _lay_out(record, sums, means, quats, scales, opacities, table, lane):
    """Write one splat's inputs to its lane."""
    row = record.row
    for axis in range(3):
        table[(MEAN + axis) * LANES + lane] = means[row, axis]
        table[(SCALE + axis) * LANES + lane] = scales[row, axis]
    for axis in range(4):
        table[(QUAT + axis) * LANES + lane] = quats[row, axis]
    table[SHAPE * LANES + lane] = record.sharp
    table[(SHAPE + 1) * LANES + lane] = record.shear
    table[(SHAPE + 2) * LANES + lane] = record.fade
    for line in range(SUMS):
        table[(PULL + line) * LANES + lane] = sums[line]
    table[OPACITY * LANES + lane] = opacities[row]


@kernel(fast=True)
def _line(table, line):
    return load(table, u64(line * LANES))


@kernel(fast=True)
def _write(table, line, value):
    store(table, u64(line * LANES), value)


@kernel(fast=True)
def _dot(ax, ay, az, bx, by, bz):
    return fma(ax, bx, fma(ay, by, az * bz))


@kernel(fast=True)
def _derive(table, pose, lens, eps2d, fading, scale_max, grad_pose):
    """Replace the inputs of eight splats by their gradients, and add to the pose's."""
    r00, r01, r02, r03 = pose[0, 0], pose[0, 1], pose[0, 2], pose[0, 3]
    r10, r11, r12, r13 = pose[1, 0], pose[1, 1], pose[1, 2], pose[1, 3]
    r20, r21, r22, r23 = pose[2, 0], pose[2, 1], pose[2, 2], pose[2, 3]
    fx, fy, cx, cy, width, height, guard_x, guard_y = lens
    one, two = f32(1.0), f32(2.0)
    # forward again: the centre in the camera, the Jacobian's rows (ja..jc) and (ka..kc)
    mx, my, mz = _line(table, MEAN), _line(table, MEAN + 1), _line(table, MEAN + 2)
    z = _dot(mx, my, mz, r20, r21, r22) + r23
    inv_z = one / z
    slope_x = (_dot(mx, my, mz, r00, r01, r02) + r03) * inv_z
    slope_y = (_dot(mx, my, mz, r10, r11, r12) + r13) * inv_z
    low_x, high_x = -cx / fx - guard_x, (width - cx) / fx + guard_x
    low_y, high_y = -cy / fy - guard_y, (height - cy) / fy + guard_y
    tx = larger(smaller(slope_x, high_x), low_x)
    ty = larger(smaller(slope_y, high_y), low_y)
    px, py = fx * inv_z, fy * inv_z
    ja, jb, jc = px * (r00 - tx * r20), px * (r01 - tx * r21), px * (r02 - tx * r22)
    ka, kb, kc = py * (r10 - ty * r20), py * (r11 - ty * r21), py * (r12 - ty * r22)
    # rotation of the splat, times its scales: columns of (m.0 m.1 m.2)
    w, x = _line(table, QUAT), _line(table, QUAT + 1)
    y, q = _line(table, QUAT + 2), _line(table, QUAT + 3)
    norm = larger(larger(absolute(w), absolute(x)), larger(absolute(y), absolute(q)))
    w, x, y, q = w / norm, x / norm, y / norm, q / norm
    rest = root(_dot(w, x, y, w, x, y) + q * q)
    inv_norm = one / (norm * rest)
    w, x, y, q = w / rest, x / rest, y / rest, q / rest
    n00, n01, n02 = one - two * (y * y + q * q), two * (x * y - w * q), two * (x * q + w * y)
    n10, n11, n12 = two * (x * y + w * q), one - two * (x * x + q * q), two * (y * q - w * x)
    n20, n21, n22 = two * (x * q - w * y), two * (y * q + w * x), one - two * (x * x + y * y)
    s0 = larger(smaller(_line(table, SCALE), scale_max), -scale_max)
    s1 = larger(smaller(_line(table, SCALE + 1), scale_max), -scale_max)
    s2 = larger(smaller(_line(table, SCALE + 2), scale_max), -scale_max)
    m00, m10, m20 = n00 * s0, n10 * s0, n20 * s0
    m01, m11, m21 = n01 * s1, n11 * s1, n21 * s1
    m02, m12, m22 = n02 * s2, n12 * s2, n22 * s2
    p0, p1, p2 = (
        _dot(ja, jb, jc, m00, m10, m20),
        _dot(ja, jb, jc, m01, m11, m21),
        _dot(ja, jb, jc, m02, m12, m22),
    )
    q0, q1, q2 = (
        _dot(ka, kb, kc, m00, m10, m20),
        _dot(ka, kb, kc, m01, m11, m21),
        _dot(ka, kb, kc, m02, m12, m22),
    )
    # ellipse back to variances: sharp = HALF_LOG2E / (var_x - cov^2 / var_y), shear = cov / var_y,
    # fade = HALF_LOG2E / var_y
    sharp, shear, fade = _line(table, SHAPE), _line(table, SHAPE + 1), _line(table, SHAPE + 2)
    pull_shear = _line(table, PULL + 3)
    inv_var_y = fade / HALF_LOG2E
    d_var_x = f32(0.0) - _line(table, PULL + 2) * sharp * sharp / HALF_LOG2E
    d_cov = pull_shear * inv_var_y - two * shear * d_var_x
    d_var_y = shear * (shear * d_var_x - pull_shear * inv_var_y)
    d_var_y -= _line(table, PULL + 4) * fade * inv_var_y
    dp0, dp1, dp2 = (
        two * d_var_x * p0 + d_cov * q0,
        two * d_var_x * p1 + d_cov * q1,
        two * d_var_x * p2 + d_cov * q2,
    )
    dq0, dq1, dq2 = (
        two * d_var_y * q0 + d_cov * p0,
        two * d_var_y * q1 + d_cov * p1,
        two * d_var_y * q2 + d_cov * p2,
    )
    pull_opacity = _line(table, PULL + 5)
    if fading:  # log2 of the root of the share of the area that is the splat's own
        c0, c1, c2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
        own = _dot(c0, c1, c2, c0, c1, c2)
        var_x, var_y = _dot(p0, p1, p2, p0, p1, p2), _dot(q0, q1, q2, q0, q1, q2)
        det = own + eps2d * (var_x + var_y + eps2d)
        f = HALF_OVER_LN2 * pull_opacity
        a, b = two * f * (one / own - one / det), two * f * eps2d / det
        dp0 += a * (q1 * c2 - q2 * c1) - b * p0
        dp1 += a * (q2 * c0 - q0 * c2) - b * p1
        dp2 += a * (q0 * c1 - q1 * c0) - b * p2
        dq0 += a * (c1 * p2 - c2 * p1) - b * q0
        dq1 += a * (c2 * p0 - c0 * p2) - b * q1
        dq2 += a * (c0 * p1 - c1 * p0) - b * q2
    _write(table, OPACITY, two * HALF_OVER_LN2 * pull_opacity / _line(table, OPACITY))
    # (p, q) back to the axes and to the Jacobian
    d00, d01, d02 = ja * dp0 + ka * dq0, ja * dp1 + ka * dq1, ja * dp2 + ka * dq2
    d10, d11, d12 = jb * dp0 + kb * dq0, jb * dp1 + kb * dq1, jb * dp2 + kb * dq2
    d20, d21, d22 = jc * dp0 + kc * dq0, jc * dp1 + kc * dq1, jc * dp2 + kc * dq2
    dja, dka = _dot(dp0, dp1, dp2, m00, m01, m02), _dot(dq0, dq1, dq2, m00, m01, m02)
    djb, dkb = _dot(dp0, dp1, dp2, m10, m11, m12), _dot(dq0, dq1, dq2, m10, m11, m12)
    djc, dkc = _dot(dp0, dp1, dp2, m20, m21, m22), _dot(dq0, dq1, dq2, m20, m21, m22)
    _write(table, SCALE, _dot(d00, d10, d20, n00, n10, n20))
    _write(table, SCALE + 1, _dot(d01, d11, d21, n01, n11, n21))
    _write(table, SCALE + 2, _dot(d02, d12, d22, n02, n12, n22))
    d00, d10, d20 = d00 * s0, d10 * s0, d20 * s0
    d01, d11, d21 = d01 * s1, d11 * s1, d21 * s1
    d02, d12, d22 = d02 * s2, d12 * s2, d22 * s2
    dw = two * (x * (d21 - d12) + y * (d02 - d20) + q * (d10 - d01))
    dx = two * (y * (d10 + d01) + q * (d20 + d02) + w * (d21 - d12) - two * x * (d11 + d22))
    dy = two * (x * (d10 + d01) + q * (d21 + d12) + w * (d02 - d20) - two * y * (d00 + d22))
    dq = two * (x * (d20 + d02) + y * (d21 + d12) + w * (d10 - d01) - two * q * (d00 + d11))
    along = _dot(dw, dx, dy, w, x, y) + dq * q
    _write(table, QUAT, (dw - along * w) * inv_norm)
    _write(table, QUAT + 1, (dx - along * x) * inv_norm)
    _write(table, QUAT + 2, (dy - along * y) * inv_norm)
    _write(table, QUAT + 3, (dq - along * q) * inv_norm)
    # the centre in the camera, (gx, gy, gz)
    d_px = _dot(dja, djb, djc, r00 - tx * r20, r01 - tx * r21, r02 - tx * r22)
    d_py = _dot(dka, dkb, dkc, r10 - ty * r20, r11 - ty * r21, r12 - ty * r22)
    d_tx = f32(0.0) - px * _dot(dja, djb, djc, r20, r21, r22)
    d_ty = f32(0.0) - py * _dot(dka, dkb, dkc, r20, r21, r22)
    d_slope_x = fx * _line(table, PULL)
    d_slope_x += select(both(slope_x >= low_x, slope_x <= high_x), d_tx, f32(0.0))
    d_slope_y = fy * _line(table, PULL + 1)
    d_slope_y += select(both(slope_y >= low_y, slope_y <= high_y), d_ty, f32(0.0))
    gx, gy = d_slope_x * inv_z, d_slope_y * inv_z
    gz = _line(table, PULL + 9)
    gz -= (d_slope_x * slope_x + d_slope_y * slope_y + d_px * px + d_py * py) * inv_z
    _write(table, MEAN, _dot(gx, gy, gz, r00, r10, r20))
    _write(table, MEAN + 1, _dot(gx, gy, gz, r01, r11, r21))
    _write(table, MEAN + 2, _dot(gx, gy, gz, r02, r12, r22))
    # the pose: through the centre and through the Jacobian's rows
    jz, kz = px * tx, py * ty
    grad_pose[0] += total(gx * mx + px * dja)
    grad_pose[1] += total(gx * my + px * djb)
    grad_pose[2] += total(gx * mz + px * djc)
    grad_pose[3] += total(gy * mx + py * dka)
    grad_pose[4] += total(gy * my + py * dkb)
    grad_pose[5] += total(gy * mz + py * dkc)
    grad_pose[6] += total(gz * mx - jz * dja - kz * dka)
    grad_pose[7] += total(gz * my - jz * djb - kz * dkb)
    grad_pose[8] += total(gz * mz - jz * djc - kz * dkc)
    grad_pose[9] += total(gx)
    grad_pose[10] += total(gy)
    grad_pose[11] += total(gz)
