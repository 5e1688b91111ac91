"""The door to all outpainters: checks, memory first, and known pixels that come back untouched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera, SceneError
from scenegen.fields import pull_push
from scenegen.outpaint.base import Outpainter, Reference, choose_outpainter
from scenegen.outpaint.composite import Composite, Verdict, composite
from scenegen.outpaint.detail import with_detail
from scenegen.outpaint.seams import along, continued_colors, with_grain
from scenegen.stopping import checkpoint

GROW_PX = 5
"""The outpainter repaints this many known pixels around a hole, so that it never sees a blurred
rim; the originals are put back afterwards."""


@dataclass(frozen=True, eq=False)
class Completed:
    """A view whose hole was filled, and where each of its pixels comes from."""

    rgb: Float[Tensor, "h w 3"]
    """The view, sRGB, 0 to 1; 0 where it is still unknown."""
    remembered: Bool[Tensor, "h w"]
    """Pixels of the hole that past views show."""
    invented: Bool[Tensor, "h w"]
    """Pixels of the hole that the outpainter made up."""
    depth: Float[Tensor, "h w"]
    """Depth of the remembered pixels, metres; +inf in the sky, NaN elsewhere."""
    verdicts: tuple[Verdict, ...]
    """What came of each past view, in their order; empty without a camera."""


def fill(
    rgb: Float[Tensor, "h w 3"] | Float[np.ndarray, "h w 3"],
    known: Bool[Tensor, "_ _"] | Bool[np.ndarray, "_ _"],
    camera: Camera | None = None,
    depth: Float[Tensor, "h w"] | None = None,
    references: Sequence[Reference] = (),
    seed: int = 0,
    backend: str = "auto",
    prompt: str | None = None,
) -> Float[Tensor, "h w 3"]:
    """The picture of :func:`complete`; arguments and errors as there."""
    return complete(rgb, known, camera, depth, references, seed, backend, prompt).rgb


def complete(
    rgb: Float[Tensor, "h w 3"] | Float[np.ndarray, "h w 3"],
    known: Bool[Tensor, "_ _"] | Bool[np.ndarray, "_ _"],
    camera: Camera | None = None,
    depth: Float[Tensor, "h w"] | None = None,
    references: Sequence[Reference] = (),
    seed: int = 0,
    backend: str = "auto",
    prompt: str | None = None,
) -> Completed:
    """Fill the unknown part of a view: from past views first, the rest is invented.

    Args:
        rgb: View, sRGB, 0 to 1. What unknown pixels hold does not matter. numpy is taken as well.
        known: Pixels to keep.
        camera: The view's camera. Without it, past views are only a source of textures.
        depth: Depth of the known pixels, metres; NaN elsewhere. Past views that contradict it are
            not used.
        references: Past views of the same place, best first.
        seed: Same seed, same picture.
        backend: A name that :func:`scenegen.outpaint.choose_outpainter` takes.
        prompt: What to paint, in words, for backends that take a prompt.

    Returns:
        The view; known pixels are bit-identical.

    Raises:
        SceneError: Shapes disagree, nothing at all is known, the backend cannot run here, or
            takes no prompt.
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
    nothing, unknown = torch.zeros_like(known), torch.full(known.shape, torch.nan)
    if known.all():
        return Completed(rgb.clone(), nothing, nothing, unknown, ())
    if not known.any():
        raise SceneError(
            "cannot outpaint a view of which nothing is known",
            why="there is nothing to continue from",
            fix="turn or step less far, so that the view overlaps what exists",
        )
    outpainter = choose_outpainter(backend, prompt)[1]()
    picture, remembered, verdicts = torch.nan_to_num(rgb), nothing, ()
    if camera is not None and references:
        past = composite(picture, known, camera, depth, references)
        picture, remembered = _recalled(picture, known, past)
        unknown, verdicts = torch.where(remembered, past.depth, unknown), past.verdicts
        depth = None if depth is None else torch.where(remembered, past.depth, depth)
        references = [v for v, said in zip(references, verdicts, strict=True) if not said.rejected]
    checkpoint()
    explained, invented = known | remembered, nothing
    if not explained.all():
        painted = _painted(outpainter, picture, explained, camera, depth, references, seed)
        checkpoint()
        invented = torch.isfinite(painted).all(-1) & ~explained
        picture = torch.where(invented[..., None], painted, picture)
        picture = with_detail(picture.clamp(0.0, 1.0), known, invented)
        picture = with_grain(picture, known, invented, seed).clamp(0.0, 1.0)
    picture = torch.where((explained | invented)[..., None], picture, 0.0)
    picture = torch.where(known[..., None], rgb, picture)
    return Completed(picture, remembered, invented, unknown, verdicts)


def _recalled(
    rgb: Float[Tensor, "h w 3"], known: Bool[Tensor, "h w"], past: Composite
) -> tuple[Float[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
    """The picture with what past views show in its hole, and which pixels these are."""
    remembered = past.valid & ~known
    rim = along(known, 1) & past.valid
    fitted = continued_colors(past.rgb, rgb, rim).clamp(0.0, 1.0)
    return torch.where(remembered[..., None], fitted, rgb), remembered


def _painted(
    outpainter: Outpainter,
    rgb: Float[Tensor, "h w 3"],
    known: Bool[Tensor, "h w"],
    camera: Camera | None,
    depth: Float[Tensor, "h w"] | None,
    references: Sequence[Reference],
    seed: int,
) -> Float[Tensor, "h w 3"]:
    """The whole view from an outpainter, matched to what is known."""
    sure = known & ~along(known, GROW_PX)
    if not sure.any():
        sure = known
    prefilled = pull_push(rgb, sure).clamp(0.0, 1.0)
    checkpoint()
    with torch.no_grad():
        painted = outpainter.fill(prefilled, sure, camera, depth, references, seed)
    checkpoint()
    rim = along(known, 1) & torch.isfinite(painted).all(-1)
    return continued_colors(painted, rgb, rim)
