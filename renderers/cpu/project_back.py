"""Gradients of what the camera saw of each splat back to the splat and to the camera's pose.

Splats are handled eight at a time: their numbers are laid side by side in a small table, line by
line, and every line of the derivation below is one vector of it.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from renderers.kernels import kernel
from renderers.simd import (
    absolute,
    both,
    fma,
    larger,
    load,
    root,
    select,
    smaller,
    spread,
    store,
    total,
)

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
fade, its SUMS, opacity. The moments among the sums turn into gradients of x, y, sharp, shear, fade
and log opacity, and gradients of mean, quaternion, scale and opacity replace these."""
POSE = 12
"""Gradients of the pose: 9 of the rotation, row by row, and 3 of the translation."""
HALF_LOG2E = f32(0.5 * math.log2(math.e))
HALF_OVER_LN2 = f32(0.5 / math.log(2.0))
LN2 = f32(math.log(2.0))


@kernel(parallel=True, fast=True)
def gather(firsts, by_tile, sums):
    """Add up each record's sums over its tiles, in order.

    Args:
        firsts: (r + 1,) as bin.TileLists has them.
        by_tile: (k, SUMS) as raster_back.rasterise_back writes them.
        sums: (r, SUMS), written.
    """
    for i in prange(sums.shape[0]):
        eight, ninth, tenth = spread(f32(0.0)), f32(0.0), f32(0.0)
        for home in range(firsts[i], firsts[i + 1]):
            eight += load(by_tile[home], u64(0))
            ninth, tenth = ninth + by_tile[home, 8], tenth + by_tile[home, 9]
        store(sums[i], u64(0), eight)
        sums[i, 8], sums[i, 9] = ninth, tenth


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
        shown: (m,) records that gradients are for; their rows rise.
        sums: (r, SUMS) as :func:`gather` writes them.
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
        grad_quats: (n, 4), written, 0 for rows that do not show; likewise scales, opacities and
            colours.
        grad_scales: See grad_quats.
        grad_opacities: See grad_quats.
        grad_colors: See grad_quats.
        grad_pose: (g, POSE) float64, written, one line per GROUP of ``shown``.
    """
    for group in prange(grad_pose.shape[0]):
        table = np.zeros(LINES * LANES, np.float32)
        grad_pose[group] = 0.0
        start, stop = group * GROUP, min(shown.size, (group + 1) * GROUP)
        begin = np.int64(records[shown[start]].row) if group else 0
        end = np.int64(records[shown[stop]].row) if stop < shown.size else means.shape[0]
        grad_quats[begin:end], grad_scales[begin:end] = f32(0.0), f32(0.0)
        grad_opacities[begin:end], grad_colors[begin:end] = f32(0.0), f32(0.0)
        for first in range(start, stop, LANES):
            count = min(LANES, stop - first)
            for lane in range(LANES):  # spare lanes repeat a splat without gradient
                i = shown[first + min(lane, count - 1)]
                _lay_out(records[i], sums[i], means, quats, scales, opacities, table, lane)
                if lane >= count:
                    for line in range(PULL, PULL + SUMS):
                        table[line * LANES + lane] = f32(0.0)
            _weigh_moments(table)
            _derive(table, pose, lens, eps2d, fading, scale_max, grad_pose[group])
            for line in range(MEAN, SHAPE):
                _write(table, line, _known(_line(table, line)))
            _write(table, OPACITY, _known(_line(table, OPACITY)))
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
def _weigh_moments(table):
    """Moments of the gain, which is the gradient of ln alpha, to gradients of the record.

    log2 alpha = log_opacity - fade v^2 - sharp u^2, where u = column - x - shear v, v = row - y.
    """
    for line in range(PULL, PULL + SUMS):
        _write(table, line, _known(_line(table, line)))
    sharp, shear, fade = _three(table, SHAPE)
    m, mu, mv = _three(table, PULL)
    muu, muv, mvv = _three(table, PULL + 3)
    steep, sloping = f32(2.0) * LN2 * sharp, f32(2.0) * LN2 * fade
    _write_three(
        table, PULL, (steep * mu, sloping * mv - steep * shear * mu, f32(-1.0) * LN2 * muu)
    )
    _write_three(table, PULL + 3, (steep * muv, f32(-1.0) * LN2 * mvv, LN2 * m))


@kernel(fast=True)
def _known(values):
    """Gradients, and 0 where they leave float32, as those of a splat at 1e38 m do."""
    return select(f32(0.0) * values >= f32(0.0), values, f32(0.0))


@kernel(fast=True)
def _line(table, line):
    return load(table, u64(line * LANES))


@kernel(fast=True)
def _write(table, line, value):
    store(table, u64(line * LANES), value)


@kernel(fast=True)
def _three(table, line):
    return _line(table, line), _line(table, line + 1), _line(table, line + 2)


@kernel(fast=True)
def _write_three(table, line, values):
    for axis in range(3):
        _write(table, line + axis, values[axis])


@kernel(fast=True)
def _dot(a, b):
    return fma(a[0], b[0], fma(a[1], b[1], a[2] * b[2]))


@kernel(fast=True)
def _times(s, a):
    return s * a[0], s * a[1], s * a[2]


@kernel(fast=True)
def _plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@kernel(fast=True)
def _minus(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@kernel(fast=True)
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@kernel(fast=True)
def _sum(s, t, a, b):
    """Two multiples added: s a + t b."""
    return _plus(_times(s, a), _times(t, b))


@kernel(fast=True)
def _derive(table, pose, lens, eps2d, fading, scale_max, grad_pose):
    """Replace the inputs of eight splats by their gradients, and add to the pose's."""
    across, down = (pose[0, 0], pose[0, 1], pose[0, 2]), (pose[1, 0], pose[1, 1], pose[1, 2])
    ahead = (pose[2, 0], pose[2, 1], pose[2, 2])
    fx, fy, cx, cy, width, height, guard_x, guard_y = lens
    # forward again: where the centre is seen, and the rows of the Jacobian in world axes
    mean = _three(table, MEAN)
    inv_z = f32(1.0) / (_dot(mean, ahead) + pose[2, 3])
    slope_x = (_dot(mean, across) + pose[0, 3]) * inv_z
    slope_y = (_dot(mean, down) + pose[1, 3]) * inv_z
    low_x, high_x = -cx / fx - guard_x, (width - cx) / fx + guard_x
    low_y, high_y = -cy / fy - guard_y, (height - cy) / fy + guard_y
    tx, ty = larger(smaller(slope_x, high_x), low_x), larger(smaller(slope_y, high_y), low_y)
    px, py = fx * inv_z, fy * inv_z
    row_x, row_y = _minus(across, _times(tx, ahead)), _minus(down, _times(ty, ahead))
    dj, dk = _axes_back(table, _times(px, row_x), _times(py, row_y), eps2d, fading, scale_max)
    # gradients of the centre's slopes, and of its place in the camera
    dx, dy = fx * _line(table, PULL), fy * _line(table, PULL + 1)
    free_x = both(slope_x >= low_x, slope_x <= high_x)
    free_y = both(slope_y >= low_y, slope_y <= high_y)
    dx -= select(free_x, px * _dot(dj, ahead), f32(0.0))
    dy -= select(free_y, py * _dot(dk, ahead), f32(0.0))
    dz = dx * slope_x + dy * slope_y + px * _dot(dj, row_x) + py * _dot(dk, row_y)
    gx, gy, gz = dx * inv_z, dy * inv_z, _line(table, PULL + 9) - dz * inv_z
    _write_three(table, MEAN, _plus(_sum(gx, gy, across, down), _times(gz, ahead)))
    # the pose: through the centre and through the Jacobian
    by_row = (
        _sum(gx, px, mean, dj),
        _sum(gy, py, mean, dk),
        _minus(_times(gz, mean), _sum(px * tx, py * ty, dj, dk)),
    )
    for axis in range(3):
        for row in range(3):
            grad_pose[3 * row + axis] += total(_known(by_row[row][axis]))
    grad_pose[9] += total(_known(gx))
    grad_pose[10] += total(_known(gy))
    grad_pose[11] += total(_known(gz))


