"""How well, how fast and how lean the memory remembers, beside other rules, on generated walks.

Run: python benchmarks/memory.py [--quick] [--long] [--worlds NAME ...] [--gate] [--save-baseline]
                                [--picture FOLDER]

What the rules are is said in benchmarks.memory_rules, and what the worlds are in
benchmarks.memory_worlds. Names of cases are a world and a number of views; measures are

  coverage     pixels of a target that the chosen views really show, as a share of those that the
               best choice of as many views shows (see memory_truth); mean over the targets
  worst        the same for the worst target
  precision    chosen views that really show 1 % of the target or more, as a share of all chosen
  lead         coverage of ours, per that of the best other rule
  proven       targets whose best choice was proven to be best; for the others, a bound that was
               proven takes its place, and coverage can be higher than it says here

``behind walls`` are targets where walls fool both the nearest poses and the fields of view.
What ``per`` and ``serial`` are is said in metrics.measure.
"""

from __future__ import annotations

import renderers  # noqa: F401  before torch: it says how threads wait

# isort: split
import itertools
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import metrics, scenes
from benchmarks.memory_casting import World
from benchmarks.memory_picture import plans
from benchmarks.memory_rules import RULES, Ours, Rule
from benchmarks.memory_truth import Question, ask
from benchmarks.memory_worlds import LAP, WORLDS
from benchmarks.metrics import Contestant, Metric, Timing
from renderers import Camera, SceneError
from spatial_memory import MemoryConfig

BASELINE = Path(__file__).parent / "baseline" / "memory.json"
K = 4
"""Views that are asked for."""
FEW_SURFELS = MemoryConfig(surfel_side=60, detail=0.0)
"""With this 200 views make about 100,000 surfels."""
VMEM_VIEWS = 1000
"""VMem's rule is run with so many views at most: each makes it index all surfels anew."""
SHOULD = {"coverage": 0.98, "precision": 0.9, "merged": 0.95, "growth": 1.02, "lead": 1.0}
"""What ours should reach: shares; surfels after a loop per surfels before; and see above."""
LIMITS = {"write": 60.0, "5000 retrieve": 60.0, "100k surfels, 200 views": 15.0}
"""Milliseconds on two quiet cores, by part of the case."""
TOLERANCE = {"coverage": 1.01, "lead": 1.01, "merged": 1.01, "growth": 1.01}
TOLERANCE |= {"worst": 1.03, "precision": 1.03}
"""Of measures that are the same on every machine, but for rounding."""
TOLERANCE_TIME = 2.0
"""Of ratios to the calibration, which needs no memory but the caches: other programs slow down
what goes through a whole map by more."""


@dataclass(frozen=True)
class Options(metrics.Options):
    """Measure what the memory finds, how long it takes, and how much it keeps."""

    long: bool = False
    """Also with 5,000 views."""
    worlds: tuple[str, ...] = tuple(WORLDS)
    """Only these, for a look."""
    picture: Path | None = None
    """Folder to draw one target of each walk into, and what the rules chose, from above."""

    @property
    def mode(self) -> str:
        """Under which runs are kept: those of a few worlds apart from the others."""
        mode = "long" if self.long else super().mode
        return mode if self.worlds == tuple(WORLDS) else f"{mode}: {', '.join(self.worlds)}"


@dataclass(frozen=True)
class Bench:
    """How much is measured."""

    worlds: tuple[str, ...] = tuple(WORLDS)
    views: tuple[int, ...] = (10, 100, 1000)
    """Ascending."""
    short: tuple[str, ...] = ()
    """Worlds that are walked with the fewest views only."""
    targets: int = 10
    """In sight, and as many behind walls."""
    laps: int = 10
    """Around the street."""
    lap: int = LAP
    """Views on each."""
    few: int = 200
    """Views of the case of few surfels."""
    repeats: int = 15
    budget_s: float = 5.0
    """For each case, see metrics.race."""
    pictures: Path | None = None
    """Where to draw."""
    absent: dict[str, str] = field(default_factory=dict)
    """What cannot be measured here, and why. Grows."""


QUICK = Bench(
    views=(10, 100),
    short=("corridor", "courtyard"),
    targets=5,
    laps=3,
    lap=16,
    few=50,
    repeats=3,
    budget_s=0.5,
)


def all_cases(bench: Bench) -> Iterator[list[Metric]]:
    """Metrics of one case after the other."""
    for name in bench.worlds:
        for views in bench.views[:1] if name in bench.short else bench.views:
            yield from walk(bench, name, views)
    yield few_surfels(bench)
    yield loops(bench)
    yield again(bench)


