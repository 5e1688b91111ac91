"""Image in; depth, normals, sky, lens and confidence out. One file per estimator.

>>> from scenegen import geometry
>>> geometry.estimate(rgb, backend="auto", fov_degrees=None)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.geometry.base import DEPTH_BACKENDS, EYE_HEIGHT, Geometry, choose_depth
    from scenegen.geometry.estimation import estimate
    from scenegen.image.focal import default_fov

_HOME = {
    "DEPTH_BACKENDS": "scenegen.geometry.base",
    "EYE_HEIGHT": "scenegen.geometry.base",
    "Geometry": "scenegen.geometry.base",
    "choose_depth": "scenegen.geometry.base",
    "default_fov": "scenegen.image.focal",
    "estimate": "scenegen.geometry.estimation",
}
__all__ = ["DEPTH_BACKENDS", "EYE_HEIGHT", "Geometry", "choose_depth", "default_fov", "estimate"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.geometry' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
