"""A view of a growing world as the completion network sees it, and what comes of its answer."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera
from scenegen.geometry.completion import (
    CompletionNetwork,
    PartialView,
    corrected,
    load_completion_network,
)
from scenegen.models.shipped import BESIDE, shipped_path
from scenegen.world.align import Fit, continuation, inwardness, metres

CLOSE_SHARE = 0.03
"""A correction counts in full so far from the rim, as a share of the view's longer side."""
COMPLETION = "completion"
"""Name of the shipped weights."""


def completion_network(depth_backend: str) -> CompletionNetwork | None:
    """The shipped network; None for depth backends that it has never seen.

    Raises:
        SceneError: Its file is missing or damaged.
    """
    used = COMPLETION in BESIDE.get(depth_backend, ())
    return _load(shipped_path(COMPLETION)) if used else None


def known_continued(network: CompletionNetwork | None, view: PartialView) -> Float[Tensor, "h w"]:
    """Finite depth everywhere, in metres, meaningful inside the hole, and continuous at its rim.

    Without a network the view's own.
    """
    log_depth = view.continued if network is None else corrected(network, view).log_depth
    return metres(log_depth)


def partial_view(
    rgb: Float[Tensor, "h w 3"],
    estimated: Float[Tensor, "h w"],
    sky: Bool[Tensor, "h w"],
    known: Float[Tensor, "h w"],
    hole: Bool[Tensor, "h w"],
    camera: Camera,
    fit: Fit,
) -> PartialView:
    """A view with its depth continued as far as it goes without a network.

    Args:
        rgb: The filled view, 0 to 1.
        estimated: What its depth seems to be, metres; +inf in the sky.
        sky: What of it seems to be sky.
        known: Depth of the world, metres; what is not finite is not known.
        hole: Pixels to answer for.
        camera: Where it is taken from.
        fit: From :func:`scenegen.world.align.fit_depth`.
    """
    made = continuation(estimated, known, hole, fit)
    return PartialView(
        rgb=rgb,
        hole=hole,
        known=torch.log(known),
        fitted=made.fitted,
        membrane=made.membrane,
        continued=made.log_depth,
        inward=inwardness(hole, CLOSE_SHARE * max(hole.shape)),
        sky=sky,
        camera=camera,
    )


@lru_cache(maxsize=1)
def _load(path: Path) -> CompletionNetwork:
    """Kept: each view of a world needs it."""
    return load_completion_network(path)
