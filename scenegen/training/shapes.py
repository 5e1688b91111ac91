"""What training scenes are made of: triangles with a look, gathered by material.

World axes are those of the project: x right, y down (so "up" is negative y), z forward, metres.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Int32

Array = np.ndarray

Look = Literal["solid", "cutout", "unlit"]
"""cutout: transparent where alpha is below one half; unlit: shines by itself."""


@dataclass(frozen=True)
class Picture:
    """A texture: an image file, or a member of a zip archive."""

    path: Path
    """The file, or the archive."""
    member: str = ""
    """Name inside the archive; empty for a plain file."""


@dataclass(frozen=True)
class Material:
    """How a surface looks, apart from the colours of its corners."""

    texture: Picture | None = None
    mask: Picture | None = None
    """Image whose red channel is the alpha; the texture's own alpha where it is None."""
    look: Look = "solid"


@dataclass(frozen=True, eq=False)
class Batch:
    """Triangles that share a material."""

    material: Material
    corners: Float32[Array, "n 11"]
    """Position (metres), unit normal, colour (linear, 0 to 1), texture coordinates."""
    triangles: Int32[Array, "m 3"]


@dataclass
class Scene:
    """Triangles by material; grows while a world is built."""

    parts: dict[Material, list[tuple[Array, Array]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, material: Material, corners: Array, triangles: Array) -> None:
        """Add indexed triangles; columns as in :class:`Batch`."""
        self.parts[material].append((corners, triangles))

    def add_soup(
        self,
        soup: Float[Array, "m 3 3"],
        colour: Float[Array, " 3"],
        texture: Picture | None = None,
        uv: Float[Array, "m 3 2"] | None = None,
        tiles: float = 1.0,
    ) -> None:
        """Add flat-shaded triangles of one colour.

        Args:
            soup: Corners, in metres.
            colour: Linear, 0 to 1; multiplies the texture.
            texture: Picture on them.
            uv: Texture coordinates; without them the picture is laid along the nearest axes.
            tiles: Repetitions of the picture per metre, where ``uv`` is left out.
        """
        normals = np.cross(soup[:, 1] - soup[:, 0], soup[:, 2] - soup[:, 0])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        if uv is None:
            along = np.array([[2, 1], [0, 2], [0, 1]])[np.abs(normals).argmax(1)]  # (m, 2) axes
            uv = np.take_along_axis(soup, np.repeat(along[:, None], 3, axis=1), axis=2) * tiles
        assert uv is not None
        parts = [soup, np.repeat(normals[:, None], 3, axis=1), np.broadcast_to(colour, soup.shape)]
        corners = np.concatenate([*parts, uv], axis=2).reshape(-1, 11).astype(np.float32)
        order = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
        self.add(Material(texture), corners, order)

    def batches(self) -> list[Batch]:
        """One batch per material."""
        found = []
        for material, parts in self.parts.items():
            starts = np.cumsum([0] + [len(corners) for corners, _ in parts[:-1]])
            triangles = [t + s for (_, t), s in zip(parts, starts, strict=True)]
            corners = np.concatenate([corners for corners, _ in parts]).astype(np.float32)
            found.append(Batch(material, corners, np.concatenate(triangles).astype(np.int32)))
        return found


_FACES = np.array(
    [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
)
_UNIT = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)], dtype=np.float64)


def box(low: Float[Array, " 3"], high: Float[Array, " 3"]) -> Float[Array, "12 3 3"]:
    """A box between two corners, in metres."""
    points = low + _UNIT * (np.asarray(high) - low)
    return np.concatenate([points[_FACES[:, [0, 1, 2]]], points[_FACES[:, [0, 2, 3]]]])


def standing_box(size: Float[Array, " 3"]) -> Float[Array, "12 3 3"]:
    """A box of (x, y, z) size in metres that stands on y = 0 around the origin."""
    half = np.array([size[0] / 2, 0, size[2] / 2])
    return box(-half - [0, size[1], 0], half)


def standing_tube(
    radius: float, top: float, height: float, sides: int = 20
) -> Float[Array, "m 3 3"]:
    """A closed cone section that stands on y = 0: lower and upper radius and height, in metres."""
    angles = np.linspace(0, 2 * math.pi, sides + 1)
    ring = np.stack([np.cos(angles), np.zeros_like(angles), np.sin(angles)], axis=1)
    low, high = ring * radius, ring * top - [0, height, 0]
    a, b, c, d = low[:-1], low[1:], high[1:], high[:-1]
    apex = np.broadcast_to([0, -height, 0], a.shape)
    return np.concatenate(
        [np.stack(corners, axis=1) for corners in ((a, b, c), (a, c, d), (apex, d, c))]
    )


def standing_ball(radius: float, rings: int = 12) -> Float[Array, "m 3 3"]:
    """A ball that lies on y = 0, radius in metres."""
    polar, around = np.meshgrid(
        np.linspace(0, math.pi, rings), np.linspace(0, 2 * math.pi, 2 * rings), indexing="ij"
    )
    points = np.stack(
        [np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], axis=2
    )
    points = points * radius - [0, radius, 0]
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    halves = [np.stack(corners, axis=2).reshape(-1, 3, 3) for corners in ((a, b, c), (a, c, d))]
    return np.concatenate(halves)


def quad(*corners: Sequence[float] | Array) -> Float[Array, "2 3 3"]:
    """A plane quadrilateral from its four corners in turn."""
    a, b, c, d = (np.asarray(corner, dtype=np.float64) for corner in corners)
    return np.array([[a, b, c], [a, c, d]])


QUAD_UV = np.array([[[0, 1], [1, 1], [1, 0]], [[0, 1], [1, 0], [0, 0]]], dtype=np.float64)
"""Texture coordinates that lay a whole picture on a :func:`quad`, its foot first."""


def turned(soup: Float[Array, "m 3 3"], yaw: float) -> Float[Array, "m 3 3"]:
    """Triangles turned about the vertical axis by ``yaw`` radians."""
    return soup @ yaw_matrix(yaw).T


def yaw_matrix(yaw: float) -> Float[Array, "3 3"]:
    """Rotation about the vertical axis by ``yaw`` radians."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
