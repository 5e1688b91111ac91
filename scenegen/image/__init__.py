"""Loading a photograph: orientation, colour, size and field of view.

>>> from scenegen.image import load_photo
>>> photo = load_photo("street.jpg")
>>> photo.rgb.shape, photo.fov_degrees, photo.fov_source

Names load on first use (PEP 562), so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.image.photo import Photo, load_photo

_HOME = {"Photo": "scenegen.image.photo", "load_photo": "scenegen.image.photo"}
__all__ = ["Photo", "load_photo"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.image' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
