"""A file of splats becomes a world: what some cameras see of it is what the world remembers."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from renderers import Camera, Renderer, SceneError, Splats, choose, make_renderer
from renderers.base import RENDERERS
from scenegen import geometry, splatting
from scenegen.config import LONG_SIDE, ImportConfig
from scenegen.export import read_splats, read_transforms
from scenegen.export.choosing import UPS
from scenegen.export.placement import Axes, Placement
from scenegen.geometry.ground import check_eye_height
from scenegen.outpaint import choose_outpainter
from scenegen.world.arrays import StepData
from scenegen.world.build import new_world, remove_empty_world, sky_radius_of
from scenegen.world.events import Committed, Event, Finished
from scenegen.world.folder import check_free
from scenegen.world.grow import as_levels, look
from scenegen.world.world import World

LEAST = 0.02
"""Share of the first view that the splats must fill."""
WORTH = 0.05
"""Other views are remembered when the splats fill this share of them."""
MOST_VIEWS = 64
"""Cameras of a file that are looked through."""
OVERLAP = 0.75
"""Views around are turned by this share of their width."""


def import_splats(file: str | Path, out: str | Path, config: ImportConfig | None = None) -> World:
    """Make a world of a file of splats and return it, open.

    Args:
        file: .ply, .spz, .compressed.ply, .splat or .splats.glb.
        out: New or empty folder for the world.
        config: Where one stands in it, and how it grows.

    Raises:
        SceneError: The file cannot be read, the camera sees nothing of it, the folder is taken, or
            a backend is missing.
    """
    events = _imported(Path(file), Path(out), config or ImportConfig())
    while True:
        try:
            next(events)
        except StopIteration as done:
            return done.value


def import_events(file: str | Path, out: str | Path, config: ImportConfig) -> Iterator[Event]:
    """The same, event by event: Committed for each view, then Finished.

    Args:
        file: As above, like ``out`` and ``config``.
        out: Folder for the world. All of it is written at once, or nothing.
        config: Settings.
    """
    world = yield from _imported(Path(file), Path(out), config)
    world.close()


def _imported(file: Path, folder: Path, config: ImportConfig) -> Generator[Event, None, World]:
    begun = time.monotonic()
    check_free(folder)
    check_eye_height(config.eye_height)
    _check(config)
    names = {
        "depth": geometry.choose_depth(config.depth)[0],
        "outpaint": choose_outpainter(config.outpaint, config.prompt)[0],
        "renderer": choose("renderer", RENDERERS, config.renderer)[0],
    }
    rows: Any = torch.tensor(UPS[config.up]).T.tolist()  # from the axes of the file to ours
    x, y, z = (tuple(row) for row in rows)
    axes: Axes = (x, y, z)
    splats = Placement(axes, config.scale).splats(read_splats(file))
    cameras = _cameras(config, torch.tensor(axes, dtype=torch.float64))
    renderer = make_renderer(names["renderer"])
    radius = sky_radius_of(_seen(splats, cameras[0], renderer, math.inf).depth)
    views = [_seen(splats, camera, renderer, radius) for camera in cameras]
    _check_first(float(views[0].known.float().mean()), file, config)
    info = {"imported": file.name, "sha256": _digest(file), "up": config.up, "scale": config.scale}
    parts: list[tuple[Camera, StepData, dict[str, Any]]] = []
    for camera, view in zip(cameras, views, strict=True):
        if not parts or view.known.float().mean() >= WORTH:
            has = splats if not parts else Splats.empty()
            data = StepData(has, view.rgb, view.depth, view.known)
            parts.append((camera, data, {**info, "splats": len(has)}))
    said = "one unit of the file is " + (
        "one metre" if config.scale == 1 else f"{config.scale:g} m"
    )
    meta = {key: value for key, value in asdict(config).items() if key not in ("camera", "up")}
    meta |= {**names, "extent": "photo", "photo": file.name, "fov": cameras[0].fov_degrees,
             "fov_source": "as given", "scale_source": said, "sky_radius": radius}  # fmt: skip
    world = new_world(folder, meta, names["renderer"])
    try:
        with world.writing():
            if world.journal.entries:
                check_free(folder)  # refuses: another process was faster
            steps = world.add_all(parts, "imported")
    except BaseException:
        world.close()
        remove_empty_world(folder)
        raise
    for step, (camera, data, _) in zip(steps, parts, strict=True):
        yield Committed(step.id, data.splats, camera, 0.0, time.monotonic() - begun)
    yield Finished(len(steps), len(splats), time.monotonic() - begun)
    return world


def _check(config: ImportConfig) -> None:
    if not (math.isfinite(config.scale) and config.scale > 0.0):
        raise SceneError(
            f"a scale of {config.scale:g} makes no world",
            why="it says how many metres one unit of the file is",
            fix="give --scale a number above 0",
        )
    if not 5.0 <= config.fov <= 150.0:
        raise SceneError(
            f"a field of view of {config.fov:g} degrees is none of a view",
            why="views span 5 to 150 degrees from left to right",
            fix="give --fov between 5 and 150, or leave it out",
        )


def _cameras(config: ImportConfig, turn: torch.Tensor) -> list[Camera]:
    """Where the world is looked at from, the first camera first; in our axes and in metres."""
    if config.camera is None:
        width = LONG_SIDE[config.quality]
        first = Camera.from_fov(config.fov, width, width * 3 // 4)
        count = math.ceil(360.0 / (OVERLAP * config.fov))
        return [first.moved(yaw_degrees=360.0 * i / count) for i in range(count)]
    return [_placed(camera, turn, config.scale) for camera in _picked(config.camera)]


def _picked(file: Path) -> list[Camera]:
    cameras = read_transforms(file)
    chosen = torch.linspace(0, len(cameras) - 1, min(len(cameras), MOST_VIEWS)).round().int()
    return [cameras[i] for i in chosen.tolist()]


def _placed(camera: Camera, turn: torch.Tensor, scale: float) -> Camera:
    """A camera of the file, where it stands among the splats once these are turned and scaled."""
    pose = camera.cam_from_world.double().clone()
    pose[:3, :3] = pose[:3, :3] @ turn.T
    pose[:3, 3] *= scale
    return camera.posed(pose.float())


def _seen(splats: Splats, camera: Camera, renderer: Renderer, sky_radius: float) -> StepData:
    """A view of the splats: known where they are solid."""
    view = look(renderer.render(splats, camera), camera, sky_radius)
    depth = torch.where(view.solid, view.depth, math.nan)
    depth = splatting.snap_flying(depth)
    return StepData(Splats.empty(), as_levels(view.rgb), depth, view.solid & ~torch.isnan(depth))


def _check_first(share: float, file: Path, config: ImportConfig) -> None:
    if share >= LEAST:
        return
    fix = "give --camera a transforms.json with a camera that does"
    if config.camera is None:
        fix += ", or try another --up: the camera is at the origin of the file and looks ahead"
    raise SceneError(
        f"the first camera sees nothing of {file.name}",
        why=f"splats are solid in {share:.1%} of its view; {LEAST:.0%} are needed to go on from",
        fix=fix,
    )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
