"""The loop: plan where to look, grow, remember, and keep it all on disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.world.build import create, create_events
    from scenegen.world.events import (
        Committed,
        Event,
        Finished,
        Loaded,
        Planned,
        Retrieved,
        Skipped,
    )
    from scenegen.world.paths import NAMED_PATHS, motion, path_cameras
    from scenegen.world.world import World, open

_HOME = {
    "create": "scenegen.world.build",
    "create_events": "scenegen.world.build",
    "Committed": "scenegen.world.events",
    "Event": "scenegen.world.events",
    "Finished": "scenegen.world.events",
    "Loaded": "scenegen.world.events",
    "Planned": "scenegen.world.events",
    "Retrieved": "scenegen.world.events",
    "Skipped": "scenegen.world.events",
    "NAMED_PATHS": "scenegen.world.paths",
    "motion": "scenegen.world.paths",
    "path_cameras": "scenegen.world.paths",
    "World": "scenegen.world.world",
    "open": "scenegen.world.world",
}
__all__ = [
    "NAMED_PATHS",
    "Committed",
    "Event",
    "Finished",
    "Loaded",
    "Planned",
    "Retrieved",
    "Skipped",
    "World",
    "create",
    "create_events",
    "motion",
    "open",
    "path_cameras",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.world' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
