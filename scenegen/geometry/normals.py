"""Surface normals from depth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from scenegen.fields import flatter_slope


def disparity_normals(
    depth: Float[Tensor, "h w"], px_from_cam: Float[Tensor, "3 3"]
) -> Float[Tensor, "h w 3"]:
    """Unit normals in the camera frame, towards the camera.

    On a plane ``n . p = d`` the disparity 1/z is linear in the image, with ``n`` as its
    coefficients over the ray (x, y, 1). Each slope is the flatter of the two one-sided
    differences, so that a depth edge does not tilt the surfaces beside it.

    Args:
        depth: z in metres, positive; +inf and NaN count as infinitely far.
        px_from_cam: Intrinsics, in pixels.
    """
    disparity = torch.nan_to_num(1.0 / depth, nan=0.0, posinf=0.0)
    fx, fy = px_from_cam[0, 0], px_from_cam[1, 1]
    slope_x = flatter_slope(disparity, dim=1) * fx
    slope_y = flatter_slope(disparity, dim=0) * fy
    height, width = depth.shape
    ray_x = (torch.arange(width) + 0.5 - px_from_cam[0, 2]) / fx
    ray_y = ((torch.arange(height) + 0.5 - px_from_cam[1, 2]) / fy)[:, None]
    toward = disparity - ray_x * slope_x - ray_y * slope_y
    outward = torch.stack([slope_x, slope_y, toward], dim=-1)  # points away from the camera
    length = torch.linalg.norm(outward, dim=-1, keepdim=True)
    facing = torch.tensor([0.0, 0.0, -1.0]).expand_as(outward)
    return torch.where(length > 1e-12, -outward / length.clamp_min(1e-12), facing)
