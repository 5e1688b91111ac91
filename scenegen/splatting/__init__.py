"""Depth map to splats: one Gaussian per pixel, lying on the surface.

>>> from scenegen import splatting
>>> splatting.lift(rgb, depth, camera)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.splatting.coating import undercoat
    from scenegen.splatting.colors import match_colors
    from scenegen.splatting.lifting import lift, on_sky_shell, snap_flying, widen_fronts
    from scenegen.splatting.refining import Refined, RefineProgress, refine, refine_events

_HOME = {
    "lift": "scenegen.splatting.lifting",
    "on_sky_shell": "scenegen.splatting.lifting",
    "snap_flying": "scenegen.splatting.lifting",
    "widen_fronts": "scenegen.splatting.lifting",
    "match_colors": "scenegen.splatting.colors",
    "undercoat": "scenegen.splatting.coating",
    "Refined": "scenegen.splatting.refining",
    "RefineProgress": "scenegen.splatting.refining",
    "refine": "scenegen.splatting.refining",
    "refine_events": "scenegen.splatting.refining",
}
__all__ = [
    "Refined",
    "RefineProgress",
    "lift",
    "match_colors",
    "on_sky_shell",
    "refine",
    "refine_events",
    "snap_flying",
    "undercoat",
    "widen_fronts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.splatting' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
