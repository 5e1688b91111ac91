"""Focal length of a photograph, from what its file says.

Three routes, best first, each giving the focal length in pixels of the file:

  FocalLengthIn35mmFilm   the angle of view of this lens on 36 x 24 mm film. Read by the diagonal
                          (43.27 mm), as CIPA DCG-001 defines the equivalent; read by the width it
                          would be 4 % off for a 4:3 camera.
  FocalLength and         millimetres, and sensor pixels per inch or centimetre.
  FocalPlaneXResolution
  FocalLength and Model   millimetres, and the sensor size from ``sensors.py``.

A file is often smaller than the picture that was taken. EXIF keeps the size as taken
(PixelXDimension, PixelYDimension); where the shapes differ, the smallest crop that explains the
file is assumed, one that kept the full width or the full height.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, Base

from scenegen.image.sensors import sensor_size

FILM_DIAGONAL = math.hypot(36.0, 24.0)
"""Diagonal of 35 mm film, in millimetres."""
USUAL_FOCAL, USUAL_DIAGONAL = 28.0, 43.27
"""Focal length assumed where the file does not say, as a 35 mm equivalent, and the diagonal that
belongs to it, in millimetres: phones have 24 to 28."""
EQUIVALENTS = (6.0, 2500.0)
"""Plausible focal lengths as 35 mm equivalents, in millimetres: fisheye to telescope."""
SENSOR_WIDTHS = (2.0, 60.0)
"""Plausible widths of a sensor, in millimetres."""
DIGITAL_ZOOMS = (1.0, 100.0)
"""Plausible digital zoom ratios; anything else means that there was none."""
SENSOR_AGREEMENT = 1.25
"""A sensor diagonal from pixels per inch is not believed when it is this many times off the known
one: programs that shrink pictures rewrite their size and forget the resolution."""
_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""FocalPlaneResolutionUnit; inches where it is missing or unknown."""


@dataclass(frozen=True)
class Focal:
    """A focal length and where it comes from."""

    pixels: float | None
    """In pixels of the file, the same along both axes; None when the file does not say."""
    source: str
    """Plain words, for the user."""


def default_fov(width: int, height: int) -> float:
    """Horizontal field of view in degrees of a usual lens on an image of this shape."""
    frame_width = USUAL_DIAGONAL * width / math.hypot(width, height)
    return math.degrees(2 * math.atan(0.5 * frame_width / USUAL_FOCAL))


@dataclass(frozen=True)
class _Tags:
    """What EXIF says about the lens and the sensor; None where it says nothing usable."""

    film_mm: float | None
    lens_mm: float | None
    pixels_per_mm: float | None
    taken: tuple[float, float] | None
    camera: str

    @classmethod
    def read(cls, exif: Image.Exif) -> _Tags:
        details = exif.get_ifd(IFD.Exif)
        lens_mm = _positive(details, Base.FocalLength)
        zoom = _positive(details, Base.DigitalZoomRatio)
        if lens_mm and zoom and DIGITAL_ZOOMS[0] <= zoom <= DIGITAL_ZOOMS[1]:
            lens_mm *= zoom
        density = _positive(details, Base.FocalPlaneXResolution)
        unit = _positive(details, Base.FocalPlaneResolutionUnit)
        width = _positive(details, Base.ExifImageWidth)
        height = _positive(details, Base.ExifImageHeight)
        return cls(
            film_mm=_positive(details, Base.FocalLengthIn35mmFilm),
            lens_mm=lens_mm,
            pixels_per_mm=density and density / _MM_PER_UNIT.get(int(unit or 2), 25.4),
            taken=(width, height) if width and height else None,
            camera=_camera_name(exif),
        )


def focal_length(exif: Image.Exif, size: tuple[int, int]) -> Focal:
    """Focal length of a picture.

    Args:
        exif: Its EXIF data, possibly empty or nonsense.
        size: Width and height of the file, in pixels, in either orientation.

    Returns:
        The focal length of the first route that gives a plausible one.
    """
    try:
        tags = _Tags.read(exif)
    except Exception as error:  # damaged EXIF makes Pillow raise whatever its parser meets
        return Focal(None, f"not stated (EXIF cannot be read: {error})")
    doubts: list[str] = []
    for route in (_from_film, _from_pixel_density, _from_camera):
        found = route(tags, size)
        if found.pixels is None:
            continue
        equivalent = found.pixels / math.hypot(*size) * FILM_DIAGONAL
        if EQUIVALENTS[0] <= equivalent <= EQUIVALENTS[1]:
            return found
        doubts.append(f"{found.source} is not plausible")
    return Focal(None, f"not stated ({'; '.join(doubts)})" if doubts else "not stated")


def _from_film(tags: _Tags, size: tuple[int, int]) -> Focal:
    if tags.film_mm is None:
        return Focal(None, "")
    taken = tags.taken or (float(size[0]), float(size[1]))
    pixels = tags.film_mm / FILM_DIAGONAL * math.hypot(*taken) * _shrinkage(taken, size)
    return Focal(pixels, f"EXIF 35 mm equivalent {tags.film_mm:.3g} mm")


def _from_pixel_density(tags: _Tags, size: tuple[int, int]) -> Focal:
    if tags.lens_mm is None or tags.pixels_per_mm is None:
        return Focal(None, "")
    taken = tags.taken or (float(size[0]), float(size[1]))
    width, diagonal = taken[0] / tags.pixels_per_mm, math.hypot(*taken) / tags.pixels_per_mm
    known = sensor_size(tags.camera)
    if known is not None:
        off = diagonal / math.hypot(*known)
        if not 1 / SENSOR_AGREEMENT < off < SENSOR_AGREEMENT:
            return Focal(None, "")
    if not SENSOR_WIDTHS[0] <= width <= SENSOR_WIDTHS[1]:
        return Focal(None, "")
    pixels = tags.lens_mm * tags.pixels_per_mm * _shrinkage(taken, size)
    return Focal(pixels, _sensor_words(tags, width))


def _from_camera(tags: _Tags, size: tuple[int, int]) -> Focal:
    sensor = sensor_size(tags.camera)
    if tags.lens_mm is None or sensor is None:
        return Focal(None, "")
    # The picture fills the sensor along one axis at least; both are given long side first.
    long_side, short_side = max(size), min(size)
    mm_per_pixel = min(sensor[0] / long_side, sensor[1] / short_side)
    return Focal(tags.lens_mm / mm_per_pixel, _sensor_words(tags, sensor[0]))


def _sensor_words(tags: _Tags, width: float) -> str:
    camera = f" ({tags.camera})" if tags.camera else ""
    return f"EXIF {tags.lens_mm:.3g} mm on a {width:.3g} mm sensor{camera}"


def _shrinkage(taken: tuple[float, float], size: tuple[int, int]) -> float:
    """Pixels of the file per pixel as taken, by the smallest crop that explains the file."""
    if (taken[0] >= taken[1]) != (size[0] >= size[1]):  # turned upright, its EXIF left as it was
        taken = (taken[1], taken[0])
    return max(size[0] / taken[0], size[1] / taken[1])


def _positive(tags: Mapping[int, Any], tag: int) -> float | None:
    """A tag as a number; None when it is missing, not a number, zero, or not finite."""
    value = tags.get(tag)
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever a broken file holds
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _camera_name(exif: Image.Exif) -> str:
    """Make and model, the make once."""
    make, model = (
        " ".join(str(exif.get(tag) or "").replace("\0", " ").split())
        for tag in (Base.Make, Base.Model)
    )
    if make and model.lower().startswith(make.split()[0].lower()):
        return model
    return f"{make} {model}".strip()
