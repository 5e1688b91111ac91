"""From the start page into a world that grows, in a real browser with real uploads and clicks."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from browser import NEEDS_BROWSER, PATIENCE, Complaints, Page, keep, wait_for
from PIL import Image
from viser._messages import FileTransferPartAck

import scenegen
from scenegen.world.sketches import SEEN
from viewer import ViewerApp
from viewer.panels.starting import StartPanel
from viewer.visitor import Visitor

pytestmark = NEEDS_BROWSER
NAME = "blocks-sky"
"""Of the world that is made of the photograph."""
QUICK = {"quality": "draft", "extent": "photo", "depth": "prior", "outpaint": "patch"}


class Start:
    """The start page with one visitor."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.complaints = folder, Complaints()
        for name in ("worlds", "photos"):
            (folder / name).mkdir()
        self.app = ViewerApp(port=0, budget=6000)
        StartPanel(self.app, folder / "worlds", folder / "photos", QUICK)
        self.page = Page(folder / "chrome", 640, 420)
        self.page.open(self.app.url)
        wait_for(lambda: self.app.visitors, "a visitor")

    def photo(self, name: str = "Blocks & sky.jpg") -> Path:
        """Sky above, ground below, an orange block in front."""
        pixels = np.zeros((150, 200, 3), np.uint8)
        pixels[:80] = (150, 190, 235)
        pixels[80:] = (70, 110, 60)
        pixels[50:120, 80:130] = (230, 120, 20)
        pixels += np.random.default_rng(0).integers(0, 12, pixels.shape, dtype=np.uint8)
        Image.fromarray(pixels).save(self.folder / name, quality=95)
        return self.folder / name

    def says(self, words: str) -> None:
        wait_for(lambda: words in self.page.text(), f"the page to say {words!r}")

    def open_tab(self, name: str, words: str) -> None:
        """Click a tab until its words are there: the panel may move under the mouse."""

        def open_now() -> bool:
            self.page.click(name)
            time.sleep(0.3)
            return words in self.page.text()

        wait_for(open_now, f"the tab {name}")

    def grown(self) -> int:
        return self.app.steps

    @property
    def person(self) -> Visitor:
        """The only visitor, who has arrived where there is a world."""
        (person,) = wait_for(lambda: len(self.app.visitors) == 1 and self.app.visitors, "a visitor")
        wait_for(lambda: person.walker.here or not self.app.steps, "the visitor to arrive")
        return person

    def settle(self) -> None:
        """Whatever the test before left behind: nothing goes on, one visitor, at home."""
        self.app.jobs.cancel()
        assert self.app.jobs.wait(PATIENCE)
        if self.page.closed:
            self.page = Page(self.folder / f"chrome{time.monotonic_ns()}", 640, 420)
            self.page.open(self.app.url)
        person = self.person
        if self.app.steps:
            person.go_home()

    def show(self, world: Path) -> None:
        """Show a copy of a world, if no world is shown."""
        if self.app.stage.world is None:
            copy = shutil.copytree(world, self.folder / "worlds" / NAME)
            self.app.show_world(scenegen.open(copy))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    visit = Start(tmp_path_factory.mktemp("start"))
    try:
        yield visit
    finally:
        visit.page.close()
        visit.app.close()
        visit.complaints.stop()


@pytest.fixture
def start(place: Start) -> Start:
    """The start page, and whatever was made there."""
    place.settle()
    return place


@pytest.fixture
def inside(start: Start, grown_world: Path) -> Start:
    """The same with a world: a test that fails does not fail those after it."""
    start.show(grown_world)
    return start


def orange(picture: np.ndarray) -> int:
    """Pixels of the block's colour."""
    return int((np.abs(picture.astype(int) - (235, 125, 25)).max(-1) < 40).sum())


def test_wrong_uploads_become_notifications(start: Start) -> None:
    start.says("A photograph becomes a world")
    text, cut, huge = (start.folder / name for name in ("text.jpg", "cut.jpg", "huge.jpg"))
    text.write_text("This is no photograph.")
    cut.write_bytes(start.photo().read_bytes()[:700])
    with huge.open("wb") as file:
        file.truncate(100_000_000)
    for wrong, words in ((text, "It holds text"), (cut, "cut.jpg"), (huge, "has 100 MB")):
        start.page.upload(wrong)
        start.says(words)
        start.app.jobs.wait(PATIENCE)
    keep(start.page.screenshot(), "viewer_refused.png")
    assert start.app.steps == 0
    assert list((start.folder / "worlds").iterdir()) == []
    assert list((start.folder / "photos").iterdir()) == []


