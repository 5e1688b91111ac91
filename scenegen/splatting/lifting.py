"""One splat per pixel: an ellipse on the surface whose image is the pixel it came from."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from renderers import Camera, Splats
from scenegen.fields import flatter_slope

SIGMA_PX = 0.33
"""Standard deviation of a splat seen from where it was lifted, in pixels. With the renderer's own
low-pass filter neighbours overlap; wider ones blur more than their colours can make up for. The
undercoat fills the gaps that open when the camera turns."""
OPACITY = 0.99
"""Opacity of a lifted splat: nearly solid, so that surfaces hide what lies behind them."""
THICKNESS = 0.1
"""Standard deviation along the normal, as a share of the pixel's footprint."""
MAX_STRETCH = 10.0
"""Longest extent of a splat on a surface seen at a grazing angle, in pixel footprints."""
FLYING = 0.06
"""Disparity step to both sides, over its own disparity, from which a pixel may fly."""
PLANE = 0.3
"""A plane's steps further out are at least this share of those beside the pixel."""
FRINGE_PX = 2
"""So far beside an outline, pixels mix the colour of what stands in front with what is behind."""
FRONT = 1.15
"""What stands in front is nearer by this factor at least."""


def lift(
    rgb: Float[Tensor, "h w 3"],
    depth: Float[Tensor, "h w"],
    camera: Camera,
    keep: Bool[Tensor, "h w"] | None = None,
    sky_radius: float = 100.0,
) -> Splats:
    """Turn pixels into splats, in row order.

    Args:
        rgb: Colours, 0 to 1.
        depth: z in metres; +inf is sky and goes on a far sphere; NaN gives no splat.
        camera: The view that the pixels belong to.
        keep: Pixels to lift; all when left out.
        sky_radius: Radius of the sky's sphere around the world's origin, in metres.

    The two edges of a pixel, carried on to the tangent plane, span the ellipse: covariance
    ``SIGMA_PX^2 (t_u t_u^T + t_v t_v^T)``, which the camera sees as a round dot of SIGMA_PX.
    """
    solid = on_sky_shell(depth, camera, sky_radius)
    keep = torch.isfinite(solid) if keep is None else keep & torch.isfinite(solid)
    tangents = _tangents(solid, camera)[keep]  # (n, 3, 2) in the world
    means = camera.unproject(camera.pixel_centers()[keep], solid[keep])
    quats, scales = _ellipses(tangents, solid[keep] / camera.px_from_cam[0, 0])
    return Splats(
        means=means.float(),
        quats=quats.float(),
        scales=scales.float(),
        opacities=torch.full((len(means),), OPACITY),
        colors=rgb[keep].float(),
    )


def on_sky_shell(
    depth: Float[Tensor, "h w"], camera: Camera, sky_radius: float
) -> Float[Tensor, "h w"]:
    """Depth with +inf replaced by where the pixel's ray meets the sky's sphere."""
    center = camera.center
    step = camera.unproject(camera.pixel_centers(), torch.ones_like(depth)) - center  # z = 1
    along = (step * center).sum(-1)
    square = (step * step).sum(-1)
    inside = along**2 + square * (sky_radius**2 - (center * center).sum())
    far = (-along + inside.clamp_min(0.0).sqrt()) / square
    return torch.where(torch.isposinf(depth), far, depth)


