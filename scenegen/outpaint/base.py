"""The contract of every outpainter, and the table of those that exist."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Backend, Camera
from scenegen import models


@runtime_checkable  # the test-time type checker needs it
class Reference(Protocol):
    """A past view that shows the same place: what :class:`spatial_memory.View` offers."""

    @property
    def rgb(self) -> Float[Tensor, "h w 3"]:
        """Its picture, sRGB, 0 to 1."""
        ...

    @property
    def known(self) -> Bool[Tensor, "h w"]:
        """Its pixels that hold."""
        ...

    @property
    def depth(self) -> Float[Tensor, "h w"]:
        """Its depth, metres; NaN unknown, +inf sky."""
        ...

    @property
    def camera(self) -> Camera:
        """Where it was taken from."""
        ...


@runtime_checkable  # the test-time type checker needs it
class Outpainter(Protocol):
    """Fills the unknown part of a view.

    What comes back at known pixels is discarded; what comes back as NaN stays unknown.
    """

    def fill(
        self,
        rgb: Float[Tensor, "h w 3"],
        known: Bool[Tensor, "h w"],
        camera: Camera | None,
        depth: Float[Tensor, "h w"] | None,
        references: Sequence[Reference],
        seed: int,
    ) -> Float[Tensor, "h w 3"]:
        """The whole view, 0 to 1. Same input and seed, same picture."""
        ...


def _no_migan() -> str | None:
    return None if models.is_present("migan") else "its weights (migan) are not on this machine"


def _no_patchmatch() -> str | None:
    if importlib.util.find_spec("patchmatch") is None:
        return "the package pypatchmatch is not installed"
    return None


OUTPAINTERS: dict[str, Backend] = {  # best first
    "migan": Backend(
        "scenegen.outpaint.migan:MiGan",
        _no_migan,
        "run `scenegen models pull migan`, or use --outpaint patch",
        "small generative network (Places2): invents plausible surfaces in narrow holes",
    ),
    "patch": Backend(
        "scenegen.outpaint.patch:PatchMatch",
        _no_patchmatch,
        "pip install pypatchmatch",
        "no weights: copies patches of the view and of the retrieved views",
    ),
    "none": Backend(
        "scenegen.outpaint.honest:Nothing",
        lambda: None,
        "",
        "invents nothing: what was never seen stays unknown",
    ),
}
