"""The arrays of one step, and the files that hold them.

  splats.safetensors    what the step adds to the world
  view.safetensors      what it saw: rgb uint8, depth float32, known bool

The same arrays always make the same bytes, so that the hash of a file is that of its contents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from renderers import SceneError, Splats

SPLATS, VIEW = "splats.safetensors", "view.safetensors"
_FIELDS = ("means", "quats", "scales", "opacities", "colors", "sh")


@dataclass(frozen=True, eq=False)
class StepView:
    """What one step saw."""

    rgb: Tensor
    """The whole view, (h, w, 3) in [0, 1], on 8-bit levels."""
    depth: Tensor
    """Depth of the whole view, (h, w) in metres; NaN unknown, +inf sky."""
    known: Tensor
    """Pixels that this step contributed, (h, w) bool."""


@dataclass(frozen=True, eq=False)
class StepData:
    """What one step adds to the world."""

    splats: Splats
    rgb: Tensor
    """The whole view, as in :class:`StepView`, like ``depth`` and ``known``."""
    depth: Tensor
    known: Tensor

    def files(self) -> dict[str, bytes]:
        """The contents of its files, by name."""
        levels = (self.rgb * 255).round().to(torch.uint8)
        splats = {name: getattr(self.splats, name) for name in _FIELDS}
        return {
            SPLATS: _bytes({name: value for name, value in splats.items() if value is not None}),
            VIEW: _bytes({"rgb": levels, "depth": self.depth, "known": self.known}),
        }


def read_splats(data: bytes) -> Splats:
    """Inverse of :meth:`StepData.files` for the splats.

    Raises:
        ValueError: These are not splats.
    """
    tensors = _tensors(data)
    if {value.dtype for value in tensors.values()} - {torch.float32}:
        raise ValueError("its splats are not float32")
    try:
        return Splats(**tensors)
    except (TypeError, SceneError) as error:
        raise ValueError(f"its splats are incomplete: {error}".splitlines()[0]) from error


def read_view(data: bytes) -> StepView:
    """Inverse of :meth:`StepData.files` for the view.

    Raises:
        ValueError: This is not a view.
    """
    tensors = _tensors(data)
    try:
        rgb, depth, known = tensors["rgb"], tensors["depth"], tensors["known"]
    except KeyError as error:
        raise ValueError(f"its view has no {error}") from error
    if (rgb.dtype, depth.dtype, known.dtype) != (torch.uint8, torch.float32, torch.bool):
        raise ValueError("its view has other dtypes than it should")
    if depth.ndim != 2 or known.shape != depth.shape or rgb.shape != (*depth.shape, 3):
        raise ValueError("the parts of its view differ in size")
    return StepView(rgb.float() / 255, depth, known)


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    return save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})


def _tensors(data: bytes) -> dict[str, Tensor]:
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
