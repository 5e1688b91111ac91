"""Where the visitor stands: first person, upright, starting where the photograph was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import viser
import viser.transforms
from jaxtyping import Float

from renderers import Camera

LOOK_AHEAD = 0.1
"""Distance of the point that viser turns around, in metres: close enough to feel like a head."""
NEAR, FAR_PLANE = 0.02, 2000.0
"""Depth range that is drawn, in metres."""
KEYS = """\
**W A S D** walk · **Q E** down, up
**drag** look around · **right drag** slide
**arrows** swing round what is ahead
**R** back to the photograph
""".replace("\n", "  \n")
"""The note on the panel; two blanks end a line in markdown."""
FRUSTUM = "/photograph"


@dataclass(frozen=True, eq=False)
class Pose:
    """A first-person view in viser's terms, in world axes (OpenCV)."""

    position: Float[np.ndarray, " 3"]
    """In metres."""
    look_at: Float[np.ndarray, " 3"]
    """A point LOOK_AHEAD in front."""
    up: Float[np.ndarray, " 3"]
    """Unit vector."""
    fov: float
    """Vertical field of view, in radians."""


def vertical_fov(camera: Camera) -> float:
    """Vertical field of view, in radians: viser's kind."""
    focal, cy = float(camera.px_from_cam[1, 1]), float(camera.px_from_cam[1, 2])
    return math.atan(cy / focal) + math.atan((camera.height - cy) / focal)


def pose_of(camera: Camera) -> Pose:
    """The view of a camera."""
    world_from_cam = camera.world_from_cam.double().numpy()
    _, down, forward, position = world_from_cam[:3].T
    return Pose(position, position + LOOK_AHEAD * forward, -down, vertical_fov(camera))


def set_home(server: viser.ViserServer, pose: Pose) -> None:
    """Start new visitors at ``pose``; who is there already stays, but takes over its lens."""
    start = server.initial_camera
    start.position, start.look_at, start.up = pose.position, pose.look_at, pose.up
    start.near, start.far, start.fov = NEAR, FAR_PLANE, pose.fov


def go_to(client: viser.ClientHandle, pose: Pose) -> None:
    """Bring one visitor to ``pose``."""
    with client.atomic():
        client.camera.up_direction = pose.up
        client.camera.position = pose.position
        client.camera.look_at = pose.look_at
        client.camera.fov = pose.fov


def stay_first_person(client: viser.ClientHandle) -> None:
    """Keep the mouse wheel from backing out of the head into an orbit."""
    client.camera.max_orbit_distance = LOOK_AHEAD
    client.camera.min_orbit_distance = LOOK_AHEAD


def add_frustum(server: viser.ViserServer, camera: Camera) -> viser.CameraFrustumHandle:
    """The frame of the photograph's camera, hidden at first."""
    world_from_cam = camera.world_from_cam.double().numpy()
    return server.scene.add_camera_frustum(
        FRUSTUM,
        fov=vertical_fov(camera),
        aspect=camera.width / camera.height,
        scale=0.25,
        thickness=0.004,
        color=(255, 190, 90),
        wxyz=viser.transforms.SO3.from_matrix(world_from_cam[:3, :3]).wxyz,
        position=world_from_cam[:3, 3],
        visible=False,
    )
