"""Folders to train from: depth and normals by hand, and as other programs read them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from coloured_room import camera as room_camera
from coloured_room import coloured_room
from PIL import Image

from renderers import Camera, SceneError, make_renderer
from scenegen import cli
from scenegen.export import (
    Frame,
    read_transforms,
    write_dataset,
    write_depth_png,
    write_frame,
    write_normals,
    write_normals_png,
)
from scenegen.export.colmap import read_colmap
from scenegen.world.frames import frames


def test_depth_png_by_hand(tmp_path: Path) -> None:
    """Millimetres; what is nearer than half a step is still known."""
    depth = torch.tensor([[1.2344, 1.2346, torch.nan, torch.inf], [65.535, 65.536, 0.0001, -1.0]])
    write_depth_png(tmp_path / "a.png", depth)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "I;16" and "0.001 m per step" in image.info["Description"]
        assert np.asarray(image).tolist() == [[1234, 1235, 0, 0], [65535, 0, 1, 0]]
    with pytest.raises(SceneError, match="has no pixels"):
        write_depth_png(tmp_path / "b.png", torch.zeros(0, 2))
    assert not (tmp_path / "b.png").exists()


def test_normals_by_hand(tmp_path: Path) -> None:
    normals = torch.tensor([[[1.0, 0, 0], [0, 0, -1], [torch.nan] * 3]])
    write_normals_png(tmp_path / "a.png", normals)
    write_normals(tmp_path / "a.npy", normals)
    with Image.open(tmp_path / "a.png") as image:
        assert np.asarray(image).tolist() == [[[255, 128, 128], [128, 128, 0], [0, 0, 0]]]
        assert "black: unknown" in image.info["Description"]
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), normals.numpy())


def floor_seen_from(camera: Camera) -> Frame:
    """Flat ground 1.5 m below the origin; sky above the horizon."""
    rays = camera.unproject(camera.pixel_centers(), torch.ones(camera.height, camera.width))
    rays = rays - camera.center
    down = rays[..., 1]
    depth = torch.where(down > 0.02, (1.5 - camera.center[1]) / down, torch.inf)
    normal = camera.cam_from_world[:3, :3] @ torch.tensor([0.0, -1.0, 0.0])
    normals = torch.where(torch.isfinite(depth)[..., None], normal, torch.nan)
    return Frame(camera, torch.full((*depth.shape, 3), 0.5), depth, normals)


def test_open3d_puts_the_depth_where_it_belongs(tmp_path: Path, open3d: None) -> None:
    """Another program, its defaults (1000 steps per metre), our camera."""
    import open3d

    camera = Camera.from_fov(70, 64, 48).moved(pitch_degrees=-10, yaw_degrees=20, right=1.0)
    write_frame(tmp_path / "a.png", floor_seen_from(camera))
    image = open3d.io.read_image(str(tmp_path / "a.depth.png"))
    lens = camera.px_from_cam.tolist()
    intrinsics = open3d.camera.PinholeCameraIntrinsic(
        64, 48, lens[0][0], lens[1][1], lens[0][2] - 0.5, lens[1][2] - 0.5
    )  # its pixel centres are whole numbers
    points = open3d.geometry.PointCloud.create_from_depth_image(
        image, intrinsics, camera.cam_from_world.double().numpy(), depth_trunc=60.0
    )
    points = np.asarray(points.points)
    assert len(points) > 800
    np.testing.assert_allclose(points[:, 1], 1.5, atol=2e-3)


def test_a_dataset_comes_back_in_both_ways(tmp_path: Path) -> None:
    start = Camera.from_fov(70, 64, 48)
    cameras = [start, start.moved(right=0.3, yaw_degrees=15)]
    room = coloured_room()
    assert write_dataset(tmp_path / "set", map(floor_seen_from, cameras), room) == 2
    content = json.loads((tmp_path / "set/transforms.json").read_text())
    assert content["integer_depth_scale"] == 0.001
    assert content["frames"][1] == content["frames"][1] | {
        "file_path": "00001.png", "depth_file_path": "00001.depth.png",
        "normal_file_path": "00001.normals.png",
    }  # fmt: skip
    for frame in content["frames"]:
        assert all((tmp_path / "set" / frame[key]).is_file() for key in frame if "file" in key)
    ours = read_transforms(tmp_path / "set/transforms.json")
    theirs = read_colmap(tmp_path / "set/sparse/0")
    for want, one, two in zip(cameras, ours, theirs, strict=True):
        for got in (one, two):
            torch.testing.assert_close(got.cam_from_world, want.cam_from_world, rtol=0, atol=1e-5)
            torch.testing.assert_close(got.px_from_cam, want.px_from_cam, rtol=0, atol=1e-4)
    plain = [Frame(start, torch.zeros(48, 64, 3))]
    write_dataset(tmp_path / "plain", plain, room)
    content = json.loads((tmp_path / "plain/transforms.json").read_text())
    assert "integer_depth_scale" not in content and len(content["frames"][0]) == 2
    with pytest.raises(SceneError, match="data set has no frames"):
        write_dataset(tmp_path / "none", [], room)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SceneError, match="cannot write"):
        write_dataset(tmp_path / "file" / "set", plain, room)


@pytest.mark.skipif(find_spec("pycolmap") is None, reason="no COLMAP: pip install pycolmap")
def test_colmap_itself_reads_the_cameras_and_points(tmp_path: Path) -> None:
    import pycolmap

    turned = Camera.from_fov(70, 64, 48).moved(right=0.3, yaw_degrees=15, pitch_degrees=5)
    frame = Frame(turned, torch.zeros(48, 64, 3))
    write_dataset(
        tmp_path, [Frame(room_camera(), torch.zeros(160, 240, 3)), frame], coloured_room()
    )
    model = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    assert model.num_images() == model.num_cameras() == 2
    assert model.num_points3D() == len(coloured_room())
    image = model.images[2]
    assert image.name == "00001.png"
    pose = image.cam_from_world().matrix()
    np.testing.assert_allclose(pose, turned.cam_from_world[:3].numpy(), atol=1e-6)
    lens = model.cameras[image.camera_id].calibration_matrix()
    np.testing.assert_allclose(lens, turned.px_from_cam.numpy(), rtol=1e-6)
    point = model.points3D[18]
    np.testing.assert_allclose(point.xyz, coloured_room().means[17].numpy(), atol=1e-5)
    np.testing.assert_allclose(point.color, coloured_room().colors[17].numpy() * 255, atol=0.51)


def test_normals_of_the_room_point_into_it() -> None:
    """Seen from a camera that is turned: left wall, right wall, floor, ceiling, far wall."""
    view, room = room_camera().moved(yaw_degrees=10, pitch_degrees=5), coloured_room()
    draw = make_renderer("cpu").render
    (frame,) = frames(lambda camera: draw(room, camera), [view], depth=True, normals=True)
    assert frame.normals is not None and frame.depth is not None
    in_world = frame.normals @ view.cam_from_world[:3, :3]
    points = view.unproject(view.pixel_centers(), frame.depth)
    for axis, at, inward in ((0, -2.0, 1), (0, 2.0, -1), (1, 1.2, -1), (1, -1.2, 1), (2, 4.0, -1)):
        on = (points[..., axis] - at).abs() < 0.05
        assert on.sum() > 500
        assert (in_world[on][:, axis] * inward).median() > 0.99


def test_a_world_is_drawn_with_depth_and_normals(grown_world: Path, tmp_path: Path) -> None:
    """Depth as PNG is depth as NPY; normals are of unit length, and face the camera."""
    words = ["render", grown_world, "--out", tmp_path / "a.png", "--depth", "--normals"]
    assert cli.main([str(word) for word in words]) == 0
    depth, normals = np.load(tmp_path / "a.npy"), np.load(tmp_path / "a.normals.npy")
    steps = np.asarray(Image.open(tmp_path / "a.depth.png"))
    known = np.isfinite(depth) & (depth < 65)
    assert known.mean() > 0.3 and (steps[known] > 0).all()
    np.testing.assert_allclose(steps[known] * 0.001, depth[known], atol=5.1e-4)
    assert (steps[~np.isfinite(depth)] == 0).all()
    there = np.isfinite(normals).all(-1)
    assert (there == np.isfinite(depth)).all()
    np.testing.assert_allclose(np.linalg.norm(normals[there], axis=-1), 1.0, atol=1e-5)
    picture = np.asarray(Image.open(tmp_path / "a.normals.png"))
    np.testing.assert_allclose(picture[there] / 127.5 - 1, normals[there], atol=0.005)
    assert (picture[~there] == 0).all()
