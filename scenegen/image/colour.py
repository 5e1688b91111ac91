"""Colour of a decoded picture: every mode that Pillow has, to sRGB in [0, 1].

Two steps around the resizing: ``averageable`` gives a mode whose pixels may be mixed, and
``to_srgb`` turns the small picture into numbers, through the embedded profile where there is one.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageCms

from renderers.errors import SceneError

logger = logging.getLogger("scenegen")

BACKDROP = 0.5
"""sRGB grey under transparent pixels: they are unknown, and grey is the least wrong guess."""
_PROFILE_SPACE = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
"""Colour space that a profile must have to fit a mode."""
_WHITE_OF_BITS = {8: 255.0, 10: 1023.0, 12: 4095.0, 14: 16383.0, 16: 65535.0}
_BITS_PER_SAMPLE = 258  # TIFF tag


def averageable(image: Image.Image, name: str) -> Image.Image:
    """The picture in a mode whose pixels may be averaged: L, LA, RGB, RGBA, CMYK, LAB or F.

    Args:
        image: Decoded picture, in any mode.
        name: Its name, for messages.

    Returns:
        Mode F holds sRGB grey in [0, 1]; the others hold 8 bits per channel.

    Raises:
        SceneError: It holds NaN or infinity.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        if "transparency" in image.info:
            logger.warning("%s: transparency of a 16-bit grey picture is ignored", name)
        return Image.fromarray(_deep_grey(image, name))
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("1", "L", "LA", "La") else "RGBA")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _deep_grey(image: Image.Image, name: str) -> Float32[np.ndarray, "h w"]:
    """Grey of more than 8 bits, or in floating point, in [0, 1]."""
    grey = np.asarray(image).astype(np.float32)
    if not np.isfinite(grey).all():
        raise SceneError(
            f"cannot use {name!r}",
            why="it holds NaN or infinity, which are no colours",
            fix="export it again as an 8-bit or 16-bit picture",
        )
    low, high = float(grey.min()), float(grey.max())
    if image.mode == "F":
        if low >= 0.0 and high <= 1.0:
            return grey
    else:
        stated = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))
        white = _WHITE_OF_BITS.get(stated[0] if isinstance(stated, tuple) else stated, 65535.0)
        if low >= 0.0 and high <= white:
            return grey / white
    logger.warning("%s: grey values from %g to %g are stretched to 0..1", name, low, high)
    black = min(low, 0.0)
    return (grey - np.float32(black)) / np.float32(max(high - black, 1e-30))


def to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Float32[np.ndarray, "h w 3"]:
    """Colours of a picture.

    Args:
        image: Picture in a mode of ``averageable``.
        profile: Embedded ICC profile, or None. One that is broken or does not fit is ignored.
        name: Name of the picture, for messages.

    Returns:
        sRGB in [0, 1], over grey where the picture is transparent.

    Raises:
        SceneError: Every pixel is transparent.
    """
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    base = image.convert(image.mode.rstrip("A")) if alpha is not None else image
    if base.mode == "F":
        if profile:
            logger.info("%s: its colour profile is not used for grey of more than 8 bits", name)
        grey = np.asarray(base, dtype=np.float32).clip(0.0, 1.0)
        return np.repeat(grey[..., None], 3, axis=2)
    rgb = np.asarray(_through_profile(base, profile, name), dtype=np.float32) / np.float32(255.0)
    return rgb if alpha is None else _over_grey(rgb, alpha, name)


def _over_grey(
    rgb: Float32[np.ndarray, "h w 3"], alpha: Image.Image, name: str
) -> Float32[np.ndarray, "h w 3"]:
    opacity = np.asarray(alpha, dtype=np.float32)[..., None] / np.float32(255.0)
    if opacity.max() == 0.0:
        raise SceneError(
            f"cannot use {name!r}",
            why="every pixel of it is transparent",
            fix="export it again without transparency",
        )
    if opacity.min() < 1.0:
        logger.warning("%s: its transparent pixels are unknown and become grey", name)
    return rgb * opacity + np.float32(BACKDROP) * (1 - opacity)


def _through_profile(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
    """The picture in mode RGB, sRGB; without a usable profile the mode's usual meaning holds."""
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        return _transform(image, source)
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            opened: Any = source.profile
            space = opened.xcolor_space.strip()
            if space == _PROFILE_SPACE[image.mode]:
                return _transform(image, source)
            reason = f"it is for {space} colours, the picture is {image.mode}"
        except (ImageCms.PyCMSError, ImportError, OSError, ValueError, TypeError) as error:
            reason = str(error)
        logger.warning("%s: its colour profile is ignored: %s", name, reason)
    return image.convert("RGB")


def _transform(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    target = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    done = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert done is not None  # only an in-place transform returns nothing
    return done
