"""How fast and how right the renderers are, beside other programs that do the same, in one run.

Run: python benchmarks/render.py [--quick] [--gate] [--save-baseline] [--prototype FOLDER]

  cpu          this project's renderer: ratios are of it to the others
  gsplat       this project's renderer on a GPU, where there is one
  plain, anew  the cpu renderer again, without what is asked for in that case
  prototype    an earlier rasteriser: a folder with nbsplat.py, nbback.py and surfel.py
  mitsuba      Mitsuba 3, where it is installed (`pip install mitsuba`): a ray tracer that goes
               through the same splats, one ray per pixel. Nearly the same picture (25 dB): it
               blends in another order, and steps over discs that are thinner than 0.1 mm.

gsplat's implementation in torch is no peer: it needs a CUDA kernel to find what a pixel shows.
What ``per`` and ``serial`` are is said in metrics.measure.
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import contextlib
import importlib
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from benchmarks import metrics, scenes
from benchmarks.metrics import Contestant, Metric
from renderers import RENDERERS, Camera, SceneError, Splats, join, make_renderer
from renderers.cpu.pack import morton_order
from renderers.surfels import SurfelScene, render_surfels

BASELINE = Path(__file__).parent / "baseline" / "render.json"
TARGETS = {
    "frame rgbd 300k 640x480/cpu/best": 19.0,
    "frame rgbd 300k 1280x720/cpu/best": 26.0,
    "frame rgbd 1M 1280x720/cpu/best": 70.0,
    "frame trained 1M 1280x720/cpu/best": 115.0,
    "fit rgbd 200k 512x512/cpu/best": 40.0,
    "fit trained 200k 512x512/cpu/best": 70.0,
    "surfels 1M 256x256/cpu/best": 5.0,
    "surfels 1M 512x512/cpu/best": 15.0,
}
"""Milliseconds, on two quiet cores with AVX-512."""
RIVALS = {"prototype": 0.9, "mitsuba": 1.0, "gsplat": 1.0, "anew": 1.0}
"""Of what they take we should take at most this."""
RATE = 1e-6
"""Of fitting: so low that all steps see the same scene."""
ACCURACY: dict[str, tuple[float, metrics.Direction, float]] = {
    "dB": (100.0, "higher", 1.05),
    "relative": (1e-5, "lower", 2.0),
    "of 1": (1.0, "higher", 1.0),
}
"""Target of what is compared with the reference, by unit; direction and tolerance of Metric."""


@dataclass(frozen=True)
class Options(metrics.Options):
    """Measure frame times and accuracy of the renderers."""

    prototype: Path | None = None
    """Folder of an earlier rasteriser, to run beside ours."""


@dataclass(frozen=True)
class Bench:
    """How much is measured, and beside whom."""

    shrink: float = 1.0
    """Factor on the edges of images; numbers of splats shrink by its square."""
    repeats: int = 30
    budget_s: float = 15.0
    """For each case, see metrics.race."""
    backends: tuple[str, ...] = ("cpu",)
    prototype: Prototype | None = None
    absent: dict[str, str] = field(default_factory=dict)
    """What cannot be measured here, and why. Grows."""

    def scene(self, kind: str, count: int) -> Splats:
        """Splats of a kind, "rgbd" or "trained", given their number at full size."""
        return scenes.shrunk(kind, count, self.shrink)

    def camera(self, width: int, height: int) -> Camera:
        """The view that is drawn, given its full size."""
        return scenes.novel_view(round(width * self.shrink), round(height * self.shrink))

    def race(self, case: str, **contestants: Contestant | None) -> list[Metric]:
        """Measure those contestants that there are, and the calibration."""
        present = {name: one for name, one in contestants.items() if one is not None}
        present[metrics.CALIBRATION] = scenes.calibration()
        return metrics.measure(case, present, self.repeats, self.budget_s)


def named(what: str, splats: Splats, camera: Camera) -> str:
    """Name of a case, for example "frame rgbd 300k 640x480"."""
    count = len(splats)
    unit, letter = next((u, s) for u, s in ((10**6, "M"), (1000, "k"), (1, "")) if count % u == 0)
    return f"{what} {count // unit}{letter} {camera.width}x{camera.height}"


def all_cases(bench: Bench) -> Iterator[list[Metric]]:
    """Metrics of one case after the other."""
    for width, height in ((640, 480), (1280, 720)):
        yield frame(bench, "rgbd", 300_000, width, height)
    yield variant(bench, "harmonics", degree=3)
    yield variant(bench, "details", details=True)
    yield variant(bench, "antialiased", antialiased=True)
    yield rays(bench)
    for kind in ("rgbd", "trained"):
        yield frame(bench, kind, 1_000_000, 1280, 720)
    yield append(bench)
    for size in (256, 512):
        yield surfels(bench, size)
    for kind in ("rgbd", "trained"):
        yield fit(bench, kind)
    for backend in bench.backends:
        yield accuracy(bench, backend)


def frame(bench: Bench, kind: str, count: int, width: int, height: int) -> list[Metric]:
    """One picture of a scene that has been drawn before."""
    scene, camera = bench.scene(kind, count), bench.camera(width, height)
    backends: dict[str, Any] = {name: drawing(name, scene, camera) for name in bench.backends}
    prototype = bench.prototype and bench.prototype.frame(scene, camera)
    return bench.race(named(f"frame {kind}", scene, camera), **backends, prototype=prototype)


def variant(bench: Bench, what: str, *, degree: int = 0, **asked: Any) -> list[Metric]:
    """What it costs to ask for more, or to draw colours that depend on the direction."""
    plain, camera = bench.scene("rgbd", 300_000), bench.camera(640, 480)
    scene = scenes.with_harmonics(plain, degree) if degree else plain
    return bench.race(
        named(what, scene, camera),
        cpu=drawing("cpu", scene, camera, **asked),
        plain=drawing("cpu", plain, camera),
    )


def rays(bench: Bench) -> list[Metric]:
    """One picture, beside Mitsuba. It gets few repeats, for it takes long."""
    scene, camera = bench.scene("rgbd", 300_000), bench.camera(640, 480)
    few = replace(bench, repeats=min(bench.repeats, 5))
    ours, other = drawing("cpu", scene, camera), None
    with scenes.Mitsuba(scene, camera) as mitsuba:
        try:
            mitsuba.draw()
            other = Contestant(lambda _: mitsuba.draw(), here=False)
        except SceneError as error:
            bench.absent["mitsuba"] = str(error)
        return few.race(named("rays", scene, camera), cpu=ours, mitsuba=other)


def drawing(backend: str, scene: Splats, camera: Camera, **asked: Any) -> Contestant:
    """Drawing a scene with one of our backends."""
    renderer, gpu = make_renderer(backend), backend == "gsplat"

    def draw(_: Any) -> None:
        renderer.render(scene, camera, **asked)
        if gpu:
            torch.cuda.synchronize()

    cold = None if gpu else lambda: make_renderer(backend).render(replace(scene), camera, **asked)
    return Contestant(draw, cold=cold, here=not gpu)


def append(bench: Bench) -> list[Metric]:
    """The first picture after ten parts of a scene got an eleventh, and after packing all anew."""
    scene, camera = bench.scene("rgbd", 1_000_000), bench.camera(1280, 720)
    *parts, last = (scene[rows] for rows in torch.arange(len(scene)).tensor_split(11))
    renderer = make_renderer("cpu")
    renderer.render(join(parts), camera)

    def grown() -> tuple[Splats, Splats]:
        new = replace(last)
        return join([*parts, new]), new  # the new part has to live on

    def draw(made: tuple[Splats, ...]) -> None:
        renderer.render(made[0], camera)

    anew = Contestant(draw, lambda: (replace(grown()[0]),))
    return bench.race(named("append", scene, camera), cpu=Contestant(draw, grown), anew=anew)


def fit(bench: Bench, kind: str) -> list[Metric]:
    """One step of fitting splats to a picture: forward, L1, backward, Adam."""
    scene, camera = bench.scene(kind, 200_000), bench.camera(512, 512)
    scene = scene[morton_order(scene.means)]
    target = make_renderer("cpu").render(scene, camera).rgb
    start = replace(scene, colors=(0.9 * scene.colors + 0.05).contiguous())
    backends: dict[str, Any] = {n: fitting(n, start, camera, target) for n in bench.backends}
    prototype = bench.prototype and bench.prototype.fit(start, camera, target)
    return bench.race(named(f"fit {kind}", scene, camera), **backends, prototype=prototype)


def fitting(backend: str, start: Splats, camera: Camera, target: Tensor) -> Contestant:
    """Fitting with one of our backends."""
    renderer, gpu = make_renderer(backend), backend == "gsplat"
    device = "cuda" if gpu else "cpu"
    values = [getattr(start, field.name) for field in fields(start) if field.name != "sh"]
    leaves = [value.to(device, copy=True).requires_grad_() for value in values]
    optimiser, target = torch.optim.Adam(leaves, lr=RATE, fused=True), target.to(device)

    def step(_: Any = None) -> None:
        optimiser.zero_grad()
        (renderer.render(Splats(*leaves), camera).rgb - target).abs().mean().backward()
        optimiser.step()
        if gpu:
            torch.cuda.synchronize()

    return Contestant(step, cold=None if gpu else step, here=not gpu)


def surfels(bench: Bench, size: int) -> list[Metric]:
    """Which surfel each pixel shows; ``sorted`` is for surfels that are drawn many times."""
    scene, camera = bench.scene("rgbd", 1_000_000), bench.camera(size, size)
    discs = scenes.surfels_of(scene)
    kept = SurfelScene(*discs)
    return bench.race(
        named("surfels", scene, camera),
        cpu=Contestant(lambda _: render_surfels(*discs, camera)),
        sorted=Contestant(lambda _: kept.render(camera)),
        prototype=bench.prototype and bench.prototype.surfels(discs, camera),
    )


def accuracy(bench: Bench, backend: str) -> list[Metric]:
    """A backend against the float64 reference, on small scenes, and against itself."""
    camera, count = scenes.novel_view(96, 72), 4000 if bench.shrink == 1 else 1000
    side = round(count**0.5)
    found: list[tuple[str, float, str]] = []
    for name, scene in (
        ("distinct", scenes.distinct(count, 96, 72)),
        ("rgbd", scenes.rgbd_like(count, (side, side))),
        ("trained", scenes.trained_like(count, (side, side))),
    ):
        ours, right = (make_renderer(b).render(scene, camera).rgb for b in (backend, "reference"))
        error = (ours.cpu().double() - right).square().mean().item()
        found.append((name, -10 * math.log10(error), "dB"))
    for name, scene in (
        ("gradients", scenes.with_harmonics(scenes.distinct(300, 48, 36), 3)),
        ("gradients trained", scenes.trained_like(600, (30, 20))),
    ):
        _, ours = differentiated(backend, scene)
        _, right = differentiated("reference", scene)
        errors = [(a - b).norm() / b.norm() for a, b in zip(ours, right, strict=True)]
        found.append((name, max(errors).item(), "relative"))
    if backend == "cpu" and numba.get_num_threads() > 1:
        scene = scenes.with_harmonics(scenes.rgbd_like(20_000, (160, 125)), 1)
        many = differentiated(backend, scene)
        with metrics.one_thread():
            one = differentiated(backend, scene)
        same = all(map(torch.equal, (*many[0], *many[1]), (*one[0], *one[1])))
        found.append(("same bits on 1 thread", float(same), "of 1"))
    return [
        Metric(f"accuracy/{backend}/{name}", value, unit, *ACCURACY[unit][1:])
        for name, value, unit in found
    ]


def differentiated(backend: str, scene: Splats) -> tuple[list[Tensor], list[Tensor]]:
    """Colour, opacity and depth, and gradients of all fields and the pose, as float64.

    Of a loss that looks at every pixel of all three, each with a weight of its own; that of depth
    is a tenth, for depth is a quotient that means little where opacity is near zero.
    """
    camera = scenes.novel_view(48, 36)
    values = (getattr(scene, field.name) for field in fields(scene))
    leaves = [v.detach().double().requires_grad_() for v in values if v is not None]
    pose = camera.cam_from_world.double().requires_grad_()
    out = make_renderer(backend).render(Splats(*leaves), camera.posed(pose), (0.2, 0.5, 0.9))
    picture = [p.double().cpu().nan_to_num() for p in (out.rgb, out.alpha, out.depth)]
    rng = torch.Generator().manual_seed(1)
    weights = [torch.randn(p.shape, generator=rng, dtype=torch.float64) for p in picture]
    rgb, alpha, depth = ((p * w).sum() for p, w in zip(picture, weights, strict=True))
    loss = rgb + alpha + 0.1 * depth
    return [p.detach() for p in picture], list(torch.autograd.grad(loss, [*leaves, pose]))


class Prototype:
    """An earlier rasteriser, from a folder."""

    def __init__(self, folder: Path) -> None:
        if missing := [
            n for n in ("nbsplat", "nbback", "surfel") if not (folder / f"{n}.py").exists()
        ]:
            raise SceneError(
                f"{folder} holds no rasteriser",
                why=f"it lacks {', '.join(missing)}",
                fix="give a folder with nbsplat.py, nbback.py and surfel.py",
            )
        # it writes a module into the folder that it is started in
        self._scratch = tempfile.TemporaryDirectory()
        sys.path[:0] = [self._scratch.name, str(folder.resolve())]
        with contextlib.chdir(self._scratch.name):
            self._forward, self._back, self._surfel = map(
                importlib.import_module, ("nbsplat", "nbback", "surfel")
            )

    def frame(self, scene: Splats, camera: Camera) -> Contestant:
        """Drawing a scene."""
        renderer = self._forward.Renderer(scenes.as_arrays(scene), numba.get_num_threads())
        return Contestant(lambda _: renderer.render(*_view(camera)))

    def fit(self, start: Splats, camera: Camera, target: Tensor) -> Contestant:
        """One step of fitting, with an optimiser of its own."""
        trainer = self._back.Trainer(scenes.as_arrays(start), numba.get_num_threads())
        trainer.lr[:], goal = RATE, target.numpy()
        return Contestant(lambda _: trainer.step(*_view(camera), goal))

    def surfels(self, discs: tuple[Tensor, Tensor, Tensor], camera: Camera) -> Contestant:
        """Which surfel each pixel shows."""
        pose, lens, width, height = _view(camera)
        points, normals = (np.ascontiguousarray(part.T.numpy()) for part in discs[:2])
        keys = np.empty((numba.get_num_threads(), height, width), np.uint64)
        eye, near = camera.center.numpy(), np.float32(0.01)
        pinhole = (lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2])

        def draw(_: Any) -> None:
            ids, depth = np.empty((height, width), np.int32), np.empty((height, width), np.float32)
            self._surfel.zsplat(
                points, normals, discs[2].numpy(), pose, eye, *pinhole, width, height, near, keys
            )
            self._surfel.merge(keys, ids, depth)

        return Contestant(draw)


def _view(camera: Camera) -> tuple[np.ndarray, np.ndarray, int, int]:
    return camera.cam_from_world.numpy(), camera.px_from_cam.numpy(), camera.width, camera.height


def target_of(metric: Metric) -> float | None:
    """What a number should reach, where that was said."""
    *_, measure, peer = metric.key.split("/")
    if measure in ("per", "serial"):
        return RIVALS.get(peer)
    return TARGETS.get(metric.key, ACCURACY[metric.unit][0] if metric.unit in ACCURACY else None)


def main(options: Options) -> int:
    """Measure and print, then compare and keep. Returns the exit code."""
    bench = Bench(shrink=0.5, repeats=7, budget_s=3.0) if options.quick else Bench()
    if reason := RENDERERS["gsplat"].missing():
        bench.absent["gsplat"] = reason
    else:
        bench = replace(bench, backends=("cpu", "gsplat"))
    if options.prototype is None:
        bench.absent["prototype"] = "no --prototype was given"
    else:
        bench = replace(bench, prototype=Prototype(options.prototype))
    if numba.get_num_threads() == 1:
        bench.absent["same bits on 1 thread"] = "there are no more threads"
    return metrics.conduct(
        all_cases(bench), options, BASELINE, bench.repeats, bench.absent, target_of
    )


if __name__ == "__main__":
    metrics.start(main, Options)
