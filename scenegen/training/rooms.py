"""Indoor worlds: furnished rooms with clutter, windows, lamps and daylight."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scenegen.training import clutter
from scenegen.training.furniture import Piece, catalogue, read_piece
from scenegen.training.gl import SceneRenderer
from scenegen.training.light import Light, daylight, lamp_shadow, sun_shadow
from scenegen.training.shapes import (
    QUAD_UV,
    Array,
    Picture,
    Scene,
    box,
    quad,
    yaw_matrix,
)
from scenegen.training.shots import Shot, random_camera

THEMES = ("Living room", "Bedroom", "Kitchen", "Office", "Bathroom")
MOST_PIECES = 22
"""Pieces of furniture that a room is given at most."""
SILL, LINTEL = (0.75, 1.0), (1.95, 2.25)
"""Heights of the lower and upper edges of windows, in metres."""


@dataclass
class Room:
    """A room while it is furnished."""

    size: Float[Array, " 3"]
    """Width (x), height and depth (z), in metres; one corner of the floor is the origin."""
    scene: Scene = field(default_factory=Scene)
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Middles (x, z) and half sides of what stands on the floor, in metres."""
    interests: list[Array] = field(default_factory=list)
    """Places worth looking at, in metres."""
    windows: list[Array] = field(default_factory=list)
    """Middles of the windows, in metres."""

    def is_free(self, x: float, z: float, half_x: float, half_z: float) -> bool:
        """Whether a rectangle on the floor touches nothing that stands there."""
        return all(
            abs(x - a) > half_x + half_a or abs(z - b) > half_z + half_b
            for a, b, half_a, half_b in self.taken
        )


class RoomWorld:
    """A random room, and the pictures taken in it."""

    def __init__(
        self, renderer: SceneRenderer, rng: np.random.Generator, pictures: dict[str, list[Path]]
    ) -> None:
        """Build and load a room.

        Args:
            renderer: Draws it.
            rng: Source of the random choices.
            pictures: Textures for ``floor``, ``wall`` and ``any``.
        """
        self.renderer = renderer
        self.room = build_room(rng, pictures)
        renderer.load(self.room.scene)

    def shoot(self, rng: np.random.Generator) -> Shot:
        """A picture by a standing or sitting person, often of something near."""
        size = self.room.size
        height = rng.uniform(0.9, 1.75) if rng.random() < 0.75 else rng.uniform(0.4, size[1] - 0.3)
        eye = np.array(
            [rng.uniform(0.15, size[0] - 0.15), -height, rng.uniform(0.15, size[2] - 0.15)]
        )
        target = size * rng.uniform(0.1, 0.9, 3) * [1, -0.55, 1]
        if self.room.interests and rng.random() < 0.45:
            target = self.room.interests[rng.integers(len(self.room.interests))]
            target = target + rng.normal(0, 0.15, 3)
            if rng.random() < 0.55:  # a close-up
                away = (eye - target) / (np.linalg.norm(eye - target) + 1e-9)
                eye = target + away * rng.uniform(0.5, 1.8)
        eye = np.clip(eye, [0.1, 0.1 - size[1], 0.1], [size[0] - 0.1, -0.25, size[2] - 0.1])
        camera = random_camera(rng, eye, target)
        return Shot(*self.renderer.draw(camera, room_light(self.room, rng)), camera)


def build_room(rng: np.random.Generator, pictures: dict[str, list[Path]]) -> Room:
    """A furnished room with at least fifteen things in it."""
    room = Room(_room_size(rng))
    _build_shell(room, rng, pictures)
    theme = str(rng.choice(THEMES))
    _furnish(room, rng, theme)
    clutter.fill_shelves(room, rng, pictures)
    clutter.strew(room, rng, pictures)
    return room