def walk(bench: Bench, name: str, views: int) -> Iterator[list[Metric]]:
    """All about one walk through one world."""
    world = WORLDS[name](views)
    cameras = world.walk(views)
    case, ours = f"{name} {views}", Ours()
    peak = metrics.peak_memory(lambda: remember(world, cameras, ours))
    rules: dict[str, Rule] = {"ours": ours}
    rules |= {rule: make() for rule, make in RULES.items() if rule != "ours"}
    if views > VMEM_VIEWS:
        del rules["vmem"]
        bench.absent[f"vmem with {views} views"] = "it indexes all surfels anew for every view"
    remember(world, cameras, *(rule for rule in rules.values() if rule is not ours))
    seen = ask(world, cameras, bench.targets, K)
    yield quality(case, rules, seen)
    fooled = ask(world, cameras, bench.targets, K, (rules["pose"], rules["fov"]))
    if fooled:
        yield quality(f"{case} behind walls", rules, fooled)
    else:
        bench.absent[f"{case} behind walls"] = "no target was found where walls fool both rules"
    if bench.pictures and (question := next(iter(fooled or seen), None)):
        chosen = {name: rule.choose(question.target, K) for name, rule in rules.items()}
        answers = {name: (ids, question.right(ids)) for name, ids in chosen.items()}
        plans(world, cameras, question.target, answers).save(bench.pictures / f"{case}.png")
    kept = [Metric(f"{case} kept/ours/surfels", len(ours.memory.surfels), "", "lower", 1.02)]
    if peak is not None:
        key = f"{case} kept/ours/peak"
        kept.append(Metric(key, peak, "MB", "lower", metrics.TOLERANCE_MEMORY))
    yield kept
    yield retrieval(bench, f"{case} retrieve", rules, seen or fooled)
    yield writing(bench, f"{case} write", world, rules)


def remember(world: World, cameras: Sequence[Camera], *rules: Rule) -> None:
    """Show the views of a walk to all rules."""
    for camera in cameras:
        photograph = world.photograph(camera)
        for rule in rules:
            rule.write(*photograph, camera)


def quality(case: str, rules: dict[str, Rule], questions: Sequence[Question]) -> list[Metric]:
    """How right the answers of all rules are."""
    scores: dict[str, dict[str, float]] = {}
    for name, rule in rules.items():
        answers = [(question, rule.choose(question.target, K)) for question in questions]
        shares = [question.coverage(chosen) for question, chosen in answers]
        right = [good for question, chosen in answers for good in question.right(chosen)]
        scores[name] = {"coverage": statistics.mean(shares), "worst": min(shares)}
        scores[name]["precision"] = statistics.mean(right) if right else 0.0
    best = max((score["coverage"] for name, score in scores.items() if name != "ours"), default=0.0)
    if best > 0.0:
        scores["ours"]["lead"] = scores["ours"]["coverage"] / best
    proven = statistics.mean(question.optimum.proven for question in questions)
    scores["truth"] = {"targets": len(questions), "proven": proven}
    return [
        Metric(
            *(f"{case}/{name}/{measure}", value, "", "higher"),
            TOLERANCE.get(measure) if name == "ours" else None,
        )
        for name, score in scores.items()
        for measure, value in score.items()
    ]


def retrieval(
    bench: Bench, case: str, rules: dict[str, Rule], questions: Sequence[Question]
) -> list[Metric]:
    """How long an answer takes, mean over the targets."""

    def answering(rule: Rule) -> Contestant:
        def answer(_: None) -> Timing:
            wall, cpu = time.perf_counter(), time.process_time()
            for question in questions:
                rule.choose(question.target, K)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            return Timing(1e3 * wall / len(questions), 1e3 * cpu / len(questions))

        return Contestant(answer)

    return timed(bench, case, {name: answering(rule) for name, rule in rules.items()})


def writing(bench: Bench, case: str, world: World, rules: dict[str, Rule]) -> list[Metric]:
    """How long it takes to remember one more view of the same walk; all rules get the same ones."""
    further = world.walk(200, seed=1)

    def adding(rule: Rule) -> Contestant:
        cameras = itertools.cycle(further[::7] + further[3::7])  # from all over the world

        def photograph() -> tuple:
            camera = next(cameras)
            return *world.photograph(camera), camera

        return Contestant(lambda view: rule.write(*view), photograph)

    # the others take no time to speak of
    slow = {name: adding(rule) for name, rule in rules.items() if name in ("ours", "vmem")}
    return timed(bench, case, slow)


