"""Training of the outpainter: the whole recipe in small, what is learnt from, and in pieces."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from renderers import SceneError
from scenegen.models.weights import read_card
from scenegen.outpaint.network import Layout, OutpaintNetwork
from scenegen.outpaint.weights import load_outpaint_network
from scenegen.training import OutpaintRecipe, train_outpaint
from scenegen.training.__main__ import main
from scenegen.training.boxes import BoxWorld
from scenegen.training.groups import box_again, shoot_group
from scenegen.training.holes import random_known
from scenegen.training.outpaint_fitting import hole_loss, paint
from scenegen.training.photographs import SHIPPED, find_photographs, random_crop
from scenegen.training.progress import Deadline
from scenegen.training.samples import (
    HoleSample,
    group_size,
    misplaced,
    place_sample,
    read_sample,
    spoiled,
    write_sample,
)

SMALL = OutpaintRecipe(
    smoke=True, photo_samples=3, place_samples=9, samples=12, batch=2, device="cpu"
)


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine on which nothing was pulled."""
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path / "no-models"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures to train on, and one that ships."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "more/b", SHIPPED[0]):
        noise = rng.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((200, 160)).save(folder / f"{name}.jpg")
    return folder


@pytest.mark.usefixtures("no_models")
def test_smoke_runs_the_whole_recipe_and_says_what_it_lacks(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    call = ["outpaint", "--smoke", "--device", "cpu", "--photos", str(photos), "--out", str(out)]
    small = ["--photo-samples", "4", "--place-samples", "9", "--samples", "8"]
    assert main([*call, *small]) == 0
    said = capsys.readouterr().out
    assert "boxes drawn in software, no rooms or tracks" in said
    assert "a tiny untrained network, because the weights of MI-GAN" in said
    assert "L1 alone, because its weights are missing" in said
    for step in ("draw 4/4", "draw 9/9", "fit 8/8", "evaluate 3/3", "export 1/1"):
        assert step in said
    network = load_outpaint_network(out / "outpaint.safetensors")
    card = read_card(out / "outpaint.safetensors")
    assert card["started_from"] == "random weights" and "worth nothing" in card["warning"]
    assert card["measured_by"] == "mean absolute difference" and card["pictures_seen"] == 8
    by_kind = {entry["kind"]: entry for entry in card["data"]}
    assert by_kind["photo"]["sources"] == ["a.jpg, held out", "b.jpg, trained on"]
    assert set(card["mean_distance_in_held_out_samples"]) == {"0.0", "0.5", "1.0"}
    with torch.no_grad():
        rgb, known = torch.rand(1, 3, 128, 128), torch.ones(1, 1, 128, 128)
        assert torch.isfinite(network(rgb, known)).all()
    assert main([*call, *small]) == 2
    assert "holds a training already" in capsys.readouterr().err
    assert main([*call, *small, "--resume", "--seed", "1"]) == 2
    assert "of another recipe" in capsys.readouterr().err


@pytest.mark.usefixtures("no_models")
def test_a_training_in_pieces_is_the_same_training(
    monkeypatch: pytest.MonkeyPatch, photos: Path, tmp_path: Path
) -> None:
    """Cut every 5 times that somebody asks whether the time is over."""
    whole, pieces, recipe = tmp_path / "whole", tmp_path / "pieces", replace(SMALL, photos=photos)
    list(train_outpaint(recipe, whole))
    runs, asked = 0, itertools.count(1)

    def passed(deadline: Deadline) -> bool:
        if next(asked) % 5 == 0:
            deadline.end = 0.0
        return deadline.end == 0.0

    monkeypatch.setattr(Deadline, "passed", passed)
    while not (pieces / "outpaint.safetensors").exists():
        last = list(train_outpaint(recipe, pieces, resume=runs > 0))[-1]
        runs += 1
        assert runs < 12
        assert last.step == "export" or "go on with --resume" in last.text
    assert runs > 2
    same = [(f / "outpaint.safetensors").read_bytes() for f in (whole, pieces)]
    assert same[0] == same[1]


@pytest.mark.usefixtures("no_models")
def test_what_is_missing_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="not all samples are"):
        list(train_outpaint(replace(SMALL, photos=photos), tmp_path / "a", "fit"))
    with pytest.raises(SceneError, match="run the steps `fit` and `evaluate` first"):
        list(train_outpaint(SMALL, tmp_path / "b", "export"))
    with pytest.raises(SceneError, match="scenegen models pull migan"):
        list(train_outpaint(OutpaintRecipe(device="cpu"), tmp_path / "c", "draw"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SceneError, match="no photographs to train on"):
        find_photographs(tmp_path / "empty")
    (tmp_path / "empty" / "x.jpg").write_bytes(b"not a picture")
    with pytest.raises(SceneError, match=r"cannot train on .*x\.jpg"):
        random_crop(tmp_path / "empty" / "x.jpg", np.random.default_rng(0), 64)


def test_what_ships_is_not_trained_on(photos: Path) -> None:
    assert [path.stem for path in find_photographs(photos)] == ["a", "b"]
    crop = random_crop(find_photographs(photos)[0], np.random.default_rng(0), 128)
    assert crop.shape == (128, 128, 3) and 0 <= crop.min() and crop.max() <= 1


def test_holes_leave_enough_and_hide_something() -> None:
    shares = []
    for seed in range(60):
        known = random_known(np.random.default_rng(seed), 128)
        assert known.shape == (128, 128)
        shares.append(float(known.float().mean()))
    assert min(shares) > 0.4 and max(shares) < 1.0
    assert np.std(shares) > 0.05


def test_a_place_is_remembered_as_far_as_its_past_views_go() -> None:
    """The past views show most of the hidden side, and it is close to what is right."""
    size = group_size(128)
    rng = np.random.default_rng(3)
    world = BoxWorld(rng, (round(size * 3 / 4), size))
    group = shoot_group(world, box_again(world), rng, size)
    assert group is not None
    sample = place_sample(group, None, rng, 128)
    assert sample.truth.shape == sample.picture.shape == (3, 128, 128)
    assert sample.side is not None and sample.side.shape == (8, 128, 128)
    error = (sample.picture - sample.truth).abs().mean(0)
    assert 0.4 < float(sample.known.float().mean()) < 1.0
    assert float(error[sample.known].mean()) < 0.05
    past = group.pasts[0]
    off = spoiled(past, rng)
    assert not torch.equal(off.rgb, past.rgb) and not torch.equal(off.depth, past.depth)
    same = misplaced(past, group, group)
    torch.testing.assert_close(
        same.camera.cam_from_world, past.camera.cam_from_world, rtol=0, atol=1e-5
    )


def test_a_sample_comes_back_as_it_was_written(tmp_path: Path) -> None:
    planes = torch.arange(3 * 16 * 16).reshape(3, 16, 16) % 256 / 255
    known = torch.eye(16, dtype=torch.bool)
    kept = HoleSample(planes, planes * known, known, None, torch.full((8, 16, 16), 0.5))
    write_sample(tmp_path / "place-0.safetensors", kept, True, "room-1")
    back = read_sample(tmp_path / "place-0.safetensors")
    torch.testing.assert_close(back.truth, kept.truth)
    torch.testing.assert_close(back.picture, kept.picture)
    assert torch.equal(back.known, known) and back.answer is None
    assert back.side is not None and torch.equal(back.side, torch.full((8, 16, 16), 0.5))
    (tmp_path / "place-0.safetensors").write_bytes(b"broken")
    with pytest.raises(SceneError, match="run the step `draw` again"):
        read_sample(tmp_path / "place-0.safetensors")


def test_the_loss_sees_the_hole_alone_and_rolling_starts_further_in() -> None:
    """L1 counts a quarter of the mean error in the hole; known pixels are never painted."""
    torch.manual_seed(0)
    network = OutpaintNetwork(Layout(width=16))
    known = torch.ones(128, 128, dtype=torch.bool)
    known[:, 64:] = False
    picture = torch.rand(3, 128, 128) * known
    painted = paint(network, picture[None], known[None, None], None)
    assert torch.equal(painted[0][:, known], picture[:, known])
    truth = painted[0].detach() + 0.2 * ~known
    sample = HoleSample(truth, picture, known, None, None)
    total, parts = hole_loss(network, [sample], None, "cpu")
    assert parts == {"l1": pytest.approx(0.05, rel=1e-4)}
    total.backward()
    assert network.synthesis["512"].torgb.weight.grad is not None
    _, rolled = hole_loss(network, [sample], None, "cpu", rolls=True)
    assert rolled["l1"] != parts["l1"]
