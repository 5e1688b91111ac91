"""The viewer in a real browser: upright, not mirrored, and W walks forward.

The browser is driven through its DevTools protocol, with real key presses.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import viser
from browser import HEIGHT, NEEDS_BROWSER, WIDTH, Complaints, Page, keep, wait_for
from jaxtyping import UInt8
from viewer_parts import CAMERA, world

from renderers import Camera, Splats, join, make_renderer
from spatial_memory import ViewMemory
from viewer import ViewerApp
from viewer.cameras import pose_of
from viewer.navigation import share_query

pytestmark = NEEDS_BROWSER


def wall(
    corner: tuple[float, float, float],
    along: tuple[float, float, float],
    up: tuple[float, float, float],
    count: int,
    color: tuple[float, float, float],
) -> Splats:
    """``count`` x ``count`` round splats that fill a parallelogram, in one colour."""
    a, b = torch.tensor(along), torch.tensor(up)
    steps = (torch.arange(count) + 0.5) / count
    i, j = torch.meshgrid(steps, steps, indexing="ij")
    means = torch.tensor(corner) + i.reshape(-1, 1) * a + j.reshape(-1, 1) * b
    sigma = 0.6 * max(float(a.norm()), float(b.norm())) / count
    n = count * count
    return Splats(
        means=means,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4).clone(),
        scales=torch.full((n, 3), sigma),
        opacities=torch.full((n,), 0.97),
        colors=torch.tensor(color).expand(n, 3).clone(),
    )


RED, BLUE, GREEN = (0.85, 0.1, 0.1), (0.1, 0.15, 0.85), (0.1, 0.6, 0.15)
WHITE, YELLOW = (0.95, 0.95, 0.95), (0.9, 0.8, 0.1)
DISTANCE, SIZE = 12.0, 4.5
"""Of the two blocks, in metres: far enough that a long press of W does not pass them."""


def small_world() -> Any:
    """Red block left, blue block right, green ground below, white sky above: 10,600 splats."""
    chunks = (
        wall((-12.0, 2.4, 2.0), (24.0, 0.0, 0.0), (0.0, 0.0, 22.0), 70, GREEN),
        wall((-30.0, -22.0, 24.0), (60.0, 0.0, 0.0), (0.0, 24.4, 0.0), 50, WHITE),
        wall((-6.0, -3.3, DISTANCE), (SIZE, 0.0, 0.0), (0.0, SIZE, 0.0), 40, RED),
        wall((2.4, -3.3, DISTANCE), (SIZE, 0.0, 0.0), (0.0, SIZE, 0.0), 40, BLUE),
    )
    camera = Camera.from_fov(80.0, WIDTH, HEIGHT)
    steps = tuple(
        SimpleNamespace(id=k, camera=camera, provenance="observed") for k in range(len(chunks))
    )
    seen = make_renderer("cpu").render(join(chunks), camera)
    depth = torch.where(seen.alpha > 0.9, seen.depth, torch.nan)
    memory = ViewMemory()
    memory.write(seen.rgb, depth, camera)
    return SimpleNamespace(
        chunks=chunks, steps=steps, camera0=camera, folder=Path("blocks"), memory=memory,
        sky_radius=60.0, eye_height=1.6,
    )  # fmt: skip


def paint(picture: UInt8[np.ndarray, "h w 3"], color: tuple[float, float, float]) -> np.ndarray:
    """Pixels of about one colour."""
    return np.abs(picture / 255.0 - np.array(color)).max(axis=-1) < 0.13


def box(mask: np.ndarray) -> np.ndarray:
    """Left, top, right and bottom of a mask, in pixels."""
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


HIDE_PANELS = """
document.getElementById('bare') !== null || document.head.insertAdjacentHTML(
    'beforeend', '<style id=bare>body * {visibility: hidden} canvas {visibility: visible}</style>')
