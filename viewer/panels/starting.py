"""The start page: send a photograph, or open a world that is there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import viser

from renderers import SceneError
from scenegen.world.world import World
from scenegen.world.world import open as open_world
from viewer.jobs import Job, Work
from viewer.telling import guarded
from viewer.uploads import MAX_BYTES, bound_uploads, keep_photo, new_world_folder

if TYPE_CHECKING:
    from viewer.app import ViewerApp

FIRST, LAST = -1.0, 1e9
"""Where the worlds stand on the panel: first as long as none is open."""
RECENT = 12
"""Worlds that are offered, newest first."""
WELCOME = f"""\
### A photograph becomes a world

Send one and walk into it a minute later, or open a world below. JPEG, PNG, WebP and others, up to
{MAX_BYTES // 1_000_000} MB.
"""


class StartPanel:
    """What everyone finds on the start page.

    Args:
        app: The application.
        worlds: Folder of worlds; new ones go there.
        photos: Folder for photographs while their worlds are made.
        settings: Fields of :class:`scenegen.config.CreateConfig`, for new worlds.
    """

    def __init__(
        self, app: ViewerApp, worlds: Path, photos: Path, settings: Mapping[str, Any]
    ) -> None:
        self._app, self._worlds, self._photos, self._settings = app, worlds, photos, settings
        gui = app.server.gui
        bound_uploads(app.server)
        self._folder = gui.add_folder("Worlds", order=FIRST)
        with self._folder:
            self._welcome = gui.add_markdown(WELCOME)
            send = gui.add_upload_button(
                "Send a photograph", icon=viser.Icon.UPLOAD, mime_type="image/*"
            )
            self._list = [gui.add_button("", visible=False) for _ in range(RECENT)]
        send.on_upload(guarded(self._received))
        for number, button in enumerate(self._list):
            button.on_click(guarded(self._opener(number)))
        self._shown: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        """Look again which worlds there are."""
        self._shown = recent_worlds(self._worlds)[:RECENT]
        for number, button in enumerate(self._list):
            button.visible = number < len(self._shown)
            if button.visible:
                button.label = self._shown[number].name

    def _opener(self, number: int) -> Any:
        return lambda event: self._open(event, self._shown[number])

    def _open(self, event: Any, folder: Path) -> None:
        visitor = self._app.visitor(event.client)
        name = visitor.name if visitor else ""
        self._app.works.do(
            Job(f"Opening {folder.name}", name), lambda: self._opened(folder), visitor
        )

    def _opened(self, folder: Path) -> Work:
        yield "reading ...", None
        before = self._app.stage.world
        self._app.show_world(open_world(folder))
        self._step_aside()
        if isinstance(before, World):
            before.close()
        yield "open", 1.0

    def _step_aside(self) -> None:
        """There is a world: what it offers comes first."""
        self._folder.order, self._welcome.visible = LAST, False

    def _received(self, event: Any) -> None:
        file, visitor = event.target.value, self._app.visitor(event.client)
        if self._app.jobs.job is not None:
            raise SceneError(
                "the photograph has to wait",
                why=f"one thing is done at a time, and now it is: {self._app.jobs.job}",
                fix="send it again when that is done, or cancel it",
            )
        name = visitor.name if visitor else ""
        job = Job(f"Making a world of {file.name[:60]}", name)
        self._app.works.do(job, lambda: self._made(file.name, file.content), visitor)

    def _made(self, name: str, content: bytes) -> Work:
        yield "reading the photograph ...", None
        photo, before = keep_photo(name, content, self._photos), self._app.stage.world
        self._step_aside()
        try:
            yield from self._app.works.create(
                photo, new_world_folder(self._worlds, name), self._settings
            )
        finally:
            photo.unlink(missing_ok=True)
            if isinstance(before, World) and before is not self._app.stage.world:
                before.close()
            self.refresh()


def recent_worlds(root: Path) -> list[Path]:
    """The worlds in a folder, those that changed last first."""
    found = [path.parent for path in root.glob("*/world.db") if path.is_file()]
    return sorted(found, key=lambda folder: (-(folder / "world.db").stat().st_mtime, folder.name))
