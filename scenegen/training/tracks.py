"""Outdoor worlds: the race tracks of SuperTuxKart (Debian package ``supertuxkart-data``).

Its axes are x right, y up, z forward (left-handed), its unit about a metre: turning y round gives
the axes of this project.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float

from renderers import SceneError
from scenegen.training.licences import Licences
from scenegen.training.shapes import Array, Look, Material, Picture, Scene
from scenegen.training.spm import SpmPart, read_spm

DATA = Path("/usr/share/games/supertuxkart/data")
COPYRIGHT = Path("/usr/share/doc/supertuxkart-data/copyright")
HELD_OUT = (
    "arena_candela_city",
    "candela_city",
    "cornfield_crossing",
    "scotland",
    "zengarden",
)
"""Tracks that training never sees."""
NOT_WORLDS = ("endcutscene", "featunlocked", "gplose", "gpwin", "introcutscene", "introcutscene2")
"""Scenes of the game's films, and odd rooms."""
INVISIBLE = ("additive", "displace", "ghost", "unlit_additive")
"""Shaders of glows and water ripples, which have no surface."""
CUT_OUT = ("alphatest", "alphablend", "grass")
"""Shaders of surfaces with holes: leaves, fences, grass."""
NO_OBJECTS = ("particle-emitter", "light", "sfx-emitter", "billboard", "action-trigger")
GRAY = 0.55
"""Albedo (sRGB) of surfaces without a texture."""
FAMILIES = (
    ("grass", "lawn", "moss", "leaf", "plant"),
    ("road", "asphalt", "track", "street", "concrete", "pav", "tile", "floor"),
    ("roof",),
    ("brick", "wall", "house", "building", "castle", "facade"),
    ("wood", "plank", "bark", "board", "door", "tree"),
    ("sand", "dirt", "ground", "earth", "mud", "snow"),
    ("rock", "stone", "cliff", "mountain"),
)
"""Words in the names of textures: one that may not be used is replaced by one of its family."""


@dataclass(frozen=True, eq=False)
class Track:
    """A track in the axes of this project."""

    name: str
    scene: Scene
    path: Float[Array, "n 3"]
    """Middle of the road, in driving order, in metres."""


def missing_tracks() -> str | None:
    """Why there are no tracks here, or None."""
    return None if (DATA / "tracks").is_dir() else "supertuxkart-data is not installed"


def track_names(held_out: bool) -> list[str]:
    """Tracks to train on, or the others."""
    names = [path.parent.name for path in sorted((DATA / "tracks").glob("*/scene.xml"))]
    return [n for n in names if n not in NOT_WORLDS and (n in HELD_OUT) == held_out]


@lru_cache(maxsize=64)
def free_textures(licences: Licences, words: tuple[str, ...]) -> list[Path]:
    """Textures of the game that may be trained on and whose names hold one of the words."""
    found = []
    for path in sorted(DATA.glob("t[er]*/**/*.[jp][pn]g")):  # textures and tracks
        name = path.name.lower()
        plain = not any(word in name for word in ("_nm", "normal", "gloss", "alpha", "mask", "sky"))
        if plain and any(word in name for word in words) and path.stat().st_size > 20_000:
            if licences.may_train(f"data/{path.relative_to(DATA).as_posix()}"):
                found.append(path)
    return found


def read_track(name: str, licences: Licences) -> Track:
    """Read a track; what may not be trained on is left out.

    Raises:
        SceneError: It cannot be read, or hardly anything of it may be used.
    """
    reader = _Reader(name, licences)
    try:
        root = ElementTree.parse(reader.folder / "scene.xml").getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise _unusable(name, str(error)) from error
    reader.read(root, reader.folder, np.eye(4))
    path = _drive_line(reader.folder)
    triangles = sum(len(t) for parts in reader.scene.parts.values() for _, t in parts)
    if triangles < 500 or len(path) < 8:
        raise _unusable(name, f"only {triangles} triangles and {len(path)} places may be used")
    return Track(name, reader.scene, path)