@kernel(fast=True)
def _axes_back(table, j, k, eps2d, fading, scale_max):
    """Gradients of quaternion, scales and opacity to the table; of the Jacobian's rows returned.

    The splat's axes are the columns of its rotation times its scales; the Jacobian's rows ``j``
    and ``k`` map them to ``p`` and ``q`` in the image.
    """
    unit, inv_norm = _unit_quat(table)
    n0, n1, n2 = _rotation(unit)
    scale = _three(table, SCALE)
    s0 = larger(smaller(scale[0], scale_max), -scale_max)
    s1 = larger(smaller(scale[1], scale_max), -scale_max)
    s2 = larger(smaller(scale[2], scale_max), -scale_max)
    m0, m1, m2 = _times(s0, n0), _times(s1, n1), _times(s2, n2)
    p = _dot(j, m0), _dot(j, m1), _dot(j, m2)
    q = _dot(k, m0), _dot(k, m1), _dot(k, m2)
    dp, dq = _ellipse_back(table, p, q)
    pull_opacity = _line(table, PULL + 5)
    if fading:
        more_p, more_q = _fading_back(pull_opacity, p, q, eps2d)
        dp, dq = _plus(dp, more_p), _plus(dq, more_q)
    _write(table, OPACITY, f32(2.0) * HALF_OVER_LN2 * pull_opacity / _line(table, OPACITY))
    d0, d1, d2 = _sum(dp[0], dq[0], j, k), _sum(dp[1], dq[1], j, k), _sum(dp[2], dq[2], j, k)
    _write_three(table, SCALE, (_dot(d0, n0), _dot(d1, n1), _dot(d2, n2)))
    _quat_back(table, unit, inv_norm, _times(s0, d0), _times(s1, d1), _times(s2, d2))
    dj = _plus(_sum(dp[0], dp[1], m0, m1), _times(dp[2], m2))
    dk = _plus(_sum(dq[0], dq[1], m0, m1), _times(dq[2], m2))
    return dj, dk


