"""Pinhole camera: where a view was taken from and how it maps to pixels.

Conventions, for the whole project:
  axes    OpenCV: x right, y down, z forward. Metres. Column vectors.
  pixels  pixel (0, 0) covers [0, 1) x [0, 1); its centre is (0.5, 0.5).
  names   a transform is named for what it gives: ``x_cam = cam_from_world @ x_world``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from renderers.errors import SceneError, check_shapes

RIGID_TOLERANCE = 1e-3
"""Largest entry of ``R R^T - 1`` that still counts as a rotation (float32 poses read from text)."""


@dataclass(frozen=True, eq=False)
class Camera:
    """One pinhole view. Immutable: moving a camera returns another camera.

    Raises:
        SceneError: The matrices are not finite, the focal length is not positive, the pose is
            not rigid, or the image is empty.
    """

    px_from_cam: Float[Tensor, "3 3"]
    """Intrinsics, in pixels."""
    cam_from_world: Float[Tensor, "4 4"]
    """Rigid transform, in metres."""
    width: int
    """Image width, in pixels."""
    height: int
    """Image height, in pixels."""

    def __post_init__(self) -> None:
        for name in ("px_from_cam", "cam_from_world"):
            object.__setattr__(self, name, _as_float(getattr(self, name)))
        check_shapes(self, px_from_cam=(3, 3), cam_from_world=(4, 4))
        if self.width < 1 or self.height < 1:
            raise _bad_camera(f"the image is {self.width} x {self.height} pixels")
        pose, intrinsics = self.cam_from_world.detach(), self.px_from_cam.detach()
        if not (torch.isfinite(pose).all() and torch.isfinite(intrinsics).all()):
            raise _bad_camera("its matrices hold NaN or infinity")
        if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
            raise _bad_camera("its focal length is not positive")
        rotation = pose[:3, :3].double()
        skew = (rotation @ rotation.T - torch.eye(3, dtype=torch.float64, device=pose.device)).abs()
        affine = (pose[3] - torch.tensor([0.0, 0.0, 0.0, 1.0]).to(pose)).abs()
        worst = max(skew.max().item(), affine.max().item())
        if worst > RIGID_TOLERANCE or torch.linalg.det(rotation) < 0:
            raise _bad_camera("cam_from_world is not a rotation and a translation")

    @classmethod
    def from_fov(
        cls,
        fov_degrees: float,
        width: int,
        height: int,
        cam_from_world: Float[Tensor, "4 4"] | None = None,
    ) -> Camera:
        """Camera with square pixels and a centred principal point.

        Args:
            fov_degrees: Horizontal field of view, between 0 and 180 degrees, both excluded.
            width: Image width, in pixels.
            height: Image height, in pixels.
            cam_from_world: Pose; the world frame itself when left out.
        """
        if not 0.0 < fov_degrees < 180.0:
            raise SceneError(
                f"a field of view of {fov_degrees} degrees is impossible",
                why="a pinhole camera sees more than 0 and less than 180 degrees",
                fix="give a horizontal field of view such as 60",
            )
        focal = 0.5 * width / math.tan(math.radians(fov_degrees) / 2)
        px_from_cam = torch.tensor(
            [[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]]
        )
        pose = torch.eye(4) if cam_from_world is None else cam_from_world
        return cls(px_from_cam, pose, width, height)

    @classmethod
    def look_at(
        cls,
        eye: Sequence[float] | Tensor,
        target: Sequence[float] | Tensor,
        fov_degrees: float,
        width: int,
        height: int,
        up: Sequence[float] | Tensor = (0.0, -1.0, 0.0),
    ) -> Camera:
        """Camera at ``eye`` that sees ``target`` in its centre, with ``up`` upwards in the image.

        Args:
            eye: Position in the world, in metres.
            target: Point looked at, in metres.
            fov_degrees: Horizontal field of view, in degrees.
            width: Image width, in pixels.
            height: Image height, in pixels.
            up: Direction that is up in the world. Need not be a unit vector.
        """
        eye64, target64, up64 = (torch.as_tensor(v, dtype=torch.float64) for v in (eye, target, up))
        forward = target64 - eye64
        right = torch.linalg.cross(-up64, forward)
        if torch.linalg.norm(right) < 1e-9:
            raise SceneError(
                "the camera's orientation is undefined",
                why="eye and target coincide, or the view direction is parallel to up",
                fix="move the target, or give another up direction",
            )
        z = forward / torch.linalg.norm(forward)
        x = right / torch.linalg.norm(right)
        pose = torch.eye(4, dtype=torch.float64)
        pose[:3, :3] = torch.stack([x, torch.linalg.cross(z, x), z])
        pose[:3, 3] = -pose[:3, :3] @ eye64
        return cls.from_fov(fov_degrees, width, height, pose.float())

    @property
    def world_from_cam(self) -> Float[Tensor, "4 4"]:
        """Inverse of the pose, exact for a rigid transform."""
        rotation, translation = self.cam_from_world[:3, :3], self.cam_from_world[:3, 3]
        top = torch.cat([rotation.T, -(rotation.T @ translation)[:, None]], dim=1)
        return torch.cat([top, self.cam_from_world[3:]], dim=0)

    @property
    def center(self) -> Float[Tensor, " 3"]:
        """Position of the camera in the world, in metres."""
        return self.world_from_cam[:3, 3]

    @property
    def fov_degrees(self) -> float:
        """Horizontal field of view, in degrees."""
        focal, cx = float(self.px_from_cam[0, 0]), float(self.px_from_cam[0, 2])
        return math.degrees(math.atan(cx / focal) + math.atan((self.width - cx) / focal))

    def project(
        self, points_world: Float[Tensor, "*batch 3"]
    ) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
        """Project world points into the image.

        Args:
            points_world: Points, in metres.

        Returns:
            Pixel coordinates (u, v), and depth: z in the camera frame, in metres. Where depth
            is not positive the point is behind the camera and its pixel means nothing.

        Differentiable in the points and in both transforms.
        """
        points_world = _as_float(points_world)
        pose, intrinsics = self.cam_from_world.to(points_world), self.px_from_cam.to(points_world)
        points_cam = points_world @ pose[:3, :3].T + pose[:3, 3]  # (*batch, 3)
        depth = points_cam[..., 2]
        px_h = points_cam @ intrinsics.T  # (*batch, 3), homogeneous
        return px_h[..., :2] / px_h[..., 2:], depth

    def unproject(
        self, pixels: Float[Tensor, "*batch 2"], depth: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch 3"]:
        """World points seen at ``pixels`` at ``depth``: the inverse of :meth:`project`.

        Args:
            pixels: Pixel coordinates (u, v).
            depth: z in the camera frame, in metres.

        Differentiable in the pixels, the depth and both transforms.
        """
        pixels, depth = _as_float(pixels), _as_float(depth)
        world_from_cam = self.world_from_cam.to(pixels)
        cam_from_px = torch.linalg.inv(self.px_from_cam.double()).to(pixels)
        px_h = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
        points_cam = px_h @ cam_from_px.T * depth[..., None]
        return points_cam @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]

    def pixel_centers(self) -> Float[Tensor, "h w 2"]:
        """Coordinates (u, v) of the centre of every pixel."""
        v, u = torch.meshgrid(
            torch.arange(self.height) + 0.5, torch.arange(self.width) + 0.5, indexing="ij"
        )
        return torch.stack([u, v], dim=-1).to(self.px_from_cam)

    def resized(self, width: int, height: int) -> Camera:
        """The same view on another pixel grid."""
        scale = torch.diag(
            torch.tensor([width / self.width, height / self.height, 1.0]).to(self.px_from_cam)
        )
        return replace(self, px_from_cam=scale @ self.px_from_cam, width=width, height=height)

    def posed(self, cam_from_world: Float[Tensor, "4 4"]) -> Camera:
        """The same lens at another pose."""
        return replace(self, cam_from_world=cam_from_world)

    def moved(
        self,
        right: float = 0.0,
        down: float = 0.0,
        forward: float = 0.0,
        yaw_degrees: float = 0.0,
        pitch_degrees: float = 0.0,
    ) -> Camera:
        """The camera after a step in its own frame, then a turn.

        Args:
            right: Step to the right, in metres.
            down: Step downwards, in metres.
            forward: Step forwards, in metres.
            yaw_degrees: Turn to the right, in degrees.
            pitch_degrees: Turn upwards, in degrees, after the yaw.
        """
        yaw, pitch = math.radians(yaw_degrees), math.radians(pitch_degrees)
        cy, sy, cp, sp = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
        turn_yaw = torch.tensor([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]], dtype=torch.float64)
        turn_pitch = torch.tensor([[1, 0, 0], [0, cp, sp], [0, -sp, cp]], dtype=torch.float64)
        new_from_old = torch.eye(4, dtype=torch.float64)
        new_from_old[:3, :3] = turn_pitch @ turn_yaw
        step = torch.tensor([right, down, forward], dtype=torch.float64)
        new_from_old[:3, 3] = -new_from_old[:3, :3] @ step
        pose = new_from_old @ self.cam_from_world.double()
        return self.posed(pose.to(self.cam_from_world))


def _as_float(value: Tensor) -> Tensor:
    tensor = torch.as_tensor(value)
    return tensor if tensor.is_floating_point() else tensor.float()


def _bad_camera(why: str) -> SceneError:
    return SceneError(
        "this is not a camera",
        why=why,
        fix="check the intrinsics and the pose (docs/conventions.md)",
    )
