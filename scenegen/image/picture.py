"""The pixels of a photograph, ready for the first view of a world: upright, sRGB, of working size.

Nothing is decoded before the header was checked, no other program is started, and no file is
trusted: whatever is wrong with it ends in a SceneError. Nothing heavy is loaded here: the viewer
shows the picture before there is anything to compute with.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float32
from PIL import Image
from PIL.ExifTags import Base

from renderers.errors import SceneError
from scenegen.image.colour import averageable, to_srgb
from scenegen.image.files import check_file, refuse, unreadable
from scenegen.image.focal import focal_length

logger = logging.getLogger("scenegen")

MIN_SIDE = 64
"""Shortest side of a usable photograph, in pixels."""
TINY = 256
"""A photograph whose long side is shorter than this is enlarged to it, in pixels."""
MAX_PIXELS = 200_000_000
"""Largest photograph that is decoded; read from the header."""
MAX_ASPECT = 3.0
"""Width to height, or height to width; beyond this no single pinhole camera took it."""
MULTIPLE = 2
"""Both sides of the working size are multiples of this."""
_OTHER_PROGRAMS = {"EPS", "WMF", "PDF"}
"""Formats of drawings, not photographs; Pillow starts another program to read some of them."""
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation to the turn that undoes it; Pillow's angles are counter-clockwise."""
_SIDEWAYS = {_UPRIGHT[tag] for tag in (5, 6, 7, 8)}
"""Turns that exchange width and height."""
_pillow_limit = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """One photograph at working size."""

    rgb: Float32[np.ndarray, "h w 3"]
    """Colours, sRGB, float32 in [0, 1], upright. Both sides are even."""
    fov_degrees: float | None
    """Horizontal field of view of ``rgb``, in degrees; None when the file does not say."""
    fov_source: str
    """Where the field of view comes from, in plain words: "EXIF 35 mm equivalent 28 mm"."""
    name: str
    """File name, with its suffix."""
    original_size: tuple[int, int]
    """Width and height of the file, upright, in pixels."""


