"""The tab `Move`: how to move, where to go back to, and a link that brings others there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import viser

from viewer import bookmarks, navigation
from viewer.cameras import pose_of
from viewer.navigation import Pose
from viewer.telling import guarded, tell
from viewer.walker import MODES, Mode

if TYPE_CHECKING:
    from viewer.visitor import Visitor

SPEEDS = {"slow": 0.5, "easy": 1.0, "brisk": 2.0, "fast": 4.0}
"""Metres per second."""
STRIDE, TURN = 0.25, 15.0
"""What one press of a button moves, in metres, and turns, in degrees."""
GO_TO = "go to ..."
ARROWS = {
    "⟲": (0.0, 0.0, -TURN),
    "▲": (STRIDE, 0.0, 0.0),
    "▼": (-STRIDE, 0.0, 0.0),
    "⟳": (0.0, 0.0, TURN),
}
"""For phones, which have no keys: forward and right in metres, turn to the right in degrees."""
ABOUT = {
    "walk": "on the ground, at eye height; walls stop you",
    "fly": "up and down as well, through everything",
    "orbit": "around what is ahead; the wheel goes nearer",
}


class MovePanel:
    """The controls of one visitor."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._marks: dict[str, Pose] = {}
        self._world = ""
        gui = visitor.client.gui
        self._mode = gui.add_button_group("Mode", MODES)
        self._about = gui.add_markdown("")
        self._speed = gui.add_dropdown("Speed", tuple(SPEEDS), initial_value="brisk")
        self._arrows = gui.add_button_group("Step", tuple(ARROWS))
        home = gui.add_button("Back to the photograph", icon=viser.Icon.HOME)
        mark = gui.add_button("Bookmark this view", icon=viser.Icon.BOOKMARK)
        self._places = gui.add_dropdown("Bookmarks", [str(GO_TO)], visible=False)
        link = gui.add_button("Link to this view", icon=viser.Icon.LINK)
        self._link = gui.add_text("Link", "", visible=False)
        help_ = gui.add_button("Keys", icon=viser.Icon.KEYBOARD)
        self._mode.on_click(guarded(lambda event: self.set_mode(event.target.value)))
        self._speed.on_update(guarded(self._set_speed))
        self._arrows.on_click(guarded(self._step))
        self._places.on_update(guarded(self._visit))
        for button, action in (
            (home, self._go_home),
            (mark, self._bookmark),
            (link, self._show_link),
            (help_, self.show_help),
        ):
            button.on_click(guarded(action))
        self._commands()
        self._describe()

    def _commands(self) -> None:
        keys: list[tuple[str, str, Any]] = [
            ("Back to the photograph", "R", self._go_home),
            ("Bookmark this view", "B", self._bookmark),
            ("Slower", ",", lambda event: self._faster(-1)),
            ("Faster", ".", lambda event: self._faster(1)),
        ]
        for number, mode in enumerate(MODES, 1):
            keys.append((f"{mode.capitalize()}: {ABOUT[mode]}", str(number), self._moder(mode)))
        for label, key, action in keys:
            self._visitor.command(label, key, action)
        self._visitor.command("Keys", "?", self.show_help, "shift")

    @property
    def bookmarks(self) -> dict[str, Pose]:
        """Views that the visitor wants to come back to, by name."""
        return dict(self._marks)

    def _moder(self, mode: Mode) -> Any:
        return lambda event: self.set_mode(mode)

    def set_mode(self, mode: Mode) -> None:
        """Move otherwise from now on."""
        self._visitor.walker.set_mode(mode)
        self._describe()

    def show_help(self, event: Any) -> None:
        """Say which keys there are."""
        gui = self._visitor.client.gui
        with gui.add_modal("Keys") as modal:
            gui.add_markdown(navigation.KEYS)
            close = gui.add_button("Close")
        close.on_click(guarded(lambda event: modal.close()))

    def _describe(self) -> None:
        mode = self._visitor.walker.mode
        self._about.content = f"**{mode.capitalize()}**: {ABOUT[mode]}"

    def _set_speed(self, event: Any) -> None:
        self._visitor.walker.speed = SPEEDS[self._speed.value]

    def _faster(self, by: int) -> None:
        names = list(SPEEDS)
        at = names.index(self._speed.value) + by
        self._speed.value = names[min(max(at, 0), len(names) - 1)]
        self._visitor.walker.speed = SPEEDS[self._speed.value]

    def _step(self, event: Any) -> None:
        self._visitor.walker.step(*ARROWS[event.target.value])

    def _go_home(self, event: Any) -> None:
        self._visitor.go_home()
        self._describe()

    def refresh(self) -> None:
        """Another world may be shown: it has bookmarks of its own."""
        world = self._visitor.stage.name
        if world != self._world:
            self._world = world
            self._list({})
            threading.Thread(target=self._recall, args=(world,), daemon=True).start()

    def _recall(self, world: str) -> None:
        marks = bookmarks.recall(self._visitor.client, world)
        if world == self._world:
            self._list({**marks, **self._marks})

    def _list(self, marks: dict[str, Pose]) -> None:
        self._marks = marks
        self._places.options = (GO_TO, *marks)
        self._places.value = GO_TO
        self._places.visible = bool(marks)

    def _bookmark(self, event: Any) -> None:
        number = 1
        while f"View {number}" in self._marks:
            number += 1
        name = f"View {number}"
        marks = {**self._marks, name: pose_of(self._visitor.walker.camera)}
        self._list(dict(list(marks.items())[-bookmarks.MOST :]))
        bookmarks.keep(self._visitor.client, self._world, self._marks)
        tell(self._visitor.client, "Bookmarked", f"{name} is in the list of bookmarks.", 4.0)

    def _visit(self, event: Any) -> None:
        pose = self._marks.get(self._places.value)
        if pose is not None:
            self._visitor.walker.go_to(pose)
            self._places.value = GO_TO  # so that it can be chosen again

    def _show_link(self, event: Any) -> None:
        pose = pose_of(self._visitor.walker.camera)
        self._link.value = self._visitor.host.url + "/" + navigation.share_query(pose)
        self._link.visible = True
