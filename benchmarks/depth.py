"""How right the depth is that one photograph gives, on real photographs whose depth is known.

Run: python benchmarks/depth.py [--quick] [--gate] [--save-baseline] [--data FOLDER]
     [--kapture FOLDER] [--pillow FOLDER] [--heif FOLDER]

  spearman  rank correlation of disparities: is what is nearer said to be nearer?
  absrel    mean error over the true depth, when scale and shift of disparity are fitted
  delta1    share of pixels off by less than a quarter, likewise
  edges     F1 of steps in depth, likewise: are outlines where they are?

All depth backends that run here answer as they do in a world, edges sharpened and all. Beside them:

  fastdepth alone  that network on its own, without the prior that is mixed into the backend
  linear probe     the base of the shipped network, fitted in closed form, without its head
  ramp             depth as a function of the row alone, fitted to the true depth of that picture
  constant         the median of the true depth

Scopes are told apart: "indoor" and "outdoor" have measured depth; "matched" are rooms too, with
depth from stereo matching, which is missing where walls are blank and less exact at outlines;
"matched outdoor" likewise, with --kapture, --pillow and --heif; "own" are those of --data. Where
pictures come from is said in depth_data.py, depth_outdoors.py and depth_pairs.py. A lead is by how
much a backend is better than a baseline.
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import depth_metrics, metrics
from benchmarks.depth_data import Sample, samples
from benchmarks.depth_outdoors import outdoors
from benchmarks.depth_pairs import pairs
from benchmarks.metrics import Metric
from renderers import Camera
from scenegen import geometry, models

BASELINE = Path(__file__).parent / "baseline" / "depth.json"
TOLERANCE = 1.03
"""Numbers may be worse than in the baseline by this factor: processors round differently."""
MEASURES: dict[str, metrics.Direction] = {
    "spearman": "higher",
    "absrel": "lower",
    "delta1": "higher",
    "edges": "higher",
}
TARGETS = {("motorcycle", "spearman"): 0.88, ("own outdoor", "delta1"): 0.85}
"""What the best backend should reach, by case or scope and measure."""
BASELINES = ("fastdepth alone", "linear probe", "ramp", "constant")
SCOPES = ("indoor", "matched", "matched outdoor", "own indoor", "own outdoor")
LEAD = ", lead over "
"""Joins a scope and a baseline in the names of leads."""

Answer = Callable[[Sample], Tensor]
"""Gives a sample's disparity, in any unit."""


@dataclass(frozen=True)
class Options(metrics.Options):
    """Measure depth backends on real photographs whose depth is known."""

    data: Path | None = None
    """Folder with more of them: indoor/ and outdoor/ with NAME.png and NAME.npy, in metres."""
    kapture: Path | None = None
    """Folder `samples` of kapture's source distribution, for the outdoors."""
    pillow: Path | None = None
    """Folder `Tests/images` of Pillow's source distribution, likewise."""
    heif: Path | None = None
    """Folder `tests/images` of pillow-heif's source distribution, likewise."""


def contestants(absent: dict[str, str]) -> dict[str, Answer]:
    """Who answers: the backends that run here, best first, and the baselines."""
    found: dict[str, Answer] = {}
    for name, entry in geometry.DEPTH_BACKENDS.items():
        reason = entry.missing()
        if reason is None:
            found[name] = backend(name)
        else:
            absent[name] = f"{reason}\n  {entry.fix}"
    if models.is_present("fastdepth"):
        found["fastdepth alone"] = fastdepth_alone()
    else:
        absent["fastdepth alone"] = "its weights are missing: scenegen models pull fastdepth"
    if geometry.DEPTH_BACKENDS["dpt"].missing() is None:
        found["linear probe"] = linear_probe()
    return {**found, "ramp": ramp, "constant": lambda sample: torch.zeros_like(sample.truth)}


def backend(name: str) -> Answer:
    """A depth backend as a world uses it."""

    def answer(sample: Sample) -> Tensor:
        return 1.0 / geometry.estimate(sample.rgb, name, sample.fov_degrees).depth

    return answer


