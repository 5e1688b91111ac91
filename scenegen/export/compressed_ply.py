"""Splats as PlayCanvas' ``compressed.ply``: a quarter of a ``.ply``, for SuperSplat and browsers.

256 splats that lie together form a chunk, which says between which values theirs lie. Of each
splat, four words of 32 bits say where between: position and logarithms of scales (11, 10 and 11
bits), rotation (which component is largest, 10 bits for each other), colour and opacity (8 bits
each). Harmonics are bytes from -4 to 4. Axes are as in memory.

What it cannot hold: the order of splats; positions finer than a 1000th of a chunk, 8-bit opacity
and colour.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Float, UInt32
from torch import Tensor

from renderers.splats import SH_SIZES, Splats
from scenegen import __version__
from scenegen.export.atomic import atomic_write
from scenegen.export.ply_header import Element
from scenegen.export.rows import Rows, bad_splats, rows_of, splats_from

logger = logging.getLogger("scenegen")

CHUNK = 256
"""Splats of a chunk. Divides ROWS, so that no chunk is split between two blocks."""
LOG_SCALE_MAX = 20.0
"""Logarithms of scales are clipped to this and to minus this."""
GRID_BITS = 21
"""Bits of each coordinate by which splats are put in order: all that fit into 64."""

_AXES = (("x", "y", "z"), ("scale_x", "scale_y", "scale_z"), ("r", "g", "b"))
_LIMITS = [f"{end}_{axis}" for axes in _AXES for end in ("min", "max") for axis in axes]
_PACKED = ["packed_position", "packed_rotation", "packed_scale", "packed_color"]
_FIX = "export it again from SuperSplat or splat-transform"


def write_compressed_ply(path: str | Path, splats: Splats) -> None:
    """Write splats for SuperSplat and PlayCanvas.

    Args:
        path: The file. It appears whole or not at all.
        splats: At least one; values as for :func:`write_ply`. They are put in spatial order.

    Raises:
        SceneError: A value is out of range, or the file cannot be written.
    """
    path, count = Path(path), len(splats)
    k = 0 if splats.sh is None else splats.sh.shape[1]
    limits = np.empty(((count + CHUNK - 1) // CHUNK, 18), "<f4")
    packed, harmonics = np.empty((count, 4), "<u4"), np.empty((count, 3 * k), np.uint8)
    for rows in rows_of(splats[spatial_order(splats.means)] if count else splats, path.name):
        first, place = rows.start // CHUNK, rows.place
        chunks = (len(rows.means) + CHUNK - 1) // CHUNK
        limits[first : first + chunks], packed[place] = _pack(rows)
        if rows.sh is not None:
            flat = rows.sh.transpose(1, 2).flatten(1)
            harmonics[place] = (flat * 32.0 + 128.0).floor().clamp(0, 255).numpy()
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        file.write(_header_text(len(limits), count, 3 * k))
        for table in (limits, packed, harmonics):
            file.write(table.tobytes())
    logger.info(
        "%s: %d splats in spatial order; positions and scales to 10 bits of a chunk, 8 bits for "
        "colour and opacity; no cameras, no memory, no steps", path, count,
    )  # fmt: skip


def read_chunks(file: BinaryIO, elements: list[Element], path: Path) -> Splats:
    """The splats of a compressed.ply whose header is read.

    Raises:
        SceneError: Elements are missing, of another size or type, or the values are not splats.
    """
    by_name = {element.name: element for element in elements}
    chunk, vertex, extra = (by_name.get(name) for name in ("chunk", "vertex", "sh"))
    if chunk is None or vertex is None:
        raise bad_splats(path, "it has no element 'vertex'", _FIX)
    if chunk.count != (vertex.count + CHUNK - 1) // CHUNK or (
        extra is not None and extra.count != vertex.count
    ):
        raise bad_splats(path, "its chunks do not fit its number of splats", _FIX)
    colored = "min_r" in (chunk.row.names or ())  # before 2024 chunks had no colours
    limits = _columns(file, chunk, _LIMITS if colored else _LIMITS[:12], "f", path)
    words = _columns(file, vertex, _PACKED, "u", path).astype(np.uint32)
    if not np.isfinite(limits).all():
        raise bad_splats(path, "a limit of a chunk is NaN or infinite", _FIX)
    if not colored:
        limits = np.concatenate([limits, np.repeat([[0, 1]], 3, 1).repeat(len(limits), 0)], 1)
    position, scale, color = (
        _between(limits[:, 6 * i : 6 * i + 6], shares)
        for i, shares in enumerate((_shares(words[:, 0]), _shares(words[:, 2]), _rgb(words[:, 3])))
    )
    fields = {
        "means": position,
        "quats": _quats(words[:, 1]),
        "scales": scale.exp(),
        "opacities": torch.from_numpy((words[:, 3] & 255) / 255.0),
        "colors": color,
        "sh": None if extra is None else _harmonics(file, extra, path),
    }
    return splats_from(path, fields, _FIX)


def spatial_order(points: Float[Tensor, "n 3"]) -> Tensor:
    """Rows along a Z-order curve (Morton 1966), so that neighbours in the file are neighbours."""
    points = points.detach().cpu().double().nan_to_num(0.0)
    low, high = points.amin(0), points.amax(0)
    cells = ((points - low) / (high - low).clamp_min(1e-12) * (2**GRID_BITS - 1)).long()
    for shift, mask in (
        (32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3), (2, 0x1249249249249249),
    ):  # fmt: skip
        cells = (cells | (cells << shift)) & mask  # two empty bits after each bit
    return (cells[:, 0] | (cells[:, 1] << 1) | (cells[:, 2] << 2)).argsort(stable=True)


def _header_text(chunks: int, count: int, harmonics: int) -> bytes:
    lines = ["ply", "format binary_little_endian 1.0", f"comment scenegen {__version__}"]
    lines += [f"element chunk {chunks}", *(f"property float {name}" for name in _LIMITS)]
    lines += [f"element vertex {count}", *(f"property uint {name}" for name in _PACKED)]
    if harmonics:
        lines += [f"element sh {count}"]
        lines += [f"property uchar f_rest_{i}" for i in range(harmonics)]
    return "".join(f"{line}\n" for line in [*lines, "end_header"]).encode("ascii")


def _pack(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Limits of each chunk (c, 18) and words of each splat (n, 4)."""
    logs = rows.scales.clamp_min(1e-9).log().clamp(-LOG_SCALE_MAX, LOG_SCALE_MAX)
    bits = ((11, 10, 11), (11, 10, 11), (8, 8, 8))
    limits, steps = zip(
        *(
            _steps(values.numpy(), sizes)
            for values, sizes in zip((rows.means, logs, rows.colors), bits, strict=True)
        ),
        strict=True,
    )
    position, scale, color = steps
    opacity = (rows.opacities * 255.0).round().numpy().astype(np.uint32)
    words = [
        (position[:, 0] << 21) | (position[:, 1] << 11) | position[:, 2],
        _packed_quats(rows.quats.numpy()),
        (scale[:, 0] << 21) | (scale[:, 1] << 11) | scale[:, 2],
        (color[:, 0] << 24) | (color[:, 1] << 16) | (color[:, 2] << 8) | opacity,
    ]
    return np.concatenate(limits, 1), np.stack(words, 1)