class _Reader:
    """Walks the scene file of one track and the library objects that it names."""

    def __init__(self, name: str, licences: Licences) -> None:
        self.folder = DATA / "tracks" / name
        self.licences = licences
        self.scene = Scene()
        self.meshes: dict[Path, list[SpmPart]] = {}
        self.materials: dict[str, dict[str, str]] = {}
        self._learn(DATA / "textures")
        self._learn(self.folder)

    def read(self, root: ElementTree.Element, folder: Path, outer: Array) -> None:
        nearest = {}  # the finest model of each group of levels of detail
        for group in root.iter("group"):
            models = sorted(group, key=lambda entry: float(entry.get("lod_distance", 1e9)))
            if models:
                nearest[group.get("name")] = models[0]
        self._walk(root, folder, outer, nearest)

    def _walk(
        self,
        node: ElementTree.Element,
        folder: Path,
        outer: Array,
        nearest: dict[str | None, ElementTree.Element],
    ) -> None:
        for entry in node:
            if entry.tag in ("lod", "checks", "music", "weather"):
                continue
            if entry.tag == "library":
                self._read_library(entry, outer)
            elif entry.tag in ("static-object", "object"):
                self._place(entry, folder, outer, nearest)
            else:
                if entry.tag == "track" and entry.get("model"):
                    self._add(entry.get("model", ""), folder, _transform(entry) @ outer)
                self._walk(entry, folder, outer, nearest)

    def _read_library(self, entry: ElementTree.Element, outer: Array) -> None:
        folder = DATA / "library" / entry.get("name", "")
        try:
            root = ElementTree.parse(folder / "node.xml").getroot()
        except (OSError, ElementTree.ParseError):
            return  # the game skips such objects as well
        self._learn(folder)
        self.read(root, folder, _transform(entry) @ outer)

    def _place(
        self,
        entry: ElementTree.Element,
        folder: Path,
        outer: Array,
        nearest: dict[str | None, ElementTree.Element],
    ) -> None:
        if entry.get("interaction") == "physics-only" or entry.get("type") in NO_OBJECTS:
            return
        model = entry.get("model")
        if entry.get("lod_instance") == "true":
            group = nearest.get(entry.get("lod_group"))
            model = None if group is None else group.get("model")
        if model and entry.get("if") is None:
            self._add(model, folder, _transform(entry) @ outer)

    def _add(self, model: str, folder: Path, placed: Array) -> None:
        path = self._find(model, folder)
        if path is None or path.suffix != ".spm":
            return
        if path not in self.meshes:
            self.meshes[path] = read_spm(path)
        flip = np.diag([1.0, -1.0, 1.0])
        for part in self.meshes[path]:
            settings = self.materials.get(part.texture.lower(), {})
            shader = settings.get("shader", "solid")
            if shader in INVISIBLE or not len(part.triangles):
                continue
            positions = (part.positions @ placed[:3, :3] + placed[3, :3]) @ flip
            normals = part.normals @ np.linalg.pinv(placed[:3, :3]).T @ flip
            normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-9
            if shader in CUT_OUT and self._find(part.texture, folder) is None:
                continue  # without its own alpha a leaf would be a board
            material, albedo = self._material(part.texture, settings, shader, folder)
            colours = part.colours**2.2 * albedo
            corners = np.concatenate([positions, normals, colours, part.uv], axis=1)
            self.scene.add(material, corners.astype(np.float32), part.triangles)

    def _material(
        self, texture: str, settings: dict[str, str], shader: str, folder: Path
    ) -> tuple[Material, float]:
        picture = self._find(texture, folder) if texture else None
        if picture is None:
            return Material(self._instead_of(texture)), 1.0 if texture else GRAY**2.2
        mask = self._find(settings["mask"], folder) if settings.get("mask") else None
        look: Look = "cutout" if shader in CUT_OUT else "unlit" if shader == "unlit" else "solid"
        return Material(Picture(picture), Picture(mask) if mask else None, look), 1.0

    def _find(self, name: str, folder: Path) -> Path | None:
        """A file that the game would find, if it may be trained on."""
        for place in (folder, self.folder, DATA / "textures", DATA / "models"):
            path = place / name
            if path.is_file():
                listed = f"data/{path.relative_to(DATA).as_posix()}"
                return path if self.licences.may_train(listed) else None
        return None

    def _instead_of(self, texture: str) -> Picture | None:
        """A picture that may be used, chosen by the name of one that may not."""
        if not texture:
            return None
        name = texture.lower()
        words = next((f for f in FAMILIES if any(word in name for word in f)), FAMILIES[3])
        choices = free_textures(self.licences, words)
        return Picture(choices[zlib.crc32(name.encode()) % len(choices)]) if choices else None

    def _learn(self, folder: Path) -> None:
        try:
            root = ElementTree.parse(folder / "materials.xml").getroot()
        except (OSError, ElementTree.ParseError):
            return  # not every folder has materials of its own
        for entry in root.iter("material"):
            self.materials[entry.get("name", "").lower()] = dict(entry.attrib)


