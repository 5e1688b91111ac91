"""The contract of every depth estimator, and the table of those that exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Backend, check_shapes
from scenegen import models

EYE_HEIGHT = 1.6
"""Height of the camera above the ground, in metres, where nothing says otherwise."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """What is known of the space behind one image."""

    depth: Float[Tensor, "h w"]
    """z in the camera frame, metres; +inf in the sky."""
    normals: Float[Tensor, "h w 3"]
    """Unit surface normals in the camera frame, towards the camera; (0, 0, -1) in the sky."""
    sky: Bool[Tensor, "h w"]
    """Pixels that show the sky."""
    px_from_cam: Float[Tensor, "3 3"]
    """Intrinsics, in pixels."""
    confidence: Float[Tensor, "h w"]
    """How far the depth can be trusted, 0 to 1."""
    scale: str
    """Where the metres come from, in plain words."""

    def __post_init__(self) -> None:
        check_shapes(
            self,
            depth=("h", "w"),
            normals=("h", "w", 3),
            sky=("h", "w"),
            px_from_cam=(3, 3),
            confidence=("h", "w"),
        )


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a depth estimator answers."""

    depth: Float[Tensor, "h w"]
    """z in the camera frame, metres; finite and positive everywhere, in the sky too."""
    confidence: Float[Tensor, "h w"]
    """How far the depth can be trusted, 0 to 1."""
    scale: str
    """Where the metres come from, in plain words."""

    def __post_init__(self) -> None:
        check_shapes(self, depth=("h", "w"), confidence=("h", "w"))


@runtime_checkable  # the test-time type checker needs it
class DepthEstimator(Protocol):
    """Depth from one image. Sky, edges and normals are found around it, alike for all."""

    def depth(
        self,
        rgb: Float[Tensor, "h w 3"],
        sky: Bool[Tensor, "h w"],
        px_from_cam: Float[Tensor, "3 3"],
        eye_height: float,
    ) -> Estimate:
        """Estimate depth.

        Args:
            rgb: Image, sRGB, 0 to 1.
            sky: Its sky, where depth means nothing.
            px_from_cam: Intrinsics, in pixels.
            eye_height: Height of the camera above the ground, in metres.
        """
        ...


def _needs(model: str) -> str | None:
    return None if models.is_present(model) else f"its weights ({model}) are not on this machine"


DEPTH_BACKENDS: dict[str, Backend] = {  # best first
    "fastdepth": Backend(
        "scenegen.geometry.fastdepth:FastDepth",
        lambda: _needs("fastdepth"),
        "run `scenegen models pull fastdepth`, or use --depth prior",
        "small network trained on rooms (NYU): right layout indoors, soft; poor outdoors",
    ),
    "prior": Backend(
        "scenegen.geometry.prior:PriorDepth",
        lambda: None,
        "",
        "no weights: a ground plane and upright surfaces that stand on it; crude",
    ),
}
