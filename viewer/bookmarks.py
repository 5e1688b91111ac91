"""Bookmarks are kept in the visitor's own browser, a list for each world: a reload loses none."""

from __future__ import annotations

import json
import logging
import math

import numpy as np
import viser

from viewer.navigation import Pose

logger = logging.getLogger("scenegen")

MOST = 50
"""Bookmarks of a world at most."""
PATIENCE = 60.0
"""Seconds that a browser may take to say what it holds."""


def keep(client: viser.ClientHandle, world: str, marks: dict[str, Pose]) -> None:
    """Have the browser keep the bookmarks of a world."""
    client.local_storage.set_item(_key(world), packed(marks))


def recall(client: viser.ClientHandle, world: str) -> dict[str, Pose]:
    """The bookmarks that the browser holds. It may take a while to answer."""
    try:
        return unpacked(client.local_storage.get_item(_key(world), PATIENCE))
    except (RuntimeError, TimeoutError) as error:  # it left, or may not store anything
        logger.debug("viewer: no bookmarks from a browser: %s", error)
        return {}


def packed(marks: dict[str, Pose]) -> str:
    """Bookmarks as text."""
    rows = {
        name: [*pose.position.tolist(), *pose.look_at.tolist(), *pose.up.tolist(), pose.fov]
        for name, pose in marks.items()
    }
    return json.dumps(rows)


def unpacked(text: str | None) -> dict[str, Pose]:
    """Bookmarks from text; what is none is left out: the browser may say anything."""
    try:
        rows = json.loads(text or "{}")
        found = {str(name): np.array(row, np.float64) for name, row in rows.items()}
    except (ValueError, TypeError, AttributeError):
        return {}
    good = {name: row for name, row in found.items() if _is_pose(row)}
    return {
        name: Pose(row[:3], row[3:6], row[6:9], float(row[9]))
        for name, row in list(good.items())[-MOST:]
    }


def _is_pose(row: np.ndarray) -> bool:
    if row.shape != (10,) or not np.isfinite(row).all():
        return False
    ahead, up = row[3:6] - row[:3], row[6:9]
    turned = np.linalg.norm(np.cross(ahead, up)) > 1e-6
    return bool(turned and 0.0 < row[9] < math.pi)


def _key(world: str) -> str:
    return f"bookmarks of {world}"
