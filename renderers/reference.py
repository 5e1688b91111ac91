"""The renderer that is right rather than fast: dense, float64, every splat against every pixel.

It states in plain torch what the fast backends must compute, and is the oracle of their tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from renderers.base import (
    ALPHA_CUT,
    ALPHA_MAX,
    DEPTH_ALPHA_MIN,
    EPS2D,
    FOV_GUARD,
    MEDIAN_ALPHA,
    NEAR,
    TRANSMITTANCE_STOP,
    Details,
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
        self,
        splats: Splats,
        camera: Camera,
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> Render:
        """See :class:`renderers.base.Renderer`. Computes in float64, returns float64."""
        splats = splats.to(torch.float64)
        seen = _visible(splats, camera, antialiased)
        pixels = camera.pixel_centers().double().reshape(-1, 2)
        base = torch.tensor(background, dtype=torch.float64)
        step = max(1, CHUNK_ELEMENTS // max(1, len(seen.depths)))
        weights = [_weights(chunk, seen) for chunk in pixels.split(step)]
        parts = [(w @ seen.colors, w.sum(1), w @ seen.depths) for w in weights]
        rgb, alpha, depth_sum = (torch.cat(part) for part in zip(*parts, strict=True))
        shape = (camera.height, camera.width)
        known = alpha > DEPTH_ALPHA_MIN
        depth = depth_sum / torch.where(known, alpha, 1.0)
        return Render(
            rgb=(rgb + (1 - alpha)[:, None] * base).reshape(*shape, 3),
            alpha=alpha.reshape(shape),
            depth=torch.where(known, depth, math.nan).reshape(shape),
            details=_details(weights, seen, shape) if details else None,
        )

    def render_batch(
        self,
        splats: Splats,
        cameras: Sequence[Camera],
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> list[Render]:
        """See :class:`renderers.base.Renderer`: one after the other."""
        return [
            self.render(splats, camera, background, antialiased=antialiased, details=details)
            for camera in cameras
        ]


@dataclass(frozen=True, eq=False)
class _Seen:
    """Projected splats, nearest first."""

    rows: Int64[Tensor, " m"]
    means2d: Float[Tensor, "m 2"]
    conics: Float[Tensor, "m 3"]
    depths: Float[Tensor, " m"]
    opacities: Float[Tensor, " m"]
    colors: Float[Tensor, "m 3"]


def _visible(splats: Splats, camera: Camera, antialiased: bool) -> _Seen:
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
    own = torch.linalg.cross(p, q).square().sum(1)
    det = own + EPS2D * (var_x + var_y + EPS2D)
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], dim=-1)
    conics = torch.stack([var_y + EPS2D, -cov, var_x + EPS2D], dim=-1) / det[:, None]
    opacities = splats.opacities
    if antialiased:  # Yu et al. 2024, eq. 9, in the image
        opacities = opacities * torch.sqrt(own / det)
    return _Seen(order, means2d, conics, z, opacities, view_colors(splats, camera))


def _weights(pixels: Float[Tensor, "p 2"], seen: _Seen) -> Float[Tensor, "p m"]:
    """Front-to-back blending (Kerbl et al. 2023, eq. 3): the share of each splat in each pixel."""
    dx, dy = (pixels[:, None] - seen.means2d).unbind(-1)  # (p, m)
    a, b, c = seen.conics.unbind(-1)
    falloff = torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    alpha = torch.clamp(seen.opacities * falloff, max=ALPHA_MAX)
    alpha = torch.where(alpha >= ALPHA_CUT, alpha, 0.0)
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    return torch.where(after > TRANSMITTANCE_STOP, before * alpha, 0.0)


def _details(weights: list[Tensor], seen: _Seen, shape: tuple[int, int]) -> Details:
    """What is in front, from the shares of all splats."""
    if not len(seen.rows):
        nowhere = torch.full(shape, -1, dtype=torch.int64)
        unknown = torch.full(shape, math.nan, dtype=torch.float64)
        return Details(unknown, nowhere, torch.zeros_like(unknown))
    share = torch.cat(weights).detach()  # (p, m)
    total = torch.cumsum(share, dim=1)
    first = (total < MEDIAN_ALPHA).sum(1).clamp_max(len(seen.rows) - 1)
    median = torch.where(total[:, -1] >= MEDIAN_ALPHA, seen.depths.detach()[first], math.nan)
    best, place = share.max(1)  # of equals the first, so the nearest
    ids = torch.where(best > 0, seen.rows[place], -1)
    return Details(median.reshape(shape), ids.reshape(shape), best.reshape(shape))


def rotation_matrices(quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z), normalised first."""
    w, x, y, z = (quats / torch.linalg.norm(quats, dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)
