"""A past view as another camera would see it: its surface, drawn as a mesh through its pixels.

Neighbouring pixels span triangles, so that a surface that comes closer has no cracks. Where a
triangle is torn apart (an outline: the two sides move differently) nothing is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import grid_sample

from renderers import Camera
from renderers.kernels import kernel
from scenegen.outpaint.base import Reference

SKY = 1e6
"""Depth at which the sky is drawn, in metres: it does not move when the camera steps."""
NEAR = 0.05
"""Nothing nearer than this is drawn, in metres."""
MAX_STRETCH = 4.0
"""Neighbouring pixels that land farther apart than this, in pixels of the target, belong to two
surfaces, or to one that was seen too flatly to know its colours. Finer targets allow more."""


@dataclass(frozen=True, eq=False)
class Warp:
    """What one past view says about a target view."""

    rgb: Float[Tensor, "h w 3"]
    """Its colours; 0 where it shows nothing."""
    depth: Float[Tensor, "h w"]
    """z in the target, metres; +inf in the sky, NaN where it shows nothing."""
    back: Float[Tensor, "h w"]
    """z of the nearest surface that it has seen from the other side; +inf where there is none."""

    @property
    def valid(self) -> Bool[Tensor, "h w"]:
        """The target's pixels that it shows."""
        return ~torch.isnan(self.depth)


def warp(view: Reference, camera: Camera) -> Warp:
    """Draw a past view for a camera.

    Args:
        view: What was seen, and from where. Pixels that are not known, or without a depth, do not
            take part.
        camera: The target.
    """
    usable = view.known & ~torch.isnan(view.depth)
    depth = torch.nan_to_num(view.depth.double(), nan=1.0, posinf=SKY).clamp(max=SKY)
    points = view.camera.unproject(view.camera.pixel_centers().double(), depth)
    pixels, z = camera.project(points)
    zoom = float(camera.px_from_cam[0, 0] / view.camera.px_from_cam[0, 0])
    shape = (camera.height, camera.width)
    front, back = np.full(shape, np.inf), np.full(shape, np.inf)
    place = np.zeros((*shape, 2))
    _draw(
        *(value.contiguous().numpy() for value in (pixels, z, usable)),
        MAX_STRETCH * max(1.0, zoom),
        NEAR,
        front,
        back,
        place,
    )
    seen = torch.from_numpy(np.isfinite(front))
    found = torch.from_numpy(front).float()
    rgb = torch.where(seen[..., None], _sampled(view.rgb, torch.from_numpy(place).float()), 0.0)
    found = torch.where(found > 0.5 * SKY, torch.inf, found)
    return Warp(rgb, torch.where(seen, found, torch.nan), torch.from_numpy(back).float())


def _sampled(rgb: Float[Tensor, "h w 3"], place: Float[Tensor, "rows columns 2"]) -> Tensor:
    """Colours at pixel coordinates (u, v), bicubic: what is warped stays as sharp as it was."""
    size = torch.tensor([rgb.shape[1], rgb.shape[0]])
    grid = (2 * place / size - 1)[None]
    planes = torch.nan_to_num(rgb).permute(2, 0, 1)[None]
    sampled = grid_sample(planes, grid, "bicubic", "border", align_corners=False)
    return sampled[0].permute(1, 2, 0).clamp(0.0, 1.0)


@kernel()
def _draw(
    pixels: Any,
    depth: Any,
    usable: Any,
    stretch: float,
    near: float,
    front: Any,
    back: Any,
    place: Any,
) -> None:
    """Draw the two triangles of every four neighbouring pixels into a z-buffer."""
    for row in range(usable.shape[0] - 1):
        for column in range(usable.shape[1] - 1):
            for half in range(2):
                # Corners turn clockwise in the image (y down), in both halves.
                r0, c0 = row + half, column + half
                r1, c1 = (row, column + 1) if half == 0 else (row + 1, column)
                r2, c2 = (row + 1, column) if half == 0 else (row, column + 1)
                if not (usable[r0, c0] and usable[r1, c1] and usable[r2, c2]):
                    continue
                z0, z1, z2 = depth[r0, c0], depth[r1, c1], depth[r2, c2]
                if min(z0, z1, z2) < near:
                    continue
                x0, y0 = pixels[r0, c0, 0], pixels[r0, c0, 1]
                x1, y1 = pixels[r1, c1, 0], pixels[r1, c1, 1]
                x2, y2 = pixels[r2, c2, 0], pixels[r2, c2, 1]
                low_x, high_x = min(x0, x1, x2), max(x0, x1, x2)
                low_y, high_y = min(y0, y1, y2), max(y0, y1, y2)
                if max(high_x - low_x, high_y - low_y) > stretch:
                    continue
                area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
                if area == 0.0:
                    continue
                first_x = max(0, int(np.ceil(low_x - 0.5)))
                last_x = min(front.shape[1] - 1, int(np.floor(high_x - 0.5)))
                first_y = max(0, int(np.ceil(low_y - 0.5)))
                last_y = min(front.shape[0] - 1, int(np.floor(high_y - 0.5)))
                for y in range(first_y, last_y + 1):
                    for x in range(first_x, last_x + 1):
                        u, v = x + 0.5, y + 0.5
                        b1 = ((u - x0) * (y2 - y0) - (x2 - x0) * (v - y0)) / area
                        b2 = ((x1 - x0) * (v - y0) - (u - x0) * (y1 - y0)) / area
                        b0 = 1.0 - b1 - b2
                        if min(b0, b1, b2) < -1e-9:
                            continue
                        w0, w1, w2 = b0 / z0, b1 / z1, b2 / z2
                        z = 1.0 / (w0 + w1 + w2)
                        if area < 0.0:
                            back[y, x] = min(back[y, x], z)
                        elif z < front[y, x]:
                            front[y, x] = z
                            place[y, x, 0] = z * (w0 * c0 + w1 * c1 + w2 * c2) + 0.5
                            place[y, x, 1] = z * (w0 * r0 + w1 * r1 + w2 * r2) + 0.5
