"""The viewer: one world in a browser, whole or growing."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import viser

from renderers import Camera, SceneError, Splats
from scenegen.world.events import Committed, Event, Finished, Loaded, Planned, Skipped
from viewer import navigation
from viewer.awake import KeepAwake
from viewer.scene import BUDGET, WINDOW_HEIGHT, SplatScene, check_budget
from viewer.server import address_of, quiet_console, start_server

logger = logging.getLogger("scenegen")

HOST, PORT = "127.0.0.1", 8080
"""Where the viewer is served when nothing else is asked for: only to this machine."""


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


@runtime_checkable
class AnyWorld(Protocol):
    """What the viewer needs of a :class:`scenegen.World`."""

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


class ViewerApp:
    """A browser window into one world. Every method may be called from any thread.

    Args:
        host: Name or address of this machine to listen on.
        port: First port tried; the next free one is taken, and said in the log.
        budget: Splats sent to a browser at most; a larger world is thinned evenly.

    Raises:
        SceneError: The host is not one of this machine, no port is free, or the budget is empty.
    """

    def __init__(self, host: str = HOST, port: int = PORT, budget: int = BUDGET) -> None:
        check_budget(budget)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self.server = start_server(host, port)
        self._scene = SplatScene(self.server, budget)
        self._home = Camera.from_fov(60.0, 4, 3)
        self._frustum: viser.CameraFrustumHandle | None = None
        self._name = ""
        self._steps = 0
        self._build_panel()
        start = navigation.pose_of(self._home)
        # Only the place: viser takes over the first lens it is told, and that is the photograph's.
        self.server.initial_camera.position = start.position
        self.server.initial_camera.look_at = start.look_at
        self._awake = KeepAwake()
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(self._awake.forget)
        threading.Thread(target=self._awake.run, args=(self._closed,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where a browser on this machine finds the viewer."""
        return address_of(self.server)

    @property
    def steps(self) -> int:
        """Chunks added so far, empty ones included."""
        return self._steps

    def show_world(self, world: AnyWorld) -> None:
        """Show a whole world and stand where its photograph was taken."""
        with self._lock:
            self.clear()
            self.set_home(world.folder.name, world.camera0)
            self._scene.expect(sum(len(chunk) for chunk in world.chunks))
            for step, splats in zip(world.steps, world.chunks, strict=True):
                self.add_chunk(f"step {step.id}", splats, step.camera)
            self.status("")

    def set_home(self, name: str, camera: Camera) -> None:
        """Name the world and say where its photograph was taken. Call it before adding chunks."""
        with self._lock:
            self._name, self._home = name, camera
            self._scene.pixel = 2.0 * _half_height(camera) / WINDOW_HEIGHT
            navigation.set_home(self.server, navigation.pose_of(camera))
            self._frustum = navigation.add_frustum(self.server, camera)
            self._frustum.visible = self._show_camera.value
            self._describe()

    def add_chunk(self, name: str, splats: Splats, camera: Camera | None = None) -> None:
        """Show more of the world.

        Args:
            name: New name of the chunk.
            splats: What it adds; may be empty.
            camera: The view it was made for; the photograph's when left out.

        Raises:
            SceneError: The name is taken, or nothing of the chunk can be drawn.
        """
        with self._lock:
            self._scene.add(name, splats, (camera or self._home).center)
            self._steps += 1
            self._describe()

    def clear(self) -> None:
        """Take the world away."""
        with self._lock:
            self._scene.clear()
            self._steps = 0
            self._describe()

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

    def notify(self, title: str, body: str) -> None:
        """Show a message to everyone who is looking."""
        for client in self.server.get_clients().values():
            client.add_notification(title, body, color="red")

    def follow(
        self, events: Iterable[Event], on_event: Callable[[Event], None] | None = None
    ) -> None:
        """Show a world while it is made, chunk by chunk, until its events end.

        Args:
            events: Those of :func:`scenegen.world.create_events` or :meth:`World.grow`.
            on_event: Called with each event after it is shown.
        """
        planned, visited = 0, 0
        for event in events:
            if isinstance(event, Loaded):
                self.set_home(event.name, event.camera)
            elif isinstance(event, Committed):
                self.add_chunk(f"step {event.step}", event.splats, event.camera)
            elif isinstance(event, Planned):
                planned = len(event.cameras)
            if planned and isinstance(event, Committed | Skipped):
                visited += 1
            done = isinstance(event, Finished)
            self.status(str(event), None if done else visited / max(1, planned))
            if on_event is not None:
                on_event(event)

    def fail(self, error: SceneError) -> None:
        """Say in the browser what went wrong; what is shown stays."""
        self.status(f"**Stopped:** {error.what}\n\n{error.why}\n\n{error.fix}")
        self.notify(f"Stopped: {error.what}", f"{error.why}. {error.fix}")

    def wait(self) -> None:
        """Serve until Ctrl-C, or until :meth:`close` is called."""
        with contextlib.suppress(KeyboardInterrupt):
            while not self._closed.wait(0.5):
                pass

    def close(self) -> None:
        """Stop serving. Closing twice is fine."""
        if not self._closed.is_set():
            self._closed.set()
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
        back = gui.add_button("Back to the photograph", icon=viser.Icon.HOME)
        self._show_camera = gui.add_checkbox(
            "Photo frame", False, hint="Show where the photograph was taken from"
        )
        gui.add_markdown(navigation.KEYS)
        back.on_click(self._guarded(self._go_home))
        gui.add_command("Back to the photograph", hotkey="R").on_trigger(
            self._guarded(self._go_home)
        )
        self._show_camera.on_update(self._guarded(self._toggle_frustum))

    def _describe(self) -> None:
        total, shown = self._scene.total, self._scene.shown
        thinned = f" ({shown:,} shown)" if shown < total else ""
        steps = "1 step" if self._steps == 1 else f"{self._steps} steps"
        title = f"**{_plain(self._name)}**\n\n" if self._name else ""
        self._title.content = f"{title}{total:,} splats{thinned} in {steps}"

    def _guarded(self, action: Callable[[Any], None]) -> Callable[[Any], None]:
        """A callback that holds the lock, and whose failure is told to its visitor."""

        def callback(event: Any) -> None:
            try:
                with self._lock:
                    action(event)
            except Exception as error:
                logger.exception("viewer: %s failed", action.__name__)
                client: viser.ClientHandle | None = event.client
                if client is not None:
                    client.add_notification("That did not work", str(error), color="red")

        return callback

    def _go_home(self, event: Any) -> None:
        if event.client is not None:
            navigation.go_to(event.client, navigation.pose_of(self._home))

    def _toggle_frustum(self, event: Any) -> None:
        if self._frustum is not None:
            self._frustum.visible = self._show_camera.value

    def _welcome(self, client: viser.ClientHandle) -> None:
        try:
            navigation.stay_first_person(client)
            self._awake.watch(client)
        except Exception:
            logger.exception("viewer: welcoming a visitor failed")


def _half_height(camera: Camera) -> float:
    """Half of the picture's height at a distance of 1."""
    return 0.5 * camera.height / float(camera.px_from_cam[1, 1])


def _plain(text: str) -> str:
    """Text that markdown shows as it is."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+!|~-" else c for c in text)
