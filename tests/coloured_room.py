"""A room whose orientation cannot be mistaken, as splats, and what its picture must show.

Seen from the origin: red wall left, green wall right, blue wall ahead with a yellow square up left
and a patch down right that is magenta from here and cyan from behind, brown floor, white ceiling.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from renderers import Camera, Splats, join

WIDTH, HEIGHT, FOV = 240, 160, 80.0
RED, GREEN, BLUE = (0.85, 0.1, 0.1), (0.1, 0.65, 0.15), (0.1, 0.2, 0.85)
YELLOW, BROWN, WHITE = (0.9, 0.8, 0.1), (0.5, 0.3, 0.1), (0.95, 0.95, 0.95)
PATCH, CHANGE = (0.5, 0.5, 0.9), (0.4, -0.4, 0.0)
"""Colour of the patch from the side, and what is added to it by looking along +z."""
SHOWS = {  # pixel (column, row) of the picture: colour
    (16, 80): RED, (224, 80): GREEN, (120, 80): BLUE, (87, 60): YELLOW,
    (120, 150): BROWN, (120, 10): WHITE,
}  # fmt: skip
MAGENTA_AT = (153, 100)


def wall(
    corner: tuple[float, float, float],
    along: tuple[float, float, float],
    up: tuple[float, float, float],
    color: tuple[float, float, float],
    step: float = 0.12,
    change: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Splats:
    """Thin discs that fill a parallelogram; ``change`` is added when looking along +z."""
    a, b = torch.tensor(along), torch.tensor(up)
    columns, rows = round(float(a.norm()) / step), round(float(b.norm()) / step)
    i, j = torch.meshgrid(
        (torch.arange(columns) + 0.5) / columns, (torch.arange(rows) + 0.5) / rows, indexing="ij"
    )
    means = torch.tensor(corner) + i.reshape(-1, 1) * a + j.reshape(-1, 1) * b
    normal = torch.linalg.cross(a, b)
    n, turn = len(means), math.sqrt(0.5)
    facing = {
        0: (turn, 0.0, turn, 0.0),  # z turned to x
        1: (turn, turn, 0.0, 0.0),  # z turned to y
        2: (1.0, 0.0, 0.0, 0.0),
    }[int(normal.abs().argmax())]
    sh = torch.zeros(n, 3, 3)
    sh[:, 1] = torch.tensor(change) / 0.4886025119029199
    return Splats(
        means,
        torch.tensor(facing).expand(n, 4).clone(),
        torch.tensor([0.6 * step, 0.6 * step, 0.004]).expand(n, 3).clone(),
        torch.full((n,), 0.96),
        torch.tensor(color).expand(n, 3).clone(),
        sh,
    )


def coloured_room() -> Splats:
    """About 6000 splats, 4 x 2.4 x 5 m around a camera at the origin; harmonics of degree 1."""
    left, right, top, floor, far = -2.0, 2.0, -1.2, 1.2, 4.0
    deep, wide, high = (0.0, 0.0, far + 1.0), (right - left, 0.0, 0.0), (0.0, floor - top, 0.0)
    return join([
        wall((left, top, -1.0), deep, high, RED),
        wall((right, top, -1.0), deep, high, GREEN),
        wall((left, top, far), wide, high, BLUE),
        wall((left, floor, -1.0), wide, deep, BROWN),
        wall((left, top, -1.0), wide, deep, WHITE),
        wall((-1.3, -0.9, far - 0.1), (0.7, 0.0, 0.0), (0.0, 0.7, 0.0), YELLOW, 0.08),
        wall((0.6, 0.2, far - 0.1), (0.7, 0.0, 0.0), (0.0, 0.7, 0.0), PATCH, 0.08, CHANGE),
    ])  # fmt: skip


def camera() -> Camera:
    """The camera at the origin."""
    return Camera.from_fov(FOV, WIDTH, HEIGHT)


def check_picture(rgb: np.ndarray, *, harmonics: bool = True, tolerance: float = 0.12) -> None:
    """Whether a picture (HEIGHT, WIDTH, 3) of the room, 0 to 1, is upright, not mirrored, right.

    Each place is the mean of 5 x 5 pixels.
    """
    assert rgb.shape == (HEIGHT, WIDTH, 3)
    places = SHOWS | (
        {MAGENTA_AT: tuple(c + d for c, d in zip(PATCH, CHANGE, strict=True))} if harmonics else {}
    )
    for (column, row), color in places.items():
        seen = rgb[row - 2 : row + 3, column - 2 : column + 3].mean((0, 1))
        assert np.abs(seen - np.array(color)).max() < tolerance, (column, row, seen, color)


def psnr(one: torch.Tensor, two: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two pictures, in dB."""
    return -10.0 * math.log10(max((one - two).square().mean().item(), 1e-12))
