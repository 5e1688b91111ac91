"""What exists in 3D and how it is drawn. The ground floor: knows nothing of the rest.

Names load on first use (PEP 562), so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renderers.backends import Backend, choose
    from renderers.base import RENDERERS, Render, Renderer, make_renderer
    from renderers.camera import Camera
    from renderers.errors import SceneError, check_shapes
    from renderers.splats import Splats, join

# OpenMP's threads spin while they wait for each other. Where another program holds a core, that
# turns frames of 5 ms into 100 ms. OpenMP reads this when torch is imported, so this package has
# to come first; whoever has set it means it.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_HOME = {
    "Backend": "renderers.backends",
    "choose": "renderers.backends",
    "RENDERERS": "renderers.base",
    "Render": "renderers.base",
    "Renderer": "renderers.base",
    "make_renderer": "renderers.base",
    "Camera": "renderers.camera",
    "SceneError": "renderers.errors",
    "check_shapes": "renderers.errors",
    "Splats": "renderers.splats",
    "join": "renderers.splats",
}
__all__ = [
    "RENDERERS",
    "Backend",
    "Camera",
    "Render",
    "Renderer",
    "SceneError",
    "Splats",
    "check_shapes",
    "choose",
    "join",
    "make_renderer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'renderers' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
