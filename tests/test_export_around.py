"""Panoramas, films around a place, and COLMAP's text: by hand, and hostile files."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from coloured_room import BLUE, BROWN, GREEN, RED, WHITE, YELLOW, camera, coloured_room
from PIL import Image

from renderers import Camera, SceneError, make_renderer
from scenegen import cli
from scenegen.export.colmap import read_colmap, write_colmap
from scenegen.export.panorama import panorama, write_panorama
from scenegen.export.transforms import read_transforms
from scenegen.world.paths import motion

RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
GPANO = "{http://ns.google.com/photos/1.0/panorama/}"


def sphere(view: Camera) -> torch.Tensor:
    """The colour of a direction is the direction: what a perfect panorama must show."""
    rays = view.unproject(view.pixel_centers(), torch.ones(view.height, view.width)) - view.center
    return 0.5 + 0.5 * rays / torch.linalg.norm(rays, dim=-1, keepdim=True)


def test_a_panorama_shows_each_direction_where_it_belongs() -> None:
    """Row v, column u: right by (u / w - 1/2) 360 degrees, up by (1/2 - v / h) 180 degrees."""
    height = 64
    picture = panorama(sphere, Camera.from_fov(50, 30, 20), height)
    assert picture.shape == (height, 2 * height, 3)
    v, u = np.meshgrid(np.arange(height) + 0.5, np.arange(2 * height) + 0.5, indexing="ij")
    right, up = (u / height - 1) * np.pi, (0.5 - v / height) * np.pi
    want = np.stack([np.cos(up) * np.sin(right), -np.sin(up), np.cos(up) * np.cos(right)], -1)
    np.testing.assert_allclose(picture.numpy(), 0.5 + 0.5 * want, atol=2e-3)


def test_a_panorama_turns_with_its_camera() -> None:
    start = Camera.from_fov(50, 30, 20)
    straight, turned = (
        panorama(sphere, start, 32),
        panorama(sphere, start.moved(yaw_degrees=90), 32),
    )
    torch.testing.assert_close(turned, straight.roll(-16, 1), rtol=0, atol=4e-3)


def test_the_room_in_a_panorama(tmp_path: Path) -> None:
    room = coloured_room()
    picture = panorama(lambda view: make_renderer("cpu").render(room, view).rgb, camera(), 160)
    for (column, row), color in {
        (80, 80): RED, (240, 80): GREEN, (160, 80): BLUE, (160, 150): BROWN, (160, 10): WHITE,
        (148, 73): YELLOW,
    }.items():  # fmt: skip
        seen = picture[row - 1 : row + 2, column - 1 : column + 2].mean((0, 1)).numpy()
        assert np.abs(seen - np.array(color)).max() < 0.12, (column, row, seen)
    for name in ("a.png", "a.jpg"):
        write_panorama(tmp_path / name, picture)
        image = Image.open(tmp_path / name)
        assert image.size == (320, 160)
        xmp = image.info["xmp"] if name == "a.jpg" else image.info["XML:com.adobe.xmp"].encode()
        (tags,) = ElementTree.fromstring(xmp).iter(f"{RDF}Description")
        assert tags.attrib[f"{GPANO}ProjectionType"] == "equirectangular"
        assert tags.attrib[f"{GPANO}FullPanoWidthPixels"] == "320"
    for name, shape in (("a.bmp", (4, 8, 3)), ("b.png", (4, 4, 3))):
        with pytest.raises(SceneError, match="as a panorama"):
            write_panorama(tmp_path / name, torch.zeros(shape))
        assert not (tmp_path / name).exists()


def test_turntable_and_fly() -> None:
    """The turntable looks at one point from equally far; the flight ends straight ahead."""
    start = Camera.from_fov(60, 40, 30)
    circle = motion(start, "turntable", 3.0, 8)
    pivot = torch.tensor([0.0, 0.0, 3.0])
    for view in circle:
        pixel, depth = view.project(pivot)
        torch.testing.assert_close(pixel, torch.tensor([20.0, 15.0]), rtol=0, atol=1e-3)
        assert depth == pytest.approx(3.0, abs=1e-5)
    torch.testing.assert_close(circle[3].center, torch.tensor([0.0, 0.0, 6.0]), rtol=0, atol=1e-5)
    flight = motion(start, "fly", 2.0, 4)
    torch.testing.assert_close(flight[-1].center, torch.tensor([0.0, 0, 2.0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(flight[0].center, torch.tensor([0.3, 0, 0.5]), rtol=0, atol=1e-5)


# COLMAP


def cameras() -> list[Camera]:
    lens = torch.tensor([[50.0, 0, 31], [0, 52.0, 20], [0, 0, 1]])
    turned = camera().moved(yaw_degrees=170, pitch_degrees=20, right=1)
    return [
        Camera.look_at((0.3, -0.2, 0.1), (1.0, 0.4, 3.0), 60, 64, 48),
        Camera(lens, turned.cam_from_world, 64, 40),
        Camera.look_at((0.0, 0.0, 0.0), (-1.0, 0.0, 0.2), 60, 64, 48),
    ]  # fmt: skip


def test_colmap_by_hand_and_back(tmp_path: Path) -> None:
    """The camera at the origin turned by 90 degrees to the right: about y by -90."""
    room = coloured_room()
    one = Camera.from_fov(90, 8, 6).moved(yaw_degrees=90)
    write_colmap(tmp_path, [one], ["a.png"], room)
    assert (tmp_path / "cameras.txt").read_text() == "1 PINHOLE 8 6 4 4 4 3\n"
    first, second, *_ = (tmp_path / "images.txt").read_text().split("\n")
    values = [float(word) for word in first.split()[1:8]]
    np.testing.assert_allclose(values, [0.5**0.5, 0, -(0.5**0.5), 0, 0, 0, 0], atol=1e-6)
    assert first.split()[8:] == ["1", "a.png"] and second == ""
    points = np.loadtxt(tmp_path / "points3D.txt")
    assert len(points) == len(room)
    np.testing.assert_allclose(points[:, 1:4], room.means, atol=1e-5)
    write_colmap(tmp_path, cameras(), ["a.png", "b.png", "c.png"], room)
    assert (tmp_path / "cameras.txt").read_text().count("PINHOLE") == 2
    for got, want in zip(read_colmap(tmp_path), cameras(), strict=True):
        torch.testing.assert_close(got.cam_from_world, want.cam_from_world, rtol=0, atol=1e-6)
        torch.testing.assert_close(got.px_from_cam, want.px_from_cam, rtol=1e-6, atol=1e-5)
        assert (got.width, got.height) == (want.width, want.height)


GOOD = {"cameras.txt": "# c\n1 PINHOLE 8 6 4 4 4 3\n", "images.txt": "1 1 0 0 0 0 0 0 1 a.png\n\n"}


@pytest.mark.parametrize(
    ("name", "text", "want"),
    [
        ("images.txt", "", "names no image"),
        ("images.txt", "1 1 0 0 0 nan 0 0 1 a.png\n", "image 1"),
        ("images.txt", "1 0 0 0 0 0 0 0 1 a.png\n", "image 1"),
        ("images.txt", "1 1 0 0\n", "is not an image"),
        ("images.txt", "1 1 0 0 0 0 0 0 7 a.png\n", "is not an image"),
        ("cameras.txt", "1 OPENCV 8 6 4 4 4 3 0 0 0 0\n", "is OPENCV; only pinholes"),
        ("cameras.txt", "1 PINHOLE 8 6 4 4\n", "is not a camera"),
        ("cameras.txt", "1 PINHOLE 99999999 6 4 4 4 3\n", "a picture of 99999999"),
        ("cameras.txt", "1 PINHOLE 8 6 nan 4 4 3\n", "image 1"),
        ("cameras.txt", "\0\xff" * 50, "is not a camera"),
    ],
)
def test_bad_colmap_is_refused(tmp_path: Path, name: str, text: str, want: str) -> None:
    for file, content in (GOOD | {name: text}).items():
        (tmp_path / file).write_text(content)
    with pytest.raises(SceneError, match=want):
        read_colmap(tmp_path)


def test_a_missing_colmap_and_a_simple_one(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="there is no such file"):
        read_colmap(tmp_path)
    for file, content in GOOD.items():
        (tmp_path / file).write_text(content.replace("PINHOLE 8 6 4", "SIMPLE_PINHOLE 8 6"))
    assert read_colmap(tmp_path)[0].fov_degrees == pytest.approx(90.0)


def test_rendered_folders_are_datasets_and_panoramas_are_drawn(
    grown_world: Path, tmp_path: Path
) -> None:
    words = ["render", grown_world, "--out", tmp_path / "set", "--path", "fly", "--distance", 0.1]
    assert cli.main([str(word) for word in words]) == 0
    ours, theirs = read_transforms(tmp_path / "set/transforms.json"), read_colmap(
        tmp_path / "set/sparse/0"
    )  # fmt: skip
    assert len(ours) == len(theirs) == len(list((tmp_path / "set").glob("*.png")))
    for one, two in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.cam_from_world, two.cam_from_world, rtol=0, atol=1e-5)
    words = [
        "render",
        grown_world,
        "--out",
        tmp_path / "again.png",
        "--path",
        tmp_path / "set/sparse/0",
    ]
    assert cli.main([str(word) for word in words]) == 0
    words = ["render", grown_world, "--out", tmp_path / "pano.jpg", "--panorama"]
    assert cli.main([str(word) for word in words]) == 0
    assert Image.open(tmp_path / "pano.jpg").size == (2560, 1280)
    assert math.isfinite(np.asarray(Image.open(tmp_path / "pano.jpg")).mean())
