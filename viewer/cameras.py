"""Between viser's views and our cameras."""

from __future__ import annotations

import math

import numpy as np
import torch
import viser
import viser.transforms

from renderers import Camera
from viewer.navigation import LOOK_AHEAD, Pose

FRUSTUM = "/photograph"


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


def camera_of(handle: viser.CameraHandle, lens: float, pose: Pose | None = None) -> Camera:
    """What a visitor sees: place, lens and pixel grid of the window.

    Args:
        handle: What the browser said last.
        lens: Vertical field of view, in radians.
        pose: Place instead, when it has been told another.
    """
    width, height = max(1, int(handle.image_width)), max(1, int(handle.image_height))
    half = math.tan(0.5 * lens)
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
