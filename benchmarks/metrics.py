"""Numbers of benchmarks: how they are taken, kept, compared with a baseline, and printed.

A computer that is slower, or busy with something else, must not fail a gate. So what is compared
is measured in turn, A B A B, and gates look at ratios: to a peer that did the same work in the
same run, and to a CALIBRATION, an amount of work that never changes.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NoReturn

import numba
import torch
import tyro

from renderers import SceneError

FORMAT = 1
"""Version of the files that results are kept in."""
CALIBRATION = "calibration"
"""Name of the peer that does scenes.calibration."""
TOLERANCE_TIME = 1.35
"""Frames may take this much longer than in the baseline, both in units of a peer's."""
TOLERANCE_MEMORY = 1.5
"""Other numbers of threads need other amounts of memory."""
LEAST_ROUNDS = 3
"""Rounds of a race that is out of time."""

Direction = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    """One number."""

    key: str
    """``case/contestant/measure``, or ``case/contestant/measure/peer`` for a ratio."""
    value: float
    unit: str
    direction: Direction
    """Which way is better."""
    tolerance: float | None = None
    """The gate lets it be worse than the baseline by this factor, 1 or more; None: by any."""

    def reaches(self, limit: float, tolerance: float = 1.0) -> bool:
        """Whether it is as good as ``limit``, or worse by no more than a factor."""
        if self.direction == "lower":
            return self.value <= limit * tolerance
        return self.value >= limit / tolerance


@dataclass(frozen=True)
class Run:
    """All numbers of one run of a benchmark, and where they come from."""

    mode: str
    """Runs of the same mode measure the same things, for example "quick" or "full"."""
    metrics: tuple[Metric, ...] = ()
    absent: Mapping[str, str] = field(default_factory=dict)
    """What could not be measured here: a part of its keys, and why."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Commit, machine, threads, load: see :func:`surroundings`."""


def surroundings(repeats: int) -> dict[str, Any]:
    """Where and when a run takes place."""
    return {
        "commit": _git("rev-parse", "--short=12", "HEAD") or "unknown",
        "changed_since_commit": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("numba", "numpy", "torch")},
        "threads": numba.get_num_threads(),
        "repeats": repeats,
        "load_before": load(),
    }


def load() -> float | None:
    """Programs that wanted to run, averaged over the last minute, where the system tells."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _threading() -> str:
    """Which library starts numba's threads: they differ much on a busy machine."""
    try:
        return numba.threading_layer()  # pyright: ignore[reportPrivateImportUsage]
    except ValueError:
        return "none started"


def _git(*arguments: str) -> str:
    """Output of git about this tree; empty where there is no git, or no repository."""
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


@dataclass(frozen=True)
class Options:
    """What every benchmark can be asked for."""

    quick: bool = False
    """Measure less, in less time."""
    gate: bool = False
    """Compare with the baseline, and exit with 1 where something has become worse."""
    save_baseline: bool = False
    """Make this run the baseline of its mode, unless it fails the gate."""
    json: Path | None = None
    """Also write the numbers to this file."""

    @property
    def mode(self) -> str:
        """Under which runs are kept."""
        return "quick" if self.quick else "full"


def start(main: Callable[[Any], int], options: type[Options]) -> NoReturn:
    """Run ``main`` with the options of the command line and exit with what it returns."""
    try:
        sys.exit(main(tyro.cli(options, description=options.__doc__)))
    except SceneError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def conduct(
    cases: Iterable[Sequence[Metric]],
    options: Options,
    baseline: Path,
    repeats: int,
    absent: Mapping[str, str],
    target_of: Callable[[Metric], float | None],
) -> int:
    """Print cases as they are measured, then compare with the baseline, and keep.

    ``absent`` is read when all cases are done. Returns the exit code: 1 where the gate fails.
    """
    mode = options.mode
    kept = load_runs(baseline) if options.gate else {}  # fail before the work, not after
    about, found = surroundings(repeats), []
    print(*(f"{name}: {value}" for name, value in about.items()), sep="\n")
    for case in cases:
        print("\n" + "\n".join(lines(case, target_of)), flush=True)
        found += case
    about |= {"load_after": load(), "threading": _threading()}
    missing = dict(absent)
    if peak_memory(lambda: None) is None:
        missing["peak"] = "this system does not tell how much memory was in use at most"
    run = Run(mode, tuple(found), missing, about)
    print(*(f"\nnot measured: {what}\n  {why}" for what, why in missing.items()), sep="\n")
    print(f"\nthreading: {about['threading']}\nload_after: {about['load_after']}")
    if options.json:
        save(options.json, run)
    worse = failures(run, kept.get(mode, Run(mode))) if options.gate else []
    if options.gate:
        print(*(f"worse: {line}" for line in worse), sep="\n")
        print("gate: failed" if worse else "gate: passed")
    if options.save_baseline and not worse:
        save(baseline, run)
    return 1 if worse else 0


