"""What is seen before the page runs its scripts, and what is loaded before that: very little."""

from __future__ import annotations

import base64
import gzip
import io
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import HANDLE, NEEDS_BROWSER, Page, keep, wait_for
from PIL import Image
from viewer_parts import seen_world, world
from websockets import Headers, Response

from scenegen.image.picture import Picture
from viewer import ViewerApp
from viewer.greeting import greet
from viewer.page import BACKGROUND, FirstSight
from viewer.server import LocalServer, address_of, quiet_console, start_server

HTML = b"<!doctype html><html><head><title>t</title></head><body></body></html>"
BRICK = (180, 60, 30)


def page(zipped: bool = False) -> Response:
    kind = {"Content-Encoding": "gzip"} if zipped else {}
    return Response(200, "OK", Headers(kind), gzip.compress(HTML) if zipped else HTML)


def brick(width: int = 96, height: int = 64) -> np.ndarray:
    return np.full((height, width, 3), BRICK, np.uint8)


def said(first: FirstSight, path: str, zipped: bool = False) -> str:
    answer = first.answer(path, page(zipped))
    assert answer is not None
    assert answer.headers["Content-Length"] == str(len(answer.body or b""))
    return bytes(answer.body or b"").decode()


@pytest.mark.parametrize("zipped", [False, True])
def test_page_is_dark_until_there_is_a_photograph(zipped: bool) -> None:
    first = FirstSight()
    assert f"rgb{BACKGROUND}" in said(first, "/", zipped)
    assert "image/jpeg" not in said(first, "/", zipped)
    first.show(brick())
    assert "url(data:image/jpeg;base64," in said(first, "/?a=1", zipped)
    assert said(first, "/", zipped).endswith("</head><body></body></html>")
    first.show(None)
    assert "image/jpeg" not in said(first, "/", zipped)


def test_link_to_a_view_does_not_begin_with_the_photograph() -> None:
    first = FirstSight()
    first.show(brick())
    assert "image/jpeg" not in said(first, "/?initialCameraPosition=0.0000,0.0000,1.0000")


def test_other_answers_stay_as_they_are() -> None:
    first = FirstSight()
    first.show(brick())
    missing = Response(404, "NOT FOUND", Headers(), b"<head>")
    assert first.answer("/", None) is None
    assert first.answer("/", missing) is missing
    assert first.answer("/other.html", other := page()) is other


@pytest.fixture
def server() -> Iterator[LocalServer]:
    made = start_server("127.0.0.1", 0)
    try:
        yield made
    finally:
        with quiet_console():
            made.stop()


def greeted(server: LocalServer) -> None:
    colours = brick().astype(np.float32) / 255
    greet(server, Picture(colours, None, "not stated", "brick.png", (96, 64)))


def test_photograph_is_in_the_page_that_is_served(server: LocalServer) -> None:
    greeted(server)
    with urllib.request.urlopen(address_of(server), timeout=20) as answer:
        html = answer.read().decode()
    photo = html.partition("base64,")[2].partition(")")[0]
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(photo))))
    assert np.abs(picture.astype(int) - BRICK).max() < 4
    assert len(html) > 500_000  # and so is viser's own


def bricks(picture: np.ndarray) -> int:
    return int((np.abs(picture.astype(int) - BRICK).max(-1) < 8).sum())


