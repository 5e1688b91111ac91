"""How well holes are filled: the gate that any outpainter of this project has to pass.

Run: python benchmarks/outpaint.py [--quick] [--gate] [--save-baseline] [--pictures FOLDER]

  band    the right quarter of real photographs is hidden and filled by every outpainter that runs,
          and by baselines: replicate (the last known column, repeated) and telea (Telea 2004).
          psnr, ssim and lpips against what was there; seam: gradient across the border over the
          picture's own, 1 is none
  memory  a side (37 %) of a drawn place is hidden; past views show it, with exact depth, with depth
          3 % and exposure 7 % off, or they are of another place; gain: dB over no views at all
  chain   four quarters are added one after the other; how far the last is from the photograph's own
          last quarter in luminance, saturation and direction of edges
  loop    the gap between a photograph's right and left edge, as at 360 degrees; worst seam of both
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from benchmarks import metrics, outpaint_data, outpaint_metrics
from benchmarks.metrics import Metric
from scenegen import outpaint
from scenegen.export.images import write_png
from scenegen.training.perceptual import Lpips, missing_lpips

BASELINE = Path(__file__).parent / "baseline" / "outpaint.json"
TOLERANCE = 1.05
"""Numbers may be worse than in the baseline by this factor: processors round differently."""
BAND, SIDE = 0.25, 0.37
"""Shares of a picture that are hidden."""
STEPS = 4
"""Quarters that are chained."""
BASELINES = ("telea", "replicate")
HIGHER = ("psnr", "ssim", "gain")
TARGETS = {
    "band/seam": 1.2,
    "memory/exact/gain": 8.0,
    "memory/off/gain": 6.0,
    "memory/wrong/gain": -0.2,
    "chain/luminance": 0.1,
    "chain/saturation": 0.1,
    "chain/edges": 0.1,
    "loop/seam": 1.2,
}
"""What the best outpainter should reach."""

Fill = Callable[[Tensor, Tensor], Tensor]
"""From a picture and its known pixels to the whole picture."""


@dataclass(frozen=True)
class Options(metrics.Options):
    """Measure outpainters on photographs and drawn places with a part hidden."""

    pictures: Path | None = None
    """Folder for what was filled, to be looked at."""


def contestants(absent: dict[str, str]) -> dict[str, Fill]:
    """Who fills: the outpainters that run here, best first, and the baselines."""
    found: dict[str, Fill] = {}
    for name, entry in outpaint.OUTPAINTERS.items():
        reason = entry.missing()
        if reason is not None:
            absent[name] = f"{reason}\n  {entry.fix}"
        elif name != "none":
            found[name] = backend(name)
    if importlib.util.find_spec("cv2") is None:
        absent["telea"] = "pip install opencv-python-headless"
    else:
        found["telea"] = telea
    return {**found, "replicate": replicate}


def backend(name: str) -> Fill:
    """An outpainter as a world uses it."""
    return lambda rgb, known: outpaint.fill(rgb, known, backend=name)


def telea(rgb: Tensor, known: Tensor) -> Tensor:
    """Fast marching (Telea 2004), as in OpenCV."""
    import cv2

    image = (rgb * 255).round().byte().numpy()
    hole = (~known).byte().numpy() * 255
    filled = torch.from_numpy(cv2.inpaint(image, hole, 5, cv2.INPAINT_TELEA)).float() / 255
    return torch.where(known[..., None], rgb, filled)


def replicate(rgb: Tensor, known: Tensor) -> Tensor:
    """Each hole pixel takes the nearest known one of its row."""
    columns = torch.arange(rgb.shape[1]).expand(known.shape)
    distance = (columns[0][None, :, None] - columns[0][None, None, :]).abs().float()
    distance = distance + torch.where(known, 0.0, torch.inf)[:, None, :]  # (h, to, from)
    nearest = distance.argmin(-1)[..., None].expand(-1, -1, 3)
    return torch.where(known[..., None], rgb, rgb.gather(1, nearest))


class Bench:
    """The cases, and what they share."""

    def __init__(self, options: Options, absent: dict[str, str]) -> None:
        self.options, self.absent = options, absent
        self.fills = contestants(absent)
        self.best = next(name for name in self.fills if name not in BASELINES)
        reason = missing_lpips()
        self.lpips = None if reason else Lpips()
        if reason:
            absent["lpips"] = reason

    def cases(self) -> Iterator[list[Metric]]:
        """All of them, one after the other."""
        photos = outpaint_data.photographs(self.options.quick, self.absent)
        yield self.band(photos)
        few = dict(list(photos.items())[:: 1 if self.options.quick else 3])
        yield self.chain(few)
        yield self.loop(few)
        if reason := outpaint_data.missing_places():
            self.absent["memory"] = reason
        else:
            yield self.memory()

    def band(self, photos: Mapping[str, Tensor]) -> list[Metric]:
        """The right quarter, by everyone."""
        kept: dict[str, list[dict[str, float]]] = {}
        for photo, truth in photos.items():
            first = truth.shape[1] - round(BAND * truth.shape[1])
            known = torch.ones(truth.shape[:2], dtype=torch.bool)
            known[:, first:] = False
            for name, fill in self.fills.items():
                filled = fill(truth, known)
                values = self._compared(filled, truth, ~known)
                values["seam"] = outpaint_metrics.seam(filled, first)
                kept.setdefault(name, []).append(values)
                self._show(f"band-{photo}-{name}", filled)
        return _means("band", kept)

    def chain(self, photos: Mapping[str, Tensor]) -> list[Metric]:
        """Four quarters, each continued from what was filled before it."""
        kept: dict[str, list[dict[str, float]]] = {}
        for photo, truth in photos.items():
            step = round(BAND * truth.shape[1])
            known = torch.ones(truth.shape[:2], dtype=torch.bool)
            known[:, -step:] = False
            view, whole = truth, [truth]
            for _ in range(STEPS):
                view = self.fills[self.best](torch.roll(view, -step, 1), known)
                whole.append(view[:, -step:])
            values = outpaint_metrics.drifts(whole[-1], truth[:, -step:])
            kept.setdefault(self.best, []).append(values)
            self._show(f"chain-{photo}", torch.cat(whole, 1))
        return _means("chain", kept)

    def loop(self, photos: Mapping[str, Tensor]) -> list[Metric]:
        """What lies between the right and the left edge, when the picture goes all round."""
        kept: dict[str, list[dict[str, float]]] = {}
        for photo, truth in photos.items():
            width = truth.shape[1]
            gap, half = round(BAND * width), (width - round(BAND * width)) // 2
            view = torch.cat([truth[:, -half:], torch.zeros_like(truth[:, :gap])], 1)
            view = torch.cat([view, truth[:, :half]], 1)
            known = torch.ones(view.shape[:2], dtype=torch.bool)
            known[:, half : half + gap] = False
            filled = self.fills[self.best](view, known)
            left = outpaint_metrics.seam(filled, half)
            right = outpaint_metrics.seam(filled.flip(1), view.shape[1] - half - gap)
            kept.setdefault(self.best, []).append({"seam": max(left, right)})
            self._show(f"loop-{photo}", filled)
        return _means("loop", kept)

    def memory(self) -> list[Metric]:
        """The same holes with no views, the right ones, imperfect ones and wrong ones."""
        kept: dict[str, list[dict[str, float]]] = {}
        groups = list(outpaint_data.places(self.options.quick))
        for number, group in enumerate(groups):
            target = group.target
            known = outpaint_data.hidden_side(group, SIDE)
            depth = torch.where(known, target.depth, torch.nan)
            other = groups[(number + 1) % len(groups)]
            views = {
                "none": (),
                "exact": group.pasts,
                "off": outpaint_data.off(group.pasts, number),
                "wrong": outpaint_data.wrong(group, other),
            }
            for name, pasts in views.items():
                done = outpaint.complete(
                    target.rgb, known, target.camera, depth, pasts, backend=self.best
                )
                values = self._compared(done.rgb, target.rgb, ~known)
                if name != "none":
                    values["gain"] = values["psnr"] - kept["none"][-1]["psnr"]
                    values["remembered"] = float(done.remembered.sum() / (~known).sum())
                kept.setdefault(name, []).append(values)
                self._show(f"memory-{number}-{name}", done.rgb)
        return _means("memory", kept)

    def _compared(self, filled: Tensor, truth: Tensor, hole: Tensor) -> dict[str, float]:
        found = {
            "psnr": outpaint_metrics.psnr(filled, truth, hole),
            "ssim": outpaint_metrics.ssim(filled, truth, hole),
        }
        if self.lpips is not None:
            pair = (image.permute(2, 0, 1)[None] for image in (filled, truth))
            with torch.inference_mode():
                found["lpips"] = float(self.lpips(*pair))
        return found

    def _show(self, name: str, picture: Tensor) -> None:
        if self.options.pictures is not None:
            self.options.pictures.mkdir(parents=True, exist_ok=True)
            write_png(self.options.pictures / f"{name}.png", picture)


def _means(case: str, kept: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Metric]:
    """Means over all pictures; the gate watches all but the baselines."""
    found = []
    for name, rows in kept.items():
        for measure in rows[0]:
            value = mean(row[measure] for row in rows)
            gated = name not in BASELINES and measure not in ("remembered", "gain")
            unit = "dB" if measure in ("psnr", "gain") else ""
            way = "higher" if measure in (*HIGHER, "remembered") else "lower"
            tolerance = TOLERANCE if gated else None
            found.append(Metric(f"{case}/{name}/{measure}", value, unit, way, tolerance))
    return found


def target_of(metric: Metric) -> float | None:
    """What is aimed at; the baselines aim at nothing."""
    case, name, measure = metric.key.split("/")
    if name in BASELINES:
        return None
    return TARGETS.get(metric.key, TARGETS.get(f"{case}/{measure}"))


def main(options: Options) -> int:
    """Measure and print, then compare and keep. Returns the exit code."""
    absent: dict[str, str] = {}
    cases = Bench(options, absent).cases()
    return metrics.conduct(cases, options, BASELINE, 1, absent, target_of)


if __name__ == "__main__":
    metrics.start(main, Options)
