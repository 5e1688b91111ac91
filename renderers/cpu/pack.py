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
from renderers.cpu.bin import depth_order
from renderers.cpu.project import COLUMNS, N
from renderers.kernels import RENDER_LOCK, kernel
from renderers.splats import Splats, parts_of

SCALE_MAX = 1e9
"""In metres. A larger splat looks the same, and its variance would leave float32."""
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
    stamp = _stamp(splats)
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


def _stamp(splats: Splats) -> tuple[tuple[int, int], ...]:
    """Changes when an optimiser writes into the tensors of otherwise immutable splats."""
    values = (getattr(splats, field.name) for field in fields(splats))
    return tuple(
        (value.data_ptr(), 0 if value.is_inference() else value._version)
        for value in values
        if value is not None
    )


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
        plain["opacities"],
        plain["colors"],
        sh,
        rows,
        N,
        (ALPHA_CUT, SCALE_MAX, math.log(ALPHA_CUT)),
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
        _, order = depth_order(codes, slots, numba.get_num_threads())
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
def _fill_blocks(means, quats, scales, opacities, colors, sh, rows, size, limits, blocks, bounds):
    """Write blocks, (b, 16 * size), and bounds, (b, 7); see project.COLUMNS and Segment."""
    n = means.shape[0]
    alpha_cut, scale_max, log_cut = limits
    for b in prange(blocks.shape[0]):
        block, box = blocks[b], bounds[b]
        low, high, reach = np.full(3, np.inf), np.full(3, -np.inf), 0.0
        for i in range(size):
            row, opacity = rows[b * size + i], np.float64(opacities[rows[b * size + i]])
            for column in range(16):
                block[column * size + i] = 0.0
            block[12 * size + i] = -np.inf
            seen = b * size + i < n and opacity >= alpha_cut and np.isfinite(opacity)
            if not (seen and _drawable(means, quats, scales, colors, sh, row)):
                continue
            _axes(quats[row], scales[row], scale_max, i, size, block)
            block[12 * size + i] = math.log2(opacity)
            largest = 0.0
            for axis in range(3):
                block[axis * size + i] = means[row, axis]
                block[(13 + axis) * size + i] = colors[row, axis]
                low[axis] = min(low[axis], np.float64(means[row, axis]))
                high[axis] = max(high[axis], np.float64(means[row, axis]))
                largest = max(largest, min(abs(np.float64(scales[row, axis])), scale_max))
            reach = max(reach, largest * math.sqrt(2.0 * (math.log(opacity) - log_cut)))
        for axis in range(3):
            some = low[axis] <= high[axis]
            box[axis] = 0.5 * (low[axis] + high[axis]) if some else 0.0
            box[3 + axis] = 0.5 * (high[axis] - low[axis]) if some else -1e30  # nowhere
        box[6] = reach


@kernel()
def _drawable(means, quats, scales, colors, sh, row):
    """As :attr:`Splats.drawable`, without the opacity."""
    fine, turned = True, False
    for axis in range(3):
        fine &= np.isfinite(means[row, axis])
        fine &= np.isfinite(scales[row, axis])
        fine &= np.isfinite(colors[row, axis])
        for k in range(sh.shape[1]):
            fine &= np.isfinite(sh[row, k, axis])
    for axis in range(4):
        fine &= np.isfinite(quats[row, axis])
        turned |= quats[row, axis] != 0.0
    return fine and turned


@kernel()
def _axes(quat, scale, scale_max, i, size, block):
    """Rotation matrix times scale, row by row, to columns 3 to 11 of splat ``i``."""
    largest = max(max(abs(quat[0]), abs(quat[1])), max(abs(quat[2]), abs(quat[3])))
    w, x = np.float64(quat[0]) / largest, np.float64(quat[1]) / largest
    y, z = np.float64(quat[2]) / largest, np.float64(quat[3]) / largest
    two = 2.0 / (w * w + x * x + y * y + z * z)
    for axis in range(3):
        s = min(max(np.float64(scale[axis]), -scale_max), scale_max)
        if axis == 0:
            a, b, c = 1.0 - two * (y * y + z * z), two * (x * y + w * z), two * (x * z - w * y)
        elif axis == 1:
            a, b, c = two * (x * y - w * z), 1.0 - two * (x * x + z * z), two * (y * z + w * x)
        else:
            a, b, c = two * (x * z + w * y), two * (y * z - w * x), 1.0 - two * (x * x + y * y)
        block[(3 + axis) * size + i] = a * s
        block[(6 + axis) * size + i] = b * s
        block[(9 + axis) * size + i] = c * s
