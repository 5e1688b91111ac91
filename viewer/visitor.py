"""One visitor: a browser tab, what it holds, how it moves, and its panel."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections.abc import Callable
from typing import Any, Literal, Protocol, cast, runtime_checkable

import numpy as np
import torch
import viser
from jaxtyping import Float, UInt8
from torch import Tensor

from renderers import Camera
from scenegen.export.images import to_bytes
from scenegen.world.grow import sky_depth
from scenegen.world.recall_picture import evidence_overlay
from scenegen.world.sketches import shares_of, sketch
from scenegen.world.world import World
from spatial_memory import ViewMemory
from viewer.budget import Pace
from viewer.cameras import vertical_fov
from viewer.jobs import Jobs
from viewer.levels import SplatScene
from viewer.panels.growing import GrowPanel
from viewer.panels.moving import MovePanel
from viewer.panels.remembering import MemoryPanel
from viewer.panels.showing import COLOUR, EVIDENCE, LEGENDS, SURFELS, ShowPanel
from viewer.panels.taking import TakePanel
from viewer.scene import WINDOW_HEIGHT
from viewer.server import dark_background
from viewer.stage import Stage
from viewer.telling import guarded
from viewer.walker import Walker
from viewer.works import Works

logger = logging.getLogger("scenegen")

LOOK_SIDE, PICTURE_SIDE = 160, 480
"""Longer side of the picture from which the shares of a view are counted, and of those that are
shown in place of the world, in pixels."""
NARROW, PHONE_BUDGET = 700, 400_000
"""A window of fewer pixels is taken for a phone's, which sorts so many splats smoothly."""
LOWEST = 150
"""Height of the lowest window that the size floor of splats is made for, in pixels."""
SELDOM = 1.0
"""Seconds after which a visitor who keeps moving is looked at all the same."""


@runtime_checkable
class Host(Protocol):
    """What a visitor needs of the application."""

    stage: Stage
    jobs: Jobs
    works: Works

    @property
    def url(self) -> str:
        """Where the viewer is found."""
        ...


