"""How good a world is: what one gets back on return, what one sees in between, what it cost.

Everything is measured on the world as it is, or on a copy of it that is walked in and thrown away.
"""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera, Splats, join
from scenegen.splatting.losses import psnr, ssim
from scenegen.world.grow import COVERED
from scenegen.world.journal import Step
from scenegen.world.paths import STEP_DEGREES, STEP_METRES
from scenegen.world.plan import safe_range

if TYPE_CHECKING:
    from scenegen.world.world import World

TURN_DEGREES = 10.0
"""Views in between turn at most so far from the photograph's direction."""
VIEWS = 8
"""Views in between that are drawn."""
SEED = 7
"""Chooses them: the same for all worlds, so that worlds can be compared."""
BESIDE_PX = 6
"""Steps of colour within so many pixels of a seam are what the seam's own are compared with."""
SAME = 1.05
"""Neighbouring pixels whose depths differ by less than this factor are of one surface."""
LEAST_SEAM = 60
"""Seams of fewer pixels say nothing."""
BUDGET = 1_500_000
"""Splats that a world may have, by default."""


@dataclass(frozen=True)
class Measure:
    """One number about a world."""

    name: str
    value: float
    unit: str
    """"dB", "%", "s", or nothing for ratios and counts."""
    target: float | None
    """What a good world reaches; None where there is nothing to reach."""
    higher_is_better: bool
    about: str
    """What was compared with what."""

    @property
    def reached(self) -> bool | None:
        """Whether the target is; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.higher_is_better else self.value <= self.target

    def __str__(self) -> str:
        value = f"{self.value:,.0f}" if self.value >= 1e4 else f"{self.value:.3g}"
        text = f"{self.name:24} {value:>9} {self.unit:2}"
        if self.target is not None:
            sign = ">=" if self.higher_is_better else "<="
            text += f"  {'ok' if self.reached else 'MISSED':6} ({sign} {self.target:g})"
        return f"{text:56} {self.about}"


@dataclass(frozen=True, eq=False)
class Picture:
    """A view of the world, for a person to judge."""

    title: str
    rgb: Float[Tensor, "h w 3"]


def measure(world: World, walks: bool = True) -> Iterator[Measure]:
    """All numbers, each as soon as it is known.

    Args:
        world: An open world; it is only read.
        walks: Also walk in a copy of it, which grows there: 90 degrees round and back, and 1 m
            out and back. About two minutes on two cores.

    Raises:
        SceneError: A step is damaged, or the copy cannot be written.
    """
    yield from _first_view(world)
    yield from _returns(world)
    yield from _in_between(world)
    yield from _seams(world)
    yield from _fits(world)
    yield from _costs(world)
    if walks:
        yield from _walks(world)


def pictures(world: World) -> list[Picture]:
    """The photograph's own view, and views in between that were never outpainted."""
    found = [Picture("the photograph's own view", world.render(world.camera0).rgb)]
    for number, camera in enumerate(safe_cameras(world), start=1):
        found.append(Picture(f"in between {number}", world.render(camera).rgb))
    return found


def safe_cameras(world: World, count: int = VIEWS) -> list[Camera]:
    """Views at random within the safe range of the photograph, the same on every call."""
    camera = world.camera0
    reach, forward_reach = safe_range(world.memory.views[0].depth, camera)
    rng = np.random.default_rng(SEED)
    cameras = []
    for right, down, forward, yaw in rng.uniform(-1.0, 1.0, (count, 4)).tolist():
        step = {"right": reach * right, "down": 0.5 * reach * down}
        step["forward"] = forward_reach * abs(forward)
        cameras.append(camera.moved(**step, yaw_degrees=TURN_DEGREES * yaw))
    return cameras


def _first_view(world: World) -> Iterator[Measure]:
    photo = world.seen(world.steps[0]).rgb
    seen = world.render(world.camera0).rgb.cpu()
    now = psnr(seen, photo)
    yield _dB("source view", now, 32.0, "photograph against the world from its own camera")
    yield Measure("source view SSIM", ssim(seen, photo), "", 0.95, True, "the same, structure")
    first = join(world.at(world.steps[0].id).chunks)
    then = psnr(world._renderer.render(first, world.camera0).rgb.cpu(), photo)
    steps = len(world.steps) - 1
    about = f"lost of it in {steps} steps, of {then:.1f} dB with the photograph alone"
    yield Measure("drift", max(0.0, then - now), "dB", 1.0, False, about)


def _returns(world: World) -> Iterator[Measure]:
    """Every grown view as it was when it was made, against what the world shows there now."""
    found: list[tuple[float, float, int]] = []
    for step in world.steps[1:]:
        if not _was_seen(step):
            continue
        data = world.seen(step)
        shown = torch.isfinite(data.depth) | torch.isposinf(data.depth)
        if not shown.any():
            continue
        now = world.render(step.camera).rgb.cpu()
        weights = shown.float()
        found.append((psnr(now, data.rgb, weights), ssim(now, data.rgb, weights), step.id))
    if not found:
        return
    worst = min(found)
    middle = statistics.median(value for value, _, _ in found)
    about = f"{len(found)} grown views when made, against now; median"
    yield _dB("return to a view", middle, 30.0, about)
    yield _dB("return, worst", worst[0], None, f"step {worst[2]}")
    middle = statistics.median(value for _, value, _ in found)
    yield Measure("return SSIM", middle, "", 0.95, True, "median")


def _was_seen(step: Step) -> bool:
    """Whether a grown step holds a view of the world, not a part that was put behind others."""
    return "retrieved" in step.info


