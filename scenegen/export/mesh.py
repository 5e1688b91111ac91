"""The world as a triangle mesh: views fused into one surface, and its ``.glb`` for browsers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from jaxtyping import UInt8, UInt16
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.graph import connected_component_labels
from trimesh.visual import ColorVisuals

from renderers.errors import SceneError
from scenegen import __version__
from scenegen.export.atomic import atomic_write
from scenegen.export.colors import linear_from_srgb
from scenegen.export.fusion import fine_voxel, fuse, open3d, voxel_and_blocks
from scenegen.export.progress import progress
from scenegen.export.sheets import DepthView, Sheet, no_surface, sheets_of, shells_of

logger = logging.getLogger("scenegen")

COARSE = 1.5
"""Where voxels would have to be so many times as large as they should be for want of triangles,
near and far are fused apart: one distant wall must not make polygons of what is near."""


def mesh_from_depth(
    views: Sequence[DepthView],
    voxel: float | None = None,
    *,
    max_triangles: int = 1_000_000,
    min_triangles: int = 100,
) -> trimesh.Trimesh:
    """Fuse views into one vertex-coloured surface (Curless and Levoy 1996).

    Sky, unknown pixels, pixels at depth edges and surfaces beyond FAR_MEDIANS median depths are
    left out. So is every part of the fused surface that no view shows within a voxel: fusion
    alone grows skirts behind edges. Deterministic.

    Args:
        views: Any number; overlapping views are averaged.
        voxel: Edge of a voxel, in metres; details below are lost. Two pixels at the median
            depth when left out, more where that would give more than ``max_triangles``.
        max_triangles: The mesh is simplified to at most this many.
        min_triangles: Connected pieces with fewer are dropped.

    Returns:
        A mesh in the world frame (OpenCV axes, metres), with vertex colours in sRGB bytes and
        triangles that run counter-clockwise for the cameras that saw them.

    Raises:
        SceneError: Nothing is left to mesh, or ``voxel`` is not positive or too small.
    """
    sheets = sheets_of(views)
    size, blocks = voxel_and_blocks(sheets, voxel, max_triangles)
    if voxel is None and size > COARSE * fine_voxel(sheets):
        return _joined(shells_of(views, sheets), max_triangles, min_triangles)
    return _fused(sheets, size, blocks, max_triangles, min_triangles)


def _fused(
    sheets: Sequence[Sheet], size: float, blocks: Tensor, max_triangles: int, min_triangles: int
) -> trimesh.Trimesh:
    mesh = _clean(*fuse(sheets, size, blocks), sheets, size, min_triangles)
    if len(mesh.faces) > max_triangles:
        mesh = _simplified(mesh, max_triangles)
    logger.info("mesh: %d triangles, voxels of %.3g m", len(mesh.faces), size)
    return mesh


def _joined(
    shells: Sequence[Sequence[Sheet]], max_triangles: int, min_triangles: int
) -> trimesh.Trimesh:
    """Near and far parts, each with voxels of its own size and its share of the triangles."""
    meshes, nothing = [], no_surface("no part of the scene has a surface")
    share = max_triangles // len(shells)
    for sheets in shells:
        try:
            size, blocks = voxel_and_blocks(sheets, None, share)
            meshes.append(_fused(sheets, size, blocks, share, min_triangles))
        except SceneError as error:  # a part may be empty, but not all of them
            nothing = error
    if not meshes:
        raise nothing
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return _mesh(
        np.concatenate([mesh.vertices for mesh in meshes]),
        np.concatenate([m.faces + at for m, at in zip(meshes, starts, strict=False)]),
        np.concatenate([_srgb(mesh)[:, :3] / 255.0 for mesh in meshes]),
    )


def write_glb(path: str | Path, mesh: trimesh.Trimesh) -> None:
    """Write a vertex-coloured mesh as binary glTF, which browsers, Blender and engines open.

    glTF has y up and z backwards: (x, y, z) becomes (x, -y, -z). Its vertex colours are linear,
    so sRGB is converted, and stored in 16 bits, as 8 would show steps in the shadows. The
    material is unlit (KHR_materials_unlit) and not metallic: programs show the colours as they
    are, without lamps; without it the mesh is black in three.js.

    Args:
        path: The file. It appears whole or not at all.
        mesh: In the world frame, with vertex colours in sRGB.

    Raises:
        SceneError: The mesh has no triangles, or the file cannot be written.
    """
    upright = _upright(mesh)
    plain = trimesh.Trimesh(upright.vertices, upright.faces, process=False)
    plain.vertex_attributes["_COLOR_0"] = _linear_colors(_srgb(mesh))
    _write(path, export_glb(plain.scene(), include_normals=False, tree_postprocessor=_unlit), mesh)


def write_obj(path: str | Path, mesh: trimesh.Trimesh) -> None:
    """Write a mesh as Wavefront OBJ, colours after each vertex as MeshLab and Blender read them.

    Axes are those of :func:`write_glb`.

    Args:
        path: The file. It appears whole or not at all.
        mesh: In the world frame, with vertex colours in sRGB.

    Raises:
        SceneError: The mesh has no triangles, or the file cannot be written.
    """
    text = export_obj(_upright(mesh), header=f"scenegen {__version__}", digits=6)
    _write(path, str(text).encode("ascii"), mesh)


def write_mesh_ply(path: str | Path, mesh: trimesh.Trimesh) -> None:
    """Write a mesh as binary PLY with vertex colours; everything else as :func:`write_obj`."""
    _write(path, export_ply(_upright(mesh)), mesh)


def _upright(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    if len(mesh.faces) == 0:
        raise no_surface("the mesh has no triangles")
    vertices = mesh.vertices * np.array([1.0, -1.0, -1.0])
    return trimesh.Trimesh(vertices, mesh.faces, vertex_colors=_srgb(mesh), process=False)


def _write(path: str | Path, data: bytes, mesh: trimesh.Trimesh) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
    logger.info(
        "%s: %d triangles; no sky, no texture finer than the vertices, no light, no splats",
        path, len(mesh.faces),
    )  # fmt: skip


def _clean(
    vertices: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray,
    sheets: Sequence[Sheet],
    voxel: float,
    min_triangles: int,
) -> trimesh.Trimesh:
    """The parts of a fused surface that a view shows, without small pieces."""
    points = torch.from_numpy(vertices)
    seen = torch.zeros(len(points), dtype=torch.bool)
    for sheet in progress(sheets, "cleaning"):
        seen |= sheet.shows(points, voxel)
    faces = faces[seen.numpy()[faces].all(axis=1)]
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    piece = connected_component_labels(edges, node_count=len(points))[faces[:, 0]]
    faces = faces[np.bincount(piece, minlength=1)[piece] >= min_triangles]
    if len(faces) == 0:
        raise no_surface(f"no connected piece of surface has {min_triangles} triangles")
    used, faces = np.unique(faces, return_inverse=True)
    return _mesh(vertices[used], faces.reshape(-1, 3), colors[used])


def _simplified(mesh: trimesh.Trimesh, max_triangles: int) -> trimesh.Trimesh:
    """At most ``max_triangles`` triangles (Garland and Heckbert 1997)."""
    o3d = open3d()
    full = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(mesh.vertices), o3d.utility.Vector3iVector(mesh.faces)
    )
    full.vertex_colors = o3d.utility.Vector3dVector(_srgb(mesh)[:, :3] / 255.0)
    less = full.simplify_quadric_decimation(max_triangles)
    return _mesh(np.array(less.vertices), np.array(less.triangles), np.array(less.vertex_colors))


def _mesh(vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> trimesh.Trimesh:
    pixels = np.rint(np.asarray(colors) * 255).clip(0, 255).astype(np.uint8)
    return trimesh.Trimesh(vertices, faces, vertex_colors=pixels, process=False)


def _srgb(mesh: trimesh.Trimesh) -> UInt8[np.ndarray, "n 4"]:
    assert isinstance(mesh.visual, ColorVisuals), "the mesh is to have vertex colours"
    return np.asarray(mesh.visual.vertex_colors)


def _linear_colors(srgb: UInt8[np.ndarray, "n 4"]) -> UInt16[np.ndarray, "n 4"]:
    """Colours for glTF: sRGB bytes to linear 16 bits; opacity as it is."""
    value = srgb / 255.0
    linear = linear_from_srgb(value)
    linear[:, 3] = value[:, 3]
    return np.rint(linear * 65535).astype(np.uint16)


def _unlit(tree: dict[str, Any]) -> None:
    """Give the glTF its material, and its colours the name and scale that programs know.

    trimesh writes 16-bit colours only as an attribute of its own, which starts with "_".
    """
    tree["asset"]["generator"] = f"scenegen {__version__}"
    tree["materials"] = [
        {
            "name": "unlit vertex colors",
            "doubleSided": True,  # a walker may step behind a surface
            "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
            "extensions": {"KHR_materials_unlit": {}},
        }
    ]
    tree["extensionsUsed"] = ["KHR_materials_unlit"]
    for part in tree["meshes"]:
        for primitive in part["primitives"]:
            primitive["material"] = 0
            colors = primitive["attributes"].pop("_COLOR_0")
            primitive["attributes"]["COLOR_0"] = colors
            tree["accessors"][colors]["normalized"] = True
