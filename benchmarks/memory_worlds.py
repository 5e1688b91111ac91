"""Worlds of boxes that are walked through, with exact depth and exact visibility by casting rays.

  rooms      six rooms in two rows, doorways between them, a table in each
  corridor   a corridor with doors into side rooms; longer the more views are taken of it
  courtyard  a yard with buildings around, walked inside and outside of them
  stair      two storeys one above the other, joined by a stair
  street     a block of houses that is walked around again and again

World axes as everywhere: x right, y down, z forward, metres; the ground is at y = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from benchmarks.memory_casting import World

WALL = 0.15
"""Thickness of walls, in metres."""
STOREY = 2.6
"""Height of rooms, in metres."""
DOOR = (0.9, 2.1)
"""Width and height of doors, in metres."""
VIEWS_PER_ROOMS = 200
"""Views that are taken of each pair of side rooms of the corridor."""
LAP = 100
"""Views that are taken on each lap of the street."""

Box = tuple[tuple[float, float, float], tuple[float, float, float]]


def rooms(_: int) -> World:
    """Six rooms of 4 x 4 m; each is left by another door than it was entered by."""
    doors = {"a": (4.0, 3.0), "b": (8.0, 1.0), "c": (11.0, 4.0), "d": (8.0, 7.0), "e": (4.0, 5.0)}
    boxes = [*slabs((0, 0), (12, 8)), *shell((0, 0), (12, 8))]
    boxes += wall((4, 0), (4, 8), [3.0, 5.0]) + wall((8, 0), (8, 8), [1.0, 7.0])
    boxes += wall((0, 4), (12, 4), [11.0])
    middles = [(2.0, 2.0), (6.0, 2.0), (10.0, 2.0), (10.0, 6.0), (6.0, 6.0), (2.0, 6.0)]
    path: list[tuple[float, float]] = []
    for middle, entry, leave in zip(middles, " abcde", "abcde ", strict=True):
        boxes.append(table(middle))
        path += tour(middle, doors.get(entry), doors.get(leave))
    return made(boxes, path)


def corridor(views: int) -> World:
    """Pairs of side rooms of 4 x 4 m, both visited, for every so many views."""
    pairs = max(1, round(views / VIEWS_PER_ROOMS))
    end = 4.0 * pairs
    boxes = [*slabs((-5, 0), (5, end)), *shell((-5, 0), (5, end))]
    path = [(0.0, 0.6)]
    for x in (-1.0, 1.0):
        boxes += wall((x, 0), (x, end), [4.0 * i + 3.0 for i in range(pairs)])
    for i in range(pairs):
        for side in (-1.0, 1.0):
            middle, door = (3.0 * side, 4.0 * i + 2.0), (side, 4.0 * i + 3.0)
            boxes.append(table(middle))
            if i:
                boxes += wall(*sorted([(side, 4.0 * i), (5.0 * side, 4.0 * i)]))
            path += [(0.0, door[1]), *tour(middle, door, door), (0.0, door[1])]
    return made(boxes, path)


def courtyard(_: int) -> World:
    """A yard of 14 x 14 m between four buildings, with ways out at its corners."""
    boxes = [*slabs((-15, -15), (15, 15))[:1], *shell((-15, -15), (15, 15))]
    for side in (-1.0, 1.0):
        near, far = sorted([7.0 * side, 9.5 * side])
        boxes += [block((-5, near), (5, far), 5.0), block((near, -5), (far, 5), 6.0)]
        boxes += [block((3 * side - 0.2, z - 0.2), (3 * side + 0.2, z + 0.2), 3.0) for z in (-3, 3)]
    boxes.append(block((-1, -1), (1, 1), 0.8))
    inside, outside = ring((0, 0), 5.5), ring((0, 0), 12.0)
    return made(boxes, [*inside, inside[0], (-7, -7), *outside, outside[0]])


def stair(_: int) -> World:
    """Two storeys of 8 x 6 m with the same walls; the upper one is walked the other way round."""
    rise = 3.0  # from floor to floor
    boxes = [*shell((0, 0), (8, 6), 2 * rise), block((0, 0), (8, 6), -0.2)]
    boxes += [block((0, 0), (8, 6), 2 * rise, 2 * rise - 0.2)]
    gap = (6.6, 0.5, 8.0, 5.0)  # the stairwell: x, z, x, z
    for low, high in (
        ((0, 0), (gap[0], 6)),
        ((gap[0], 0), (8, gap[1])),
        ((gap[0], gap[3]), (8, 6)),
    ):
        boxes.append(block(low, high, rise, rise - 0.2))
    for storey in (0.0, rise):
        boxes += wall((3.5, 0), (3.5, 6), [5.2], storey, rise - 0.2)
        boxes += [block((5.0, 2.6), (5.8, 3.4), storey + 0.8, storey)]
        boxes += [block((1.8, 2.6), (2.4, 3.4), storey + 0.8, storey)]
    for i in range(15):
        z = 0.8 + 0.28 * i
        boxes.append(block((gap[0], z), (8, z + 0.28), 0.2 * (i + 1)))
    below = [(1.0, 1.0), (1.0, 5.0), (3.5, 5.2), (4.3, 5.0), (4.3, 0.8), (7.3, 0.45)]
    above = [(7.3, 5.4), (6.2, 5.2), (6.2, 1.0), (4.3, 1.0), (4.3, 5.2), (3.5, 5.2)]
    above += [(2.9, 5.2), (2.9, 1.0), (1.0, 1.0), (1.0, 5.0)]
    path = [(x, 0.0, z) for x, z in below] + [(7.3, 0.0, 0.8), (7.3, -rise, 5.0)]
    return World(np.array(boxes, np.float64), np.array(path + [(x, -rise, z) for x, z in above]))


def street(_: int) -> World:
    """A block of 24 x 16 m, streets of 6 m around it, houses and parked cars along them."""
    rng = np.random.default_rng(0)
    boxes = [*slabs((-30, -26), (30, 26))[:1]]
    for inner, outer, depth in (
        ((12.0, 8.0), (12.0, 8.0), -5.0),
        ((18.0, 14.0), (24.0, 20.0), 6.0),
    ):
        for along, across, reach in ((0, 1, outer[0]), (1, 0, inner[1] + min(depth, 0.0))):
            for side in (-1.0, 1.0):
                edges = np.linspace(-reach, reach, 2 * round(reach / 4) + 1)
                front = inner[across] * side
                for a, b in pairwise(edges.tolist()):
                    set_back = rng.uniform(0.0, 1.0) * side * np.sign(depth)
                    corners = np.zeros((2, 2))
                    corners[:, along] = a, b - rng.uniform(0.0, 0.8)
                    corners[:, across] = sorted((front + set_back, front + depth * side))
                    boxes.append(block(*corners, rng.uniform(3.0, 8.0)))
    for x in (-8.0, 1.0, 7.0):
        boxes += [block((x, 9.0), (x + 4.0, 10.6), 1.4), block((x, -13.2), (x + 4.0, -11.6), 1.4)]
    for z in (-5.0, 2.0):
        boxes += [block((13.0, z), (14.6, z + 4.0), 1.4), block((-17.2, z), (-15.6, z + 4.0), 1.4)]
    path = [(-15.0, -11.0), (-15.0, 11.0), (15.0, 11.0), (15.0, -11.0), (-15.0, -11.0)]
    return made(boxes, path, LAP)


WORLDS: dict[str, Callable[[int], World]] = {
    "rooms": rooms,
    "corridor": corridor,
    "courtyard": courtyard,
    "stair": stair,
    "street": street,
}
"""Makers, given how many views will be taken."""

# ---- what worlds are made of: places on the floor are (x, z)


def made(boxes: list[Box], path: Iterable[tuple[float, float]], lap: int | None = None) -> World:
    """A world whose path is on the ground."""
    return World(np.array(boxes, np.float64), np.array([(x, 0.0, z) for x, z in path]), lap)


def block(low: Sequence[float], high: Sequence[float], top: float, bottom: float = 0.0) -> Box:
    """A box between two places, from one height above the ground to another."""
    return (low[0], -max(top, bottom), low[1]), (high[0], -min(top, bottom), high[1])


def slabs(low: tuple[float, float], high: tuple[float, float]) -> list[Box]:
    """Floor and ceiling."""
    return [block(low, high, -0.2), block(low, high, STOREY + 0.2, STOREY)]


def shell(low: tuple[float, float], high: tuple[float, float], height: float = STOREY) -> list[Box]:
    """Four walls around, outside of the two corners."""
    (a, b), (c, d), w = low, high, WALL
    sides = [((a - w, b - w), (a, d + w)), ((c, b - w), (c + w, d + w))]
    sides += [((a, b - w), (c, b)), ((a, d), (c, d + w))]
    return [block(*side, height) for side in sides]


def wall(
    start: tuple[float, float],
    end: tuple[float, float],
    doors: Sequence[float] = (),
    floor: float = 0.0,
    height: float = STOREY,
) -> list[Box]:
    """A wall along x or z with doors, whose middles are given by that coordinate, ascending."""
    along = 0 if start[1] == end[1] else 1
    line, half = start[1 - along], WALL / 2
    edges = [start[along], *(d + s * DOOR[0] / 2 for d in doors for s in (-1, 1)), end[along]]
    pieces = []
    for i, (a, b) in enumerate(pairwise(edges)):
        low, high = [line - half, line - half], [line + half, line + half]
        low[along], high[along] = a, b
        pieces.append(block(low, high, floor + height, floor + (DOOR[1] if i % 2 else 0.0)))
    return pieces


def table(middle: tuple[float, float]) -> Box:
    """A solid table."""
    x, z = middle
    return block((x - 0.4, z - 0.4), (x + 0.4, z + 0.4), 0.8)


def ring(middle: tuple[float, float], half: float) -> list[tuple[float, float]]:
    """Corners of a square, in order."""
    x, z = middle
    return [(x + half * a, z + half * b) for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1))]


def tour(
    middle: tuple[float, float],
    entry: tuple[float, float] | None,
    leave: tuple[float, float] | None,
) -> list[tuple[float, float]]:
    """Once around the table of a room, and on to the door; doors are level with corners."""
    corners = ring(middle, 1.0)
    first, last = (
        min(range(4), key=lambda i: math.dist(corners[i], door)) if door else 0
        for door in (entry, leave)
    )
    stops = [corners[(first + i) % 4] for i in range(5 + (last - first) % 4)]
    return [*([entry] if entry else []), *stops, *([leave] if leave else [])]
