"""The floor: below the level ground that a photograph shows, nothing is invented."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import Camera
from scenegen.world.align import Seen

SLACK = 1.15
"""Ground may lie this much farther along a ray than a level floor: grounds are not quite level."""
LEAST = 0.04
"""A smaller share of a photograph's surfaces on a level floor is no floor."""
LOWEST_SKY = 0.98
"""Sky is said to reach as far down as this share of it does not exceed."""
BELOW, RARE = 1.5, 0.05
"""Where more than this share of a photograph's surfaces lies farther than the floor by the factor,
it looks down a slope or from a table, and nothing is said about a floor."""


def floor_depth(camera: Camera, height: float) -> Float[Tensor, "h w"]:
    """Depth of a level floor, in metres; +inf where a pixel does not look down on it.

    Args:
        camera: In the world, whose y points down.
        height: The floor's y, in metres: how far it is below the photograph's camera.
    """
    drop = height - float(camera.center[1])
    down = _rays(camera)[..., 1]
    return torch.where((down > 1e-6) & (drop > 0), drop / down.clamp_min(1e-6), torch.inf)


def lowest(camera: Camera, photo: Seen, height: float) -> Float[Tensor, "h w"]:
    """The farthest depth at which something may be invented; +inf where anything may.

    Args:
        camera: In the world.
        photo: What the photograph shows.
        height: How far the ground is below the photograph's camera, in metres.
    """
    anywhere = torch.full((camera.height, camera.width), torch.inf)
    if not _stands_on_floor(photo, height):
        return anywhere
    below = _steepness(camera) > _horizon(photo)
    return torch.where(below, SLACK * floor_depth(camera, height), anywhere)


def _horizon(photo: Seen) -> float:
    """How steeply down the photograph's sky reaches: its camera need not have been level."""
    sky = torch.isposinf(photo.depth)
    if not sky.any():
        return -torch.inf
    return float(torch.quantile(_steepness(photo.camera)[sky][::7], LOWEST_SKY))


def _steepness(camera: Camera) -> Float[Tensor, "h w"]:
    """Metres down for each metre away, of the ray through each pixel."""
    rays = _rays(camera)
    return rays[..., 1] / rays[..., [0, 2]].norm(dim=-1).clamp_min(1e-6)


def _rays(camera: Camera) -> Float[Tensor, "h w 3"]:
    """In the world, of depth 1."""
    pixels = camera.pixel_centers()
    return camera.unproject(pixels, torch.ones(pixels.shape[:-1])) - camera.center


def _stands_on_floor(photo: Seen, height: float) -> bool:
    surfaces = torch.isfinite(photo.depth)
    if not surfaces.any():
        return False
    farther = (photo.depth / floor_depth(photo.camera, height))[surfaces]
    on = (farther > 1 / SLACK) & (farther < SLACK)
    return float(on.float().mean()) >= LEAST and float((farther > BELOW).float().mean()) <= RARE
