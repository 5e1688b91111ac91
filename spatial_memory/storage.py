"""The memory on disk: a folder that is always whole.

  memory.json                    what belongs to the memory; replaced in one step, written last
  view-<hash>.safetensors        one picture each (see pictures)
  surfels-<hash>.safetensors     a part of the surfel map and its observers, in the order of rows

Files are named for their contents and never change, so that saving again writes only what is
new, and a crash leaves the old memory.json with all its files. Files are written and read one
after another: neither saving nor loading takes more memory than what is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors import numpy as arrays_file

from renderers.errors import SceneError
from spatial_memory.pictures import Blob, blob_name, digest
from spatial_memory.store import ViewStore
from spatial_memory.surfels import Surfels
from spatial_memory.views import View

FORMAT = "scenegen-memory"
VERSION = 2
"""Raised with every change that older releases would misread. All versions below are read.

1: one file of surfels, with one row per pair of surfel and observer; see also pictures.
"""
INDEX = "memory.json"
PART = 1 << 18
"""Surfels per file: what nobody has seen again need not be written again."""


@dataclass(frozen=True, eq=False)
class Saved:
    """What the index of a saved memory says."""

    folder: Path
    config: dict[str, Any]
    """MemoryConfig, field by field."""
    pinned: list[int]
    next_id: int
    views: list[dict[str, Any]]
    surfels: list[dict[str, Any]]


def save(
    folder: Path, config: dict[str, Any], pinned: list[int], views: ViewStore, surfels: Surfels
) -> None:
    """Write a memory in place of the one that the folder holds, if any.

    Raises:
        SceneError: The folder cannot be written, or pixels that must be read are damaged.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "config": config,
            "next_id": views.next_id,
            "pinned": pinned,
            "views": [
                {"id": view_id, "provenance": views.provenance(view_id)}
                | _save_blob(folder, "view", views.contents(view_id))
                for view_id in views
            ],
            "surfels": [
                _save_blob(folder, "surfels", arrays_file.save(surfels.arrays(start, start + PART)))
                for start in range(0, len(surfels), PART)
            ],
        }
        index = {"format": FORMAT, "version": VERSION, "hash": _content_hash(content)} | content
        _replace_file(folder / INDEX, json.dumps(index, indent=1).encode())
        _tidy(folder, content)
    except (OSError, ValueError) as error:
        raise SceneError(
            f"cannot save the memory to {folder}",
            why=str(error),
            fix="choose a folder that can be written, on a disk with room",
        ) from error


def read(folder: Path, config_fields: Collection[str]) -> Saved:
    """Read the index of a memory.

    Args:
        folder: Where :func:`save` wrote it.
        config_fields: Names of the configuration that this release knows.

    Raises:
        SceneError: There is none, it is damaged, or a newer release wrote it.
    """
    content = _read_index(folder)
    with _damage(folder):
        surfels = content["surfels"]
        surfels = [surfels] if isinstance(surfels, dict) else surfels  # version 1
        saved = Saved(
            folder,
            content["config"],
            content["pinned"],
            content["next_id"],
            content["views"],
            surfels,
        )
        if not set(saved.pinned) <= {entry["id"] for entry in saved.views}:
            raise ValueError("it names views that it does not hold")
        if not saved.config.keys() <= set(config_fields):
            raise ValueError("its configuration has unknown fields")
    return saved


def restore(
    saved: Saved, views: ViewStore, surfels: Surfels, on_view: Callable[[int, View], None]
) -> None:
    """Read views and surfels, and check that all of it is whole.

    Args:
        saved: The index.
        views: An empty store.
        surfels: An empty map.
        on_view: Called with every view, while its pixels are in memory.

    Raises:
        SceneError: It is damaged.
    """
    with _damage(saved.folder):
        for entry in saved.views:
            blob = _blob(saved.folder, entry)
            on_view(entry["id"], views.restore(entry["id"], blob, entry["provenance"]))
        if views.next_id > saved.next_id:
            raise ValueError("it holds views that are not written yet")
        views.next_id = saved.next_id
        for entry in saved.surfels:
            surfels.restore(arrays_file.load(_blob(saved.folder, entry).read()))
        if not surfels.observers.view_ids <= set(views):
            raise ValueError("it names views that it does not hold")


def _save_blob(folder: Path, kind: str, data: bytes) -> dict[str, str]:
    """Write a file named for its contents, unless it is there already."""
    sha256 = digest(data)
    path = folder / blob_name(kind, sha256)
    there = path.is_file() and path.stat().st_size == len(data)
    if not (there and digest(path.read_bytes()) == sha256):
        _replace_file(path, data)
    return {"file": path.name, "sha256": sha256}


def _blob(folder: Path, entry: dict[str, Any]) -> Blob:
    name = entry["file"]
    if Path(name).name != name:
        raise ValueError(f"{name} is not a file of this folder")
    return Blob(folder / name, entry["sha256"])


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        text = (folder / INDEX).read_bytes()
    except OSError as error:
        raise SceneError(
            f"there is no memory in {folder}",
            why=f"{INDEX}: {error.strerror}",
            fix="pass the folder that ViewMemory.save() wrote",
        ) from error
    try:
        index = json.loads(text)
        if index["format"] != FORMAT:
            raise ValueError(f"{INDEX} has format {index['format']!r}")
        version = int(index["version"])
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, f"{INDEX}: {error}") from error
    if version > VERSION:
        raise SceneError(
            f"the memory in {folder} was saved by a newer release",
            why=f"its format is version {version}; this release reads up to {VERSION}",
            fix="upgrade: pip install --upgrade scenegen-worlds",
        )
    content = {name: index[name] for name in index if name not in ("format", "version", "hash")}
    if index.get("hash") != _content_hash(content):
        raise _damaged(folder, f"{INDEX} was changed after it was saved")
    return content


def _content_hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _damage(folder: Path) -> Iterator[None]:
    """Turn what goes wrong with contents into the error for users."""
    try:
        yield
    except (KeyError, ValueError, TypeError, IndexError, SafetensorError) as error:
        raise _damaged(folder, str(error)) from error


def _damaged(folder: Path, why: str) -> SceneError:
    return SceneError(
        f"the memory in {folder} is damaged", why=why, fix="restore the folder from a copy"
    )


def _replace_file(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, then take the name: all or nothing."""
    handle, beside = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every system can flush a folder
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _tidy(folder: Path, content: dict[str, Any]) -> None:
    """Remove our files that no longer belong to the memory, and remains of interrupted saves."""
    used = {entry["file"] for entry in [*content["views"], *content["surfels"]]}
    for pattern in ("view-*.safetensors", "surfels-*.safetensors", ".writing-*"):
        for path in folder.glob(pattern):
            if path.name not in used:
                path.unlink(missing_ok=True)