def save(path: Path, run: Run) -> None:
    """Write ``run`` beside the runs of other modes in ``path``."""
    runs = {mode: asdict(kept) for mode, kept in load_runs(path).items()} if path.exists() else {}
    runs[run.mode] = asdict(run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"format": FORMAT, "runs": runs}, indent=1) + "\n")


def load_runs(path: Path) -> dict[str, Run]:
    """The runs in ``path``, by mode.

    Raises:
        SceneError: The file is not there, or not one of results of this format.
    """
    fix = "make one with --save-baseline"
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, not {FORMAT}")
        return {
            mode: Run(**{**run, "metrics": tuple(Metric(**metric) for metric in run["metrics"])})
            for mode, run in content["runs"].items()
        }
    except FileNotFoundError as error:
        raise SceneError(f"there are no results {path}", why=str(error), fix=fix) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{path} does not hold results of benchmarks"
        raise SceneError(what, why=f"{type(error).__name__}: {error}", fix=fix) from error


def failures(run: Run, baseline: Run) -> list[str]:
    """What is worse in ``run`` than ``baseline`` allows, one line each; empty when all is well.

    A number that the run lacks is a failure, unless the run says why a part of its key is absent.

    Raises:
        SceneError: The baseline has no number to compare with.
    """
    gated = [metric for metric in baseline.metrics if metric.tolerance is not None]
    found = {metric.key: metric for metric in run.metrics}
    if not any(metric.key in found for metric in gated):
        raise SceneError(
            f"the baseline and this {run.mode} run have no number in common",
            why=f"the baseline holds {len(gated)} numbers that can be compared",
            fix="make a new baseline with --save-baseline",
        )
    lines = []
    for old in gated:
        new = found.get(old.key)
        if new is None:
            if not any(part in run.absent for part in old.key.split("/")):
                lines.append(f"{old.key}: not measured, {old.value:.4g} {old.unit} in the baseline")
        elif not new.reaches(old.value, old.tolerance or 1.0):
            lines.append(
                f"{old.key}: {new.value:.4g} {new.unit}, {old.value:.4g} in the baseline, "
                f"which may get worse by a factor of {old.tolerance:g}"
            )
    return lines


@dataclass(frozen=True)
class Timing:
    """What one frame took, in milliseconds."""

    wall: float
    cpu: float
    """Time of all threads together."""


@dataclass(frozen=True)
class Contestant:
    """Something whose time is taken again and again."""

    run: Callable[[Any], Any]
    """Does the work, given what ``prepare`` made. May return a Timing, where it has taken the
    time itself."""
    prepare: Callable[[], Any] = lambda: None
    """Makes what a run needs. Takes no time."""
    cold: Callable[[], Any] | None = None
    """Does the work with nothing kept from earlier, to see how much memory it takes."""
    here: bool = True
    """Whether this process does all the work, on threads that can be held to one."""


