"""glTF for splats, the other meshes and the collider: values, other programs, hostile files."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from browser import Page
from coloured_room import FOV, HEIGHT, WIDTH, check_picture, coloured_room, psnr
from other_programs import (
    NEEDS_BLENDER,
    blender_picture,
    needs,
    picture_by,
    splat_transform,
    validate_gltf,
)
from splat_scenes import cloud

from renderers import Camera, SceneError
from scenegen.export import (
    DepthView,
    ExportOptions,
    export_file,
    mesh_from_depth,
    read_splats,
    write_ply,
)
from scenegen.export.collider import collider
from scenegen.export.formats import TRIANGLES
from scenegen.export.placement import Placement


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Description and data of a binary glTF."""
    size = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def together(tree: Any, body: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 28 + len(text) + len(body))
    return (
        head + struct.pack("<I4s", len(text), b"JSON") + text
        + struct.pack("<I4s", len(body), b"BIN\0") + body
    )  # fmt: skip


def test_a_splat_by_hand(tmp_path: Path) -> None:
    scene = cloud(1)
    export_file(tmp_path / "a.splats.glb", splats=scene)
    tree, body = parts((tmp_path / "a.splats.glb").read_bytes())
    primitive = tree["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0 and tree["extensionsUsed"] == ["KHR_gaussian_splatting"]
    got = {}
    for name, index in primitive["attributes"].items():
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        kind = "u1" if accessor["componentType"] == 5121 else "<f4"
        end = view["byteOffset"] + view["byteLength"]
        got[name.split(":")[-1]] = np.frombuffer(body[view["byteOffset"] : end], kind)
    x, y, z = scene.means[0].tolist()
    np.testing.assert_allclose(got["POSITION"], [x, -y, -z], rtol=1e-6)
    np.testing.assert_allclose(got["SCALE"], scene.scales[0], rtol=1e-6)
    np.testing.assert_allclose(got["OPACITY"], scene.opacities, rtol=1e-6)
    harmonic = (scene.colors[0] - 0.5) / 0.28209479177387814
    np.testing.assert_allclose(got["SH_DEGREE_0_COEF_0"], harmonic, rtol=1e-5)
    quat = scene.quats[0] / torch.linalg.norm(scene.quats[0])
    w, x, y, z = quat.tolist()  # (0, 1, 0, 0) times it, then x y z w
    np.testing.assert_allclose(got["ROTATION"], [w, -z, y, -x], atol=1e-6)
    srgb = scene.colors[0].double().numpy()
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(got["COLOR_0"][:3], linear * 255, atol=0.51)


@pytest.mark.parametrize("degree", [0, 3])
def test_trimesh_sees_the_points(tmp_path: Path, degree: int) -> None:
    scene = cloud(300, degree=degree)
    export_file(tmp_path / "a.splats.glb", splats=scene)
    points = next(iter(trimesh.load_scene(tmp_path / "a.splats.glb").geometry.values()))
    np.testing.assert_allclose(points.vertices, scene.means * torch.tensor([1, -1, -1]), rtol=1e-6)


@needs("@playcanvas/splat-transform")
def test_reads_what_splat_transform_writes(tmp_path: Path) -> None:
    """Its splats look the other way: x left and z ahead, where ours have x right and z back."""
    scene = cloud(200, degree=2)
    write_ply(tmp_path / "a.ply", scene)
    splat_transform(tmp_path / "a.ply", tmp_path / "b.glb")
    (tmp_path / "b.glb").rename(tmp_path / "b.splats.glb")
    turned = Placement(((-1, 0, 0), (0, 1, 0), (0, 0, -1)))
    back = turned.splats(read_splats(tmp_path / "b.splats.glb"))
    distance, match = torch.cdist(back.means.double(), scene.means.double()).min(1)
    assert distance.max() < 1e-5 and sorted(match.tolist()) == list(range(200))
    torch.testing.assert_close(back.scales, scene.scales[match], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(back.colors, scene.colors[match], rtol=0, atol=1e-5)
    torch.testing.assert_close(back.opacities, scene.opacities[match], rtol=0, atol=1e-5)
    assert back.sh is not None and scene.sh is not None
    torch.testing.assert_close(back.sh, scene.sh[match], rtol=0, atol=1e-4)


@needs("gltf-validator")
def test_the_validator_only_misses_the_extension(tmp_path: Path) -> None:
    export_file(tmp_path / "a.splats.glb", splats=cloud(50, degree=1))
    issues = validate_gltf(tmp_path / "a.splats.glb")
    assert {issue["code"] for issue in issues} <= {"MESH_PRIMITIVE_INVALID_ATTRIBUTE"}


def swap(**values: Any) -> Callable[[dict[str, Any], bytes], bytes]:
    """Change entries of the accessor or view of the positions."""

    def change(tree: dict[str, Any], body: bytes) -> bytes:
        for name, value in values.items():
            target = tree["bufferViews" if name.startswith("byte") else "accessors"][0]
            target[name] = value
        return together(tree, body)

    return change


def without(name: str) -> Callable[[dict[str, Any], bytes], bytes]:
    def change(tree: dict[str, Any], body: bytes) -> bytes:
        attributes = tree["meshes"][0]["primitives"][0]["attributes"]
        del attributes[f"KHR_gaussian_splatting:{name}"]
        return together(tree, body)

    return change


BAD = {
    "no glb": (lambda t, b: b"glTF", "is not a binary glTF"),
    "not json": (lambda t, b: together(t, b).replace(b'{"asset"', b'["asset"'), "is not JSON"),
    "a list": (lambda t, b: together([1], b), "not a JSON object"),
    "long head": (
        lambda t, b: struct.pack("<4sIII4s", b"glTF", 2, 99, 1 << 30, b"JSON"), "description has",
    ),
    "a mesh": (lambda t, b: together(t | {"meshes": []}, b), "no part of it uses"),
    "broken": (lambda t, b: together(t | {"accessors": 3}, b), "its description is broken"),
    "no scale": (without("SCALE"), "it has no SCALE"),
    "no colour": (without("SH_DEGREE_0_COEF_0"), "whole degrees of harmonics"),
    "cut": (lambda t, b: together(t, b[:50]), "cut short: 20 splats"),
    "many": (swap(count=10**12), "differ in length|cut short"),
    "none": (swap(count=0), "differ in length"),
    "negative": (swap(byteOffset=-4), "cut short"),
    "integers": (swap(componentType=5125), "not stored as float32"),
    "strange type": (swap(type="MAT4"), "its description is broken"),
    "elsewhere": (swap(bufferView=99), "its description is broken"),
    "turned": (
        lambda t, b: together(t | {"nodes": [{"mesh": 0, "scale": [2, 2, 2]}]}, b), "by a node",
    ),
    "nan": (lambda t, b: together(t, b"\0\0\xc0\x7f" + b[4:]), "1 of 20 splats hold NaN"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(tmp_path: Path, name: str) -> None:
    export_file(tmp_path / "a.splats.glb", splats=cloud(20))
    change, text = BAD[name]
    (tmp_path / "b.splats.glb").write_bytes(
        change(*parts((tmp_path / "a.splats.glb").read_bytes()))
    )
    with pytest.raises(SceneError, match=text):
        read_splats(tmp_path / "b.splats.glb")


# Meshes


def room_view() -> DepthView:
    """The coloured room seen once from its middle, with exact depth."""
    camera = Camera.from_fov(FOV, 240, 160)
    rays = torch.cat([camera.unproject(camera.pixel_centers(), torch.ones(160, 240))], -1)
    x, y = rays[..., 0].abs().clamp_min(1e-9), rays[..., 1].abs().clamp_min(1e-9)
    depth = torch.minimum(torch.minimum(2.0 / x, 1.2 / y), torch.full_like(x, 4.0))
    point = rays * depth[..., None]
    rgb = torch.tensor([0.1, 0.2, 0.85]).expand(160, 240, 3).clone()
    for color, where in (
        ((0.85, 0.1, 0.1), point[..., 0] < -1.99), ((0.1, 0.65, 0.15), point[..., 0] > 1.99),
        ((0.5, 0.3, 0.1), point[..., 1] > 1.19), ((0.95, 0.95, 0.95), point[..., 1] < -1.19),
        ((0.9, 0.8, 0.1), (point[..., 0] + 0.95).abs().lt(0.35)
         & (point[..., 1] + 0.55).abs().lt(0.35) & (point[..., 2] > 3.99)),
    ):  # fmt: skip
        rgb[where] = torch.tensor(color)
    return DepthView(rgb, depth, camera)


@pytest.fixture(scope="module")
def room_surface(open3d: None) -> trimesh.Trimesh:
    return mesh_from_depth([room_view()], voxel=0.04)


@pytest.mark.parametrize("name", ["glb", "obj", "mesh.ply"])
def test_open3d_and_trimesh_read_the_mesh(
    tmp_path: Path, room_surface: trimesh.Trimesh, name: str
) -> None:
    """Right count, place and colour: the red wall is at x = -2, the floor below."""
    import open3d

    path = tmp_path / f"room.{name}"
    export_file(path, splats=coloured_room(), mesh=lambda most: room_surface)
    loaded = trimesh.load(path, process=False, force="mesh")
    other = open3d.io.read_triangle_mesh(str(path))
    assert len(loaded.faces) == len(other.triangles) == len(room_surface.faces)
    for vertices in (loaded.vertices, np.asarray(other.vertices)):
        want = room_surface.vertices * (1, -1, -1)
        bounds = np.stack([want.min(0), want.max(0)])
        np.testing.assert_allclose([vertices.min(0), vertices.max(0)], bounds, atol=1e-5)
        np.testing.assert_allclose(vertices.mean(0), want.mean(0), atol=0.01)
    if name == "glb":
        return  # linear colours: seen in three.js below
    colors = np.asarray(other.vertex_colors)
    vertices = np.asarray(other.vertices)
    for color, where in (
        ((0.85, 0.1, 0.1), (vertices[:, 0] < -1.97) & (np.abs(vertices[:, 1]) < 1)),
        ((0.1, 0.65, 0.15), (vertices[:, 0] > 1.97) & (np.abs(vertices[:, 1]) < 1)),
        ((0.5, 0.3, 0.1), (vertices[:, 1] < -1.17) & (np.abs(vertices[:, 0]) < 1.8)),
    ):
        assert where.sum() > 20
        np.testing.assert_allclose(np.median(colors[where], 0), color, atol=0.03)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    page = Page(tmp_path_factory.mktemp("profile"), WIDTH, HEIGHT)
    yield page
    page.close()


@pytest.mark.browser
@needs("three", browser=True)
def test_three_shows_the_mesh_upright(
    tmp_path: Path, room_surface: trimesh.Trimesh, tab: Page
) -> None:
    export_file(tmp_path / "a.glb", splats=coloured_room(), mesh=lambda most: room_surface)
    picture, _ = picture_by("three", tab, tmp_path / "a.glb", (WIDTH, HEIGHT), FOV)
    check_picture(picture, harmonics=False)
    inner = (slice(8, -8), slice(8, -8))  # the rim of a view is half a voxel short
    assert psnr(torch.from_numpy(picture).float()[inner], room_view().rgb[inner]) > 27


@NEEDS_BLENDER
@pytest.mark.parametrize("name", ["glb", "obj", "mesh.ply", "collider.glb"])
def test_blender_shows_the_mesh_upright(
    tmp_path: Path, room_surface: trimesh.Trimesh, name: str
) -> None:
    """Imported without a switch; .ply has no axes of its own, so it is exported for Blender."""
    options = ExportOptions(up="z") if name == "mesh.ply" else ExportOptions()
    path = tmp_path / f"room.{name}"
    export_file(
        path, splats=coloured_room(), mesh=lambda most: room_surface, options=options, ground=1.2
    )
    picture, found = blender_picture(path, (WIDTH, HEIGHT), FOV)
    check_picture(picture, harmonics=False)
    whole = room_surface if name != "collider.glb" else collider(room_surface, 1.2)
    assert (found["vertices"], found["triangles"]) == (len(whole.vertices), len(whole.faces))
    (x0, y0, z0), (x1, y1, z1) = whole.bounds  # x right, y ahead, z up
    np.testing.assert_allclose(found["low"], [x0, z0, -y1], atol=1e-5)
    np.testing.assert_allclose(found["high"], [x1, z1, -y0], atol=1e-5)


@needs("gltf-validator")
def test_the_validator_passes_meshes(tmp_path: Path, room_surface: trimesh.Trimesh) -> None:
    for name in ("a.glb", "a.collider.glb"):
        export_file(tmp_path / name, splats=coloured_room(), mesh=lambda most: room_surface)
        assert validate_gltf(tmp_path / name) == []


def ramp() -> trimesh.Trimesh:
    """Ground from x = -1 to 1 that falls by 0.2 m to the right, with a hole in its middle."""
    xs = np.linspace(-1, 1, 41)
    x, z = np.meshgrid(xs, xs, indexing="ij")
    index = np.arange(41 * 41).reshape(41, 41)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    points = np.stack([x, 1.6 + 0.1 * x, z], -1).reshape(-1, 3)
    hole = np.abs(points[:, [0, 2]]).max(1) < 0.3
    faces = faces[~hole[faces].any(1)]
    colors = np.full((len(points), 4), 200, np.uint8)
    return trimesh.Trimesh(points, faces, vertex_colors=colors, process=False)


def test_the_ground_of_a_collider_is_closed_and_follows_what_was_seen(open3d: None) -> None:
    seen = ramp()
    whole = collider(seen, 1.6)
    count = len(seen.faces)
    assert (whole.faces[:count] == seen.faces).all()
    ground = trimesh.Trimesh(whole.vertices, whole.faces[count:], process=False)
    ground.remove_unreferenced_vertices()
    assert ground.is_watertight and ground.is_winding_consistent and ground.volume > 0
    assert len(ground.faces) < 40_000
    import open3d as library

    scene = library.t.geometry.RaycastingScene()
    scene.add_triangles(ground.vertices.astype(np.float32), ground.faces.astype(np.uint32))
    xs = np.linspace(-0.9, 0.9, 19, dtype=np.float32)  # also above the hole
    rays = np.stack([xs, 0 * xs, 0 * xs + 0.05, 0 * xs, 0 * xs + 1, 0 * xs], 1)
    hit = scene.cast_rays(library.core.Tensor(rays))["t_hit"].numpy()
    np.testing.assert_allclose(hit, 1.62 + 0.1 * xs, atol=0.05)


def test_where_no_ground_was_seen_it_is_at_its_usual_height() -> None:
    wall = trimesh.creation.box((2.0, 2.0, 0.1))
    wall.visual.vertex_colors = np.full((8, 4), 255, np.uint8)
    whole = collider(wall, 1.6)
    assert whole.vertices[8:, 1].min() == pytest.approx(1.62)
    assert TRIANGLES["collider"] + 40_000 <= 200_000
