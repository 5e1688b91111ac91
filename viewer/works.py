"""What is done to the world that everyone sees: it is made, grown and changed by hand."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renderers import Camera, SceneError
from scenegen.config import LONG_SIDE
from scenegen.image.picture import load_picture
from scenegen.world.events import Committed, Event, Finished, Loaded, Planned, Skipped
from scenegen.world.paths import approach, growth_view
from scenegen.world.world import World
from viewer.greeting import Greeting, greet
from viewer.jobs import Job, Work, one_by_one
from viewer.stage import AnyWorld
from viewer.telling import complain

if TYPE_CHECKING:
    from viewer.app import ViewerApp
    from viewer.visitor import Visitor


class Works:
    """Long work, one piece at a time over all visitors, and shown while it goes on.

    Args:
        app: Whose world it is.
    """

    def __init__(self, app: ViewerApp) -> None:
        self._app = app

    def create(
        self,
        photo: Path,
        folder: Path,
        settings: Mapping[str, Any],
        on_event: Callable[[Event], None] | None = None,
        greeting: Greeting | None = None,
    ) -> Work:
        """Make a world from a photograph and show it while it is made: the work of a job.

        Args:
            photo: Any image that Pillow reads.
            folder: New or empty folder for the world.
            settings: Fields of :class:`scenegen.config.CreateConfig`.
            on_event: Called with each event after it is shown.
            greeting: The photograph, where it is shown already.

        Raises:
            SceneError: The world cannot be made.
        """
        if greeting is None:
            picture = load_picture(photo, LONG_SIDE["standard"])
            greeting = greet(self._app.server, picture, settings.get("fov"))
        self._app.greeting = greeting
        height, width = greeting.picture.rgb.shape[:2]
        self._app.set_home(greeting.picture.name, Camera.from_fov(greeting.fov, width, height))
        greeting.done()
        yield "estimating its depth ...", 0.0
        from scenegen.world import Creation  # only now: it loads much

        creation = Creation(photo, folder, **settings)
        try:
            yield from self.shown(creation.events(), on_event, lambda: creation.world)
        finally:
            if creation.world is not None:
                self._app.update(creation.world)

    def grow(self, visitor: Visitor) -> None:
        """Fill what a visitor sees, step by step from the nearest view that the world has.

        Raises:
            SceneError: Other work is going on, or what is shown is no world on disk.
        """
        world = self._whole_world()
        cameras = _way(world, visitor)
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
                with self._app.stage.changing:
                    change(world)
            finally:
                self._app.update(world)
            yield "done", 1.0
            if grow:
                yield from self._grown(world, _way(world, visitor))

        self.do(Job(title, visitor.name), work, visitor)

    def do(self, job: Job, work: Callable[[], Work], visitor: Visitor | None = None) -> None:
        """Do long work in a thread of its own; what goes wrong is told to the visitor.

        Raises:
            SceneError: Other work is going on.
        """

        def failed(error: Exception) -> None:
            everyone = self._app.server.get_clients().values()
            for client in [visitor.client] if visitor else everyone:
                complain(client, error)

        self._app.jobs.start(job, work, failed)

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
        return self._app.jobs.run(Job(title, ""), lambda: self.shown(events, on_event))

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
        app = self._app
        planned, visited = 0, 0
        try:
            for event in one_by_one(events, app.stage.changing):
                if isinstance(event, Loaded):
                    app.set_home(event.name, event.camera)
                elif isinstance(event, Committed):
                    if (grown := world()) is not None:
                        app.stage.survey(grown)
                    origin = "observed" if event.step == 0 else "generated"
                    app.add_chunk(f"step {event.step}", event.splats, event.camera, origin)
                elif isinstance(event, Planned):
                    planned = len(event.cameras)
                if planned and isinstance(event, Committed | Skipped):
                    visited += 1
                yield str(event), 1.0 if isinstance(event, Finished) else visited / max(1, planned)
                if on_event is not None:
                    on_event(event)
        finally:
            if isinstance(events, Generator):
                events.close()

    def _whole_world(self) -> World:
        world = self._app.stage.world
        if isinstance(world, World):
            return world
        raise SceneError(
            "there is no world to change yet",
            why="none is open, or it is not made yet",
            fix="open one, or wait until it is made",
        )

    def _grown(self, world: World, cameras: Sequence[Camera]) -> Work:
        try:
            yield from self.shown(world.grow(cameras), world=lambda: world)
        finally:
            self._app.update(world)


def _way(world: World, visitor: Visitor) -> list[Camera]:
    goal = growth_view(visitor.walker.camera, world.camera0)
    return approach([step.camera for step in world.steps], goal)
