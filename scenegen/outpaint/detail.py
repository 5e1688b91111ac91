"""Fine detail of what was invented, brought to the strength of what is known beside it.

A network paints softly, and more softly with each step that continues the last: the boldest lines
are what remains, upright in rock and woods, level in grass. So the finest band is taken apart by
direction, and each part gets one gain for the whole hole. One gain for all directions makes the
strokes of rock and woods bolder still; detail copied from elsewhere draws patterns into plain
skies. docs/outpainting.md has the figures.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from scenegen.fields import box_of
from scenegen.outpaint.seams import along

BESIDE_PX = 48
"""Pixels within this distance of the border between known and new are compared."""
RIM_PX = 2
"""But not these along it, where the detail of one is mixed with that of the other. There nothing is
changed either: colours already continue, and the seam would be steeper."""
FINE_PX = 1.0
"""What this blur (standard deviation) takes away is the finest band."""
MOST = 1.4
"""The highest gain: more would bring out faults of what is painted as well."""
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""BT.709."""
DARK = 0.02
"""Added to the luma before its logarithm is taken: black has none."""
FAINT = 1e-6
"""Detail of this strength or less is none."""


def with_detail(
    rgb: Float[Tensor, "h w 3"], known: Bool[Tensor, "h w"], new: Bool[Tensor, "h w"]
) -> Float[Tensor, "h w 3"]:
    """Make the fine detail of new pixels as strong as it is beside them, up to MOST.

    Brightness is multiplied: hue and saturation stay, and what is plain stays plain.

    Args:
        rgb: The whole view, 0 to 1.
        known: Where its detail is right.
        new: Where it is to be made right.
    """
    if not new.any():
        return rgb
    box = box_of(new, BESIDE_PX)
    known, new = known[box], new[box]
    sure, inner = known & ~along(known, RIM_PX), new & ~along(new, RIM_PX)
    there = (sure & along(known, BESIDE_PX)).numpy()
    here = (inner & along(new, BESIDE_PX)).numpy()
    if not there.any() or not here.any():
        return rgb
    change = np.zeros(there.shape, np.float32)
    for part in _directions(np.log(rgb[box].numpy() @ LUMA + DARK)):
        gain = _strength(part[there]) / max(_strength(part[here]), FAINT)
        change += (min(max(gain, 1.0), MOST) - 1) * part
    clearer = rgb.clone()
    clearer[box] *= torch.from_numpy(np.where(inner.numpy(), np.exp(change), 1))[..., None]
    return clearer


def _directions(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The finest band of a plane (h, w): of upright lines, of level ones, of slanting ones."""
    along_rows, along_columns = (gaussian_filter1d(plane, FINE_PX, axis=axis) for axis in (1, 0))
    smooth = gaussian_filter1d(along_rows, FINE_PX, axis=0)
    upright, level = along_columns - smooth, along_rows - smooth
    return upright, level, plane - smooth - upright - level


def _strength(values: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(values**2)))