def fastdepth_alone() -> Answer:
    """The network of the backend of that name, without what is mixed into it."""
    from scenegen.geometry.fastdepth import FastDepth

    network = FastDepth()

    def answer(sample: Sample) -> Tensor:
        height, width = sample.truth.shape
        fov = sample.fov_degrees or geometry.default_fov(width, height)
        lens = Camera.from_fov(fov, width, height).px_from_cam
        return 1.0 / network.answer(sample.rgb, lens)

    return answer


def linear_probe() -> Answer:
    """The linear base of the shipped network, asked as the network is."""
    from scenegen.geometry.trained import TrainedDepth, ask_base

    network = TrainedDepth().network
    return lambda sample: ask_base(network, sample.rgb)


def ramp(sample: Sample) -> Tensor:
    """The line ``disparity = a + b row`` that fits the true depth best."""
    rows = torch.arange(sample.truth.shape[0]).double()[:, None].expand(sample.truth.shape)
    known = torch.isfinite(sample.truth)
    x, y = rows[known], 1.0 / sample.truth[known].double()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
    return (y.mean() + slope * (rows - x.mean())).float()


def measured(disparity: Tensor, sample: Sample) -> dict[str, float]:
    """Measures of an answer, by name; only those that the sample allows."""
    found = {"spearman": depth_metrics.spearman(disparity, sample.truth)}
    if sample.ordinal:
        return found
    depth = depth_metrics.aligned(disparity, sample.truth)
    found["absrel"] = depth_metrics.absrel(depth, sample.truth)
    found["delta1"] = depth_metrics.delta1(depth, sample.truth)
    edges = None if sample.sparse else depth_metrics.boundary_f1(depth, sample.truth)
    return found if edges is None else {**found, "edges": edges}


def all_cases(options: Options, absent: dict[str, str]) -> Iterator[list[Metric]]:
    """Metrics of one photograph after the other, then means of each scope, and leads."""
    answers = contestants(absent)
    kept: dict[str, dict[str, dict[str, list[float]]]] = {scope: {} for scope in SCOPES}
    pictures = chain(
        samples(options.quick, options.data, absent),
        outdoors(options.kapture, absent),
        pairs(options.pillow, options.heif, absent),
    )
    for sample in pictures:
        case = []
        for name, answer in answers.items():
            for measure, value in measured(answer(sample), sample).items():
                case.append(_metric(f"{sample.name}/{name}/{measure}", value))
                kept[sample.scope].setdefault(name, {}).setdefault(measure, []).append(value)
        yield case
    for scope, found in kept.items():
        if found and scope not in absent:
            yield summary(scope, found)
    if not kept["own outdoor"]:
        absent["outdoor"] = (
            "no package that could be found holds photographs of the outdoors with measured depth;"
            " give a folder of your own with --data"
        )


def summary(scope: str, found: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Metric]:
    """Means over a scope, and by how much each backend is better than each baseline."""
    means = {
        name: {measure: sum(values) / len(values) for measure, values in measures.items()}
        for name, measures in found.items()
    }
    lines = [
        _metric(f"{scope}/{name}/{measure}", value)
        for name, measures in means.items()
        for measure, value in measures.items()
    ]
    for rival in BASELINES:
        for name in means if rival in means else ():
            for measure, theirs in means[rival].items() if name not in BASELINES else ():
                lead = means[name][measure] - theirs
                lead = -lead if MEASURES[measure] == "lower" else lead
                lines.append(Metric(f"{scope}{LEAD}{rival}/{name}/{measure}", lead, "", "higher"))
    return lines


def _metric(key: str, value: float) -> Metric:
    """A number; the gate watches those of backends, except in folders of one's own."""
    case, name, measure = key.split("/")
    gated = name not in BASELINES and not case.startswith("own ")  # the baseline has no own
    return Metric(key, value, "", MEASURES[measure], TOLERANCE if gated else None)


def target_of(metric: Metric) -> float | None:
    """What the best backend that runs should reach; every backend should lead."""
    case, name, measure = metric.key.split("/")
    if LEAD in case:
        return 0.0
    best = next((n for n, e in geometry.DEPTH_BACKENDS.items() if e.missing() is None), None)
    return TARGETS.get((case, measure)) if name == best else None


def main(options: Options) -> int:
    """Measure and print, then compare and keep. Returns the exit code."""
    absent: dict[str, str] = {}
    return metrics.conduct(all_cases(options, absent), options, BASELINE, 1, absent, target_of)


if __name__ == "__main__":
    metrics.start(main, Options)
