"""A real browser for the tests of the viewer, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import shutil
import subprocess
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image
from websockets.sync.client import connect

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --mute-audio "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--enable-unsafe-swiftshader --remote-debugging-port=0"
).split()
WIDTH, HEIGHT = 480, 300
PATIENCE = 120.0
"""Seconds to wait for a picture: software drawing on a busy machine is slow."""
HANDLE = """(() => {
    const panel = document.querySelector('#root div[style*="position: fixed; bottom: 0px"]');
    const box = panel?.querySelector('div[style*="cursor: pointer"]')?.getBoundingClientRect();
    return box && [box.x + box.width / 3, box.y + box.height / 2];
})()"""
"""Where the upper edge of a narrow window's panel is; nothing where there is none."""


def find_chrome() -> str | None:
    """A Chromium or Chrome on this machine."""
    named = os.environ.get("SCENEGEN_CHROME")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome"]
    return next((path for path in map(shutil.which, names) if path), None)


CHROME = find_chrome()
NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROME is None, reason="no Chromium or Chrome found; name one in SCENEGEN_CHROME"
    ),
]


class Page:
    """One browser tab, driven through the DevTools protocol."""

    def __init__(
        self, profile: Path, width: int = WIDTH, height: int = HEIGHT, phone: bool = False
    ) -> None:
        command = [str(CHROME), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            # A tab that draws in software may not answer for long: no reason to hang up.
            self._socket = connect(
                self._find_tab(profile), max_size=None, compression=None, ping_interval=None
            )
        except BaseException:
            self._stop()
            raise
        self._number, self._loaded = 0, False
        self.errors: list[str] = []
        """What the page complained about."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)

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

    def hold_key(self, key: str, seconds: float, shift: bool = False, ctrl: bool = False) -> None:
        """Press a key for a while."""
        code = f"Key{key.upper()}" if key.isalpha() else ""
        names = {"key": key, "code": code, "windowsVirtualKeyCode": ord(key.upper())}
        held = {**names, "modifiers": 8 * shift + 2 * ctrl}
        text = {} if ctrl else {"text": key}
        self.call("Input.dispatchKeyEvent", type="keyDown", **text, **held)
        time.sleep(seconds)
        self.call("Input.dispatchKeyEvent", type="keyUp", **held)

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def text(self) -> str:
        """All words on the page."""
        return self.ask("document.body.innerText")

    def click(self, words: str) -> None:
        """Press the mouse on the button, tab, or choice that says ``words``.

        First it has to lie still, with nothing over it.
        """
        find = f"""(() => {{
            const all = [...document.querySelectorAll(
                'button, label, [role=tab], [role=option], [role=radio], summary, p')];
            const hit = all.filter(e => e.innerText.trim() === {json.dumps(words)}
                && e.offsetParent !== null).pop();
            if (!hit) return null;
            hit.scrollIntoView({{block: 'center'}});
            const box = hit.getBoundingClientRect();
            const x = box.x + box.width / 2, y = box.y + box.height / 2;
            const top = document.elementFromPoint(x, y);
            return top && hit.parentElement.contains(top) ? [x, y] : null;
        }})()"""
        place = None

        def still() -> bool:
            nonlocal place
            before, place = place, self.ask(find)
            return place is not None and place == before

        wait_for(still, f"something to click that says {words!r}")
        assert place is not None
        self.click_at(*place)

    def click_at(self, x: float, y: float) -> None:
        """Press the mouse at a place, in pixels."""
        place = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.call("Input.dispatchMouseEvent", type="mousePressed", **place)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", **place)

    def fold(self) -> None:
        """Tap the upper edge of the panel of a narrow window: it folds, or unfolds."""
        place = wait_for(lambda: self.ask(HANDLE), "the panel's edge")
        self.click_at(*place)

    def touch(self, x: float, y: float, seconds: float) -> None:
        """Hold a finger on a place, in pixels."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        time.sleep(seconds)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def upload(self, path: Path) -> None:
        """Choose a file for the first upload button of the page."""
        find = "document.querySelector('input[type=file]')"
        wait_for(lambda: self.ask(f"{find} !== null"), "a place to upload to")
        element = self.call("Runtime.evaluate", expression=find)["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], objectId=element)

    def complaints(self) -> list[str]:
        """Errors of the page but viser's own: its splat quads have no z, which three.js reports."""
        own = "computeBoundingSphere(): Computed radius is NaN"
        self.ask("1")  # reads what has come meanwhile
        return [error for error in self.errors if own not in error]

    @property
    def closed(self) -> bool:
        """Whether there is no tab any more."""
        return self._process.poll() is not None

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


def keep(picture: UInt8[np.ndarray, "h w 3"], name: str) -> None:
    """Save a picture for people to look at, where SCENEGEN_SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCENEGEN_SCREENSHOTS"):
        Image.fromarray(picture).save(Path(folder) / name)


class Complaints(logging.Handler):
    """Everything that goes wrong on the server from now on: errors logged, exceptions lost."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []
        self._lost = threading.excepthook
        threading.excepthook = lambda args: self.heard.append(str(args))
        # What viser prints instead of logging it.
        self._printed = traceback.print_exception
        traceback.print_exception = lambda *args, **rest: self.heard.append(str(args))
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.format(record))

    def stop(self) -> None:
        threading.excepthook, traceback.print_exception = self._lost, self._printed
        logging.getLogger().removeHandler(self)
