"""Keeps a visitor's picture moving, so that the first key press does not leap.

The browser draws on demand, once a second when nothing happens, and walks 2 m/s times the time
since the last picture: after a rest, a tap of W could carry the visitor two metres, through a
wall. A tiny message five times a second keeps pictures coming while somebody is about.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import viser

PULSE = 0.2
"""Seconds between two messages; each keeps the browser drawing for 0.25 s."""
RESTING = 60.0
"""Seconds without moving after which the browser may rest, to save the battery."""


@dataclass
class _Visitor:
    marker: viser.FrameHandle
    moved: float


class KeepAwake:
    """The visitors, and when each of them moved last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visitors: dict[int, _Visitor] = {}

    def watch(self, client: viser.ClientHandle) -> None:
        """Keep a new visitor's picture moving."""
        marker = client.scene.add_frame("/awake", show_axes=False, visible=False)
        with self._lock:
            self._visitors[client.client_id] = _Visitor(marker, time.monotonic())
        client.camera.on_update(self._moved)

    def forget(self, client: viser.ClientHandle) -> None:
        """A visitor left."""
        with self._lock:
            self._visitors.pop(client.client_id, None)

    def pulse(self, now: float) -> int:
        """Nudge everyone who moved lately.

        Args:
            now: Time in seconds, on the clock of ``time.monotonic``.

        Returns:
            How many visitors were nudged.
        """
        with self._lock:
            about = [v for v in self._visitors.values() if now - v.moved < RESTING]
        for visitor in about:
            # Any scene message draws a picture; this one moves a node that is never seen.
            visitor.marker.position = (0.0, 0.0, 1.0 - visitor.marker.position[2])
        return len(about)

    def run(self, closed: threading.Event) -> None:
        """Pulse until ``closed`` is set."""
        while not closed.wait(PULSE):
            self.pulse(time.monotonic())

    def _moved(self, camera: viser.CameraHandle) -> None:
        with self._lock:
            visitor = self._visitors.get(camera.client.client_id)
            if visitor is not None:
                visitor.moved = time.monotonic()
