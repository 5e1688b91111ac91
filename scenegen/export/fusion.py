"""Depth maps of many views to one surface: a truncated signed distance field in sparse blocks.

Curless and Levoy 1996, with one change. The textbook measures distance along the view ray, at the
depth of the nearest pixel; ground that recedes then falls apart into a stripe per pixel row.
Here each pixel stands for the plane through it, from its slope in disparity, and distances are
to that plane: exact for flat surfaces, however steep.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from renderers.camera import Camera
from renderers.errors import SceneError
from scenegen.export.progress import progress
from scenegen.export.sheets import BEYOND, Sheet, lens_of, no_surface

VOXEL_PIXELS = 2.0
"""Automatic voxel size, in pixels as large as they are at the median depth."""
BAND = 4.0
"""Distance from a surface up to which distances are fused, in voxels."""
SIDE = 8
"""Side of a block, in voxels."""
BLOCKS_MAX = 100_000
"""Most blocks of volume: about 3 GB."""
TRIANGLES_PER_BLOCK = 45
"""What a block gives on average: measured on ground, walls and boxes."""
KEY_LIMIT = 1 << 20
"""Blocks are counted from -KEY_LIMIT to KEY_LIMIT - 1 along each axis."""
SAMPLE = 3
"""Every how many pixels the search for blocks starts; it spreads from there."""
CHUNK = 2048
"""Blocks updated at once: bounds temporary memory to about 0.1 GB."""


def voxel_and_blocks(
    sheets: Sequence[Sheet], voxel: float | None, max_triangles: int
) -> tuple[float, Int[Tensor, "b 3"]]:
    """Voxel edge in metres, and the blocks of volume that touch a surface.

    Raises:
        SceneError: ``voxel`` is not positive, or so small that the blocks are too many.
    """
    points = torch.cat([_points(sheet) for sheet in sheets])
    smallest = points.abs().max().item() / (4 * KEY_LIMIT)
    if voxel is not None:
        possible = math.isfinite(voxel) and voxel >= smallest
        blocks = _blocks(sheets, points, voxel, BLOCKS_MAX) if possible else None
        if blocks is None or len(blocks) > BLOCKS_MAX:
            raise SceneError(
                f"a mesh with voxels of {voxel} m is impossible here",
                why=f"they must be positive, and {BLOCKS_MAX} blocks of {SIDE}^3 fit in memory",
                fix="use larger voxels, such as 0.05, or leave the size out",
            )
        return voxel, blocks
    size = max(fine_voxel(sheets), smallest)
    # Larger voxels lose what is beyond the limit at once; simplifying a large mesh takes minutes.
    limit = min(BLOCKS_MAX, max(64, max_triangles // TRIANGLES_PER_BLOCK))
    while len(blocks := _blocks(sheets, points, size, limit)) > limit:
        size *= min(2.0, max(1.05, (len(blocks) / limit) ** 0.5))
    return size, blocks


def fine_voxel(sheets: Sequence[Sheet]) -> float:
    """The voxel edge at which details of half the surface survive, in metres."""
    width = [s.depth[s.depth > 0] / s.camera.px_from_cam[0, 0].item() for s in sheets]
    return VOXEL_PIXELS * torch.cat(width).median().item()


def _blocks(
    sheets: Sequence[Sheet], points: Float[Tensor, "n 3"], voxel: float, limit: int
) -> Int[Tensor, "b 3"]:
    """Blocks within the band of a surface, sorted; stops early when they are more than ``limit``.

    Starts at points on the surface and spreads along it: on far, slanted ground even the points
    of neighbouring pixels are many blocks apart.
    """
    edge = SIDE * voxel
    radius = BAND * voxel + 0.5 * 3**0.5 * edge
    found = fresh = torch.unique(_keys(torch.floor(points / edge).long()))
    spread = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
    while len(fresh) and len(found) <= limit:
        around = torch.unique(_keys((_from_keys(fresh)[:, None] + spread).reshape(-1, 3)))
        around = around[~torch.isin(around, found)]
        centers = (_from_keys(around).float() + 0.5) * edge
        near = torch.zeros(len(around), dtype=torch.bool)
        for sheet in sheets:
            rest = torch.nonzero(~near)[:, 0]
            near[rest] = sheet.reach(centers[rest], radius)
        fresh = around[near]
        found = torch.unique(torch.cat([found, fresh]))
    return _from_keys(found)


def _keys(blocks: Int[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """One number per block: 21 bits for each coordinate, in the order of the coordinates."""
    x, y, z = (blocks + KEY_LIMIT).unbind(-1)
    return (x << 42) + (y << 21) + z


def _from_keys(keys: Int[Tensor, " n"]) -> Int[Tensor, "n 3"]:
    mask = (1 << 21) - 1
    return torch.stack([keys >> 42, (keys >> 21) & mask, keys & mask], dim=-1) - KEY_LIMIT


def _points(sheet: Sheet) -> Float[Tensor, "n 3"]:
    """World points of a grid of used pixels, or of all when the grid meets none."""
    used = sheet.depth > 0
    sampled = torch.zeros_like(used)
    sampled[::SAMPLE, ::SAMPLE] = used[::SAMPLE, ::SAMPLE]
    sampled = sampled if sampled.any() else used
    pixels = sheet.camera.pixel_centers().detach().cpu()[sampled]
    return sheet.camera.unproject(pixels, sheet.depth[sampled].to(pixels)).detach().cpu().float()


@dataclass(frozen=True, eq=False)
class Volume:
    """Weighted sums of distance and colour at the voxels of blocks, one row per block."""

    voxel: float
    blocks: Int[Tensor, "b 3"]
    distance: Float[Tensor, "b 512"]
    weight: Float[Tensor, "b 512"]
    color: Float[Tensor, "b 512 3"]
    color_weight: Float[Tensor, "b 512"]

    def integrate(self, sheet: Sheet, scale: float) -> None:
        """Add what one view measured.

        Nearer and less slanted surfaces weigh more: (cosine of the slant) / depth^2.

        Args:
            sheet: The view.
            scale: A typical depth, in metres, that keeps the weights around 1.
        """
        band = BAND * self.voxel
        normal_z = sheet.normal.reshape(-1, 3)[:, 2].abs()
        worth = (normal_z * (scale / sheet.depth.reshape(-1).clamp_min(1e-6)) ** 2).clamp(1e-3, 1e3)
        worth = torch.where(sheet.depth.reshape(-1) > 0, worth, 0.0)
        limit, rgb = BEYOND * sheet.farthest.reshape(-1) + band, sheet.rgb.reshape(-1, 3)
        for rows, points in self._voxels(sheet.camera):
            inside, index, z, distance = sheet.hit(points)
            update = inside & (distance > -band) & (z < limit[index])
            weight = torch.where(update, worth[index], 0.0)
            at_surface = torch.where(distance < band, weight, 0.0)
            fraction = (distance / band).clamp(max=1.0)
            shape = (len(rows), SIDE**3)
            self.distance[rows] += (weight * fraction).reshape(shape)
            self.weight[rows] += weight.reshape(shape)
            self.color[rows] += (at_surface[:, None] * rgb[index]).reshape(*shape, 3)
            self.color_weight[rows] += at_surface.reshape(shape)

    def _voxels(self, camera: Camera) -> Iterator[tuple[Int[Tensor, " r"], Float[Tensor, "n 3"]]]:
        """Rows the camera may see, a chunk at a time, and the world positions of their voxels."""
        steps = torch.arange(SIDE)
        inner = torch.cartesian_prod(steps, steps, steps).flip(-1)  # (512, 3), x fastest
        radius = 0.5 * 3**0.5 * SIDE * self.voxel
        centers = (self.blocks.float() + 0.5) * (SIDE * self.voxel)
        for rows in torch.nonzero(_in_view(camera, centers, radius))[:, 0].split(CHUNK):
            corners = self.blocks[rows, None] * SIDE + inner
            yield rows, corners.reshape(-1, 3).float() * self.voxel


def _in_view(camera: Camera, centers: Float[Tensor, "n 3"], radius: float) -> Bool[Tensor, " n"]:
    """Whether balls, radius in metres, are at least partly in the pyramid the camera sees."""
    pose = camera.cam_from_world.detach().cpu().to(centers)
    x, y, z = (centers @ pose[:3, :3].T + pose[:3, 3]).unbind(-1)
    fx, fy, cx, cy = lens_of(camera)
    seen = z > -radius
    for across, focal, low, high in (
        (x, fx, -cx, camera.width - cx),
        (y, fy, -cy, camera.height - cy),
    ):
        # Distances from the two side planes of the pyramid, positive inside.
        seen &= (focal * across - low * z) / math.hypot(focal, low) > -radius
        seen &= (high * z - focal * across) / math.hypot(focal, high) > -radius
    return seen


def fuse(
    sheets: Sequence[Sheet], voxel: float, blocks: Int[Tensor, "b 3"]
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "t 3"], Float[np.ndarray, "v 3"]]:
    """Fuse sheets into a surface.

    Returns:
        Vertices in the world in metres, triangles, and vertex colours (sRGB, 0 to 1); in an order
        that depends on the input alone.
    """
    volume = Volume(
        voxel,
        blocks,
        distance=torch.zeros(len(blocks), SIDE**3),
        weight=torch.zeros(len(blocks), SIDE**3),
        color=torch.zeros(len(blocks), SIDE**3, 3),
        color_weight=torch.zeros(len(blocks), SIDE**3),
    )
    scale = torch.cat([sheet.depth[sheet.depth > 0] for sheet in sheets]).median().item()
    for sheet in progress(sheets, "fusing"):
        volume.integrate(sheet, scale)
    return _sorted(*_marching_cubes(volume))


def open3d() -> Any:
    """The Open3D library. Imported on first use: that takes two seconds.

    Raises:
        SceneError: It does not load, for want of a library of the system.
    """
    try:
        return importlib.import_module("open3d")
    except ImportError as error:
        raise SceneError(
            "meshes cannot be made here",
            why=f"open3d does not load: {error}",
            fix="install what it lacks (Debian and Ubuntu: apt-get install libusb-1.0-0), or "
            "export splats: a .ply file",
        ) from error


def _marching_cubes(volume: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Zero level of the distances (Lorensen and Cline 1987), by Open3D's sparse grid."""
    o3d = open3d()
    kinds = (o3d.core.float32,) * 3
    grid = o3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight", "color"), kinds, ((1,), (1,), (3,)),  # pyright: ignore
        volume.voxel, SIDE, len(volume.blocks),
    )  # fmt: skip
    table = grid.hashmap()
    rows, _ = table.activate(o3d.core.Tensor(volume.blocks.int().numpy()))  # pyright: ignore
    rows = rows.numpy().astype(np.int64)
    weight, color_weight = volume.weight.clamp_min(1e-12), volume.color_weight.clamp_min(1e-12)
    shape = (-1, SIDE, SIDE, SIDE)
    for name, values in (
        ("tsdf", volume.distance / weight),
        ("weight", volume.weight),
        ("color", volume.color / color_weight[..., None] * 255.0),  # it gives 0 to 1
    ):
        target = grid.attribute(name).numpy()  # shares memory with the grid
        target[rows] = values.numpy().reshape(*shape, target.shape[-1])
    mesh = grid.extract_triangle_mesh(weight_threshold=1e-9)
    if len(mesh.triangle) == 0 or "indices" not in mesh.triangle:
        raise no_surface("the views show no surface larger than a voxel")
    parts = mesh.vertex.positions, mesh.triangle.indices, mesh.vertex.colors
    vertices, faces, colors = (part.numpy() for part in parts)
    return vertices, faces.astype(np.int64), colors


def _sorted(
    vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Equal vertices joined and everything put in order: Open3D's threads race."""
    order = np.lexsort([*colors.T, *vertices.T[::-1]])  # colours last: they only break ties
    vertices, colors = vertices[order], colors[order]
    new = np.ones(len(order), dtype=bool)
    new[1:] = (vertices[1:] != vertices[:-1]).any(axis=1)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.cumsum(new) - 1
    a, b, c = (faces := rank[faces]).T
    faces = faces[(a != b) & (b != c) & (c != a)]
    # A triangle and its own back, where corners fell together, enclose nothing: Blender drops one.
    _, which, count = np.unique(np.sort(faces, 1), axis=0, return_inverse=True, return_counts=True)
    faces = faces[count[which.reshape(-1)] == 1]
    turn = (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3
    faces = np.take_along_axis(faces, turn, axis=1)
    return vertices[new], faces[np.lexsort(faces.T[::-1])], colors[new]
