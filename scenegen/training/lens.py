"""From linear light to a file: exposure, white balance, blur, tone curve, noise, JPEG."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image
from scipy.ndimage import gaussian_filter

Array = np.ndarray


def develop(
    linear: Float32[Array, "h w 3"], rng: np.random.Generator
) -> tuple[UInt8[Array, "h w 3"], int]:
    """A photograph as some camera would have made it, and the quality of its JPEG.

    Args:
        linear: Linear colours, any scale.
        rng: Source of the random choices.
    """
    height, width = linear.shape[:2]
    metered = np.exp(np.log(linear.mean(2) + 1e-3).mean())
    image = linear * (rng.uniform(0.11, 0.27) / metered)
    image = image * (1.0 + rng.normal(0, 0.06, 3))  # white balance that is a little off
    if rng.random() < 0.5:
        image = image * _vignette(height, width, rng.uniform(0, 0.5))
    if rng.random() < 0.35:
        blur = rng.uniform(0.3, 1.2)
        image = gaussian_filter(image, (blur, blur, 0))
    shoulder = rng.uniform(0.5, 0.85)  # highlights above it are compressed, never clipped hard
    over = np.maximum(image - shoulder, 0) / (1 - shoulder)
    image = np.where(image > shoulder, shoulder + (1 - shoulder) * (1 - np.exp(-over)), image)
    image = np.clip(image, 0, 1) ** (1 / 2.2)
    if rng.random() < 0.4:  # contrast
        image = 0.5 + (image - 0.5) * rng.uniform(0.75, 1.25)
    gray = image.mean(2, keepdims=True)
    saturation = 0.0 if rng.random() < 0.05 else rng.uniform(0.5, 1.25)
    image = gray + (image - gray) * saturation
    if rng.random() < 0.5:
        level = rng.uniform(0.003, 0.03)
        image = image + rng.normal(0, 1, image.shape) * level * np.sqrt(np.clip(image, 0.05, 1))
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return pixels, int(rng.integers(40, 97))


def jpeg(pixels: UInt8[Array, "h w 3"], quality: int) -> bytes:
    """The bytes of a JPEG file, quality 1 to 100."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


def _vignette(height: int, width: int, strength: float) -> Float32[Array, "h w 1"]:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (1 - strength * (x * x + y * y) / 2)[..., None].astype(np.float32)
