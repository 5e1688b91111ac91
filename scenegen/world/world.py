"""A world: splats, memory and journal of one folder, and what one can do with them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from renderers import Camera, Render, Renderer, SceneError, Splats, choose, join, make_renderer
from renderers.base import RENDERERS
from scenegen import geometry, models
from scenegen.export.options import ExportOptions
from scenegen.outpaint import choose_outpainter
from scenegen.stopping import checkpoint
from scenegen.world.events import Committed, Erased, Event, Finished, Planned, Retrieved, Skipped
from scenegen.world.grow import MIN_HOLE, Look, invent, look, remembered, sky_depth
from scenegen.world.history import History, last_whole
from scenegen.world.journal import Step, camera_from_json, camera_to_json
from scenegen.world.merging import Pose, parts_of, within
from scenegen.world.paths import path_cameras, showing
from scenegen.world.plan import allowance, best_first, in_order
from scenegen.world.recall import Recall, as_info, from_info, recall
from scenegen.world.replay import check_box, in_box, surfaces
from scenegen.world.store import Store

if TYPE_CHECKING:
    from trimesh import Trimesh

    from scenegen.world.compare import Difference


class World(History):
    """An open world. Made by :func:`scenegen.create` or :func:`scenegen.open`."""

    def __init__(self, store: Store, renderer: str = "auto", at: str | int | None = None) -> None:
        super().__init__(store, at)
        self._renderer: Renderer = make_renderer(renderer)

    @property
    def camera0(self) -> Camera:
        """The photograph's own camera: the origin, level, looking along +z."""
        return self._state.steps[0].camera

    @property
    def walker(self) -> Camera:
        """Where the last walk ended, and the next one starts; at first the photograph's camera."""
        place = self._meta.get("walker")
        if isinstance(place, str):  # of a world of format 1 or 2
            return camera_from_json(place)
        if place is not None and place["entry"] == self.head:
            return camera_from_json(place["camera"])
        walked = (step.camera for step in reversed(self.steps) if step.info.get("walked"))
        return next(walked, self.camera0)

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
        return self.render_splats(self.splats, camera, background)

    def render_splats(
        self, splats: Splats, camera: Camera, background: Sequence[float] = (0.0, 0.0, 0.0)
    ) -> Render:
        """Some splats, drawn as the world is: those of another moment, for example."""
        render = self._renderer.render(splats, camera, background)
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
        yield from self.visit(path, walk=True)

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

        def mesh(most: int) -> Trimesh:
            views = [DepthView(*seen) for seen in surfaces(self._store, self._state)]
            return mesh_from_depth(views, max_triangles=most)

        export_file(
            path, splats=self.splats, mesh=mesh, format=format, options=options,
            ground=self.eye_height, provenance=self.provenance() if options.provenance else None,
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
        with self.writing():
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
        with self.writing():
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
        with self.writing():
            count = len(self.splats), len(self.memory.surfels)
            points = torch.from_numpy(self.memory.surfels.points)
            if not (in_box(self.splats.means, corners).any() or in_box(points, corners).any()):
                raise SceneError(
                    "nothing was erased",
                    why=f"there is neither a splat nor a surfel in the box {corners}",
                    fix="give a box around something: x is right, y down, z forward, in metres "
                    "from where the photograph was taken",
                )
            self._edit("erase", {"box": corners})
            return Erased(count[0] - len(self.splats), count[1] - len(self.memory.surfels))

    def regenerate(self, box: Sequence[Sequence[float]]) -> Iterator[Erased | Event]:
        """Erase a place and grow it anew, from the views that showed most of it.

        One change of the world: undone and redone at once.

        Args:
            box: As for :meth:`erase`.

        Yields:
            Erased, then the events of :meth:`grow`.

        Raises:
            SceneError: As for :meth:`erase` and :meth:`grow`. What was erased stays so.
        """
        corners = [[float(value) for value in corner] for corner in box]
        check_box(corners)
        cameras = showing(self.memory, corners)
        yield self.erase(corners)
        yield from self.visit(cameras, part_of=self.head)

    def merge(self, other: World, pose: Pose) -> tuple[Step, ...]:
        """Put a second world into this one, without its sky. One change: undone at once.

        Args:
            other: The second world, as it is at its head.
            pose: Where it lies.

        Returns:
            A step for each of its views: splats, pixels and surfels.

        Raises:
            SceneError: Nothing of it is remembered, or all would lie beyond the sky of this world;
                or this world cannot be written.
        """
        with self.writing():
            steps = self.add_all(within(parts_of(other, pose), self), "imported")
        self.set_aside()
        return tuple(steps)

    def diff(self, a: str | int, b: str | int) -> Difference:
        """What two branches or entries have in common and what not, in numbers and pictures.

        Raises:
            SceneError: There is no such branch or entry, or it is damaged.
        """
        from scenegen.world.compare import compare

        return compare(self, a, b)

    def recall(self, camera: Camera) -> Recall:
        """What the memory says about a view: what a growth step there would be given, and why."""
        return recall(self._look(camera), self.memory)

    def recall_step(self, step: int) -> Recall:
        """What was chosen for a step, with the world and its memory as they were right before.

        Raises:
            SceneError: There is no such step, or nothing was chosen for it: it is the photograph.
        """
        made = self.journal.entries.get(step)
        if not isinstance(made, Step) or "retrieved" not in made.info:
            grown = [number.id for number in self.steps if "retrieved" in number.info]
            raise SceneError(
                f"nothing was remembered for step {step}",
                why=f"steps that were grown: {', '.join(map(str, grown)) or 'none'}",
                fix=f"choose a step such as {grown[-1]}" if grown else "grow the world first",
            )
        assert made.parent is not None  # something was there to be retrieved
        then = self.at(made.parent)
        choice = from_info(made.info["retrieved"])
        return recall(self._look(made.camera, join(then.chunks)), then.memory, choice, step)

    def close(self) -> None:
        """Close the journal. The world can be opened again."""
        self._store.close()

    def _look(self, camera: Camera, splats: Splats | None = None) -> Look:
        shown = self.splats if splats is None else splats
        return look(self._renderer.render(shown, camera), camera, self.sky_radius)

    def visit(
        self,
        cameras: Sequence[Camera],
        walk: bool = False,
        part_of: int | None = None,
        budget: int | None = None,
        plan: bool = False,
    ) -> Iterator[Event]:
        """Fill what these views uncover; otherwise as :meth:`grow`.

        Args:
            cameras: The views.
            walk: Whether one walks there: :attr:`walker` stands at the last one then.
            part_of: The entry that these steps are undone with.
            budget: Splats that the world may have then.
            plan: Whether the one that explains most comes next; left out, in the order given.
        """
        started = time.monotonic()
        yield Planned(tuple(cameras))
        depth = geometry.choose_depth(self._meta["depth"])[0]
        painter = choose_outpainter(self._meta["outpaint"], self._meta.get("prompt"))[0]
        try:
            for ahead in best_first(cameras, self._look) if plan else in_order(cameras):
                with self.writing():
                    seed = int(self._meta["seed"]) * 100_003 + self.journal.next_id
                    limit = budget and allowance(budget - len(self.splats), ahead)
                    yield from self.step(ahead[0], depth, painter, seed, walk, part_of, limit)
        finally:
            self.set_aside()
        yield Finished(len(self.steps), len(self.splats), time.monotonic() - started)

    def step(
        self,
        camera: Camera,
        depth: str,
        painter: str,
        seed: int,
        walk: bool = False,
        part_of: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Event]:
        """Fill what one view uncovers, within :meth:`writing`. For the loop's own use."""
        begun = time.monotonic()
        view = self._look(camera)
        if view.hole_share < MIN_HOLE:
            yield self._skip(camera, view, walk)
            return
        if view.hole.all():
            if painter == "none":
                yield self._skip(camera, view, walk, honest=True)
                return
            raise SceneError(
                "the next view shows nothing that exists",
                why="it does not overlap the world, so there is nothing to continue from",
                fix="take a path with smaller steps or turns",
            )
        checkpoint()
        choice = remembered(self.memory, view)
        yield Retrieved(choice.view_ids, choice.coverage)
        grown = invent(
            view,
            self.memory,
            choice.view_ids,
            renderer=self._renderer,
            depth_backend=depth,
            outpaint_backend=painter,
            prompt=self._meta.get("prompt"),
            seed=seed,
            sky_radius=self.sky_radius,
            eye_height=self.eye_height,
        )
        if grown is None:
            yield self._skip(camera, view, walk, honest=True)
            return
        data = grown.within(limit)
        checkpoint()
        seconds = time.monotonic() - begun
        info = {
            "depth": depth,
            "outpaint": painter,
            "weights": models.growth_weights(depth, painter),
            "seed": seed,
            "walked": walk,
            "hole_share": view.hole_share,
            "splats": len(data.splats),
            "retrieved": as_info(choice),
            **grown.as_info(),
            **{k: v for k, v in (("limit", limit), ("part_of", part_of)) if v is not None},
            "seconds": seconds,
        }
        made = self.add(camera, data, "generated", info)
        yield Committed(made.id, data.splats, camera, view.hole_share, seconds)

    def _skip(self, camera: Camera, view: Look, walk: bool, honest: bool = False) -> Skipped:
        if walk:
            place = {"entry": self.head, "camera": camera_to_json(camera)}
            self._store.set_meta({"walker": place})
            self._meta["walker"] = place
        return Skipped(camera, view.hole_share, honest)


def open(folder: str | Path, renderer: str = "auto", at: str | int | None = None) -> World:
    """Open a world.

    Args:
        folder: Its folder.
        renderer: Renderer by name, or "auto".
        at: A branch or an entry to switch to first: the way back into a world that is damaged
            where its head is.

    Raises:
        SceneError: It is not a world, is damaged, is of a newer format, or has no steps.
    """
    choose("renderer", RENDERERS, renderer)
    store = Store.open(Path(folder))
    try:
        journal = store.journal()
        if not (journal.entries or journal.broken):
            raise SceneError(
                f"the world {folder} is empty",
                why="making it was stopped before its first step was complete",
                fix="make it again: `scenegen create` takes the folder as it is",
            )
        try:
            return World(store, renderer, at)
        except SceneError as error:
            if at is not None or (whole := last_whole(store)) is None:
                raise
            fix = f"entry {whole} is whole: `scenegen switch {folder} {whole}` goes back to it; "
            fix += "or restore the folder from a copy"
            raise SceneError(error.what, why=error.why, fix=fix) from error
    except BaseException:
        store.close()
        raise
