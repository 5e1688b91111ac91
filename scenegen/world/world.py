"""A world: splats, memory and journal of one folder, and what one can do with them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from renderers import Camera, Render, Renderer, SceneError, Splats, choose, join, make_renderer
from renderers.base import RENDERERS
from scenegen.geometry import DEPTH_BACKENDS
from scenegen.outpaint import OUTPAINTERS
from scenegen.world.events import Committed, Event, Finished, Planned, Retrieved, Skipped
from scenegen.world.grow import MIN_HOLE, invent, look, remembered, sky_depth
from scenegen.world.paths import path_cameras
from scenegen.world.store import Step, StepData, Store, camera_from_json, camera_to_json
from spatial_memory import MemoryConfig, ViewMemory


class World:
    """An open world. Made by :func:`scenegen.create` or :func:`scenegen.open`."""

    def __init__(self, store: Store, renderer: str = "auto") -> None:
        self._store = store
        self._meta = store.meta()
        self._renderer: Renderer = make_renderer(renderer)
        self._chunks: list[Splats] = []
        self._joined: Splats | None = None
        self._steps: list[Step] = []
        self.memory = ViewMemory(MemoryConfig())
        """Geometry and past views: a function of the steps, rebuilt when the world is opened."""
        for step in store.steps():
            self._take(step, store.load(step.id))

    @property
    def folder(self) -> Path:
        """Where the world lives on disk."""
        return self._store.folder

    @property
    def steps(self) -> tuple[Step, ...]:
        """The journal, first step first."""
        return tuple(self._steps)

    @property
    def chunks(self) -> tuple[Splats, ...]:
        """The splats that each step added, in the order of ``steps``."""
        return tuple(self._chunks)

    @property
    def splats(self) -> Splats:
        """All splats of the world."""
        if self._joined is None:
            self._joined = join(self._chunks)
        return self._joined

    @property
    def camera0(self) -> Camera:
        """The photograph's own camera: the origin, level, looking along +z."""
        return self._steps[0].camera

    @property
    def walker(self) -> Camera:
        """Where the last walk ended, and the next one starts; at first the photograph's camera."""
        place = self._meta.get("walker")
        return self.camera0 if place is None else camera_from_json(place)

    @property
    def sky_radius(self) -> float:
        """Radius of the sky's sphere around the origin, in metres."""
        return float(self._meta["sky_radius"])

    @property
    def settings(self) -> dict[str, Any]:
        """How the world was made: backends, seed, field of view and its source."""
        return dict(self._meta)

    def render(self, camera: Camera, background: Sequence[float] = (0.0, 0.0, 0.0)) -> Render:
        """The world as ``camera`` sees it. Depth is +inf in the sky and NaN where nothing is."""
        render = self._renderer.render(self.splats, camera, background)
        return replace(render, depth=sky_depth(render.depth, self.sky_radius))

    def grow(self, path: str | Path | Sequence[Camera], distance: float = 1.0) -> Iterator[Event]:
        """Walk a path and fill what it uncovers, one committed step per view.

        Args:
            path: Cameras; or "forward", "left", "right", "up", "around" from where the last walk
                ended (see :attr:`walker`); or a transforms.json.
            distance: Length of a named walk, in metres.

        Yields:
            Planned, then Retrieved and Committed (or Skipped) per view, then Finished. Stop
            iterating at any time: what was committed stays.

        Raises:
            SceneError: The path is unknown, a backend is missing, or the disk is full.
        """
        if isinstance(path, (str, Path)):
            path = path_cameras(self.walker, path, distance, film=False)
        for event in self.visit(path):
            if isinstance(event, (Committed, Skipped)):
                self._stand_at(event.camera)
            yield event

    def export(self, path: str | Path, format: str | None = None) -> Path:
        """Write the world to a file: .ply (splats) or .glb (mesh).

        Args:
            path: The file.
            format: Format by name; by the suffix when left out.

        Raises:
            SceneError: The format is unknown or the file cannot be written.
        """
        from scenegen.export import DepthView, export_file, mesh_from_depth

        views = [self.memory.views[view_id] for view_id in range(len(self._steps))]
        seen = [DepthView(view.rgb, view.depth, view.camera, view.known) for view in views]
        export_file(path, splats=self.splats, mesh=lambda: mesh_from_depth(seen), format=format)
        return Path(path)

    def close(self) -> None:
        """Close the journal. The world can be opened again."""
        self._store.close()

    def commit(self, camera: Camera, data: StepData, provenance: str, info: dict[str, Any]) -> Step:
        """Add a step to the journal, the splats and the memory. For the loop's own use."""
        parent = self._steps[-1].id if self._steps else None
        number = 0 if parent is None else parent + 1
        step = Step(number, parent, provenance, camera, info)
        self._store.commit(step, data)
        self._take(step, data)
        return step

    def _take(self, step: Step, data: StepData) -> None:
        self.memory.write(
            data.rgb, data.depth, step.camera, provenance=step.provenance, known=data.known
        )
        self._steps.append(step)
        self._chunks.append(data.splats)
        self._joined = None

    def _stand_at(self, camera: Camera) -> None:
        self._store.set_meta({"walker": camera_to_json(camera)})
        self._meta = self._store.meta()

    def visit(self, cameras: Sequence[Camera]) -> Iterator[Event]:
        """Fill what these views uncover, without walking there; otherwise as :meth:`grow`."""
        started = time.monotonic()
        yield Planned(tuple(cameras))
        depth = choose("depth", DEPTH_BACKENDS, self._meta["depth"])[0]
        painter = choose("outpaint", OUTPAINTERS, self._meta["outpaint"])[0]
        for camera in cameras:
            begun = time.monotonic()
            view = look(self._renderer.render(self.splats, camera), camera, self.sky_radius)
            if view.hole_share < MIN_HOLE:
                yield Skipped(camera, view.hole_share)
                continue
            if view.hole.all():
                raise SceneError(
                    "the next view shows nothing that exists",
                    why="it does not overlap the world, so there is nothing to continue from",
                    fix="take a path with smaller steps or turns",
                )
            view_ids, coverage, reasons = remembered(self.memory, view)
            yield Retrieved(view_ids, coverage)
            seed = int(self._meta["seed"]) * 100_003 + len(self._steps)
            data, fit = invent(
                view,
                self.memory,
                view_ids,
                depth_backend=depth,
                outpaint_backend=painter,
                seed=seed,
                sky_radius=self.sky_radius,
            )
            seconds = time.monotonic() - begun
            info = {
                "depth": depth,
                "outpaint": painter,
                "seed": seed,
                "hole_share": view.hole_share,
                "retrieved": {"view_ids": view_ids, "coverage": coverage, "reasons": reasons},
                "fit": {"scale": fit.scale, "shift": fit.shift, "error": fit.error},
                "seconds": seconds,
            }
            step = self.commit(camera, data, "generated", info)
            yield Committed(step.id, data.splats, camera, view.hole_share, seconds)
        yield Finished(len(self._steps), len(self.splats), time.monotonic() - started)


def open(folder: str | Path, renderer: str = "auto") -> World:
    """Open a world.

    Args:
        folder: Its folder.
        renderer: Renderer by name, or "auto".

    Raises:
        SceneError: It is not a world, is damaged, is of a newer format, or has no steps.
    """
    choose("renderer", RENDERERS, renderer)
    store = Store.open(Path(folder))
    world = World(store, renderer)
    if not world.steps:
        world.close()
        raise SceneError(
            f"the world {folder} is empty",
            why="making it was stopped before its first step was complete",
            fix="delete the folder and create the world again",
        )
    return world
