"""Weights by other people: what exists, where it comes from, verified loading.

>>> from scenegen import models
>>> models.pull("migan")          # once, online
>>> models.model_path("migan")    # ever after, offline

Names load on first use (PEP 562), so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.models.hub import (
        HUB_MODELS,
        HubModel,
        check_blob,
        first_line,
        hub_cache,
        hub_folder,
        hub_missing,
        licence_line,
        pull_hub,
        say_licence,
    )
    from scenegen.models.registry import MODELS, Model, find_model
    from scenegen.models.shipped import shipped_path
    from scenegen.models.store import installed_folder, is_present, model_path, pull
    from scenegen.models.used import growth_weights, weights_hash

_HOME = {
    "HUB_MODELS": "scenegen.models.hub",
    "HubModel": "scenegen.models.hub",
    "check_blob": "scenegen.models.hub",
    "first_line": "scenegen.models.hub",
    "hub_cache": "scenegen.models.hub",
    "hub_folder": "scenegen.models.hub",
    "hub_missing": "scenegen.models.hub",
    "licence_line": "scenegen.models.hub",
    "pull_hub": "scenegen.models.hub",
    "say_licence": "scenegen.models.hub",
    "MODELS": "scenegen.models.registry",
    "Model": "scenegen.models.registry",
    "find_model": "scenegen.models.registry",
    "shipped_path": "scenegen.models.shipped",
    "installed_folder": "scenegen.models.store",
    "is_present": "scenegen.models.store",
    "model_path": "scenegen.models.store",
    "pull": "scenegen.models.store",
    "growth_weights": "scenegen.models.used",
    "weights_hash": "scenegen.models.used",
}
__all__ = [
    "HUB_MODELS",
    "MODELS",
    "HubModel",
    "Model",
    "check_blob",
    "find_model",
    "first_line",
    "growth_weights",
    "hub_cache",
    "hub_folder",
    "hub_missing",
    "installed_folder",
    "is_present",
    "licence_line",
    "model_path",
    "pull",
    "pull_hub",
    "say_licence",
    "shipped_path",
    "weights_hash",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
