"""Weights that were trained for this project and come with the install."""

from __future__ import annotations

from pathlib import Path

import scenegen

FOLDERS = ("_assets/weights", "../assets/weights")
"""Where they lie, from the package: in an install, and in a source tree."""
SHIPPED = {"dpt": "depth", "own": "outpaint", "completion": "completion"}
"""Backends that use shipped weights, and the name of those; and what completes the depth of one."""
BESIDE = {"dpt": ("completion",)}
"""What a backend is used together with where a world grows."""


def shipped_path(name: str) -> Path:
    """File of the weights ``name``; it exists unless the install was damaged."""
    package = Path(scenegen.__file__).parent
    places = [(package / folder / f"{name}.safetensors").resolve() for folder in FOLDERS]
    return next((place for place in places if place.is_file()), places[0])
