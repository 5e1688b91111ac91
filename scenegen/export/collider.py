"""What a walker bumps into and stands on: a coarse surface on ground without holes."""

from __future__ import annotations

import numpy as np
import trimesh
from scipy.ndimage import distance_transform_edt

GROUND_CELLS = 128
"""Cells of the ground along its longer side."""
NEAR_GROUND = 0.6
"""Upward surfaces are ground when at most this far above or below its usual height, in metres."""
LEVEL = 0.7
"""Cosine of the slope up to which a surface counts as upward: 45 degrees."""
BELOW = 0.02
"""The ground lies this far below what was seen, in metres, so that it shows only in holes."""
DEEP = 1.0
"""Thickness of the ground below its lowest place, in metres."""
COLOR = (128, 128, 128, 255)


def collider(mesh: trimesh.Trimesh, ground: float) -> trimesh.Trimesh:
    """The mesh, and below all of it a closed body of ground that follows what was seen.

    Args:
        mesh: In the world frame (OpenCV axes, metres), with vertex colours.
        ground: Usual height of the ground, y in the world; where no ground was seen, the ground of
            the nearest place where it was, or this height where there is none at all.

    Returns:
        ``mesh`` first, then the ground, which is watertight on its own.
    """
    body = _body(*_heights(mesh, ground))
    colors = np.concatenate([mesh.visual.vertex_colors, body.visual.vertex_colors])  # pyright: ignore
    faces = np.concatenate([mesh.faces, body.faces + len(mesh.vertices)])
    vertices = np.concatenate([mesh.vertices, body.vertices])
    return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)


def _heights(mesh: trimesh.Trimesh, ground: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of cells along x and along z, and y of the ground at each corner (x, z)."""
    flat = np.asarray(mesh.vertices)[:, [0, 2]]
    low, high = flat.min(axis=0), flat.max(axis=0)
    cell = max(float((high - low).max()) / GROUND_CELLS, 1e-3)
    counts = np.maximum(np.ceil((high - low) / cell).astype(int), 1) + 1
    xs, zs = low[0] + cell * np.arange(counts[0]), low[1] + cell * np.arange(counts[1])
    points, upward = mesh.triangles_center, mesh.face_normals[:, 1] < -LEVEL  # y points down
    points = points[upward & (np.abs(points[:, 1] - ground) < NEAR_GROUND)]
    heights = np.full(tuple(counts), -np.inf)
    at = np.rint((points[:, [0, 2]] - low) / cell).astype(int)
    np.maximum.at(heights, (at[:, 0], at[:, 1]), points[:, 1])  # the lowest surface of a cell
    unknown = ~np.isfinite(heights)
    if unknown.all():
        heights[:] = ground
    else:
        nearest = distance_transform_edt(unknown, return_distances=False, return_indices=True)
        rows, columns = np.asarray(nearest)
        heights = heights[rows, columns]
    return xs, zs, heights + BELOW


def _body(xs: np.ndarray, zs: np.ndarray, heights: np.ndarray) -> trimesh.Trimesh:
    """A watertight body: the heights on top, walls at the rim, and a level bottom."""
    rows, columns = heights.shape
    x, z = np.meshgrid(xs, zs, indexing="ij")
    top = np.stack([x, heights, z], -1).reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    surface = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    rim = np.concatenate([index[:-1, 0], index[-1, :-1], index[:0:-1, -1], index[0, :0:-1]])
    bottom = heights.max() + DEEP
    under = top[rim] * (1, 0, 1) + (0, bottom, 0)
    center = np.array([[xs.mean(), bottom, zs.mean()]])
    lower = len(top) + np.arange(len(rim))
    following = np.roll(np.arange(len(rim)), -1)
    walls = [
        np.stack([rim, lower, rim[following]], 1),
        np.stack([rim[following], lower, lower[following]], 1),
    ]
    floor = np.stack([lower, np.full(len(rim), len(top) + len(rim)), lower[following]], 1)
    faces = np.concatenate([surface, *walls, floor])
    vertices = np.concatenate([top, under, center])
    colors = np.tile(np.array(COLOR, np.uint8), (len(vertices), 1))
    return trimesh.Trimesh(vertices, faces, vertex_colors=colors, process=False)
