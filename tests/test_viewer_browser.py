"""The viewer in a real browser: upright, not mirrored, and W walks forward.

The browser is driven through its DevTools protocol, with real key presses.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import viser
from jaxtyping import UInt8
from PIL import Image
from websockets.sync.client import connect

from renderers import Camera, Splats
from viewer import ViewerApp

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --mute-audio "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--enable-unsafe-swiftshader --remote-debugging-port=0"
).split()
WIDTH, HEIGHT = 480, 300
PATIENCE = 45.0
"""Seconds to wait for a picture: software drawing on a busy machine is slow."""


def find_chrome() -> str | None:
    """A Chromium or Chrome on this machine."""
    named = os.environ.get("SCENEGEN_CHROME")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    return next((path for path in map(shutil.which, names) if path), None)


CHROME = find_chrome()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROME is None, reason="no Chromium or Chrome found; name one in SCENEGEN_CHROME"
    ),
]


class Page:
    """One browser tab, driven through the DevTools protocol."""

    def __init__(self, profile: Path, width: int = WIDTH, height: int = HEIGHT) -> None:
        command = [str(CHROME), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._socket = connect(self._find_tab(profile), max_size=None, compression=None)
        except BaseException:
            self._stop()
            raise
        self._number, self._loaded = 0, False
        self.errors: list[str] = []
        """What the page complained about."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def _find_tab(self, profile: Path) -> str:
        ports = profile / "DevToolsActivePort"
        wait_for(lambda: ports.is_file() and "\n" in ports.read_text(), "the browser to start")
        listing = f"http://127.0.0.1:{ports.read_text().split()[0]}/json/list"
        with urllib.request.urlopen(listing, timeout=10) as answer:
            tabs = json.load(answer)
        return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser for something and wait for its answer."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._note(json.loads(self._socket.recv(timeout=PATIENCE)))

    def _note(self, message: dict[str, Any]) -> None:
        method, params = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(str(params["entry"]))

    def screenshot(self) -> UInt8[np.ndarray, "h w 3"]:
        """What the tab shows now."""
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def hold_key(self, key: str, seconds: float) -> None:
        """Press a letter key for a while."""
        names = {"key": key, "code": f"Key{key.upper()}", "windowsVirtualKeyCode": ord(key.upper())}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=key, **names)
        time.sleep(seconds)
        self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    def close(self) -> None:
        self._socket.close()
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Ask again until the answer is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.1)
    pytest.fail(f"waited in vain for {what}")


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
    steps = tuple(SimpleNamespace(id=k, camera=camera) for k in range(len(chunks)))
    return SimpleNamespace(chunks=chunks, steps=steps, camera0=camera, folder=Path("blocks"))


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
        self.app = ViewerApp(port=0)
        self.app.show_world(small_world())
        self.places: list[np.ndarray] = []
        self.app.server.on_client_connect(
            lambda client: (
                client.camera.on_update(lambda camera: self.places.append(camera.position.copy()))
                and None
            )
        )
        self.page = Page(profile)
        self.page.open(self.app.url)

    def _follow(self, client: viser.ClientHandle) -> None:
        self._note_place(client.camera)
        client.camera.on_update(self._note_place)

    def _note_place(self, camera: viser.CameraHandle) -> None:
        self.places.append(camera.position.copy())

    def text(self) -> str:
        return self._ask("document.body.textContent")

    def picture(self, color: tuple[float, float, float] = RED) -> UInt8[np.ndarray, "h w 3"]:
        """The canvas alone, once it shows a colour and stands still."""
        last = self.page.screenshot()

        def still() -> Any:
            nonlocal last
            bare = self._ask(HIDE_PANELS)
            before, last = last, self.page.screenshot()
            moved = np.abs(before.astype(int) - last).max()
            return bare and paint(last, color).sum() > 200 and moved < 3

        wait_for(still, f"a still picture with {color}")
        return last

    def complaints(self) -> list[str]:
        """Errors of the page but viser's own: its splat quads have no z, which three.js reports."""
        own = "computeBoundingSphere(): Computed radius is NaN"
        return [error for error in self.page.errors if own not in error]

    def _ask(self, expression: str) -> Any:
        answer = self.page.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

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


def test_first_picture_is_the_photograph(visit: Visit) -> None:
    """Upright, not mirrored, with the lens of the photograph: blocks lie where the camera says."""
    picture = visit.picture()
    if folder := os.environ.get("SCENEGEN_SCREENSHOTS"):
        Image.fromarray(picture).save(Path(folder) / "viewer_first.png")
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
    assert visit.complaints() == []


def test_panel_tells_what_is_shown(visit: Visit) -> None:
    text = wait_for(lambda: "splats" in visit.text() and visit.text(), "the panel")
    assert "blocks" in text
    assert "10,600 splats in 4 steps" in text
    assert "Back to the photograph" in text
    assert "W A S D" in text
    assert "Share" not in text


def test_w_walks_forward_and_r_walks_back(visit: Visit) -> None:
    before = visit.picture()
    wait_for(lambda: visit.places, "the first word from the browser")
    assert abs(visit.walked()) < 1e-6

    visit.page.hold_key("w", 0.15)
    wait_for(lambda: visit.walked() > 0.1, "a step forward")
    after = visit.picture()
    if folder := os.environ.get("SCENEGEN_SCREENSHOTS"):
        Image.fromarray(after).save(Path(folder) / "viewer_walked.png")
    assert np.abs(visit.places[-1][:2]).max() < 1e-3
    assert 0.1 < visit.walked() < DISTANCE / 2
    growth = DISTANCE / (DISTANCE - visit.walked())
    middle = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT]) / 2
    for color in (RED, BLUE):
        wanted = middle + (box(paint(before, color)) - middle) * growth
        wanted = wanted.clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        np.testing.assert_allclose(box(paint(after, color)), wanted, atol=4)

    visit.page.hold_key("r", 0.1)
    wait_for(lambda: abs(visit.walked()) < 1e-6, "the way back")
    assert np.abs(visit.picture().astype(int) - before).mean() < 1.0
    assert visit.complaints() == []


def test_chunk_added_later_appears(visit: Visit) -> None:
    yellow = wall((-1.2, -1.2, 9.0), (2.4, 0.0, 0.0), (0.0, 2.4, 0.0), 20, YELLOW)
    visit.app.add_chunk("late", yellow)
    corners = torch.tensor([[-1.2, -1.2, 9.0], [1.2, 1.2, 9.0]])
    wanted = small_world().camera0.project(corners)[0].flatten().numpy()
    np.testing.assert_allclose(box(paint(visit.picture(YELLOW), YELLOW)), wanted, atol=4)
    assert visit.complaints() == []
