"""What was seen and from where: one record per view."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from renderers.camera import Camera
from renderers.errors import SceneError, check_shapes
from renderers.kernels import kernel

PROVENANCES = ("observed", "generated")
"""Where pixels come from: a photograph, or a generator. The first outranks the second."""

Array = Tensor | np.ndarray
"""What the memory takes where it holds tensors itself."""


@dataclass(frozen=True, eq=False)
class View:
    """One picture that the memory holds. Immutable."""

    rgb: Float32[Tensor, "h w 3"]
    """sRGB, 0 to 1."""
    depth: Float32[Tensor, "h w"]
    """z in the camera frame, metres; NaN unknown, +inf sky."""
    camera: Camera
    """Where it was taken from, on the pixel grid of ``rgb``."""
    provenance: str
    """One of PROVENANCES."""
    known: Bool[Tensor, "h w"]
    """The pixels that this view shows validly; it knows nothing of the others."""


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Carrier for the shape check."""

    rgb: np.ndarray
    depth: np.ndarray
    known: np.ndarray


def make_view(
    rgb: Array, depth: Array, camera: Camera, provenance: str, known: Array | None = None
) -> View:
    """Check and copy the parts of a view.

    Args:
        rgb: (h, w, 3) sRGB, 0 to 1.
        depth: (h, w) z in the camera frame, metres; NaN unknown, +inf sky.
        camera: Its pixel grid may be larger or smaller than the image, of the same aspect ratio.
        provenance: One of PROVENANCES.
        known: (h, w) bool; all pixels when left out.

    Raises:
        SceneError: Shapes or aspect ratios disagree, the provenance is unknown, colours are
            integers or not finite, depth is not positive, or no pixel is known at all.
    """
    if provenance not in PROVENANCES:
        raise SceneError(
            f"unknown provenance {provenance!r}",
            why="every pixel was either photographed or generated",
            fix=f"use one of: {', '.join(PROVENANCES)}",
        )
    pixels, z = _plain(rgb), _plain(depth)
    mask = np.ones(z.shape, np.bool_) if known is None else _plain(known)
    check_shapes(_Pixels(pixels, z, mask), rgb=("h", "w", 3), depth=("h", "w"), known=("h", "w"))
    if pixels.dtype.kind != "f":
        raise SceneError(
            f"the colours of a view are {pixels.dtype}",
            why="images are floats between 0 and 1",
            fix="divide 8-bit colours by 255",
        )
    if mask.dtype != np.bool_:
        raise SceneError(
            f"the mask of known pixels is {mask.dtype}",
            why="a pixel is known or it is not",
            fix="pass booleans, for example `confidence > 0.5`",
        )
    # Copies that nobody else can change, by numpy: torch would wake its threads for each.
    colors, z, mask = (
        np.array(values, dtype, order="C")
        for values, dtype in ((pixels, np.float32), (z, np.float32), (mask, np.bool_))
    )
    _check_values(colors, z, mask)
    grid = _on_grid(camera, z)
    return View(
        torch.from_numpy(colors), torch.from_numpy(z), grid, provenance, torch.from_numpy(mask)
    )


def _plain(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _check_values(rgb: np.ndarray, depth: np.ndarray, known: np.ndarray) -> None:
    shown, unphysical, colorless = _count(rgb, depth, known)
    if unphysical:
        raise SceneError(
            f"a view has {unphysical} depths that are not positive",
            why="depth is the distance in front of the camera, in metres",
            fix="write NaN where depth is unknown and +inf for sky",
        )
    if not shown:
        raise SceneError(
            "a view shows nothing",
            why="its depth is NaN (unknown) at every known pixel",
            fix="estimate depth first (scenegen.geometry.estimate), or check the known pixels",
        )
    if colorless:
        raise SceneError(
            f"a view has {colorless} pixels whose colours are not finite",
            why="NaN or infinity at pixels that count as known",
            fix="leave those pixels out of the mask of known pixels",
        )


@kernel()
def _count(rgb, depth, known):
    """Known pixels that have a depth, that have one below or at 0, and without a colour."""
    shown = unphysical = colorless = 0
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            if known[y, x]:
                shown += not np.isnan(depth[y, x])
                unphysical += depth[y, x] <= 0.0
                colorless += not np.isfinite(rgb[y, x, 0] + rgb[y, x, 1] + rgb[y, x, 2])
    return shown, unphysical, colorless


def _on_grid(camera: Camera, depth: np.ndarray) -> Camera:
    """The camera on the pixel grid of the image."""
    height, width = depth.shape
    if (camera.width, camera.height) == (width, height):
        return camera
    if abs(camera.height * width / camera.width - height) > 1:
        raise SceneError(
            f"a camera of {camera.width} x {camera.height} cannot have taken an image of "
            f"{width} x {height}",
            why="their aspect ratios differ",
            fix="pass the camera that belongs to the image",
        )
    return camera.resized(width, height)


def lens_of(camera: Camera) -> np.ndarray:
    """Focal lengths and principal point (fx, fy, cx, cy) in pixels, float64."""
    k = camera.px_from_cam.detach().cpu().double().numpy()
    return np.array([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])


def cam_from_world(camera: Camera) -> np.ndarray:
    """The pose as a (3, 4) float64 matrix."""
    return np.ascontiguousarray(camera.cam_from_world.detach().cpu().double().numpy()[:3])


def world_from_cam(camera: Camera) -> np.ndarray:
    """The inverse pose as a (3, 4) float64 matrix."""
    pose = cam_from_world(camera)
    rotation = pose[:, :3].T
    return np.concatenate([rotation, -rotation @ pose[:, 3:]], axis=1)
