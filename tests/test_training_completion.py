"""Training of depth completion: the whole recipe in small, its samples and its loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from renderers import Camera, SceneError
from scenegen.geometry.completion import (
    CompletionLayout,
    CompletionNetwork,
    PartialView,
    corrected,
    load_completion_network,
    seen_planes,
    trusted,
)
from scenegen.training import CompletionRecipe, completion_samples, train_completion
from scenegen.training.cards import read_quality
from scenegen.training.completion_fitting import correction_loss, small_correction, varied
from scenegen.training.completion_samples import (
    as_estimated,
    known_side,
    random_hole,
    read_samples,
    sample_files,
)
from scenegen.training.progress import Deadline
from scenegen.world.align import Fit

SMOKE = CompletionRecipe(smoke=True, device="cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a smoke run."""
    folder = tmp_path_factory.mktemp("completion")
    said = [str(progress) for progress in train_completion(SMOKE, folder)]
    assert "smoke" in said[0] and said[-1].startswith("export 1/1")
    return folder


def test_the_whole_recipe_runs_and_leaves_a_network_that_loads(trained: Path) -> None:
    network = load_completion_network(trained / "completion.safetensors")
    assert network.last.weight.abs().max() > 0
    card = json.loads((trained / "completion.json").read_text())
    assert card["warning"] and card["completes"]["backend"] == "dpt"
    row = card["mean_error_in_held_out_samples"]["boxes"]
    assert row["before"] > 0 and row["after"] > 0 and row["spread"] > 0
    assert card["samples_seen"] == 48
    assert [entry["kind"] for entry in card["data"]] == ["boxes"]


def test_held_out_samples_are_never_trained_on(trained: Path) -> None:
    sides = [sample_files(trained / "samples", held_out) for held_out in (False, True)]
    names = [{p.name for paths in files.values() for p in paths} for files in sides]
    assert names[0] and names[1] and not names[0] & names[1]


def test_a_training_in_pieces_gives_the_same_bytes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("frames", "samples"):
        (tmp_path / name).symlink_to(trained / name)
    runs = 0

    def passed(deadline: Deadline) -> bool:
        deadline.end -= 1  # so many checks, then it is time to stop
        return deadline.end < 0

    monkeypatch.setattr(Deadline, "__init__", lambda self, minutes: setattr(self, "end", 5.0))
    monkeypatch.setattr(Deadline, "minutes", 1.0, raising=False)
    monkeypatch.setattr(Deadline, "passed", passed)
    while not (tmp_path / "completion.safetensors").exists():
        list(train_completion(SMOKE, tmp_path, resume=runs > 0))
        runs += 1
        assert runs < 12
    assert runs > 2
    same = [(f / "completion.safetensors").read_bytes() for f in (trained, tmp_path)]
    assert same[0] == same[1]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="there are no training frames"):
        list(train_completion(SMOKE, tmp_path / "a", "samples"))
    with pytest.raises(SceneError, match="run the steps `fit` and `evaluate` first"):
        list(train_completion(SMOKE, tmp_path / "b", "export"))
    (tmp_path / "x.safetensors").write_bytes(b"broken")
    with pytest.raises(SceneError, match="run the step `samples` again"):
        read_samples([tmp_path / "x.safetensors"])


def view_at_its_size() -> PartialView:
    """A view as large as the network's look at it, so that nothing is averaged."""
    torch.manual_seed(1)
    depth = 1 + torch.rand(144, 192)
    hole = torch.arange(192).expand(144, 192) >= 100
    return PartialView(
        rgb=torch.rand(144, 192, 3),
        hole=hole,
        known=torch.where(hole, math.nan, depth),
        fitted=depth + 0.3 * torch.rand(144, 192),
        membrane=depth - 0.2,
        continued=depth + 0.1,
        inward=hole * torch.rand(144, 192),
        sky=hole & False,
        camera=Camera.from_fov(60.0, 192, 144),
    )


def scattered() -> CompletionNetwork:
    torch.manual_seed(2)
    network = CompletionNetwork(CompletionLayout((8, 16))).eval()
    torch.nn.init.normal_(network.last.weight, 0, 0.3)
    return network


