"""A partial view and the past views that explain it in; a full view out. One file per outpainter.

>>> from scenegen import outpaint
>>> outpaint.fill(rgb, known, references=views, seed=0)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.outpaint.base import OUTPAINTERS, Outpainter, Reference
    from scenegen.outpaint.filling import fill

_HOME = {
    "OUTPAINTERS": "scenegen.outpaint.base",
    "Outpainter": "scenegen.outpaint.base",
    "Reference": "scenegen.outpaint.base",
    "fill": "scenegen.outpaint.filling",
}
__all__ = ["OUTPAINTERS", "Outpainter", "Reference", "fill"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.outpaint' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
