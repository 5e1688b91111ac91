"""Compressed files read without trust: never more bytes than what is inside may have."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scenegen.export.rows import bad_splats

BLOCK = 1 << 20
"""Bytes read, and given out, at once."""


class Inflated:
    """The content of a gzip file, read from front to back.

    Raises:
        SceneError: The file is not gzip, is damaged, or ends too early.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._path = path
        self._blocks = self._inflate(file)
        self._rest = b""

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes. Memory grows only as they really come."""
        parts, missing = [self._rest], count - len(self._rest)
        while missing > 0:
            block = next(self._blocks, b"")
            if not block:
                raise bad_splats(
                    self._path,
                    f"it is cut short: {missing} bytes of what it promises are missing",
                    "copy or download it again",
                )
            parts.append(block)
            missing -= len(block)
        data = b"".join(parts)
        self._rest = data[count:]
        return data[:count]

    def _inflate(self, file: BinaryIO) -> Iterator[bytes]:
        decoder = zlib.decompressobj(wbits=31)  # 31: a gzip header, then at most 32 KiB window
        while not decoder.eof:
            given = decoder.unconsumed_tail or file.read(BLOCK)
            if not given:
                return
            try:
                block = decoder.decompress(given, BLOCK)
            except zlib.error as error:
                raise bad_splats(
                    self._path, f"it is damaged: {error}", "copy or download it again"
                ) from error
            if block:
                yield block
