"""What cameras see of a world: colours, depth, and where surfaces face."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from renderers import Camera, Render
from scenegen.export.dataset import Frame
from scenegen.export.progress import progress
from scenegen.geometry.normals import disparity_normals


def frames(
    draw: Callable[[Camera], Render],
    cameras: Sequence[Camera],
    depth: bool = False,
    normals: bool = False,
) -> Iterator[Frame]:
    """Draw a world along cameras, one at a time, with a bar on a terminal.

    Args:
        draw: World.render.
        cameras: From where.
        depth: Keep depth too.
        normals: Also work out normals, from depth.
    """
    for camera in progress(cameras, "drawing"):
        image = draw(camera)
        facing = None
        if normals:
            facing = disparity_normals(image.depth, camera.px_from_cam)
            facing = torch.where(torch.isfinite(image.depth)[..., None], facing, torch.nan)
        yield Frame(camera, image.rgb, image.depth if depth else None, facing)
