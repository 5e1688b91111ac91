"""The benchmarks: what a gate lets through, how times are taken, the scenes, and a tiny run."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numba
import numpy as np
import pytest
import torch

from benchmarks import metrics, render, scenes
from benchmarks.metrics import Contestant, Metric, Options, Run, Timing
from renderers import SceneError, Splats
from renderers.reference import rotation_matrices


def lower(key: str, value: float, tolerance: float | None = 1.5) -> Metric:
    return Metric(key, value, "ms", "lower", tolerance)


def higher(key: str, value: float, tolerance: float | None = 1.1) -> Metric:
    return Metric(key, value, "dB", "higher", tolerance)


def test_a_number_may_be_worse_by_its_tolerance_alone() -> None:
    """10 * 1.5 and 110 / 1.1 are the last that pass."""
    assert lower("a", 15.0).reaches(10.0, 1.5) and not lower("a", 15.1).reaches(10.0, 1.5)
    assert higher("a", 100.0).reaches(110.0, 1.1) and not higher("a", 99.9).reaches(110.0, 1.1)
    assert lower("a", 0.1).reaches(10.0) and higher("a", 500.0).reaches(110.0)
    assert not lower("a", math.nan).reaches(10.0) and not higher("a", math.nan).reaches(110.0)


def test_the_gate_names_what_became_worse() -> None:
    old = Run("full", (lower("a/cpu/x", 10), higher("b/cpu/y", 110), lower("c/cpu/z", 1, None)))
    same = (lower("a/cpu/x", 14.9, 1.0), higher("b/cpu/y", 101), lower("c/cpu/z", 900, None))
    assert metrics.failures(Run("full", same), old) == []
    worse = (lower("a/cpu/x", 15.5), higher("b/cpu/y", 90), lower("c/cpu/z", 900, None))
    assert metrics.failures(Run("full", worse), old) == [
        "a/cpu/x: 15.5 ms, 10 in the baseline, which may get worse by a factor of 1.5",
        "b/cpu/y: 90 dB, 110 in the baseline, which may get worse by a factor of 1.1",
    ]


def test_a_number_that_is_gone_fails_unless_the_run_says_why() -> None:
    new = Run("full", (lower("a/cpu/x", 10),))
    old = replace(new, metrics=(*new.metrics, lower("a/cpu/serial/peer", 2)))
    gone = "a/cpu/serial/peer: not measured, 2 ms in the baseline"
    assert metrics.failures(new, old) == [gone]
    assert metrics.failures(replace(new, absent={"peer": "not installed"}), old) == []
    assert len(metrics.failures(replace(new, absent={"pee": "not a whole part"}), old)) == 1


def test_a_gate_with_nothing_to_compare_is_an_error() -> None:
    old = Run("quick", (lower("b/x", 1), lower("a/x", 1, None)))
    with pytest.raises(SceneError) as caught:
        metrics.failures(Run("quick", (lower("a/x", 1),)), old)
    assert str(caught.value) == (
        "the baseline and this quick run have no number in common\n"
        "  why: the baseline holds 1 numbers that can be compared\n"
        "  fix: make a new baseline with --save-baseline"
    )


def test_a_baseline_keeps_every_mode_and_every_number(tmp_path: Path) -> None:
    path = tmp_path / "new" / "render.json"
    quick = Run("quick", (lower("a/cpu/x", 1 / 3),), {"peer": "why"}, {"threads": 2})
    full = Run("full", (higher("b/cpu/y", 131.25, None),))
    metrics.save(path, quick)
    metrics.save(path, full)
    assert metrics.load_runs(path) == {"quick": quick, "full": full}
    metrics.save(path, replace(quick, metrics=()))
    assert metrics.load_runs(path) == {"quick": replace(quick, metrics=()), "full": full}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("not json", "JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ('{"runs": {}}', "KeyError: 'format'"),
        ('{"format": 99, "runs": {}}', "ValueError: its format is 99, not 1"),
    ],
)
def test_a_file_that_is_no_baseline(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "render.json"
    path.write_text(content)
    with pytest.raises(SceneError) as caught:
        metrics.load_runs(path)
    what = f"{path} does not hold results of benchmarks"
    assert str(caught.value) == f"{what}\n  why: {why}\n  fix: make one with --save-baseline"


def test_the_committed_baseline_can_be_compared_with() -> None:
    for mode, run in metrics.load_runs(render.BASELINE).items():
        assert run.mode == mode
        assert {"commit", "machine", "threads", "repeats"} <= run.about.keys()
        gated = [metric for metric in run.metrics if metric.tolerance is not None]
        assert len(gated) > 20 and len({m.key for m in run.metrics}) == len(run.metrics)
        assert all(math.isfinite(m.value) and (m.tolerance or 1.0) >= 1.0 for m in run.metrics)
        assert metrics.failures(run, run) == []


def fixed(log: list[str], name: str, walls: list[float], *, here: bool = True) -> Contestant:
    """Claims to take these times, in turn, and half of them in CPU time."""
    turns = iter(walls * 2)  # measure races twice

    def run(_: Any) -> Timing:
        log.append(f"{name}{numba.get_num_threads()}")
        wall = next(turns)
        return Timing(wall, wall / 2)

    return Contestant(run, here=here)


def test_contestants_take_turns_and_the_first_turn_does_not_count() -> None:
    log: list[str] = []
    times = metrics.race({"a": fixed(log, "a", [9, 1, 2]), "b": fixed(log, "b", [9, 3, 4])}, 2, 9.0)
    assert [entry[0] for entry in log] == ["a", "b"] * 3
    assert [t.wall for t in times["a"]] == [1, 2] and [t.wall for t in times["b"]] == [3, 4]
    late = metrics.race({"a": fixed([], "a", [1.0] * 99)}, repeats=50, budget_s=-1.0)
    assert len(late["a"]) == metrics.LEAST_ROUNDS


def test_metrics_of_a_race_by_hand() -> None:
    """Ratios are medians of the rounds' own: 6/2, 8/4 and 30/5, not 8/4 of the medians."""
    log: list[str] = []
    contestants = {
        "cpu": fixed(log, "a", [99, 6, 8, 30]),
        "peer": fixed(log, "b", [99, 2, 4, 5]),
        "far": fixed(log, "c", [99, 1, 1, 1], here=False),
    }
    found = metrics.measure("case", contestants, repeats=3, budget_s=9.0)
    got = {metric.key: metric.value for metric in found}
    ours = {"best": 6, "median": 8, "cpu": 4, "per/peer": 3, "serial/peer": 3, "per/far": 8}
    assert got == {
        **{f"case/cpu/{name}": value for name, value in ours.items()},
        **{"case/peer/best": 2, "case/peer/median": 4, "case/peer/cpu": 2},
        **{"case/far/best": 1, "case/far/median": 1, "case/far/cpu": 0.5},
    }
    assert {m.key for m in found if m.tolerance is not None} == {"case/cpu/serial/peer"}
    assert log == [f"{n}{numba.get_num_threads()}" for n in "abc"] * 4 + ["a1", "b1"] * 4