def room_light(room: Room, rng: np.random.Generator) -> Light:
    """Daylight through a window, or a lamp at the ceiling; more lamps around."""
    size = room.size
    middle = size * [0.5, -0.5, 0.5]
    outside = daylight(rng, middle, float(np.linalg.norm(size)) / 2 + 1)
    tint = np.array([1.0, rng.uniform(0.8, 1.0), rng.uniform(0.55, 1.0)])
    ambient = rng.uniform(0.1, 0.4) * np.array([1, 1, rng.uniform(0.85, 1.15)])
    lamps = tuple(
        (
            np.array([rng.uniform(0.1, 0.9), -rng.uniform(0.4, 0.92), rng.uniform(0.1, 0.9)])
            * size,
            rng.uniform(0, 1.2) * tint,
        )
        for _ in range(3)
    )
    lit = replace(outside, above=ambient, below=0.7 * ambient, lamps=lamps, haze=0.0)
    lit = replace(lit, walls=(size * [0, -1, 0], size * [1, 0, 1]))
    if room.windows and rng.random() < 0.5:
        inward = middle - room.windows[rng.integers(len(room.windows))]
        toward = -inward * [1, 0, 1] / np.linalg.norm(inward * [1, 0, 1])
        offset = np.array([rng.normal(0, 0.4), -rng.uniform(0.3, 1.0), rng.normal(0, 0.4)])
        toward = toward + offset
        toward /= np.linalg.norm(toward)
        shadow = sun_shadow(toward, middle, float(np.linalg.norm(size)) / 2 + 1)
        sun = rng.uniform(1.0, 4.0) * np.array([1.0, 0.93, 0.8])
        return replace(lit, main=np.append(toward, 0.0), main_colour=sun, shadow_from_world=shadow)
    place = np.array([rng.uniform(0.25, 0.75), -1, rng.uniform(0.25, 0.75)]) * size
    place[1] += rng.uniform(0.1, 0.7)
    power = rng.uniform(1.0, 3.0) * tint * max(1.0, float(size[0] * size[2]) / 14)
    shadow = lamp_shadow(place)
    return replace(lit, main=np.append(place, 1.0), main_colour=power, shadow_from_world=shadow)


def _room_size(rng: np.random.Generator) -> Array:
    kind = rng.random()
    if kind < 0.12:  # a hall
        return rng.uniform([8, 3, 8], [16, 6, 16])
    if kind < 0.22:  # a corridor
        return rng.uniform([1.6, 2.3, 6], [2.4, 3, 13])
    return rng.uniform([2.8, 2.3, 2.8], [7.5, 3.3, 7.5])


def _pick(rng: np.random.Generator, choices: list[Path], share: float) -> Picture | None:
    """A random picture with probability ``share``, else none."""
    if not choices or rng.random() >= share:
        return None
    return Picture(choices[rng.integers(len(choices))])


def _build_shell(room: Room, rng: np.random.Generator, pictures: dict[str, list[Path]]) -> None:
    width, height, depth = room.size
    floor = _pick(rng, pictures["floor"], 0.8)
    colour = rng.uniform(0.35, 1, 3) if floor else rng.uniform(0.1, 0.7) * rng.uniform(0.8, 1.1, 3)
    ground = quad([0, 0, 0], [width, 0, 0], [width, 0, depth], [0, 0, depth])
    room.scene.add_soup(ground, colour, floor, tiles=rng.uniform(0.4, 1.5))
    ceiling = rng.uniform(0.5, 0.9) * rng.uniform(0.94, 1, 3)
    room.scene.add_soup(ground - [0, height, 0], ceiling)
    paint = rng.uniform(0.25, 0.9) * rng.uniform(0.8, 1, 3)
    skirting = rng.uniform(0.05, 0.8) * np.ones(3)
    corners = [(0, 0), (width, 0), (width, depth), (0, depth)]
    outside = False
    for index in range(4):
        start, end = np.array(corners[index]), np.array(corners[(index + 1) % 4])
        wall = _Wall(room, start, end, _pick(rng, pictures["wall"], 0.3))
        wall.colour = paint if rng.random() < 0.75 else rng.uniform(0.2, 0.9, 3)
        wall.tiles = rng.uniform(0.4, 1.2)
        outside |= wall.build(rng, skirting)
        wall.hang_pictures(rng, pictures["any"])
    if outside:
        clutter.build_outside(room, rng, pictures)