def _in_between(world: World) -> Iterator[Measure]:
    holes, seen = [], []
    labels = _by_origin(world)
    for camera in safe_cameras(world):
        holes.append(float((world.render(camera).alpha < COVERED).float().mean()))
        origin = world._renderer.render(labels, camera).rgb.cpu()
        seen.append(float((origin[..., 0] > origin[..., 1]).float().mean()))
    about = f"of {VIEWS} views in the safe range, mean; worst {100 * max(holes):.2g} %"
    yield Measure("holes", 100 * statistics.mean(holes), "%", 2.0, False, about)
    yield Measure("seen", 100 * statistics.mean(seen), "%", None, True, "of them photographed")


def _by_origin(world: World) -> Splats:
    """The splats, red where photographed and green where invented."""
    coloured = []
    for step, chunk in zip(world.steps, world.chunks, strict=True):
        colour = torch.tensor([1.0, 0.0, 0.0] if step.provenance == "observed" else [0.0, 1.0, 0.0])
        coloured.append(replace(chunk, colors=colour.expand(len(chunk), 3), sh=None))
    return join(coloured)


def _seams(world: World) -> Iterator[Measure]:
    found = []
    for step in world.steps[1:]:
        if not _was_seen(step):
            continue
        data = world.seen(step)
        contrast = seam_contrast(world.render(step.camera).rgb.cpu(), data.known, data.depth)
        if contrast is not None:
            found.append(contrast)
    if found:
        about = f"steps of colour at the seams of {len(found)} views, over those beside; median"
        yield Measure("seam contrast", statistics.median(found), "", 1.2, False, about)
        yield Measure("seam contrast, worst", max(found), "", None, False, "")


def seam_contrast(
    rgb: Float[Tensor, "h w 3"], new: Bool[Tensor, "h w"], depth: Float[Tensor, "h w"]
) -> float | None:
    """Mean step of colour across the border of a region, over that of pairs of pixels beside it.

    Only within surfaces: where the border is the outline of a thing, a step belongs there.

    Args:
        rgb: A picture.
        new: The region.
        depth: Of the picture, in metres; +inf sky, NaN unknown.

    Returns:
        1 for a border that cannot be seen; None where the border is too short to say.
    """
    across, beside = [], []
    disparity = 1.0 / depth
    for dim in (0, 1):
        step = torch.diff(rgb, dim=dim).abs().mean(-1)
        length = step.shape[dim]
        one, other = disparity.narrow(dim, 0, length), disparity.narrow(dim, 1, length)
        surface = torch.maximum(one, other) <= SAME * torch.minimum(one, other)  # sky: 0 and 0
        border = new.narrow(dim, 0, length) != new.narrow(dim, 1, length)
        size = 2 * BESIDE_PX + 1
        near = torch.nn.functional.max_pool2d(border.float()[None, None], size, 1, BESIDE_PX)
        across.append(step[border & surface])
        beside.append(step[(near[0, 0] > 0) & ~border & surface])
    on, off = torch.cat(across), torch.cat(beside)
    if len(on) < LEAST_SEAM or not len(off) or float(off.mean()) <= 0.0:
        return None
    return float(on.mean() / off.mean())


def _fits(world: World) -> Iterator[Measure]:
    fits = [step.info["fit"] for step in world.steps[1:] if "fit" in step.info]
    errors = [fit["error"] for fit in fits if fit["error"] is not None]
    if errors and all(math.isfinite(error) for error in errors):
        middle = statistics.median(errors)
        about = f"median |log| of fitted over known depth, of {len(fits)} views"
        yield Measure("depth fit", middle, "", 0.055, False, f"{about}; worst {max(errors):.2f}")


def _costs(world: World) -> Iterator[Measure]:
    yield Measure("splats", float(len(world.splats)), "", float(BUDGET), False, "in the world")
    seconds = [_seconds(step) for step in world.steps]
    yield Measure("time", sum(seconds), "s", None, False, f"for {len(seconds)} steps")
    grown = [_seconds(step) for step in world.steps[1:] if _was_seen(step)]
    if grown:
        middle = statistics.median(grown)
        yield Measure("time of a step", middle, "s", 6.0, False, "median of those grown")


def _seconds(step: Step) -> float:
    return float(step.info.get("seconds", 0.0))


def _walks(world: World) -> Iterator[Measure]:
    from scenegen.world.world import open as open_world

    camera = world.camera0
    turns = round(90 / STEP_DEGREES)
    steps = math.ceil(1.0 / STEP_METRES)
    paths: dict[str, tuple[Callable[[float], Camera], int]] = {
        "turn 0-90-0": (lambda share: camera.moved(yaw_degrees=90 * share), turns),
        "1 m out and back": (lambda share: camera.moved(forward=share), steps),
    }
    before = world.render(camera).rgb.cpu()
    for name, (at, count) in paths.items():
        out = [at((i + 1) / count) for i in range(count)]
        back = [at(i / count) for i in reversed(range(count))]
        with tempfile.TemporaryDirectory(prefix="scenegen-report-") as folder:
            copy = Path(folder) / "world"
            shutil.copytree(world.folder, copy)
            walked = open_world(copy)
            try:
                grown = len(walked.steps)
                for _ in walked.grow([*out, *back]):
                    pass
                grown = len(walked.steps) - grown
                after = walked.render(camera).rgb.cpu()
            finally:
                walked.close()
        about = f"the first view before and after, {grown} views grown in between"
        yield _dB(name, min(99.0, psnr(after, before)), 30.0, about)
        yield Measure(f"{name} SSIM", ssim(after, before), "", 0.95, True, "the same")


def _dB(name: str, value: float, target: float | None, about: str) -> Measure:
    return Measure(name, value, "dB", target, True, about)
