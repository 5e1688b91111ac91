"""Furniture and things with real sizes (Debian package ``sweethome3d-furniture``).

Each library is a zip archive of OBJ models with a catalogue that gives their sizes. In the axes
of this project a piece stands on y = 0 around the origin and faces negative z.
"""

from __future__ import annotations

import itertools
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from renderers import SceneError
from scenegen.training.shapes import Array, Picture

DATA = Path("/usr/share/sweethome3d/furniture")
LIBRARIES = ("BlendSwap-CC-0", "BlendSwap-CC-BY", "KatorLegaz", "Scopia")
"""Archives that are used: CC0 and CC BY 3.0."""
INDOORS = ("Living room", "Kitchen", "Bedroom", "Bathroom", "Office", "Lights", "Miscellaneous")
"""Categories that may stand in a room."""
LARGEST_FILE = 1_500_000
"""Models whose text is longer take too long to read, in bytes."""
OPAQUE = 0.4
"""Parts more transparent than this are left out: their depth would be that of what is behind."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One entry of a catalogue."""

    name: str
    category: str
    library: Path
    model: str
    """Name of the OBJ file inside the archive."""
    size: Array
    """Width, height and depth, in metres."""
    elevation: float
    """Height of its foot above the floor, in metres: more than 0 for what hangs on a wall."""
    top: float
    """Height above its foot on which things may stand, in metres; 0 where nothing may."""
    rotation: Array
    """How the file's axes are turned, (3, 3)."""


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles of one material of a piece, at its real size."""

    soup: Float32[Array, "m 3 3"]
    uv: Float32[Array, "m 3 2"]
    colour: Array
    """sRGB, 0 to 1."""
    texture: Picture | None


def missing_furniture() -> str | None:
    """Why there is no furniture here, or None."""
    if all((DATA / f"{name}.sh3f").is_file() for name in LIBRARIES):
        return None
    return "sweethome3d-furniture is not installed"


@lru_cache(maxsize=1)
def catalogue() -> list[Piece]:
    """All pieces that may stand in a room, in a fixed order.

    Raises:
        SceneError: An archive cannot be read.
    """
    found = []
    for name in LIBRARIES:
        path = DATA / f"{name}.sh3f"
        with _archive(path) as archive:
            text = archive.read("PluginFurnitureCatalog.properties").decode("latin-1")
            sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        entries: dict[str, dict[str, str]] = defaultdict(dict)
        for key, number, value in re.findall(r"^(\w+)#(\d+)\s*[=:]\s*(.*?)\s*$", text, re.M):
            entries[number][key] = value
        for entry in entries.values():
            piece = _piece(path, entry)
            if piece and 0 < sizes.get(piece.model, 0) < LARGEST_FILE:
                found.append(piece)
    return found


@lru_cache(maxsize=500)
def read_piece(piece: Piece) -> tuple[Part, ...]:
    """The triangles of a piece.

    Raises:
        SceneError: The archive or the model in it is damaged.
    """
    with _archive(piece.library) as archive:
        try:
            lines = archive.read(piece.model).decode("latin-1").splitlines()
            folder = piece.model.rpartition("/")[0]
            parts = _parse(lines, lambda name: _materials(archive, f"{folder}/{name}"))
        except (KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
            raise SceneError(
                f"cannot read the model {piece.model} in {piece.library}",
                why=str(error),
                fix="install the package sweethome3d-furniture again",
            ) from error
        names = set(archive.namelist())
    points = np.concatenate([soup.reshape(-1, 3) for soup, _, _ in parts]) @ piece.rotation.T
    low, high = points.min(0), points.max(0)
    scale = piece.size / np.maximum(high - low, 1e-4)
    foot = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    made = []
    for soup, uv, material in parts:
        placed = (soup @ piece.rotation.T - foot) * scale * [1, -1, -1]  # y down, z forward
        member = f"{folder}/{material['map']}" if "map" in material else None
        texture = Picture(piece.library, member) if member in names and member else None
        colour = np.array([float(c) for c in material.get("Kd", "0.7 0.7 0.7").split()[:3]])
        if float(material.get("d", "1").split()[-1]) >= OPAQUE:
            made.append(Part(placed.astype(np.float32), uv.astype(np.float32), colour, texture))
    return tuple(made)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise SceneError(
            f"cannot read the furniture in {path}",
            why=str(error),
            fix="apt-get install sweethome3d-furniture",
        ) from error


def _piece(library: Path, entry: dict[str, str]) -> Piece | None:
    """The catalogue's entry, unless it is a door, no OBJ, lacks a size, or stands outdoors."""
    try:
        size = np.array([float(entry[key]) for key in ("width", "height", "depth")]) / 100
    except (KeyError, ValueError):
        return None
    model = entry.get("model", "").lstrip("/")
    if entry.get("doorOrWindow") == "true" or not model.endswith(".obj"):
        return None
    if entry.get("category") not in INDOORS or size.min() <= 0:
        return None
    turn = entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()
    return Piece(
        name=entry.get("name", ""),
        category=entry["category"],
        library=library,
        model=model,
        size=size,
        elevation=float(entry.get("elevation", 0)) / 100,
        top=float(entry.get("dropOnTopElevation", 0)) / 100,
        rotation=np.array([float(number) for number in turn]).reshape(3, 3),
    )


def _materials(archive: zipfile.ZipFile, member: str) -> dict[str, dict[str, str]]:
    """Materials of an MTL file by name; none where the file is missing."""
    found: dict[str, dict[str, str]] = {}
    name = ""
    if member not in archive.namelist():
        return found
    for line in archive.read(member).decode("latin-1").splitlines():
        key, _, value = line.strip().partition(" ")
        if key == "newmtl":
            name = value.strip()
            found[name] = {}
        elif name and key in ("Kd", "d"):
            found[name][key] = value.strip()
        elif name and key == "map_Kd":
            found[name]["map"] = value.split()[-1]
    return found


def _parse(lines: list[str], read_materials) -> list[tuple[Array, Array, dict[str, str]]]:
    """Triangles, texture coordinates and material of each part of an OBJ file."""
    points: list[list[str]] = []
    places: list[list[str]] = [["0", "0"]]  # index 0 stands for "none"
    faces: dict[str, list[tuple[int, int]]] = defaultdict(list)
    materials: dict[str, dict[str, str]] = {}
    current = ""
    for line in lines:
        if line.startswith("v "):
            points.append(line.split()[1:4])
        elif line.startswith("vt "):
            places.append(line.split()[1:3])
        elif line.startswith("f "):
            words = [word.split("/") for word in line.split()[1:]]  # point/place/normal, from 1
            corners = [(int(w[0]), int(w[1]) if len(w) > 1 and w[1] else 0) for w in words]
            for a, b in itertools.pairwise(corners[1:]):
                faces[current] += (corners[0], a, b)
        elif line.startswith("usemtl"):
            current = line[6:].strip()
        elif line.startswith("mtllib"):
            materials |= read_materials(line[6:].strip())
    vertices, uv = np.array(points, dtype=np.float64), np.array(places, dtype=np.float64)
    found = []
    for name, corners in faces.items():
        index = np.array(corners).reshape(-1, 3, 2)
        if index.min() < 0 or index[..., 0].min() < 1:
            raise ValueError("it counts its points from the end")
        found.append((vertices[index[..., 0] - 1], uv[index[..., 1]], materials.get(name, {})))
    if not found:
        raise ValueError("it has no faces")
    return found
