"""The contract of every renderer: splats and a camera in, an image out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from renderers.backends import Backend, choose
from renderers.camera import Camera
from renderers.errors import check_shapes
from renderers.splats import Splats

# Constants shared by all backends; they are gsplat's, so that pictures agree everywhere.
EPS2D = 0.3
"""Variance added to every projected splat, in square pixels: a low-pass filter."""
ALPHA_CUT = 1.0 / 255.0
"""A splat adds nothing to a pixel where its opacity is below this."""
ALPHA_MAX = 0.999
"""Opacity of one splat at one pixel never exceeds this."""
TRANSMITTANCE_STOP = 1e-4
"""A pixel is finished before the splat that would bring its transmittance down to this."""
NEAR = 0.01
"""Splats whose centre is nearer than this are not drawn, in metres."""
FOV_GUARD = 0.3
"""The projection is linearised at most this far outside the image, in units of tan(half fov)."""
DEPTH_ALPHA_MIN = 1e-3
"""Below this opacity a pixel's depth is unknown."""


@dataclass(frozen=True, eq=False)
class Render:
    """What a camera sees of a set of splats."""

    rgb: Float[Tensor, "h w 3"]
    """Colour over the background, sRGB, 0 to 1 for colours in that range."""
    alpha: Float[Tensor, "h w"]
    """Opacity, 0 (nothing there) to 1."""
    depth: Float[Tensor, "h w"]
    """Expected depth: z in the camera frame, metres, weighted as the colours are. NaN where
    ``alpha`` is below DEPTH_ALPHA_MIN."""

    def __post_init__(self) -> None:
        check_shapes(self, rgb=("h", "w", 3), alpha=("h", "w"), depth=("h", "w"))


@runtime_checkable  # the test-time type checker needs it
class Renderer(Protocol):
    """Turns splats into an image, by the constants above (Kerbl et al. 2023, eq. 3 and 5).

    Splats are blended front to back in order of the depth of their centres; ties break by row.
    Pure black background unless given. Zero splats give the background.
    """

    def render(
        self, splats: Splats, camera: Camera, background: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> Render:
        """Draw ``splats`` as ``camera`` sees them over ``background`` (sRGB)."""
        ...


def _no_cuda() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "torch sees no CUDA device"


RENDERERS: dict[str, Backend] = {  # best first
    "gsplat": Backend(
        "renderers.gsplat_cuda:GsplatRenderer",
        _no_cuda,
        "run on a machine with an NVIDIA GPU, or use --renderer cpu",
        "gsplat's CUDA rasteriser, differentiable",
    ),
    "cpu": Backend(
        "renderers.cpu.renderer:CpuRenderer",
        lambda: None,
        "",
        "tile rasteriser in numba, forward only",
    ),
    "reference": Backend(
        "renderers.reference:ReferenceRenderer",
        lambda: None,
        "",
        "dense float64 oracle for tests, differentiable, slow",
    ),
}


def make_renderer(name: str = "auto") -> Renderer:
    """A renderer by name, or the best one that runs here.

    Args:
        name: "auto", "gsplat", "cpu" or "reference".

    Raises:
        SceneError: The name is unknown or that renderer cannot run here.
    """
    return choose("renderer", RENDERERS, name)[1]()
