"""The tab `Memory`: past views, which of them explain this one, and what to change by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import viser
import viser.transforms

from renderers import SceneError
from scenegen.export.images import to_bytes
from scenegen.world.recall import Recall
from scenegen.world.world import World
from viewer.cameras import pose_of, vertical_fov
from viewer.panels.history import HistoryPanel
from viewer.panels.showing import EVIDENCE
from viewer.telling import guarded, plain

if TYPE_CHECKING:
    from viewer.visitor import Visitor

THUMB, ICON = 240, 96
"""Longer side of the picture of a view on the panel, and in space, in pixels."""
BOX = 0.5
"""Side of the box to erase at first, in metres."""
CLEAR = 0.6
"""No view is shown in space nearer to the visitor than this, in metres: it would hide the world."""
NO_VIEW = "choose a view"
COLORS = {"observed": (90, 160, 255), "generated": (255, 170, 70)}


class MemoryPanel:
    """The controls of one visitor."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._frusta: list[viser.CameraFrustumHandle] = []
        self._box: tuple[viser.TransformControlsHandle, viser.BoxHandle] | None = None
        gui = visitor.client.gui
        explain = gui.add_button("Explain this view", icon=viser.Icon.BRAIN)
        self._words = gui.add_markdown("Which past views show what you see, and why.")
        self._views = gui.add_dropdown("View", [str(NO_VIEW)])
        self._thumb = gui.add_image(np.zeros((2, 2, 3), np.uint8), visible=False)
        self._acts = gui.add_button_group("It", ("go there", "pin", "unpin", "forget"))
        self._in_space = gui.add_checkbox(
            "Show in space",
            False,
            hint="Click one to go there; the nearest are seen from a step away",
        )
        with gui.add_folder("Erase", expand_by_default=False):
            gui.add_markdown("Empty a box, so that it can be grown anew.")
            self._place = gui.add_button("A box ahead", icon=viser.Icon.BOX)
            self._side = gui.add_slider("Side, m", 0.1, 5.0, 0.1, BOX)
            self._erase = gui.add_button_group("Then", ("erase", "erase and grow", "away"))
        self._history = HistoryPanel(visitor)
        for handle, action in (
            (explain, lambda event: visitor.showing.show(EVIDENCE)),
            (self._acts, self._act),
            (self._place, self._place_box),
            (self._erase, self._erase_box),
        ):
            handle.on_click(guarded(action))
        self._views.on_update(guarded(self._choose))
        self._in_space.on_update(guarded(self._show_in_space))
        self._side.on_update(guarded(self._size_box))
        self.refresh()

    def refresh(self) -> None:
        """The world has changed: list its views anew."""
        world = self._visitor.stage.world
        ids = list(world.memory.views) if isinstance(world, World) else []
        chosen = self._views.value
        names = [NO_VIEW, *(self._name(world, view_id) for view_id in ids)]
        self._views.options = names
        same = next((n for n in names[1:] if n.split()[0] == chosen.split()[0]), NO_VIEW)
        self._views.value = same
        if isinstance(world, World):
            self._history.refresh(world)
        for frustum in self._frusta:
            frustum.remove()
        self._frusta = [self._frustum(view_id) for view_id in ids] if self._in_space.value else []

    def _show_in_space(self, event: Any) -> None:
        self.refresh()
        self.looked(self._visitor.walker.camera.center.numpy())

    def looked(self, eye: np.ndarray) -> None:
        """The visitor stands here, in metres."""
        for frustum in list(self._frusta):
            away = bool(np.linalg.norm(np.asarray(frustum.position) - eye) > CLEAR)
            if frustum.visible != away:
                frustum.visible = away

    def explained(self, recall: Recall) -> None:
        """Say which views explain what the visitor sees."""
        self._words.content = "\n".join(f"- {plain(line.strip())}" for line in recall.lines())

    def _name(self, world: Any, view_id: int) -> str:
        pinned = ", pinned" if view_id in world.memory.pinned else ""
        return f"{view_id} {world.memory.views[view_id].provenance}{pinned}"

    def _world(self) -> World:
        world = self._visitor.stage.world
        if not isinstance(world, World):
            raise SceneError(
                "there is no memory yet", why="no world is open", fix="open or make one first"
            )
        return world

    def _chosen(self) -> int:
        if self._views.value == NO_VIEW:
            raise SceneError(
                "no view is chosen", why="the list says so", fix="choose one above the buttons"
            )
        return int(self._views.value.split()[0])

    def _choose(self, event: Any) -> None:
        if self._views.value == NO_VIEW:
            self._thumb.visible = False
            return
        self._thumb.image = self._picture(self._chosen(), THUMB)
        self._thumb.visible = True

    def _picture(self, view_id: int, side: int) -> np.ndarray:
        rgb = self._world().memory.views[view_id].rgb
        step = max(1, max(rgb.shape[:2]) // side)
        return to_bytes(rgb[::step, ::step])

    def _frustum(self, view_id: int) -> viser.CameraFrustumHandle:
        view = self._world().memory.views[view_id]
        pose = view.camera.world_from_cam.double().numpy()
        frustum = self._visitor.client.scene.add_camera_frustum(
            f"/views/{view_id}",
            fov=vertical_fov(view.camera),
            aspect=view.camera.width / view.camera.height,
            scale=0.12,
            thickness=0.002,
            color=COLORS.get(view.provenance, (200, 200, 200)),
            image=self._picture(view_id, ICON),
            wxyz=viser.transforms.SO3.from_matrix(pose[:3, :3]).wxyz,
            position=pose[:3, 3],
            visible=False,
        )
        frustum.on_click(guarded(lambda event: self._go(view_id)))
        return frustum

    def _go(self, view_id: int) -> None:
        view = self._world().memory.views[view_id]
        self._visitor.walker.go_to(pose_of(view.camera))

    def _act(self, event: Any) -> None:
        view_id, act = self._chosen(), event.target.value
        if act == "go there":
            self._go(view_id)
        elif act == "forget":
            self._visitor.edit("Forgetting", lambda world: world.forget(view_id))
        else:
            self._visitor.edit("Pinning", lambda world: world.pin(view_id, act == "pin"))

    def _place_box(self, event: Any) -> None:
        """At the surface in the middle of the view."""
        self._remove_box()
        place = self._visitor.ahead().double().numpy()
        scene = self._visitor.client.scene
        grip = scene.add_transform_controls(
            "/erase", scale=0.4, disable_rotations=True, position=place
        )
        side = float(self._side.value)
        box = scene.add_box(
            "/erase/box", color=(255, 70, 70), dimensions=(side, side, side), opacity=0.35
        )
        self._box = grip, box

    def _size_box(self, event: Any) -> None:
        if self._box is not None:
            side = float(self._side.value)
            self._box[1].dimensions = (side, side, side)

    def _remove_box(self) -> None:
        if self._box is not None:
            self._box[1].remove()
            self._box[0].remove()
            self._box = None

    def _erase_box(self, event: Any) -> None:
        then = event.target.value
        if then == "away":
            self._remove_box()
            return
        if self._box is None:
            raise SceneError(
                "nothing is erased", why="there is no box", fix="press `A box ahead` first"
            )
        middle, half = torch.tensor(self._box[0].position), 0.5 * float(self._side.value)
        box = [(middle - half).tolist(), (middle + half).tolist()]
        self._remove_box()
        self._visitor.edit("Erasing", lambda world: world.erase(box), then == "erase and grow")
