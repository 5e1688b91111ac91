"""The memory on disk: a folder that is always whole.

  memory.json                    what belongs to the memory; replaced in one step, written last
  view-<hash>.safetensors        one picture each: rgb, depth, known
  surfels-<hash>.safetensors     the surfel map and its observers

Files are named for their contents and never change, so that saving again writes only what is
new, and a crash leaves the old memory.json with all its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors import numpy as arrays_file
from safetensors import torch as tensors_file

from renderers.camera import Camera
from renderers.errors import SceneError, check_shapes
from spatial_memory.surfels import Surfels
from spatial_memory.views import PROVENANCES, View, ViewStore

FORMAT = "scenegen-memory"
VERSION = 1
"""Raised with every change that older releases would misread. All versions below are read."""
INDEX = "memory.json"


@dataclass(frozen=True, eq=False)
class Kept:
    """All that a memory consists of."""

    config: dict[str, Any]
    """MemoryConfig, field by field."""
    views: ViewStore
    surfels: Surfels
    pinned: list[int]


def save(folder: Path, kept: Kept) -> None:
    """Write a memory in place of the one that the folder holds, if any.

    Raises:
        SceneError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "config": kept.config,
            "next_id": kept.views.next_id,
            "pinned": kept.pinned,
            "views": [_save_view(folder, i, view) for i, view in kept.views.items()],
            "surfels": _save_blob(folder, "surfels", arrays_file.save(kept.surfels.arrays())),
        }
        index = {"format": FORMAT, "version": VERSION, "hash": _content_hash(content)} | content
        _replace_file(folder / INDEX, json.dumps(index, indent=1).encode())
        _tidy(folder, content)
    except OSError as error:
        raise SceneError(
            f"cannot save the memory to {folder}",
            why=str(error),
            fix="choose a folder that can be written, on a disk with room",
        ) from error


def load(folder: Path, config_fields: Collection[str]) -> Kept:
    """Read a memory.

    Args:
        folder: Where :func:`save` wrote it.
        config_fields: Names of the configuration that this release knows.

    Raises:
        SceneError: There is none, it is damaged, or a newer release wrote it.
    """
    content = _read_index(folder)
    try:
        views = ViewStore()
        for entry in content["views"]:
            views.restore(entry["id"], _load_view(folder, entry))
        assert views.next_id <= content["next_id"]
        views.next_id = content["next_id"]
        blob = _load_blob(folder, content["surfels"])
        surfels = Surfels.from_arrays(arrays_file.load(blob))
        observers = set(surfels.observers.view.tolist())
        if not (observers <= set(views) and set(content["pinned"]) <= set(views)):
            raise ValueError("it names views that it does not hold")
        if not content["config"].keys() <= set(config_fields):
            raise ValueError("its configuration has unknown fields")
    except (KeyError, ValueError, TypeError, AssertionError, SafetensorError) as error:
        raise _damaged(folder, str(error)) from error
    return Kept(content["config"], views, surfels, content["pinned"])


def _save_view(folder: Path, view_id: int, view: View) -> dict[str, Any]:
    tensors = {
        "rgb": view.rgb.contiguous(),
        "depth": view.depth.contiguous(),
        "known": view.known.contiguous(),
        "px_from_cam": view.camera.px_from_cam.detach().cpu().contiguous(),
        "cam_from_world": view.camera.cam_from_world.detach().cpu().contiguous(),
    }
    blob = _save_blob(folder, "view", tensors_file.save(tensors))
    return {"id": view_id, "provenance": view.provenance} | blob


def _load_view(folder: Path, entry: dict[str, Any]) -> View:
    t = tensors_file.load(_load_blob(folder, entry))
    if entry["provenance"] not in PROVENANCES:
        raise ValueError(f"unknown provenance {entry['provenance']!r}")
    height, width = t["depth"].shape
    camera = Camera(t["px_from_cam"], t["cam_from_world"], width, height)
    view = View(t["rgb"], t["depth"], camera, entry["provenance"], t["known"])
    check_shapes(view, rgb=("h", "w", 3), depth=("h", "w"), known=("h", "w"))
    if (view.rgb.dtype, view.depth.dtype, view.known.dtype) != (
        torch.float32,
        torch.float32,
        torch.bool,
    ):
        raise ValueError("a view has other dtypes than it should")
    return view


def _save_blob(folder: Path, kind: str, data: bytes) -> dict[str, str]:
    """Write a file named for its contents, unless it is there already."""
    digest = hashlib.sha256(data).hexdigest()
    path = folder / f"{kind}-{digest[:16]}.safetensors"
    there = path.is_file() and path.stat().st_size == len(data)
    if not (there and hashlib.sha256(path.read_bytes()).hexdigest() == digest):
        _replace_file(path, data)
    return {"file": path.name, "sha256": digest}


def _load_blob(folder: Path, entry: dict[str, Any]) -> bytes:
    name = entry["file"]
    if Path(name).name != name:
        raise ValueError(f"{name} is not a file of this folder")
    try:
        data = (folder / name).read_bytes()
    except OSError as error:
        raise ValueError(f"{name} is missing: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ValueError(f"{name} has other contents than were saved")
    return data


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
    used = {entry["file"] for entry in [*content["views"], content["surfels"]]}
    for pattern in ("view-*.safetensors", "surfels-*.safetensors", ".writing-*"):
        for path in folder.glob(pattern):
            if path.name not in used:
                path.unlink(missing_ok=True)
