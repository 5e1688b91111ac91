"""Where things are and who has seen them: the surfel-indexed memory of views.

>>> from spatial_memory import MemoryConfig, ViewMemory
>>> memory = ViewMemory(MemoryConfig())

Names load on first use (PEP 562), so that importing the package stays cheap.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import renderers  # noqa: F401  before torch: it says how threads wait

if TYPE_CHECKING:
    from spatial_memory.explain import Sighting, evidence_map, shares_shown, sightings
    from spatial_memory.memory import MemoryConfig, ViewMemory
    from spatial_memory.reasons import Candidate
    from spatial_memory.retrieve import Retrieval
    from spatial_memory.store import ViewStore
    from spatial_memory.surfels import Surfels
    from spatial_memory.views import View

_HOME = {
    "Candidate": "spatial_memory.reasons",
    "Sighting": "spatial_memory.explain",
    "evidence_map": "spatial_memory.explain",
    "shares_shown": "spatial_memory.explain",
    "sightings": "spatial_memory.explain",
    "MemoryConfig": "spatial_memory.memory",
    "ViewMemory": "spatial_memory.memory",
    "Retrieval": "spatial_memory.retrieve",
    "Surfels": "spatial_memory.surfels",
    "View": "spatial_memory.views",
    "ViewStore": "spatial_memory.store",
}
__all__ = [
    "Candidate",
    "MemoryConfig",
    "Retrieval",
    "Sighting",
    "Surfels",
    "View",
    "ViewMemory",
    "ViewStore",
    "evidence_map",
    "shares_shown",
    "sightings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'spatial_memory' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
