"""Meshes: fused surfaces against the true ones, and .glb files as other programs read them."""

from __future__ import annotations

import json
import logging
import math
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor
from trimesh.visual import ColorVisuals

from renderers import Camera, SceneError
from scenegen.export import DepthView, mesh_from_depth, write_glb

needs_open3d = pytest.mark.usefixtures("open3d")
# A wall that leans and turns away: normal @ x = 1. In front of it, off centre, a red box.
NORMAL = torch.tensor([0.10, 0.05, 0.22])
BOX = torch.tensor([[0.2, -0.5, 2.4], [0.8, 0.3, 2.9]])


def rays(camera: Camera) -> tuple[Tensor, Tensor]:
    """Origin, and the direction of every pixel with z = 1 in the camera."""
    ones = torch.ones(camera.height, camera.width)
    return camera.center, camera.unproject(camera.pixel_centers(), ones) - camera.center


def wall_and_box(camera: Camera) -> DepthView:
    """What a camera sees: the wall in bands of colour along x, the box in red."""
    origin, direction = rays(camera)
    wall = (1 - origin @ NORMAL) / (direction @ NORMAL)
    ends = torch.sort((BOX[:, None, None] - origin) / direction, dim=0).values
    enter, leave = ends[0].amax(-1), ends[1].amin(-1)
    on_box = (enter < leave) & (enter > 0) & (enter < wall)
    depth = torch.where(on_box, enter, wall)
    points = origin + depth[..., None] * direction
    rgb = torch.stack([0.2 + 0 * depth, 0.5 + 0.1 * points[..., 0], 0.8 + 0 * depth], dim=-1)
    rgb[on_box] = torch.tensor([1.0, 0.0, 0.0])
    return DepthView(rgb.clamp(0, 1), depth, camera)


def distance_to_truth(points: np.ndarray) -> np.ndarray:
    """Distance to the nearer of the wall and the box, in metres."""
    x = torch.from_numpy(np.asarray(points)).float()
    wall = ((x @ NORMAL - 1) / torch.linalg.norm(NORMAL)).abs()
    outside = (x - BOX.mean(0)).abs() - (BOX[1] - BOX[0]) / 2
    box = torch.linalg.norm(outside.clamp_min(0), dim=1) + outside.amax(1).clamp_max(0)
    return torch.minimum(wall, box.abs()).numpy()


def three_views() -> list[DepthView]:
    first = Camera.from_fov(60, 96, 72)
    cameras = [first, first.moved(right=0.4, yaw_degrees=-6), first.moved(right=-0.4, down=0.2)]
    return [wall_and_box(camera) for camera in cameras]


def _colors(mesh: trimesh.Trimesh) -> np.ndarray:
    assert isinstance(mesh.visual, ColorVisuals)
    return np.asarray(mesh.visual.vertex_colors)


@pytest.fixture(scope="module")
def fused(open3d: None) -> trimesh.Trimesh:
    return mesh_from_depth(three_views(), voxel=0.06)


def test_the_surface_is_where_it_was_seen(fused: trimesh.Trimesh) -> None:
    assert distance_to_truth(fused.vertices).max() < 0.06
    samples = trimesh.sample.sample_surface(fused, 5000, seed=0)[0]
    error = distance_to_truth(samples)
    assert error.max() < 0.06 and np.median(error) < 0.006
    # Sharp corners are cut by up to a voxel; the wall is flat and must be exact.
    beside = np.asarray(fused.vertices)[:, 0] < -0.2
    assert beside.sum() > 300 and distance_to_truth(fused.vertices[beside]).max() < 1e-3


def test_the_surface_is_complete(fused: trimesh.Trimesh) -> None:
    """Every pixel's point away from edges has a vertex within a voxel and a half."""
    view = three_views()[0]
    points = view.camera.unproject(view.camera.pixel_centers(), view.depth)
    away = (points[..., 0] < 0.05) & (view.camera.pixel_centers()[..., 0] > 3)
    points = points[away].numpy()
    tree = trimesh.proximity.ProximityQuery(fused)
    assert len(points) > 2000
    assert tree.vertex(points)[0].max() < 0.09
    front = view.depth < 2.41  # the side of the box towards the camera
    middle = view.camera.unproject(view.camera.pixel_centers(), view.depth)[front].mean(0)
    assert tree.vertex(middle[None].numpy())[0][0] < 0.06


