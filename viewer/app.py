"""The viewer: one world in a browser, whole or growing, for everyone who looks."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import viser

from renderers import Camera, SceneError, Splats
from scenegen.config import LONG_SIDE
from scenegen.export.images import to_bytes
from scenegen.geometry import default_fov
from scenegen.image import load_photo
from scenegen.world.events import Committed, Event, Finished, Loaded, Planned, Skipped
from scenegen.world.paths import approach, growth_view
from scenegen.world.world import World
from viewer import navigation
from viewer.awake import KeepAwake
from viewer.jobs import Job, Jobs, Work, one_by_one
from viewer.looking import look_around
from viewer.scene import BUDGET, check_budget
from viewer.server import address_of, quiet_console, start_server
from viewer.stage import AnyWorld, Chunk, Stage
from viewer.telling import complain, guarded, plain
from viewer.visitor import Visitor

logger = logging.getLogger("scenegen")

HOST, PORT = "127.0.0.1", 8080
"""Where the viewer is served when nothing else is asked for: only to this machine."""


class ViewerApp:
    """A browser window into one world. Every method may be called from any thread.

    Args:
        host: Name or address of this machine to listen on.
        port: First port tried; the next free one is taken, and said in the log.
        budget: Splats sent to a browser at most; a larger world is thinned.

    Raises:
        SceneError: The host is not one of this machine, no port is free, or the budget is empty.
    """

    def __init__(self, host: str = HOST, port: int = PORT, budget: int = BUDGET) -> None:
        check_budget(budget)
        self._budget = budget
        self._closed = threading.Event()
        self.stage = Stage()
        self.jobs = Jobs(self._report)
        self.server = start_server(host, port)
        self._lock = threading.RLock()
        self._visitors: dict[int, Visitor] = {}
        self._frustum: viser.CameraFrustumHandle | None = None
        self._photo: viser.ImageHandle | None = None
        self._build_panel()
        start = navigation.pose_of(self.stage.home)
        # Only the place: viser takes over the first lens it is told, and that is the photograph's.
        self.server.initial_camera.position = start.position
        self.server.initial_camera.look_at = start.look_at
        self._awake = KeepAwake()
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(self._part)
        for run, arguments in (
            (self._awake.run, (self._closed,)),
            (look_around, (lambda: self.visitors, self._closed)),
        ):
            threading.Thread(target=run, args=arguments, daemon=True).start()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the viewer."""
        return address_of(self.server)

    @property
    def steps(self) -> int:
        """Chunks added so far, empty ones included."""
        return len(self.stage.chunks)

    @property
    def visitors(self) -> tuple[Visitor, ...]:
        """Everyone who is looking."""
        with self._lock:
            return tuple(self._visitors.values())

    def visitor(self, client: viser.ClientHandle | None) -> Visitor | None:
        """Whose browser this is; None when they have left."""
        with self._lock:
            return None if client is None else self._visitors.get(client.client_id)

    def show_world(self, world: AnyWorld) -> None:
        """Show a whole world and stand where its photograph was taken."""
        self.set_home(world.folder.name, world.camera0)
        self.update(world)

    def update(self, world: AnyWorld) -> None:
        """Show a world as it is now. Not while another thread changes it."""
        self.stage.take(world)
        self._refresh()

    def set_home(self, name: str, camera: Camera) -> None:
        """Name the world and say where its photograph was taken. Call it before adding chunks."""
        self.stage.set_home(name, camera)
        pose = navigation.pose_of(camera)
        navigation.set_home(self.server, pose)
        self._frustum = navigation.add_frustum(self.server, camera)
        self._frustum.visible = self._show_camera.value
        for visitor in self.visitors:
            visitor.go_home()
        self._refresh()

    def add_chunk(
        self,
        name: str,
        splats: Splats,
        camera: Camera | None = None,
        provenance: str = "observed",
    ) -> Chunk:
        """Show more of the world.

        Args:
            name: New name of the chunk.
            splats: What it adds; may be empty.
            camera: The view it was made for; the photograph's when left out.
            provenance: "observed" or another.

        Raises:
            SceneError: The name is taken, or nothing of the chunk can be drawn.
        """
        chunk = self.stage.add(name, splats, camera, provenance)
        self._refresh()
        return chunk

    def create(
        self,
        photo: Path,
        folder: Path,
        settings: Mapping[str, Any],
        on_event: Callable[[Event], None] | None = None,
    ) -> Work:
        """Make a world from a photograph and show it while it is made: the work of a job.

        Args:
            photo: Any image that Pillow reads.
            folder: New or empty folder for the world.
            settings: Fields of :class:`scenegen.config.CreateConfig`.
            on_event: Called with each event after it is shown.

        Raises:
            SceneError: The world cannot be made.
        """
        from scenegen.world import create_events

        # Seen at once, before its depth is estimated and even before what does so is loaded.
        picture = load_photo(photo, LONG_SIDE["standard"])
        height, width = picture.rgb.shape[:2]
        fov = settings.get("fov") or picture.fov_degrees or default_fov(width, height)
        camera = Camera.from_fov(fov, width, height)
        self.set_home(picture.name, camera)
        self._photo = navigation.add_picture(self.server, to_bytes(picture.rgb), camera)
        yield "estimating its depth ...", 0.0

        made: list[World] = []
        events = create_events(photo, folder, _world_out=made, **settings)
        try:
            yield from self.shown(events, on_event, lambda: made[0] if made else None)
        finally:
            self._hide_photo()
            if made:
                self.update(made[0])

    def grow(self, visitor: Visitor) -> None:
        """Fill what a visitor sees, step by step from the nearest view that the world has.

        Raises:
            SceneError: Other work is going on, or what is shown is no world on disk.
        """
        world = self._whole_world()
        cameras = self._way(world, visitor)
        self.do(Job("Growing here", visitor.name), lambda: self._grown(world, cameras), visitor)

    def edit(
        self, visitor: Visitor, title: str, change: Callable[[World], object], grow: bool
    ) -> None:
        """Change the world by hand.

        Args:
            visitor: Who does it.
            title: What is done, in words.
            change: Does it.
            grow: Fill what the visitor sees afterwards.

        Raises:
            SceneError: Other work is going on, or what is shown is no world on disk.
        """
        world = self._whole_world()

        def work() -> Work:
            yield "", None
            try:
                with self.stage.changing:
                    change(world)
            finally:
                self.update(world)
            yield "done", 1.0
            if grow:
                yield from self._grown(world, self._way(world, visitor))

        self.do(Job(title, visitor.name), work, visitor)

    def do(self, job: Job, work: Callable[[], Work], visitor: Visitor | None = None) -> None:
        """Do long work in a thread of its own; what goes wrong is told to the visitor.

        Raises:
            SceneError: Other work is going on.
        """

        def failed(error: Exception) -> None:
            for client in [visitor.client] if visitor else self.server.get_clients().values():
                complain(client, error)

        self.jobs.start(job, work, failed)

    def _whole_world(self) -> World:
        world = self.stage.world
        if isinstance(world, World):
            return world
        raise SceneError(
            "there is no world to change yet",
            why="none is open, or it is not made yet",
            fix="open one, or wait until it is made",
        )

    def _way(self, world: World, visitor: Visitor) -> list[Camera]:
        goal = growth_view(visitor.walker.camera, world.camera0)
        return approach([step.camera for step in world.steps], goal)

    def _grown(self, world: World, cameras: Sequence[Camera]) -> Work:
        try:
            yield from self.shown(world.grow(cameras), world=lambda: world)
        finally:
            self.update(world)

    def status(self, text: str, progress: float | None = None) -> None:
        """Say what is going on, in a line below the name.

        Args:
            text: The line; empty takes it away.
            progress: Share of the work that is done, 0 to 1; None hides the bar.
        """
        with self._lock:
            self._status.content = text
            self._status.visible = bool(text)
            self._progress.visible = progress is not None
            if progress is not None:
                self._progress.value = 100.0 * min(max(progress, 0.0), 1.0)

    def follow(
        self,
        events: Iterable[Event],
        on_event: Callable[[Event], None] | None = None,
        title: str = "Making a world",
    ) -> bool:
        """Show a world while it is made, chunk by chunk, until its events end.

        Args:
            events: Those of :func:`scenegen.world.create_events` or :meth:`World.grow`.
            on_event: Called with each event after it is shown.
            title: What is done, in words.

        Returns:
            Whether it was done to the end: a visitor may cancel it.
        """
        return self.jobs.run(Job(title, ""), lambda: self.shown(events, on_event))

    def shown(
        self,
        events: Iterable[Event],
        on_event: Callable[[Event], None] | None = None,
        world: Callable[[], AnyWorld | None] = lambda: None,
    ) -> Work:
        """Show each event, then say it: the work of a job.

        Args:
            events: As in :meth:`follow`, which says what ``on_event`` is, too.
            on_event: Called with each event after it is shown.
            world: The world that grows, as soon as there is one.
        """
        planned, visited = 0, 0
        try:
            for event in one_by_one(events, self.stage.changing):
                if isinstance(event, Loaded):
                    self.set_home(event.name, event.camera)
                elif isinstance(event, Committed):
                    if (grown := world()) is not None:
                        self.stage.survey(grown)
                    origin = "observed" if event.step == 0 else "generated"
                    self.add_chunk(f"step {event.step}", event.splats, event.camera, origin)
                    self._hide_photo()
                elif isinstance(event, Planned):
                    planned = len(event.cameras)
                if planned and isinstance(event, Committed | Skipped):
                    visited += 1
                yield str(event), 1.0 if isinstance(event, Finished) else visited / max(1, planned)
                if on_event is not None:
                    on_event(event)
        finally:
            self._hide_photo()
            if isinstance(events, Generator):
                events.close()

    def fail(self, error: SceneError) -> None:
        """Say in the browser what went wrong; what is shown stays."""
        self.status(f"**Stopped:** {plain(error.what)}\n\n{plain(error.why)}\n\n{plain(error.fix)}")
        for client in self.server.get_clients().values():
            complain(client, error)

    def wait(self) -> None:
        """Serve until Ctrl-C, or until :meth:`close` is called."""
        with contextlib.suppress(KeyboardInterrupt):
            while not self._closed.wait(0.5):
                pass

    def close(self) -> None:
        """Stop serving. Closing twice is fine."""
        if not self._closed.is_set():
            self._closed.set()
            self.jobs.cancel()
            with quiet_console():
                self.server.stop()

    def __enter__(self) -> ViewerApp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _build_panel(self) -> None:
        gui = self.server.gui
        self._title = gui.add_markdown("")
        self._status = gui.add_markdown("", visible=False)
        self._progress = gui.add_progress_bar(0.0, visible=False, animated=True)
        self._cancel = gui.add_button("Cancel", icon=viser.Icon.X, color="red", visible=False)
        self._cancel.on_click(guarded(lambda event: self.jobs.cancel()))
        self._show_camera = gui.add_checkbox(
            "Photo frame", False, hint="Show where the photograph was taken from"
        )
        self._show_camera.on_update(guarded(self._toggle_frustum))

    def _hide_photo(self) -> None:
        if self._photo is not None:
            self._photo.remove()
            self._photo = None

    def _report(self, job: Job | None, text: str, share: float | None) -> None:
        """What :class:`Jobs` has to say, for everyone."""
        self._cancel.visible = job is not None
        if text == "" or job is None:  # it begins or ends
            for visitor in self.visitors:
                visitor.look_again()
        words = [f"**{plain(str(job))}**" if job else "", plain(text)]
        self.status("\n\n".join(part for part in words if part), share)

    def _refresh(self) -> None:
        self._describe()
        for visitor in self.visitors:
            visitor.refresh()

    def _describe(self) -> None:
        stage, steps = self.stage, self.steps
        count = "1 step" if steps == 1 else f"{steps} steps"
        title = f"**{plain(stage.name)}**\n\n" if stage.name else ""
        self._title.content = f"{title}{stage.total:,} splats in {count}"

    def _toggle_frustum(self, event: Any) -> None:
        if self._frustum is not None:
            self._frustum.visible = self._show_camera.value

    def _welcome(self, client: viser.ClientHandle) -> None:
        try:
            visitor = Visitor(client, self, self._budget)
            with self._lock:
                self._visitors[client.client_id] = visitor
            self._awake.watch(client)
            visitor.refresh()
            if client.client_id not in self.server.get_clients():  # gone before it was greeted
                self._part(client)
        except Exception:
            logger.exception("viewer: welcoming a visitor failed")

    def _part(self, client: viser.ClientHandle) -> None:
        self._awake.forget(client)
        with self._lock:
            self._visitors.pop(client.client_id, None)
