"""Every colour mode and profile ends as the same sRGB. Profiles are built here, byte by byte."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from renderers.errors import SceneError
from scenegen.image import load_photo

SRGB_IN_XYZ = (  # the primaries of sRGB, adapted to D50 (ICC v2 sRGB profile)
    (0.43607, 0.22249, 0.01392),
    (0.38515, 0.71687, 0.09708),
    (0.14307, 0.06061, 0.71410),
)
SIZE = (288, 240)


def icc(space: bytes, kind: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC v2 profile (ICC.1:2001-04, clauses 6.1 and 6.2)."""
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"toy\0\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text" + bytes(4) + b"none\0", **tags}
    offset, table, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += name + struct.pack(">II", offset + len(data), len(value))
        data += value
    d50 = struct.pack(">iii", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    head = struct.pack(
        ">I4sI4s4s4s", offset + len(data), bytes(4), 0x02400000, kind, space, connection
    )
    head += bytes(12) + b"acsp" + bytes(28) + d50
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">iii", *(round(v * 65536) for v in values))


def gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(order: str, exponent: float) -> bytes:
    """Primaries of sRGB in another order, with a plain power as tone curve."""
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    for name, primary in zip(order, SRGB_IN_XYZ, strict=True):
        tags[name.encode() + b"XYZ"] = xyz(primary)
        tags[name.encode() + b"TRC"] = gamma(exponent)
    return icc(b"RGB ", b"mntr", b"XYZ ", tags)


def grey_profile(exponent: float) -> bytes:
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"kTRC": gamma(exponent)}
    return icc(b"GRAY", b"mntr", b"XYZ ", tags)


def cmyk_profile() -> bytes:
    """Lightness 100 (1 - K), and nothing else: cyan, magenta and yellow leave no trace."""
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    line = bytes(range(256))
    cube = b"".join(bytes((0 if k else 255, 128, 128)) for _ in range(8) for k in (0, 1))
    table = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + identity + line * 4 + cube + line * 3
    tags = {b"wtpt": xyz((0.9642, 1.0, 0.8249)), b"A2B0": table}
    return icc(b"CMYK", b"prtr", b"Lab ", tags)


def colour(path: Path) -> list[float]:
    """The colour of a uniform picture, in levels of 255."""
    rgb = load_photo(path).rgb
    assert rgb.dtype == torch.float32 and rgb.shape[2] == 3
    assert (rgb.amax(dim=(0, 1)) - rgb.amin(dim=(0, 1))).max() < 1 / 255
    return [round(v, 1) for v in (rgb.mean(dim=(0, 1)) * 255).tolist()]


def plain(folder: Path, mode: str, value: Any, suffix: str = "png", **options: Any) -> Path:
    path = folder / f"a.{suffix}"
    Image.new(mode, SIZE, value).save(path, **options)
    return path


def close(got: list[float], wanted: tuple[float, ...], tolerance: float = 1.0) -> bool:
    return max(abs(g - w) for g, w in zip(got, wanted, strict=True)) <= tolerance


# ---------------------------------------------------------------- modes


def test_modes_of_8_bits(tmp_path: Path) -> None:
    assert colour(plain(tmp_path, "RGB", (10, 120, 250))) == [10, 120, 250]
    assert colour(plain(tmp_path, "L", 77)) == [77, 77, 77]
    assert colour(plain(tmp_path, "1", 1)) == [255, 255, 255]
    assert colour(plain(tmp_path, "LA", (77, 255))) == [77, 77, 77]
    palette = Image.new("P", SIZE, 1)
    palette.putpalette([9, 9, 9, 10, 120, 250])
    palette.save(tmp_path / "p.png")
    assert colour(tmp_path / "p.png") == [10, 120, 250]


def test_a_picture_of_single_bits_is_averaged(tmp_path: Path) -> None:
    board = Image.fromarray((np.indices((800, 960)).sum(axis=0) % 2).astype(bool))
    board.save(tmp_path / "a.png")
    rgb = load_photo(tmp_path / "a.png", long_side=96).rgb
    assert (rgb[2:-2, 2:-2] - 0.5).abs().max() < 0.02


def test_grey_of_16_bits(tmp_path: Path) -> None:
    """Half of 65535; a conversion by clipping would make it white."""
    path = tmp_path / "a.png"
    Image.fromarray(np.full(SIZE[::-1], 32768, np.uint16)).save(path)
    assert close(colour(path), (127.5,) * 3, 0.1)
    Image.fromarray(np.full(SIZE[::-1], 32768, np.uint16)).save(tmp_path / "a.tif")
    assert close(colour(tmp_path / "a.tif"), (127.5,) * 3, 0.1)


