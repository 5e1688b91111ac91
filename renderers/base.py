"""The contract of every renderer: splats and a camera in, an image out."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
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
MEDIAN_ALPHA = 0.5
"""The median depth is that of the splat which brings a pixel's opacity to this."""


@dataclass(frozen=True, eq=False)
class Render:
    """What a camera sees of a set of splats."""

    rgb: Float[Tensor, "h w 3"]
    """Colour over the background, sRGB, 0 to 1 for colours in that range."""
    alpha: Float[Tensor, "h w"]
    """Opacity, 0 (nothing there) to 1."""
    depth: Float[Tensor, "h w"]
    """Expected depth: z in the camera frame, metres, weighted as the colours are. NaN where
    ``alpha`` is not above DEPTH_ALPHA_MIN."""
    details: Details | None = None
    """What was in front, where the picture was asked for with ``details=True``."""

    def __post_init__(self) -> None:
        check_shapes(self, rgb=("h", "w", 3), alpha=("h", "w"), depth=("h", "w"))


@dataclass(frozen=True, eq=False)
class Details:
    """Which splats a picture shows. Carries no gradient."""

    median_depth: Float[Tensor, "h w"]
    """Depth of the nearest splat at which the opacity, added up from the front, reaches
    MEDIAN_ALPHA: unlike the expected depth never between two surfaces. Metres; NaN where the
    opacity stays below."""
    top_ids: Int64[Tensor, "h w"]
    """Row of the splat with the greatest weight, the nearest of equals; -1 where there is none."""
    top_weights: Float[Tensor, "h w"]
    """Share of that splat in the pixel, 0 to 1: its alpha times what shines through to it."""

    def __post_init__(self) -> None:
        check_shapes(self, median_depth=("h", "w"), top_ids=("h", "w"), top_weights=("h", "w"))


@runtime_checkable  # the test-time type checker needs it
class Renderer(Protocol):
    """Turns splats into an image, by the constants above (Kerbl et al. 2023, eq. 3 and 5).

    Splats are blended front to back in order of the depth of their centres; ties break by row.
    Pure black background unless given. Zero splats give the background. Differentiable in every
    field of the splats and in the camera's pose.
    """

    def render(
        self,
        splats: Splats,
        camera: Camera,
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> Render:
        """Draw ``splats`` as ``camera`` sees them over ``background`` (sRGB).

        Args:
            splats: What exists. Rows that are not :attr:`Splats.drawable` are left out.
            camera: Where it is seen from.
            background: What shines through where nothing is opaque.
            antialiased: Fade splats that the low-pass filter EPS2D widens, so that they keep
                their light when seen from afar (Yu et al. 2024, Mip-Splatting, eq. 9).
            details: Also say what is in front, see :class:`Details`.
        """
        ...

    def render_batch(
        self,
        splats: Splats,
        cameras: Sequence[Camera],
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> list[Render]:
        """One picture per camera, as :meth:`render` draws them. Sizes may differ."""
        ...


def _no_cuda() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    built = importlib.util.find_spec("gsplat.csrc") or shutil.which("nvcc")
    return None if built else "gsplat comes without kernels, and there is no nvcc to build them"


RENDERERS: dict[str, Backend] = {  # best first
    "gsplat": Backend(
        "renderers.gsplat_cuda:GsplatRenderer",
        _no_cuda,
        "run on a machine with an NVIDIA GPU and the CUDA toolkit, or use --renderer cpu",
        "gsplat's CUDA rasteriser, differentiable",
    ),
    "cpu": Backend(
        "renderers.cpu.renderer:CpuRenderer",
        lambda: None,
        "",
        "tile rasteriser in numba, differentiable",
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
