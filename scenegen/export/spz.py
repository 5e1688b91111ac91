"""Splats as ``.spz`` version 3, Niantic's packed format: about an eighth of a ``.ply``.

A gzip stream of a header of 16 bytes and then, for all splats: positions (24-bit fixed point),
opacities, colours, logarithms of scales, rotations (the three smaller components, 10 bits each)
and harmonics, in bytes. Axes are OpenGL's: x right, y up, z backwards.

Version 4 packs the same with zstd; programs of today do not read it yet (Spark 2.2). Version 2
differs in its rotations. Both older ones that hold fixed point, 2 and 3, are read.

What it cannot hold: positions finer than 1 / 2^bits m, scales to better than 3 percent and outside
of e^-10 to e^5.9 m, colours further than 0.44 outside of 0 to 1, harmonics outside of -1 to 1.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from renderers.errors import SceneError
from renderers.sh import SH_C0
from renderers.splats import SH_SIZES, Splats
from scenegen.export.atomic import atomic_write, cannot_read
from scenegen.export.inflating import BLOCK, Inflated
from scenegen.export.placement import Y_UP, Placement
from scenegen.export.progress import progress
from scenegen.export.rows import (
    SPLATS_LIMIT,
    Rows,
    bad_splats,
    quantised,
    rows_of,
    sh_size,
    splats_from,
)

logger = logging.getLogger("scenegen")

MAGIC = 0x5053474E
"""The letters NGSP."""
HEADER = struct.Struct("<IIIBBBB")
"""Magic, version, number of splats, degree of harmonics, fractional bits, flags, reserved."""
FRACTION_BITS = 14
"""Bits after the point of a position in metres: steps of 0.06 mm, up to 512 m away. Fewer where
the scene is larger; programs read the number from the header."""
COLOR_RANGE = 0.15
"""The constant harmonic is stored as 0.5 + 0.15 times itself."""
_CONVERT = "convert it: `splat-transform in.spz out.ply`"
_COMPONENT = 1 / math.sqrt(2)
"""No component of a unit quaternion but the largest exceeds this."""


def write_spz(path: str | Path, splats: Splats) -> None:
    """Write splats for phones, browsers and game engines.

    Args:
        path: The file. It appears whole or not at all.
        splats: At least one; values as for :func:`write_ply`.

    Raises:
        SceneError: A value is out of range, a splat is further away than 4000 km, or the file
            cannot be written.
    """
    path = Path(path)
    degree = 0 if splats.sh is None else SH_SIZES[splats.sh.shape[1]]
    bits = _fraction_bits(splats)
    count, k = len(splats), sh_size(degree)
    widths = (9, 1, 3, 3, 4, 3 * k)
    sections = [np.empty((count, width), np.uint8) for width in widths]
    for rows in rows_of(Placement(Y_UP).splats(splats), path.name):
        for section, packed in zip(sections, _packed(rows, bits), strict=True):
            section[rows.place] = packed
    head = HEADER.pack(MAGIC, 3, count, degree, bits, 0, 0)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        packer = zlib.compressobj(6, wbits=31)  # no time and no name in it: same splats, same bytes
        file.write(packer.compress(head))
        for section in sections:
            data = section.reshape(-1).data
            blocks = range(0, len(data), BLOCK)
            for at in progress(blocks, "packing"):
                file.write(packer.compress(data[at : at + BLOCK]))
        file.write(packer.flush())
    logger.info(
        "%s: %d splats; positions to %.2g mm, scales to 3 %%, 8 bits for the rest; no cameras, no "
        "memory, no steps", path, count, 500.0 / 2**bits,
    )  # fmt: skip


def read_spz(path: str | Path) -> Splats:
    """Read splats, ours or another program's, of version 2 or 3.

    Args:
        path: The file, of at most SPLATS_LIMIT splats.

    Returns:
        At least one splat, float32, with unit quaternions, in our axes.

    Raises:
        SceneError: There is no such file, it is no ``.spz`` of these versions, it is damaged or
            cut short. Memory grows only as its content really comes.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start == struct.pack("<I", MAGIC):
                raise bad_splats(path, "it is of version 4; versions 2 and 3 are read", _CONVERT)
            if start[:2] != b"\x1f\x8b":
                raise bad_splats(path, "it is not an SPZ file", "give a .spz")
            file.seek(0)
            content, size = Inflated(file, path), os.fstat(file.fileno()).st_size
            count, k, bits, version = _header(content.take(HEADER.size), size, path)
            turn = 4 if version == 3 else 3
            sections = [
                torch.frombuffer(bytearray(content.take(count * width)), dtype=torch.uint8)
                .reshape(count, width)
                for width in (9, 1, 3, 3, turn)
            ]  # fmt: skip
            rest = content.take(count * 3 * k)
    except OSError as error:
        raise cannot_read(path, error) from error
    position, alpha, color, scale, rotation = sections
    sh = None
    if k:
        sh = torch.frombuffer(bytearray(rest), dtype=torch.uint8).reshape(count, k, 3)
        sh = sh.float().sub_(128.0).div_(128.0)
    fields = {
        "means": _positions(position) / 2.0**bits,
        "quats": _quats(rotation) if version == 3 else _older_quats(rotation),
        "scales": torch.exp(scale.float() / 16.0 - 10.0),
        "opacities": alpha[:, 0].float() / 255.0,
        "colors": (color.float() / 255.0 - 0.5) * (SH_C0 / COLOR_RANGE) + 0.5,
        "sh": sh,
    }
    return Placement(Y_UP).splats(splats_from(path, fields, _CONVERT))


