"""What a memory holds, in numbers and per pixel: for people who want to know why.

Everything here only reads. Not to be called while another thread writes to the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from renderers.camera import Camera
from renderers.surfels import render_surfels
from spatial_memory.freespace import out_of_sight
from spatial_memory.memory import ViewMemory
from spatial_memory.retrieve import on_side

UNEXPLAINED, UNMAPPED, HIDDEN = -1, -2, -3
"""Pixels of an evidence map that show surfels of other views only; that show none; and that show
some only through space that no view has looked through."""


@dataclass(frozen=True)
class Sighting:
    """What one view has seen."""

    surfels: int
    """Surfels that it has seen."""
    alone: int
    """Those of them that no other view has seen."""


def sightings(memory: ViewMemory) -> dict[int, Sighting]:
    """What each view held has seen, by id."""
    rows, views = memory.surfels.observers.pairs()
    crowd = np.bincount(rows, minlength=len(memory.surfels))
    size = max(memory.views, default=-1) + 1
    seen = np.bincount(views, minlength=size)
    alone = np.bincount(views[crowd[rows] == 1], minlength=size)
    return {view_id: Sighting(int(seen[view_id]), int(alone[view_id])) for view_id in memory.views}


def evidence_map(
    memory: ViewMemory, camera: Camera, view_ids: Sequence[int], side: int | None = None
) -> Int64[Tensor, "h w"]:
    """Which of some views explains each pixel that a camera is about to see.

    Args:
        memory: What is remembered.
        camera: The target view.
        view_ids: Views, in order: a pixel counts for the first that has seen its surface.
        side: Longer side of the map in pixels; that of the camera when left out.

    Returns:
        Index into ``view_ids``; UNEXPLAINED where the surface, or the side of it that faces the
        camera, was seen by none of them; UNMAPPED where there is no surface; HIDDEN where a wall
        that is not mapped is likely to be in the way.
    """
    seen_by, ids = _front(memory, camera, side)
    rows, views = memory.surfels.observers.pairs()
    shown, points = _shown(memory, seen_by, ids), memory.surfels.points
    front = np.unique(ids[seen_by])
    shown = shown[memory.sights.ids]
    hidden = front[out_of_sight(points[front], shown, memory.sights, [camera])]
    first = np.full(len(memory.surfels), UNEXPLAINED)
    for rank in reversed(range(len(view_ids))):
        first[rows[views == view_ids[rank]]] = rank
    answer = np.full(ids.shape, UNMAPPED)
    answer[ids >= 0] = UNEXPLAINED
    answer[seen_by] = first[ids[seen_by]]
    answer[seen_by & np.isin(ids, hidden)] = HIDDEN
    return torch.from_numpy(answer)


def shares_shown(memory: ViewMemory, camera: Camera, side: int | None = None) -> dict[int, float]:
    """Share of a camera's pixels whose surface each view held has seen, by id.

    Args:
        memory: What is remembered.
        camera: The target view.
        side: Longer side of the grid on which pixels are counted; the memory's when left out.
    """
    seen_by, ids = _front(memory, camera, side or memory.config.evidence_side)
    shown = _shown(memory, seen_by, ids)
    return {view_id: float(shown[view_id]) / ids.size for view_id in memory.views}


def _shown(memory: ViewMemory, seen_by: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """How many of these pixels each view has seen, by id."""
    pixels = np.bincount(ids[seen_by], minlength=len(memory.surfels))
    rows, views = memory.surfels.observers.pairs()
    size = max(memory.views, default=-1) + 1
    return np.bincount(views, weights=pixels[rows], minlength=size)


def _front(memory: ViewMemory, camera: Camera, side: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that show the front of a surfel, and the row of the surfel that each shows, (h, w)."""
    if side is not None:
        camera = on_side(camera, side)
    map_ = memory.surfels
    points, normals, radii = map(torch.from_numpy, (map_.points, map_.normals, map_.radii))
    seen = render_surfels(points, normals, radii, camera, backs=True)
    ids = seen.ids.numpy()
    return (ids >= 0) & (seen.cos.numpy() > 0), ids
