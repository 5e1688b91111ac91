"""Loading photographs: size, orientation, field of view, and every way a file can be wrong."""

from __future__ import annotations

import io
import json
import logging
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from PIL.ExifTags import IFD, Base

from renderers.errors import SceneError
from scenegen.image import Photo, files, load_photo
from scenegen.image import picture as module

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quarters(width: int = 300, height: int = 200) -> np.ndarray:
    """Red and green on top, blue and white below: no turn or mirror leaves it alone."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2], image[: height // 2, width // 2 :] = RED, GREEN
    image[height // 2 :, : width // 2], image[height // 2 :, width // 2 :] = BLUE, WHITE
    return image


def saved(path: Path, image: Image.Image | np.ndarray, **options: Any) -> Path:
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def exif(main: dict[int, Any] | None = None, detail: dict[int, Any] | None = None) -> Image.Exif:
    data = Image.Exif()
    data.update(main or {})
    data.get_ifd(IFD.Exif).update(detail or {})
    return data


def refusal(path: str | Path, **options: Any) -> SceneError:
    with pytest.raises(SceneError) as error:
        load_photo(path, **options)
    assert error.value.what.startswith("cannot use the photograph")
    assert error.value.why and error.value.fix and str(error.value).count("\n") == 2
    return error.value


def header_only_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    start = b"\x89PNG\r\n\x1a\n" + chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    )
    return start + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- size


def test_a_plain_photograph(tmp_path: Path) -> None:
    photo = load_photo(str(saved(tmp_path / "street.png", quarters(301, 200))))
    assert isinstance(photo, Photo)
    assert photo.rgb.shape == (200, 300, 3) and photo.rgb.dtype == torch.float32
    assert photo.original_size == (301, 200) and photo.name == "street.png"
    assert photo.fov_degrees is None and photo.fov_source == "not stated"
    expected = torch.from_numpy(quarters(301, 200)[:, :300]).float() / 255
    torch.testing.assert_close(photo.rgb, expected, rtol=0, atol=1e-6)  # nothing interpolated


@pytest.mark.parametrize(
    ("size", "long_side", "expected"),
    [
        ((1536, 1024), 768, (768, 512)),
        ((1000, 667), 768, (768, 512)),  # 512.26 rounds down
        ((1000, 666), 768, (768, 510)),  # 511.49 rounds down to an even number
        ((667, 1000), 768, (512, 768)),
        ((768, 512), 768, (768, 512)),
        ((500, 400), 768, (500, 400)),  # never enlarged ...
        ((128, 100), 768, (256, 200)),  # ... unless tiny
        ((128, 100), 200, (200, 156)),  # 156.25
        ((900, 300), 101, (100, 32)),  # 33.67
    ],
)
def test_working_size(
    size: tuple[int, int], long_side: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    for suffix in ("png", "jpg"):
        path = saved(tmp_path / f"a.{suffix}", Image.new("RGB", size, (51, 102, 204)))
        photo = load_photo(path, long_side=long_side)
        assert (photo.rgb.shape[1], photo.rgb.shape[0]) == expected
        assert photo.original_size == size
        colour = torch.tensor([51.0, 102.0, 204.0]) / 255
        assert (photo.rgb - colour).abs().max() < 2 / 255  # uniform is allowed, and stays


@pytest.mark.parametrize("size", [(3001, 2003), (1111, 739), (1600, 1203)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_shrinking_keeps_every_point_in_place(
    size: tuple[int, int], suffix: str, tmp_path: Path
) -> None:
    """On a ramp the colour tells the position: pixel i of a centred window of scale s holds
    (offset + (i + 0.5) / s) / width. A JPEG of 3001 px is decoded at half its size on the way."""
    width, height = size
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.round((np.arange(width) + 0.5) / width * 255)[None]
    ramp[..., 1] = np.round((np.arange(height) + 0.5) / height * 255)[:, None]
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    rgb = load_photo(saved(tmp_path / f"r.{suffix}", ramp, **options), long_side=640).rgb
    scale = 640 / max(size)
    for axis, channel, full in ((1, 0, width), (0, 1, height)):
        n = rgb.shape[axis]
        wanted = ((full - n / scale) / 2 + (torch.arange(n) + 0.5) / scale) / full
        got = rgb[..., channel].mean(dim=1 - axis)
        assert (got - wanted).abs()[2:-2].max() < 1 / 255  # rounded twice
        # A shift by half a pixel would be 0.2 / 255, everywhere the same.
        assert (got - wanted)[2:-2].mean().abs() < 0.1 / 255


def test_large_jpeg_decodes_at_a_fraction(tmp_path: Path, monkeypatch: Any) -> None:
    path = saved(tmp_path / "a.jpg", np.kron(quarters(300, 200), np.ones((8, 8, 1), np.uint8)))
    sizes: list[tuple[int, int]] = []
    real = module.averageable
    monkeypatch.setattr(
        module, "averageable", lambda im, name: sizes.append(im.size) or real(im, name)
    )
    photo = load_photo(path, long_side=300)
    assert sizes == [(600, 400)] and photo.original_size == (2400, 1600)
    inside = photo.rgb.reshape(2, 100, 2, 150, 3)[:, 10:-10, :, 10:-10]
    expected = torch.tensor([[RED, GREEN], [BLUE, WHITE]]).float()[:, None, :, None] / 255
    assert (inside - expected).abs().max() < 0.02


def test_fine_detail_is_averaged_not_picked(tmp_path: Path) -> None:
    board = (np.indices((1200, 1600)).sum(axis=0) % 2 * 255).astype(np.uint8)
    rgb = load_photo(saved(tmp_path / "a.png", board), long_side=400).rgb
    assert (rgb[4:-4, 4:-4] - 0.5).abs().max() < 0.01


# ---------------------------------------------------------------- orientation

STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # EXIF 2.32, tag 0x0112, undone
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: np.rot90(up, 1),  # row 0 of the file is the right side of the scene
    7: lambda up: up[::-1, ::-1].transpose(1, 0, 2),
    8: lambda up: np.rot90(up, -1),
}


@pytest.mark.parametrize("tag", STORED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_orientation(tag: int, suffix: str, tmp_path: Path) -> None:
    stored = np.ascontiguousarray(STORED[tag](quarters()))
    path = saved(tmp_path / f"a.{suffix}", stored, exif=exif({Base.Orientation: tag}), quality=95)
    photo = load_photo(path)
    assert photo.original_size == (300, 200)
    upright = torch.from_numpy(quarters()).float() / 255
    assert (photo.rgb - upright).abs().mean() < 0.02, "compression aside"


@pytest.mark.parametrize("tag", [0, 9, 77])
def test_nonsense_orientation_is_none(tag: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", quarters(), exif=exif({Base.Orientation: tag}))
    assert torch.equal(load_photo(path).rgb, torch.from_numpy(quarters()).float() / 255)


# ---------------------------------------------------------------- files that are refused


def test_missing_folder_empty_and_odd_paths(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    assert refusal(tmp_path / "empty.jpg").why == "the file is empty"
    assert refusal(tmp_path).why == "it is a folder"
    assert refusal(tmp_path / "no.jpg").why == f"there is no file {tmp_path / 'no.jpg'}"
    assert "download it" in refusal("https://example.org/a.jpg").fix
    assert "path cannot be used" in refusal("a\0b.jpg").why
    assert "path cannot be used" in refusal("x" * 5000).why
    assert "no file" in refusal(tmp_path / "empty.jpg" / "below.jpg").why


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert refusal(tmp_path / "pipe.jpg").why == "it is a device or a pipe"


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", quarters())

    def refuse(self: Path, *_: object, **__: object) -> None:  # root ignores permission bits
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "access", lambda *_: False)
        assert refusal(path).why == "you may not read it"
    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(path).why == "Permission denied"


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "a.png", quarters())
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load_photo("~/a.png").original_size == (300, 200)


@pytest.mark.parametrize(
    ("start", "why"),
    [
        (b"<!DOCTYPE html><title>Not found</title>", "it holds text"),
        ("grüße aus dem urlaub\n".encode(), "it holds text"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC picture"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "it is an AVIF picture, damaged"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "it is a raw photograph"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "it is a film"),
        (b"%PDF-1.7\n%\xe2\xe3", "it is a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 300 200\n", "it is a PostScript drawing"),
        (b'<?xml version="1.0"?><svg width="300">', "it is an SVG drawing"),
        (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "it is a Radiance HDR picture"),
        (b"v/1\x01\2\0\0\0", "it is an OpenEXR picture"),
        (b"\xff\x0a\xff\x07", "it is a JPEG XL picture"),
        (b"II*\0\x08\0\0\0", "it is a raw photograph or an unusual TIFF"),
        (b"\xff\xd8\xff\xe0", "it is a damaged JPEG"),
        (b"\x89PNG\r\n", "it is a damaged PNG"),
        (bytes(range(128, 256)), "it is no picture of a known format"),
    ],
)
def test_no_photograph(start: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "holiday.jpg"
    path.write_bytes(start)
    error = refusal(path)
    assert error.why.startswith(why)
    assert "'holiday.jpg'" in error.what


def test_raw_photographs_are_not_replaced_by_their_thumbnail(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tif", quarters()).rename(tmp_path / "DSC_0001.NEF")
    assert refusal(path).why == "it is a raw photograph"


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "gif", "bmp"])
def test_truncated(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    path = saved(tmp_path / f"a.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "damaged" in refusal(path).why


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ((1, 1), "it is 1 x 1 pixels; a scene needs at least 64"),
        ((63, 100), "it is 63 x 100 pixels"),
        ((1000, 63), "it is 1000 x 63 pixels"),
        ((301, 100), "it looks like a panorama"),
        ((100, 301), "it looks like a panorama"),
    ],
)
def test_wrong_sizes(size: tuple[int, int], why: str, tmp_path: Path) -> None:
    error = refusal(saved(tmp_path / "a.png", Image.new("RGB", size)))
    assert why in error.why
    assert "panorama" not in error.why or "crop it" in error.fix


def test_the_widest_that_is_no_panorama(tmp_path: Path) -> None:
    assert load_photo(saved(tmp_path / "a.png", Image.new("L", (300, 100)))).rgb.shape == (
        100,
        300,
        3,
    )


def test_a_sphere_is_a_panorama(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta><rdf GPano:ProjectionType="equirectangular"/></x:xmpmeta>'
    path = saved(tmp_path / "a.jpg", quarters(400, 200), xmp=xmp)
    assert "panorama" in refusal(path).why


@pytest.mark.parametrize("size", [(40_000, 40_000), (20_000, 15_000)])
def test_huge_pictures_are_refused_by_their_header(
    size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(self: Any) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    path = tmp_path / "a.png"
    path.write_bytes(header_only_png(*size))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234567)
    error = refusal(path)
    assert "at most 200 megapixels" in error.why and "smaller" in error.fix
    assert Image.MAX_IMAGE_PIXELS == 1234567, "Pillow's own limit is put back"


def test_huge_files_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", quarters())
    monkeypatch.setattr(files, "MAX_BYTES", 100)
    assert "GB; at most" in refusal(path).why


def test_out_of_memory_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any) -> None:
        raise MemoryError

    path = saved(tmp_path / "a.png", quarters())
    monkeypatch.setattr(ImageFile.ImageFile, "load", full)
    assert "300 x 200" in refusal(path).why


def test_working_size_too_small(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", quarters())
    with pytest.raises(SceneError, match="a working size of 63 pixels is too small"):
        load_photo(path, long_side=63)


def _encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    data = exif({Base.Orientation: 6, Base.Model: "X"}, {Base.FocalLength: 4.2})
    Image.fromarray(quarters(96, 80)).save(buffer, kind, exif=data)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
@given(data=st.data())
def test_damaged_files_give_a_picture_or_a_scene_error(
    kind: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(_encoded(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.bin"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        photo = load_photo(path)
    except SceneError:
        return
    assert torch.isfinite(photo.rgb).all() and photo.rgb.min() >= 0 and photo.rgb.max() <= 1
    assert photo.fov_degrees is None or 0 < photo.fov_degrees < 180


# ---------------------------------------------------------------- several pictures


def test_the_first_of_several(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rest = [Image.new("RGB", (100, 80), GREEN)]
    for suffix, level in (
        ("gif", logging.WARNING),
        ("tif", logging.WARNING),
        ("mpo", logging.DEBUG),
    ):
        caplog.clear()
        path = tmp_path / f"a.{suffix}"
        Image.new("RGB", (100, 80), RED).save(path, save_all=True, append_images=rest)
        with caplog.at_level(logging.DEBUG, logger="scenegen"):
            rgb = load_photo(path).rgb
        assert (rgb - torch.tensor([1.0, 0.0, 0.0])).abs().max() < 0.02
        notes = [r for r in caplog.records if "several pictures; the first" in r.message]
        assert [r.levelno for r in notes] == [level]


def test_importing_is_cheap() -> None:
    code = (
        "import json, sys; import scenegen.image;"
        "print(json.dumps([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
    import scenegen.image

    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        scenegen.image.nope  # noqa: B018
