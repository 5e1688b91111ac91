"""The loop: plan where to look, grow, remember, and keep it all on disk."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scenegen.world.build import Creation, create, create_events
    from scenegen.world.chronicle import describe, log_json, log_lines, read_journal
    from scenegen.world.compare import Difference
    from scenegen.world.events import (
        Committed,
        Event,
        Finished,
        Loaded,
        Planned,
        Retrieved,
        Scaled,
        Skipped,
    )
    from scenegen.world.history import Freed
    from scenegen.world.importing import import_events, import_splats
    from scenegen.world.inventory import memory_json, memory_lines
    from scenegen.world.journal import Edit, Journal, Step
    from scenegen.world.merging import Pose, pose_at, pose_from
    from scenegen.world.packing import pack, unpack
    from scenegen.world.paths import NAMED_PATHS, motion, path_cameras
    from scenegen.world.provenance import ORIGINS
    from scenegen.world.rebuild import Rebuilt, check_world, remake
    from scenegen.world.recall import Recall
    from scenegen.world.recall_picture import draw_recall
    from scenegen.world.repair import Repaired, repair_world, salvaged
    from scenegen.world.report import Measure, Picture, measure, pictures
    from scenegen.world.report_page import write_page
    from scenegen.world.world import World, open

_HOME = {
    "import_events": "scenegen.world.importing",
    "import_splats": "scenegen.world.importing",
    "Pose": "scenegen.world.merging",
    "pose_at": "scenegen.world.merging",
    "pose_from": "scenegen.world.merging",
    "Repaired": "scenegen.world.repair",
    "repair_world": "scenegen.world.repair",
    "salvaged": "scenegen.world.repair",
    "Rebuilt": "scenegen.world.rebuild",
    "remake": "scenegen.world.rebuild",
    "check_world": "scenegen.world.rebuild",
    "Difference": "scenegen.world.compare",
    "pack": "scenegen.world.packing",
    "unpack": "scenegen.world.packing",
    "describe": "scenegen.world.chronicle",
    "log_json": "scenegen.world.chronicle",
    "log_lines": "scenegen.world.chronicle",
    "Edit": "scenegen.world.journal",
    "Journal": "scenegen.world.journal",
    "Step": "scenegen.world.journal",
    "Freed": "scenegen.world.history",
    "ORIGINS": "scenegen.world.provenance",
    "Creation": "scenegen.world.build",
    "read_journal": "scenegen.world.chronicle",
    "create": "scenegen.world.build",
    "create_events": "scenegen.world.build",
    "Committed": "scenegen.world.events",
    "Event": "scenegen.world.events",
    "Finished": "scenegen.world.events",
    "Loaded": "scenegen.world.events",
    "Planned": "scenegen.world.events",
    "Retrieved": "scenegen.world.events",
    "Scaled": "scenegen.world.events",
    "Skipped": "scenegen.world.events",
    "memory_json": "scenegen.world.inventory",
    "memory_lines": "scenegen.world.inventory",
    "NAMED_PATHS": "scenegen.world.paths",
    "motion": "scenegen.world.paths",
    "path_cameras": "scenegen.world.paths",
    "Recall": "scenegen.world.recall",
    "draw_recall": "scenegen.world.recall_picture",
    "Measure": "scenegen.world.report",
    "Picture": "scenegen.world.report",
    "measure": "scenegen.world.report",
    "pictures": "scenegen.world.report",
    "write_page": "scenegen.world.report_page",
    "World": "scenegen.world.world",
    "open": "scenegen.world.world",
}
__all__ = [
    "Creation",
    "Pose",
    "import_events",
    "import_splats",
    "pose_at",
    "pose_from",
    "Repaired",
    "repair_world",
    "salvaged",
    "Rebuilt",
    "remake",
    "check_world",
    "Difference",
    "pack",
    "unpack",
    "describe",
    "log_json",
    "log_lines",
    "Edit",
    "Journal",
    "Step",
    "Freed",
    "ORIGINS",
    "read_journal",
    "NAMED_PATHS",
    "Committed",
    "Event",
    "Finished",
    "Loaded",
    "Measure",
    "Picture",
    "Planned",
    "Recall",
    "Retrieved",
    "Scaled",
    "Skipped",
    "World",
    "create",
    "create_events",
    "draw_recall",
    "measure",
    "memory_json",
    "memory_lines",
    "motion",
    "open",
    "path_cameras",
    "pictures",
    "write_page",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scenegen.world' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