def test_triangles_face_the_cameras_and_carry_the_colours(fused: trimesh.Trimesh) -> None:
    outward = np.einsum("ij,ij->i", fused.face_normals, fused.triangles_center)
    assert (outward < 0).mean() > 0.99
    colors = _colors(fused)
    red = (colors[:, 0] > 250) & (colors[:, 2] < 5)
    low, high = BOX[0].numpy() - 0.06, BOX[1].numpy() + 0.06
    outside = np.maximum(low - fused.vertices[red], fused.vertices[red] - high)
    assert red.sum() > 50 and outside.max() < 0
    wall = np.asarray(fused.vertices)[:, 0] < -0.2
    expected = 255 * (0.5 + 0.1 * np.asarray(fused.vertices)[wall, 0])
    assert np.abs(colors[wall, 1] - expected).max() < 5  # bands of 0.1 per metre, voxels of 0.06


def test_no_sheet_joins_the_box_to_the_wall(fused: trimesh.Trimesh) -> None:
    depth = np.asarray(fused.vertices)[:, 2]
    pieces = fused.split(only_watertight=False)
    assert len(pieces) >= 2
    assert all(p.vertices[:, 2].max() < 3 or p.vertices[:, 2].min() > 3 for p in pieces)
    assert (depth < 3).any() and (depth > 3).any()


def test_the_same_views_give_the_same_mesh(fused: trimesh.Trimesh) -> None:
    again = mesh_from_depth(three_views(), voxel=0.06)
    assert np.array_equal(again.vertices, fused.vertices)
    assert np.array_equal(again.faces, fused.faces)
    assert np.array_equal(_colors(again), _colors(fused))


def ground(width: int, height: int) -> DepthView:
    """Flat ground 1.6 m below the camera; sky above the horizon."""
    camera = Camera.from_fov(60, width, height)
    _, direction = rays(camera)
    depth = torch.where(direction[..., 1] > 0, 1.6 / direction[..., 1], torch.inf)
    return DepthView(torch.full((height, width, 3), 0.5), depth, camera)


@needs_open3d
def test_receding_ground_is_one_piece_without_stripes() -> None:
    """Rows of pixels are metres apart at 20 m, and voxels are 5 cm."""
    mesh = mesh_from_depth([ground(160, 120)], voxel=0.05)
    assert len(mesh.split(only_watertight=False)) == 1
    assert np.abs(mesh.vertices[:, 1] - 1.6).max() < 1e-3
    assert mesh.bounds[1, 2] > 15
    nearest, farthest = mesh.bounds[:, 2]
    # Seen between the sides at +-30 degrees: a trapezoid.
    area = math.tan(math.radians(30)) * (farthest**2 - nearest**2)
    assert mesh.area == pytest.approx(area, rel=0.05)


@needs_open3d
def test_what_is_far_beyond_the_rest_is_left_out() -> None:
    view = three_views()[0]
    view.depth[:, :8] = 100.0  # the rest is at 2.4 to 8 m
    mesh = mesh_from_depth([view], voxel=0.06)
    assert mesh.bounds[1, 2] < 10


@needs_open3d
def test_unknown_pixels_sky_and_specks_are_left_out() -> None:
    view = three_views()[0]
    whole = mesh_from_depth([view], voxel=0.06)
    known = torch.ones_like(view.depth, dtype=torch.bool)
    known[:, :32] = False
    depth = view.depth.clone()
    depth[:24], depth[24:26], depth[66:, 40:] = torch.inf, torch.nan, -1.0
    depth[4:7, 80:83] = 1.5  # a speck in the sky
    part = mesh_from_depth([DepthView(view.rgb, depth, view.camera, known)], voxel=0.06)
    pixels, _ = view.camera.project(torch.from_numpy(np.array(part.vertices)).float())
    assert pixels[:, 0].min() > 31 and pixels[:, 1].min() > 25
    right = pixels[pixels[:, 0] > 41]
    assert right[:, 1].max() < 67
    assert 0.2 < part.area / whole.area < 0.7
    speckled = mesh_from_depth(
        [DepthView(view.rgb, depth, view.camera, known)], voxel=0.02, min_triangles=1
    )
    assert speckled.bounds[0, 2] < 1.6  # the speck is there when pieces of any size may stay


