"""One photograph becomes a 3D world you can walk through.

>>> import scenegen
>>> world = scenegen.create("photo.jpg", out="worlds/street")
>>> world = scenegen.open("worlds/street")

Names load on first use (PEP 562): importing this package loads neither torch nor numba.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import renderers  # noqa: F401  before torch: it says how threads wait

__version__ = "0.1.0"

if TYPE_CHECKING:
    from scenegen.world.build import create, create_events
    from scenegen.world.world import World, open

_HOME = {
    "create": "scenegen.world.build",
    "create_events": "scenegen.world.build",
    "World": "scenegen.world.world",
    "open": "scenegen.world.world",
}
_ROOMS = ("geometry", "splatting", "outpaint", "models", "world", "export", "image")
__all__ = ["World", "__version__", "create", "create_events", "open"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _ROOMS:
        return importlib.import_module(f"scenegen.{name}")
    raise AttributeError(f"module 'scenegen' has no attribute {name!r}")
