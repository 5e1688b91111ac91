"""Depth without weights: the ground is level, and what stands on it stands upright.

After Hoiem et al. 2005 ("Automatic photo pop-up"): one contact line from left to right divides
the ground from upright surfaces; each column stands where it touches the ground.
"""

from __future__ import annotations

import kornia
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scenegen.geometry.base import Estimate
from scenegen.geometry.ground import FARTHEST, ground_disparity, horizon_row

COLUMNS, ROWS = 96, 72
"""Grid on which the contact line is searched."""
SMOOTH = 0.02
"""Cost of the contact line per row that it climbs between neighbouring columns."""
EDGE = 0.5
"""Gain of following an edge of the image, against the gain of separating colours (1)."""
NEAREST = 1.5
"""Nothing stands nearer than this, in metres."""
CONFIDENCE = 0.2
"""Right in layout at best."""


class PriorDepth:
    """Ground plane and standing columns. See :class:`scenegen.geometry.base.DepthEstimator`."""

    def depth(
        self,
        rgb: Float[Tensor, "h w 3"],
        sky: Bool[Tensor, "h w"],
        px_from_cam: Float[Tensor, "3 3"],
        eye_height: float,
    ) -> Estimate:
        height, width = rgb.shape[:2]
        horizon = horizon_row(sky, px_from_cam)
        plane = ground_disparity(height, width, px_from_cam, eye_height, horizon)
        small = torch.nn.functional.interpolate(
            rgb.permute(2, 0, 1)[None], (ROWS, COLUMNS), mode="bilinear", antialias=True
        )
        contact = contact_line(small, horizon / height * ROWS) * height / ROWS  # in image rows
        contact = _smooth_line(contact, width)
        standing = (contact - horizon) / (height - horizon)
        standing = standing * plane[-1]  # disparity of the ground at the contact, (w,)
        disparity = torch.maximum(plane, standing[None]).clamp(1.0 / FARTHEST, 1.0 / NEAREST)
        ground_near = torch.minimum(plane, disparity.new_tensor(10.0))
        disparity = torch.where(plane >= standing[None], ground_near, disparity)
        disparity = disparity.clamp_min(1.0 / FARTHEST)
        scale = f"level ground supposed {eye_height:g} m below the camera"
        return Estimate(1.0 / disparity, torch.full_like(disparity, CONFIDENCE), scale, sky)


def contact_line(small: Float[Tensor, "1 3 r c"], horizon: float) -> Float[Tensor, " c"]:
    """Row of the ground's upper end in each column, by dynamic programming.

    Args:
        small: The image on a coarse grid, 0 to 1.
        horizon: Row of the horizon on that grid; the line stays below it.
    """
    _, _, rows, columns = small.shape
    likeness = _ground_likeness(small)  # (r, c), positive where it looks like the ground
    below = likeness.flip(0).cumsum(0).flip(0) / rows  # sum from this row to the bottom
    gray = kornia.color.rgb_to_grayscale(small)
    edge = kornia.filters.spatial_gradient(gray)[0, 0, 1].abs()
    gain = below + EDGE * edge
    lowest_allowed = min(rows - 2, max(1, round(horizon + 0.04 * rows)))
    gain[:lowest_allowed] = -1e9
    row = torch.arange(rows, dtype=torch.float32)
    climb = SMOOTH * (row[:, None] - row[None]).abs().clamp(max=12)  # (to, from)
    score, origin = gain[:, 0], []
    for column in range(1, columns):
        best, where = (score[None] - climb).max(dim=1)
        origin.append(where)
        score = best + gain[:, column]
    line = [int(score.argmax())]
    for where in reversed(origin):
        line.append(int(where[line[-1]]))
    return torch.tensor(line[::-1], dtype=torch.float32)


def _ground_likeness(small: Float[Tensor, "1 3 r c"]) -> Float[Tensor, "r c"]:
    """+1 like the strip at the bottom, -1 unlike it, by Mahalanobis distance in Lab."""
    lab = kornia.color.rgb_to_lab(small)[0].permute(1, 2, 0)  # (r, c, 3)
    rows, columns = lab.shape[:2]
    strip = lab[int(0.86 * rows) :, int(0.15 * columns) : int(0.85 * columns)].reshape(-1, 3)
    center = strip.median(0).values
    floor = torch.diag(torch.tensor([60.0, 15.0, 15.0]))  # shade varies more than hue
    precision = torch.linalg.inv(torch.cov(strip.T) + floor)
    offset = lab - center
    distance = torch.einsum("rci,ij,rcj->rc", offset, precision, offset)
    return (1.0 - distance / 4.0).clamp(-1.0, 1.0)


def _smooth_line(contact: Float[Tensor, " c"], width: int) -> Float[Tensor, " w"]:
    kernel = 5
    padded = torch.nn.functional.pad(contact[None, None], [kernel // 2] * 2, mode="replicate")
    median = padded.unfold(-1, kernel, 1).median(-1).values
    return torch.nn.functional.interpolate(median, width, mode="linear", align_corners=False)[0, 0]
