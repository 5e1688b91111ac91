"""Memories at some moments of a world, set aside so that opening it need not make them again.

They lie in the folder ``cache``, and are never the truth: each is named for the seal of the entry
that it stands at, which stands for all before it, and for the code that made it. One that is
missing, damaged or of another release is made again from the steps; all may be deleted.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

import spatial_memory
from renderers import SceneError
from scenegen import __version__
from scenegen.world.journal import Step
from scenegen.world.stepfiles import StepFiles
from spatial_memory import MemoryConfig, View, ViewMemory
from spatial_memory.snapshot import arrays_of, memory_of

logger = logging.getLogger("scenegen")

CACHE = "cache"
EVERY = 10
"""Entries that are made again rather than set aside: less than a second of work."""
KEPT = 3
"""Snapshots that a world keeps: those used last. Of 100 views each has about 30 MB."""
_DIGEST = hashlib.sha256().digest_size
_DAMAGE = (KeyError, ValueError, TypeError, IndexError, SafetensorError)


@dataclass(frozen=True)
class StepPixels:
    """Where the memory finds the pixels of a step: in its file, checked whenever it is read."""

    files: StepFiles
    step: Step

    def view(self, provenance: str) -> View:
        """The view of the step.

        Raises:
            SceneError: Its file is missing or damaged.
        """
        seen = self.files.view(self.step)
        return View(seen.rgb, seen.depth, self.step.camera, provenance, seen.known)


class Snapshots:
    """The folder ``cache`` of one world."""

    def __init__(self, world: Path) -> None:
        self.folder = world / CACHE

    def load(self, seal: str, files: StepFiles, steps: Sequence[Step]) -> ViewMemory | None:
        """The memory as it was after an entry; None where it must be made again.

        Args:
            seal: Of the entry.
            files: Where the pixels lie.
            steps: All steps up to the entry.
        """
        path = self._path(seal)
        sources = {step.id: StepPixels(files, step) for step in steps}
        try:
            data = path.read_bytes()
            content = memoryview(data)[_DIGEST:]
            if hashlib.sha256(content).digest() != data[:_DIGEST]:
                raise ValueError("it was changed after it was written")
            arrays = {name: np.array(value) for name, value in load(bytes(content)).items()}
            memory = memory_of(arrays, MemoryConfig(), sources.__getitem__)
        except FileNotFoundError:
            return None
        except (*_DAMAGE, OSError, SceneError) as error:
            logger.info("%s: the snapshot is not used: %s", path, error)
            return None
        with suppress(OSError):
            os.utime(path)
        return memory

    def has(self, seal: str) -> bool:
        """Whether there is a snapshot of an entry, whole or not."""
        return self._path(seal).is_file()

    def save(self, seal: str, memory: ViewMemory) -> None:
        """Set a memory aside, if that is possible here, and drop those used longest ago."""
        path = self._path(seal)
        beside = path.with_name(f".{secrets.token_hex(8)}")
        try:
            self.folder.mkdir(exist_ok=True)
            content = save(arrays_of(memory))
            try:
                with beside.open("xb") as file:
                    file.write(hashlib.sha256(content).digest())
                    file.write(content)
                beside.replace(path)
            finally:
                beside.unlink(missing_ok=True)
            there = sorted(self.folder.iterdir(), key=lambda file: file.stat().st_mtime)
            for old in there[:-KEPT]:
                old.unlink(missing_ok=True)
        except (OSError, SceneError) as error:
            logger.debug("%s: no snapshot was made: %s", path, error)

    def _path(self, seal: str) -> Path:
        return self.folder / hashlib.sha256(f"{seal} {code()}".encode()).hexdigest()[:32]


@functools.cache
def code() -> str:
    """What snapshots depend on beside the journal: the release, and the sources of the memory."""
    digest = hashlib.sha256(f"{__version__} {MemoryConfig()}".encode())
    for source in sorted(Path(spatial_memory.__path__[0]).glob("*.py")):
        with suppress(OSError):
            digest.update(source.read_bytes())
    return digest.hexdigest()
