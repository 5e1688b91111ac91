"""Depth completion: what a small network changes about the depth that continues a known part.

A growing world knows the depth of a part of each view. The rest is continued: near the rim from
what is known, further in from a fitted estimate. The network sees all of that, and says how far
to trust which: smooth fields that weigh the fitted estimate, the membrane of the rim and the
relief against what was continued. It adds nothing of its own, so outlines stay those of the
estimate, and what it learnt in drawn rooms alone is not carried into real ones. A network whose
last convolution is zero changes nothing. What is known is never changed, and the correction fades
out at the rim.

All depth is in logarithms, and only differences reach the network: a world twice as large is
completed the same way.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, silu

from renderers import Camera
from scenegen.models.weights import load_network, pack_network

LONG_SIDE, STRIDE = 192, 16
"""Longer side of what the network looks at, and what both sides are multiples of, in pixels."""
LIMIT = 2.0
"""Differences of logarithms beyond this count as this."""
LOWEST_RAY = 0.03
"""Slope of a ray below the horizon at which level ground counts as far as it goes."""
PLANES, TERMS = 12, 3
"""Planes that the network sees, and fields that it answers, one for each part of a correction."""
GROUPS = 8
"""Channels are normalised in so many groups."""


@dataclass(frozen=True, eq=False)
class PartialView:
    """A view whose depth is known in part, and continued everywhere."""

    rgb: Float[Tensor, "h w 3"]
    """The filled view, 0 to 1."""
    hole: Bool[Tensor, "h w"]
    """Pixels whose depth is not known."""
    known: Float[Tensor, "h w"]
    """Logarithm of the known depth; what is not finite is not known either."""
    fitted: Float[Tensor, "h w"]
    """Logarithm of the estimate, fitted to the known depth; finite, as the next two."""
    membrane: Float[Tensor, "h w"]
    """Logarithm of the depth that continues the rim alone."""
    continued: Float[Tensor, "h w"]
    """Logarithm of the depth that is corrected."""
    inward: Float[Tensor, "h w"]
    """How far a correction counts: 0 outside the hole and at its rim, 1 well inside."""
    sky: Bool[Tensor, "h w"]
    """Pixels that look like sky."""
    camera: Camera
    """Upright where its world is."""


@dataclass(frozen=True, eq=False)
class Correction:
    """What a network says of a view."""

    log_depth: Float[Tensor, "h w"]
    """Logarithm of the corrected depth in the hole."""
    spread: Float[Tensor, "h w"]
    """Mean error that a whole correction is expected to have; of an unsure one little is taken."""


@dataclass(frozen=True)
class CompletionLayout:
    """Sizes of a completion network."""

    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Channels, fine to coarse; the first at half of LONG_SIDE."""


class Block(nn.Module):
    """Two convolutions, with what came in added."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, out, 3, padding=1)
        self.calm = nn.GroupNorm(min(GROUPS, out), out)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(channels, out, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.skip(x) + self.second(silu(self.calm(self.first(x))))


class CompletionNetwork(nn.Module):
    """A U-Net. Untrained, it corrects nothing."""

    def __init__(self, layout: CompletionLayout) -> None:
        super().__init__()
        self.layout = layout
        widths = layout.widths
        self.stem = nn.Conv2d(PLANES, widths[0], 5, 2, 2)
        self.down = nn.ModuleList(Block(a, b) for a, b in pairwise((widths[0], *widths)))
        self.up = nn.ModuleList(Block(a + b, a) for a, b in reversed(list(pairwise(widths))))
        self.last = nn.Conv2d(widths[0], TERMS + 1, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, planes: Float[Tensor, "b 12 h w"]) -> Float[Tensor, "b 4 _ _"]:
        """Weights of the terms, and the logarithm of the spread, at half the size."""
        x, kept = self.stem(planes), []
        for depth, block in enumerate(self.down):
            x = block(x if depth == 0 else nn.functional.avg_pool2d(x, 2))
            kept.append(x)
        for block, beside in zip(self.up, reversed(kept[:-1]), strict=True):
            x = block(torch.cat([interpolate(x, beside.shape[2:], mode="bilinear"), beside], 1))
        return self.last(silu(x))


def seen_planes(view: PartialView) -> Float[Tensor, "12 _ _"]:
    """What the network looks at, LONG_SIDE long.

    The last is `inward`; the 7th to 9th are the depth against its middle, and what the fitted
    estimate and the membrane are nearer or farther than it.
    """
    terms = correction_terms(view)
    known = ~view.hole & torch.isfinite(view.known)
    missed = torch.where(known, (view.known - view.fitted).nan_to_num(0.0), 0.0)
    whole = torch.where(known, view.known, view.continued) - middle_of(view)
    planes = torch.stack(
        [
            *(view.rgb.permute(2, 0, 1) - 0.5),
            view.hole.float(),
            known.float(),
            missed.clamp(-LIMIT, LIMIT),
            whole.clamp(-2 * LIMIT, 2 * LIMIT),
            terms[0],
            terms[1],
            level_ground(view.camera),
            view.sky.float(),
            view.inward,
        ]
    )
    zoom = LONG_SIDE / max(view.hole.shape) / STRIDE
    rows, columns = (max(1, round(zoom * side)) * STRIDE for side in view.hole.shape)
    small = adaptive_avg_pool2d(planes, (rows, columns))
    small[5] /= small[4].clamp_min(1e-3)  # the mean over known pixels only
    return small


def correction_terms(view: PartialView) -> Float[Tensor, "3 h w"]:
    """What the network weighs: the estimate and the membrane less the continued, the relief."""
    beside = [view.fitted - view.continued, view.membrane - view.continued]
    relief = view.fitted - middle_of(view)
    return torch.stack([*beside, relief]).clamp(-LIMIT, LIMIT)


def middle_of(view: PartialView) -> Float[Tensor, ""]:
    """Median of the known depth, or of the estimate where nothing is known."""
    known = view.known[~view.hole & torch.isfinite(view.known)]
    return known.median() if len(known) else view.fitted.median()


def level_ground(camera: Camera) -> Float[Tensor, "h w"]:
    """Logarithm of the depth of level ground one metre below the camera, as far as it is seen."""
    pixels = camera.pixel_centers()
    ray = camera.unproject(pixels, torch.ones(pixels.shape[:2])) - camera.center
    return -torch.log(ray[..., 1].clamp_min(LOWEST_RAY))


@torch.no_grad()
def corrected(network: CompletionNetwork, view: PartialView) -> Correction:
    """Ask the network about one view."""
    said = network(seen_planes(view)[None])
    weights = interpolate(said, view.hole.shape, mode="bilinear")[0]
    change = view.inward * (weights[:TERMS] * correction_terms(view)).sum(0)
    spread = torch.exp(weights[TERMS])
    return Correction(view.continued + trusted(change, spread), spread)


def trusted(
    change: Float[Tensor, "*size"], spread: Float[Tensor, "*size"]
) -> Float[Tensor, "*size"]:
    """As much of a correction as is sure: its square over its square and that of its spread."""
    return change**3 / (change**2 + spread**2)


def load_completion_network(path: Path) -> CompletionNetwork:
    """Read and verify a network; errors as :func:`scenegen.models.weights.load_network`."""

    def make(widths: list[int]) -> CompletionNetwork:
        return CompletionNetwork(CompletionLayout(tuple(widths)))

    return load_network(path, make)


def pack_completion_network(network: CompletionNetwork, about: dict[str, Any]) -> tuple[bytes, str]:
    """The two files of a network; see :func:`scenegen.models.weights.pack_network`."""
    return pack_network(network, network.layout, about)
