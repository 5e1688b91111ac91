"""The head of a PLY file, read without trust: what a row holds and whether all rows are there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from scenegen.export.rows import bad_splats

HEADER_LIMIT = 16 * 1024
"""Bytes in which the header must end; that of a splat file is under 2000."""

_CODES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class Element:
    """A table of a PLY file. The file is large enough for it."""

    name: str
    count: int
    """Number of rows, at least 1."""
    row: np.dtype[np.void]
    """Properties of one row, in the order of the file."""
    start: int
    """Where in the file its rows begin, in bytes."""


def read_header(file: BinaryIO, path: Path) -> list[Element]:
    """Parse the header and compare it with the size of the file.

    Returns:
        The element ``vertex`` where it comes first; where ``chunk`` does (compressed.ply), all.

    Raises:
        SceneError: It is not a binary little endian PLY that begins with either, of scalars and
            with at least one row, or the file is too short for its rows.
    """
    head = file.read(HEADER_LIMIT)
    if not head.startswith((b"ply\n", b"ply\r")):
        raise bad_splats(path, "it is not a PLY file", "give a 3DGS .ply")
    end = re.search(rb"\nend_header\r?\n", head)
    if end is None:
        raise bad_splats(path, f"its header does not end within {HEADER_LIMIT} bytes")
    lines = head[: end.start()].decode("ascii", "replace").split("\n")
    words = [line.split() for line in lines[1:]]
    words = [w for w in words if w and w[0] not in ("comment", "obj_info")]
    _check_format(words, path)
    starts = [i for i, w in enumerate(words) if w[0] == "element"]
    first = words[starts[0]][1:2] if starts else []
    if first not in (["vertex"], ["chunk"]):
        raise bad_splats(path, "its first element is not 'vertex'", "give a 3DGS .ply")
    ends = [*starts[1:], len(words)] if first == ["chunk"] else [*starts[1:2], len(words)][:1]
    size, position = os.fstat(file.fileno()).st_size, end.end()
    elements: list[Element] = []
    for begin, after in zip(starts, ends, strict=False):
        element = _element(words[begin:after], position, path)
        there = (size - position) // element.row.itemsize
        if there < element.count:
            what = "splats" if element.name == "vertex" else f"rows of '{element.name}'"
            raise bad_splats(
                path,
                f"it is cut short: {element.count} {what} are promised, {max(0, there)} are there",
                "copy or download it again",
            )
        position += element.count * element.row.itemsize
        elements.append(element)
    return elements


def _check_format(words: list[list[str]], path: Path) -> None:
    formats = [w[1:] for w in words if w[0] == "format"]
    if formats != [["binary_little_endian", "1.0"]]:
        found = " ".join(formats[0]) if formats else "no format line"
        raise bad_splats(
            path,
            f"its format is '{found[:40]}'; only 'binary_little_endian 1.0' is read",
            "save it as binary little endian",
        )


def _element(words: list[list[str]], start: int, path: Path) -> Element:
    """The element of a header whose lines these are."""
    number = words[0][2] if len(words[0]) == 3 else ""
    if not re.fullmatch(r"[0-9]{1,15}", number):
        raise bad_splats(path, f"its number of splats is '{number[:40]}'")
    if int(number) == 0:
        raise bad_splats(path, "it holds no splats", "give a file that is not empty")
    types: dict[str, str] = {}
    for line in words[1:]:
        if len(line) != 3 or line[0] != "property" or line[1] not in _CODES or line[2] in types:
            text = " ".join(line)
            raise bad_splats(path, f"'{text[:60]}' does not belong in the header of a splat file")
        types[line[2]] = f"<{_CODES[line[1]]}"
    if not types:
        raise bad_splats(path, "its vertices have no properties")
    return Element(words[0][1], int(number), np.dtype([*types.items()]), start)
