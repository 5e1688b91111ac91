"""Where the visitor stands: first person, upright, starting where the photograph was taken.

In viser's terms, with nothing heavy loaded; :mod:`viewer.cameras` leads over to our cameras.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import viser
from jaxtyping import Float, UInt8

LOOK_AHEAD = 0.05
"""Distance of the point that viser turns around, in metres: close enough to feel like a head."""
ORBIT_DISTANCE = 2.0
"""The same when orbiting, in metres, where nothing is ahead."""
NEAR, FAR_PLANE = 0.02, 2000.0
"""Depth range that is drawn, in metres. See :mod:`viewer.walker` for who reads the far plane."""
BROWSER_SPEED = 2.0
"""How fast the browser walks, in metres per second: viser fixes it."""
KEYS = """\
**W A S D** walk · **Q E** down, up (when flying)
**arrows**, **drag** look around
**1** walk · **2** fly · **3** orbit
**,** slower · **.** faster
**R** back to the photograph
**B** bookmark this view
**G** grow here · **Ctrl Z** undo · **Ctrl Shift Z** redo
**4** to **9** colour, depth, normals, provenance, surfels, evidence
**P** take a picture · **K** add a keyframe
**?** this note · **Ctrl K** all commands
""".replace("\n", "  \n")
"""The note on keys; two blanks end a line in markdown."""


@dataclass(frozen=True, eq=False)
class Pose:
    """A first-person view in viser's terms, in world axes (OpenCV)."""

    position: Float[np.ndarray, " 3"]
    """In metres."""
    look_at: Float[np.ndarray, " 3"]
    """The point that is turned around, in front."""
    up: Float[np.ndarray, " 3"]
    """Unit vector."""
    fov: float
    """Vertical field of view, in radians."""


def set_home(server: viser.ViserServer, pose: Pose) -> None:
    """Start new visitors at ``pose``; who is there already stays, but takes over its lens."""
    start = server.initial_camera
    start.position, start.look_at, start.up = pose.position, pose.look_at, pose.up
    start.near, start.far, start.fov = NEAR, FAR_PLANE, pose.fov


def share_query(pose: Pose) -> str:
    """What to add to the viewer's address, so that it opens at ``pose``."""

    def plain(values: np.ndarray) -> str:
        return ",".join(f"{round(float(value), 4) + 0.0:.4f}" for value in values)

    fields = {
        "initialCameraPosition": plain(pose.position),
        "initialCameraLookAt": plain(pose.look_at),
        "initialCameraUp": plain(pose.up),
    }
    return "?" + urlencode(fields, safe=",")


def add_picture(
    server: viser.ViserServer,
    rgb: UInt8[np.ndarray, "h w 3"],
    pose: Pose,
    distance: float = 1.0,
) -> viser.ImageHandle:
    """A picture that fills the height of a view, so many metres in front of it.

    Args:
        server: Who shows it.
        rgb: sRGB levels.
        pose: The view: level, looking along +z.
        distance: In metres.
    """
    height = 2.0 * distance * math.tan(0.5 * pose.fov)
    return server.scene.add_image(
        "/picture", rgb, height * rgb.shape[1] / rgb.shape[0], height,
        position=pose.position + np.array([0.0, 0.0, distance]),
        cast_shadow=False, receive_shadow=False,
    )  # fmt: skip
