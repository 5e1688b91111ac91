"""A partial view and the past views that explain it in; a full view out. One file per outpainter.

>>> from scenegen import outpaint
>>> outpaint.fill(rgb, known, camera, depth, references=views, seed=0)
>>> outpaint.complete(rgb, known, camera, depth, references=views).remembered  # not invented
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.outpaint.base import OUTPAINTERS, Outpainter, Reference, choose_outpainter
    from scenegen.outpaint.composite import Verdict
    from scenegen.outpaint.filling import Completed, complete, fill

_HOME = {
    "Completed": "scenegen.outpaint.filling",
    "OUTPAINTERS": "scenegen.outpaint.base",
    "Outpainter": "scenegen.outpaint.base",
    "Reference": "scenegen.outpaint.base",
    "Verdict": "scenegen.outpaint.composite",
    "choose_outpainter": "scenegen.outpaint.base",
    "complete": "scenegen.outpaint.filling",
    "fill": "scenegen.outpaint.filling",
}
__all__ = [
    "OUTPAINTERS",
    "Completed",
    "Outpainter",
    "Reference",
    "Verdict",
    "choose_outpainter",
    "complete",
    "fill",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.outpaint' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
