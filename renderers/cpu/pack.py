"""Splats as the kernels read them: float32, in blocks of neighbours, each with a bounding box.

A set of splats is packed once and kept for as long as it lives. What ``join`` puts together is
not packed again: it is drawn from the packed forms of its parts, so that a world may grow step by
step at the cost of the step alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from weakref import WeakKeyDictionary

import numba
import numpy as np
import torch
from jaxtyping import Float, Int64
from numba import prange
from torch import Tensor

from renderers.base import ALPHA_CUT
from renderers.cpu.bin import sort
from renderers.cpu.project import COLUMNS, N
from renderers.kernels import RENDER_LOCK, kernel
from renderers.simd import (
    absolute,
    both,
    fma,
    larger,
    load,
    load_rows,
    select,
    smaller,
    spread,
    store,
)
from renderers.splats import Splats, parts_of

f32 = np.float32
u64 = np.uint64  # an index that cannot be negative needs no check
LANES = 8
SCALE_MAX = 1e9
"""In metres. A larger splat looks the same, and its variance would leave float32."""
REACH = math.sqrt(2.0 * math.log(1.0 / ALPHA_CUT))
"""Standard deviations beyond which even an opaque splat is below ALPHA_CUT."""
CELLS = 1 << 10
"""Cells of a Morton code along each axis."""
CONTRACTION = 2.0
"""Half of the cells along an axis lie within this many median deviations of its median."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Splats that were packed together. What no camera can see has a log opacity of -inf."""

    blocks: np.ndarray
    """(b, COLUMNS * N) float32, see project.COLUMNS."""
    rows: np.ndarray
    """(b * N,) int32 row of each in ``splats``; what fills up the last block repeats a row."""
    bounds: np.ndarray
    """(b, 7) float64: centre and half size of the box around the means, and how far from its mean
    a splat can reach, in metres."""
    sh: np.ndarray
    """(n, k, 3) float32 spherical harmonics of ``splats``, unordered; k may be 0."""
    first: int = 0
    """Row of the scene that row 0 of ``splats`` is."""


@dataclass(frozen=True, eq=False)
class PackedScene:
    """All there is to draw."""

    segments: tuple[Segment, ...]
    stamp: tuple[tuple[int, int], ...]
    """State of the splats' memory when they were packed."""


_scenes: WeakKeyDictionary[Splats, PackedScene] = WeakKeyDictionary()


def packed(splats: Splats) -> PackedScene:
    """The packed form of ``splats``, made on first use and kept for as long as they live.

    Rows that no camera can see are left out: NaN or infinite values, a zero quaternion, an
    opacity below ALPHA_CUT. Call it under RENDER_LOCK.
    """
    stamp = splats.stamp
    scene = _scenes.get(splats)
    if scene is None or scene.stamp != stamp:
        scene = _scenes[splats] = PackedScene(_segments(splats), stamp)
    return scene


def _segments(splats: Splats) -> tuple[Segment, ...]:
    parts = parts_of(splats)
    if not parts:
        return (pack(splats, morton_order(splats.means)),) if len(splats) else ()
    segments, first = [], 0
    for part in parts:
        segments += [replace(s, first=s.first + first) for s in packed(part).segments]
        first += len(part)
    return tuple(segments)


