"""The folder `History` of the tab `Memory`: undo, redo, and branches of the world."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import viser

from scenegen.world.world import World
from viewer.telling import guarded, plain

if TYPE_CHECKING:
    from viewer.visitor import Visitor

LINES = 8
"""Lines of the journal that are shown, newest first."""
NOWHERE = "switch to ..."


class HistoryPanel:
    """The controls of one visitor."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        gui = visitor.client.gui
        with gui.add_folder("History", expand_by_default=False):
            undo = gui.add_button("Undo", icon=viser.Icon.ARROW_BACK_UP)
            redo = gui.add_button("Redo", icon=viser.Icon.ARROW_FORWARD_UP)
            self._branches = gui.add_dropdown("Branch", [str(NOWHERE)])
            self._name = gui.add_text("New branch", "")
            start = gui.add_button("Start it here", icon=viser.Icon.GIT_BRANCH)
            self._log = gui.add_markdown("")
        for handle, action in ((undo, self._undo), (redo, self._redo), (start, self._start)):
            handle.on_click(guarded(action))
        self._branches.on_update(guarded(self._switch))
        visitor.command("Undo", "Z", self._undo, "cmd/ctrl")
        visitor.command("Redo", "Z", self._redo, "cmd/ctrl+shift")

    def refresh(self, world: World) -> None:
        """Say where the world is."""
        journal = world.journal
        self._branches.options = [NOWHERE, *sorted(journal.branches)]
        self._branches.value = NOWHERE
        lines = "\n".join(f"- {plain(line)}" for line in world.log()[:LINES])
        on = f"On branch **{plain(journal.branch)}**." if journal.branch else "On no branch."
        self._log.content = f"{on}\n\n{lines}"

    def _undo(self, event: Any) -> None:
        self._visitor.edit("Undoing", lambda world: world.undo())

    def _redo(self, event: Any) -> None:
        self._visitor.edit("Redoing", lambda world: world.redo())

    def _start(self, event: Any) -> None:
        name = self._name.value.strip()
        self._visitor.edit("Starting a branch", lambda world: world.branch(name))

    def _switch(self, event: Any) -> None:
        name = self._branches.value
        if name != NOWHERE:
            self._visitor.edit(f"Switching to {name}", lambda world: world.switch(name))
