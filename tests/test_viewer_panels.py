"""What the panel keeps and shows for one visitor, without a browser."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import viser
from viewer_parts import CAMERA

from viewer import bookmarks
from viewer.cameras import pose_of
from viewer.panels.moving import GO_TO, MovePanel
from viewer.panels.remembering import CLEAR, MemoryPanel


def test_bookmarks_survive_the_browser() -> None:
    marks = {f"View {n}": pose_of(CAMERA.moved(forward=n, yaw_degrees=20.0 * n)) for n in (1, 2)}
    held = bookmarks.unpacked(bookmarks.packed(marks))
    assert list(held) == ["View 1", "View 2"]
    for name, pose in held.items():
        np.testing.assert_array_equal(pose.position, marks[name].position)
        np.testing.assert_array_equal(pose.look_at, marks[name].look_at)
        np.testing.assert_array_equal(pose.up, marks[name].up)
        assert pose.fov == marks[name].fov


GOOD = [0, 0, 0, 0, 0, 1, 0, -1, 0, 1.0]


@pytest.mark.parametrize(
    "row",
    [
        GOOD[:9],
        [float("nan"), *GOOD[1:]],
        [0, 0, 0, 0, 0, 0, 0, -1, 0, 1.0],  # looks nowhere
        [0, 0, 0, 0, 1, 0, 0, -1, 0, 1.0],  # looks along its up
        [*GOOD[:9], 4.0],
        ["a"] * 10,
        [[0]] * 10,
        "View",
        None,
    ],
)
def test_what_is_no_bookmark_is_left_out(row: Any) -> None:
    held = bookmarks.unpacked(json.dumps({"bad": row}))
    assert held == {}


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "3", '"x"'])
def test_storage_that_holds_something_else_holds_no_bookmarks(text: str | None) -> None:
    assert bookmarks.unpacked(text) == {}


def test_no_more_bookmarks_are_believed_than_there_can_be() -> None:
    rows = {f"View {n}": GOOD for n in range(bookmarks.MOST + 5)}
    assert list(bookmarks.unpacked(json.dumps(rows)))[-1] == f"View {bookmarks.MOST + 4}"
    assert len(bookmarks.unpacked(json.dumps(rows))) == bookmarks.MOST


def test_each_world_has_bookmarks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that was visited can be chosen again: the list goes back to its first line."""
    stored: dict[str, str] = {}
    client = MagicMock(spec=viser.ClientHandle)
    client.gui, client.local_storage = MagicMock(), MagicMock()
    client.local_storage.set_item = stored.__setitem__
    client.local_storage.get_item = lambda key, timeout: stored.get(key)
    visitor = SimpleNamespace(
        client=client,
        stage=SimpleNamespace(name="lane"),
        walker=SimpleNamespace(camera=CAMERA, mode="walk", go_to=MagicMock()),
        command=lambda *rest: None,
    )
    panel = MovePanel(visitor)  # type: ignore[arg-type]
    monkeypatch.setattr("threading.Thread.start", lambda thread: thread.run())
    panel.refresh()
    panel._bookmark(None)
    panel._bookmark(None)
    assert list(panel.bookmarks) == ["View 1", "View 2"]
    visitor.stage.name = "room"
    panel.refresh()
    assert panel.bookmarks == {}
    visitor.stage.name = "lane"
    panel.refresh()
    assert list(panel.bookmarks) == ["View 1", "View 2"]
    panel._places.value = "View 2"
    panel._visit(None)
    assert visitor.walker.go_to.called
    assert panel._places.value == GO_TO


def test_views_around_the_visitor_are_not_shown_in_space() -> None:
    """Standing in one, its picture would be all that is seen."""
    panel = object.__new__(MemoryPanel)
    near, far = (SimpleNamespace(position=(x, 0.0, 0.0), visible=True) for x in (0.0, CLEAR + 0.1))
    panel._frusta = [near, far]  # type: ignore[list-item]
    panel.looked(np.zeros(3))
    assert (near.visible, far.visible) == (False, True)
    panel.looked(np.array([CLEAR + 0.1, 0.0, 0.0]))
    assert (near.visible, far.visible) == (True, False)
