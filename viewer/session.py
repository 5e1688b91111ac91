"""What the command line calls: show a world, or a photograph becoming one, until Ctrl-C."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renderers.errors import SceneError
from scenegen.config import LONG_SIDE
from scenegen.image.picture import load_picture
from viewer.budget import BUDGET
from viewer.greeting import greet, levels
from viewer.jobs import Job
from viewer.page import FirstSight
from viewer.server import HOST, PORT, LocalServer, address_of, quiet_console, start_server

if TYPE_CHECKING:
    from scenegen.world.events import Event
    from viewer.stage import AnyWorld

logger = logging.getLogger("scenegen")


def view_world(
    world: AnyWorld | str | Path, host: str = HOST, port: int = PORT, budget: int = BUDGET
) -> None:
    """Show a world in the browser until Ctrl-C.

    Args:
        world: An open world, or the folder of one.
        host: Name or address of this machine to listen on.
        port: First port tried.
        budget: Splats sent to a browser at most.

    Raises:
        SceneError: It is not a world, is damaged or empty, or the viewer cannot be served.
    """
    if isinstance(world, (str, Path)):
        from scenegen.world import open as open_world

        world = open_world(world)
    from viewer.app import ViewerApp

    with ViewerApp(host, port, budget) as app:
        app.show_world(world)
        _invite(app.server)
        app.wait()


def view_photo(
    photo: str | Path,
    folder: str | Path,
    settings: Mapping[str, Any] | None = None,
    host: str = HOST,
    port: int = PORT,
    budget: int = BUDGET,
    on_event: Callable[[Event], None] | None = None,
) -> None:
    """Make a world from a photograph and show it while it grows, until Ctrl-C.

    Ctrl-C during creation ends both; what was committed stays in the folder.

    Args:
        photo: Any image that Pillow reads.
        folder: New or empty folder for the world.
        settings: Fields of :class:`scenegen.config.CreateConfig`.
        host: Name or address of this machine to listen on.
        port: First port tried.
        budget: Splats sent to a browser at most.
        on_event: Called with each event of the creation, after it is shown.

    Raises:
        SceneError: The world cannot be made or served. When part of it is made already, the
            browser shows that part and the reason, and the error follows after Ctrl-C.
    """
    settings = settings or {}
    picture = load_picture(photo, LONG_SIDE["standard"])
    first_sight = FirstSight()
    first_sight.show(levels(picture))
    server = start_server(host, port, first_sight)
    try:
        greeting = greet(server, picture, settings.get("fov"))
        _invite(server)
        from viewer.app import ViewerApp  # only now: it loads much

        app = ViewerApp(budget=budget, server=server)
    except BaseException:
        with quiet_console():
            server.stop()
        raise
    with app:
        try:
            app.jobs.run(
                Job("Making a world", ""),
                lambda: app.works.create(Path(photo), Path(folder), settings, on_event, greeting),
            )
        except KeyboardInterrupt:
            kept = f"{app.steps} steps are in {folder}" if app.steps else "nothing was made yet"
            logger.info("stopped: %s", kept)
            return
        except SceneError as error:
            if not app.steps:
                raise
            logger.warning("creation stopped early; the viewer shows what is there")
            app.fail(error)
            app.wait()
            raise
        app.wait()


def view_start(
    worlds: str | Path = "worlds",
    settings: Mapping[str, Any] | None = None,
    host: str = HOST,
    port: int = PORT,
    budget: int = BUDGET,
) -> None:
    """Let visitors send a photograph or choose a world that is there, until Ctrl-C.

    Args:
        worlds: Folder of worlds; new ones go there.
        settings: Fields of :class:`scenegen.config.CreateConfig`, for new ones.
        host: Name or address of this machine to listen on.
        port: First port tried.
        budget: Splats sent to a browser at most.

    Raises:
        SceneError: The viewer cannot be served.
    """
    from viewer.app import ViewerApp
    from viewer.panels.starting import StartPanel
    from viewer.uploads import temporary_folder

    with ViewerApp(host, port, budget) as app, temporary_folder() as photos:
        StartPanel(app, Path(worlds), Path(photos), settings or {})
        _invite(app.server)
        app.wait()


def _invite(server: LocalServer) -> None:
    logger.info("viewer: open %s in a browser; Ctrl-C ends it", address_of(server))