def test_photograph_is_shown_first_and_becomes_a_world(start: Start) -> None:
    start.page.upload(start.photo())
    wait_for(lambda: orange(start.page.screenshot()) > 2000, "the photograph")
    wait_for(lambda: start.grown() > 0, "its world")
    acks = [m for m in start.app.server._websock_server._broadcast_buffer.message_from_id.values()
            if isinstance(m, FileTransferPartAck)]  # fmt: skip
    assert acks == []  # who comes later would be told of an upload
    assert start.app.jobs.wait(PATIENCE)
    assert [f.name for f in (start.folder / "worlds").iterdir()] == [NAME]
    wait_for(lambda: orange(start.page.screenshot()) > 1500, "the world")
    keep(start.page.screenshot(), "viewer_made.png")


def test_growing_fills_an_empty_edge(inside: Start) -> None:
    person = inside.person
    person.walker.step(0.0, 0.0, -14.0)
    wait_for(lambda: "unknown" in person.growing._grow.label, "growing to be offered")
    before = inside.grown()
    inside.page.hold_key("g", 0.1)
    wait_for(lambda: inside.grown() > before, "a step")
    assert inside.app.jobs.wait(PATIENCE)
    wait_for(lambda: "unknown" not in person.growing._grow.label, "nothing to be left to grow")


def test_undo_takes_it_away_and_redo_brings_it_back(inside: Start) -> None:
    person = inside.person
    grown = inside.grown()
    inside.page.hold_key("z", 0.1, ctrl=True)
    wait_for(lambda: inside.grown() == grown - 1, "the last step to go")
    assert inside.app.jobs.wait(PATIENCE)
    wait_for(lambda: len(person.splats._shown) == grown - 1, "its splats to go")
    inside.page.hold_key("z", 0.1, shift=True, ctrl=True)
    wait_for(lambda: inside.grown() == grown, "the step to come back")
    assert inside.app.jobs.wait(PATIENCE)
    person.memory._history._name.value = "elsewhere"
    person.memory._history._start(None)
    wait_for(lambda: "elsewhere" in person.memory._history._branches.options, "the branch")
    assert inside.app.jobs.wait(PATIENCE)


def blue(picture: np.ndarray) -> int:
    """Pixels of what was photographed, in the picture of provenance."""
    return int((np.abs(picture.astype(int) - np.array(SEEN) * 255).max(-1) < 12).sum())


def test_other_pictures_of_the_world_by_keys(inside: Start) -> None:
    """Key 7 is the fourth of six pictures: provenance. Evidence needs the memory."""
    person = inside.person
    inside.page.hold_key("7", 0.1)
    wait_for(lambda: blue(inside.page.screenshot()) > 3000, "what was photographed in blue")
    keep(inside.page.screenshot(), "viewer_provenance.png")
    inside.page.hold_key("9", 0.1)
    wait_for(lambda: "view 0" in person.showing._legend.content, "the evidence")
    assert "chosen" in person.memory._words.content
    inside.page.hold_key("4", 0.1)
    wait_for(lambda: blue(inside.page.screenshot()) < 500, "the world again")
    assert person.showing._map.visible


def test_views_are_pinned_and_places_erased(inside: Start) -> None:
    person = inside.person
    world: Any = inside.app.stage.world
    inside.open_tab("Memory", "Explain this view")
    inside.page.click("pin")
    inside.says("No view is chosen")
    person.memory._views.value = person.memory._views.options[-1]
    view_id = person.memory._chosen()
    inside.page.click("pin")
    wait_for(lambda: view_id in world.memory.pinned, "the pin")
    wait_for(lambda: "pinned" in person.memory._views.value, "the panel to say so")
    inside.page.click("forget")
    inside.says("cannot be forgotten")
    inside.page.click("unpin")
    wait_for(lambda: view_id not in world.memory.pinned, "the pin to go")
    inside.app.jobs.wait(PATIENCE)
    before = inside.app.stage.total
    person.memory._place_box(None)
    assert person.memory._box is not None
    person.memory._box[0].position = tuple(world.splats.means[100].tolist())
    person.memory._erase_box(SimpleNamespace(target=SimpleNamespace(value="erase")))
    assert inside.app.jobs.wait(PATIENCE)
    assert 0 < inside.app.stage.total < before
    assert inside.app.stage.total == sum(map(len, world.chunks))