def test_preparing_takes_no_time_and_feeds_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [0.0], []

    def prepare() -> int:
        now[0] += 100.0
        return len(given)

    def run(made: int) -> None:
        now[0] += 2.0
        given.append(made)

    clock = Mock(perf_counter=lambda: now[0], process_time=lambda: now[0] / 4)
    monkeypatch.setattr(metrics, "time", clock)
    times = metrics.race({"a": Contestant(run, prepare)}, 2, 1e9)
    assert given == [0, 1, 2]
    assert times == {"a": [Timing(2000.0, 500.0)] * 2}


def test_one_thread_ends_with_its_block() -> None:
    before = numba.get_num_threads(), torch.get_num_threads()
    with pytest.raises(KeyError), metrics.one_thread():
        assert (numba.get_num_threads(), torch.get_num_threads()) == (1, 1)
        raise KeyError
    assert (numba.get_num_threads(), torch.get_num_threads()) == before


@pytest.mark.skipif(metrics.peak_memory(lambda: None) is None, reason="only Linux tells")
def test_peak_memory_is_what_was_in_use_at_most() -> None:
    peak = metrics.peak_memory(lambda: np.ones(80_000_000, np.uint8).sum())
    assert peak is not None and 75 < peak < 95
    assert (metrics.peak_memory(lambda: None) or 0.0) < 5