"""


class Visit:
    """An application with one visitor, and every place where the visitor stood."""

    def __init__(self, profile: Path) -> None:
        self.complaints = Complaints()
        self.app = ViewerApp(port=0)
        self.app.show_world(small_world())
        self.places: list[np.ndarray] = []
        self.app.server.on_client_connect(self._follow)
        self.page = Page(profile)
        self.open()

    def open(self) -> None:
        """Load the page, and unfold its panel: a tap is lost where the panel moves."""
        self.page.open(self.app.url)

        def unfolded() -> bool:
            if "walls stop you" not in (self.page.text() or ""):
                self.page.fold()
                time.sleep(1.5)
            return "walls stop you" in (self.page.text() or "")

        wait_for(unfolded, "the panel")

    def _follow(self, client: viser.ClientHandle) -> None:
        self._note_place(client.camera)
        client.camera.on_update(self._note_place)

    def _note_place(self, camera: viser.CameraHandle) -> None:
        self.places.append(camera.position.copy())

    def picture(self, color: tuple[float, float, float] = RED) -> UInt8[np.ndarray, "h w 3"]:
        """The canvas alone, once it shows a colour and stands still."""
        last = self.page.screenshot()

        def still() -> Any:
            nonlocal last
            bare = self.page.ask(HIDE_PANELS)
            before, last = last, self.page.screenshot()
            moved = np.abs(before.astype(int) - last).max()
            return bare and paint(last, color).sum() > 200 and moved < 3

        wait_for(still, f"a still picture with {color}")
        self.page.ask("document.getElementById('bare').remove()")
        return last

    def walked(self) -> float:
        """How far the visitor walked forward from the photograph, in metres."""
        return float(self.places[-1][2])


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visit]:
    guest = Visit(tmp_path_factory.mktemp("chrome"))
    try:
        yield guest
    finally:
        guest.page.close()
        guest.app.close()
        guest.complaints.stop()


def test_first_picture_is_the_photograph(visit: Visit) -> None:
    """Upright, not mirrored, with the lens of the photograph: blocks lie where the camera says."""
    picture = visit.picture()
    keep(picture, "viewer_first.png")
    camera = small_world().camera0
    for color, left in ((RED, -6.0), (BLUE, 2.4)):
        corners = torch.tensor([[left, -3.3, DISTANCE], [left + SIZE, -3.3 + SIZE, DISTANCE]])
        wanted = camera.project(corners)[0].flatten().numpy()
        np.testing.assert_allclose(box(paint(picture, color)), wanted, atol=4)
    rows = np.arange(HEIGHT)
    green, white = (paint(picture, color).sum(1) for color in (GREEN, WHITE))
    assert (rows * white).sum() / white.sum() < HEIGHT / 2 < (rows * green).sum() / green.sum()
    assert white.sum() > 0.2 * picture[..., 0].size
    assert green.sum() > 0.2 * picture[..., 0].size
    assert visit.page.complaints() == []


def test_panel_tells_what_is_shown(visit: Visit) -> None:
    words = ("Back to the photograph", "walls stop you", "10,600 splats in 4 steps")
    wait_for(lambda: all(word in visit.page.text() for word in words), "the panel")
    text = visit.page.text()
    assert "blocks" in text
    assert "Share" not in text


def test_w_walks_forward_and_r_walks_back(visit: Visit) -> None:
    before = visit.picture()
    wait_for(lambda: visit.places, "the first word from the browser")
    assert abs(visit.walked()) < 1e-6

    def step() -> bool:
        """A tap of W. A page that draws once in seconds leaps: then back, and again."""
        visit.page.hold_key("w", 0.15)
        wait_for(lambda: visit.walked() > 0.02, "a step forward")
        time.sleep(0.5)  # whatever is under way comes to an end
        if 0.1 < visit.walked() < DISTANCE / 2:
            return True
        visit.page.hold_key("r", 0.1)
        wait_for(lambda: abs(visit.walked()) < 1e-6, "the way back")
        return False

    wait_for(step, "a step of some length")
    after = visit.picture()
    keep(after, "viewer_walked.png")
    assert np.abs(visit.places[-1][:2]).max() < 1e-3
    growth = DISTANCE / (DISTANCE - visit.walked())
    middle = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]) / 2
    for color in (RED, BLUE):
        wanted = middle + (box(paint(before, color)) - middle) * growth
        wanted = wanted.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        np.testing.assert_allclose(box(paint(after, color)), wanted, atol=4)

    visit.page.hold_key("r", 0.1)
    wait_for(lambda: abs(visit.walked()) < 1e-6, "the way back")
    assert np.abs(visit.picture().astype(int) - before).mean() < 1.0
    assert visit.page.complaints() == []


def test_w_stops_at_a_wall_and_feet_stay_on_the_ground(visit: Visit) -> None:
    """From 1.2 m before the red block; eyes 2.4 m above ground, radius 0.25 m."""
    (person,) = wait_for(lambda: visit.app.visitors, "a visitor")
    wait_for(lambda: person.walker.here, "the visitor to arrive")
    start = small_world().camera0.moved(right=-3.75, forward=DISTANCE - 1.2)
    person.walker.go_to(pose_of(start))
    wait_for(lambda: abs(visit.places[-1][0] + 3.75) < 1e-3, "the jump")
    visit.places.clear()
    visit.page.hold_key("w", 2.5)
    stop = DISTANCE - 0.25
    wait_for(lambda: visit.places and abs(visit.walked() - stop) < 0.1, "the stop at the wall")
    stage = visit.app.stage

    def above_ground() -> float:
        x, y, z = person.walker.camera.center.tolist()
        return stage.terrain.ground((x, y, z), stage.body) - y

    wait_for(lambda: abs(above_ground() - stage.body.eye_height) < 0.05, "feet on the ground")
    keep(visit.picture(), "viewer_wall.png")
    visit.page.hold_key("r", 0.1)
    wait_for(lambda: abs(visit.walked()) < 1e-6, "the way back")
    assert visit.page.complaints() == []


def test_question_mark_tells_the_keys(visit: Visit) -> None:
    wait_for(lambda: "walls stop you" in visit.page.text(), "the panel")
    visit.page.hold_key("?", 0.1, shift=True)
    wait_for(lambda: "all commands" in visit.page.text(), "the note on keys")
    keep(visit.page.screenshot(), "viewer_keys.png")
    visit.page.click("Close")
    wait_for(lambda: "all commands" not in visit.page.text(), "the note to go")
    visit.page.hold_key("2", 0.1)
    wait_for(lambda: "through everything" in visit.page.text(), "flying")
    visit.page.click("walk")
    wait_for(lambda: "walls stop you" in visit.page.text(), "walking")


def test_walks_after_a_box_was_clicked(visit: Visit) -> None:
    visit.picture()
    visit.page.click("Photo frame")
    wait_for(lambda: visit.app.panel.show_camera.value, "the frame to be asked for")

    def step() -> bool:
        visit.page.hold_key("w", 0.3)
        time.sleep(0.5)
        return visit.walked() > 0.02

    wait_for(step, "a step forward")
    visit.page.click("Photo frame")
    visit.app.visitors[0].go_home()
    wait_for(lambda: abs(visit.walked()) < 1e-6, "the way back")


def test_chunk_added_later_appears(visit: Visit) -> None:
    yellow = wall((-1.2, -1.2, 9.0), (2.4, 0.0, 0.0), (0.0, 2.4, 0.0), 20, YELLOW)
    visit.app.add_chunk("late", yellow)
    corners = torch.tensor([[-1.2, -1.2, 9.0], [1.2, 1.2, 9.0]])
    wanted = small_world().camera0.project(corners)[0].flatten().numpy()
    np.testing.assert_allclose(box(paint(visit.picture(YELLOW), YELLOW)), wanted, atol=4)
    assert visit.page.complaints() == []


def test_bookmark_outlives_a_reload(visit: Visit) -> None:
    (person,) = visit.app.visitors
    person.walker.step(0.5, 0.25, 0.0)
    visit.page.hold_key("b", 0.1)
    wait_for(lambda: "View 1 is in the list" in visit.page.text(), "the notification")
    visit.open()
    again = wait_for(lambda: [v for v in visit.app.visitors if v is not person], "a visitor")[0]
    wait_for(lambda: again.walker.here, "the visitor to arrive")
    wait_for(lambda: "View 1" in again.move.bookmarks, "the bookmark")
    wait_for(lambda: "Bookmarks" in visit.page.text(), "the list")
    np.testing.assert_allclose(again.move.bookmarks["View 1"].position, [0.25, 0, 0.5], atol=1e-3)


def test_link_opens_where_it_says(tmp_path: Path) -> None:
    place = CAMERA.moved(right=0.5, forward=0.7, yaw_degrees=30)
    with ViewerApp(port=0) as app:
        app.show_world(world(30))
        page = Page(tmp_path)
        try:
            page.open(f"{app.url}/{share_query(pose_of(place))}")
            (person,) = wait_for(lambda: app.visitors, "a visitor")
            wait_for(lambda: person.walker.here, "the visitor to arrive")
            stands = person.walker.camera.cam_from_world
            torch.testing.assert_close(stands, place.cam_from_world, rtol=0, atol=1e-3)
        finally:
            page.close()


def test_nothing_went_wrong_on_the_server(visit: Visit) -> None:
    assert visit.complaints.heard == []