def test_picture_film_and_file_are_taken_along(
    inside: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = inside.person
    files: dict[str, bytes] = {}
    take = lambda name, content, **_: files.update({name: content})  # noqa: E731
    monkeypatch.setattr(person.client, "send_file_download", take)
    inside.open_tab("Take", "Picture of this view")
    inside.page.click("Picture of this view")
    picture = wait_for(lambda: files.get(f"{NAME}.png"), "the picture")
    assert max(Image.open(io.BytesIO(picture)).size) == 1920
    inside.page.click("make")
    inside.says("There is no film yet")
    inside.page.hold_key("k", 0.1)
    wait_for(lambda: "1 so far" in person.taking._told.content, "a keyframe")
    person.walker.step(0.0, 0.0, 10.0)
    inside.page.hold_key("k", 0.1)
    wait_for(lambda: "2 so far" in person.taking._told.content, "another")
    monkeypatch.setattr("viewer.panels.taking.FILM_SIDE", 160)
    person.taking._seconds.value = 0.5
    inside.page.click("make")
    film = wait_for(lambda: files.get(f"{NAME}.mp4"), "the film")
    assert film[4:8] == b"ftyp"
    inside.app.jobs.wait(PATIENCE)
    inside.page.click("Export the world")
    splats = wait_for(lambda: files.get(f"{NAME}.ply"), "the file")
    assert f"element vertex {inside.app.stage.total}".encode() in splats[:400]
    inside.app.jobs.wait(PATIENCE)


def test_others_see_who_grows_and_anyone_can_cancel(
    inside: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step is held up until somebody has cancelled: it is kept, and no other is made."""
    made, go, add = threading.Event(), threading.Event(), inside.app.add_chunk

    def held_up(*chunk: Any) -> None:
        made.set()
        assert go.wait(PATIENCE)
        add(*chunk)

    monkeypatch.setattr(inside.app, "add_chunk", held_up)
    person = inside.person
    other = Page(inside.folder / "chrome2", 640, 420)
    try:
        other.open(inside.app.url)
        person.walker.step(0.0, 0.0, 120.0)
        before = inside.grown()
        inside.page.hold_key("g", 0.1)
        wait_for(lambda: inside.app.jobs.job is not None, "growth to begin")
        wait_for(lambda: f"Growing here ({person.name})" in other.text(), "the other to see it")
        wait_for(made.is_set, "the first step to be made")

        def cancel() -> bool:
            other.click("Cancel")  # again when the panel moved under the mouse, as people do
            time.sleep(0.5)
            return inside.app.jobs._stop.is_set()

        wait_for(cancel, "the wish to stop to arrive")
        go.set()
        assert inside.app.jobs.wait(PATIENCE)
        assert inside.grown() == before + 1
        second = next(v for v in inside.app.visitors if v is not person)
        chunks = {chunk.name for chunk in inside.app.stage.chunks}
        wait_for(lambda: set(second.splats._shown) == chunks, "both to see the same")
        assert set(person.splats._shown) == chunks
        assert other.complaints() == []
    finally:
        go.set()
        other.close()
        inside.app.jobs.wait(PATIENCE)


def test_leaving_while_it_grows_harms_nothing(inside: Start) -> None:
    person = inside.person
    assert inside.page.complaints() == []
    before = inside.grown()
    person.walker.step(0.0, 0.0, -60.0)
    person.grow()
    inside.page.close()
    wait_for(lambda: not inside.app.visitors, "nobody to be left")
    assert inside.app.jobs.wait(PATIENCE)
    assert inside.grown() >= before
    inside.page = Page(inside.folder / "chrome3", 640, 420)
    inside.page.open(inside.app.url)
    (again,) = wait_for(lambda: inside.app.visitors, "the visitor to come back")
    wait_for(lambda: again.splats.shown > 0, "the world")
    time.sleep(0.5)
    assert inside.page.complaints() == []
    assert inside.complaints.heard == []
