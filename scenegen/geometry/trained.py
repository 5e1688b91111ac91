"""The depth network that was trained for this project and is shipped with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from scenegen.geometry.base import Estimate
from scenegen.geometry.dinov2 import PATCH
from scenegen.geometry.dpt import DepthNetwork
from scenegen.geometry.ground import FARTHEST
from scenegen.geometry.relative import NEAREST, metric_depth
from scenegen.geometry.sky import seen_sky
from scenegen.geometry.weights import load_depth_network
from scenegen.models import shipped_path
from scenegen.stopping import checkpoint

AREA = 252 * 336
"""Pixels that the network looks at: as many as in its training."""
LOOKS = ((1.0, False), (0.7, True), (0.5, False), (0.35, True))
"""Shares of AREA at which it looks, and whether at the mirror image: the mistakes differ, and what
is large is understood better when it is small (Miangoleh et al. 2021)."""
FINE_LOOKS, LARGE = 2, 1 / 32
"""So many looks decide alone about what is smaller than this share of the longer side."""
SURELY_A_ROOM = 3.0
"""Where the logit of a room is higher, no sky is looked for: bright walls and panes pass for it."""
LEAST_BELIEF = 0.25
"""A sky by its colours in which the network sees one with less than this mean chance is none: walls
have such colours too. Of 17 photographs in which colours find one, three show walls and have at
most 0.06, one shows paper and has 0.27, and those with a sky have at least 0.32."""
FAR_SHARE = 0.02
"""This share of the surfaces counts as the farthest."""
BEYOND, BEYOND_OUTDOORS = 1.0, 0.1
"""The network leaves open where disparity is zero. It is put as far beyond the farthest surfaces
as these are beyond the median, times the first, or times the second where sky is seen."""


class TrainedDepth:
    """See :class:`scenegen.geometry.base.DepthEstimator`. Runs on a GPU where there is one.

    The image is looked at in several sizes, and the answers averaged.
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
        rooms: list[float] = []

        def say(image: Tensor) -> Tensor:
            said = self.network(image)
            rooms.append(float(said.indoors))
            return torch.stack([said.disparity, said.confidence.sigmoid(), said.sky.sigmoid()], 1)

        disparity, trust, chance = look(self.network, rgb, say)
        if sky.any() and float(chance[sky].mean()) < LEAST_BELIEF:
            sky = torch.zeros_like(sky)
        if not sky.any() and rooms[0] < SURELY_A_ROOM:
            # colours alone miss what is white, or narrow
            sky = seen_sky(rgb, chance)
        depth, scale = metric_depth(_from_zero(disparity, sky), sky, px_from_cam, eye_height)
        return Estimate(depth.clamp(NEAREST, FARTHEST), trust, scale, sky)


@torch.no_grad()
def look(
    network: DepthNetwork, rgb: Float[Tensor, "h w 3"], say: Callable[[Tensor], Tensor]
) -> Float[Tensor, "c h w"]:
    """What is said of an image, averaged over LOOKS; details are those of the finest.

    Args:
        network: Who is asked.
        rgb: Image of any size and shape.
        say: Planes (1, c, _, _) of an image (1, 3, _, _) that the network can look at.
    """
    answers = []
    for share, mirrored in LOOKS:
        said = say(_planes(network, rgb.flip(1) if mirrored else rgb, share * AREA))
        answers.append(_resized(said.flip(3) if mirrored else said, rgb.shape[:2]).cpu())
    fine, all_of_them = torch.cat(answers[:FINE_LOOKS]).mean(0), torch.cat(answers).mean(0)
    cell = LARGE * max(rgb.shape[:2])
    cells = [max(1, round(side / cell)) for side in rgb.shape[:2]]
    large = interpolate((all_of_them - fine)[None], cells, mode="area")
    return fine + _resized(large, rgb.shape[:2])[0]


def ask_base(network: DepthNetwork, rgb: Float[Tensor, "h w 3"]) -> Float[Tensor, "h w"]:
    """Disparity by the linear base alone, looked at in the same way: a baseline."""

    def say(image: Tensor) -> Tensor:
        rows, columns = image.shape[2] // PATCH, image.shape[3] // PATCH
        return network.base_alone(network.backbone(image), rows, columns)[:, :1]

    return look(network, rgb, say)[0]


def _planes(
    network: DepthNetwork, rgb: Float[Tensor, "h w 3"], area: float
) -> Float[Tensor, "1 3 _ _"]:
    """The image with about so many pixels, in whole patches, where the network is."""
    height, width = rgb.shape[:2]
    zoom = math.sqrt(area / (height * width))
    size = [max(1, round(zoom * side / PATCH)) * PATCH for side in (height, width)]
    planes = rgb.permute(2, 0, 1)[None].to(next(network.parameters()).device)
    return interpolate(planes, size, mode="bicubic", antialias=True).clamp(0, 1)


def _resized(planes: Float[Tensor, "1 c _ _"], size: Sequence[int]) -> Float[Tensor, "1 c _ _"]:
    return interpolate(planes, list(size), mode="bilinear")


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
