"""One view as a safetensors file, without loss: the same bits come back.

  rgb             uint8 where all colours are on the levels of 8-bit images, else float32
  depth           float32
  known           bits, eight to a byte
  px_from_cam, cam_from_world

Version 1 of the format had rgb as float32 and known as bool. Both are read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import torch as tensors_file

from renderers.camera import Camera
from renderers.errors import SceneError
from spatial_memory.views import PROVENANCES, View

_LEVELS = np.float32(255.0)


@runtime_checkable  # the test-time type checker needs it
class Source(Protocol):
    """Where the pixels of a view lie while they are not in memory. Never changes."""

    def view(self, provenance: str) -> View:
        """The view.

        Args:
            provenance: What to say of it.

        Raises:
            ValueError: What holds it is missing or damaged.
        """
        ...


@dataclass(frozen=True)
class Blob:
    """A file that never changes, and what it must hold."""

    path: Path
    sha256: str

    def read(self) -> bytes:
        """The contents.

        Raises:
            ValueError: The file is missing or holds something else.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise ValueError(f"{self.path.name} is missing: {error.strerror}") from error
        if digest(data) != self.sha256:
            raise ValueError(f"{self.path.name} has other contents than were saved")
        return data

    def view(self, provenance: str) -> View:
        """As :class:`Source` says."""
        return decode(self.read(), provenance)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def blob_name(kind: str, sha256: str) -> str:
    """Name of a file by its contents."""
    return f"{kind}-{sha256[:16]}.safetensors"


def encode(view: View) -> bytes:
    """The contents of a view's file; its provenance is not among them."""
    rgb = view.rgb.numpy()
    with np.errstate(invalid="ignore"):  # colours of unknown pixels may be NaN
        levels = np.rint(rgb * _LEVELS).astype(np.uint8)
    exact = (levels / _LEVELS).tobytes() == rgb.tobytes()
    return tensors_file.save(
        {
            "rgb": torch.from_numpy(levels) if exact else view.rgb.contiguous(),
            "depth": view.depth.contiguous(),
            "known": torch.from_numpy(np.packbits(view.known.numpy())),
            "px_from_cam": view.camera.px_from_cam.detach().cpu().contiguous(),
            "cam_from_world": view.camera.cam_from_world.detach().cpu().contiguous(),
        }
    )


def decode(data: bytes, provenance: str) -> View:
    """The inverse of :func:`encode`.

    Raises:
        ValueError: This is not the file of a view.
    """
    try:
        t = tensors_file.load(data)
        rgb, depth, known = t["rgb"], t["depth"], t["known"]
        camera = Camera(t["px_from_cam"], t["cam_from_world"], *reversed(depth.shape))
    except (KeyError, TypeError, SafetensorError, SceneError) as error:
        raise ValueError(f"a view is incomplete: {error}") from error
    if rgb.dtype == torch.uint8:
        rgb = torch.from_numpy(rgb.numpy() / _LEVELS)
    if known.dtype == torch.uint8 and known.numel() == -(-depth.numel() // 8):
        bits = np.unpackbits(known.numpy(), count=depth.numel())
        known = torch.from_numpy(bits.view(np.bool_).reshape(depth.shape))
    if (rgb.dtype, depth.dtype, known.dtype) != (torch.float32, torch.float32, torch.bool):
        raise ValueError("a view has other dtypes than it should")
    if rgb.shape != (*depth.shape, 3) or known.shape != depth.shape:
        raise ValueError("the parts of a view differ in size")
    if provenance not in PROVENANCES:
        raise ValueError(f"unknown provenance {provenance!r}")
    return View(rgb, depth, camera, provenance, known)
