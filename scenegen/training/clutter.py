"""What makes a room lived in: shelves of books, things on tables and floors, a view outside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scenegen.training.furniture import Piece
from scenegen.training.shapes import (
    Array,
    Picture,
    box,
    quad,
    standing_ball,
    standing_box,
    standing_tube,
    turned,
    yaw_matrix,
)

if TYPE_CHECKING:
    from scenegen.training.rooms import Room

THING_CHANCE = (0.5, 0.25, 0.17, 0.08)
"""On a table: a thing of the catalogue, a box, a tube, a ball."""


def lay_things(
    room: Room,
    rng: np.random.Generator,
    middle: Array,
    size: Array,
    yaw: float,
    small: list[Piece],
) -> None:
    """Put one to six things on a piece of furniture.

    Args:
        room: Gets the things.
        rng: Source of the random choices.
        middle: Middle of the surface, in metres.
        size: Width, height, depth of the piece, in metres.
        yaw: How the piece is turned, in radians.
        small: Things of the catalogue.
    """
    from scenegen.training.rooms import add_piece

    for _ in range(int(rng.integers(1, 7))):
        offset = np.array(
            [rng.uniform(-0.38, 0.38) * size[0], 0, rng.uniform(-0.38, 0.38) * size[2]]
        )
        place = middle + yaw_matrix(yaw) @ offset
        kind = rng.choice(4, p=THING_CHANCE)
        if kind == 0 and small:
            add_piece(room.scene, rng, small[rng.integers(len(small))], place, rng.uniform(-3, 3))
            continue
        soup = _thing(rng, int(kind), rng.uniform(0.05, 0.28))
        room.scene.add_soup(soup + place, rng.uniform(0.02, 0.9, 3))


def strew(room: Room, rng: np.random.Generator, pictures: dict[str, list[Path]]) -> None:
    """A rug, and boxes, tubes and balls on the floor."""
    width, _, depth = room.size
    if rng.random() < 0.5:
        x, z = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * depth
        a, b = rng.uniform(0.15, 0.3) * width, rng.uniform(0.15, 0.3) * depth
        rug = quad([x - a, 0, z - b], [x + a, 0, z - b], [x + a, 0, z + b], [x - a, 0, z + b])
        room.scene.add_soup(rug - [0, 0.008, 0], rng.uniform(0.3, 1, 3), _any(rng, pictures))
    for _ in range(int(rng.integers(2, 9))):
        place = np.array([rng.uniform(0.2, width - 0.2), 0, rng.uniform(0.2, depth - 0.2)])
        soup = _thing(rng, int(rng.integers(1, 4)), rng.uniform(0.1, 0.45))
        picture = _any(rng, pictures) if rng.random() < 0.4 else None
        room.scene.add_soup(soup + place, rng.uniform(0.03, 0.9, 3), picture, tiles=2.0)
        room.interests.append(place - [0, 0.2, 0])


def fill_shelves(room: Room, rng: np.random.Generator, pictures: dict[str, list[Path]]) -> None:
    """Up to two open shelves with books and boxes, where there is room along the far wall."""
    for _ in range(int(rng.integers(0, 3))):
        width, deep = rng.uniform(0.7, 2.0), rng.uniform(0.22, 0.4)
        top, levels = rng.uniform(0.8, 2.1), int(rng.integers(2, 6))
        left = rng.uniform(0.05, max(0.06, room.size[0] - width - 0.05))
        back = room.size[2] - 0.01
        middle = (left + width / 2, back - deep / 2, width / 2, deep / 2)
        if left + width > room.size[0] or not room.is_free(*middle):
            continue
        room.taken.append(middle)
        room.interests.append(np.array([middle[0], -top / 2, middle[1]]))
        colour, board = rng.uniform(0.05, 0.7, 3), _any(rng, pictures)
        boards = [
            (left, left + width, top * i / levels, top * i / levels + 0.025)
            for i in range(levels + 1)
        ]
        boards += [(left, left + 0.025, 0, top), (left + width - 0.025, left + width, 0, top)]
        for x0, x1, low, high in boards:
            soup = box(np.array([x0, -high, back - deep]), np.array([x1, -low, back]))
            room.scene.add_soup(soup, colour, board)
        for level in range(levels):
            _books(room, rng, left, width, (top * level / levels + 0.025, top / levels), back, deep)


def _books(
    room: Room,
    rng: np.random.Generator,
    left: float,
    width: float,
    shelf: tuple[float, float],
    back: float,
    deep: float,
) -> None:
    foot, space = shelf
    x = left + 0.04
    while x < left + width - 0.12:
        thick = rng.uniform(0.015, 0.09) if rng.random() < 0.8 else rng.uniform(0.1, 0.25)
        thick = min(thick, left + width - 0.04 - x)
        if rng.random() < 0.85:
            front = back - deep * rng.uniform(0.55, 0.98)
            tall = rng.uniform(0.35, 0.85) * space
            soup = box(np.array([x, -foot - tall, front]), np.array([x + thick, -foot, back]))
            room.scene.add_soup(soup, rng.uniform(0.02, 0.85, 3))
        x += thick + 0.004


def build_outside(room: Room, rng: np.random.Generator, pictures: dict[str, list[Path]]) -> None:
    """Ground and houses around the room, as seen through its windows."""
    ground = rng.uniform(0.02, 4.0)
    reach = 90.0
    lawn = quad(
        [-reach, ground, -reach],
        [reach, ground, -reach],
        [reach, ground, reach],
        [-reach, ground, reach],
    )
    colour = rng.uniform(0.1, 0.5, 3) * [0.9, 1.1, 0.7]
    room.scene.add_soup(lawn, colour)
    for _ in range(int(rng.integers(4, 16))):
        angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(14, 70)
        place = np.array([np.sin(angle) * far, ground, np.cos(angle) * far])
        size = rng.uniform([4, 3, 4], [14, 14, 14])
        soup = turned(standing_box(size), rng.uniform(0, 3)) + place + room.size * [0.5, 0, 0.5]
        picture = _any(rng, pictures, "wall") if rng.random() < 0.6 else None
        room.scene.add_soup(soup, rng.uniform(0.2, 0.9, 3), picture, tiles=0.3)


def _thing(rng: np.random.Generator, kind: int, size: float) -> Array:
    """A box (1), tube (2) or ball (3) that stands on y = 0, about ``size`` metres wide."""
    if kind == 1:
        return turned(standing_box(size * rng.uniform(0.4, 1.4, 3)), rng.uniform(0, 3))
    if kind == 2:
        return standing_tube(
            size / 3, size / 3 * rng.uniform(0.4, 1.3), size * rng.uniform(0.5, 1.8)
        )
    return standing_ball(size / 2.5)


def _any(
    rng: np.random.Generator, pictures: dict[str, list[Path]], family: str = "any"
) -> Picture | None:
    choices = pictures[family]
    return Picture(choices[rng.integers(len(choices))]) if choices else None
