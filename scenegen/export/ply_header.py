"""The head of a PLY file, read without trust: what a row holds and whether all rows are there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from renderers.errors import SceneError

HEADER_LIMIT = 16 * 1024
"""Bytes in which the header must end; that of a splat file is under 2000."""

_CODES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_AGAIN = "export it again from the program that made it"


@dataclass(frozen=True)
class PlyHeader:
    """What the header says of the first element, the splats."""

    count: int
    """Number of rows, at least 1; the file is large enough for them."""
    row: np.dtype[np.void]
    """Properties of one row, in the order of the file."""
    size: int
    """Length of the header, in bytes: where the rows begin."""


def bad_ply(path: Path, why: str, fix: str = _AGAIN) -> SceneError:
    """The error for a file that is no PLY of splats."""
    return SceneError(f"cannot read {path} as splats", why=why, fix=fix)


def read_header(file: BinaryIO, path: Path) -> PlyHeader:
    """Parse the header and compare it with the size of the file.

    Raises:
        SceneError: It is not a binary little endian PLY whose first element is ``vertex``, of
            scalars and with at least one row, or the file is too short for its rows.
    """
    head = file.read(HEADER_LIMIT)
    if not head.startswith((b"ply\n", b"ply\r")):
        raise bad_ply(path, "it is not a PLY file", "give a 3DGS .ply")
    end = re.search(rb"\nend_header\r?\n", head)
    if end is None:
        raise bad_ply(path, f"its header does not end within {HEADER_LIMIT} bytes")
    lines = head[: end.start()].decode("ascii", "replace").split("\n")
    words = [line.split() for line in lines[1:]]
    words = [w for w in words if w and w[0] not in ("comment", "obj_info")]
    _check_format(words, path)
    count, row = _first_element(words, path)
    there = (os.fstat(file.fileno()).st_size - end.end()) // row.itemsize
    if there < count:
        raise bad_ply(
            path,
            f"it is cut short: {count} splats are promised, {there} are there",
            "copy or download it again",
        )
    return PlyHeader(count, row, end.end())


def _check_format(words: list[list[str]], path: Path) -> None:
    formats = [w[1:] for w in words if w[0] == "format"]
    if formats != [["binary_little_endian", "1.0"]]:
        found = " ".join(formats[0]) if formats else "no format line"
        raise bad_ply(
            path,
            f"its format is '{found[:40]}'; only 'binary_little_endian 1.0' is read",
            "save it as binary little endian",
        )


def _first_element(words: list[list[str]], path: Path) -> tuple[int, np.dtype[np.void]]:
    """Row count and properties of the element that comes first, which must be ``vertex``."""
    starts = [i for i, w in enumerate(words) if w[0] == "element"]
    if not starts or words[starts[0]][1:2] != ["vertex"]:
        raise bad_ply(
            path,
            "its first element is not 'vertex'; a compressed.ply starts with 'chunk'",
            "convert it first: `splat-transform in.compressed.ply out.ply`",
        )
    first, after = starts[0], starts[1] if len(starts) > 1 else len(words)
    number = words[first][2] if len(words[first]) == 3 else ""
    if not re.fullmatch(r"[0-9]{1,15}", number):
        raise bad_ply(path, f"its number of splats is '{number[:40]}'")
    if int(number) == 0:
        raise bad_ply(path, "it holds no splats", "give a file that is not empty")
    types: dict[str, str] = {}
    for line in words[first + 1 : after]:
        if len(line) != 3 or line[0] != "property" or line[1] not in _CODES or line[2] in types:
            text = " ".join(line)
            raise bad_ply(path, f"'{text[:60]}' does not belong in the header of a splat file")
        types[line[2]] = f"<{_CODES[line[1]]}"
    if not types:
        raise bad_ply(path, "its vertices have no properties")
    return int(number), np.dtype([*types.items()])
