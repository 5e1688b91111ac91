"""Walk through a world in a web browser, on top of viser.

Names load on first use (PEP 562), so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import renderers  # noqa: F401  before torch: it says how threads wait

if TYPE_CHECKING:
    from viewer.app import ViewerApp
    from viewer.server import HOST, PORT
    from viewer.session import view_photo, view_start, view_world

_HOME = {
    "HOST": "viewer.server",
    "PORT": "viewer.server",
    "ViewerApp": "viewer.app",
    "view_photo": "viewer.session",
    "view_start": "viewer.session",
    "view_world": "viewer.session",
}
__all__ = ["HOST", "PORT", "ViewerApp", "view_photo", "view_start", "view_world"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'viewer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
