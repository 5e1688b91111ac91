"""The depth network that was trained for this project and is shipped with it."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from scenegen.geometry.base import Estimate
from scenegen.geometry.dinov2 import PATCH
from scenegen.geometry.dpt import DepthNetwork, DepthPrediction
from scenegen.geometry.ground import FARTHEST
from scenegen.geometry.relative import NEAREST, metric_depth
from scenegen.geometry.sky import seen_sky
from scenegen.geometry.weights import load_depth_network
from scenegen.models import shipped_path
from scenegen.stopping import checkpoint

AREA = 252 * 336
"""Pixels that the network looks at: as many as in its training."""
SURELY_A_ROOM = 3.0
"""Where the logit of a room is higher, no sky is looked for: bright walls and panes pass for it."""
FAR_SHARE = 0.02
"""This share of the surfaces counts as the farthest."""
BEYOND, BEYOND_OUTDOORS = 1.0, 0.1
"""The network leaves open where disparity is zero. It is put as far beyond the farthest surfaces
as these are beyond the median, times the first, or times the second where sky is seen."""


class TrainedDepth:
    """See :class:`scenegen.geometry.base.DepthEstimator`. Runs on a GPU where there is one.

    The image and its mirror image are asked, and the answers averaged: mistakes differ.
    """

    def __init__(self) -> None:
        self.network = _load(shipped_path("depth"))

    def depth(
        self,
        rgb: Float[Tensor, "h w 3"],
        sky: Bool[Tensor, "h w"],
        px_from_cam: Float[Tensor, "3 3"],
        eye_height: float,
    ) -> Estimate:
        said, mirrored = ask(self.network, rgb), ask(self.network, rgb.flip(1))
        disparity, trust, chance = (
            interpolate(
                0.5 * (plane + other.flip(2))[:, None].cpu(), rgb.shape[:2], mode="bilinear"
            )[0, 0]
            for plane, other in (
                (said.disparity, mirrored.disparity),
                (said.confidence.sigmoid(), mirrored.confidence.sigmoid()),
                (said.sky.sigmoid(), mirrored.sky.sigmoid()),
            )
        )
        if not sky.any() and float(said.indoors) < SURELY_A_ROOM:
            # colours alone miss what is white, or narrow
            sky = seen_sky(rgb, chance)
        depth, scale = metric_depth(_from_zero(disparity, sky), sky, px_from_cam, eye_height)
        return Estimate(depth.clamp(NEAREST, FARTHEST), trust, scale, sky)


@torch.no_grad()
def ask(network: DepthNetwork, rgb: Float[Tensor, "h w 3"]) -> DepthPrediction:
    """What the network says of one image of any size and shape."""
    return network(_planes(network, rgb))


@torch.no_grad()
def ask_base(network: DepthNetwork, rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "1 _ _"]:
    """Disparity by the linear base alone: a baseline."""
    planes = _planes(network, rgb)
    rows, columns = planes.shape[2] // PATCH, planes.shape[3] // PATCH
    return network.base_alone(network.backbone(planes), rows, columns)[:, 0]


def _planes(network: DepthNetwork, rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "1 3 _ _"]:
    """The image at the size that the network looks at, where the network is."""
    height, width = rgb.shape[:2]
    zoom = math.sqrt(AREA / (height * width))
    size = [max(1, round(zoom * side / PATCH)) * PATCH for side in (height, width)]
    planes = rgb.permute(2, 0, 1)[None].to(next(network.parameters()).device)
    return interpolate(planes, size, mode="bicubic", antialias=True).clamp(0, 1)


def _from_zero(disparity: Float[Tensor, "h w"], sky: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Disparity whose zero, which the network leaves open, is supposed."""
    surfaces = disparity[~sky] if bool((~sky).any()) else disparity.flatten()
    far, middle = surfaces.quantile(torch.tensor([FAR_SHARE, 0.5]))
    beyond = BEYOND_OUTDOORS if sky.any() else BEYOND
    return (disparity - far + beyond * (middle - far)).clamp_min(1e-3 * (middle - far))


@lru_cache(maxsize=1)
def _load(path: Path) -> DepthNetwork:
    """The network, ready to answer. Kept: each view of a world needs it."""
    network = load_depth_network(path)
    for part in (*network.backbone.blocks, *network.head.modules()):  # a look takes seconds
        part.register_forward_pre_hook(lambda *_: checkpoint())
    return network.to("cuda" if torch.cuda.is_available() else "cpu")
