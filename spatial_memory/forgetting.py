"""What may be forgotten: views that others make superfluous, and pixels that show a place."""

from __future__ import annotations

import numpy as np
import torch

from spatial_memory.observers import Observers
from spatial_memory.retrieve import pose_gaps
from spatial_memory.sights import Sights
from spatial_memory.views import View, cam_from_world, lens_of

SAME_SHARE = 0.99
"""A view replaces another only when it has seen this share of the surfels that the other saw."""


def least_missed(view_ids: np.ndarray, observers: Observers, surfels: int) -> int | None:
    """The view whose surfels are missed least.

    Args:
        view_ids: (v,) those that may go, ascending.
        observers: Who has seen what.
        surfels: How many surfels must go with it, if possible; 0 where only views are too many.

    Returns:
        The view that takes the fewest surfels with it, but as many as asked for; where none takes
        that many, the one that takes most; of equals the oldest. None where no view helps.
    """
    alone = observers.seen_alone(view_ids)
    if len(view_ids) == 0 or (surfels > 0 and not alone.any()):
        return None
    enough = alone >= surfels
    cost = np.where(enough, alone, np.inf) if enough.any() else -alone
    return int(view_ids[cost.argmin()])


def replaced(view_id: int, sights: Sights, observers: Observers) -> list[int]:
    """Views that a new one makes superfluous: taken from the same place, with nothing of their own.

    The same place: same lens, and no pixel moves by more than one pixel of the sights. Nothing of
    their own: the new view knows every pixel that they know, and has seen SAME_SHARE of what they
    have seen.
    """
    new = sights[view_id]
    pixel = 1.0 / max(new.lens[0], new.lens[1])
    nearest = 1.0 / new.inverse.max(initial=1e-12, where=new.inverse > 0.0)
    angles, steps = pose_gaps(sights.poses, new.pose)
    close = sights.ids[(angles <= pixel) & (steps <= pixel * nearest) & (sights.ids != view_id)]
    seen = observers.seen_by(view_id)
    found = []
    for other_id in close.tolist():
        other = sights[other_id]
        if other.inverse.shape != new.inverse.shape or not np.allclose(other.lens, new.lens):
            continue
        covered = not (np.isnan(new.inverse) & ~np.isnan(other.inverse)).any()
        its = observers.seen_by(other_id)
        if covered and np.isin(its, seen).sum() >= SAME_SHARE * len(its):
            found.append(other_id)
    return found


def pixels_inside(view: View, corners: np.ndarray) -> torch.Tensor:
    """(h, w) bool: pixels whose surface lies inside a box, corners (2, 3) in the world."""
    pose, (fx, fy, cx, cy) = cam_from_world(view.camera), lens_of(view.camera)
    height, width = view.depth.shape
    z = np.where(torch.isfinite(view.depth), view.depth.numpy(), np.nan).astype(np.float64)
    x = (np.arange(width) + 0.5 - cx) / fx * z - pose[0, 3]
    y = ((np.arange(height) + 0.5 - cy) / fy)[:, None] * z - pose[1, 3]
    z = z - pose[2, 3]
    inside = np.ones(z.shape, np.bool_)
    for axis in range(3):
        world = pose[0, axis] * x + pose[1, axis] * y + pose[2, axis] * z
        inside &= (world >= corners[0, axis]) & (world <= corners[1, axis])
    return torch.from_numpy(inside)


def falls_on(view: View, pixels: torch.Tensor, points: np.ndarray) -> np.ndarray:
    """Which points (n, 3) fall on one of these pixels (h, w) of a view: (n,) bool."""
    pose, (fx, fy, cx, cy) = cam_from_world(view.camera), lens_of(view.camera)
    height, width = pixels.shape
    x, y, z = pose[:, :3] @ points.astype(np.float64).T + pose[:, 3:]
    front = np.maximum(z, 1e-9)
    u = np.clip(np.floor(fx * x / front + cx), 0, width - 1).astype(np.int64)
    v = np.clip(np.floor(fy * y / front + cy), 0, height - 1).astype(np.int64)
    return pixels.numpy()[v, u]