class TestBrowser:
    pytestmark = NEEDS_BROWSER

    def test_photograph_is_seen_without_scripts_and_stays_where_it_is(
        self, server: LocalServer, tmp_path: Path
    ) -> None:
        """As high as the window: 450 of 480 columns. The scene then shows it in the same place."""
        greeted(server)
        tab = Page(tmp_path / "chrome")
        try:
            tab.call("Emulation.setScriptExecutionDisabled", value=True)
            tab.open(address_of(server))
            seen = 450 * 300
            wait_for(lambda: bricks(tab.screenshot()) > 0.98 * seen, "the photograph")
            assert bricks(tab.screenshot()) <= seen
            tab.call("Emulation.setScriptExecutionDisabled", value=False)
            tab.open(address_of(server))
            wait_for(lambda: "Waking up" in tab.text(), "the panel")
            tab.ask("document.documentElement.style.background = 'none'")
            wait_for(lambda: bricks(tab.screenshot()) > 0.5 * seen, "the scene to show it")
            keep(tab.screenshot(), "viewer_greeting.png")
            assert tab.complaints() == []
        finally:
            tab.close()

    def test_phone_begins_with_the_picture_and_walks_by_touch(self, tmp_path: Path) -> None:
        """The panel is a line at the lower edge; open, it leaves half of the picture free."""
        with ViewerApp(port=0) as app:
            app.show_world(seen_world())
            tab = Page(tmp_path / "chrome", 360, 640, phone=True)
            try:
                tab.open(app.url)
                (person,) = wait_for(lambda: app.visitors, "a visitor")
                wait_for(lambda: person.walker.here, "the visitor to arrive")
                assert tab.ask("document.title") == "scenegen"
                top = lambda: tab.ask(HANDLE)[1]  # noqa: E731
                wait_for(lambda: top() > 640 - 60, "the panel to fold")
                keep(tab.screenshot(), "viewer_phone.png")
                box = "document.querySelector('[aria-label=forward]').getBoundingClientRect()"
                forward = tab.ask(f"(() => {{ const b = {box}; return [b.x + 9, b.y + 9] }})()")

                def walked() -> float:
                    return float(person.walker.camera.center[2])

                tab.touch(*forward, seconds=0.3)
                wait_for(lambda: walked() > 0.1, "a step forward")
                time.sleep(1.0)
                rest = walked()
                time.sleep(1.0)
                assert walked() == rest  # nobody walks on when the finger is gone
                tab.fold()
                wait_for(lambda: 640 * 0.5 < top() < 640 * 0.7, "the panel to unfold")
                keep(tab.screenshot(), "viewer_phone_panel.png")
                tab.fold()
                wait_for(lambda: top() > 640 - 60, "the panel to fold again")
                assert tab.complaints() == []
            finally:
                tab.close()

    def test_tab_comes_back_to_a_server_started_anew(self, tmp_path: Path) -> None:
        """By another program on the same port, then by this one: nobody touches the tab."""
        app = ViewerApp(port=0)
        port = app.server.get_port()
        tab = Page(tmp_path / "chrome", 640, 420)
        other = None
        try:
            app.show_world(world(30))
            tab.open(app.url)
            (person,) = wait_for(lambda: app.visitors, "a visitor")
            wait_for(lambda: person.walker.here, "the visitor to arrive")

            person.walker.step(1.5, 0.0, 0.0)  # away from the photograph
            heard: list[float] = []
            person.client.camera.on_update(lambda camera: heard.append(camera.position[2]))
            wait_for(lambda: heard and heard[-1] > 1.4, "the browser to follow")
            app.close()
            code = (
                "import sys; from viewer import ViewerApp; from viewer_parts import world;"
                "app = ViewerApp(port=int(sys.argv[1])); app.show_world(world(30, 12)); app.wait()"
            )
            other = subprocess.Popen(
                [sys.executable, "-c", code, str(port)], cwd=Path(__file__).parent
            )
            wait_for(lambda: "42 splats in 2 steps" in tab.text(), "the other server's world")
            other.terminate()
            other.wait(20)
            app = ViewerApp(port=port)
            app.show_world(world(30, 12, 7))
            wait_for(lambda: "49 splats in 3 steps" in tab.text(), "this server's world again")
            (person,) = wait_for(lambda: app.visitors, "the visitor to come back")
            wait_for(lambda: person.walker.here, "the visitor to arrive")
            assert float(person.walker.camera.center.norm()) < 0.01  # at the photograph
            lost = "net::ERR_CONNECTION_REFUSED"
            assert [error for error in tab.complaints() if lost not in error] == []
        finally:
            tab.close()
            app.close()
            if other is not None:
                other.kill()


def test_nothing_heavy_is_loaded_before_the_photograph_is_shown() -> None:
    code = (
        "import sys, viewer; viewer.view_photo;"
        "print({'torch', 'numba', 'scipy', 'trimesh', 'kornia'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
