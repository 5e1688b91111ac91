"""Which weights a backend uses, by their hash: what a journal keeps, to know them again."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from renderers.errors import SceneError
from scenegen.models.hub import HUB_MODELS, hub_folder
from scenegen.models.registry import MODELS
from scenegen.models.shipped import BESIDE, SHIPPED, shipped_path

WEIGHTS = ("*.safetensors", "model.pt")
"""Files of a hub model that hold its weights."""


def growth_weights(*backends: str) -> dict[str, str | None]:
    """Hashes of the weights with which a world grows, by backend and by what goes with it."""
    names = [name for backend in backends for name in (backend, *BESIDE.get(backend, ()))]
    return {name: weights_hash(name) for name in names}


def weights_hash(backend: str) -> str | None:
    """SHA-256 of the weights that a backend uses; of several files, of their hashes in order.

    Args:
        backend: Its name, as the tables of backends have it: "fastdepth", "moge:FOLDER".

    Returns:
        None for a backend without weights, and where its weights are not on this machine.
    """
    if backend in MODELS:
        return MODELS[backend].sha256  # nothing else is ever loaded under that name
    if backend in SHIPPED:
        files = [shipped_path(SHIPPED[backend])]
    else:
        name, _, source = backend.partition(":")
        if not source and name not in HUB_MODELS:
            return None
        try:
            folder = hub_folder(source or name)
        except (SceneError, OSError, RuntimeError):
            return None
        files = sorted(file for pattern in WEIGHTS for file in folder.rglob(pattern))
    hashes = [_hash(file, file.stat().st_mtime_ns) for file in files if file.is_file()]
    if len(hashes) < 2:
        return hashes[0] if hashes else None
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=32)
def _hash(file: Path, _written_at: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
