"""Keeps a visitor's picture moving, so that the first key press does not leap; and takes its pulse.

The browser draws on demand, once a second when nothing happens, and walks 2 m/s times the time
since the last picture: after a rest, a tap of W could carry the visitor two metres, through a
wall. A tiny message five times a second keeps pictures coming while somebody is about.

The message changes the lens by next to nothing. The browser says so with its next picture: so long
it takes to draw one. It repeats the lens, too, where a report on its way has taken it back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import viser

from viewer.budget import LATE

PULSE = 0.2
"""Seconds between two messages; each keeps the browser drawing for 0.25 s."""
RESTING = 60.0
"""Seconds without moving after which the browser may rest, to save the battery."""
NUDGE = 5e-5
"""By how much the lens is changed, in radians: a fiftieth of a pixel at the picture's edge. viser
does not send less."""

ARRIVING, MOVING = 15.0, 1.0
"""So long after coming, and after a move, a browser's answer tells how fast it draws, in seconds.
Later the tab may be hidden: then browsers hardly draw at all."""


@dataclass
class _Visitor:
    camera: viser.CameraHandle
    marker: viser.FrameHandle
    moved: float
    came: float
    lens: Callable[[], float]
    answered: Callable[[float], None]
    place: np.ndarray
    asked: float | None = None
    """When it was asked; None when it has answered."""
    sent: float = 0.0
    """The field of view that the answer will carry, in radians."""
    told: bool = False
    """Whether that answer tells nothing, or has been told as late already."""


class KeepAwake:
    """The visitors, when each of them moved last, and how soon their browsers draw."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visitors: dict[int, _Visitor] = {}

    def watch(
        self,
        client: viser.ClientHandle,
        lens: Callable[[], float],
        answered: Callable[[float], None],
    ) -> None:
        """Keep a new visitor's picture moving.

        Args:
            client: The visitor.
            lens: Gives the vertical field of view that the visitor should have, in radians.
            answered: Called with how long the browser took to draw a picture, in seconds.
        """
        marker = client.scene.add_frame("/awake", show_axes=False, visible=False)
        now = time.monotonic()
        with self._lock:
            self._visitors[client.client_id] = _Visitor(
                client.camera, marker, now, now, lens, answered, place_of(client.camera)
            )
        client.camera.on_update(self._heard)

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
            lens = visitor.lens()
            given_another = abs(lens - visitor.sent) > 10 * NUDGE
            if visitor.asked is None or given_another:
                visitor.sent = lens - NUDGE if visitor.sent > lens else lens + NUDGE
                visitor.asked = now
                visitor.told = now - visitor.came > ARRIVING and now - visitor.moved > MOVING
            elif now - visitor.asked >= LATE and not visitor.told:
                visitor.told = True
                visitor.answered(now - visitor.asked)
            visitor.camera.fov = visitor.sent
            # Any scene message draws a picture; this one moves a node that is never seen.
            visitor.marker.position = (0.0, 0.0, 1.0 - visitor.marker.position[2])
        return len(about)

    def run(self, closed: threading.Event) -> None:
        """Pulse until ``closed`` is set."""
        while not closed.wait(PULSE):
            self.pulse(time.monotonic())

    def _heard(self, camera: viser.CameraHandle) -> None:
        now, place = time.monotonic(), place_of(camera)
        with self._lock:
            visitor = self._visitors.get(camera.client.client_id)
            if visitor is None:
                return
            if not same_place(place, visitor.place):
                visitor.moved, visitor.place = now, place
            if (asked := visitor.asked) is None or abs(camera.fov - visitor.sent) > 0.1 * NUDGE:
                return
            visitor.asked = None
        if not visitor.told:
            visitor.answered(now - asked)


def place_of(camera: viser.CameraHandle) -> np.ndarray:
    """Where a visitor stands and looks, and the size of the window: (8,), metres and pixels."""
    window = (camera.image_width, camera.image_height)
    return np.array([*camera.position, *camera.look_at, *window], np.float64)


def same_place(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two places are the same, but for rounding."""
    return bool(np.abs(a - b).max() < 1e-5)
