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
from renderers.splats import Splats, parts_of

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


@kernel(parallel=True)
def _fill_blocks(
    means, quats, scales, log_opacities, colors, sh, rows, size, limits, blocks, bounds
):
    """Write blocks, (b, 16 * size), and bounds, (b, 7); see project.COLUMNS and Segment."""
    n = means.shape[0]
    log_cut, scale_max, reach = limits
    for b in prange(blocks.shape[0]):
        block, box = blocks[b], bounds[b]
        low_x, low_y, low_z = np.inf, np.inf, np.inf
        high_x, high_y, high_z = -np.inf, -np.inf, -np.inf
        largest = 0.0
        for i in range(size):
            row = rows[b * size + i]
            seen = b * size + i < n and log_cut <= log_opacities[row] < np.inf
            if not (seen and _drawable(means, quats, scales, colors, sh, row)):
                for column in range(16):
                    block[column * size + i] = 0.0
                block[12 * size + i] = -np.inf
                continue
            x, y, z = means[row, 0], means[row, 1], means[row, 2]
            block[i], block[size + i], block[2 * size + i] = x, y, z
            low_x, low_y, low_z = min(low_x, x), min(low_y, y), min(low_z, z)
            high_x, high_y, high_z = max(high_x, x), max(high_y, y), max(high_z, z)
            largest = max(largest, _axes(quats, scales, row, scale_max, i, size, block))
            block[12 * size + i] = log_opacities[row]
            for channel in range(3):
                block[(13 + channel) * size + i] = colors[row, channel]
        if low_x > high_x:  # nothing to see: nowhere
            box[:3], box[3:6] = 0.0, -1e30
        else:
            box[0], box[3] = 0.5 * (low_x + high_x), 0.5 * (high_x - low_x)
            box[1], box[4] = 0.5 * (low_y + high_y), 0.5 * (high_y - low_y)
            box[2], box[5] = 0.5 * (low_z + high_z), 0.5 * (high_z - low_z)
        box[6] = reach * largest


@kernel()
def _drawable(means, quats, scales, colors, sh, row):
    """As :attr:`Splats.drawable`, without the opacity: a sum is finite where its terms are."""
    total, turned = 0.0, False
    for axis in range(3):
        total += np.float64(means[row, axis])
        total += np.float64(scales[row, axis])
        total += np.float64(colors[row, axis])
        for k in range(sh.shape[1]):
            total += np.float64(sh[row, k, axis])
    for axis in range(4):
        total += np.float64(quats[row, axis])
        turned |= quats[row, axis] != 0.0
    return turned and np.isfinite(total)


@kernel()
def _axes(quats, scales, row, scale_max, i, size, block):
    """Rotation matrix times scale, row by row, to columns 3 to 11; returns the largest scale."""
    w, x = np.float64(quats[row, 0]), np.float64(quats[row, 1])
    y, z = np.float64(quats[row, 2]), np.float64(quats[row, 3])
    two = 2.0 / (w * w + x * x + y * y + z * z)  # float32 squared stays within float64
    a = min(max(np.float64(scales[row, 0]), -scale_max), scale_max)
    b = min(max(np.float64(scales[row, 1]), -scale_max), scale_max)
    c = min(max(np.float64(scales[row, 2]), -scale_max), scale_max)
    block[3 * size + i] = a * (1.0 - two * (y * y + z * z))
    block[4 * size + i] = b * two * (x * y - w * z)
    block[5 * size + i] = c * two * (x * z + w * y)
    block[6 * size + i] = a * two * (x * y + w * z)
    block[7 * size + i] = b * (1.0 - two * (x * x + z * z))
    block[8 * size + i] = c * two * (y * z - w * x)
    block[9 * size + i] = a * two * (x * z - w * y)
    block[10 * size + i] = b * two * (y * z + w * x)
    block[11 * size + i] = c * (1.0 - two * (x * x + y * y))
    return max(max(abs(a), abs(b)), abs(c))
