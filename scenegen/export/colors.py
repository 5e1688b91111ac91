"""Colours for glTF, whose vertex colours are linear."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def linear_from_srgb(value: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Linear light, 0 to 1, from sRGB, 0 to 1 (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
