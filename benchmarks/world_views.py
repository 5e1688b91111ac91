"""A world of one picture against the other pictures of the place: novel views with known poses."""

from __future__ import annotations

import json
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from renderers import Camera, SceneError
from scenegen.export.transforms import read_transforms
from scenegen.image import load_photo
from scenegen.outpaint.warping import warp
from scenegen.splatting.losses import psnr, ssim
from scenegen.training.perceptual import Lpips, missing_lpips
from scenegen.world import World, create
from scenegen.world.grow import COVERED

SIDE = 512
"""Longer side of the pictures that are compared, in pixels."""
SCALES, COARSE, FINE = 100.0, 25, 12
"""The scale of the poses is looked for within this factor, either way, of a first guess: at so many
places, and then in so many steps around the best."""
LEAST_SHARE = 0.02
"""A part of a view smaller than this share of it is not compared."""
AHEAD = 3.0
"""dB by which the world beats the picture that it was made of, on covered pixels."""


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture of a sequence."""

    camera: Camera
    """Relative to the first picture; lengths in the unit of the poses."""
    rgb: Float[Tensor, "h w 3"]


def views(dataset: Path, most: int = 12, grow: bool = True) -> int:
    """Compare a world made of the first picture with the other pictures of a sequence.

    The scale of the poses is fitted on the second picture, which is compared no further. Covered
    is what the first picture has seen; the rest was invented.

    Args:
        dataset: A transforms.json, as nerfstudio writes it, beside its pictures.
        most: Pictures to compare, evenly chosen.
        grow: Also let the world grow at each of them, and compare what it invents.

    Returns:
        1 where the world is not AHEAD of the nearest picture on covered pixels.
    """
    shots = read_shots(dataset)
    if len(shots) < 3:
        raise SceneError(
            f"{dataset} holds {len(shots)} pictures",
            why="one makes the world, one fits the scale, the rest is compared",
            fix="give a sequence of at least three",
        )
    lpips = None if missing_lpips() else Lpips()
    with tempfile.TemporaryDirectory() as scratch:
        first = Path(scratch) / "first.png"
        _image(shots[0].rgb).save(first)
        fov = shots[0].camera.fov_degrees
        world = create(first, Path(scratch) / "world", extent="photo", fov=fov)
        try:
            return compared(world, shots, most, grow, lpips)
        finally:
            world.close()


def compared(world: World, shots: list[Shot], most: int, grow: bool, lpips: Lpips | None) -> int:
    scale = fit_scale(world, shots[1])
    print(f"one unit of the poses is {scale:.3g} m of the world; fitted on the second picture")
    chosen = shots[2:][:: max(1, math.ceil(len(shots[2:]) / most))]
    columns: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for shot in chosen:
        camera = _scaled(shot.camera, scale)
        drawn = warp(world.memory.views[0], camera)
        answers = {
            "world": world.render(camera).rgb.cpu(),
            "nearest": shots[0].rgb,
            "warp": drawn.rgb,
        }
        if grow:
            for _ in world.grow([camera]):
                pass
            answers["grown"] = world.render(camera).rgb.cpu()
        for name, rgb in answers.items():
            for key, value in _scores(rgb, shot.rgb, drawn.valid, lpips):
                columns[key][name].append(value)
    names = list(next(iter(columns.values())))
    print(f"{len(chosen)} pictures, median" + "".join(f"{name:>12}" for name in names))
    for key, row in columns.items():
        print(f"{key:24}" + "".join(f"{statistics.median(row[name]):12.3f}" for name in names))
    ours, theirs = (columns["covered PSNR"][name] for name in ("world", "nearest"))
    ahead = statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
    print(f"ahead of the nearest picture on covered pixels: {ahead:.1f} dB (>= {AHEAD:g})")
    return 0 if ahead >= AHEAD else 1


def _scores(
    rgb: Float[Tensor, "h w 3"],
    truth: Float[Tensor, "h w 3"],
    covered: Bool[Tensor, "h w"],
    lpips: Lpips | None,
) -> Iterator[tuple[str, float]]:
    rgb = rgb.clamp(0.0, 1.0)
    for name, part in (("covered", covered), ("uncovered", ~covered)):
        if float(part.float().mean()) >= LEAST_SHARE:
            yield f"{name} PSNR", psnr(rgb, truth, part.float())
            yield f"{name} SSIM", ssim(rgb, truth, part.float())
    if lpips is not None:
        with torch.no_grad():
            pair = (image.permute(2, 0, 1)[None] for image in (rgb, truth))
            yield "LPIPS", float(lpips(*pair))


def read_shots(dataset: Path) -> list[Shot]:
    """The pictures of a sequence, shrunk to SIDE, seen from the first camera.

    Raises:
        SceneError: The file or one of its pictures cannot be read, or lies elsewhere.
    """
    cameras = read_transforms(dataset)
    frames = json.loads(dataset.read_text())["frames"]
    root, shots = dataset.parent.resolve(), []
    first = cameras[0].cam_from_world.double()
    for camera, frame in zip(cameras, frames, strict=True):
        path = (root / str(frame.get("file_path", ""))).resolve()
        if not path.suffix and not path.is_file():
            path = path.with_suffix(".png")
        if not path.is_relative_to(root):
            raise SceneError(
                f"{dataset} names a picture outside its folder: {frame['file_path']}",
                why="a dataset may read its own folder only",
                fix="put the pictures beside the file",
            )
        rgb = load_photo(path, long_side=SIDE).rgb
        height, width = rgb.shape[:2]
        lens = camera.px_from_cam.clone()
        lens[0] *= width / camera.width
        lens[1] *= height / camera.height
        pose = (camera.cam_from_world.double() @ torch.linalg.inv(first)).float()
        shots.append(Shot(Camera(lens, pose, width, height), rgb))
    return shots


def fit_scale(world: World, shot: Shot) -> float:
    """Metres of the world per unit of the poses: what makes a picture come out right.

    A search on the logarithm, coarse and then by golden section, for the least error on the pixels
    that the world shows. The first guess puts the step to the picture at a tenth of the median
    depth.
    """
    step = float((-shot.camera.cam_from_world[:3, :3].T @ shot.camera.cam_from_world[:3, 3]).norm())
    depth = world.memory.views[0].depth
    guess = 0.1 * float(depth[torch.isfinite(depth)].median()) / max(step, 1e-9)

    def error(log_scale: float) -> float:
        render = world.render(_scaled(shot.camera, guess * math.exp(log_scale)))
        shown = render.alpha.cpu() >= COVERED
        return -psnr(render.rgb.cpu(), shot.rgb, shown.float()) if shown.any() else math.inf

    reach = math.log(SCALES)
    places = torch.linspace(-reach, reach, COARSE).tolist()
    best, apart = min(places, key=error), places[1] - places[0]
    low, high = best - apart, best + apart
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(FINE):
        one, other = high - golden * (high - low), low + golden * (high - low)
        if error(one) < error(other):
            high = other
        else:
            low = one
    return guess * math.exp((low + high) / 2)


def _scaled(camera: Camera, scale: float) -> Camera:
    pose = camera.cam_from_world.clone()
    pose[:3, 3] *= scale
    return replace(camera, cam_from_world=pose)


def _image(rgb: Float[Tensor, "h w 3"]) -> Image.Image:
    return Image.fromarray((rgb * 255).round().to(torch.uint8).numpy())
