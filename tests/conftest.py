"""Checks every shape annotation while tests run, and keeps property tests deterministic."""

from __future__ import annotations

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook(["renderers", "spatial_memory", "scenegen", "viewer"], "typecheck.check")
settings.register_profile("scenegen", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("scenegen")