def test_lines_mark_what_misses_its_target() -> None:
    ratio = Metric("case/cpu/per/peer", 0.5, "", "lower")
    found = [lower("case/cpu/best", 12.345), ratio, higher("accuracy/cpu/picture", 131.0)]
    targets = {"case/cpu/best": 10.0, "accuracy/cpu/picture": 100.0}
    assert list(metrics.lines(found, lambda metric: targets.get(metric.key))) == [
        "case",
        "  cpu          best 12.3 ms (<= 10, MISSED)  per peer 0.5",
        "accuracy",
        "  cpu          picture 131 dB (>= 100)",
    ]


def conduct(baseline: Path, value: float, **asked: Any) -> int:
    cases, options = [[lower("a/cpu/x", value)]], Options(quick=True, **asked)
    return metrics.conduct(cases, options, baseline, 1, {}, target_of=lambda _: None)


def test_a_run_is_kept_compared_and_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline, out = tmp_path / "baseline.json", tmp_path / "out.json"
    with pytest.raises(SceneError, match=r"there are no results (?s:.*)with --save-base"):
        conduct(baseline, 10.0, gate=True)
    assert conduct(baseline, 10.0, save_baseline=True) == 0
    assert conduct(baseline, 14.0, gate=True, json=out) == 0
    assert "gate: passed" in capsys.readouterr().out
    assert conduct(baseline, 16.0, gate=True, save_baseline=True) == 1
    assert "worse: a/cpu/x: 16 ms, 10 in the baseline" in capsys.readouterr().out
    assert metrics.load_runs(baseline)["quick"].metrics[0].value == 10.0
    kept = metrics.load_runs(out)["quick"]
    assert kept.metrics[0].value == 14.0 and kept.about["threads"] == numba.get_num_threads()
    assert kept.about["commit"] and kept.about["machine"]


def test_errors_of_users_are_three_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["render.py", "--quick", "--prototype", str(tmp_path)])
    with pytest.raises(SystemExit) as caught:
        metrics.start(render.main, render.Options)
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} holds no rasteriser\n"
        "  why: it lacks nbsplat, nbback, surfel\n"
        "  fix: give a folder with nbsplat.py, nbback.py and surfel.py\n"
    )


def same(a: Splats, b: Splats) -> bool:
    names = ("means", "quats", "scales", "opacities", "colors")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