def _drive_line(folder: Path) -> Float[Array, "n 3"]:
    """Middles of the quads of the road, or corners of the navigation mesh of an arena."""
    flip = np.array([1.0, -1.0, 1.0])
    try:
        if (folder / "quads.xml").is_file():
            return _quads(ElementTree.parse(folder / "quads.xml").getroot()) * flip
        root = ElementTree.parse(folder / "navmesh.xml").getroot()
        corners = [[float(v.get(axis, 0)) for axis in "xyz"] for v in root.iter("vertex")]
        return np.array(corners).reshape(-1, 3) * flip
    except (OSError, ElementTree.ParseError, ValueError, IndexError):
        return np.empty((0, 3))  # the caller says that there is no road


def _quads(root: ElementTree.Element) -> Float[Array, "n 3"]:
    quads: list[list[Array]] = []
    for entry in root.iter("quad"):
        corners = []
        for key in ("p0", "p1", "p2", "p3"):
            text = entry.get(key, "")
            if ":" in text:  # a corner of an earlier quad
                quad, corner = text.split(":")
                corners.append(quads[int(quad)][int(corner)])
            elif text:
                corners.append(_vector(text))
        if len(corners) == 4:
            quads.append(corners)
    return np.array([np.mean(corners, axis=0) for corners in quads]).reshape(-1, 3)


def _transform(entry: ElementTree.Element) -> Array:
    """The (4, 4) matrix of a node, for row vectors, in the game's axes."""
    xyz = entry.get("xyz") or " ".join(entry.get(axis, "0") for axis in "xyz")
    scale = _vector(entry.get("scale") or "1 1 1")
    scale = scale if scale.size == 3 else np.full(3, scale[0])
    x, y, z = np.radians(_vector(entry.get("hpr") or "0 0 0"))
    (cx, sx), (cy, sy), (cz, sz) = ((math.cos(a), math.sin(a)) for a in (x, y, z))
    rotation = np.array(
        [
            [cy * cz, cy * sz, -sy],
            [sx * sy * cz - cx * sz, sx * sy * sz + cx * cz, sx * cy],
            [cx * sy * cz + sx * sz, cx * sy * sz - sx * cz, cx * cy],
        ]
    )
    placed = np.eye(4)
    placed[:3, :3] = np.diag(scale) @ rotation
    placed[3, :3] = _vector(xyz)
    return placed


def _vector(text: str) -> Array:
    return np.array([float(number) for number in text.split()])


def _unusable(name: str, why: str) -> SceneError:
    return SceneError(
        f"the track {name} cannot be trained on", why=why, fix="leave it out of the list of tracks"
    )