def snap_flying(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Move pixels that hang between a near and a far surface on to the closer of the two.

    A pixel flies when its disparity steps the same way, by more than FLYING, towards both of its
    neighbours along a row or a column, and no plane goes on stepping beyond them.
    """
    disparity = torch.nan_to_num(1.0 / depth, nan=0.0)
    result = depth
    for dim in (1, 0):
        if depth.shape[dim] < 5:
            continue
        step = torch.diff(disparity, dim=dim)
        inner = step.shape[dim] - 3
        outer_back, back, ahead, outer_ahead = (step.narrow(dim, i, inner) for i in range(4))
        here = disparity.narrow(dim, 2, inner)
        steep = torch.minimum(back.abs(), ahead.abs())
        flying = (back * ahead > 0) & (steep > FLYING * here)
        # A receding plane goes on stepping as evenly on both sides; a pixel between two does not.
        flying &= torch.minimum(outer_back.abs(), outer_ahead.abs()) < PLANE * steep
        before, after = depth.narrow(dim, 1, inner), depth.narrow(dim, 3, inner)
        closer = torch.where(back.abs() < ahead.abs(), before, after)
        middle = result.narrow(dim, 2, inner)
        snapped = torch.where(flying, closer, middle)
        rest = depth.shape[dim] - 2 - inner
        ends = result.narrow(dim, 0, 2), result.narrow(dim, 2 + inner, rest)
        result = torch.cat([ends[0], snapped, ends[1]], dim)
    return result


def widen_fronts(depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """Give what stands in front the pixels beside its outline, whose colours are mixed.

    On what is behind they would stay as an outline of dots when the camera steps aside.
    """
    disparity = torch.nan_to_num(1.0 / depth, nan=0.0)
    near, far = (
        side * max_pool2d(side * disparity[None, None], 2 * FRINGE_PX + 1, 1, FRINGE_PX)[0, 0]
        for side in (1, -1)
    )
    mixed = (near > FRONT * disparity) & ~torch.isnan(depth)
    mixed &= disparity - far < PLANE * (near - disparity)  # both alike on one that recedes
    return torch.where(mixed, 1.0 / near, depth)


def _tangents(depth: Float[Tensor, "h w"], camera: Camera) -> Float[Tensor, "h w 3 2"]:
    """Surface vectors, in the world, that one pixel to the right and one down stand for."""
    disparity = torch.nan_to_num(1.0 / depth, nan=0.0).clamp_min(1e-9)
    fx, fy = camera.px_from_cam[0, 0], camera.px_from_cam[1, 1]
    pixels = camera.pixel_centers()
    ray = (
        torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
        @ torch.linalg.inv(camera.px_from_cam).T
    )
    columns = []
    for dim, focal, axis in ((1, fx, 0), (0, fy, 1)):
        slope = flatter_slope(disparity, dim) / disparity
        limit = MAX_STRETCH / focal
        slope = slope.clamp(-limit, limit)
        step = -ray * slope[..., None]
        step[..., axis] += 1.0 / focal
        columns.append(step / disparity[..., None])
    tangents = torch.stack(columns, dim=-1)
    return camera.world_from_cam[:3, :3] @ tangents


def _ellipses(
    tangents: Float[Tensor, "n 3 2"], footprint: Float[Tensor, " n"]
) -> tuple[Float[Tensor, "n 4"], Float[Tensor, "n 3"]]:
    """Rotation and scales of flat Gaussians spanned by two tangents (their closed-form SVD)."""
    tangents, footprint = tangents.double(), footprint.double()
    u, v = tangents.unbind(-1)
    uu, vv, uv = (u * u).sum(-1), (v * v).sum(-1), (u * v).sum(-1)
    angle = 0.5 * torch.atan2(2 * uv, uu - vv)
    cos, sin = torch.cos(angle)[:, None], torch.sin(angle)[:, None]
    long, short = cos * u + sin * v, cos * v - sin * u  # orthogonal by the choice of angle
    normal = torch.linalg.cross(long, short)
    lengths = torch.stack([_norm(long), _norm(short), footprint * THICKNESS], dim=-1)
    axes = torch.stack(
        [
            long / _norm(long)[:, None],
            short / _norm(short)[:, None],
            normal / _norm(normal)[:, None],
        ],
        dim=-1,
    )
    scales = lengths * torch.tensor([SIGMA_PX, SIGMA_PX, 1.0], dtype=torch.float64)
    return _quaternions(axes), scales


def _norm(vectors: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    return torch.linalg.norm(vectors, dim=-1).clamp_min(1e-12)


def _quaternions(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    from kornia.geometry.conversions import rotation_matrix_to_quaternion

    quats = rotation_matrix_to_quaternion(rotations.contiguous())
    return quats / torch.linalg.norm(quats, dim=-1, keepdim=True)
