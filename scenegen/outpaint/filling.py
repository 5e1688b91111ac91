"""The door to all outpainters: checks, prefill, and known pixels that come back untouched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from renderers import Camera, SceneError, choose
from scenegen.fields import pull_push
from scenegen.outpaint.base import OUTPAINTERS, Reference

GROW_PX = 5
"""The outpainter repaints this many known pixels around a hole, so that it never sees a blurred
rim; the originals are put back afterwards."""
FADE_PX = 16.0
"""Distance from the rim at which its colour difference has faded to 1/e, in pixels."""


def fill(
    rgb: Float[Tensor, "h w 3"] | Float[np.ndarray, "h w 3"],
    known: Bool[Tensor, "_ _"] | Bool[np.ndarray, "_ _"],
    camera: Camera | None = None,
    depth: Float[Tensor, "h w"] | None = None,
    references: Sequence[Reference] = (),
    seed: int = 0,
    backend: str = "auto",
) -> Float[Tensor, "h w 3"]:
    """Fill the unknown part of a view.

    Args:
        rgb: View, sRGB, 0 to 1. What unknown pixels hold does not matter. numpy is taken as well.
        known: Pixels to keep.
        camera: The view's camera, for outpainters that use geometry.
        depth: Depth of the known pixels, metres; NaN elsewhere.
        references: Past views of the same place, best first.
        seed: Same seed, same picture.
        backend: A name of ``OUTPAINTERS``, or "auto" for the best that runs here.

    Returns:
        The whole view; known pixels are bit-identical.

    Raises:
        SceneError: Shapes disagree, nothing at all is known, or the backend cannot run here.
    """
    rgb, known = torch.as_tensor(rgb, dtype=torch.float32), torch.as_tensor(known)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or known.shape != rgb.shape[:2]:
        raise SceneError(
            f"cannot outpaint an image of shape {tuple(rgb.shape)} "
            f"with a mask of shape {tuple(known.shape)}",
            why="the image must be (height, width, 3) and the mask (height, width)",
            fix="pass both on the same pixel grid",
        )
    known = known.bool() & torch.isfinite(rgb).all(-1)
    if known.all():
        return rgb.clone()
    if not known.any():
        raise SceneError(
            "cannot outpaint a view of which nothing is known",
            why="there is nothing to continue from",
            fix="turn or step less far, so that the view overlaps what exists",
        )
    _, outpainter = choose("outpaint", OUTPAINTERS, backend)
    sure = _eroded(known, GROW_PX)
    if not sure.any():
        sure = known
    prefilled = pull_push(torch.nan_to_num(rgb), sure).clamp(0.0, 1.0)
    with torch.no_grad():
        painted = outpainter().fill(prefilled, sure, camera, depth, references, seed)
    painted = _without_seam(painted, torch.nan_to_num(rgb), known & ~sure)
    return torch.where(known[..., None], rgb, painted.clamp(0.0, 1.0))


def _without_seam(
    painted: Float[Tensor, "h w 3"], rgb: Float[Tensor, "h w 3"], rim: Bool[Tensor, "h w"]
) -> Float[Tensor, "h w 3"]:
    """Carry the difference at the repainted rim into the hole, fading (Perez et al. 2003)."""
    if not rim.any():
        return painted
    offset = pull_push(rgb - painted, rim)
    distance = torch.from_numpy(distance_transform_edt(~rim.numpy())).float()
    return painted + offset * torch.exp(-distance / FADE_PX)[..., None]


def _eroded(known: Bool[Tensor, "h w"], pixels: int) -> Bool[Tensor, "h w"]:
    hole = (~known).float()[None, None]
    return torch.nn.functional.max_pool2d(hole, 2 * pixels + 1, 1, pixels)[0, 0] < 0.5
