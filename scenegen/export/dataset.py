"""A folder to train from: pictures, depth, normals, and their cameras in both usual ways."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from renderers.camera import Camera
from renderers.errors import SceneError
from renderers.splats import Splats
from scenegen.export.atomic import cannot_write
from scenegen.export.colmap import write_colmap
from scenegen.export.images import (
    DEPTH_STEP,
    write_depth,
    write_depth_png,
    write_normals,
    write_normals_png,
    write_png,
)
from scenegen.export.transforms import write_transforms


@dataclass(frozen=True, eq=False)
class Frame:
    """What one camera sees."""

    camera: Camera
    rgb: Float[Tensor, "h w 3"]
    """sRGB, 0 to 1."""
    depth: Float[Tensor, "h w"] | None = None
    """z in the camera frame, in metres; NaN where unknown, +inf for sky."""
    normals: Float[Tensor, "h w 3"] | None = None
    """Unit vectors in the camera frame, towards the camera; NaN where unknown."""


def write_frame(path: str | Path, frame: Frame) -> dict[str, str]:
    """Write ``NAME.png`` and what there is of NAME.npy, .depth.png, .normals.npy, .normals.png.

    Args:
        path: The picture, with its suffix.
        frame: What is written.

    Returns:
        The entries of the frame in a transforms.json, as nerfstudio names them.

    Raises:
        SceneError: A file cannot be written.
    """
    path = Path(path)
    names = {"file_path": path.name}
    write_png(path, frame.rgb)
    if frame.depth is not None:
        names["depth_file_path"] = f"{path.stem}.depth.png"
        write_depth(path.with_suffix(".npy"), frame.depth)
        write_depth_png(path.with_name(names["depth_file_path"]), frame.depth)
    if frame.normals is not None:
        names["normal_file_path"] = f"{path.stem}.normals.png"
        write_normals(path.with_name(f"{path.stem}.normals.npy"), frame.normals)
        write_normals_png(path.with_name(names["normal_file_path"]), frame.normals)
    return names


def write_dataset(folder: str | Path, frames: Iterable[Frame], splats: Splats) -> int:
    """Write numbered frames, ``transforms.json``, and COLMAP's text in ``sparse/0``.

    Args:
        folder: Where to; made when it is not there. Cameras are written after all frames.
        frames: At least one; taken one at a time.
        splats: Their centres become COLMAP's points.

    Returns:
        How many frames were written.

    Raises:
        SceneError: There are no frames, or a file cannot be written.
    """
    folder = Path(folder)
    sparse = folder / "sparse" / "0"
    try:
        sparse.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(sparse, error) from error
    cameras, entries = [], []
    for number, frame in enumerate(frames):
        entries.append(write_frame(folder / f"{number:05d}.png", frame))
        cameras.append(frame.camera)
    if not cameras:
        raise SceneError(
            "the data set has no frames",
            why="the camera path is empty",
            fix="give a path with at least one camera",
        )
    whole = {"integer_depth_scale": DEPTH_STEP} if "depth_file_path" in entries[0] else {}
    write_transforms(folder / "transforms.json", cameras, entries, whole)
    write_colmap(sparse, cameras, [entry["file_path"] for entry in entries], splats)
    return len(cameras)
