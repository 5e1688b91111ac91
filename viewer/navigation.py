"""Where the visitor stands: first person, upright, starting where the photograph was taken."""

from __future__ import annotations

import math
from dataclasses import dataclass
from urllib.parse import urlencode

import numpy as np
import torch
import viser
import viser.transforms
from jaxtyping import Float, UInt8

from renderers import Camera

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
FRUSTUM = "/photograph"


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


def vertical_fov(camera: Camera) -> float:
    """Vertical field of view, in radians: viser's kind."""
    focal, cy = float(camera.px_from_cam[1, 1]), float(camera.px_from_cam[1, 2])
    return math.atan(cy / focal) + math.atan((camera.height - cy) / focal)


def pose_of(camera: Camera, ahead: float = LOOK_AHEAD) -> Pose:
    """The view of a camera, upright, turning around a point so many metres ahead."""
    world_from_cam = camera.world_from_cam.double().numpy()
    _, down, forward, position = world_from_cam[:3].T
    level = np.array([0.0, -1.0, 0.0])  # a tilted up would make the mouse turn about a tilted axis
    up = level if abs(forward[1]) < 0.999 else -down
    return Pose(position, position + ahead * forward, up, vertical_fov(camera))


def camera_of(handle: viser.CameraHandle, pose: Pose | None = None) -> Camera:
    """What a visitor sees: place, lens and pixel grid of the window.

    Args:
        handle: What the browser said last.
        pose: Place and lens instead, when it has been told another.
    """
    width, height = max(1, int(handle.image_width)), max(1, int(handle.image_height))
    half = math.tan(0.5 * float(handle.fov if pose is None else pose.fov))
    wide = min(max(math.degrees(2.0 * math.atan(half * width / height)), 1.0), 175.0)
    if pose is not None:
        return Camera.look_at(
            torch.from_numpy(pose.position), torch.from_numpy(pose.look_at),
            wide, width, height, torch.from_numpy(pose.up),
        )  # fmt: skip
    rotation = viser.transforms.SO3(np.asarray(handle.wxyz)).as_matrix()
    world = torch.eye(4, dtype=torch.float64)
    world[:3, :3] = torch.from_numpy(rotation.T)
    world[:3, 3] = -world[:3, :3] @ torch.from_numpy(np.array(handle.position, np.float64))
    return Camera.from_fov(wide, width, height, world.float())


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


def add_picture(
    server: viser.ViserServer,
    rgb: UInt8[np.ndarray, "h w 3"],
    camera: Camera,
    distance: float = 1.0,
) -> viser.ImageHandle:
    """A picture that fills the view of a camera, so many metres in front of it."""
    world_from_cam = camera.world_from_cam.double().numpy()
    width = distance * camera.width / float(camera.px_from_cam[0, 0])
    height = distance * camera.height / float(camera.px_from_cam[1, 1])
    return server.scene.add_image(
        "/picture", rgb, width, height,
        wxyz=viser.transforms.SO3.from_matrix(world_from_cam[:3, :3]).wxyz,
        position=world_from_cam[:3, 3] + distance * world_from_cam[:3, 2],
        cast_shadow=False, receive_shadow=False,
    )  # fmt: skip