def test_grey_of_12_bits(tmp_path: Path) -> None:
    """BitsPerSample 12: white is 4095. The packed samples 0x800 0x800 are the bytes 80 08 00."""
    path = tmp_path / "a.tif"
    entries = [
        (256, 288),
        (257, 240),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 512),
        (277, 1),
        (278, 240),
    ]
    entries.append((279, 288 * 240 * 3 // 2))
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4)
    path.write_bytes(head.ljust(512, b"\0") + b"\x80\x08\0" * (288 * 240 // 2))
    assert close(colour(path), (2048 / 4095 * 255,) * 3, 0.1)


def test_grey_of_32_bits_is_stretched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = np.zeros(SIZE[::-1], np.int32)
    values[:, 144:] = 1_000_000
    Image.fromarray(values).save(tmp_path / "a.tif")
    rgb = load_photo(tmp_path / "a.tif").rgb
    assert (rgb[:, :120].max(), rgb[:, 160:].min()) == (0, 1)
    assert "grey values from 0 to 1e+06 are stretched" in caplog.text


def test_colour_of_16_bits(tmp_path: Path) -> None:
    """A PNG of 16 bits per channel, which Pillow cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    row = b"\0" + struct.pack(">HHH", 0x1234, 0x8000, 0xFFFF) * 288
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 288, 240, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row * 240))
        + chunk(b"IEND", b"")
    )
    assert colour(path) == [0x12, 0x80, 0xFF]


def test_floating_point(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("F", SIZE, 0.25).save(tmp_path / "a.tif")
    assert close(colour(tmp_path / "a.tif"), (63.75,) * 3, 0.1) and not caplog.text
    bright = np.full(SIZE[::-1], 1.0, np.float32)
    bright[:120] = 4.0
    Image.fromarray(bright).save(tmp_path / "hdr.tif")
    rgb = load_photo(tmp_path / "hdr.tif").rgb
    assert rgb[:116].min() > 0.99 and (rgb[124:] - 0.25).abs().max() < 0.02
    assert "grey values from 1 to 4 are stretched" in caplog.text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused(bad: float, tmp_path: Path) -> None:
    grey = np.full(SIZE[::-1], 0.5, np.float32)
    grey[3, 4] = bad
    Image.fromarray(grey).save(tmp_path / "a.tif")
    with pytest.raises(SceneError, match="holds NaN or infinity"):
        load_photo(tmp_path / "a.tif")


# ---------------------------------------------------------------- transparency


def test_transparent_pixels_become_grey(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A quarter opaque over 0.5: 0.25 * 200 + 0.75 * 127.5 = 145.6."""
    assert close(colour(plain(tmp_path, "RGBA", (200, 0, 0, 64))), (145.7, 95.5, 95.5), 0.6)
    assert "transparent pixels are unknown and become grey" in caplog.text
    assert close(colour(plain(tmp_path, "LA", (200, 64))), (145.7,) * 3, 0.6)
    caplog.clear()
    assert colour(plain(tmp_path, "RGBA", (200, 0, 0, 255))) == [200, 0, 0]
    assert not caplog.text


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour(mode: str, tmp_path: Path) -> None:
    pixels = np.zeros(SIZE[::-1], np.uint8)
    pixels[:, 144:] = 200
    image = Image.fromarray(pixels).convert(mode)
    key = {"P": image.getpixel((0, 0)), "L": 0, "RGB": (0, 0, 0)}[mode]
    image.save(tmp_path / "a.png", transparency=key)
    rgb = load_photo(tmp_path / "a.png").rgb
    assert (rgb[:, :120] - 0.5).abs().max() < 0.01
    assert (rgb[:, 160:] - 200 / 255).abs().max() < 0.01


def test_hidden_colours_do_not_bleed(tmp_path: Path) -> None:
    """Opaque white beside transparent black: shrunk, the edge goes from white to grey."""
    pixels = np.zeros((800, 960, 4), np.uint8)
    pixels[:, 480:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    rgb = load_photo(tmp_path / "a.png", long_side=94).rgb  # the edge falls between pixels
    assert rgb.min() > 0.49


def test_nothing_visible_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="every pixel of it is transparent"):
        load_photo(plain(tmp_path, "RGBA", (200, 0, 0, 0)))


# ---------------------------------------------------------------- profiles and inks


def test_profile_with_exchanged_channels(tmp_path: Path) -> None:
    """Its red is sRGB green. Gamma 2.2 lies within 3 levels of the sRGB curve here."""
    path = plain(tmp_path, "RGB", (200, 50, 100), icc_profile=rgb_profile("grb", 2.2))
    assert close(colour(path), (50, 200, 100), 4)
    path = plain(tmp_path, "RGB", (200, 50, 100), "jpg", icc_profile=rgb_profile("grb", 2.2))
    assert close(colour(path), (50, 200, 100), 5)


def test_linear_profile(tmp_path: Path) -> None:
    """Linear 55/255 is sRGB 1.055 (55/255)^(1/2.4) - 0.055 = 0.5067: 129.2."""
    path = plain(tmp_path, "RGB", (55, 55, 55), icc_profile=rgb_profile("rgb", 1.0))
    assert close(colour(path), (129.2,) * 3, 1.5)
    path = plain(tmp_path, "L", 55, icc_profile=grey_profile(1.0))
    assert close(colour(path), (129.2,) * 3, 1.5)


def test_profile_and_transparency_together(tmp_path: Path) -> None:
    path = plain(tmp_path, "RGBA", (255, 0, 0, 128), icc_profile=rgb_profile("grb", 2.2))
    assert close(colour(path), (63.5, 191.5, 63.5), 2)


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        (b"no profile", ""),
        (rgb_profile("grb", 2.2)[:200], ""),
        (grey_profile(1.0), " it is for GRAY colours, the picture is RGB"),
    ],
)
def test_profiles_that_are_broken_or_do_not_fit(
    profile: bytes, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert colour(plain(tmp_path, "RGB", (200, 50, 100), icc_profile=profile)) == [200, 50, 100]
    assert f"a.png: its colour profile is ignored:{why}" in caplog.text


def test_cmyk(tmp_path: Path) -> None:
    """Without a profile ink takes light away: (255 - C) (255 - K) / 255. Adobe's JPEG stores the
    inks inverted, TIFF does not; white paper must be white in both."""
    for suffix in ("jpg", "tif"):
        assert close(colour(plain(tmp_path, "CMYK", (0, 0, 0, 0), suffix)), (255, 255, 255), 2)
        assert close(colour(plain(tmp_path, "CMYK", (255, 0, 0, 0), suffix)), (0, 255, 255), 2)
        assert close(colour(plain(tmp_path, "CMYK", (0, 0, 0, 204), suffix)), (51, 51, 51), 2)


def test_cmyk_with_a_profile(tmp_path: Path) -> None:
    """Lightness 50 is Y = ((50 + 16) / 116)^3 = 0.1842, sRGB 0.4663: 118.9, whatever C, M, Y."""
    for suffix in ("jpg", "tif"):
        path = plain(tmp_path, "CMYK", (255, 40, 0, 127), suffix, icc_profile=cmyk_profile())
        assert close(colour(path), (118.9,) * 3, 3)


def test_lab(tmp_path: Path) -> None:
    """Lightness 50 again, then sRGB red: L 54.3, a 80.8, b 69.9 (D50)."""
    assert close(colour(plain(tmp_path, "LAB", (127, 128, 128), "tif")), (118.5,) * 3, 2)
    red = (round(54.3 * 2.55), 128 + 81, 128 + 70)
    assert close(colour(plain(tmp_path, "LAB", red, "tif")), (255, 0, 0), 6)


def test_the_profile_of_deep_grey_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = Image.fromarray(np.full(SIZE[::-1], 32768, np.uint16))
    image.save(tmp_path / "a.png", icc_profile=grey_profile(1.0))
    with caplog.at_level(logging.INFO, logger="scenegen"):
        assert close(colour(tmp_path / "a.png"), (127.5,) * 3, 0.1)
    assert "profile is not used for grey of more than 8 bits" in caplog.text


def test_the_profiles_made_here_are_real() -> None:
    for profile, space in (
        (rgb_profile("rgb", 2.2), "RGB "),
        (grey_profile(2.2), "GRAY"),
        (cmyk_profile(), "CMYK"),
    ):
        opened: Any = ImageCms.getOpenProfile(io.BytesIO(profile)).profile
        assert opened.xcolor_space == space
