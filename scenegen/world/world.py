"""A world: splats, memory and journal of one folder, and what one can do with them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from renderers import Camera, Render, Renderer, SceneError, Splats, choose, join, make_renderer
from renderers.base import RENDERERS
from scenegen import geometry
from scenegen.export.options import ExportOptions
from scenegen.outpaint import OUTPAINTERS
from scenegen.world.events import Committed, Event, Finished, Planned, Retrieved, Skipped
from scenegen.world.grow import MIN_HOLE, Look, invent, look, remembered, sky_depth
from scenegen.world.paths import path_cameras
from scenegen.world.recall import Recall, as_info, from_info, recall
from scenegen.world.replay import check, check_box, in_box, replay, surfaces
from scenegen.world.store import Edit, Step, StepData, Store, camera_from_json, camera_to_json
from spatial_memory import ViewMemory

if TYPE_CHECKING:
    from trimesh import Trimesh


@dataclass(frozen=True)
class Erased:
    """What :meth:`World.erase` took away."""

    splats: int
    surfels: int


class World:
    """An open world. Made by :func:`scenegen.create` or :func:`scenegen.open`."""

    def __init__(self, store: Store, renderer: str = "auto") -> None:
        self._store = store
        self._meta = store.meta()
        self._renderer: Renderer = make_renderer(renderer)
        self._state = replay(store)
        self._joined: Splats | None = None

    @property
    def folder(self) -> Path:
        """Where the world lives on disk."""
        return self._store.folder

    @property
    def memory(self) -> ViewMemory:
        """Geometry and past views.

        To change them use :meth:`pin`, :meth:`forget` and :meth:`erase` of the world: what is done
        to the memory itself is lost when the world is closed.
        """
        return self._state.memory

    @property
    def steps(self) -> tuple[Step, ...]:
        """The journal, first step first."""
        return tuple(self._state.steps)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What was pinned, forgotten and erased, in order."""
        return tuple(self._state.edits)

    @property
    def chunks(self) -> tuple[Splats, ...]:
        """The splats that each step added and nobody erased, in the order of ``steps``."""
        return tuple(self._state.chunks)

    @property
    def splats(self) -> Splats:
        """All splats of the world."""
        if self._joined is None:
            self._joined = join(self._state.chunks)
        return self._joined

    @property
    def camera0(self) -> Camera:
        """The photograph's own camera: the origin, level, looking along +z."""
        return self._state.steps[0].camera

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
    def eye_height(self) -> float:
        """Height of the photograph's camera above the ground, in metres, as it was given."""
        return float(self._meta.get("eye_height", geometry.EYE_HEIGHT))

    @property
    def settings(self) -> dict[str, Any]:
        """How the world was made: backends, seed, field of view and scale, and why these."""
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

    def export(
        self,
        path: str | Path,
        format: str | None = None,
        options: ExportOptions = ExportOptions(),  # noqa: B008  (frozen)
    ) -> Path:
        """Write the world to a file for other programs: see docs/formats.md.

        Args:
            path: The file.
            format: Format by name; by the suffix when left out.
            options: What of the world is written, and where it lies in the file.

        Raises:
            SceneError: The format is unknown or the file cannot be written.
        """
        from scenegen.export import DepthView, export_file, mesh_from_depth

        def mesh() -> Trimesh:
            return mesh_from_depth(
                [DepthView(*seen) for seen in surfaces(self._store, self._state)]
            )

        export_file(
            path, splats=self.splats, mesh=mesh, format=format, options=options,
            ground=self.eye_height,
        )  # fmt: skip
        return Path(path)

    def pin(self, view_id: int, pinned: bool = True) -> None:
        """Have this view taken first whenever the memory is asked, and never forgotten; or not.

        Args:
            view_id: The number of its step.
            pinned: False takes the pin out.

        Raises:
            SceneError: There is no such view, or the world cannot be written.
        """
        _ = self.memory.views[view_id]
        if (view_id in self.memory.pinned) != pinned:
            self._edit("pin" if pinned else "unpin", {"view": int(view_id)})

    def forget(self, view_id: int) -> None:
        """Drop a view from the memory. Its splats stay: what was grown from it is still there.

        Args:
            view_id: The number of its step.

        Raises:
            SceneError: There is no such view, it is pinned or the photograph, or the world cannot
                be written.
        """
        self._edit("forget", {"view": int(view_id)})

    def erase(self, box: Sequence[Sequence[float]]) -> Erased:
        """Take a place out of the world and of its memory, so that it can be grown anew.

        Args:
            box: Smallest and largest corner in the world, in metres.

        Returns:
            What was erased: the splats and the surfels whose centres were in the box.

        Raises:
            SceneError: It is not a box, nothing is in it, or the world cannot be written.
        """
        corners = [[float(value) for value in corner] for corner in box]
        check_box(corners)
        count = len(self.splats), len(self.memory.surfels)
        points = torch.from_numpy(self.memory.surfels.points)
        if not (in_box(self.splats.means, corners).any() or in_box(points, corners).any()):
            raise SceneError(
                "nothing was erased",
                why=f"there is neither a splat nor a surfel in the box {corners}",
                fix="give a box around something: x is right, y down, z forward, in metres from "
                "where the photograph was taken",
            )
        self._edit("erase", {"box": corners})
        return Erased(count[0] - len(self.splats), count[1] - len(self.memory.surfels))

    def recall(self, camera: Camera) -> Recall:
        """What the memory says about a view: what a growth step there would be given, and why."""
        return recall(self._look(camera, self.splats), self.memory)

    def recall_step(self, step: int) -> Recall:
        """What was chosen for a step, with the world and its memory as they were right before.

        Raises:
            SceneError: There is no such step, or nothing was chosen for it: it is the photograph.
        """
        if not 0 < step < len(self.steps):
            last = len(self.steps) - 1
            raise SceneError(
                f"nothing was remembered for step {step}",
                why="step 0 is the photograph" if step == 0 else f"the last step is {last}",
                fix=f"choose a step from 1 to {last}" if last else "grow the world first",
            )
        made = self.steps[step]
        if "retrieved" not in made.info:
            raise SceneError(
                f"nothing was remembered for step {step}",
                why="it was made from the photograph alone",
                fix="choose a later step",
            )
        then = replay(self._store, before=step)
        choice = from_info(made.info["retrieved"])
        return recall(self._look(made.camera, join(then.chunks)), then.memory, choice, step)

    def close(self) -> None:
        """Close the journal. The world can be opened again."""
        self._store.close()

    def commit(self, camera: Camera, data: StepData, provenance: str, info: dict[str, Any]) -> Step:
        """Add a step to the journal, the splats and the memory. For the loop's own use."""
        parent = self.steps[-1].id if self.steps else None
        number = 0 if parent is None else parent + 1
        step = Step(number, parent, provenance, camera, info)
        self._store.commit(step, data)
        self._state.take(step, data)
        self._joined = None
        return step

    def _edit(self, kind: str, arguments: dict[str, Any]) -> None:
        """Check, record, then apply: killed in between, the next `open` applies it."""
        check(self._state, kind, arguments)
        self._state.apply(self._store.record(self.steps[-1].id, kind, arguments))
        self._joined = None

    def _look(self, camera: Camera, splats: Splats) -> Look:
        return look(self._renderer.render(splats, camera), camera, self.sky_radius)

    def _stand_at(self, camera: Camera) -> None:
        self._store.set_meta({"walker": camera_to_json(camera)})
        self._meta = self._store.meta()

    def visit(self, cameras: Sequence[Camera]) -> Iterator[Event]:
        """Fill what these views uncover, without walking there; otherwise as :meth:`grow`."""
        started = time.monotonic()
        yield Planned(tuple(cameras))
        depth = geometry.choose_depth(self._meta["depth"])[0]
        painter = choose("outpaint", OUTPAINTERS, self._meta["outpaint"])[0]
        for camera in cameras:
            begun = time.monotonic()
            view = self._look(camera, self.splats)
            if view.hole_share < MIN_HOLE:
                yield Skipped(camera, view.hole_share)
                continue
            if view.hole.all():
                if painter == "none":
                    yield Skipped(camera, view.hole_share, honest=True)
                    continue
                raise SceneError(
                    "the next view shows nothing that exists",
                    why="it does not overlap the world, so there is nothing to continue from",
                    fix="take a path with smaller steps or turns",
                )
            choice = remembered(self.memory, view)
            yield Retrieved(choice.view_ids, choice.coverage)
            seed = int(self._meta["seed"]) * 100_003 + len(self.steps)
            grown = invent(
                view,
                self.memory,
                choice.view_ids,
                depth_backend=depth,
                outpaint_backend=painter,
                seed=seed,
                sky_radius=self.sky_radius,
                eye_height=self.eye_height,
            )
            if grown is None:
                yield Skipped(camera, view.hole_share, honest=True)
                continue
            seconds = time.monotonic() - begun
            info = {
                "depth": depth,
                "outpaint": painter,
                "seed": seed,
                "hole_share": view.hole_share,
                "retrieved": as_info(choice),
                **grown.as_info(),
                "seconds": seconds,
            }
            step = self.commit(camera, grown.data, "generated", info)
            yield Committed(step.id, grown.data.splats, camera, view.hole_share, seconds)
        yield Finished(len(self.steps), len(self.splats), time.monotonic() - started)


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
