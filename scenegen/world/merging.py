"""A second world within a first one, at a place of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera, SceneError, Splats, join
from scenegen.export.placement import Placement
from scenegen.export.transforms import read_transforms
from scenegen.world.arrays import StepData
from scenegen.world.grow import SKY_FROM, as_levels

if TYPE_CHECKING:
    from scenegen.world.world import World

Part = tuple[Camera, StepData, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Pose:
    """Where a second world lies: ``x_world = scale * (rotation @ x_other) + place``."""

    rotation: Float[Tensor, "3 3"]
    """float64."""
    place: Float[Tensor, " 3"]
    """Of the second world's origin, in metres; float64."""
    scale: float = 1.0

    def __post_init__(self) -> None:
        numbers = [*self.place.tolist(), self.scale, *self.rotation.flatten().tolist()]
        if not (all(map(math.isfinite, numbers)) and self.scale > 0.0):
            raise SceneError(
                "this is no place for a world",
                why="place and turn must be finite, and the scale above 0",
                fix="give --at X Y Z in metres, --yaw in degrees and --scale above 0",
            )

    def splats(self, splats: Splats) -> Splats:
        """Splats of the second world, in the first."""
        rows: Any = tuple(map(tuple, self.rotation.tolist()))
        shift: Any = tuple(self.place.tolist())
        return Placement(rows, self.scale, shift).splats(splats)

    def camera(self, camera: Camera) -> Camera:
        """A camera of the second world, in the first."""
        pose = camera.cam_from_world.double().clone()
        pose[:3, :3] = pose[:3, :3] @ self.rotation.T
        pose[:3, 3] = self.scale * pose[:3, 3] - pose[:3, :3] @ self.place
        return camera.posed(pose.float())

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        parts = {"rotation": self.rotation.tolist(), "place": self.place.tolist()}
        return parts | {"scale": self.scale}


def pose_at(
    at: tuple[float, float, float] = (0.0, 0.0, 0.0), yaw_degrees: float = 0.0, scale: float = 1.0
) -> Pose:
    """The second world's first camera at a place (metres), turned to the right, level."""
    yaw = math.radians(yaw_degrees)
    c, s = math.cos(yaw), math.sin(yaw)
    turn = torch.tensor([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]], dtype=torch.float64)
    return Pose(turn, torch.tensor(at, dtype=torch.float64), scale)


def pose_from(file: str | Path, scale: float = 1.0) -> Pose:
    """The second world's first camera where the first camera of a transforms.json is.

    Raises:
        SceneError: The file cannot be read.
    """
    world_from_cam = read_transforms(file)[0].world_from_cam.double()
    return Pose(world_from_cam[:3, :3], world_from_cam[:3, 3], scale)


def parts_of(other: World, pose: Pose) -> Iterator[Part]:
    """The steps of a world as steps of another one: splats, view and where they come from.

    The second world's sky stays behind. Splats of steps whose views were forgotten go along with
    those of another.

    Raises:
        SceneError: Nothing of the second world is remembered.
    """
    views = {step.id: _surfaces(other, step.id) for step in other.steps}
    shown = [number for number, known in views.items() if known is not None]
    if not shown:
        raise SceneError(
            f"there is nothing to take from {other.folder}",
            why="it remembers no surface: all was erased, or is sky",
            fix="undo that there, or merge another world",
        )
    along: dict[int, list[Splats]] = {number: [] for number in shown}
    for step, chunk in zip(other.steps, other.chunks, strict=True):
        near = chunk[chunk.means.norm(dim=1) < SKY_FROM * other.sky_radius]
        along[next((n for n in shown if n >= step.id), shown[-1])].append(near)
    for step in (step for step in other.steps if step.id in along):
        view, known = other.memory.views[step.id], views[step.id]
        assert known is not None
        splats = pose.splats(join(along[step.id]))
        came = {"entry": step.id, "seal": other.journal.seals[step.id]}
        came |= {"provenance": step.provenance, "info": dict(step.info)}
        info = {"merged": came, "pose": pose.as_json(), "splats": len(splats)}
        data = StepData(splats, as_levels(view.rgb), pose.scale * view.depth, known)
        yield pose.camera(view.camera), data, info


def _surfaces(world: World, view_id: int) -> Bool[Tensor, "h w"] | None:
    """The pixels of a view that show a surface; None where there are none, or it is forgotten."""
    if view_id not in world.memory.views:
        return None
    view = world.memory.views[view_id]
    known = view.known & torch.isfinite(view.depth)
    return known if known.any() else None


def within(parts: Iterator[Part], world: World) -> Iterator[Part]:
    """The same, checked: the first part at least must show something on this side of the sky.

    Raises:
        SceneError: It does not.
    """
    for number, part in enumerate(parts):
        splats = part[1].splats
        if number == 0 and not (splats.means.norm(dim=1) < SKY_FROM * world.sky_radius).any():
            raise SceneError(
                "the second world would not be seen",
                why=f"it would lie beyond the sky, which is {world.sky_radius:.0f} m away",
                fix="put it nearer, or make it smaller with --scale",
            )
        yield part
