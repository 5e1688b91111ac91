"""Splats seen from one camera: an ellipse in the image each (Zwicker et al. 2001, eq. 24-31)."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from renderers.kernels import kernel

f32 = np.float32
N = 256
"""Splats per block: a block and its projection stay in the processor's nearest cache."""
COLUMNS = 16
"""Numbers per splat of a block: mean (3), axes (9: the rows of rotation times scale), log2 of the
opacity, colour (3). A column's N numbers are neighbours, so that one instruction takes several."""

RECORD = np.dtype(
    [
        ("x", "f4"),  # centre, in pixels
        ("y", "f4"),
        # log2 alpha at (x + u, y + v) is log_opacity - fade v^2 - sharp (u - shear v)^2: a sum of
        # squares, which unlike the usual conic loses no digits on long thin splats
        ("sharp", "f4"),
        ("shear", "f4"),
        ("fade", "f4"),
        ("log_opacity", "f4"),
        ("red", "f4"),
        ("green", "f4"),
        ("blue", "f4"),
        ("depth", "f4"),
        ("reach_x", "f4"),  # half the box outside of which alpha is below the cut, in pixels
        ("reach_y", "f4"),
        ("row", "i4"),  # of the set of splats
    ],
    align=True,
)
"""A visible splat. Numba counts the layout among the types of a kernel's arguments."""

BOX = np.dtype([("x0", "i4"), ("x1", "i4"), ("y0", "i4"), ("y1", "i4")])
"""Tiles that a splat's box meets, half open. Apart from the record: binning reads little else."""

MARGIN = 1.83
"""Reach of the low-pass filter alone, in pixels: sqrt(2 ln(255) 0.3), rounded up."""
SLACK = 1e-4
"""Share of its distance by which a bounding box is widened, against rounding in the kernels."""
HALF_LOG2E = f32(0.5 * math.log2(math.e))
TWO_LN2 = f32(2.0 * math.log(2.0))


def visible_blocks(
    bounds: np.ndarray, rotation: np.ndarray, eye: np.ndarray, lens: tuple[float, ...], near: float
) -> np.ndarray:
    """Blocks that may show: those not wholly behind the near plane or beyond an edge of the image.

    A splat that is ``reach`` metres large covers at most ``focal * reach * sqrt(1 + slope^2) / z``
    pixels to either side, and MARGIN from the low-pass filter; times z, that is linear in space.

    Args:
        bounds: (b, 7) as pack.Segment has them.
        rotation: (3, 3) cam_from_world.
        eye: (3,) camera centre, metres.
        lens: (fx, fy, cx, cy, width, height, guard_x, guard_y), pixels; the guards are slopes.
        near: Nearest depth that is drawn, metres.

    Returns:
        (v,) int64 rows of ``bounds``, rising.
    """
    fx, fy, cx, cy, width, height, guard_x, guard_y = lens
    across, down, ahead = rotation
    wide = fx * np.hypot(1.0, max(cx, width - cx) / fx + guard_x)
    high = fy * np.hypot(1.0, max(cy, height - cy) / fy + guard_y)
    planes = np.stack(
        [
            fx * across + (cx + MARGIN) * ahead,
            (width - cx + MARGIN) * ahead - fx * across,
            fy * down + (cy + MARGIN) * ahead,
            (height - cy + MARGIN) * ahead - fy * down,
            ahead,
        ]
    )  # (5, 3)
    middle, sizes = bounds[:, :3] - eye, np.abs(planes).T
    most = middle @ planes.T + bounds[:, 3:6] @ sizes
    most += bounds[:, 6:] * np.array([wide, wide, high, high, 0.0])
    most += SLACK * (np.abs(middle) @ sizes)
    return np.flatnonzero((most >= np.array([0.0, 0.0, 0.0, 0.0, near])).all(1))


@kernel(parallel=True, fast=True)
def project(
    blocks,
    visible,
    rows,
    first,
    rotation,
    eye,
    lens,
    limits,
    tile,
    fading,
    threads,
    records,
    boxes,
    counts,
):
    """Project blocks; what shows of ``blocks[visible[b]]`` goes to the front of its records.

    Args:
        blocks: (b, COLUMNS * N), see COLUMNS.
        visible: (v,) blocks to project.
        rows: (b * N,) row of each splat, less ``first``.
        first: See rows.
        rotation: (3, 3) cam_from_world.
        eye: (3,) camera centre, metres.
        lens: (fx, fy, cx, cy, width, height, guard_x, guard_y), pixels; the guards are slopes.
        limits: (near in metres, eps2d in square pixels, log2 of the alpha cut).
        tile: Edge of a tile, pixels.
        fading: Whether splats fade by what eps2d adds to their area.
        threads: Shares of the work.
        records: (v * N,) RECORD, written.
        boxes: (v * N,) BOX, written.
        counts: (v,) splats that show, written.
    """
    for share in prange(threads):
        seen = np.empty(9 * N, np.float32)
        for b in range(share, visible.size, threads):
            block, start = visible[b], b * N
            _look(blocks[block], rotation, eye, lens, limits, seen)
            _reach(blocks[block], limits[2], fading, seen)
            counts[b] = _keep(
                blocks[block],
                rows[block * N : block * N + N],
                first,
                seen,
                lens,
                limits,
                tile,
                start,
                records,
                boxes,
            )