class Visitor:
    """Made when a browser has connected; gone when it leaves. Coming back makes another."""

    def __init__(self, client: viser.ClientHandle, host: Host, budget: int) -> None:
        self.client, self.host, stage = client, host, host.stage
        self.stage = stage
        self.name = f"visitor {client.client_id + 1}"
        self.walker = Walker(client, lambda: stage.terrain, lambda: stage.body, lambda: stage.home)
        if client.camera.image_width < NARROW:
            budget = min(budget, PHONE_BUDGET)
        self.pace = Pace(budget)
        self.splats = SplatScene(client, self.pace.given)
        self._sending = threading.Lock()
        self._looked = -math.inf
        self.tabs = client.gui.add_tab_group()
        with self.tabs.add_tab("Move", viser.Icon.WALK):
            self.move = MovePanel(self)
        with self.tabs.add_tab("Grow", viser.Icon.SEEDING):
            self.growing = GrowPanel(self)
        with self.tabs.add_tab("Show", viser.Icon.EYE):
            self.showing = ShowPanel(self, budget)
        with self.tabs.add_tab("Memory", viser.Icon.BRAIN):
            self.memory = MemoryPanel(self)
        with self.tabs.add_tab("Take", viser.Icon.DOWNLOAD):
            self.taking = TakePanel(self)
        client.camera.on_update(self._moved)
        self.walker.report(client.camera)

    def command(
        self,
        label: str,
        key: str,
        action: Callable[[Any], None],
        modifier: Literal["shift", "cmd/ctrl", "cmd/ctrl+shift"] | None = None,
    ) -> None:
        """Let a key, and an entry of the list of commands, do something."""
        # viser's type lists letters and digits; its browser side takes every key.
        command = self.client.gui.add_command(label, hotkey=cast(Any, key), modifier=modifier)
        command.on_trigger(guarded(action))

    def refresh(self) -> None:
        """Bring the browser up to date with the stage."""
        with self._sending:
            stage = self.stage
            window = min(max(self.walker.camera.height, LOWEST), WINDOW_HEIGHT)
            self.splats.pixel = 2.0 * _half_height(stage) / window
            self.splats.show(stage.chunks, self.walker.camera.center)
            self.move.refresh()
            self.memory.refresh()
        self.look_again()

    @property
    def can_grow(self) -> bool:
        """Whether there is a world on disk behind what is shown."""
        return isinstance(self.stage.world, World)

    def grow(self) -> None:
        """Have what the visitor sees filled.

        Raises:
            SceneError: Other work is going on, or there is no world.
        """
        self.host.works.grow(self)

    def edit(self, title: str, change: Callable[[World], object], grow: bool = False) -> None:
        """Change the world by hand.

        Raises:
            SceneError: Other work is going on, or there is no world.
        """
        self.host.works.edit(self, title, change, grow)

    def show(self, kind: str) -> None:
        """Show another picture of the world."""
        if kind == COLOUR:
            self.client.scene.set_background_image(dark_background(), "png")
        self.splats.set_visible(kind == COLOUR)
        self.look_again()

    def ahead(self) -> Float[Tensor, " 3"]:
        """The surface in the middle of the view, in metres; 2 m ahead where there is none."""
        view = self.walker.camera.resized(LOOK_SIDE, LOOK_SIDE)
        middle = torch.tensor([0.5 * LOOK_SIDE, 0.5 * LOOK_SIDE])
        scenery = self.stage.scenery
        render = self.stage.renderer.render(scenery.splats, view)
        depth = sky_depth(render.depth, scenery.sky_radius)[LOOK_SIDE // 2, LOOK_SIDE // 2]
        return view.unproject(middle, depth if torch.isfinite(depth) else torch.tensor(2.0))

    def drawn(self, view: Camera) -> UInt8[np.ndarray, "h w 3"]:
        """What the visitor wants to see, drawn by our renderer."""
        stage, kind = self.stage, self.showing.kind
        if kind == EVIDENCE and isinstance(stage.world, World):
            with stage.changing:
                recall = stage.world.recall(view)
            self.memory.explained(recall)
            overlay, legend = evidence_overlay(recall)
            names = "\n".join(f"- {_swatch(color)} {words}" for color, words in legend)
            self.showing.explain(f"{LEGENDS[EVIDENCE]}\n\n{names}")
            return to_bytes(overlay)
        kind = COLOUR if kind == EVIDENCE else kind
        held = ViewMemory() if stage.world is None else stage.world.memory
        with stage.changing if kind == SURFELS else contextlib.nullcontext():
            return to_bytes(sketch(kind, stage.scenery, held, view, stage.renderer))

    def answered(self, seconds: float) -> None:
        """The browser took so long to draw a picture; while work goes on, that says nothing."""
        if self.host.jobs.job is None and self.splats.shown > 0:
            self.pace.answered(seconds)

    def keep_pace(self) -> None:
        """Give the browser as many splats as it draws smoothly."""
        if self.showing.adapts and self.pace.given != self.splats.budget:
            self.limit(self.pace.given)

    def limit(self, budget: int) -> None:
        """Give the browser at most so many splats.

        Raises:
            SceneError: The budget is not positive.
        """
        eye = self.walker.camera.center
        with self._sending:
            self.splats.limit(self.stage.chunks, eye, budget, self.showing.floor)
        self.showing.tell(self.splats.shown, self.stage.total)

    def due(self, before: float) -> bool:
        """Whether the visitor moved since looked at last, and stands still since ``before``."""
        walker = self.walker
        rested = walker.moved_at <= before or self._looked < before - SELDOM
        return walker.here and self._looked < walker.moved_at and rested

    def look_again(self) -> None:
        """Something has changed: look at what the visitor sees once more."""
        self._looked = -math.inf

    def look(self) -> None:
        """See what the view is made of, and draw what the visitor asked to see."""
        self._looked = self.walker.moved_at
        stage, view = self.stage, self.walker.camera
        job = self.host.jobs.job
        shares = shares_of(stage.scenery, _long(view, LOOK_SIDE), stage.renderer)
        self.growing.looked(shares, job is not None)
        if stage.map is not None:
            self.showing.draw_map(stage.map.drawn(view))
        self.memory.looked(view.center.numpy())
        kind = self.showing.kind
        if kind == COLOUR:
            self.splats.show(stage.chunks, view.center)
            self.showing.tell(self.splats.shown, stage.total)
        elif job is None or kind not in (EVIDENCE, SURFELS):  # the memory is being written to
            picture = self.drawn(_long(view, PICTURE_SIDE))
            self.client.scene.set_background_image(picture, "jpeg")

    def go_home(self) -> None:
        """Back to where the photograph was taken."""
        self.walker.go_home()

    async def _moved(self, camera: viser.CameraHandle) -> None:
        """In viser's event loop, so that reports are read whole and in order."""
        try:
            self.walker.report(camera)
        except Exception:
            logger.exception("viewer: a report of %s could not be used", self.name)


def _long(view: Camera, side: int) -> Camera:
    """The same view on a grid whose longer side is ``side``."""
    zoom = side / max(view.width, view.height)
    return view.resized(max(1, round(view.width * zoom)), max(1, round(view.height * zoom)))


def _swatch(color: tuple[int, int, int]) -> str:
    return f'<span style="color: rgb{color}">&#9632;</span>'


def _half_height(stage: Stage) -> float:
    """Half of the photograph's height at a distance of 1."""
    return math.tan(0.5 * vertical_fov(stage.home))
