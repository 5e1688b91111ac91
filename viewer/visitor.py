"""One visitor: a browser tab, what it holds, how it moves, and its panel."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

import viser

from scenegen.world.sketches import shares_of
from scenegen.world.world import World
from viewer.jobs import Jobs
from viewer.levels import SplatScene
from viewer.navigation import vertical_fov
from viewer.panels.growing import GrowPanel
from viewer.panels.moving import MovePanel
from viewer.scene import WINDOW_HEIGHT
from viewer.stage import Stage
from viewer.telling import guarded
from viewer.walker import Walker

logger = logging.getLogger("scenegen")

LOOK_SIDE = 160
"""Longer side of the picture from which the shares of a view are counted, in pixels."""


@runtime_checkable
class Host(Protocol):
    """What a visitor needs of the application."""

    stage: Stage
    jobs: Jobs

    @property
    def url(self) -> str:
        """Where the viewer is found."""
        ...

    def grow(self, visitor: Visitor) -> None:
        """Fill what a visitor sees."""
        ...


class Visitor:
    """Made when a browser has connected; gone when it leaves. Coming back makes another."""

    def __init__(self, client: viser.ClientHandle, host: Host, budget: int) -> None:
        self.client, self.host, stage = client, host, host.stage
        self.stage = stage
        self.name = f"visitor {client.client_id + 1}"
        self.walker = Walker(client, lambda: stage.terrain, lambda: stage.body)
        self.splats = SplatScene(client, budget)
        self._sending = threading.Lock()
        self._looked = -math.inf
        self.tabs = client.gui.add_tab_group()
        with self.tabs.add_tab("Move", viser.Icon.WALK):
            self.move = MovePanel(self)
        with self.tabs.add_tab("Grow", viser.Icon.SEEDING):
            self.growing = GrowPanel(self)
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

    @property
    def can_grow(self) -> bool:
        """Whether there is a world on disk behind what is shown."""
        return isinstance(self.stage.world, World)

    def grow(self) -> None:
        """Have what the visitor sees filled.

        Raises:
            SceneError: Other work is going on, or there is no world.
        """
        self.host.grow(self)

    def due(self, before: float) -> bool:
        """Whether the visitor stands still since ``before``, and has not been looked at since."""
        walker = self.walker
        return walker.here and self._looked < walker.moved_at <= before

    def look_again(self) -> None:
        """Something has changed: look at what the visitor sees once more."""
        self._looked = -math.inf

    def look(self) -> None:
        """See what the view is made of, and draw what the visitor asked to see."""
        self._looked = self.walker.moved_at
        stage, view = self.stage, self.walker.camera
        zoom = LOOK_SIDE / max(view.width, view.height)
        size = max(1, round(view.width * zoom)), max(1, round(view.height * zoom))
        shares = shares_of(stage.scenery, view.resized(*size), stage.renderer)
        self.growing.looked(shares, self.host.jobs.job is not None)

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
