"""The renderer that is right rather than fast: dense, float64, every splat against every pixel.

It states in plain torch what the fast backends must compute, and is the oracle of their tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.base import (
    ALPHA_CUT,
    ALPHA_MAX,
    DEPTH_ALPHA_MIN,
    EPS2D,
    FOV_GUARD,
    NEAR,
    TRANSMITTANCE_STOP,
    Render,
)
from renderers.camera import Camera
from renderers.sh import view_colors
from renderers.splats import Splats

CHUNK_ELEMENTS = 4_000_000
"""Splats times pixels handled at once: bounds memory to about 0.5 GB."""


class ReferenceRenderer:
    """Dense renderer. Differentiable in every splat field and in the camera."""

    def render(
        self, splats: Splats, camera: Camera, background: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> Render:
        """See :class:`renderers.base.Renderer`. Computes in float64, returns float64."""
        splats = splats.to(torch.float64)
        means2d, conics, depths, opacities, colors = _visible(splats, camera)
        pixels = camera.pixel_centers().double().reshape(-1, 2)
        base = torch.tensor(background, dtype=torch.float64)
        step = max(1, CHUNK_ELEMENTS // max(1, len(depths)))
        parts = [
            _blend(chunk, means2d, conics, depths, opacities, colors)
            for chunk in pixels.split(step)
        ]
        rgb, alpha, depth_sum = (torch.cat(part) for part in zip(*parts, strict=True))
        shape = (camera.height, camera.width)
        known = alpha > DEPTH_ALPHA_MIN
        depth = depth_sum / torch.where(known, alpha, 1.0)
        return Render(
            rgb=(rgb + (1 - alpha)[:, None] * base).reshape(*shape, 3),
            alpha=alpha.reshape(shape),
            depth=torch.where(known, depth, math.nan).reshape(shape),
        )


def _visible(
    splats: Splats, camera: Camera
) -> tuple[
    Float[Tensor, "m 2"],
    Float[Tensor, "m 3"],
    Float[Tensor, " m"],
    Float[Tensor, " m"],
    Float[Tensor, "m 3"],
]:
    """Projected splats in front of the camera, nearest first (Zwicker et al. 2001, eq. 24-31)."""
    pose, intrinsics = camera.cam_from_world.double(), camera.px_from_cam.double()
    points = splats.means @ pose[:3, :3].T + pose[:3, 3]
    seen = (points[:, 2] > NEAR) & (splats.opacities >= ALPHA_CUT) & splats.drawable
    front = torch.nonzero(seen)[:, 0]
    order = front[torch.argsort(points[front, 2], stable=True)]
    splats, points = splats[order], points[order]

    x, y, z = points.unbind(-1)
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    guard_x = FOV_GUARD * 0.5 * camera.width / fx
    guard_y = FOV_GUARD * 0.5 * camera.height / fy
    slope_x = torch.clamp(x / z, -cx / fx - guard_x, (camera.width - cx) / fx + guard_x)
    slope_y = torch.clamp(y / z, -cy / fy - guard_y, (camera.height - cy) / fy + guard_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [fx / z, zero, -fx * slope_x / z, zero, fy / z, -fy * slope_y / z], dim=-1
    ).reshape(-1, 2, 3)
    axes = rotation_matrices(splats.quats) * splats.scales[:, None, :]  # (m, 3, 3)
    half = jacobian @ pose[:3, :3] @ axes  # covariance is half @ half.T
    p, q = half.unbind(1)
    var_x, cov, var_y = (p * p).sum(1), (p * q).sum(1), (q * q).sum(1)
    # Lagrange's identity: p x q keeps the digits that var_x var_y - cov^2 loses on long thin splats
    det = torch.linalg.cross(p, q).square().sum(1) + EPS2D * (var_x + var_y + EPS2D)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    conics = torch.stack([var_y + EPS2D, -cov, var_x + EPS2D], dim=-1) / det[:, None]
    return means2d, conics, z, splats.opacities, view_colors(splats, camera)


def _blend(
    pixels: Float[Tensor, "p 2"],
    means2d: Float[Tensor, "m 2"],
    conics: Float[Tensor, "m 3"],
    depths: Float[Tensor, " m"],
    opacities: Float[Tensor, " m"],
    colors: Float[Tensor, "m 3"],
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, " p"], Float[Tensor, " p"]]:
    """Front-to-back blending (Kerbl et al. 2023, eq. 3): colour, opacity and summed depth."""
    dx, dy = (pixels[:, None] - means2d).unbind(-1)  # (p, m)
    a, b, c = conics.unbind(-1)
    falloff = torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = torch.clamp(opacities * falloff, max=ALPHA_MAX)
    alpha = torch.where(alpha >= ALPHA_CUT, alpha, 0.0)
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    weight = torch.where(after > TRANSMITTANCE_STOP, before * alpha, 0.0)  # (p, m)
    return weight @ colors, weight.sum(1), weight @ depths


def rotation_matrices(quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), normalised first."""
    w, x, y, z = (quats / torch.linalg.norm(quats, dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)