@needs_open3d
def test_the_automatic_voxel_is_two_pixels_at_the_median_depth(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A wall at 3 m, focal length 96 / (2 tan 30) = 83.14: 2 * 3 / 83.14 = 0.0722 m."""
    camera = Camera.from_fov(60, 96, 72)
    view = DepthView(torch.ones(72, 96, 3), torch.full((72, 96), 3.0), camera)
    with caplog.at_level(logging.INFO, "scenegen"):
        mesh = mesh_from_depth([view])
    assert "voxels of 0.0722 m" in caplog.text
    np.testing.assert_allclose(mesh.vertices[:, 2], 3.0, atol=1e-5)
    seen = 96 * 72 * (3 / 83.14) ** 2
    assert 0.88 * seen < mesh.area <= seen  # the outermost voxel on each side is half unseen


@needs_open3d
@pytest.mark.parametrize("limit", [3000, 300])
def test_the_number_of_triangles_is_bounded(limit: int) -> None:
    fine = mesh_from_depth(three_views()[:1], voxel=0.06, max_triangles=limit)
    coarse = mesh_from_depth(three_views()[:1], max_triangles=limit)
    for mesh in (fine, coarse):
        assert limit / 10 < len(mesh.faces) <= limit
        assert len(_colors(mesh)) == len(mesh.vertices)
    assert distance_to_truth(fine.vertices).max() < 0.12


@needs_open3d
def test_a_distant_wall_does_not_make_polygons_of_what_is_near(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A board at 1 m fills a quarter of the view, a wall at 9 m the rest: near has its own voxels.

    One pixel is 1 / 277 m wide at the board, so its voxels may be 7 mm; triangles are scarce.
    """
    camera = Camera.from_fov(60, 320, 240)
    depth = torch.full((240, 320), 9.0)
    depth[:120, :160] = 1.0
    view = DepthView(torch.full((240, 320, 3), 0.5), depth, camera)
    with caplog.at_level(logging.INFO, "scenegen"):
        mesh = mesh_from_depth([view], max_triangles=8000)
    sizes = [float(m.split("voxels of ")[1].split()[0]) for m in caplog.messages]
    assert len(sizes) == 2 and sizes[0] < 0.02 < 0.06 < sizes[1]
    z = np.asarray(mesh.vertices)[:, 2]
    near, far = np.abs(z - 1) < 0.01, np.abs(z - 9) < 0.05
    assert (near | far).all() and near.sum() > 1000 and far.sum() > 500
    assert 2000 < len(mesh.faces) <= 8000
    assert len(_colors(mesh)) == len(mesh.vertices)
    board = (159 / 277.1) * (119 / 277.1)
    assert mesh.submesh([np.flatnonzero(near[mesh.faces].all(1))])[0].area == pytest.approx(
        board, rel=0.1
    )


@needs_open3d
def test_impossible_meshes_are_refused() -> None:
    view = three_views()[0]
    sky = DepthView(view.rgb, torch.full_like(view.depth, torch.inf), view.camera)
    with pytest.raises(SceneError, match="no view has a pixel with known, finite depth"):
        mesh_from_depth([sky])
    with pytest.raises(SceneError, match="no view has a pixel"):
        mesh_from_depth([])
    with pytest.raises(SceneError, match="no connected piece of surface has 1000000 triangles"):
        mesh_from_depth([view], voxel=0.06, min_triangles=1_000_000)
    for voxel in (0.0, -1.0, math.nan, math.inf, 1e-9, 1e-3):
        with pytest.raises(SceneError, match=f"with voxels of {voxel} m is impossible"):
            mesh_from_depth([view], voxel=voxel)
    one = Camera.from_fov(60, 1, 1)
    with pytest.raises(SceneError, match="there is no surface to write as a mesh"):
        mesh_from_depth([DepthView(torch.zeros(1, 1, 3), torch.ones(1, 1), one)])
    with pytest.raises(SceneError, match=r"DepthView.rgb has shape \(72, 96, 3\)"):
        DepthView(view.rgb, view.depth, Camera.from_fov(60, 95, 72))


# .glb


def handmade() -> trimesh.Trimesh:
    """Right is red, below is green, ahead is blue, the corner is grey 128."""
    return trimesh.Trimesh(
        [[0, 0, 1], [2, 0, 1], [0, 3, 1], [0, 0, 5]],
        [[0, 1, 2], [0, 3, 1]],
        vertex_colors=[[128, 128, 128], [255, 0, 0], [0, 255, 0], [0, 0, 255]],
        process=False,
    )


def chunks(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    magic, version, length, json_length, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind) == (b"glTF", 2, len(data), b"JSON")
    return json.loads(data[20 : 20 + json_length]), data[28 + json_length :]


def accessor(tree: dict[str, Any], blob: bytes, name: str) -> tuple[dict[str, Any], np.ndarray]:
    entry = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"][name]]
    view = tree["bufferViews"][entry["bufferView"]]
    kind = {5123: "<u2", 5126: "<f4"}[entry["componentType"]]
    offset = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
    width = {"VEC3": 3, "VEC4": 4}[entry["type"]]
    return entry, np.frombuffer(blob, kind, entry["count"] * width, offset).reshape(-1, width)


def test_glb_axes_colours_and_material_by_hand(tmp_path: Path) -> None:
    """(x, y, z) -> (x, -y, -z). sRGB 128 / 255 = 0.50196 is linear 0.215861, times 65535: 14146."""
    write_glb(tmp_path / "a.glb", handmade())
    tree, blob = chunks(tmp_path / "a.glb")
    entry, position = accessor(tree, blob, "POSITION")
    assert position.tolist() == [[0, 0, -1], [2, 0, -1], [0, -3, -1], [0, 0, -5]]
    assert entry["min"] == [0, -3, -5] and entry["max"] == [2, 0, -1]
    entry, color = accessor(tree, blob, "COLOR_0")
    assert entry["normalized"] is True
    assert color.tolist() == [
        [14146, 14146, 14146, 65535],
        [65535, 0, 0, 65535],
        [0, 65535, 0, 65535],
        [0, 0, 65535, 65535],
    ]
    assert tree["extensionsUsed"] == ["KHR_materials_unlit"]
    (material,) = tree["materials"]
    assert material["extensions"] == {"KHR_materials_unlit": {}}
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert tree["meshes"][0]["primitives"][0]["material"] == 0
    assert tree["asset"]["generator"].startswith("scenegen ")
    assert set(tree["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "COLOR_0"}


def test_trimesh_reads_the_glb(tmp_path: Path, fused: trimesh.Trimesh) -> None:
    write_glb(tmp_path / "a.glb", fused)
    scene = trimesh.load_scene(tmp_path / "a.glb", process=False)
    (mesh,) = scene.geometry.values()
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.vertices) == len(fused.vertices) and len(mesh.faces) == len(fused.faces)
    np.testing.assert_allclose(mesh.vertices, fused.vertices * [1, -1, -1], atol=1e-6)
    low, high = fused.bounds
    np.testing.assert_allclose(
        mesh.bounds, [[low[0], -high[1], -high[2]], [high[0], -low[1], -low[2]]], atol=1e-6
    )
    np.testing.assert_array_equal(mesh.faces, fused.faces)
    linear = mesh.visual.vertex_attributes["color"][:, :3] / 65535  # pyright: ignore
    curve = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    np.testing.assert_allclose(curve * 255, _colors(fused)[:, :3], atol=0.1)


def test_a_system_without_what_open3d_needs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(SceneError, match="meshes cannot be made here") as caught:
        mesh_from_depth(three_views(), voxel=0.06)
    assert "libusb-1.0-0" in str(caught.value)


def test_an_empty_mesh_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_text("older")
    with pytest.raises(SceneError, match="the mesh has no triangles"):
        write_glb(tmp_path / "a.glb", trimesh.Trimesh())
    assert (tmp_path / "a.glb").read_text() == "older"


def test_the_log_says_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scenegen"):
        write_glb(tmp_path / "a.glb", handmade())
    assert "2 triangles; no sky" in caplog.text
