"""The CPU renderer: packs, projects, sorts, bins and draws, one picture at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from renderers.base import Render
from renderers.camera import Camera
from renderers.cpu.differentiate import render_with_gradients, wants_gradients
from renderers.cpu.frame import Frame, Scratch
from renderers.cpu.pack import packed
from renderers.kernels import RENDER_LOCK
from renderers.splats import Splats


class CpuRenderer:
    """Renders on all cores that numba may use. The same bytes for any number of them.

    Safe to use from several Python threads: pictures are then made one after the other. The splats
    of a picture are prepared once and reused for as long as that ``Splats`` object lives.
    """

    def __init__(self) -> None:
        self._scratch = Scratch()

    def render(
        self,
        splats: Splats,
        camera: Camera,
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> Render:
        """See :class:`renderers.base.Renderer`. Returns float32 tensors on the CPU.

        Raises:
            SceneError: A gradient of the intrinsics is asked for.
        """
        if wants_gradients(splats, camera):
            return render_with_gradients(splats, camera, background, antialiased, details)
        with RENDER_LOCK, torch.no_grad():
            frame = Frame(packed(splats), camera, antialiased, self._scratch)
            return frame.picture(background, details)

    def render_batch(
        self,
        splats: Splats,
        cameras: Sequence[Camera],
        background: Sequence[float] = (0.0, 0.0, 0.0),
        *,
        antialiased: bool = False,
        details: bool = False,
    ) -> list[Render]:
        """See :class:`renderers.base.Renderer`: every picture already uses all cores."""
        return [
            self.render(splats, camera, background, antialiased=antialiased, details=details)
            for camera in cameras
        ]
