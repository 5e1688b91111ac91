"""Spherical harmonics of visible splats only, and their gradients. See renderers/sh.py."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from renderers.kernels import kernel

f32 = np.float32
COEFFICIENTS = 15
"""At most: degree 3, without the constant one."""


@kernel(parallel=True)
def paint(records, counts, size, sh, first, rotation, lens):
    """Turn the records' colours into those that the camera sees, not below 0.

    A record whose colour leaves float32 loses its opacity instead.

    Args:
        records: (b * size,) project.RECORD; the first ``counts[b]`` of each block are used.
        counts: (b,) records that show.
        size: Records per block.
        sh: (n, k, 3) coefficients.
        first: Row of the scene that row 0 of ``sh`` is.
        rotation: (3, 3) cam_from_world.
        lens: (fx, fy, cx, cy, ...), pixels.
    """
    fx, fy, cx, cy = lens[0], lens[1], lens[2], lens[3]
    k = sh.shape[1]
    for b in prange(counts.size):
        basis = np.empty(COEFFICIENTS)
        for i in range(b * size, b * size + counts[b]):
            out = records[i]
            a, c = np.float64((out.x - cx) / fx), np.float64((out.y - cy) / fy)
            length = math.sqrt(a * a + c * c + 1.0)
            _basis(
                (rotation[0, 0] * a + rotation[1, 0] * c + rotation[2, 0]) / length,
                (rotation[0, 1] * a + rotation[1, 1] * c + rotation[2, 1]) / length,
                (rotation[0, 2] * a + rotation[1, 2] * c + rotation[2, 2]) / length,
                k,
                basis,
            )
            red, green, blue = np.float64(out.red), np.float64(out.green), np.float64(out.blue)
            own = sh[out.row - first]
            for j in range(k):
                red += basis[j] * own[j, 0]
                green += basis[j] * own[j, 1]
                blue += basis[j] * own[j, 2]
            out.red, out.green, out.blue = max(red, 0.0), max(green, 0.0), max(blue, 0.0)
            if not np.isfinite(out.red + out.green + out.blue):
                out.red, out.green, out.blue, out.log_opacity = 0.0, 0.0, 0.0, -np.inf


@kernel(parallel=True)
def paint_back(records, shown, means, eye, sh, colors, sums, grad_sh, grad_means):
    """Carry gradients of seen colours back to coefficients and directions.

    Args:
        records: project.RECORD each.
        shown: (m,) records that gradients are for.
        means: (n, 3) centres, metres; likewise ``sh`` (n, k, 3) and ``colors`` (n, 3).
        eye: (3,) camera centre, metres.
        sh: See means.
        colors: See means.
        sums: (r, 10) as project_back.gather writes them; colours that stand at 0 lose theirs.
        grad_sh: (n, k, 3), written.
        grad_means: (n, 3), written: the camera's centre has the opposite in total.
    """
    k = sh.shape[1]
    for slot in prange(shown.size):
        i = shown[slot]
        row = records[i].row
        basis, slopes = np.empty(COEFFICIENTS), np.zeros((3, COEFFICIENTS))
        x, y, z = means[row, 0] - eye[0], means[row, 1] - eye[1], means[row, 2] - eye[2]
        length = math.sqrt(x * x + y * y + z * z)
        x, y, z = x / length, y / length, z / length
        _basis(x, y, z, k, basis)
        _basis_slopes(x, y, z, k, slopes)
        dx, dy, dz = 0.0, 0.0, 0.0
        for channel in range(3):
            seen = np.float64(colors[row, channel])
            for j in range(k):
                seen += basis[j] * sh[row, j, channel]
            if seen < 0.0:
                sums[i, 6 + channel] = 0.0
            gradient = np.float64(sums[i, 6 + channel])
            for j in range(k):
                grad_sh[row, j, channel] = basis[j] * gradient
                dx += slopes[0, j] * sh[row, j, channel] * gradient
                dy += slopes[1, j] * sh[row, j, channel] * gradient
                dz += slopes[2, j] * sh[row, j, channel] * gradient
        along = dx * x + dy * y + dz * z
        grad_means[row, 0] = (dx - along * x) / length
        grad_means[row, 1] = (dy - along * y) / length
        grad_means[row, 2] = (dz - along * z) / length


@kernel()
def _basis(x, y, z, k, out):
    """The functions of renderers.sh.sh_basis at a unit vector."""
    c = 0.4886025119029199
    out[0], out[1], out[2] = -c * y, c * z, -c * x
    if k > 3:
        out[3], out[4] = 1.0925484305920792 * x * y, -1.0925484305920792 * y * z
        out[5] = 0.31539156525252005 * (2.0 * z * z - x * x - y * y)
        out[6], out[7] = -1.0925484305920792 * x * z, 0.5462742152960396 * (x * x - y * y)
    if k > 8:
        out[8] = -0.5900435899266435 * y * (3.0 * x * x - y * y)
        out[9] = 2.890611442640554 * x * y * z
        out[10] = -0.4570457994644658 * y * (4.0 * z * z - x * x - y * y)
        out[11] = 0.3731763325901154 * z * (2.0 * z * z - 3.0 * x * x - 3.0 * y * y)
        out[12] = -0.4570457994644658 * x * (4.0 * z * z - x * x - y * y)
        out[13] = 1.445305721320277 * z * (x * x - y * y)
        out[14] = -0.5900435899266435 * x * (x * x - 3.0 * y * y)


@kernel()
def _basis_slopes(x, y, z, k, out):
    """Partial derivatives of the basis by x, y and z. ``out`` comes as zeros."""
    dx, dy, dz = out[0], out[1], out[2]
    dy[0], dz[1], dx[2] = -0.4886025119029199, 0.4886025119029199, -0.4886025119029199
    if k > 3:
        c = 1.0925484305920792
        dx[3], dy[3] = c * y, c * x
        dy[4], dz[4] = -c * z, -c * y
        c = 0.6307831305050401
        dx[5], dy[5], dz[5] = -c * x, -c * y, 2.0 * c * z
        c = 1.0925484305920792
        dx[6], dz[6] = -c * z, -c * x
        dx[7], dy[7] = c * x, -c * y
    if k > 8:
        c = 0.5900435899266435
        dx[8], dy[8] = -6.0 * c * x * y, -3.0 * c * (x * x - y * y)
        c = 2.890611442640554
        dx[9], dy[9], dz[9] = c * y * z, c * x * z, c * x * y
        c = 0.4570457994644658
        dx[10], dz[10] = 2.0 * c * x * y, -8.0 * c * y * z
        dy[10] = -c * (4.0 * z * z - x * x - 3.0 * y * y)
        c = 0.3731763325901154
        dx[11], dy[11] = -6.0 * c * x * z, -6.0 * c * y * z
        dz[11] = c * (6.0 * z * z - 3.0 * x * x - 3.0 * y * y)
        c = 0.4570457994644658
        dx[12], dy[12] = -c * (4.0 * z * z - 3.0 * x * x - y * y), 2.0 * c * x * y
        dz[12] = -8.0 * c * x * z
        c = 1.445305721320277
        dx[13], dy[13], dz[13] = 2.0 * c * x * z, -2.0 * c * y * z, c * (x * x - y * y)
        c = 0.5900435899266435
        dx[14], dy[14] = -3.0 * c * (x * x - y * y), 6.0 * c * x * y
