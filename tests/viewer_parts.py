"""Small worlds for the tests of the viewer, and what a viewer holds."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import torch
import viser

from renderers import Camera, Splats
from spatial_memory import ViewMemory
from viewer import ViewerApp
from viewer.levels import SplatScene
from viewer.visitor import Visitor

CAMERA = Camera.from_fov(60.0, 64, 48)


def dots(count: int, depth: float = 2.0, sigma: float = 0.01) -> Splats:
    """A row of grey splats at one depth."""
    means = torch.zeros(count, 3)
    means[:, 0] = torch.linspace(-0.5, 0.5, count)
    means[:, 2] = depth
    return Splats(
        means=means,
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=torch.full((count, 3), sigma),
        opacities=torch.full((count,), 0.9),
        colors=torch.full((count, 3), 0.5),
    )


def world(*counts: int) -> Any:
    steps = tuple(
        SimpleNamespace(id=k, camera=CAMERA, provenance="observed") for k in range(len(counts))
    )
    chunks = tuple(dots(n) if n else Splats.empty() for n in counts)
    return SimpleNamespace(
        folder=Path("a_street"), camera0=CAMERA, steps=steps, chunks=chunks, memory=ViewMemory(),
        sky_radius=60.0, eye_height=1.6,
    )  # fmt: skip


def seen_world() -> Any:
    """A wall 2 m ahead that its memory has seen, as a photograph of bricks."""
    made = world(3000)
    brick = torch.tensor([0.7, 0.25, 0.1]).expand(48, 64, 3)
    made.memory.write(brick, torch.full((48, 64), 2.0), CAMERA)
    return made


def onlooker(app: ViewerApp) -> Visitor:
    """Somebody without a browser: what is sent to everyone stands for what is sent to a visitor."""
    someone = object.__new__(Visitor)
    someone.stage, someone.splats = app.stage, SplatScene(app.server, app._budget)
    someone.walker = Mock(camera=CAMERA.resized(800, 600), here=False, moved_at=0.0)
    someone.name, someone._looked = "onlooker", 0.0
    someone.memory, someone.move = Mock(), Mock()
    someone._sending = threading.Lock()
    app._visitors[-1] = someone
    someone.refresh()
    return someone


def nodes(app: ViewerApp) -> dict[str, viser.GaussianSplatHandle]:
    """What an onlooker's browser would hold."""
    handles = app.server.scene._handle_from_node_name
    return {k: v for k, v in handles.items() if isinstance(v, viser.GaussianSplatHandle)}
