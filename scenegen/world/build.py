"""A photograph becomes a world."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from renderers import Camera, Renderer, SceneError, choose, join, make_renderer
from renderers.base import RENDERERS
from scenegen import geometry, splatting
from scenegen.config import LONG_SIDE, CreateConfig
from scenegen.export.budget import thinned
from scenegen.geometry.ground import check_eye_height
from scenegen.image import Photo, load_photo
from scenegen.models import weights_hash
from scenegen.models.threads import steady
from scenegen.outpaint import choose_outpainter
from scenegen.stopping import checkpoint
from scenegen.world.arrays import StepData
from scenegen.world.circle import copied, copies
from scenegen.world.events import Committed, Event, Finished, Loaded, Scaled
from scenegen.world.folder import check_free, never_begun
from scenegen.world.grow import as_levels
from scenegen.world.layer import behind_edges
from scenegen.world.plan import EXTENTS, planned_cameras
from scenegen.world.store import Store
from scenegen.world.world import World
from spatial_memory.views import make_view

COPY_SHARE, COPIES_SHARE = 0.4, 0.3
"""A copy of the photograph has at most this share of its splats, and all copies together at most
that share of the budget."""
LAYER_SHARE = 0.1
"""What lies behind the edges of the photograph has at most this share of the budget."""
LEAST_BUDGET = 100_000
"""A smaller budget is no world."""
REFINE_ROUNDS = 3
"""Rounds of refinement of the photograph. They give it 6 dB, and close cracks beside its edges;
more fit the photograph closer than what one sees from anywhere else."""
SKY_FACTOR, SKY_NEAREST, SKY_FARTHEST = 4.0, 60.0, 400.0
"""The sky is this many times as far as the farthest surface, within a range in metres."""


def create(photo: str | Path, out: str | Path, **settings: Any) -> World:
    """Make a world from a photograph and return it, open.

    Args:
        photo: Any image that Pillow reads.
        out: New or empty folder for the world.
        settings: Fields of :class:`scenegen.config.CreateConfig`.

    Raises:
        SceneError: The photograph cannot be used, the folder is taken, or a backend is missing.
    """
    creation = Creation(photo, out, **settings)
    for _ in creation.events():
        pass
    assert creation.world is not None  # it is there from the first step on
    return creation.world


def create_events(photo: str | Path, out: str | Path, **settings: Any) -> Iterator[Event]:
    """Make a world from a photograph, event by event.

    Nothing is written before the photograph stands as the first step. Stop iterating at any
    time: what was committed stays and can be opened and grown.

    Args:
        photo: Any image that Pillow reads.
        out: New or empty folder for the world.
        settings: Fields of :class:`scenegen.config.CreateConfig`.

    Yields:
        Loaded, Scaled, Committed for the photograph, then the events of :meth:`World.grow`.

    Raises:
        SceneError: The photograph cannot be used, the folder is taken, or a backend is missing.
    """
    yield from Creation(photo, out, **settings).events()


class Creation:
    """A world in the making, for who wants to use it before it is whole.

    Args:
        photo: Any image that Pillow reads.
        out: New or empty folder for the world.
        settings: Fields of :class:`scenegen.config.CreateConfig`.
    """

    def __init__(self, photo: str | Path, out: str | Path, **settings: Any) -> None:
        self.photo, self.folder, self.settings = photo, Path(out), settings
        self.world: World | None = None
        """The world, open from its first step on."""

    def events(self) -> Iterator[Event]:
        """Make it, as :func:`create_events` does. Once."""
        return _events(self)


def _events(creation: Creation) -> Iterator[Event]:
    config = _config(creation.settings)
    started = time.monotonic()
    folder = creation.folder
    check_free(folder)
    names = {
        "depth": geometry.choose_depth(config.depth)[0],
        "outpaint": choose_outpainter(config.outpaint, config.prompt)[0],
        "renderer": choose("renderer", RENDERERS, config.renderer)[0],
    }
    if names["outpaint"] == "none" and config.extent == "around":
        raise SceneError(
            "nothing may be invented, so there is no full circle",
            why="what a photograph does not show is made from copies of it",
            fix="use --extent photo or look, or another --outpaint",
        )
    picture = load_photo(creation.photo, long_side=LONG_SIDE[config.quality])
    fov, source = _field_of_view(picture, config)
    rgb = as_levels(picture.rgb)
    height, width = rgb.shape[:2]
    camera = Camera.from_fov(fov, width, height)
    yield Loaded(picture.name, camera, source, names["depth"], names["outpaint"])

    data, layer, sky_radius, scale = first_steps(rgb, camera, names, config)
    scale = f"{scale}; field of view {source}"
    yield Scaled(scale)
    meta = {
        **asdict(config),
        "depth": names["depth"],
        "outpaint": names["outpaint"],
        "photo": picture.name,
        "fov": fov,
        "fov_source": source,
        "scale_source": scale,
        "sky_radius": sky_radius,
    }
    world = new_world(folder, meta, names["renderer"])
    seconds = time.monotonic() - started
    try:
        info = {"depth": names["depth"], "weights": {names["depth"]: weights_hash(names["depth"])}}
        info |= {"splats": len(data.splats), "seconds": seconds}
        with world.writing():
            if world.steps:
                check_free(folder)  # refuses: another process was faster
            world.add(camera, data, "observed", info)
    except BaseException:
        world.close()
        remove_empty_world(folder)
        raise
    creation.world = world
    yield Committed(0, data.splats, camera, 1.0, seconds)
    if layer is not None:
        begun = time.monotonic()
        info = {"layer": 1, "outpaint": names["outpaint"], "seed": config.seed}
        info |= {"weights": {names["outpaint"]: weights_hash(names["outpaint"])}}
        info |= {"splats": len(layer.splats), "seconds": time.monotonic() - begun}
        step = world.commit(camera, layer, "generated", info)
        share = float(layer.known.float().mean())
        yield Committed(step.id, layer.splats, camera, share, time.monotonic() - begun)
    if config.extent == "around":
        yield from _lay_out(world, [data] if layer is None else [data, layer], config.budget)
    cameras = planned_cameras(camera, config.extent, data.depth)
    for event in world.visit(cameras, budget=config.budget, plan=True) if cameras else ():
        if not isinstance(event, Finished):
            yield event
    yield Finished(len(world.steps), len(world.splats), time.monotonic() - started)


def _lay_out(world: World, parts: list[StepData], budget: int) -> Iterator[Event]:
    for facing, data, info in copies_of(parts, world.camera0, budget):
        begun = time.monotonic()
        step = world.commit(facing, data, "generated", info)
        share = float(data.known.float().mean())
        yield Committed(step.id, data.splats, facing, share, time.monotonic() - begun)


def copies_of(
    parts: list[StepData], camera: Camera, budget: int
) -> Iterator[tuple[Camera, StepData, dict[str, Any]]]:
    """Copies of the photograph, and of what lies behind its edges, all round, with fewer splats."""
    wanted = copies(camera.fov_degrees)
    each = COPIES_SHARE * budget / max(1, len(wanted)) / sum(len(part.splats) for part in parts)
    share = min(COPY_SHARE, each)
    parts = [
        replace(part, splats=thinned(part.splats, math.ceil(share * len(part.splats))))
        for part in parts
    ]
    for copy in wanted:
        for number, part in enumerate(parts):
            facing, data = copied(part, camera, copy)
            yield facing, data, {"copy": number, **asdict(copy), "splats": len(data.splats)}


def _config(settings: dict[str, Any]) -> CreateConfig:
    known = [field.name for field in fields(CreateConfig)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise SceneError(
            f"unknown setting {unknown[0]!r}",
            why=f"a world can be made with: {', '.join(known)}",
            fix="use one of them",
        )
    for name, allowed in (("quality", LONG_SIDE), ("extent", EXTENTS)):
        if settings.get(name, getattr(CreateConfig, name)) not in allowed:
            raise SceneError(
                f"unknown {name} {settings[name]!r}",
                why=f"known are: {', '.join(allowed)}",
                fix="use one of them",
            )
    config = CreateConfig(**settings)
    if config.budget < LEAST_BUDGET:
        raise SceneError(
            f"a budget of {config.budget} splats is too small for a world",
            why="a photograph alone has some hundred thousand, one for each of its pixels",
            fix=f"give --budget {LEAST_BUDGET} or more, and --quality draft for small worlds",
        )
    check_eye_height(config.eye_height)
    return config


def _field_of_view(picture: Photo, config: CreateConfig) -> tuple[float, str]:
    height, width = picture.rgb.shape[:2]
    if config.fov is not None:
        if not 5.0 <= config.fov <= 150.0:
            raise SceneError(
                f"a field of view of {config.fov:g} degrees is not one of a photograph",
                why="photographs span 5 to 150 degrees from left to right",
                fix="give --fov between 5 and 150, or leave it out",
            )
        return config.fov, "as given"
    if picture.fov_degrees is not None:
        return picture.fov_degrees, picture.fov_source
    return geometry.default_fov(width, height), "not stated in the file: a usual lens assumed"


@steady
def first_steps(
    rgb: torch.Tensor, camera: Camera, names: dict[str, str], config: CreateConfig
) -> tuple[StepData, StepData | None, float, str]:
    """The photograph, lifted; what goes on behind its edges; radius of the sky; origin of metres.

    The photograph is coloured and refined to render as it, with what shows through from behind.
    """
    estimate = geometry.estimate(rgb, names["depth"], camera.fov_degrees, config.eye_height)
    checkpoint()
    depth = splatting.widen_fronts(splatting.snap_flying(estimate.depth))
    sky_radius = sky_radius_of(depth)
    layer = None
    if config.layers:
        layer = behind_edges(
            rgb,
            depth,
            camera,
            outpaint_backend=names["outpaint"],
            prompt=config.prompt,
            seed=config.seed,
            sky_radius=sky_radius,
            eye_height=config.eye_height,
        )
    checkpoint()
    known = torch.ones_like(estimate.sky)
    splats = splatting.lift(rgb, depth, camera, sky_radius=sky_radius)
    renderer = make_renderer(names["renderer"])
    coat = splatting.undercoat(rgb, depth, camera, sky_radius=sky_radius)
    if layer is not None:
        most = math.ceil(LAYER_SHARE * config.budget)
        layer = replace(layer, splats=thinned(layer.splats, most))
    behind = coat if layer is None else join([coat, layer.splats])
    splats = splatting.match_colors(splats, rgb, known, camera, renderer, behind=behind)
    data = StepData(splats=join([splats, coat]), rgb=rgb, depth=depth, known=known)
    if config.quality != "draft":
        data = _refined(data, layer, camera, renderer, sky_radius, config.seed)
    return data, layer, sky_radius, estimate.scale


def _refined(
    data: StepData,
    layer: StepData | None,
    camera: Camera,
    renderer: Renderer,
    sky_radius: float,
    seed: int,
) -> StepData:
    """The photograph refined. What lies behind shows through too little to be told its colours."""
    view = make_view(data.rgb, data.depth, camera, "observed", data.known)
    scene = data.splats if layer is None else join([data.splats, layer.splats])
    for event in splatting.refine_events(
        scene,
        [view],
        renderer,
        rounds=REFINE_ROUNDS,
        seed=seed,
        sky_radius=sky_radius,
        solid=True,
    ):
        checkpoint()
        if isinstance(event, splatting.Refined):
            scene = event.splats
    return replace(data, splats=scene[: len(data.splats)])


def sky_radius_of(depth: torch.Tensor) -> float:
    """How far the sky is put, in metres, given the depth of the first view."""
    finite = depth[torch.isfinite(depth)]
    far = float(finite.max()) if len(finite) else SKY_NEAREST
    return min(max(SKY_FACTOR * far, SKY_NEAREST), SKY_FARTHEST)


def new_world(folder: Path, meta: dict[str, Any], renderer: str) -> World:
    """A world without steps yet."""
    try:
        return World(Store.create(folder, meta), renderer)
    except SceneError:
        remove_empty_world(folder)
        raise


def remove_empty_world(folder: Path) -> None:
    """Take away a folder in which no step was ever committed, by whomever."""
    if not never_begun(folder):
        return
    for path in (folder / "steps", *folder.glob("world.*"), folder / "README.txt"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
