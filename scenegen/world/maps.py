"""A map of a world, seen from above: what the memory holds, and where somebody stands in it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from renderers import Camera
from spatial_memory import ViewMemory

SIDE = 240
"""Side of a map, in pixels."""
PAPER, INVENTED, HERE = (30, 31, 34), (214, 140, 60), (255, 255, 255)
WITHIN = 0.9
"""The map shows this share of the surfels, the nearest to the photograph."""
LEAST, MOST = 3.0, 40.0
"""Half of a map's side, in metres: at least and at most."""
TINT = 0.45
"""How much of the colour of what was invented is INVENTED."""
REACH = 0.2
"""Length of the drawn view, as a share of the map's side."""


@dataclass(frozen=True, eq=False)
class Map:
    """The ground plan: forward is up, right is right."""

    picture: UInt8[np.ndarray, "h w 3"]
    half: float
    """Half of its side, in metres; the photograph was taken in its middle."""

    @classmethod
    def of(cls, memory: ViewMemory) -> Map:
        """Draw what a memory holds; what is higher covers what is lower.

        Not while another thread writes to the memory.
        """
        held = memory.surfels
        picture = np.full((SIDE, SIDE, 3), PAPER, np.uint8)
        points = held.points.astype(np.float64)
        away = np.abs(points[:, [0, 2]]).max(1) if len(points) else np.array([LEAST])
        half = float(np.clip(np.quantile(away, WITHIN), LEAST, MOST))
        order = np.argsort(-points[:, 1], kind="stable")  # y points down: the highest last
        order = order[away[order] <= half] if len(points) else order
        colors = 255.0 * held.colors[order]
        new = held.provenance[order] > 0
        colors[new] = (1 - TINT) * colors[new] + TINT * np.array(INVENTED)
        columns, rows = _pixels(points[order], half)
        size = np.maximum(1, np.round(held.radii[order] * SIDE / (2 * half))).astype(int)
        for column, row, reach, color in zip(columns, rows, size.clip(1, 4), colors, strict=True):
            picture[max(0, row - reach + 1) : row + 1, column : column + reach] = color
        return cls(picture, half)

    def drawn(self, camera: Camera) -> UInt8[np.ndarray, "h w 3"]:
        """The map with a camera on it: where it is, and what it looks at."""
        image = Image.fromarray(self.picture)
        pose = camera.world_from_cam.double().numpy()
        column, row = (int(values[0]) for values in _pixels(pose[None, :3, 3], self.half))
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


def _pixels(points: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of points (n, 3) on the map, kept within it."""
    scale = SIDE / (2 * half)
    columns, rows = SIDE / 2 + points[:, 0] * scale, SIDE / 2 - points[:, 2] * scale
    return columns.clip(0, SIDE - 1).astype(int), rows.clip(0, SIDE - 1).astype(int)
