"""What each view says of surfaces: its usable pixels, and the plane each of them stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

from renderers.camera import Camera
from renderers.errors import SceneError, check_shapes
from scenegen.export.progress import progress

FAR_MEDIANS = 10.0
"""Surfaces beyond this many median depths are left out: a pixel there is many voxels wide."""
SHELLS = (0.4, 1.5)
"""Median depths between parts of a deep scene that are fused with voxels of their own size."""
OVERLAP = 0.9
"""A part begins at this share of the depth where the one before it ends, so that no gap opens."""
BEND_MAX = 0.05
"""Change of disparity slope over disparity, per pixel, above which a pixel is at a depth edge.
Planes are linear in disparity, however steep, so the ground towards the horizon passes."""
RAMP_MAX = 0.1
"""Change of disparity over disparity, per pixel, above which a pixel is on a blurred edge."""
BEYOND = 2.0
"""How far behind a pixel its plane counts, as a multiple of the depth there. Just under slanted
ground a ray is well behind it; the rim of a round thing must not reach into the background."""


@dataclass(frozen=True, eq=False)
class DepthView:
    """What one camera sees of the world."""

    rgb: Float[Tensor, "h w 3"]
    """sRGB, 0 to 1."""
    depth: Float[Tensor, "h w"]
    """z in the camera frame, in metres; NaN where unknown, +inf for sky."""
    camera: Camera
    """Where from; its size is that of the images."""
    known: Bool[Tensor, "h w"] | None = None
    """Pixels to use; all when left out."""

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        check_shapes(self, rgb=(*size, 3), depth=size)
        if self.known is not None:
            check_shapes(self, known=size)


@dataclass(frozen=True, eq=False)
class Sheet:
    """The surface one view sees: a plane for each usable pixel, in the camera frame."""

    camera: Camera
    depth: Float[Tensor, "h w"]
    """z in metres; 0 at pixels that are not used."""
    normal: Float[Tensor, "h w 3"]
    """Unit normal, away from the camera; points x of the plane have ``normal @ x = offset``."""
    offset: Float[Tensor, "h w"]
    """Distance of the plane from the camera, in metres."""
    nearest: Float[Tensor, "h w"]
    """Smallest used depth in the 3 x 3 pixels around; +inf where there is none."""
    farthest: Float[Tensor, "h w"]
    """Largest used depth in the 3 x 3 pixels around; 0 where there is none."""
    rgb: Float[Tensor, "h w 3"]

    def hit(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[Bool[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Where world points fall in the view.

        Returns:
            Whether a point is in front of the camera and in the image; its pixel as a flat index
            (0 where it is not); its depth; and its distance from the plane of that pixel, in
            metres, positive on the camera's side.
        """
        pose = self.camera.cam_from_world.detach().cpu().to(points)
        fx, fy, cx, cy = lens_of(self.camera)
        local = points @ pose[:3, :3].T + pose[:3, 3]
        x, y, z = local.unbind(-1)
        front = z > 1e-6
        safe = torch.where(front, z, 1.0)
        column, row = torch.floor(fx * x / safe + cx), torch.floor(fy * y / safe + cy)
        width, height = self.camera.width, self.camera.height
        inside = front & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = torch.where(inside, row * width + column, 0.0).long()
        normal = self.normal.reshape(-1, 3)[index].to(points)
        distance = self.offset.reshape(-1)[index] - (normal * local).sum(-1)
        return inside, index, z, distance

    def reach(self, points: Float[Tensor, "n 3"], radius: float) -> Bool[Tensor, " n"]:
        """Whether points lie within ``radius`` of the surface seen at their pixel, in metres."""
        inside, index, z, distance = self.hit(points)
        used = self.depth.reshape(-1)[index] > 0
        beyond = z > BEYOND * self.farthest.reshape(-1)[index] + radius
        return inside & used & ~beyond & (distance.abs() < radius)

    def shows(self, points: Float[Tensor, "n 3"], slack: float) -> Bool[Tensor, " n"]:
        """Whether the 3 x 3 pixels around have depths within ``slack`` metres of the points."""
        inside, index, z, _ = self.hit(points)
        near, far = self.nearest.reshape(-1)[index], self.farthest.reshape(-1)[index]
        return inside & (z >= near - slack) & (z <= far + slack)