MAKERS = {
    "rgbd": lambda seed: scenes.rgbd_like(2000, (40, 30), seed),
    "trained": lambda seed: scenes.trained_like(2000, (40, 30), seed),
    "distinct": lambda seed: scenes.distinct(2000, 64, 48, seed),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_scenes_are_the_same_for_the_same_seed(kind: str) -> None:
    make, scene = MAKERS[kind], MAKERS[kind](0)
    assert len(scene) == 2000 and scene.drawable.all()
    assert same(scene, make(0)) and not same(scene, make(1))
    one, two = (scenes.with_harmonics(scene, 3).sh for _ in range(2))
    assert one is not None and two is not None and torch.equal(one, two)


def test_the_novel_view_by_hand() -> None:
    """It looks along (sin 0.25 cos 0.03, -sin 0.03, cos 0.25 cos 0.03) from (0.3, -0.1, 0.25)."""
    camera = scenes.novel_view(640, 480)
    torch.testing.assert_close(camera.center, torch.tensor([0.3, -0.1, 0.25]))
    torch.testing.assert_close(
        camera.world_from_cam[:3, 2], torch.tensor([0.247293, -0.029996, 0.968476])
    )
    assert camera.fov_degrees == pytest.approx(70.0)


def test_lifted_splats_lie_on_surfaces_and_face_along_normals() -> None:
    scene = scenes.rgbd_like(3000, (50, 40))
    points, normals, radii = scenes.surfels_of(scene)
    beyond = points.abs() - torch.from_numpy(scenes.HALF_ROOM).float()
    walls = beyond.abs().amin(1) < 1e-5
    assert beyond.max() < 1e-5 and 0.5 < walls.double().mean() < 1.0  # the others: on spheres
    axis = beyond[walls].argmax(1)
    inwards = -points[walls].gather(1, axis[:, None]).sign()
    torch.testing.assert_close(normals[walls].gather(1, axis[:, None]), inwards)
    torch.testing.assert_close(normals, rotation_matrices(scene.quats)[:, :, 2])
    assert radii.min() > 0 and (scene.scales[:, 0] / scene.scales[:, 2]).min() > 9.9


def test_the_sphere_is_hit_where_geometry_says() -> None:
    """A ball of radius 1 at z = 2.5, from 0.5 behind the middle: 2 m ahead, and then the wall."""
    eye, rays = np.array([0, 0, -0.5]), np.array([[0.0, 0, 1], [2.0, 0, 1]])
    depths, normals = scenes._cast(eye, rays, np.array([[0, 0, 2.5, 1.0]]))
    np.testing.assert_allclose(depths, [2.0, 1.5])
    np.testing.assert_allclose(normals, [[0, 0, -1], [-1, 0, 0]], atol=1e-12)


def test_trained_splats_have_sizes_and_opacities_of_trained_ones() -> None:
    scene = scenes.trained_like(20_000, (160, 125))
    sizes = scene.scales[:, :2].log()
    assert sizes.mean().item() == pytest.approx(math.log(0.009), abs=0.03)
    assert sizes.std().item() == pytest.approx(math.hypot(0.75, 0.5), abs=0.03)
    faint, solid = (scene.opacities < 0.4).double(), (scene.opacities > 0.8).double()
    assert 0.5 < faint.mean() < 0.65 and solid.mean() > 0.2


def test_no_two_splats_of_the_distinct_scene_tie() -> None:
    means = scenes.distinct(500, 64, 48).means
    pixels, depths = scenes.novel_view(64, 48).project(means)
    assert depths.diff().min() > 0.9 * 4.0 / 499
    assert (pixels > -0.01).all() and (pixels < torch.tensor([64.01, 48.01])).all()


TINY = render.Bench(shrink=0.05, repeats=1, budget_s=0.0)


def fake(**answer: Any) -> Callable[..., Any]:
    """In place of scenes.Mitsuba; see Mock for what it answers."""
    return lambda *_: nullcontext(Mock(draw=Mock(**answer)))


CASES = (
    *("frame rgbd 750 32x24", "frame rgbd 750 64x36", "frame rgbd 2500 64x36"),
    *("frame trained 2500 64x36", "append 2500 64x36", "rays 750 32x24"),
    *("harmonics 750 32x24", "details 750 32x24", "antialiased 750 32x24"),
    *("surfels 2500 13x13", "surfels 2500 26x26", "fit rgbd 500 26x26", "fit trained 500 26x26"),
)


def test_every_case_of_a_tiny_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "Mitsuba", fake(return_value=Timing(1000.0, 2000.0)))
    with metrics.one_thread():  # threads that wait for each other take long on a busy machine
        found = {metric.key: metric for case in render.all_cases(TINY) for metric in case}
    assert {key.split("/")[0] for key in found} == {*CASES, "accuracy"}
    assert all(math.isfinite(metric.value) for metric in found.values())
    for case in CASES:
        assert found[f"{case}/cpu/best"].value <= found[f"{case}/cpu/median"].value
        assert found[f"{case}/cpu/serial/calibration"].tolerance == metrics.TOLERANCE_TIME
    assert found["append 2500 64x36/cpu/serial/anew"].value > 0
    assert found["rays 750 32x24/mitsuba/median"].value == 1000.0 and TINY.absent == {}