@kernel(fast=True)
def _look(block, rotation, eye, lens, limits, seen):
    """Centre, ellipse and variances of each splat of a block: straight code, for vector units."""
    r00, r01, r02 = rotation[0, 0], rotation[0, 1], rotation[0, 2]
    r10, r11, r12 = rotation[1, 0], rotation[1, 1], rotation[1, 2]
    r20, r21, r22 = rotation[2, 0], rotation[2, 1], rotation[2, 2]
    ex, ey, ez = eye[0], eye[1], eye[2]
    fx, fy, cx, cy, width, height, guard_x, guard_y = lens
    near, eps2d = limits[0], limits[1]
    low_x, high_x = -cx / fx - guard_x, (width - cx) / fx + guard_x
    low_y, high_y = -cy / fy - guard_y, (height - cy) / fy + guard_y
    for i in range(N):
        wx, wy, wz = block[i] - ex, block[N + i] - ey, block[2 * N + i] - ez
        z = r20 * wx + r21 * wy + r22 * wz
        inv_z = f32(1.0) / max(z, near)
        slope_x = (r00 * wx + r01 * wy + r02 * wz) * inv_z
        slope_y = (r10 * wx + r11 * wy + r12 * wz) * inv_z
        # rows of the Jacobian of the projection, in world axes
        px, py = fx * inv_z, fy * inv_z
        tx, ty = min(max(slope_x, low_x), high_x), min(max(slope_y, low_y), high_y)
        ja, jb, jc = px * (r00 - tx * r20), px * (r01 - tx * r21), px * (r02 - tx * r22)
        ka, kb, kc = py * (r10 - ty * r20), py * (r11 - ty * r21), py * (r12 - ty * r22)
        # the splat's three axes in the image, (p, q) each
        p0 = ja * block[3 * N + i] + jb * block[6 * N + i] + jc * block[9 * N + i]
        p1 = ja * block[4 * N + i] + jb * block[7 * N + i] + jc * block[10 * N + i]
        p2 = ja * block[5 * N + i] + jb * block[8 * N + i] + jc * block[11 * N + i]
        q0 = ka * block[3 * N + i] + kb * block[6 * N + i] + kc * block[9 * N + i]
        q1 = ka * block[4 * N + i] + kb * block[7 * N + i] + kc * block[10 * N + i]
        q2 = ka * block[5 * N + i] + kb * block[8 * N + i] + kc * block[11 * N + i]
        var_x, var_y = p0 * p0 + p1 * p1 + p2 * p2, q0 * q0 + q1 * q1 + q2 * q2
        cov = p0 * q0 + p1 * q1 + p2 * q2
        # Lagrange's identity: the determinant as a sum of squares keeps its digits
        c0, c1, c2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
        sharp_det = c0 * c0 + c1 * c1 + c2 * c2
        det = sharp_det + eps2d * (var_x + var_y + eps2d)
        var_x, var_y = var_x + eps2d, var_y + eps2d
        seen[i], seen[N + i], seen[2 * N + i] = fx * slope_x + cx, fy * slope_y + cy, z
        seen[3 * N + i] = HALF_LOG2E * var_y / det
        seen[4 * N + i] = cov / var_y
        seen[5 * N + i] = HALF_LOG2E / var_y
        seen[6 * N + i], seen[7 * N + i], seen[8 * N + i] = var_x, var_y, sharp_det / det


@kernel(fast=True)
def _reach(block, log_cut, fading, seen):
    """Turn variances into half the box outside of which alpha is below the cut.

    And the share of the area that is the splat's own into log2 of its opacity.
    """
    if fading:  # Yu et al. 2024, eq. 9, in the image: what the filter spreads, it thins
        for i in range(N):
            seen[8 * N + i] = block[12 * N + i] + f32(0.5) * math.log2(seen[8 * N + i])
    else:
        for i in range(N):
            seen[8 * N + i] = block[12 * N + i]
    for i in range(N):
        span = TWO_LN2 * max(seen[8 * N + i] - log_cut, f32(0.0))
        seen[6 * N + i] = math.sqrt(span * seen[6 * N + i])
        seen[7 * N + i] = math.sqrt(span * seen[7 * N + i])


@kernel(fast=True)
def _keep(block, rows, first, seen, lens, limits, tile, start, records, boxes):
    """Write the splats that touch the image to ``records[start:]``, in order; return how many."""
    width, height = lens[4], lens[5]
    scale = f32(1.0) / f32(tile)
    kept = 0
    for i in range(N):
        x, y, z = seen[i], seen[N + i], seen[2 * N + i]
        reach_x, reach_y = seen[6 * N + i], seen[7 * N + i]
        inside = (x + reach_x > f32(0.0)) & (x - reach_x < width)
        inside &= (y + reach_y > f32(0.0)) & (y - reach_y < height)
        # every test is false for NaN
        if not (inside & (z > limits[0]) & (z < f32(np.inf)) & (seen[8 * N + i] >= limits[2])):
            continue
        out = records[start + kept]
        out.x, out.y, out.depth = x, y, z
        out.sharp, out.shear, out.fade = seen[3 * N + i], seen[4 * N + i], seen[5 * N + i]
        out.log_opacity = seen[8 * N + i]
        out.red, out.green, out.blue = block[13 * N + i], block[14 * N + i], block[15 * N + i]
        out.reach_x, out.reach_y = reach_x, reach_y
        box = boxes[start + kept]
        box.x0 = np.int32(max(x - reach_x, f32(0.0)) * scale)
        box.y0 = np.int32(max(y - reach_y, f32(0.0)) * scale)
        box.x1 = np.int32(min(x + reach_x, width - f32(1.0)) * scale) + 1
        box.y1 = np.int32(min(y + reach_y, height - f32(1.0)) * scale) + 1
        out.row = rows[i] + first
        kept += 1
    return kept
