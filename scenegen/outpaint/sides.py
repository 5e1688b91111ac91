"""What the outpainting network is told of the geometry: see SIDE_INPUTS of the network."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize, pad

from renderers import Camera

REACH = 3.0
"""Logarithms of depth over its median are cut at this; the sky is put there as well."""


def geometry_inputs(depth: Float[Tensor, "h w"], camera: Camera) -> Float[Tensor, "8 h w"]:
    """Log depth over its median, whether it is known, normals towards the camera, rays.

    Args:
        depth: z in metres; +inf in the sky, NaN where nothing is known: what is not known is 0.
        camera: Where the view is taken from.
    """
    known, surface = ~torch.isnan(depth), torch.isfinite(depth)
    middle = depth[surface].median() if surface.any() else depth.new_ones(())
    far = torch.log(depth / middle).clamp(-REACH, REACH)
    rays = camera.posed(torch.eye(4)).unproject(camera.pixel_centers(), torch.ones_like(depth))
    points = rays * torch.where(surface, depth, torch.nan)[..., None]
    down, across = torch.diff(points, dim=0)[:, :-1], torch.diff(points, dim=1)[:-1]
    normals = normalize(torch.linalg.cross(across, down), dim=-1)
    normals = pad(-normals.permute(2, 0, 1), (0, 1, 0, 1)).nan_to_num()
    return torch.cat(
        [
            torch.where(known, far, 0.0)[None],
            known[None].float(),
            normals,
            normalize(rays, dim=-1).permute(2, 0, 1),
        ]
    )