def load_picture(
    path: str | os.PathLike[str], long_side: int = 768, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Load a photograph of any format that Pillow reads.

    Args:
        path: The file.
        long_side: Longer side of the working size, in pixels. A smaller photograph keeps its
            size, unless it is tiny.
        max_pixels: A photograph with more pixels is not decoded; at most MAX_PIXELS.

    Returns:
        The photograph, upright by its EXIF orientation, in sRGB by its embedded profile, first
        picture if the file holds several, over grey where it is transparent. What had to be
        guessed or left out is logged. Less than two pixels of the working
        size are cropped along each side.

    Raises:
        SceneError: The file is missing, cannot be read, is damaged, is no photograph, is too
            large, too small, or a panorama; or ``long_side`` is below MIN_SIDE.
    """
    if long_side < MIN_SIDE:
        raise SceneError(
            f"a working size of {long_side} pixels is too small",
            why=f"a scene needs at least {MIN_SIDE} pixels along each side",
            fix="use 768, or leave it out",
        )
    file = check_file(path)
    with _open_file(file) as stream, _own_pixel_limit():
        image = _open_image(stream, file)
        _check_size(image.size, file.name, max_pixels)
        return _build(image, file, long_side)


@contextmanager
def _open_file(file: Path) -> Iterator[IO[bytes]]:
    try:
        stream = file.open("rb")
    except OSError as error:
        raise refuse(file.name, error.strerror or str(error), "check its permissions") from error
    with stream:
        yield stream


@contextmanager
def _own_pixel_limit() -> Iterator[None]:
    """Our limit instead of Pillow's, which is lower and only warns; warnings go to the log."""
    with _pillow_limit, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    for warning in caught:
        logger.debug("Pillow: %s", warning.message)


def _open_image(stream: IO[bytes], file: Path) -> Image.Image:
    """Read the header."""
    Image.init()
    formats = [name for name in Image.OPEN if name not in _OTHER_PROGRAMS]
    try:
        return Image.open(stream, formats=formats)
    except Image.DecompressionBombError as error:
        raise _too_large(file.name, f"more than {2 * MAX_PIXELS / 1e6:.0f} megapixels") from error
    except Exception as error:  # damaged headers make Pillow raise whatever its parsers meet
        stream.seek(0)
        raise unreadable(file.name, stream.read(4096)) from error


def _check_size(size: tuple[int, int], name: str, max_pixels: int = MAX_PIXELS) -> None:
    width, height = size
    if width * height > min(max_pixels, MAX_PIXELS):
        raise _too_large(name, f"{width} x {height} pixels", max_pixels)
    if min(size) < MIN_SIDE:
        raise refuse(
            name,
            f"it is {width} x {height} pixels; a scene needs at least {MIN_SIDE} along each side",
            "use a larger photograph",
        )
    if max(size) > MAX_ASPECT * min(size):
        raise _panorama(name, f"its sides are {width} and {height} pixels")


def _too_large(name: str, size: str, max_pixels: int = MAX_PIXELS) -> SceneError:
    why = f"it has {size}; at most {max_pixels / 1e6:.0f} megapixels are read"
    return refuse(name, why, "make it smaller first; 2000 pixels along the long side are plenty")


def _panorama(name: str, why: str) -> SceneError:
    return refuse(
        name,
        f"{why}: it looks like a panorama, which no single pinhole camera took",
        "crop it to what one camera would see, for example to 3:2, and use that",
    )


def _build(image: Image.Image, file: Path, long_side: int) -> Picture:
    name, size = file.name, image.size
    try:
        several = getattr(image, "is_animated", False)
        shrunk = _decode(image, long_side)
        exif = _exif(image, name)
        turn = _UPRIGHT.get(exif.get(Base.Orientation, 1))
        profile = image.info.get("icc_profile")
        plain = averageable(image, name)
    except SceneError:
        raise
    except MemoryError as error:
        raise _too_large(name, f"{size[0]} x {size[1]} pixels") from error
    except Exception as error:  # damaged data makes decoders raise whatever they meet
        why = f"it is damaged or incomplete: {error}"
        raise refuse(name, why, "copy it again from where it came") from error
    if b"equirectangular" in _xmp(image):
        raise _panorama(name, "it says that it shows a sphere")
    if shrunk == 1:
        size = image.size  # icons and the like change it while they load
        _check_size(size, name)
    if several:  # phones append a gain map or a second lens: no news to anyone
        level = logging.DEBUG if image.format == "MPO" else logging.WARNING
        logger.log(level, "%s: it holds several pictures; the first is used", name)
    small, scale = _resize(plain, size, shrunk, long_side)
    if turn is not None:
        small = small.transpose(turn)
        size = (size[1], size[0]) if turn in _SIDEWAYS else size
    focal = focal_length(exif, size)
    fov = focal.pixels and math.degrees(2 * math.atan(small.width / (2 * focal.pixels * scale)))
    return Picture(to_srgb(small, profile, name), fov, focal.source, name, size)


def _exif(image: Image.Image, name: str) -> Image.Exif:
    """EXIF data, empty when it is damaged: it must not cost the picture."""
    try:
        return image.getexif()
    except Exception as error:  # damaged EXIF makes Pillow raise whatever its parser meets
        logger.warning("%s: its EXIF data is ignored: %s", name, error)
        return Image.Exif()


def _xmp(image: Image.Image) -> bytes:
    """XMP text, where programs that stitch pictures say what they made."""
    text = image.info.get("xmp", image.info.get("XML:com.adobe.xmp", b""))
    return text if isinstance(text, bytes) else str(text).encode()


def _decode(image: Image.Image, long_side: int) -> int:
    """Decode the pixels, a large JPEG at a fraction of its size; returns the divisor, 1 to 8."""
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        # Twice the working size: the rest of the shrinking is left to a better filter.
        share = 2 * long_side / max(width, height)
        image.draft(image.mode, (math.ceil(width * share), math.ceil(height * share)))
    shrunk = round(width / image.width)
    image.load()
    return shrunk


def _resize(
    image: Image.Image, size: tuple[int, int], shrunk: int, long_side: int
) -> tuple[Image.Image, float]:
    """Bring a picture to working size.

    Args:
        image: The decoded picture, ``size / shrunk`` pixels.
        size: Size of the file, in pixels.
        shrunk: How many times smaller it was decoded.
        long_side: Longer side of the working size.

    Returns:
        The small picture, and its pixels per pixel of the file, the same along both axes: what
        does not fill a multiple of MULTIPLE is cropped, not squeezed.
    """
    longest = max(size)
    goal = long_side if longest > long_side else max(longest, min(TINY, long_side))
    scale = goal / longest
    out = [int(side * scale + 1e-6) // MULTIPLE * MULTIPLE for side in size]
    if scale == 1.0:  # whole pixels, so that nothing is interpolated
        return image.crop((0, 0, out[0], out[1])), 1.0
    used = [side / (scale * shrunk) for side in out]
    left, top = ((side / shrunk - part) / 2 for side, part in zip(size, used, strict=True))
    box = (max(left, 0.0), max(top, 0.0), left + used[0], top + used[1])
    small = image.resize((out[0], out[1]), Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    return small, scale