def test_training_corrects_as_a_world_does() -> None:
    view, network = view_at_its_size(), scattered()
    with torch.no_grad():
        change, log_spread = small_correction(network, seen_planes(view)[None])
    found = corrected(network, view)
    torch.testing.assert_close(
        trusted(change[0], log_spread[0].exp()),
        found.log_depth - view.continued,
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(log_spread[0].exp(), found.spread, rtol=1e-4, atol=1e-5)


def test_the_loss_counts_the_hole_alone_and_falls_to_what_spread_leaves() -> None:
    network = CompletionNetwork(CompletionLayout((8, 16)))
    planes = seen_planes(view_at_its_size())[None]
    wanted = torch.full((1, 144, 192), math.nan)
    wanted[:, :, 120:] = 0.4
    total, parts = correction_loss(network, planes, wanted)
    # untrained: off by 0.4 everywhere, no slope, and a spread of 1 costs 0.1 (0.4 / 1 + log 1)
    assert parts["error"] == parts["before"] == pytest.approx(0.4)
    assert parts["slopes"] == 0.0 and parts["spread"] == pytest.approx(0.04)
    total.backward()
    assert network.last.bias is not None and network.last.bias.grad is not None
    assert torch.isfinite(network.last.bias.grad).all() and network.last.bias.grad.abs().max() > 0
    nothing, _ = correction_loss(network, planes, torch.full((1, 144, 192), math.nan))
    assert float(nothing.detach()) == 0.0


def test_other_pictures_keep_their_depth() -> None:
    planes, wanted = torch.rand(2, 12, 4, 6), torch.rand(2, 4, 6)
    kept = set()
    for seed in range(8):
        other, same = varied(planes, wanted, np.random.default_rng(seed))
        mirrored = same.equal(wanted.flip(2))
        assert mirrored or same.equal(wanted)
        assert other[:, 3:].equal(planes[:, 3:].flip(3) if mirrored else planes[:, 3:])
        assert not other[:, :3].equal(planes[:, :3])
        kept.add(mirrored)
    assert kept == {True, False}


def test_holes_fit_the_picture_and_leave_something() -> None:
    depth = 1 + torch.rand(40, 60)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        known = random_hole(depth, rng)
        assert known.shape == (40, 60) and 0.2 < known.float().mean() < 1.0
        columns = known_side(60, rng)
        assert 0.5 * 60 < len(range(60)[columns]) < 0.9 * 60
        assert columns.start == 0 or columns.stop == 60


def test_what_is_wrong_at_the_rim_goes_on_in_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known side is told 10 % too far, which no scale and shift of its own can mend."""
    truth = torch.full((40, 60), 2.0)
    truth[:20] = 4.0
    said = truth.clone()
    said[:20] = 4.4
    answer, as_it_is = SimpleNamespace(depth=said[:, :30]), Fit(1.0, 0.0, None, 0.0, 1)
    monkeypatch.setattr(completion_samples, "estimate", lambda *_: answer)
    monkeypatch.setattr(completion_samples, "fit_depth", lambda *_: as_it_is)
    camera = Camera.from_fov(60.0, 60, 40)
    depth, right = as_estimated(torch.rand(40, 60, 3), truth, camera, slice(0, 30))
    torch.testing.assert_close(depth[:, :30], said[:, :30])
    assert depth[:, 30:].equal(truth[:, 30:])
    wrong = right - truth.log()
    assert float(wrong[0, 32]) == pytest.approx(math.log(1.1), abs=0.02)
    assert float(wrong[39, 32]) == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize("left", [None, "{", "{}"])
def test_an_export_before_anything_was_measured_says_what_to_run(
    tmp_path: Path, left: str | None
) -> None:
    if left is not None:
        (tmp_path / "quality.json").write_text(left)
    with pytest.raises(SceneError, match="run the steps `fit` and `evaluate` first"):
        read_quality(tmp_path, "fit")
    (tmp_path / "quality.json").write_text('{"room": {"before": 0.2}}')
    assert read_quality(tmp_path, "fit") == {"room": {"before": 0.2}}