@kernel(fast=True)
def _ellipse_back(table, p, q):
    """Gradients of ``p`` and ``q`` through the record's shape.

    sharp = HALF_LOG2E / (var_x - cov^2 / var_y), shear = cov / var_y, fade = HALF_LOG2E / var_y,
    where var_x, cov and var_y are the products of p and q, plus what the low-pass filter adds.
    """
    sharp, shear, fade = _three(table, SHAPE)
    pull_sharp, pull_shear, pull_fade = _three(table, PULL + 2)
    inv_var_y = fade / HALF_LOG2E
    d_var_x = f32(0.0) - pull_sharp * sharp * sharp / HALF_LOG2E
    d_cov = pull_shear * inv_var_y - f32(2.0) * shear * d_var_x
    d_var_y = shear * (shear * d_var_x - pull_shear * inv_var_y) - pull_fade * fade * inv_var_y
    return _sum(f32(2.0) * d_var_x, d_cov, p, q), _sum(f32(2.0) * d_var_y, d_cov, q, p)


@kernel(fast=True)
def _fading_back(pull_opacity, p, q, eps2d):
    """Gradients of ``p`` and ``q`` through 0.5 log2 of the splat's own share of its area."""
    c = _cross(p, q)
    own = _dot(c, c)
    det = own + eps2d * (_dot(p, p) + _dot(q, q) + eps2d)
    a = f32(2.0) * HALF_OVER_LN2 * pull_opacity * (f32(1.0) / own - f32(1.0) / det)
    b = f32(0.0) - f32(2.0) * HALF_OVER_LN2 * pull_opacity * eps2d / det
    return _sum(a, b, _cross(q, c), p), _sum(a, b, _cross(c, p), q)


@kernel(fast=True)
def _unit_quat(table):
    """The quaternion made unit, and the inverse of its length. Scaled first: squares overflow."""
    x, y, z = _three(table, QUAT + 1)
    w = _line(table, QUAT)
    largest = larger(larger(absolute(w), absolute(x)), larger(absolute(y), absolute(z)))
    w, x, y, z = w / largest, x / largest, y / largest, z / largest
    length = root(w * w + x * x + (y * y + z * z))
    inverse = f32(1.0) / length
    return (w * inverse, x * inverse, y * inverse, z * inverse), inverse / largest


@kernel(fast=True)
def _rotation(unit):
    """Columns of the rotation matrix of a unit quaternion."""
    w, x, y, z = unit
    one, two = f32(1.0), f32(2.0)
    return (
        (one - two * (y * y + z * z), two * (x * y + w * z), two * (x * z - w * y)),
        (two * (x * y - w * z), one - two * (x * x + z * z), two * (y * z + w * x)),
        (two * (x * z + w * y), two * (y * z - w * x), one - two * (x * x + y * y)),
    )


@kernel(fast=True)
def _quat_back(table, unit, inv_norm, d0, d1, d2):
    """Gradient of the quaternion as given, from those of the rotation's columns."""
    w, x, y, z = unit
    two = f32(2.0)
    dw = x * (d1[2] - d2[1]) + y * (d2[0] - d0[2]) + z * (d0[1] - d1[0])
    dx = y * (d0[1] + d1[0]) + z * (d0[2] + d2[0]) + w * (d1[2] - d2[1])
    dy = x * (d0[1] + d1[0]) + z * (d1[2] + d2[1]) + w * (d2[0] - d0[2])
    dz = x * (d0[2] + d2[0]) + y * (d1[2] + d2[1]) + w * (d0[1] - d1[0])
    dx, dy = dx - two * x * (d1[1] + d2[2]), dy - two * y * (d0[0] + d2[2])
    dz = dz - two * z * (d0[0] + d1[1])
    along = dw * w + dx * x + dy * y + dz * z  # a longer quaternion turns no further
    inv_norm = two * inv_norm
    _write(table, QUAT, (dw - along * w) * inv_norm)
    _write_three(
        table,
        QUAT + 1,
        ((dx - along * x) * inv_norm, (dy - along * y) * inv_norm, (dz - along * z) * inv_norm),
    )
