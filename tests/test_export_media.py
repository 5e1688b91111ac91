"""Pictures, videos, the table of formats, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from renderers import Camera, SceneError, Splats
from scenegen.export import (
    FORMATS,
    atomic_write,
    export_file,
    read_ply,
    write_depth,
    write_glb,
    write_mp4,
    write_ply,
    write_png,
    write_transforms,
)


def picture(height: int = 48, width: int = 64, shift: int = 0) -> torch.Tensor:
    """Red corner top left, green bar right, blue below, a white square that moves."""
    rgb = torch.full((height, width, 3), 0.2)
    rgb[: height // 3, : width // 3] = torch.tensor([1.0, 0.0, 0.0])
    rgb[:, -width // 4 :] = torch.tensor([0.0, 0.8, 0.0])
    rgb[-height // 4 :, : width // 2] = torch.tensor([0.0, 0.0, 1.0])
    rgb[20:28, 24 + shift : 32 + shift] = 1.0
    return rgb


def splats(n: int = 3) -> Splats:
    return Splats(
        torch.arange(3.0 * n).reshape(n, 3),
        torch.tensor([[1.0, 0, 0, 0]]).expand(n, 4),
        torch.full((n, 3), 0.1),
        torch.full((n,), 0.5),
        torch.full((n, 3), 0.5),
    )


# Pictures and depth


def test_png_values_by_hand(tmp_path: Path) -> None:
    """0.5 * 255 = 127.5 rounds up to 128; values outside 0 to 1 are clipped."""
    rgb = torch.tensor([[[0.0, 0.5, 1.0], [-1.0, 2.0, 0.25]], [[1, 0, 0], [0, 1, 0]]])
    write_png(tmp_path / "a.png", rgb)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG" and image.mode == "RGB" and image.size == (2, 2)
        got = np.asarray(image).tolist()
    assert got == [[[0, 128, 255], [0, 255, 64]], [[255, 0, 0], [0, 255, 0]]]


def test_depth_keeps_unknown_and_sky(tmp_path: Path) -> None:
    depth = torch.tensor([[1.5, torch.nan, torch.inf], [0.1, 2.0, 3.0]], dtype=torch.float64)
    write_depth(tmp_path / "a.npy", depth)
    back = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, depth.numpy().astype(np.float32))


def test_impossible_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="the picture holds NaN"):
        write_png(tmp_path / "a.png", torch.full((2, 2, 3), torch.nan))
    with pytest.raises(SceneError, match=r"has no pixels\n.*\(0, 2, 3\)"):
        write_png(tmp_path / "a.png", torch.zeros(0, 2, 3))
    with pytest.raises(SceneError, match="has no pixels"):
        write_depth(tmp_path / "a.npy", torch.zeros(0, 2))
    assert list(tmp_path.iterdir()) == []


# Videos


def test_video_read_back(tmp_path: Path) -> None:
    frames = [picture(shift=2 * i) for i in range(7)]
    assert write_mp4(tmp_path / "a.mp4", iter(frames), fps=25) == 7
    video = iio.imread(tmp_path / "a.mp4", plugin="FFMPEG")
    assert video.shape == (7, 48, 64, 3)
    meta = iio.immeta(tmp_path / "a.mp4", plugin="FFMPEG")
    assert meta["fps"] == 25 and meta["codec"] == "h264"
    assert "yuv420p" in meta["pix_fmt"] and "bt709" in meta["pix_fmt"]
    for got, want in zip(video, frames, strict=True):
        error = np.abs(got.astype(float) / 255 - want.numpy())
        assert np.median(error) < 0.02 and error.mean() < 0.03
    # Colours far from their borders: right matrix, right range, right way up.
    np.testing.assert_allclose(video[3, 4, 4], [255, 0, 0], atol=8)
    np.testing.assert_allclose(video[3, 24, 60], [0, 204, 0], atol=8)
    np.testing.assert_allclose(video[3, 44, 8], [0, 0, 255], atol=8)


def test_odd_sizes_grow_by_a_pixel(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", [picture(47, 63)] * 2)
    assert iio.imread(tmp_path / "a.mp4", plugin="FFMPEG").shape == (2, 48, 64, 3)
    write_mp4(tmp_path / "b.mp4", [torch.ones(1, 1, 3)])
    assert iio.imread(tmp_path / "b.mp4", plugin="FFMPEG").shape == (1, 2, 2, 3)


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, [picture(shift=i) for i in range(4)])
    data = (tmp_path / "a.mp4").read_bytes()
    assert data == (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # it streams


def test_impossible_videos_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("older")
    with pytest.raises(SceneError, match="the video has no frames"):
        write_mp4(path, [])
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(SceneError, match=f"a video at {fps} frames per second"):
            write_mp4(path, [picture()], fps=fps)
    with pytest.raises(SceneError, match=r"frame 1 of the video is 62 x 48.*\n.*is 64 x 48"):
        write_mp4(path, [picture(), picture(48, 62)])
    with pytest.raises(SceneError, match="the picture holds NaN"):
        write_mp4(path, [picture(), picture() * torch.nan])
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert path.read_text() == "older"


def fake_ffmpeg(folder: Path, monkeypatch: pytest.MonkeyPatch, complaint: str) -> None:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{complaint}\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(program))


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for ffmpeg is a shell script")
@pytest.mark.parametrize(
    ("complaint", "text"),
    [
        ("echo boom >&2", "could not be encoded\n  why: boom"),
        ("true", "could not be encoded\n  why: ffmpeg failed without a word"),
        ("echo 'a.mp4: No space left on device' >&2", "no space is left on the disk"),
    ],
)
def test_what_ffmpeg_says_reaches_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaint: str, text: str
) -> None:
    fake_ffmpeg(tmp_path, monkeypatch, complaint)
    with pytest.raises(SceneError, match=text):
        write_mp4(tmp_path / "a.mp4", [picture(240, 320)] * 20)  # more than a pipe holds
    assert [p.name for p in tmp_path.iterdir()] == ["ffmpeg"]


def test_without_ffmpeg_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", missing)
    with pytest.raises(SceneError, match="no ffmpeg was found to write the video"):
        write_mp4(tmp_path / "a.mp4", [picture()])


def test_ctrl_c_between_frames_ends_ffmpeg_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def spy(*args: object, **kwargs: object) -> subprocess.Popen[bytes]:
        started.append(popen(*args, **kwargs))  # pyright: ignore
        return started[-1]

    def frames() -> Iterator[torch.Tensor]:
        yield picture()
        yield picture()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", spy)
    with pytest.raises(KeyboardInterrupt):
        write_mp4(tmp_path / "a.mp4", frames())
    assert len(started) == 1 and started[0].poll() is not None
    assert list(tmp_path.iterdir()) == []


# Whole or not at all


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.ply": lambda path: write_ply(path, splats(5000)),
    "a.glb": lambda path: write_glb(path, _ball()),
    "a.png": lambda path: write_png(path, torch.rand(160, 160, 3)),
    "a.npy": lambda path: write_depth(path, torch.rand(160, 160)),
    "a.json": lambda path: write_transforms(path, [Camera.from_fov(60, 8, 8)] * 300),
    "a.mp4": lambda path: write_mp4(path, (torch.rand(160, 160, 3) for _ in range(6))),
}


def _ball() -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(4)
    return trimesh.Trimesh(
        ball.vertices, ball.faces, vertex_colors=np.full((len(ball.vertices), 3), 99, np.uint8)
    )


@pytest.mark.parametrize("name", WRITERS)
def test_files_replace_older_ones_and_are_readable(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("older")
    umask = os.umask(0o022)
    try:
        WRITERS[name](tmp_path / name)
    finally:
        os.umask(umask)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).stat().st_size > 1000
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o644


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "no space is left on the disk"), (errno.EIO, "Input/output error")],
)
def test_a_disk_that_fails_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int, text: str
) -> None:
    """Filled up at the last moment, when the data is forced to the disk."""

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / name).write_text("older")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SceneError, match=f"cannot write .*{name}\n  why: .*{text}"):
        WRITERS[name](tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "older"


def mount_works() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", folder]
        if subprocess.run(mount, capture_output=True).returncode != 0:
            return False
        return subprocess.run(["umount", folder], capture_output=True).returncode == 0


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not mount_works(), reason="a full disk needs root and mount on Linux")
@pytest.mark.parametrize("name", WRITERS)
def test_a_disk_that_is_full_leaves_the_older_file(tiny_disk: Path, name: str) -> None:
    (tiny_disk / name).write_text("older")
    with pytest.raises(SceneError, match="no space is left on the disk"):
        WRITERS[name](tiny_disk / name)
    assert [p.name for p in tiny_disk.iterdir()] == [name]
    assert (tiny_disk / name).read_text() == "older"


@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_whatever_stops_a_writer_leaves_the_older_file(
    tmp_path: Path, problem: type[BaseException]
) -> None:
    path = tmp_path / "a.bin"
    path.write_text("older")
    with pytest.raises(problem), atomic_write(path) as temporary:
        temporary.write_text("half of it")
        assert temporary.parent == tmp_path and temporary.suffix == ".bin"
        assert path.read_text() == "older"
        raise problem
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_text() == "older"


def test_where_no_file_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path) -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("new")

    with pytest.raises(SceneError, match=r"there is no folder .*none\n  fix: create the folder"):
        write(tmp_path / "none" / "a.bin")
    with pytest.raises(SceneError, match="a folder or a device is there, not a file"):
        write(tmp_path)
    with pytest.raises(SceneError, match="a folder or a device is there, not a file"):
        write(Path(os.devnull))
    assert not Path(os.devnull).is_file()
    with pytest.raises(SceneError, match="cannot write"):
        write(tmp_path / ("a" * 300))

    def forbidden(*args: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(SceneError, match=f"writing into {tmp_path} is not permitted"):
        write(tmp_path / "a.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights on Windows")
def test_links_are_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.bin").write_text("older")
    (tmp_path / "link.bin").symlink_to(tmp_path / "real" / "a.bin")
    with atomic_write(tmp_path / "link.bin") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.bin").is_symlink()
    assert (tmp_path / "real" / "a.bin").read_text() == "new"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(SceneError, match="cannot write"), atomic_write(tmp_path / "loop"):
        pass


# The table of formats


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    def no_mesh(most: int) -> trimesh.Trimesh:
        raise AssertionError("a mesh is costly and .ply needs none")

    assert export_file(tmp_path / "a.PLY", splats=splats(), mesh=no_mesh) == "ply"
    assert len(read_ply(tmp_path / "a.PLY")) == 3
    assert export_file(tmp_path / "a.glb", splats=splats(), mesh=lambda most: _ball()) == "glb"
    assert (tmp_path / "a.glb").read_bytes()[:4] == b"glTF"
    assert export_file(tmp_path / "scene", splats=splats(), format=".ply") == "ply"
    assert len(read_ply(tmp_path / "scene")) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xyz", "format 'xyz' is unknown"),
        ("a.ply.zip", "format 'zip' is unknown"),
        ("a.sog", r"\n  why: there is \.ply \(.*\.glb \(.*\n  fix: .*splat-transform"),
        ("a", "no format given"),
    ],
)
def test_unknown_formats_are_named_with_those_that_exist(
    tmp_path: Path, name: str, text: str
) -> None:
    with pytest.raises(SceneError, match=text):
        export_file(tmp_path / name, splats=splats())
    assert list(tmp_path.iterdir()) == []


def test_a_mesh_format_without_a_mesh_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="written from a mesh, and none is given"):
        export_file(tmp_path / "a.glb", splats=splats())


def test_every_format_says_what_it_loses() -> None:
    assert {"ply", "spz", "compressed.ply", "splat", "glb"} <= set(FORMATS)
    assert all(kind.loses and kind.about for kind in FORMATS.values())


def test_writers_say_what_is_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "scenegen"):
        write_png(tmp_path / "a.png", picture())
        write_depth(tmp_path / "a.npy", torch.ones(2, 2))
        write_mp4(tmp_path / "a.mp4", [picture()])
    for text in ("8 bits per channel", "its camera is not stored", "compressed with loss"):
        assert text in caplog.text


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, scenegen.export; "
        "print([m for m in ('torch', 'numpy', 'trimesh', 'open3d', 'PIL') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]" and out.stderr == ""
