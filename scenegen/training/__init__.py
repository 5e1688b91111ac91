"""How the shipped weights are made: data, tokens, training, evaluation, export.

    python -m scenegen.training depth --out trained            # the whole recipe, resumable
    python -m scenegen.training depth --smoke --out /tmp/smoke # all of it in small, in minutes
    python -m scenegen.training outpaint --out trained/outpaint --photos FOLDER
    python -m scenegen.training completion --out trained/completion

Names load on first use (PEP 562), so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.training.completion_recipe import CompletionRecipe
    from scenegen.training.completion_running import train_completion
    from scenegen.training.outpaint_recipe import OutpaintRecipe
    from scenegen.training.outpaint_running import train_outpaint
    from scenegen.training.recipe import DepthRecipe
    from scenegen.training.running import train_depth

_HOME = {
    "CompletionRecipe": "scenegen.training.completion_recipe",
    "DepthRecipe": "scenegen.training.recipe",
    "OutpaintRecipe": "scenegen.training.outpaint_recipe",
    "train_completion": "scenegen.training.completion_running",
    "train_depth": "scenegen.training.running",
    "train_outpaint": "scenegen.training.outpaint_running",
}
__all__ = [
    "CompletionRecipe",
    "DepthRecipe",
    "OutpaintRecipe",
    "train_completion",
    "train_depth",
    "train_outpaint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.training' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