def test_the_accuracy_of_our_renderer() -> None:
    found = {metric.key: metric.value for metric in render.accuracy(TINY, "cpu")}
    for name in ("distinct", "rgbd", "trained"):
        assert found[f"accuracy/cpu/{name}"] > 100.0  # dB
    assert found["accuracy/cpu/gradients"] < 1e-5
    assert found.get("accuracy/cpu/same bits on 1 thread", 1.0) == 1.0


def test_a_peer_that_cannot_draw_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    error = SceneError("it cannot", why="it is broken", fix="mend it")
    monkeypatch.setattr(scenes, "Mitsuba", fake(side_effect=error))
    bench = replace(TINY, absent={})
    keys = {metric.key for metric in render.rays(bench)}
    assert "rays 750 32x24/cpu/best" in keys and not any("mitsuba" in key for key in keys)
    assert bench.absent == {"mitsuba": "it cannot\n  why: it is broken\n  fix: mend it"}


def _dies(*_: object) -> None:
    os._exit(3)


def test_a_mitsuba_that_dies_does_not_take_us_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "_serve_mitsuba", _dies)
    with scenes.Mitsuba(scenes.distinct(5, 8, 6), scenes.novel_view(8, 6)) as mitsuba:
        with pytest.raises(SceneError) as caught:
            mitsuba.draw()
    assert str(caught.value) == (
        "Mitsuba cannot draw here\n"
        "  why: its process ended with code 3\n"
        "  fix: pip install mitsuba; DRJIT_LIBLLVM_PATH can name an LLVM that it works with"
    )


def test_a_prototype_is_given_what_ours_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes into the folder it is started in, as the real one does; not into ours."""
    folder, here = tmp_path / "prototype", tmp_path / "here"
    folder.mkdir()
    here.mkdir()
    (folder / "nbsplat.py").write_text(
        "open('leftover', 'w').close()\n"
        "class Renderer:\n"
        "    def __init__(self, *made): self.made = made\n"
        "    def render(self, *view): Renderer.seen = self.made, view\n"
    )
    for name in ("nbback.py", "surfel.py"):
        (folder / name).touch()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(here)
    for name in ("nbsplat", "nbback", "surfel"):  # gone again after the test
        monkeypatch.setitem(sys.modules, name, sys)
        del sys.modules[name]
    scene, camera = scenes.distinct(5, 8, 6), scenes.novel_view(8, 6)
    render.Prototype(folder).frame(scene, camera).run(None)
    (arrays, threads), (pose, lens, width, height) = sys.modules["nbsplat"].Renderer.seen
    assert (threads, width, height) == (numba.get_num_threads(), 8, 6)
    np.testing.assert_array_equal(arrays["scales"], scene.scales.numpy())
    np.testing.assert_array_equal(pose, camera.cam_from_world.numpy())
    np.testing.assert_array_equal(lens, camera.px_from_cam.numpy())
    assert list(here.iterdir()) == []


def test_targets() -> None:
    assert render.target_of(lower("frame rgbd 300k 640x480/cpu/best", 1)) == 19.0
    assert render.target_of(lower("frame rgbd 75k 320x240/cpu/best", 1)) is None
    assert render.target_of(lower("x/cpu/per/prototype", 1)) == 0.9
    assert render.target_of(lower("x/cpu/serial/mitsuba", 1)) == 1.0
    assert render.target_of(lower("x/cpu/serial/calibration", 1)) is None
    assert render.target_of(higher("accuracy/cpu/trained", 1)) == 100.0
