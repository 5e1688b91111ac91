"""The viewer: one world in a browser, whole or growing, for everyone who looks."""

from __future__ import annotations

import contextlib
import logging
import threading

import viser

from renderers import Camera, SceneError, Splats
from scenegen.export.images import to_bytes
from viewer import navigation
from viewer.awake import KeepAwake
from viewer.budget import BUDGET, check_budget
from viewer.cameras import pose_of
from viewer.greeting import Greeting
from viewer.jobs import Job, Jobs
from viewer.looking import look_around
from viewer.panels.common import CommonPanel
from viewer.server import HOST, LABEL, PORT, LocalServer, address_of, quiet_console, start_server
from viewer.stage import AnyWorld, Chunk, Stage
from viewer.telling import complain, plain
from viewer.visitor import Visitor
from viewer.works import Works

logger = logging.getLogger("scenegen")


class ViewerApp:
    """A browser window into one world. Every method may be called from any thread.

    Args:
        host: Name or address of this machine to listen on.
        port: First port tried; the next free one is taken, and said in the log.
        budget: Splats sent to a browser at most; a larger world is thinned.
        server: One that listens already; ``host`` and ``port`` are not used then.

    Raises:
        SceneError: The host is not one of this machine, no port is free, or the budget is empty.
    """

    def __init__(
        self,
        host: str = HOST,
        port: int = PORT,
        budget: int = BUDGET,
        server: LocalServer | None = None,
    ) -> None:
        check_budget(budget)
        self._budget = budget
        self._closed = threading.Event()
        self.stage = Stage()
        self.jobs = Jobs(self._report)
        self.works = Works(self)
        self.server = server or start_server(host, port)
        self._lock = threading.RLock()
        self._visitors: dict[int, Visitor] = {}
        self.greeting: Greeting | None = None
        """The photograph, as long as there is nothing of its world."""
        self.panel = CommonPanel(self.server, self.jobs.cancel)
        start = pose_of(self.stage.home)
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
        views = world.memory.views
        self.server.first_sight.show(to_bytes(views[0].rgb) if 0 in views else None)
        self.set_home(world.folder.name, world.camera0)
        self.update(world)
        self._greeted()

    def update(self, world: AnyWorld) -> None:
        """Show a world as it is now. Not while another thread changes it."""
        self.stage.take(world)
        self._refresh()

    def set_home(self, name: str, camera: Camera) -> None:
        """Name the world and say where its photograph was taken. Call it before adding chunks."""
        self.stage.set_home(name, camera)
        navigation.set_home(self.server, pose_of(camera))
        self.panel.set_home(camera)
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
        self._greeted()
        return chunk

    def fail(self, error: SceneError) -> None:
        """Say in the browser what went wrong; what is shown stays."""
        lines = (plain(error.what), plain(error.why), plain(error.fix))
        self.panel.status("**Stopped:** " + "\n\n".join(lines))
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

    def _report(self, job: Job | None, text: str, share: float | None) -> None:
        """What :class:`Jobs` has to say, for everyone."""
        self.panel.cancel.visible = job is not None
        if text == "" or job is None:  # it begins or ends
            for visitor in self.visitors:
                visitor.look_again()
        words = [f"**{plain(str(job))}**" if job else "", plain(text)]
        self.panel.status("\n\n".join(part for part in words if part), share)
        done = "" if share is None else f"{share:.0%}"
        self.server.gui.set_panel_label(f"{job.title} {done or '...'}" if job else LABEL)

    def _refresh(self) -> None:
        self.panel.name(self.stage.name, self.stage.total, self.steps)
        for visitor in self.visitors:
            visitor.refresh()

    def _greeted(self) -> None:
        if self.greeting is not None:
            self.greeting.remove()
            self.greeting = None

    def _welcome(self, client: viser.ClientHandle) -> None:
        try:
            visitor = Visitor(client, self, self._budget)
            with self._lock:
                self._visitors[client.client_id] = visitor
            self._awake.watch(client, lambda: visitor.walker.lens, visitor.answered)
            visitor.refresh()
            if client.client_id not in self.server.get_clients():  # gone before it was greeted
                self._part(client)
        except Exception:
            logger.exception("viewer: welcoming a visitor failed")

    def _part(self, client: viser.ClientHandle) -> None:
        self._awake.forget(client)
        with self._lock:
            self._visitors.pop(client.client_id, None)
