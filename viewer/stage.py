"""What there is to see, for everyone: the world's chunks, its home view, and its ground."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import Camera, SceneError, Splats, make_renderer
from scenegen.world.maps import Map
from scenegen.world.sketches import Scenery
from spatial_memory import ViewMemory
from spatial_memory.walking import Body, Terrain
from viewer.scene import FAR, drawable

logger = logging.getLogger("scenegen")


@runtime_checkable
class AnyStep(Protocol):
    """One entry of a world's journal."""

    @property
    def id(self) -> int:
        """Number; 0 is the photograph."""
        ...

    @property
    def camera(self) -> Camera:
        """The view of the step."""
        ...

    @property
    def provenance(self) -> str:
        """Where it comes from: "observed" or another."""
        ...


@runtime_checkable
class AnyWorld(Protocol):
    """What the viewer needs of a :class:`scenegen.World` to show it."""

    @property
    def folder(self) -> Path:
        """Where it lives; its name is shown."""
        ...

    @property
    def camera0(self) -> Camera:
        """The photograph's own camera."""
        ...

    @property
    def steps(self) -> Sequence[AnyStep]:
        """The journal, first step first."""
        ...

    @property
    def chunks(self) -> Sequence[Splats]:
        """The splats that each step added."""
        ...

    @property
    def memory(self) -> ViewMemory:
        """Its surfels are the ground and the walls."""
        ...

    @property
    def sky_radius(self) -> float:
        """Radius of the sky's sphere, in metres."""
        ...

    @property
    def eye_height(self) -> float:
        """Height of the photograph's camera above the ground, in metres."""
        ...


@dataclass(frozen=True, eq=False)
class Chunk:
    """What one step added. Immutable: where a step changes, another chunk takes its place."""

    name: str
    """Unique among the chunks shown."""
    splats: Splats
    """Those that can be drawn."""
    eye: Float[Tensor, " 3"]
    """Where they are expected to be seen from, in metres."""
    source: Splats
    """As they were given."""
    camera: Camera
    """The view that it was made for."""
    provenance: str
    """Where it comes from: "observed" or another."""


class Stage:
    """The world that everyone sees. Safe to use from any thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changing = threading.Lock()
        """Held while the world changes, and while its memory is read."""
        self.name = ""
        self.home = Camera.from_fov(60.0, 4, 3)
        """The photograph's own camera."""
        self.body = Body()
        """Who walks here: with eyes as high above the ground as the photograph's camera."""
        self.world: AnyWorld | None = None
        self._chunks: tuple[Chunk, ...] = ()
        self._scenery: tuple[tuple[Chunk, ...], Scenery] | None = None
        self._terrain = _nowhere()
        self.map: Map | None = None
        """As it was when the world was last looked at."""
        self.renderer = make_renderer("auto")
        # Compiles, once on a machine: not while somebody walks.
        self._terrain.walk((0.0, 0.0, 0.0), (0.0, 0.0, 1.0), self.body)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """All chunks, first step first."""
        return self._chunks

    @property
    def terrain(self) -> Terrain:
        """Ground and walls as they were when the world was last looked at."""
        return self._terrain

    @property
    def scenery(self) -> Scenery:
        """The same joined, for drawing."""
        with self.lock:
            if self._scenery is None or self._scenery[0] is not self._chunks:
                chunks = self._chunks
                radius = math.inf if self.world is None else self.world.sky_radius
                parts = [chunk.splats for chunk in chunks], [c.provenance for c in chunks]
                self._scenery = chunks, Scenery.of(*parts, radius)
            return self._scenery[1]

    @property
    def total(self) -> int:
        """Drawable splats of the world."""
        return sum(len(chunk.splats) for chunk in self._chunks)

    def set_home(self, name: str, camera: Camera) -> None:
        """Begin anew: another world, with nothing in it yet."""
        with self.lock:
            self.name, self.home, self.world = name, camera, None
            self._chunks, self._terrain, self.map = (), _nowhere(), None

    def add(
        self,
        name: str,
        splats: Splats,
        camera: Camera | None = None,
        provenance: str = "observed",
    ) -> Chunk:
        """Add a chunk.

        Args:
            name: New name of the chunk.
            splats: What it adds; may be empty. Those that are not finite are left out.
            camera: The view it was made for; the photograph's when left out.
            provenance: "observed" or another.

        Raises:
            SceneError: The name is taken, or nothing of it can be drawn.
        """
        with self.lock:
            if any(chunk.name == name for chunk in self._chunks):
                raise SceneError(
                    f"there is a chunk named {name!r} already",
                    why="every chunk is sent once and never edited",
                    fix="give each chunk its own name",
                )
            chunk = _chunk(name, splats, camera or self.home, provenance)
            self._chunks = (*self._chunks, chunk)
            return chunk

    def take(self, world: AnyWorld) -> None:
        """Show a world as it is now; chunks that did not change stay the same objects.

        Not while another thread changes the world.
        """
        with self.lock:
            known = {chunk.name: chunk for chunk in self._chunks}
            chunks = []
            for step, splats in zip(world.steps, world.chunks, strict=True):
                name = f"step {step.id}"
                old = known.get(name)
                same = old is not None and _same(old.source, splats)
                chunks.append(old if same else _chunk(name, splats, step.camera, step.provenance))
            self.name, self.home, self.world = world.folder.name, world.camera0, world
            self._chunks = tuple(chunks)
            self.survey(world)

    def survey(self, world: AnyWorld) -> None:
        """Look at the ground again and draw the map. Not while another thread changes the world."""
        with self.lock:
            self.world, self._terrain = world, Terrain.of(world.memory)
            self.map = Map.of(world.memory)
            body = Body(eye_height=min(max(world.eye_height, 0.5), 3.0))
            x, y, z = world.camera0.center.tolist()
            self.body = self._terrain.settled((x, y, z), body)


def _same(old: Splats, new: Splats) -> bool:
    """Whether a step has lost or regained nothing: splats never move, but may be erased."""
    return old is new or torch.equal(old.means, new.means)


def _nowhere() -> Terrain:
    return Terrain.of(ViewMemory())


def _chunk(name: str, splats: Splats, camera: Camera, provenance: str) -> Chunk:
    plain = splats.detach().to(torch.device("cpu"))
    good = drawable(plain)
    count = int(good.sum())
    if count < len(plain):
        _report_bad(name, len(plain) - count, len(plain))
        plain = plain[good]
    return Chunk(name, plain, camera.center, splats, camera, provenance)


def _report_bad(name: str, bad: int, count: int) -> None:
    if bad == count:
        raise SceneError(
            f"nothing of {name} can be drawn",
            why=f"all of its {count:,} splats are not finite or farther away than {FAR:g} m",
            fix="create the world again; if it happens twice, report it with the photograph",
        )
    logger.warning(
        "%s: %s of %s splats are not finite or farther than %g m: not shown",
        name, f"{bad:,}", f"{count:,}", FAR,
    )  # fmt: skip