@dataclass
class _Wall:
    """One wall, along which things are measured from its start."""

    room: Room
    start: Array
    end: Array
    texture: Picture | None
    colour: Array = field(default_factory=lambda: np.full(3, 0.6))
    tiles: float = 1.0
    opening: tuple[float, float] = (0.0, 0.0)
    """Where its window or door is."""

    @property
    def length(self) -> float:
        return float(np.linalg.norm(self.end - self.start))

    def at(self, along: float, height: float, inward: float = 0.0) -> Array:
        """A place on the wall, or ``inward`` metres in front of it."""
        direction = (self.end - self.start) / self.length
        x, z = self.start + direction * along + np.array([-direction[1], direction[0]]) * inward
        return np.array([x, -height, z])

    def panel(
        self,
        along: tuple[float, float],
        heights: tuple[float, float],
        inward: float = 0.0,
    ) -> Array:
        (a, b), (low, high) = along, heights
        return quad(
            self.at(a, low, inward),
            self.at(b, low, inward),
            self.at(b, high, inward),
            self.at(a, high, inward),
        )

    def _face(self, along: tuple[float, float], heights: tuple[float, float]) -> None:
        if along[1] > along[0] and heights[1] > heights[0]:
            soup = self.panel(along, heights)
            self.room.scene.add_soup(soup, self.colour, self.texture, tiles=self.tiles)

    def build(self, rng: np.random.Generator, skirting: Array) -> bool:
        """The wall with a window or door or neither. Whether one can see outside."""
        top = float(self.room.size[1])
        add = self.room.scene.add_soup
        kind = rng.choice(["plain", "window", "door"], p=[0.4, 0.4, 0.2])
        if kind == "plain" or self.length < 1.9:
            self._face((0, self.length), (0, top))
            add(self.panel((0, self.length), (0, 0.08), 0.015), skirting)
            return False
        width = rng.uniform(0.8, min(2.6, self.length - 0.6))
        left = rng.uniform(0.2, self.length - width - 0.2)
        right = left + width
        self.opening = (left - 0.1, right + 0.1)
        low, high = (0.0, 2.05) if kind == "door" else (rng.uniform(*SILL), rng.uniform(*LINTEL))
        self._face((0, left), (0, top))
        self._face((right, self.length), (0, top))
        self._face((left, right), (0, low))
        self._face((left, right), (high, top))
        frame = rng.uniform(0.15, 0.95) * rng.uniform(0.85, 1, 3)
        bars = [(left - 0.05, left + 0.05), (right - 0.05, right + 0.05)]
        if kind == "window":
            bars += [(left + width / 2 - 0.03, left + width / 2 + 0.03)]
        for bar in bars:
            add(self._beam(bar, (low, high)), frame)
        for level in (low, high):
            add(self._beam((left, right), (max(level - 0.04, 0), level + 0.04)), frame)
        if kind == "door":
            add(self.panel((left, right), (low, high), -0.05), rng.uniform(0.1, 0.8, 3))
            return False
        self.room.windows.append(self.at((left + right) / 2, (low + high) / 2))
        return True

    def _beam(self, along: tuple[float, float], heights: tuple[float, float]) -> Array:
        ends = self.at(along[0], heights[0], -0.06), self.at(along[1], heights[1], 0.04)
        return box(np.minimum(*ends), np.maximum(*ends))

    def hang_pictures(self, rng: np.random.Generator, pictures: list[Path]) -> None:
        """Up to three framed pictures, wherever they fall beside the opening."""
        for _ in range(int(rng.integers(0, 4))):
            width, height = rng.uniform(0.25, 1.2, 2)
            if width > self.length - 0.4 or height > self.room.size[1] - 1.4:
                continue
            left = rng.uniform(0.1, self.length - width - 0.1)
            if left < self.opening[1] and left + width > self.opening[0]:
                continue
            foot = rng.uniform(1.0, self.room.size[1] - height - 0.2)
            frame = (left - 0.03, left + width + 0.03), (foot - 0.03, foot + height + 0.03)
            self.room.scene.add_soup(self.panel(*frame, 0.015), rng.uniform(0.02, 0.5, 3))
            face = self.panel((left, left + width), (foot, foot + height), 0.025)
            picture = _pick(rng, pictures, 0.9)
            self.room.scene.add_soup(face, rng.uniform(0.6, 1, 3), picture, QUAD_UV)


