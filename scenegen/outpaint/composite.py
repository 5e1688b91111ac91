"""What past views show of a target view, merged in 3D: remembered pixels are never invented anew.

Each view is drawn as the target would see it (:mod:`scenegen.outpaint.warping`), judged where it
overlaps what is known, brought to the target's exposure there, and put into a z-buffer with the
others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from renderers import Camera
from scenegen.outpaint.base import Reference
from scenegen.outpaint.warping import Warp, warp

SAME_SURFACE = 0.15
"""Depths whose logarithms differ by less than this are one surface seen twice."""
IN_FRONT = 0.05
"""Of several surfaces on a ray, those within this share of the nearest depth count as the nearest;
the best view among them gives the colour."""
MAX_DIFFERENCE = 30 / 255
"""A view whose colours, exposure aside, differ more than this from what is known is rejected."""
DECIDES = 0.005
"""Share of the target that must overlap for depths and colours to be compared; with less, the
poses alone speak for a view."""
LEAST_SAME = 0.4
"""Share of the overlap that must show the surfaces that are known. Views of the place show 0.9 of
it and more, unless they look past what the target sees; views of other places 0.3 at most."""
LOOSE_PX = 2
"""Colours are compared as means over windows of this radius: depth is never quite right."""
GAINS = (0.5, 2.0)
"""Range of exposure gains, per channel."""
MEASURABLE = (0.04, 0.98)
"""Colours outside of this range are too dark or clipped, and tell no gain."""


@dataclass(frozen=True)
class Verdict:
    """What came of one past view."""

    reason: str
    """What was found, in plain words."""
    used: bool = False
    """Whether it shows part of the hole, and is believed."""
    rejected: bool = False
    """Whether it contradicts what is known."""
    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Factors that brought its colours to the target's exposure."""


@dataclass(frozen=True, eq=False)
class Composite:
    """All views that are believed, together, on the target's pixels."""

    rgb: Float[Tensor, "h w 3"]
    """0 where nothing is shown."""
    depth: Float[Tensor, "h w"]
    """z in the target, metres; +inf in the sky, NaN where nothing is shown."""
    source: Int64[Tensor, "h w"]
    """Which of the views each pixel comes from; -1 where none shows it."""
    verdicts: tuple[Verdict, ...]
    """One for each view, in their order."""

    @property
    def valid(self) -> Bool[Tensor, "h w"]:
        """Pixels that some view shows."""
        return self.source >= 0


def composite(
    rgb: Float[Tensor, "h w 3"],
    known: Bool[Tensor, "h w"],
    camera: Camera,
    depth: Float[Tensor, "h w"] | None,
    references: Sequence[Reference],
) -> Composite:
    """Merge past views for a target.

    Args:
        rgb: The target, as far as it is known.
        known: Its known pixels.
        camera: Its camera.
        depth: Its depth where known, metres; without it, views are judged by colours alone.
        references: Past views, best first.
    """
    warps, verdicts = [], []
    for view in references:
        drawn = warp(view, camera)
        verdict = _judged(drawn, rgb, known, depth)
        verdicts.append(verdict)
        if verdict.used:
            warps.append((len(verdicts) - 1, drawn, torch.tensor(verdict.gain)))
    nearest = torch.full(known.shape, torch.inf)
    nearest_back = nearest.clone()
    for _, drawn, _ in warps:
        nearest = torch.minimum(nearest, torch.nan_to_num(drawn.depth, nan=torch.inf))
        nearest_back = torch.minimum(nearest_back, drawn.back)
    # What a view has seen from the other side hides what lies behind it.
    hidden = nearest_back < (1 - SAME_SURFACE) * nearest
    colors, surface = torch.zeros_like(rgb), torch.full(known.shape, torch.nan)
    source = torch.full(known.shape, -1)
    for index, drawn, gain in reversed(warps):
        near = drawn.valid & ~hidden & (drawn.depth <= (1 + IN_FRONT) * nearest)
        colors = torch.where(near[..., None], (drawn.rgb * gain).clamp(0.0, 1.0), colors)
        surface, source = torch.where(near, drawn.depth, surface), torch.where(near, index, source)
    return Composite(colors, surface, source, tuple(verdicts))


def _judged(
    drawn: Warp,
    rgb: Float[Tensor, "h w 3"],
    known: Bool[Tensor, "h w"],
    depth: Float[Tensor, "h w"] | None,
) -> Verdict:
    """Whether a view agrees with what is known, and the gain that makes its exposure agree."""
    helps = bool((drawn.valid & ~known).any())
    overlap = drawn.valid & known
    if float(overlap.sum()) < DECIDES * known.numel():
        return Verdict("it overlaps too little to compare", used=helps)
    same = overlap
    if depth is not None:
        ratio = torch.log(drawn.depth / depth)  # NaN in the sky of both: infinity over infinity
        both_sky = torch.isposinf(drawn.depth) & torch.isposinf(depth)
        same = overlap & ((ratio.abs() < SAME_SURFACE) | both_sky)
        share = float(same.sum() / overlap.sum())
        if share < LEAST_SAME:
            why = f"only {share:.0%} of what it shows of the known part are the same surfaces"
            return Verdict(why, rejected=True)
    gain = _gain(drawn.rgb[same], rgb[same])
    ours, theirs = (_window_means(v, same) for v in (rgb, drawn.rgb * torch.tensor(gain)))
    difference = float((ours - theirs).abs()[same].mean())
    levels = f"{255 * difference:.0f} levels"
    if difference > MAX_DIFFERENCE:
        return Verdict(
            f"its colours differ by {levels} where it overlaps", rejected=True, gain=gain
        )
    return Verdict(f"its colours agree within {levels} where it overlaps", used=helps, gain=gain)


def _gain(theirs: Float[Tensor, "n 3"], ours: Float[Tensor, "n 3"]) -> tuple[float, float, float]:
    """Median ratio per channel. An exposure multiplies sRGB values nearly as it does light."""
    low, high = MEASURABLE
    gains = []
    for channel in range(3):
        a, b = theirs[:, channel], ours[:, channel]
        clear = (a > low) & (b > low) & (a < high) & (b < high)
        ratio = float((b[clear] / a[clear]).median()) if clear.any() else 1.0
        gains.append(min(max(ratio, GAINS[0]), GAINS[1]))
    return (gains[0], gains[1], gains[2])


def _window_means(image: Float[Tensor, "h w 3"], use: Bool[Tensor, "h w"]) -> Tensor:
    """Means of the pixels in use over small windows."""
    planes = torch.cat([torch.where(use[..., None], image, 0.0), use[..., None].float()], -1)
    size = 2 * LOOSE_PX + 1
    sums = avg_pool2d(planes.permute(2, 0, 1)[None], size, 1, LOOSE_PX)[0].permute(1, 2, 0)
    return sums[..., :3] / sums[..., 3:].clamp_min(1e-6)
