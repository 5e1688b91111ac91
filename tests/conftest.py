"""Checks every shape annotation while tests run, and keeps property tests deterministic."""

from __future__ import annotations

import importlib

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(["renderers", "spatial_memory", "scenegen", "viewer"], "typecheck.check")
importlib.import_module("renderers")  # before torch: it says how threads wait
settings.register_profile("scenegen", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("scenegen")