def measure(
    case: str, contestants: Mapping[str, Contestant], repeats: int, budget_s: float
) -> list[Metric]:
    """Best and median time, CPU time and memory of all, and ratios of the first to each other one.

    ``per`` is a ratio of wall times with all threads: what a user sees, on a quiet machine.
    ``serial`` is one of CPU times with one thread: the only number that stays the same, within a
    few percent, while other programs run, because no thread waits for another. It is for gates.
    """
    times = race(contestants, repeats, budget_s)
    serial = {name: contestant for name, contestant in contestants.items() if contestant.here}
    with one_thread():
        serial_times = race(serial, repeats, budget_s)
    found, (first, *peers) = [], contestants
    for name, contestant in contestants.items():
        key, taken = f"{case}/{name}", times[name]
        found += [
            Metric(f"{key}/best", min(t.wall for t in taken), "ms", "lower"),
            Metric(f"{key}/median", statistics.median(t.wall for t in taken), "ms", "lower"),
            Metric(f"{key}/cpu", statistics.median(t.cpu for t in taken), "ms", "lower"),
        ]
        if contestant.cold and (peak := peak_memory(contestant.cold)) is not None:
            found.append(Metric(f"{key}/peak", peak, "MB", "lower", TOLERANCE_MEMORY))
        for peer in peers if name == first else []:
            value = _ratio((t.wall for t in taken), (t.wall for t in times[peer]))
            found.append(Metric(f"{key}/per/{peer}", value, "", "lower"))
            if first in serial and peer in serial:
                ours, theirs = serial_times[first], serial_times[peer]
                value = _ratio((t.cpu for t in ours), (t.cpu for t in theirs))
                found.append(Metric(f"{key}/serial/{peer}", value, "", "lower", TOLERANCE_TIME))
    return found


def race(
    contestants: Mapping[str, Contestant], repeats: int, budget_s: float
) -> dict[str, list[Timing]]:
    """Times of all contestants, who take turns, after one turn that does not count.

    Args:
        contestants: By name.
        repeats: Rounds.
        budget_s: After LEAST_ROUNDS no further round starts later than this.
    """
    times: dict[str, list[Timing]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        _timed(contestant)
    start = time.perf_counter()
    for done in range(repeats):
        if done >= LEAST_ROUNDS and time.perf_counter() - start > budget_s:
            break
        for name, contestant in contestants.items():
            times[name].append(_timed(contestant))
    return times


def _timed(contestant: Contestant) -> Timing:
    prepared = contestant.prepare()
    wall, cpu = time.perf_counter(), time.process_time()
    result = contestant.run(prepared)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result if isinstance(result, Timing) else Timing(1e3 * wall, 1e3 * cpu)


def _ratio(ours: Iterable[float], theirs: Iterable[float]) -> float:
    """How many times theirs ours are, by the median over rounds."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


@contextmanager
def one_thread() -> Iterator[None]:
    """Numba and torch work on the calling thread alone."""
    before = numba.get_num_threads(), torch.get_num_threads()
    try:
        numba.set_num_threads(1)
        torch.set_num_threads(1)
        yield
    finally:
        numba.set_num_threads(before[0])
        torch.set_num_threads(before[1])


def peak_memory(work: Callable[[], Any]) -> float | None:
    """Memory that ``work`` takes at its height beyond what is in use, MB; None if nobody tells.

    Linux alone can tell, by forgetting the height it kept so far.
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # what was freed is no longer in use
        Path("/proc/self/clear_refs").write_text("5")
        before = status_kb("VmRSS")
    except (OSError, AttributeError, TypeError):
        return None
    kept = work()
    peak = status_kb("VmHWM")
    del kept
    return (peak - before) / 1e3


def status_kb(name: str) -> int:
    """What Linux says of this process, in kB. OSError elsewhere."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name + ":"))


def lines(metrics: Sequence[Metric], target_of: Callable[[Metric], float | None]) -> Iterator[str]:
    """A paragraph per case, a line per contestant. What misses its target is marked."""
    for case, own in groupby(metrics, key=lambda metric: metric.key.split("/")[0]):
        yield case
        rows = [(n, [*row]) for n, row in groupby(own, key=lambda metric: metric.key.split("/")[1])]
        width = max(13, *(len(name) + 2 for name, _ in rows))
        for name, row in rows:
            cells = [_cell(metric, target_of(metric)) for metric in row]
            yield f"  {name:<{width}}{'  '.join(cells)}".rstrip()


def _cell(metric: Metric, target: float | None) -> str:
    _, _, *measure = metric.key.split("/")
    text = " ".join([*measure, f"{metric.value:.3g}", *([metric.unit] if metric.unit else [])])
    if target is not None:
        sign = "<=" if metric.direction == "lower" else ">="
        text += f" ({sign} {target:g}{'' if metric.reaches(target) else ', MISSED'})"
    return f"{text:<16}"