def _furnish(room: Room, rng: np.random.Generator, theme: str) -> None:
    pieces = catalogue()
    large = [p for p in pieces if 0.3 < p.size[1] < 2.4 and 0.3 < p.size[[0, 2]].max() < 2.9]
    fitting = [p for p in large if p.category == theme]
    small = [p for p in pieces if p.size.max() < 0.6]
    wanted = min(MOST_PIECES, int(rng.integers(7, 12) + room.size[0] * room.size[2] / 5))
    placed = 0
    for _ in range(90):
        if placed >= wanted:
            break
        family = fitting if rng.random() < 0.75 else large
        piece = family[rng.integers(len(family))]
        spot = _spot(room, rng, piece)
        if spot is None:
            continue
        x, z, yaw = spot
        add_piece(room.scene, rng, piece, np.array([x, -piece.elevation, z]), yaw)
        placed += 1
        top = piece.elevation + (piece.top or piece.size[1])
        room.interests.append(np.array([x, -min(top, 1.5), z]))
        if piece.top and 0.25 < top < 1.4:
            clutter.lay_things(room, rng, np.array([x, -top, z]), piece.size, yaw, small)


def _spot(room: Room, rng: np.random.Generator, piece: Piece) -> tuple[float, float, float] | None:
    """A free place along a wall, its back to it, or, for low things, in the middle."""
    width, _, depth = room.size
    side = int(rng.integers(5)) if piece.elevation < 0.1 else int(rng.integers(4))
    yaw = [0.0, math.pi, math.pi / 2, -math.pi / 2, rng.uniform(-3, 3)][side]
    along, across = piece.size[0] / 2, piece.size[2] / 2
    half_x, half_z = (across, along) if side in (2, 3) else (along, across)
    if side == 4:
        half_x = half_z = float(np.hypot(along, across)) * 0.8
    if 2 * half_x > width - 0.2 or 2 * half_z > depth - 0.2:
        return None
    x, z = rng.uniform(half_x, width - half_x), rng.uniform(half_z, depth - half_z)
    gap = 0.03
    x = {2: width - half_x - gap, 3: half_x + gap}.get(side, x)
    z = {0: depth - half_z - gap, 1: half_z + gap}.get(side, z)
    if piece.elevation + piece.size[1] > room.size[1] - 0.05:
        return None
    if piece.elevation < 0.1:
        if not room.is_free(x, z, half_x, half_z):
            return None
        room.taken.append((x, z, half_x, half_z))
    return x, z, yaw


def add_piece(
    scene: Scene, rng: np.random.Generator, piece: Piece, place: Array, yaw: float
) -> None:
    """Put a piece of furniture somewhere, in colours a little of its own."""
    tint = rng.uniform(0.6, 1.1, 3) if rng.random() < 0.5 else np.ones(3)
    for part in read_piece(piece):
        soup = part.soup @ yaw_matrix(yaw).T + place
        if part.texture is not None:
            scene.add_soup(soup, np.ones(3), part.texture, part.uv)
        else:
            scene.add_soup(soup, np.clip((0.85 * part.colour + 0.04) ** 2.2 * tint, 0.01, 0.9))