def _steps(values: np.ndarray, bits: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest values of each chunk (c, 6), and where between them values lie."""
    starts = np.arange(0, len(values), CHUNK)
    low = np.minimum.reduceat(values, starts).astype(np.float32)
    high = np.maximum.reduceat(values, starts).astype(np.float32)
    chunk = np.arange(len(values)) // CHUNK
    span = np.maximum(high.astype(np.float64) - low, 1e-12)
    share = ((values - low[chunk]) / span[chunk]).clip(0.0, 1.0)
    top = np.array([2**b - 1 for b in bits])
    return np.concatenate([low, high], 1), np.rint(share * top).astype(np.uint32)


def _packed_quats(quats: np.ndarray) -> UInt32[np.ndarray, " n"]:
    largest = np.abs(quats).argmax(1)
    quats = quats * np.where(np.take_along_axis(quats, largest[:, None], 1) < 0, -1.0, 1.0)
    steps = np.rint((quats * 0.5**0.5 + 0.5) * 1023).clip(0, 1023).astype(np.uint32)
    packed = largest.astype(np.uint32)
    for axis in range(4):
        packed = np.where(largest == axis, packed, (packed << 10) | steps[:, axis])
    return packed


def _quats(words: UInt32[np.ndarray, " n"]) -> Tensor:
    largest = (words >> 30).astype(np.int64)
    quats, shift = np.zeros((len(words), 4)), np.full(len(words), 20, np.uint32)
    for axis in range(4):
        other = largest != axis
        value = (((words >> shift) & 1023) / 1023.0 - 0.5) * 2**0.5
        quats[other, axis] = value[other]
        shift = np.where(other, shift - np.minimum(shift, 10), shift).astype(np.uint32)
    root = np.sqrt(np.maximum(0.0, 1.0 - (quats**2).sum(1)))
    np.put_along_axis(quats, largest[:, None], root[:, None], 1)
    return torch.from_numpy(quats)


def _shares(words: UInt32[np.ndarray, " n"]) -> np.ndarray:
    """Where between their limits three values lie, 0 to 1: 11, 10 and 11 bits."""
    parts = (words >> 21) / 2047.0, ((words >> 11) & 1023) / 1023.0, (words & 2047) / 2047.0
    return np.stack(parts, 1)


def _rgb(words: UInt32[np.ndarray, " n"]) -> np.ndarray:
    return np.stack([(words >> shift) & 255 for shift in (24, 16, 8)], 1) / 255.0


def _between(limits: np.ndarray, shares: np.ndarray) -> Tensor:
    chunk = np.arange(len(shares)) // CHUNK
    low, high = limits[chunk, :3].astype(np.float64), limits[chunk, 3:].astype(np.float64)
    return torch.from_numpy(low * (1.0 - shares) + high * shares)


def _columns(
    file: BinaryIO, element: Element, names: list[str], kind: str, path: Path
) -> np.ndarray:
    """Columns of an element, in the order of ``names``, once they are known to be right."""
    for name in names:
        if name not in (element.row.names or ()) or element.row[name].kind != kind:
            raise bad_splats(path, f"it has no {name} of the right type in '{element.name}'", _FIX)
    file.seek(element.start)
    data = file.read(element.count * element.row.itemsize)
    if len(data) < element.count * element.row.itemsize:
        raise bad_splats(path, "it became shorter while it was read", "read it again")
    table = np.frombuffer(data, element.row)
    return np.stack([table[name] for name in names], 1)


def _harmonics(file: BinaryIO, extra: Element, path: Path) -> Tensor:
    names = [f"f_rest_{i}" for i in range(len(extra.row.names or ()))]
    if len(names) not in [3 * k for k in SH_SIZES if k]:
        raise bad_splats(path, f"it has {len(names)} harmonics; there are 9, 24 or 45", _FIX)
    steps = torch.from_numpy(_columns(file, extra, names, "u", path)).double()
    shares = ((steps + 0.5) / 256.0).masked_fill(steps == 0, 0.0).masked_fill(steps == 255, 1.0)
    return ((shares - 0.5) * 8.0).reshape(len(steps), 3, -1).transpose(1, 2)
