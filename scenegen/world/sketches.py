"""What a view of a world is made of: shares of seen, invented and unknown; and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import Camera, Render, Renderer, Splats, join
from renderers.surfels import render_surfels
from scenegen.geometry.normals import disparity_normals
from scenegen.world.grow import COVERED, sky_depth
from spatial_memory import ViewMemory

SEEN, NEWEST, LATEST = (0.22, 0.55, 0.92), (1.0, 0.86, 0.35), (0.82, 0.16, 0.12)
"""Colours of what was photographed, of what was invented first, and of what was invented last."""
SKY, NOTHING = (0.62, 0.76, 0.92), (0.12, 0.12, 0.13)
NEAR_TO_FAR = ((0.99, 0.91, 0.15), (0.37, 0.79, 0.38), (0.13, 0.57, 0.55), (0.27, 0.0, 0.33))
"""Colours of depth, near to far, on a logarithmic scale (after viridis)."""


@dataclass(frozen=True, eq=False)
class Scenery:
    """The splats of a world at one moment, and where each comes from. Never changes."""

    splats: Splats
    age: Float[Tensor, " n"]
    """0: photographed; above 0 to 1: invented, in the order of the steps."""
    sky_radius: float
    """Radius of the sky's sphere, in metres."""

    @classmethod
    def of(cls, chunks: Sequence[Splats], provenances: Sequence[str], sky_radius: float) -> Scenery:
        """From the chunks of the steps, and their provenance ("observed" or another)."""
        invented = [name != "observed" for name in provenances]
        total, rank, ages = max(1, sum(invented)), 0, []
        for chunk, new in zip(chunks, invented, strict=True):
            rank += new
            ages.append(torch.full((len(chunk),), rank / total if new else 0.0))
        return cls(join(chunks), torch.cat(ages) if ages else torch.zeros(0), sky_radius)


@dataclass(frozen=True)
class Shares:
    """Shares of a view's pixels, 0 to 1; they add up to 1."""

    seen: float
    """Mostly photographed."""
    invented: float
    unknown: float
    """Nothing is there: what growth would fill."""


def shares_of(scenery: Scenery, camera: Camera, renderer: Renderer) -> Shares:
    """What a view is made of."""
    new = (scenery.age > 0).float()
    marked = replace(scenery.splats, colors=torch.stack([new, new, new], dim=1), sh=None)
    render = renderer.render(marked, camera)
    known = render.alpha >= COVERED
    invented = known & (render.rgb[..., 0] > 0.5 * render.alpha)
    shares = [float(mask.float().mean()) for mask in (known & ~invented, invented, ~known)]
    return Shares(*shares)


def sketch(
    kind: str, scenery: Scenery, memory: ViewMemory, camera: Camera, renderer: Renderer
) -> Float[Tensor, "h w 3"]:
    """A picture of one side of the world.

    Args:
        kind: "colour"; "depth", near is bright; "normals", where surfaces face; "provenance",
            blue was photographed and yellow to red invented, the redder the later; or "surfels",
            what the memory holds.
        scenery: The world.
        memory: Its memory, for surfels. Not while another thread writes to it.
        camera: The view.
        renderer: Draws it.
    """
    if kind == "surfels":
        return _surfels(memory, camera)
    splats = scenery.splats
    if kind == "provenance":
        splats = replace(splats, colors=_heat(scenery.age), sh=None)
    render = renderer.render(splats, camera, NOTHING)
    if kind == "depth":
        return _depth(render, scenery.sky_radius)
    if kind == "normals":
        return _normals(render, camera, scenery.sky_radius)
    return render.rgb.clamp(0.0, 1.0)


SKETCHES = ("colour", "depth", "normals", "provenance", "surfels")
"""Kinds of :func:`sketch`."""


def _heat(age: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    first, last = torch.tensor(NEWEST), torch.tensor(LATEST)
    warm = first + age[:, None] * (last - first)
    return torch.where(age[:, None] > 0, warm, torch.tensor(SEEN))


def _depth(render: Render, sky_radius: float) -> Float[Tensor, "h w 3"]:
    depth = sky_depth(render.depth, sky_radius)
    known = (render.alpha >= COVERED) & torch.isfinite(depth)
    picture = torch.tensor(NOTHING).expand(*depth.shape, 3).clone()
    picture[(render.alpha >= COVERED) & torch.isposinf(depth)] = torch.tensor(SKY)
    if known.any():
        logs = depth[known].log()
        low, high = torch.quantile(
            logs[:: max(1, len(logs) // 100_000)], torch.tensor([0.02, 0.98])
        )
        place = ((logs - low) / (high - low).clamp_min(1e-6)).clamp(0.0, 1.0)
        picture[known] = _ramp(place)
    return picture


def _ramp(place: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    colors = torch.tensor(NEAR_TO_FAR)
    at = place * (len(colors) - 1)
    below = at.floor().long().clamp_max(len(colors) - 2)
    return torch.lerp(colors[below], colors[below + 1], (at - below)[:, None])


def _normals(render: Render, camera: Camera, sky_radius: float) -> Float[Tensor, "h w 3"]:
    depth = sky_depth(render.depth, sky_radius)
    known = (render.alpha >= COVERED) & torch.isfinite(depth)
    normals = disparity_normals(torch.where(known, depth, math.inf), camera.px_from_cam)
    shown = 0.5 + 0.5 * normals * torch.tensor([1.0, -1.0, -1.0])
    return torch.where(known[..., None], shown, torch.tensor(NOTHING))


def _surfels(memory: ViewMemory, camera: Camera) -> Float[Tensor, "h w 3"]:
    held = memory.surfels
    points, normals, radii = map(torch.from_numpy, (held.points, held.normals, held.radii))
    seen = render_surfels(points, normals, radii, camera, backs=True)
    colors = torch.from_numpy(held.colors.copy())
    light = (0.35 + 0.65 * seen.cos.abs())[..., None]
    if not len(colors):
        return torch.tensor(NOTHING).expand(camera.height, camera.width, 3).clone()
    shown = colors[seen.ids.clamp_min(0)] * light
    back = torch.tensor((0.45, 0.25, 0.45)) * light
    shown = torch.where(seen.cos[..., None] > 0, shown, back)
    return torch.where(seen.ids[..., None] >= 0, shown, torch.tensor(NOTHING)).clamp(0.0, 1.0)
