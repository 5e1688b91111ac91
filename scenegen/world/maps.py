"""A map of a world, seen from above: what the memory holds, and where somebody stands in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from renderers import Camera
from spatial_memory import ViewMemory

SIDE = 240
"""Side of a map, in pixels."""
PAPER, INVENTED, HERE = (30, 31, 34), (214, 140, 60), (255, 255, 255)
STRAYS = 0.04
"""Share of the surfels that may be beyond each edge of the map."""
LEAST, MOST = 3.0, 40.0
"""Half of a map's side at least, and how far from the photograph it reaches at most, in metres."""
MARGIN = 0.5
"""Around what is shown, in metres."""
TINT = 0.45
"""How much of the colour of what was invented is INVENTED."""
REACH = 0.2
"""Length of the drawn view, as a share of the map's side."""


@dataclass(frozen=True, eq=False)
class Map:
    """The ground plan: forward is up, right is right."""

    picture: UInt8[np.ndarray, "h w 3"]
    half: float
    """Half of its side, in metres."""
    middle: Float[np.ndarray, " 2"]
    """Its middle, x and z in metres. Where the photograph was taken is on the map as well."""

    @classmethod
    def of(cls, memory: ViewMemory) -> Map:
        """Draw what a memory holds; what is higher covers what is lower.

        Not while another thread writes to the memory.
        """
        held = memory.surfels
        picture = np.full((SIDE, SIDE, 3), PAPER, np.uint8)
        points = held.points.astype(np.float64)
        middle, half = _frame(points[:, [0, 2]])
        inside = np.abs(points[:, [0, 2]] - middle).max(1, initial=0.0) <= half
        order = np.argsort(-points[:, 1], kind="stable")  # y points down: the highest last
        order = order[inside[order]]
        colors = 255.0 * held.colors[order]
        new = held.provenance[order] > 0
        colors[new] = (1 - TINT) * colors[new] + TINT * np.array(INVENTED)
        columns, rows = _pixels(points[order], middle, half)
        size = np.maximum(1, np.round(held.radii[order] * SIDE / (2 * half))).astype(int)
        for column, row, reach, color in zip(columns, rows, size.clip(1, 4), colors, strict=True):
            picture[max(0, row - reach + 1) : row + 1, column : column + reach] = color
        return cls(picture, half, middle)

    def drawn(self, camera: Camera) -> UInt8[np.ndarray, "h w 3"]:
        """The map with a camera on it: where it is, and what it looks at."""
        image = Image.fromarray(self.picture)
        pose = camera.world_from_cam.double().numpy()
        columns, rows = _pixels(pose[None, :3, 3], self.middle, self.half)
        column, row = int(columns[0]), int(rows[0])
        heading = math.atan2(pose[0, 2], pose[2, 2])
        wide = math.radians(camera.fov_degrees) / 2
        ends = [
            (column + REACH * SIDE * math.sin(a), row - REACH * SIDE * math.cos(a))
            for a in (heading - wide, heading + wide)
        ]
        draw = ImageDraw.Draw(image)
        draw.polygon([(column, row), *ends], outline=HERE)
        draw.ellipse((column - 3, row - 3, column + 3, row + 3), fill=HERE)
        return np.asarray(image)


def _frame(places: np.ndarray) -> tuple[np.ndarray, float]:
    """Middle, and half of the side, of a square around most places (n, 2) and the photograph's."""
    if not len(places):
        return np.zeros(2), LEAST
    low, high = np.quantile(places, [STRAYS, 1.0 - STRAYS], axis=0)
    low, high = np.clip(low, -MOST, 0.0), np.clip(high, 0.0, MOST)
    return (low + high) / 2, max(float((high - low).max()) / 2 + MARGIN, LEAST)


def _pixels(points: np.ndarray, middle: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of points (n, 3) on the map, kept within it."""
    scale = SIDE / (2 * half)
    columns = SIDE / 2 + (points[:, 0] - middle[0]) * scale
    rows = SIDE / 2 - (points[:, 2] - middle[1]) * scale
    return columns.clip(0, SIDE - 1).astype(int), rows.clip(0, SIDE - 1).astype(int)
