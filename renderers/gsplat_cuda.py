"""gsplat's CUDA rasteriser behind our contract. Never imported on a machine without CUDA."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from gsplat import rasterization

from renderers.base import DEPTH_ALPHA_MIN, EPS2D, NEAR, Render
from renderers.camera import Camera
from renderers.sh import view_colors
from renderers.splats import Splats


class GsplatRenderer:
    """Renders on the first CUDA device. Differentiable in every splat field and in the pose."""

    def render(
        self, splats: Splats, camera: Camera, background: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> Render:
        """See :class:`renderers.base.Renderer`. Returns float32 tensors on the CUDA device."""
        splats = splats.to(torch.device("cuda")).to(torch.float32)
        device = splats.means.device
        base = torch.tensor(background, dtype=torch.float32, device=device)
        if len(splats) == 0:
            shape = (camera.height, camera.width)
            alpha = torch.zeros(shape, device=device)
            return Render(base.expand(*shape, 3).clone(), alpha, torch.full_like(alpha, math.nan))
        image, alpha, _ = rasterization(
            splats.means,
            splats.quats,
            splats.scales,
            splats.opacities,
            view_colors(splats, camera),
            camera.cam_from_world.to(device, torch.float32)[None],
            camera.px_from_cam.to(device, torch.float32)[None],
            camera.width,
            camera.height,
            near_plane=NEAR,
            eps2d=EPS2D,
            render_mode="RGB+D",
        )
        opacity = alpha[0, ..., 0]
        known = opacity > DEPTH_ALPHA_MIN
        depth = image[0, ..., 3] / torch.where(known, opacity, 1.0)
        return Render(
            rgb=image[0, ..., :3] + (1 - opacity)[..., None] * base,
            alpha=opacity,
            depth=torch.where(known, depth, math.nan),
        )