def sheets_of(views: Sequence[DepthView]) -> list[Sheet]:
    """The usable pixels of each view as planes: no sky, no depth edges, nothing too far.

    Raises:
        SceneError: No pixel of any view is usable.
    """
    depths: list[Tensor] = []
    for view in progress(views, "finding edges"):
        depth = view.depth.detach().cpu().float()
        usable = torch.isfinite(depth) & (depth > 0)
        if view.known is not None:
            usable &= view.known.cpu()
        usable &= ~depth_edges(torch.where(usable, 1.0 / depth, torch.nan))
        depths.append(torch.where(usable, depth, 0.0))
    surface = torch.cat([depth[depth > 0] for depth in depths]) if depths else torch.zeros(0)
    if len(surface) == 0:
        raise no_surface("no view has a pixel with known, finite depth")
    far = FAR_MEDIANS * surface.median()
    return [
        _sheet(view, torch.where(depth <= far, depth, 0.0))
        for view, depth in zip(progress(views, "finding surfaces"), depths, strict=True)
    ]


def shells_of(views: Sequence[DepthView], sheets: Sequence[Sheet]) -> list[list[Sheet]]:
    """The same pixels in parts, near to far, that meet and overlap a little: see SHELLS.

    Args:
        views: As for :func:`sheets_of`.
        sheets: What it made of them.
    """
    median = torch.cat([sheet.depth[sheet.depth > 0] for sheet in sheets]).median()
    parts = []
    for low, high in zip((0.0, *SHELLS), (*SHELLS, torch.inf), strict=True):
        depths = [
            torch.where((s.depth > OVERLAP * low * median) & (s.depth <= high * median), s.depth, 0)
            for s in sheets
        ]
        part = [_sheet(v, d) for v, d in zip(views, depths, strict=True) if (d > 0).any()]
        parts += [part] if part else []
    return parts


def depth_edges(disparity: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    """Pixels on either side of a depth edge; unknown neighbours (NaN) make no edge."""
    edges = torch.zeros_like(disparity, dtype=torch.bool)
    for dim in (0, 1):
        back, ahead = _steps(disparity, dim)
        edges |= (ahead - back).abs() > BEND_MAX * disparity
        edges |= (ahead.abs() > RAMP_MAX * disparity) | (back.abs() > RAMP_MAX * disparity)
    return edges


def _steps(values: Float[Tensor, "h w"], dim: int) -> tuple[Tensor, Tensor]:
    """Differences to the pixel before and to the pixel after; NaN at the border."""
    step = torch.diff(values, dim=dim)
    end = torch.full_like(values.narrow(dim, 0, 1), torch.nan)
    return torch.cat([end, step], dim), torch.cat([step, end], dim)


def _sheet(view: DepthView, depth: Float[Tensor, "h w"]) -> Sheet:
    used = depth > 0
    disparity = torch.where(used, 1.0 / depth, torch.nan)
    slopes: list[Tensor] = []
    for dim in (1, 0):
        back, ahead = (step.nan_to_num(torch.inf) for step in _steps(disparity, dim))
        flatter = torch.where(back.abs() < ahead.abs(), back, ahead)
        slopes.append(torch.where(torch.isfinite(flatter), flatter, 0.0))
    fx, fy, cx, cy = lens_of(view.camera)
    u, v = view.camera.pixel_centers().detach().cpu().float().unbind(-1)
    # A plane has 1 / z = normal @ ray / offset, linear in the pixel.
    x, y = slopes[0] * fx, slopes[1] * fy
    z = disparity - slopes[0] * (u - cx) - slopes[1] * (v - cy)
    scaled = torch.stack([x, y, z], dim=-1).nan_to_num(0.0)
    length = torch.linalg.norm(scaled, dim=-1).clamp_min(1e-12)
    plane = depth[None, None]
    nearest = -max_pool2d(-torch.where(used, depth, torch.inf)[None, None], 3, 1, 1)[0, 0]
    return Sheet(
        camera=view.camera,
        depth=depth,
        normal=scaled / length[..., None],
        offset=1.0 / length,
        nearest=nearest,
        farthest=max_pool2d(plane, 3, 1, 1)[0, 0],
        rgb=view.rgb.detach().cpu().float().nan_to_num(0.0).clamp(0.0, 1.0),
    )


def no_surface(why: str) -> SceneError:
    """The error when there is nothing to make a mesh of."""
    return SceneError(
        "there is no surface to write as a mesh",
        why=why,
        fix="use views that show surfaces, smaller voxels, or export splats (.ply) instead",
    )


def lens_of(camera: Camera) -> tuple[float, float, float, float]:
    """Focal lengths and centre: fx, fy, cx, cy, in pixels."""
    lens = camera.px_from_cam.detach().cpu().double().tolist()
    return lens[0][0], lens[1][1], lens[0][2], lens[1][2]