def _fraction_bits(splats: Splats) -> int:
    far = splats.means.abs().max().item() if len(splats) else 0.0
    for bits in range(FRACTION_BITS, 0, -1):
        if not far * 2**bits >= (1 << 23) - 1:  # NaN passes here and is refused with its row
            return bits
    raise SceneError(
        "these splats are too far away for .spz",
        why=f"one is {far:.3g} m from the origin, and 24-bit positions end at 4.2e6 m",
        fix="crop the scene, scale it down, or write .ply",
    )


def _packed(rows: Rows, bits: int) -> list[np.ndarray]:
    """The bytes of a block of splats, one array (n, width) per section."""
    fixed = (rows.means * 2**bits).round().to(torch.int32).numpy().astype("<i4")
    position = fixed.view(np.uint8).reshape(-1, 3, 4)[:, :, :3].reshape(-1, 9)
    harmonics = (rows.colors - 0.5) / SH_C0
    scales = rows.scales.clamp_min(1e-9).log()
    sections = [
        position,
        quantised(rows.opacities, 0.0, 1.0)[:, None],
        quantised(harmonics, -0.5 / COLOR_RANGE, 0.5 / COLOR_RANGE),
        quantised(scales, -10.0, 255.0 / 16.0 - 10.0),
        _packed_quats(rows.quats),
    ]
    sh = rows.means.new_zeros(len(position), 0) if rows.sh is None else rows.sh.flatten(1)
    return [*sections, quantised(sh, -1.0, 127.0 / 128.0)]


def _packed_quats(quats: Tensor) -> np.ndarray:
    """Smallest three: 2 bits for which of x y z w is largest, then sign and 9 bits for each."""
    xyzw = quats.roll(-1, 1).numpy()
    largest = np.abs(xyzw).argmax(1)
    xyzw = xyzw * np.where(np.take_along_axis(xyzw, largest[:, None], 1) < 0, -1.0, 1.0)
    packed = largest.astype(np.uint32)
    steps = np.rint(np.abs(xyzw) * (511 / _COMPONENT)).clip(0, 511).astype(np.uint32)
    signed = steps | np.where(xyzw < 0, np.uint32(512), np.uint32(0))
    for axis in range(4):
        packed = np.where(largest == axis, packed, (packed << 10) | signed[:, axis])
    return packed.astype("<u4").view(np.uint8).reshape(-1, 4)


def _header(data: bytes, file_size: int, path: Path) -> tuple[int, int, int, int]:
    """Number of splats, harmonics of each, bits after the point, version."""
    magic, version, count, degree, bits, _flags, _ = HEADER.unpack(data)
    if magic != MAGIC:
        raise bad_splats(path, "it is a gzip file, but holds no splats", "give a .spz")
    if version not in (2, 3):
        raise bad_splats(path, f"it is of version {version}; versions 2 and 3 are read", _CONVERT)
    if count == 0:
        raise bad_splats(path, "it holds no splats", "give a file that is not empty")
    # Deflate packs at most 1032 bytes into one.
    if count > SPLATS_LIMIT or 19 * count > 1032 * file_size:
        why = f"it promises {count} splats in {file_size} bytes; {SPLATS_LIMIT} are read at most"
        raise bad_splats(path, why, "download it again, or split it")
    if degree > 3 or not 1 <= bits <= 24:
        why = f"harmonics of degree {degree} and positions with {bits} fractional bits"
        raise bad_splats(path, f"{why} do not exist")
    return count, sh_size(degree), bits, version


def _positions(data: Tensor) -> Tensor:
    """24-bit signed integers, little endian: (n, 9) bytes to (n, 3)."""
    low, middle, high = data.reshape(-1, 3, 3).int().unbind(-1)
    value = low | (middle << 8) | (high << 16)
    return torch.where(value >= 1 << 23, value - (1 << 24), value).float()


def _quats(data: Tensor) -> Tensor:
    packed = data.numpy().view("<u4")[:, 0]
    largest, rest = packed >> 30, packed
    xyzw = np.zeros((len(packed), 4))
    for axis in range(3, -1, -1):
        other = largest != axis
        value = (rest & 511) * (_COMPONENT / 511) * np.where(rest & 512, -1.0, 1.0)
        xyzw[other, axis] = value[other]
        rest = np.where(other, rest >> 10, rest)
    root = np.sqrt(np.maximum(0.0, 1.0 - (xyzw**2).sum(1)))
    np.put_along_axis(xyzw, largest[:, None].astype(np.int64), root[:, None], 1)
    return torch.from_numpy(xyzw).roll(1, 1)


def _older_quats(data: Tensor) -> Tensor:
    """Version 2: x y z in bytes, w from the unit length."""
    xyz = data.double() / 127.5 - 1.0
    w = (1.0 - xyz.square().sum(1, keepdim=True)).clamp_min(0.0).sqrt()
    return torch.cat([w, xyz], dim=1)
