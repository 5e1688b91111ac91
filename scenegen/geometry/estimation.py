"""One image to geometry: sky, depth by a backend, sharp edges, normals."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from renderers import Camera, SceneError
from scenegen.geometry.base import EYE_HEIGHT, Geometry, choose_depth
from scenegen.geometry.edges import sharpen
from scenegen.geometry.ground import check_eye_height
from scenegen.geometry.normals import disparity_normals
from scenegen.geometry.sky import find_sky
from scenegen.image.focal import default_fov
from scenegen.stopping import checkpoint

SMALLEST_SIDE = 16
"""Images smaller than this hold no geometry to speak of, in pixels."""


def estimate(
    rgb: Float[Tensor, "h w 3"] | Float[np.ndarray, "h w 3"],
    backend: str = "auto",
    fov_degrees: float | None = None,
    eye_height: float = EYE_HEIGHT,
) -> Geometry:
    """Estimate the geometry behind one image.

    Args:
        rgb: Image, sRGB, 0 to 1. A numpy array is taken as well.
        backend: A name of ``DEPTH_BACKENDS``, or "auto" for the best that runs here; see
            ``choose_depth`` for other weights.
        fov_degrees: Horizontal field of view; a usual lens (28 mm equivalent) when left out.
        eye_height: Height of the camera above the ground, in metres: where ground is seen, the
            metres of all depth come from it.

    Raises:
        SceneError: The image is not (h, w, 3), holds NaN or is smaller than 16 pixels, the eye
            height is none, or the backend is unknown or cannot run here.

    Not differentiable. The result depends on the pixels and the arguments only.
    """
    rgb = torch.as_tensor(rgb, dtype=torch.float32)
    if rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < SMALLEST_SIDE:
        raise SceneError(
            f"cannot estimate the geometry of an array of shape {tuple(rgb.shape)}",
            why=f"it must be (height, width, 3) with sides of at least {SMALLEST_SIDE} pixels",
            fix="pass a colour image",
        )
    if not torch.isfinite(rgb).all():
        raise SceneError(
            "cannot estimate the geometry of this image",
            why="it holds NaN or infinite values",
            fix="fill the unknown pixels first",
        )
    check_eye_height(eye_height)
    _, estimator = choose_depth(backend)
    height, width = rgb.shape[:2]
    fov = default_fov(width, height) if fov_degrees is None else fov_degrees
    px_from_cam = Camera.from_fov(fov, width, height).px_from_cam
    with torch.no_grad():
        sky = find_sky(rgb)
        checkpoint()
        estimate = estimator().depth(rgb, sky, px_from_cam, eye_height)
        checkpoint()
        sky = estimate.sky
        depth = sharpen(estimate.depth, rgb, sky)
        normals = disparity_normals(depth, px_from_cam)
    normals = torch.where(sky[..., None], torch.tensor([0.0, 0.0, -1.0]), normals)
    return Geometry(
        depth=torch.where(sky, math.inf, depth),
        normals=normals,
        sky=sky,
        px_from_cam=px_from_cam,
        confidence=torch.where(sky, 1.0, estimate.confidence),
        scale=estimate.scale,
    )