def pack(splats: Splats, order: Int64[Tensor, " n"] | None = None) -> Segment:
    """Pack ``splats`` in the given order of rows, or as they come. Call it under RENDER_LOCK."""
    plain = {field.name: _plain(getattr(splats, field.name)) for field in fields(splats)}
    n = len(splats)
    count = -(-n // N)
    rows = np.full(count * N, n - 1, np.int32)
    rows[:n] = np.arange(n) if order is None else order.numpy()
    blocks, bounds = np.empty((count, COLUMNS * N), np.float32), np.empty((count, 7))
    sh = np.empty((n, 0, 3), np.float32) if splats.sh is None else plain["sh"]
    _fill_blocks(
        plain["means"],
        plain["quats"],
        plain["scales"],
        torch.log2(torch.from_numpy(plain["opacities"])).numpy(),
        plain["colors"],
        sh,
        rows,
        order is None,
        N,
        (math.log2(ALPHA_CUT), SCALE_MAX, REACH),
        blocks,
        bounds,
    )
    return Segment(blocks, rows, bounds, sh)


def _plain(values: Tensor | None) -> np.ndarray:
    """Values in float32, where one too large counts as infinite."""
    if values is None:
        return np.empty(0, np.float32)
    return values.detach().to("cpu", torch.float32).contiguous().numpy()


def morton_order(means: Float[Tensor, "n 3"]) -> Int64[Tensor, " n"]:
    """Rows along a Z-order curve through space (Morton 1966): neighbours in it are neighbours.

    The curve is finest around the median, so that a far sky does not coarsen what is near.
    """
    points = means.detach().to("cpu", torch.float32).nan_to_num(0.0, 0.0, 0.0)
    if len(points) == 0:
        return torch.empty(0, dtype=torch.int64)
    sample = points[:: max(1, len(points) // 10_000)]
    middle = sample.median(0).values
    spread = (sample - middle).abs().median(0).values.max().clamp_min(1e-6) * CONTRACTION
    codes, slots = np.empty(len(points), np.uint32), np.arange(len(points), dtype=np.int32)
    with RENDER_LOCK:
        _morton_codes(points.contiguous().numpy(), middle.numpy(), float(spread), CELLS, codes)
        _, order = sort(codes, slots, numba.get_num_threads())
    return torch.from_numpy(order.astype(np.int64))


@kernel(parallel=True)
def _morton_codes(points, middle, spread, cells, codes):
    for i in prange(points.shape[0]):
        code = np.uint32(0)
        for axis in range(3):
            x = (points[i, axis] - middle[axis]) / spread
            x = 0.5 + 0.5 * x / (1.0 + abs(x))  # all of space in [0, 1]
            cell = np.uint32(min(int(x * cells), cells - 1))
            cell = (cell | (cell << np.uint32(16))) & np.uint32(0x030000FF)
            cell = (cell | (cell << np.uint32(8))) & np.uint32(0x0300F00F)
            cell = (cell | (cell << np.uint32(4))) & np.uint32(0x030C30C3)
            cell = (cell | (cell << np.uint32(2))) & np.uint32(0x09249249)
            code |= cell << np.uint32(axis)
        codes[i] = code


@kernel(parallel=True, fast=True)
def _fill_blocks(
    means, quats, scales, log_opacities, colors, sh, rows, rising, size, limits, blocks, bounds
):
    """Write blocks, (b, 16 * size), and bounds, (b, 7); see project.COLUMNS and Segment.

    ``rising``: rows are 0, 1, 2 ... as far as there are splats.
    """
    n = means.shape[0]
    log_cut, scale_max, reach = limits
    for b in prange(blocks.shape[0]):
        block, box = blocks[b], bounds[b]
        whole = rising and (b + 1) * size <= n
        for i in range(0, size if whole else 0, LANES):
            first = u64(3 * (b * size + i))
            centres, axes = load_rows(means, first), load_rows(scales, first)
            paints = load_rows(colors, first)
            for axis in range(3):
                store(block, u64(axis * size + i), centres[axis])
                store(block, u64((7 + axis) * size + i), axes[axis])
                store(block, u64((13 + axis) * size + i), paints[axis])
        for i in range(size):
            row = rows[b * size + i]
            if not whole:
                for axis in range(3):
                    block[u64(axis * size + i)] = means[row, axis]
                    block[u64((7 + axis) * size + i)] = scales[row, axis]
                    block[u64((13 + axis) * size + i)] = colors[row, axis]
            for axis in range(4):
                block[u64((3 + axis) * size + i)] = quats[row, axis]
            spare = b * size + i >= n or not _finite_harmonics(sh, row)
            block[u64(12 * size + i)] = f32(-np.inf) if spare else log_opacities[row]
        spans = np.empty(7 * LANES, np.float32)
        _shape_block(block, size, f32(log_cut), f32(scale_max), spans)
        largest = 0.0
        for axis in range(3):
            low, high = np.inf, -np.inf
            for lane in range(LANES):
                low = min(low, np.float64(spans[2 * axis * LANES + lane]))
                high = max(high, np.float64(spans[(2 * axis + 1) * LANES + lane]))
            box[axis], box[3 + axis] = 0.5 * (low + high), 0.5 * (high - low)
            if low > high:  # nothing to see: nowhere
                box[axis], box[3 + axis] = 0.0, -1e30
        for lane in range(LANES):
            largest = max(largest, np.float64(spans[6 * LANES + lane]))
        box[6] = reach * largest


@kernel(fast=True)
def _finite_harmonics(sh, row):
    """Whether all coefficients are: a sum in float64 is finite where its terms are."""
    total = 0.0
    for k in range(sh.shape[1]):
        for channel in range(3):
            total += np.float64(sh[row, k, channel])
    return np.isfinite(total)


@kernel(fast=True)
def _shape_block(block, size, log_cut, scale_max, spans):
    """Replace quaternions and scales, columns 3 to 9, by axes, and empty what cannot be drawn.

    What :attr:`Splats.drawable` leaves out becomes 0, with a log opacity of -inf. ``spans`` gets
    the least and the greatest x, y and z and the largest scale, lane by lane.
    """
    zero, one, two, none = f32(0.0), f32(1.0), f32(2.0), f32(np.inf)
    low_x = low_y = low_z = spread(none)
    high_x = high_y = high_z = spread(-none)
    largest = spread(zero)
    for start in range(0, size, LANES):
        i, pitch = u64(start), u64(size)
        x, y, z = load(block, i), load(block, i + pitch), load(block, i + u64(2) * pitch)
        qw, qx = load(block, i + u64(3) * pitch), load(block, i + u64(4) * pitch)
        qy, qz = load(block, i + u64(5) * pitch), load(block, i + u64(6) * pitch)
        a, c = load(block, i + u64(7) * pitch), load(block, i + u64(9) * pitch)
        b = load(block, i + u64(8) * pitch)
        red, green = load(block, i + u64(13) * pitch), load(block, i + u64(14) * pitch)
        blue, log_opacity = load(block, i + u64(15) * pitch), load(block, i + u64(12) * pitch)
        # 0 times a number is 0, unless it is infinite or NaN
        nothing = zero * x + zero * y + zero * z + zero * a + zero * b + zero * c
        nothing += zero * red + zero * green + zero * blue
        nothing += zero * qw + zero * qx + zero * qy + zero * qz
        longest = larger(larger(absolute(qw), absolute(qx)), larger(absolute(qy), absolute(qz)))
        drawn = both(both(nothing >= zero, longest > zero), log_opacity >= log_cut)
        drawn = both(drawn, log_opacity < none)
        longest = select(drawn, longest, one)
        qw, qx, qy, qz = qw / longest, qx / longest, qy / longest, qz / longest  # squares overflow
        double = two / (fma(qw, qw, qx * qx) + fma(qy, qy, qz * qz))
        a = larger(smaller(a, scale_max), -scale_max)
        b = larger(smaller(b, scale_max), -scale_max)
        c = larger(smaller(c, scale_max), -scale_max)
        axes = (
            a * (one - double * fma(qy, qy, qz * qz)),
            b * double * (qx * qy - qw * qz),
            c * double * fma(qx, qz, qw * qy),
            a * double * fma(qx, qy, qw * qz),
            b * (one - double * fma(qx, qx, qz * qz)),
            c * double * (qy * qz - qw * qx),
            a * double * (qx * qz - qw * qy),
            b * double * fma(qy, qz, qw * qx),
            c * (one - double * fma(qx, qx, qy * qy)),
        )
        for column in range(9):
            store(block, i + u64(3 + column) * pitch, select(drawn, axes[column], zero))
        kept = x, y, z
        for column in range(3):
            store(block, i + u64(column) * pitch, select(drawn, kept[column], zero))
        seen = red, green, blue
        for column in range(3):
            store(block, i + u64(13 + column) * pitch, select(drawn, seen[column], zero))
        store(block, i + u64(12) * pitch, select(drawn, log_opacity, -none))
        low_x, high_x = (
            smaller(low_x, select(drawn, x, none)),
            larger(high_x, select(drawn, x, -none)),
        )
        low_y, high_y = (
            smaller(low_y, select(drawn, y, none)),
            larger(high_y, select(drawn, y, -none)),
        )
        low_z, high_z = (
            smaller(low_z, select(drawn, z, none)),
            larger(high_z, select(drawn, z, -none)),
        )
        scale = larger(larger(absolute(a), absolute(b)), absolute(c))
        largest = larger(largest, select(drawn, scale, zero))
    found = low_x, high_x, low_y, high_y, low_z, high_z, largest
    for line in range(7):
        store(spans, u64(line * LANES), found[line])
