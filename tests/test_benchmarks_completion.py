"""Measures of completed depth against values worked out by hand, and a run on a made view."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from benchmarks import completion, completion_data
from benchmarks.completion import Case, Options
from benchmarks.completion_data import View
from benchmarks.completion_metrics import hole_errors, seam_steps
from benchmarks.metrics import Metric
from renderers import Camera
from scenegen.geometry import Geometry
from scenegen.training.holes import uncovered_by_step
from scenegen.world.align import fit_depth

NAN, INF = math.nan, math.inf


def test_errors_by_hand() -> None:
    """Logarithms off by 0, 0.1, 0.3; the sky and what is known do not count.

    Of 50 columns, 3 are near the rim: only the first of the hole's is beyond them.
    """
    truth = torch.ones(1, 50)
    truth[0, 49] = INF
    depth = torch.full((1, 50), 9.0)
    depth[0, 46:] = torch.exp(tensor([0.3, 0.1, 0.0, 5.0]))
    hole = torch.arange(50)[None] >= 46
    found = hole_errors(depth, truth, hole)
    assert found["median"] == pytest.approx(0.1, abs=1e-6)
    assert found["mean"] == pytest.approx(0.4 / 3, abs=1e-6)
    assert found["near"] == pytest.approx(0.4 / 3, abs=1e-6)
    assert found["delta1"] == pytest.approx(2 / 3)  # exp(0.3) > 1.25
    assert "far" not in found


def test_far_is_beyond_six_percent_of_the_longer_side() -> None:
    truth, hole = torch.ones(1, 50), torch.arange(50)[None] >= 40
    depth = torch.exp(torch.where(torch.arange(50) >= 43, 0.5, 0.2))[None]
    found = hole_errors(depth, truth, hole)
    assert found["near"] == pytest.approx(0.2, abs=1e-6)
    assert found["far"] == pytest.approx(0.5, abs=1e-6)


def test_a_hole_without_truth_tells_nothing() -> None:
    hole = torch.ones(4, 4, dtype=torch.bool)
    assert hole_errors(torch.ones(4, 4), torch.full((4, 4), NAN), hole) == {}


def test_steps_across_the_rim_by_hand() -> None:
    """A true step from 2 to 4 is none; one from 1 to exp(0.02) where the truth is flat is 0.02."""
    truth = tensor([[2.0, 4.0], [1.0, 1.0], [NAN, 1.0]])
    depth = tensor([[2.0, 4.0], [1.0, math.exp(0.02)], [1.0, 7.0]])
    hole = tensor([[False, True], [False, True], [False, True]])
    steps = seam_steps(depth, truth, hole)
    torch.testing.assert_close(steps.sort().values, tensor([0.0, 0.02]), rtol=0, atol=1e-6)


def test_what_a_step_aside_uncovers_by_hand() -> None:
    """Seen before things moved right by 2 pixels times nearness: behind a post at 1 m, a wall at
    infinity. The post hid the 2 columns to its right, and the last two columns of near things
    were outside."""
    depth = torch.full((1, 10), INF)
    depth[0, 3:5] = 1.0
    known = uncovered_by_step(depth, 0.2)
    # the post lies at columns 5 and 6 of the other view, with a crack's width at either side
    assert known[0].tolist() == [True] * 4 + [True] + [False] * 3 + [True] * 2
    assert uncovered_by_step(depth.flip(1), -0.2).flip(1).equal(known)


def test_near_things_come_from_beyond_the_edge() -> None:
    known = uncovered_by_step(torch.ones(3, 10), 0.2)
    assert known[:, :8].all() and not known[:, 8:].any()


def made_view() -> View:
    """A wall that recedes to the right, which any way of continuing should find."""
    camera = Camera.from_fov(60.0, 80, 60)
    truth = torch.exp(torch.linspace(0.5, 1.5, 80)).expand(60, 80).contiguous()
    return View("wall", "drawn rooms", torch.rand(60, 80, 3), truth, camera)


def test_an_estimate_that_is_right_is_followed() -> None:
    view = made_view()
    hole = torch.arange(80).expand(60, 80) >= 60
    normals, ones = torch.tensor([0.0, 0, -1]).expand(60, 80, 3), torch.ones(60, 80)
    right = Geometry(
        2 * view.truth, normals, hole & False, view.camera.px_from_cam, ones, "twice as far"
    )
    known = torch.where(hole, NAN, view.truth)
    case = Case(view, hole, known, right, fit_depth(right.depth, known, ~hole))
    for name, answer in completion.contestants(None, {}).items():
        depth, found = completion.measured(case, answer)
        assert depth[~hole].equal(view.truth[~hole])
        if name == "membrane":
            assert found["far"] > 0.1  # a rim alone tells nothing of what recedes
        else:
            assert found["far"] < 0.05 and found["seam"] < 0.02


def test_holes_are_those_of_growth() -> None:
    found = completion_data.holes(made_view(), number=1)
    assert set(found) == {"side", "below", "step"}
    assert found["side"][:, 60:].all() and not found["side"][:, :60].any()
    assert found["below"][45:].all() and not found["below"][:45].any()
    assert found["step"].any() and not found["step"].all()
    other = completion_data.holes(made_view(), number=0)
    assert other["side"][:, :20].all() and not other["side"][:, 20:].any()


def test_the_benchmark_runs_on_a_made_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completion, "views", lambda quick, absent: iter([made_view()]))
    cases = list(completion.all_cases(Options(), {}))
    assert [case[0].key.split("/")[0] for case in cases] == [
        f"drawn rooms, {kind}" for kind in ("side", "below", "step")
    ]
    for metric in (metric for case in cases for metric in case):
        assert isinstance(metric, Metric) and math.isfinite(metric.value)
        ways = "/continued/" in metric.key or "/completed/" in metric.key
        gated = ways and not metric.key.endswith("seconds")
        assert (metric.tolerance is not None) == gated
    seams = [m for case in cases for m in case if m.key.endswith("continued/seam")]
    assert [completion.target_of(seam) for seam in seams] == [0.01] * 3
