"""The floor: below the ground that a photograph shows, nothing is invented.

It is level, or sinks all round as a cone does, down to a horizon where the sky of a photograph ends
that was taken with the camera held upwards: the world takes such a camera for level.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import Camera
from scenegen.geometry.ground import horizon_row
from scenegen.world.align import Seen

SLACK = 1.15
"""Ground may lie this much farther along a ray than a level floor: grounds are not quite level."""
LEAST = 0.04
"""A smaller share of a photograph's surfaces on a level floor is no floor."""
BELOW, RARE = 1.5, 0.05
"""Where more than this share of a photograph's surfaces lies farther than the floor by the factor,
it looks down a slope or from a table, and nothing is said about a floor."""


def floor_depth(camera: Camera, height: float, slope: float = 0.0) -> Float[Tensor, "h w"]:
    """Depth of the floor, in metres; +inf where a pixel does not look down on it.

    Args:
        camera: In the world, whose y points down.
        height: The floor's y at the origin, in metres: how far it is below the photograph's camera.
        slope: How far it sinks for each metre away from there.
    """
    x, y, z = camera.center.tolist()
    drop = height + slope * math.hypot(x, z) - y
    rays = _rays(camera)
    down = rays[..., 1] - slope * rays[..., [0, 2]].norm(dim=-1)
    return torch.where((down > 1e-6) & (drop > 0), drop / down.clamp_min(1e-6), torch.inf)


def lowest(camera: Camera, photo: Seen, height: float) -> Float[Tensor, "h w"]:
    """The farthest depth at which something may be invented; +inf where anything may.

    Args:
        camera: In the world.
        photo: What the photograph shows.
        height: How far the ground is below the photograph's camera, in metres.
    """
    slope = _slope(photo)
    if not _stands_on_floor(photo, height, slope):
        return torch.full((camera.height, camera.width), torch.inf)
    return SLACK * floor_depth(camera, height, slope)


def _slope(photo: Seen) -> float:
    """How far the ground sinks for each metre, so that it ends where the photograph's sky does."""
    lens = photo.camera.px_from_cam
    row = horizon_row(torch.isposinf(photo.depth), lens)
    return (row - float(lens[1, 2])) / float(lens[1, 1])


def _rays(camera: Camera) -> Float[Tensor, "h w 3"]:
    """In the world, of depth 1."""
    pixels = camera.pixel_centers()
    return camera.unproject(pixels, torch.ones(pixels.shape[:-1])) - camera.center


def _stands_on_floor(photo: Seen, height: float, slope: float) -> bool:
    surfaces = torch.isfinite(photo.depth)
    if not surfaces.any():
        return False
    farther = (photo.depth / floor_depth(photo.camera, height, slope))[surfaces]
    on = (farther > 1 / SLACK) & (farther < SLACK)
    return float(on.float().mean()) >= LEAST and float((farther > BELOW).float().mean()) <= RARE
