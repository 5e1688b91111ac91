"""What a long walk costs as it goes on: surfels, megabytes, and milliseconds per view and answer.

Run: python benchmarks/memory_growth.py [--views N] [--walks NAME ...] [--picture FILE] [--gate]
                                        [--save-baseline] [--json FILE]

Times are CPU times with one thread, so other programs disturb them little. Per stage of the walk:

  surfels    that the map has
  MB         that the process has taken since it began; pixels beyond view_cache_mb lie in files
  write      median, 95th percentile and maximum over the views since the stage before
  retrieve   median and maximum over TARGETS places that were passed
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks import metrics
from benchmarks.memory_casting import World, pose
from benchmarks.memory_rules import Ours
from benchmarks.memory_truth import ASIDE, FOV_DEGREES
from benchmarks.memory_worlds import WORLDS
from benchmarks.metrics import Metric
from renderers import Camera, SceneError
from spatial_memory import MemoryConfig

BASELINE = Path(__file__).parent / "baseline" / "memory_growth.json"
STAGES = (100, 250, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000, 4500, 5000)
"""Views after which is measured."""
TARGETS = 12
"""Places that are asked for at each stage."""
K = 4
WALKS = {
    "rooms": ("rooms", MemoryConfig()),
    "street": ("street", MemoryConfig()),
    "corridor": ("corridor", MemoryConfig()),
    "fine corridor": ("corridor", MemoryConfig(detail=0.03, max_surfels=8_000_000)),
    "finest corridor": (
        "corridor",
        MemoryConfig(surfel_side=160, detail=0.01, max_surfels=8_000_000),
    ),
}
"""World and memory of each: one place again and again, laps, ever new rooms; and these mapped so
finely that there are a million surfels, and five."""
LIMITS = {"most": 60.0, "MB": 4000.0}
"""Milliseconds of a write or an answer, and what the process may take."""


@dataclass(frozen=True)
class Options(metrics.Options):
    """Measure how the memory grows, and what it takes while it does."""

    views: int = STAGES[-1]
    """Length of each walk."""
    walks: tuple[str, ...] = tuple(WALKS)
    """Only these."""
    picture: Path | None = None
    """File to draw the curves into."""

    @property
    def mode(self) -> str:
        """Walks of other lengths, or not all of them, are kept apart."""
        return f"{self.views} views: {', '.join(self.walks)}"


def grow(name: str, count: int) -> Iterator[list[Metric]]:
    """Metrics of each stage of one walk."""
    kind, config = WALKS[name]
    world, ours = WORLDS[kind](count), Ours(config)
    cameras = world.walk(count)
    metrics.peak_memory(lambda: None)  # what earlier walks took is given back
    began, taken = _used(), []
    for done, camera in enumerate(cameras, 1):
        photograph = world.photograph(camera)
        start = time.process_time()
        ours.write(*photograph, camera)
        taken.append(1e3 * (time.process_time() - start))
        if done in STAGES or done == count:
            targets = places(world, done / (world.lap or count))
            answers = [_answer(ours, target) for target in targets]
            case, now = f"{name} {done}", _used()
            size = len(ours.memory.surfels)
            yield [Metric(f"{case}/kept/surfels", size, "", "lower", 1.02)] + [
                Metric(f"{case}/{what}/{measure}", value, unit, "lower")
                for what, measure, value, unit in (
                    ("kept", "MB", now - began, "MB"),
                    ("write", "median", statistics.median(taken), "ms"),
                    ("write", "p95", float(np.percentile(taken, 95)), "ms"),
                    ("write", "most", max(taken), "ms"),
                    ("retrieve", "median", statistics.median(answers), "ms"),
                    ("retrieve", "most", max(answers), "ms"),
                )
            ]
            taken.clear()


def places(world: World, laps: float) -> list[Camera]:
    """Targets near what was passed, as in memory_truth.ask."""
    rng, found = np.random.default_rng(3), []
    while len(found) < TARGETS:
        way, off = rng.uniform(0.0, world.length * min(1.0, laps)), rng.uniform(-1, 1, 4) * ASIDE
        target = world.stand(way, *off, fov_degrees=FOV_DEGREES)
        if world.free(pose(target)[1]):
            found.append(target)
    return found


def _used() -> float:
    """Memory of this process, MB; NaN where the system does not tell."""
    try:
        return metrics.status_kb("VmRSS") / 1e3
    except OSError:
        return math.nan


def _warm_up() -> None:
    """Load all kernels and what writes files: that is no part of the walk."""
    world, ours = WORLDS["rooms"](0), Ours(MemoryConfig(view_cache_mb=1))
    cameras = world.walk(12)
    for camera in [*cameras, *cameras]:
        ours.write(*world.photograph(camera), camera)
    ours.choose(cameras[0], K)
    ours.memory.forget(0)
    ours.memory.surfels.tidy()


def _answer(ours: Ours, target: Camera) -> float:
    start = time.process_time()
    ours.choose(target, K)
    return 1e3 * (time.process_time() - start)


# ---- the picture

PANELS = (("kept/surfels", "surfels"), ("kept/MB", "MB"))
PANELS += (("write/median", "write, ms"), ("retrieve/median", "retrieve, ms"))
WIDTH, HEIGHT, EDGE = 380, 250, 46
COLORS = ((30, 90, 220), (215, 50, 40), (20, 150, 60), (150, 80, 190), (230, 140, 20))


def draw(found: Sequence[Metric], names: Sequence[str]) -> Image.Image:
    """Four panels over the number of views, a line for each walk."""
    sheet = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT + 20), "white")
    pen = ImageDraw.Draw(sheet)
    for i, name in enumerate(names):
        pen.text((EDGE + 150 * i, 4), name, fill=COLORS[i % len(COLORS)])
    for panel, (measure, title) in enumerate(PANELS):
        lines = [_line(found, name, measure) for name in names]
        left, top = panel % 2 * WIDTH + EDGE, panel // 2 * HEIGHT + 40
        _panel(pen, (left, top), lines, title)
    return sheet


def _line(found: Sequence[Metric], name: str, measure: str) -> list[tuple[int, float]]:
    cases = [(metric.key.split("/", 1), metric.value) for metric in found]
    mine = [(case, value) for (case, what), value in cases if what == measure]
    cut = [(case.rsplit(" ", 1), value) for case, value in mine]
    return [(int(views), value) for (walk, views), value in cut if walk == name]


def _panel(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    lines: Sequence[Sequence[tuple[int, float]]],
    title: str,
) -> None:
    left, top = corner
    wide, high = WIDTH - EDGE - 14, HEIGHT - 50
    most = max(value for line in lines for _, value in line)
    last = max(views for line in lines for views, _ in line)
    pen.rectangle((left, top, left + wide, top + high), outline=(200, 200, 200))
    pen.text((left + 4, top + 3), title, fill="black")
    for share in (0.0, 0.5, 1.0):
        pen.text((left - EDGE + 3, top + high * (1 - share) - 6), _short(share * most), fill="gray")
        pen.text((left + share * wide - 12, top + high + 3), _short(share * last), fill="gray")
    for line, color in zip(lines, COLORS, strict=False):
        spots = [(left + wide * x / last, top + high * (1 - y / most)) for x, y in line]
        pen.line(spots, fill=color, width=2, joint="curve")


def _short(value: float) -> str:
    return next(
        (f"{value / unit:.3g}{sign}" for unit, sign in ((1e6, "M"), (1e3, "k")) if value >= unit),
        f"{value:.3g}",
    )


# ---- the run


def target_of(metric: Metric) -> float | None:
    """What a number should reach, where that was said."""
    return LIMITS.get(metric.key.split("/")[-1])


def main(options: Options) -> int:
    """Walk, print, then compare, draw and keep. Returns the exit code."""
    if unknown := set(options.walks) - WALKS.keys():
        raise SceneError(
            f"there is no walk {', '.join(sorted(unknown))}",
            why=f"the walks are {', '.join(WALKS)}",
            fix="name one of these, or leave --walks out",
        )
    found: list[Metric] = []

    def cases() -> Iterator[list[Metric]]:
        for name in options.walks:
            for case in grow(name, options.views):
                found.extend(case)
                yield case

    with metrics.one_thread():
        _warm_up()
        code = metrics.conduct(cases(), options, BASELINE, 1, {}, target_of)
    if options.picture is not None:
        draw(found, options.walks).save(options.picture)
    return code


if __name__ == "__main__":
    metrics.start(main, Options)
