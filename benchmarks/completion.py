"""How right the depth is that a growing world gives to what it did not know of a view.

Run: python -m benchmarks.completion [--quick] [--gate] [--save-baseline] [--pictures FOLDER]

Of views with known depth, drawn and real, a part is hidden as growth leaves it: a quarter or a
third at one side (side), a quarter at the lower edge (below), and what a step to the side uncovers
behind near things and at one edge (step). All else is known exactly. The estimate is that of the
whole true picture, fitted to what is known.

  median, mean  error of the logarithm of depth in the hole
  near, far     its mean up to 6 % of the longer side from the rim, and beyond
  delta1        share of the hole off by less than a quarter
  seam, seam90  step of log depth across the rim, less the true one: median and 90th percentile
  seconds       CPU time of the answer, estimate and fit not counted

Who answers:

  completed  as a world does: what follows, corrected by the shipped network
  continued  as a world does with other depth backends: along the rim what is known goes on, further
             in the estimate
  fitted     the fitted estimate alone
  membrane   what is known at the rim alone, as smooth as it can be

Numbers are means over the views of a scope.
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from benchmarks import metrics
from benchmarks.completion_data import View, holes, views
from benchmarks.completion_metrics import hole_errors, seam_steps
from benchmarks.metrics import Metric
from scenegen import geometry
from scenegen.export.images import write_png
from scenegen.fields import pull_push
from scenegen.geometry.completion import CompletionNetwork, load_completion_network
from scenegen.models import shipped_path
from scenegen.world.align import Fit, fit_depth, rim_of
from scenegen.world.completing import COMPLETION, known_continued, partial_view

BASELINE = Path(__file__).parent / "baseline" / "completion.json"
TOLERANCE = 1.03
"""Numbers may be worse than in the baseline by this factor: processors round differently."""
SEAM = 0.01
"""The seam should be no larger, in logarithms of depth: one percent."""
BASELINES = ("fitted", "membrane")


@dataclass(frozen=True)
class Options(metrics.Options):
    """Measure how the depth of partly known views is completed."""

    pictures: Path | None = None
    """Folder for pictures of view, truth and answers, to be looked at."""
    network: Path | None = None
    """Another network than the shipped one, its card beside it."""


@dataclass(frozen=True, eq=False)
class Case:
    """A view with a hole, as a growth step has it."""

    view: View
    hole: Tensor
    known: Tensor
    """Depth outside the hole, metres; NaN inside."""
    estimate: geometry.Geometry
    fit: Fit


Answer = Callable[[Case], Tensor]
"""Depth of the view, in metres; what it says outside the hole does not count."""


def contestants(network: Path | None, absent: dict[str, str]) -> dict[str, Answer]:
    """Who answers: the ways of a world, then baselines."""
    path = network or shipped_path(COMPLETION)
    found = {"continued": completed_by(None), "fitted": fitted, "membrane": membrane}
    if not path.is_file():
        absent["completed"] = f"there is no file {path}"
        return found
    return {"completed": completed_by(load_completion_network(path)), **found}


def completed_by(network: CompletionNetwork | None) -> Answer:
    """As a world does, with a network or without."""

    def answer(case: Case) -> Tensor:
        rgb, said, camera = case.view.rgb, case.estimate, case.view.camera
        view = partial_view(rgb, said.depth, said.sky, case.known, case.hole, camera, case.fit)
        return known_continued(network, view)

    return answer


def fitted(case: Case) -> Tensor:
    """The estimate, fitted to what is known."""
    return torch.exp(case.fit.log_depth(case.estimate.depth))


def membrane(case: Case) -> Tensor:
    """What is known along the rim, continued smoothly."""
    rim = rim_of(case.known, case.hole)
    log_known = torch.log(torch.where(rim, case.known, 1.0))
    return torch.exp(pull_push(log_known[..., None], rim)[..., 0])


def all_cases(options: Options, absent: dict[str, str]) -> Iterator[list[Metric]]:
    """Means of each scope and kind of hole, when all its views have been measured."""
    answers = contestants(options.network, absent)
    kept: dict[str, dict[str, dict[str, list[float]]]] = {}
    for number, view in enumerate(views(options.quick, absent)):
        estimate = geometry.estimate(view.rgb, "dpt", view.camera.fov_degrees)
        for kind, hole in holes(view, number).items():
            if not (hole & torch.isfinite(view.truth)).any():
                continue
            known = torch.where(hole, math.nan, view.truth)
            fit = fit_depth(estimate.depth, known, ~hole)
            case = Case(view, hole, known, estimate, fit)
            found = kept.setdefault(f"{view.scope}, {kind}", {})
            said = {}
            for name, answer in answers.items():
                said[name], values = measured(case, answer)
                for measure, value in values.items():
                    found.setdefault(name, {}).setdefault(measure, []).append(value)
            _show(options.pictures, f"{number:02d}-{view.name}-{kind}", case, said)
    for scope, found in kept.items():
        yield means(scope, found)


def measured(case: Case, answer: Answer) -> tuple[Tensor, dict[str, float]]:
    """An answer, with what is known around it, and its measures by name."""
    began = time.process_time()
    depth = answer(case)
    seconds = time.process_time() - began
    depth = torch.where(case.hole, depth, case.known)
    values = hole_errors(depth, case.view.truth, case.hole)
    steps = seam_steps(depth, case.view.truth, case.hole)
    if len(steps):
        values |= {"seam": float(steps.median()), "seam90": float(steps.quantile(0.9))}
    return depth, values | {"seconds": seconds}


def means(case: str, found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Metric]:
    """Means over views; the gate watches errors of a world's ways."""
    lines = []
    for name, measures in found.items():
        for measure, values in measures.items():
            gated = name not in BASELINES and measure != "seconds"
            way = "higher" if measure == "delta1" else "lower"
            unit = "s" if measure == "seconds" else ""
            tolerance = TOLERANCE if gated else None
            key = f"{case}/{name}/{measure}"
            lines.append(Metric(key, mean(values), unit, way, tolerance))
    return lines


def _show(folder: Path | None, name: str, case: Case, said: Mapping[str, Tensor]) -> None:
    """The view, the truth and all answers side by side; near is bright, the rim is black."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    surfaces = case.view.truth[torch.isfinite(case.view.truth)].log()
    low, high = surfaces.quantile(0.02), surfaces.quantile(0.98)
    planes = [case.view.rgb]
    rim = torch.nn.functional.max_pool2d(case.hole.float()[None], 3, 1, 1)[0] - case.hole.float()
    for depth in (case.view.truth, *said.values()):
        shade = ((high - depth.log()) / (high - low)).clamp(0, 1)
        shade = torch.where(rim > 0, 0.0, shade.nan_to_num(0.0))
        planes.append(shade[..., None].expand(-1, -1, 3))
    write_png(folder / f"{name}.png", torch.cat(planes, 1))


def target_of(metric: Metric) -> float | None:
    """The seam of a world's ways."""
    _, name, measure = metric.key.split("/")
    return SEAM if measure == "seam" and name not in BASELINES else None


def main(options: Options) -> int:
    """Measure and print, then compare and keep. Returns the exit code."""
    absent: dict[str, str] = {}
    return metrics.conduct(all_cases(options, absent), options, BASELINE, 1, absent, target_of)


if __name__ == "__main__":
    metrics.start(main, Options)
