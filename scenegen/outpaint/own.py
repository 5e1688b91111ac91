"""The outpainting network that was trained for this project and is shipped with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate, pad

from renderers import Camera
from scenegen.models import shipped_path
from scenegen.outpaint.anchors import anchored
from scenegen.outpaint.base import Reference
from scenegen.outpaint.network import DEEPEST, OutpaintNetwork, Separable
from scenegen.outpaint.parts import Part
from scenegen.outpaint.sides import geometry_inputs
from scenegen.outpaint.weights import load_outpaint_network
from scenegen.stopping import checkpoint

TALL = 512
"""Views are stretched to this height at least, the only one that MI-GAN ever saw. Hidden right
quarters of 14 photographs, untrained: LPIPS .137, as they are .140, stretched to a square .138."""

EDGE = 2
"""Known pixels around a hole that are painted as well: its rim, and what stretching mixes."""


class OwnNetwork:
    """Fills from the view and, where there is depth, its geometry. The seed changes nothing.

    Runs on a GPU where there is one. What past views show is known to it already.
    """

    def __init__(self) -> None:
        self.network = _load(shipped_path("outpaint"))

    def fill(
        self,
        rgb: Float[Tensor, "h w 3"],
        known: Bool[Tensor, "h w"],
        camera: Camera | None,
        depth: Float[Tensor, "h w"] | None,
        references: Sequence[Reference],
        seed: int,
    ) -> Float[Tensor, "h w 3"]:
        laid = anchored(known)
        planes = [2 * laid.spread(rgb).permute(2, 0, 1) - 1, laid.spread(known)[None].float()]
        if camera is not None and depth is not None:
            planes.append(geometry_inputs(laid.spread(depth), laid.camera(camera)))
        return laid.gathered(ask(self.network, *planes), rgb)


@torch.no_grad()
def ask(
    network: OutpaintNetwork,
    picture: Float[Tensor, "3 h w"],
    known: Float[Tensor, "1 h w"],
    side: Float[Tensor, "8 h w"] | None = None,
) -> Float[Tensor, "h w 3"]:
    """The view, 0 to 1, painted by the network where it is unknown and EDGE pixels around that.

    The view may be of any size; arguments are the network's.
    """
    height, width = picture.shape[1:]
    tall = max(TALL, -(-height // DEEPEST) * DEEPEST)
    more = -width % DEEPEST
    device = next(network.parameters()).device
    planes = []
    for plane, mode in ((picture, "bilinear"), (known, "nearest-exact"), (side, "nearest-exact")):
        if plane is not None:
            stretched = interpolate(plane[None], (tall, width), mode=mode)
            placed = pad(stretched, (more // 2, more - more // 2))
            planes.append(placed.to(device, memory_format=torch.channels_last))
    hole = Part.around(known[0] < 1).grown(EDGE, Part.whole(known))
    top, bottom = hole.top * tall // height, -(-hole.bottom * tall // height)
    wanted = Part(top, bottom, hole.left + more // 2, hole.right + more // 2)
    view = planes[0].cpu()
    wanted.cut(view, Part.whole(view)).copy_(network(*planes, wanted=wanted))
    view = view[..., more // 2 : more // 2 + width]
    view = interpolate(view, (height, width), mode="bilinear", antialias=True)[0]
    return ((view + 1) / 2).clamp(0.0, 1.0).permute(1, 2, 0)


@lru_cache(maxsize=1)
def _load(path: Path) -> OutpaintNetwork:
    """The network, ready to answer. Kept: each view of a world needs it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network: Any = load_outpaint_network(path)  # Any: torch types no memory format here
    for part in network.modules():
        if isinstance(part, Separable):  # a view takes seconds: nobody waits for all of it
            part.register_forward_pre_hook(lambda *_: checkpoint())
    return network.to(device, memory_format=torch.channels_last)
