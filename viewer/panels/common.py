"""What everyone finds at the top of the panel: which world it is, and what goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import viser

from renderers import Camera
from viewer import cameras
from viewer.telling import guarded, plain


class CommonPanel:
    """The same for all visitors. Every method may be called from any thread.

    Args:
        server: Whose panel it is.
        cancel: Stops what is going on.
    """

    def __init__(self, server: viser.ViserServer, cancel: Callable[[], None]) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._frustum: viser.CameraFrustumHandle | None = None
        gui = server.gui
        self.title = gui.add_markdown("")
        self.words = gui.add_markdown("", visible=False)
        self.progress = gui.add_progress_bar(0.0, visible=False, animated=True)
        self.cancel = gui.add_button("Cancel", icon=viser.Icon.X, color="red", visible=False)
        self.cancel.on_click(guarded(lambda event: cancel()))
        self.show_camera = gui.add_checkbox(
            "Photo frame", False, hint="Show where the photograph was taken from"
        )
        self.show_camera.on_update(guarded(self._toggle_frustum))

    def name(self, name: str, splats: int, steps: int) -> None:
        """Say which world it is, and how large."""
        count = f"{splats:,} splats in {steps} {'step' if steps == 1 else 'steps'}"
        lines = [f"**{plain(name)}**" if name else "", count if steps else ""]
        self.title.content = "\n\n".join(line for line in lines if line)

    def set_home(self, camera: Camera) -> None:
        """Where the photograph was taken."""
        self._frustum = cameras.add_frustum(self._server, camera)
        self._frustum.visible = self.show_camera.value

    def status(self, text: str, progress: float | None = None) -> None:
        """Say what is going on, in a line below the name.

        Args:
            text: The line; empty takes it away.
            progress: Share of the work that is done, 0 to 1; None hides the bar.
        """
        with self._lock:
            self.words.content = text
            self.words.visible = bool(text)
            self.progress.visible = progress is not None
            if progress is not None:
                self.progress.value = 100.0 * min(max(progress, 0.0), 1.0)

    def _toggle_frustum(self, event: Any) -> None:
        if self._frustum is not None:
            self._frustum.visible = self.show_camera.value
