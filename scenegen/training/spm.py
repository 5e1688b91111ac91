"""Reads SPM, the mesh format of SuperTuxKart (version 1, static and skinned meshes)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32

from renderers import SceneError

Array = np.ndarray

_ANIMATED = 1
"""Kind of mesh whose vertices carry 16 bytes of skinning."""
_WHITE = 128
"""Mark of a vertex colour that is white and left out."""


@dataclass(frozen=True, eq=False)
class SpmPart:
    """Triangles of one material, in the file's own axes."""

    positions: Float32[Array, "n 3"]
    normals: Float32[Array, "n 3"]
    colours: Float32[Array, "n 3"]
    """sRGB, 0 to 1."""
    uv: Float32[Array, "n 2"]
    triangles: Int32[Array, "m 3"]
    texture: str
    """File name, without a folder; empty where there is none."""


def read_spm(path: Path) -> list[SpmPart]:
    """Read the static geometry of a mesh; animated ones come in their rest pose.

    Raises:
        SceneError: The file cannot be read or is no SPM of version 1.
    """
    try:
        return _parts(path.read_bytes())
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise SceneError(
            f"cannot read the mesh {path}",
            why=str(error),
            fix="install the package supertuxkart-data again (versions 1.0 to 1.4 are known)",
        ) from error


def _parts(data: bytes) -> list[SpmPart]:
    if data[:2] != b"SP" or data[2] >> 3 != 1:
        raise ValueError("it does not begin like an SPM file of version 1")
    kind, flags = data[2] & 7, data[3]
    at = 4 + 24  # header, then the bounding box
    (count,) = struct.unpack_from("<H", data, at)
    at += 2
    materials = []
    for _ in range(count):
        names = []
        for _ in range(2):
            length = data[at]
            names.append(data[at + 1 : at + 1 + length].decode("utf-8", "replace"))
            at += 1 + length
        materials.append(names)
    (sectors,) = struct.unpack_from("<H", data, at)
    at += 2
    found = []
    for _ in range(sectors):
        (buffers,) = struct.unpack_from("<H", data, at)
        at += 2
        for _ in range(buffers):
            part, at = _part(data, at, flags, kind, materials)
            found.append(part)
    return found


def _part(
    data: bytes, at: int, flags: int, kind: int, materials: list[list[str]]
) -> tuple[SpmPart, int]:
    vertices, indices, material = struct.unpack_from("<IIH", data, at)
    at += 10
    first, second = materials[material]
    has_normals, has_colours, has_tangents = flags & 1, flags >> 1 & 1, flags >> 2 & 1
    before = 12 + 4 * has_normals
    after = (4 if first else 0) + (4 if first and second else 0)
    after += (4 if first and has_tangents else 0) + (16 if kind == _ANIMATED else 0)
    raw = np.frombuffer(data, np.uint8)
    colours = np.ones((vertices, 3), np.float32)
    if has_colours:
        starts, coloured, at = _walk(data, at, vertices, before, after)
        wide = starts[coloured]
        colours[coloured] = raw[wide[:, None] + before + 1 + np.arange(3)] / np.float32(255)
        head = raw[starts[:, None] + np.arange(before)]
        tail = raw[(starts + before + 1 + 3 * coloured)[:, None] + np.arange(after)]
    else:
        rows = raw[at : at + vertices * (before + after)].reshape(vertices, before + after)
        head, tail = rows[:, :before], rows[:, before:]
        at += vertices * (before + after)
    positions = np.ascontiguousarray(head[:, :12]).view("<f4")
    normals = np.zeros((vertices, 3), np.float32)
    if has_normals:
        normals = _unpacked(np.ascontiguousarray(head[:, 12:16]).view("<u4")[:, 0])
    uv = np.zeros((vertices, 2), np.float32)
    if first:
        uv = np.ascontiguousarray(tail[:, :4]).view("<f2").astype(np.float32)
    width = np.dtype("<u1" if vertices <= 255 else "<u2")
    triangles = np.frombuffer(data, width, indices, at).astype(np.int32).reshape(-1, 3)
    part = SpmPart(positions, normals, colours, uv, triangles, first)
    return part, at + indices * width.itemsize


def _walk(data: bytes, at: int, vertices: int, before: int, after: int) -> tuple[Array, Array, int]:
    """Where each vertex starts: those with a colour are three bytes longer."""
    starts, coloured = np.empty(vertices, np.int64), np.zeros(vertices, bool)
    for vertex in range(vertices):
        starts[vertex] = at
        coloured[vertex] = data[at + before] != _WHITE
        at += before + 1 + after + (3 if coloured[vertex] else 0)
    return starts, coloured, at


def _unpacked(packed: Array) -> Float32[Array, "n 3"]:
    """Normals from three signed numbers of 10 bits."""
    fields = np.stack([packed >> shift & 1023 for shift in (0, 10, 20)], axis=1).astype(np.int32)
    signed = np.where(fields >= 512, fields - 1024, fields)
    return np.clip(signed / 511, -1, 1).astype(np.float32)