def timed(bench: Bench, case: str, contestants: dict[str, Contestant]) -> list[Metric]:
    """Times of ours, which are gated, beside the calibration; and of others."""
    gated = {"ours": contestants["ours"], metrics.CALIBRATION: scenes.calibration()}
    found = [
        replace(metric, tolerance=TOLERANCE_TIME) if metric.tolerance else metric
        for metric in metrics.measure(case, gated, bench.repeats, bench.budget_s)
    ]
    others = {name: one for name, one in contestants.items() if name != "ours"}
    for name, taken in metrics.race(others, bench.repeats, bench.budget_s).items():
        found += [
            Metric(f"{case}/{name}/best", min(t.wall for t in taken), "ms", "lower"),
            Metric(
                f"{case}/{name}/median", statistics.median(t.wall for t in taken), "ms", "lower"
            ),
            Metric(f"{case}/{name}/cpu", statistics.median(t.cpu for t in taken), "ms", "lower"),
        ]
    return found


def few_surfels(bench: Bench) -> list[Metric]:
    """Retrieval from a memory of many views but 100,000 surfels."""
    world, ours = WORLDS["rooms"](bench.few), Ours(FEW_SURFELS)
    cameras = world.walk(bench.few)
    remember(world, cameras, ours)
    questions = ask(world, cameras, bench.targets, K)
    case, rules = f"100k surfels, {bench.few} views", {"ours": ours}
    count = Metric(f"{case}/ours/surfels", len(ours.memory.surfels), "", "lower", 1.02)
    return [count, *quality(case, rules, questions), *retrieval(bench, case, rules, questions)]


def loops(bench: Bench) -> list[Metric]:
    """Surfels after each lap around the street; laps differ by how the walker sways."""
    world, ours = replace(WORLDS["street"](0), lap=bench.lap), Ours()
    cameras, found, before = world.walk(bench.laps * bench.lap), [], 0
    for lap in range(bench.laps):
        remember(world, cameras[lap * bench.lap : (lap + 1) * bench.lap], ours)
        count = len(ours.memory.surfels)
        key = f"loops of {bench.lap} views/lap {lap + 1}"
        found.append(Metric(f"{key}/surfels", count, "", "lower", 1.02))
        if before:
            found.append(Metric(f"{key}/growth", count / before, "", "lower", TOLERANCE["growth"]))
        before = count
    return found


def again(bench: Bench) -> list[Metric]:
    """A view that is written twice: the share of its surfels that were not new the second time."""
    found = []
    for name in bench.worlds:
        world, ours = WORLDS[name](0), Ours()
        cameras = world.walk(5)
        remember(world, cameras, ours)
        mapped, shares = len(ours.memory.surfels), []
        for camera in cameras:
            alone = Ours()
            remember(world, [camera], ours, alone)
            new, mapped = len(ours.memory.surfels) - mapped, len(ours.memory.surfels)
            shares.append(1.0 - new / len(alone.memory.surfels))
        for measure, value in (("merged", statistics.mean(shares)), ("least", min(shares))):
            key = f"written again/{name}/{measure}"
            found.append(Metric(key, value, "", "higher", TOLERANCE.get(measure)))
    return found


def target_of(metric: Metric) -> float | None:
    """What a number should reach, where that was said."""
    case, name, measure, *_ = metric.key.split("/")
    if measure == "merged" or (measure == "growth" and case == f"loops of {LAP} views"):
        return SHOULD[measure]
    if name != "ours":
        return None
    if measure in ("coverage", "lead") or (
        measure == "precision" and case.endswith("behind walls")
    ):
        return SHOULD[measure]
    if measure == "best":
        return next((limit for what, limit in LIMITS.items() if what in case), None)
    return None


def main(options: Options) -> int:
    """Measure and print, then compare and keep. Returns the exit code."""
    if unknown := set(options.worlds) - WORLDS.keys():
        raise SceneError(
            f"there is no world {', '.join(sorted(unknown))}",
            why=f"the worlds are {', '.join(WORLDS)}",
            fix="name one of these, or leave --worlds out",
        )
    bench = replace(QUICK if options.quick else Bench(), worlds=options.worlds, absent={})
    if options.picture is not None:
        options.picture.mkdir(parents=True, exist_ok=True)
        bench = replace(bench, pictures=options.picture)
    if options.long:
        bench = replace(bench, views=(*bench.views, 5000))
    return metrics.conduct(
        all_cases(bench), options, BASELINE, bench.repeats, bench.absent, target_of
    )


if __name__ == "__main__":
    metrics.start(main, Options)
