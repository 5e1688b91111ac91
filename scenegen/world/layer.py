"""The second layer: what continues behind the edges of a view, uncovered by a step aside.

After Shih et al. 2020 (3D Photography using Context-aware Layered Depth Inpainting), with two
layers: along each depth edge, as far as a step within the safe range can look behind it, colour
and depth of the far side go on behind the near one.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from renderers import Camera, join
from scenegen import outpaint, splatting
from scenegen.fields import pull_push
from scenegen.world.align import FARTHEST, Seen, rim_of
from scenegen.world.arrays import StepData
from scenegen.world.floor import SLACK, lowest
from scenegen.world.grow import as_levels
from scenegen.world.plan import safe_range

WINDOWS = (2, 4, 8, 16, 32, 64)
"""Distances from an edge that are looked at, in pixels."""
BEHIND = 1.03
"""What is uncovered lies farther by this factor at least: less is the relief of one surface."""
SPARE_PX = 24
"""So far into the near side nothing is shown to the outpainter: it shall continue the far one."""
LEAST = 200
"""Fewer pixels than this are not worth a layer."""


def behind_edges(
    rgb: Float[Tensor, "h w 3"],
    depth: Float[Tensor, "h w"],
    camera: Camera,
    *,
    outpaint_backend: str,
    seed: int,
    sky_radius: float,
    eye_height: float,
    prompt: str | None = None,
) -> StepData | None:
    """Splats behind the depth edges of a view, and the view without what stood before them.

    Args:
        rgb: The view.
        depth: Its depth in metres; +inf sky, NaN unknown.
        camera: Where it was taken.
        outpaint_backend: Who continues the colours.
        seed: For that.
        sky_radius: Radius of the sky's sphere, in metres.
        eye_height: How far the ground is below the camera, in metres.
        prompt: What to paint, in words, for backends that take a prompt.

    Returns:
        Depth and ``known`` only where something was put; None where nothing can be uncovered, or
        nothing may be invented.
    """
    band = uncovered(depth, camera)
    hole = band | _front_of(depth, band)
    rim = rim_of(torch.where(torch.isposinf(depth), FARTHEST, depth), hole)
    if int(band.sum()) < LEAST or not rim.any():
        return None
    ground = lowest(camera, Seen(camera, depth), eye_height)
    far = torch.minimum(_continued(depth, rim), ground)
    known = band & (far > BEHIND * depth) & (depth < ground / SLACK**2)  # ground hides nothing
    seen = torch.where(hole, math.nan, depth)
    done = outpaint.complete(rgb, ~hole, camera, seen, (), seed, outpaint_backend, prompt)
    known = known & done.invented
    if not known.any():
        return None
    painted = as_levels(done.rgb)
    splats = splatting.lift(painted, far, camera, known, sky_radius)
    coat = splatting.undercoat(painted, far, camera, known, sky_radius)
    return StepData(join([splats, coat]), painted, torch.where(known, far, math.nan), known)


def uncovered(depth: Float[Tensor, "h w"], camera: Camera) -> Bool[Tensor, "h w"]:
    """Pixels of the near side of an edge behind which a step within the safe range can look.

    A step of ``t`` metres shifts disparities ``d`` and ``e`` apart by ``f t (d - e)`` pixels: that
    is how far behind ``d`` it uncovers ``e``.
    """
    disparity = _disparity(depth)
    pixels = float(camera.px_from_cam[0, 0]) * safe_range(depth, camera)[0]
    band = torch.zeros_like(depth, dtype=torch.bool)
    nearer = 1  # what shifts by less opens no gap
    for window in WINDOWS:
        far = _smallest(disparity, window)
        band |= (pixels * (disparity - far) > nearer) & (disparity > BEHIND * far)
        nearer = window
    return band


def _front_of(depth: Float[Tensor, "h w"], band: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """More of the near side, further in."""
    disparity = _disparity(depth)
    around = _smallest(-band.float(), SPARE_PX) < 0
    return around & ~band & (disparity > BEHIND * _smallest(disparity, WINDOWS[-1] + SPARE_PX))


def _continued(depth: Float[Tensor, "h w"], rim: Bool[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Depth carried from the far side; sky where it is mostly sky around."""
    sky = torch.isposinf(depth)
    share = pull_push((rim & sky).float()[..., None], rim)[..., 0]
    surface = rim & ~sky
    if not surface.any():
        return torch.full_like(depth, math.inf)
    logs = torch.where(surface, torch.where(surface, depth, 1.0).log(), 0.0)
    carried = pull_push(logs[..., None], surface)[..., 0].exp()
    return torch.where(share > 0.5, math.inf, carried)


def _disparity(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    return torch.nan_to_num(1.0 / depth, nan=0.0, posinf=0.0)


def _smallest(values: Float[Tensor, "h w"], window: int) -> Float[Tensor, "h w"]:
    """The smallest value within so many pixels, along rows and columns."""
    size = 2 * window + 1
    rows = max_pool2d(-values[None, None], (1, size), 1, (0, window))
    return -max_pool2d(rows, (size, 1), 1, (window, 0))[0, 0]
