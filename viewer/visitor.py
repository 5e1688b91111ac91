"""One visitor: a browser tab, what it holds, how it moves, and its panel."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any, cast

import viser

from viewer.levels import SplatScene
from viewer.navigation import vertical_fov
from viewer.panels.moving import MovePanel
from viewer.scene import WINDOW_HEIGHT
from viewer.stage import Stage
from viewer.telling import guarded
from viewer.walker import Walker

logger = logging.getLogger("scenegen")


class Visitor:
    """Made when a browser has connected; gone when it leaves. Coming back makes another."""

    def __init__(self, client: viser.ClientHandle, stage: Stage, budget: int, address: str) -> None:
        self.client, self.stage, self.address = client, stage, address
        self.name = f"visitor {client.client_id + 1}"
        self.walker = Walker(client, lambda: stage.terrain, lambda: stage.body)
        self.splats = SplatScene(client, budget)
        self._sending = threading.Lock()
        self.tabs = client.gui.add_tab_group()
        with self.tabs.add_tab("Move", viser.Icon.WALK):
            self.move = MovePanel(self)
        client.camera.on_update(self._moved)
        self.walker.report(client.camera)

    def command(
        self, label: str, key: str | None, action: Callable[[Any], None], shift: bool = False
    ) -> None:
        """Let a key, and an entry of the list of commands, do something."""
        # viser's type lists letters and digits; its browser side takes every key.
        hotkey = cast(Any, key)
        modifier = "shift" if shift else None
        command = self.client.gui.add_command(label, hotkey=hotkey, modifier=modifier)
        command.on_trigger(guarded(action))

    def refresh(self) -> None:
        """Bring the browser up to date with the stage."""
        with self._sending:
            stage = self.stage
            self.splats.pixel = 2.0 * _half_height(stage) / WINDOW_HEIGHT
            self.splats.show(stage.chunks, self.walker.camera.center)

    def go_home(self) -> None:
        """Back to where the photograph was taken."""
        self.walker.go_home(self.stage.home)

    async def _moved(self, camera: viser.CameraHandle) -> None:
        """In viser's event loop, so that reports are read whole and in order."""
        try:
            self.walker.report(camera)
        except Exception:
            logger.exception("viewer: a report of %s could not be used", self.name)


def _half_height(stage: Stage) -> float:
    """Half of the photograph's height at a distance of 1."""
    return math.tan(0.5 * vertical_fov(stage.home))
