"""Depth completion: its laws, what the network sees, and an install that lost it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from renderers import Camera, SceneError
from scenegen import models
from scenegen.geometry import Geometry
from scenegen.geometry.completion import (
    CompletionLayout,
    CompletionNetwork,
    PartialView,
    corrected,
    correction_terms,
    level_ground,
    load_completion_network,
    middle_of,
    pack_completion_network,
    seen_planes,
    trusted,
)
from scenegen.world import completing
from scenegen.world.align import continuation, fit_depth, metres
from scenegen.world.completing import completion_network, known_continued, partial_view

TINY = CompletionLayout((8, 16))
CAMERA = Camera.from_fov(70.0, 80, 60)


def scattered(seed: int = 0) -> CompletionNetwork:
    """A network that says something."""
    torch.manual_seed(seed)
    network = CompletionNetwork(TINY).eval()
    torch.nn.init.normal_(network.last.weight, 0, 0.3)
    return network


def wall(scale: float = 1.0) -> tuple[Geometry, Tensor, Tensor]:
    """An estimate that is off, known depth, and a hole at the right."""
    torch.manual_seed(3)
    truth = scale * torch.exp(torch.linspace(0.3, 1.4, 80)).expand(60, 80)
    said = scale * (truth / scale + 0.4 * torch.rand(60, 80))
    hole = torch.arange(80).expand(60, 80) >= 50
    normals = torch.tensor([0.0, 0.0, -1.0]).expand(60, 80, 3)
    estimate = Geometry(
        said, normals, hole & False, CAMERA.px_from_cam, torch.ones(60, 80), "made for a test"
    )
    return estimate, torch.where(hole, math.nan, truth), hole


def view_of(scale: float = 1.0) -> PartialView:
    estimate, known, hole = wall(scale)
    rgb = torch.rand(60, 80, 3, generator=torch.Generator().manual_seed(5))
    fit = fit_depth(estimate.depth, known, ~hole)
    return partial_view(rgb, estimate.depth, estimate.sky, known, hole, CAMERA, fit)


def test_an_untrained_network_changes_nothing() -> None:
    view = view_of()
    network = CompletionNetwork(CompletionLayout()).eval()
    assert corrected(network, view).log_depth.equal(view.continued)
    estimate, known, hole = wall()
    fit = fit_depth(estimate.depth, known, ~hole)
    today = metres(continuation(estimate.depth, known, hole, fit).log_depth)
    assert known_continued(network, view).equal(today)
    assert known_continued(None, view).equal(today)


def test_known_pixels_stay_and_the_seam_is_continuous() -> None:
    """A correction fades out towards the rim with the square of the distance."""
    view, network = view_of(), scattered()
    change = corrected(network, view).log_depth - view.continued
    assert change[~view.hole].abs().max() == 0.0
    assert change[view.hole].abs().max() > 0.05
    # the first column is a pixel away from what is known, of 3 % of 80
    assert float(view.inward[0, 50]) == pytest.approx((1 / (0.03 * 80)) ** 2)
    assert float(view.inward[0, 53]) == 1.0


def test_a_world_twice_as_large_is_completed_the_same_way() -> None:
    network = scattered()
    one, two = (corrected(network, view_of(scale)) for scale in (1.0, 2.0))
    moved = (two.log_depth - one.log_depth)[view_of().hole]
    torch.testing.assert_close(moved, torch.full_like(moved, math.log(2.0)), rtol=0, atol=2e-3)
    torch.testing.assert_close(two.spread, one.spread, rtol=1e-2, atol=1e-4)


def test_terms_by_hand() -> None:
    """Known 1 and e; estimate e2 everywhere, membrane e, continued 1: the middle is the lower."""
    logs = {
        "fitted": torch.full((2, 2), 2.0),
        "membrane": torch.full((2, 2), 1.0),
        "continued": torch.zeros(2, 2),
    }
    hole = torch.tensor([[False, True], [False, True]])
    view = PartialView(
        rgb=torch.zeros(2, 2, 3),
        hole=hole,
        known=torch.tensor([[0.0, math.nan], [1.0, math.nan]]),
        inward=hole.float(),
        sky=hole & False,
        camera=Camera.from_fov(90.0, 2, 2),
        **logs,
    )
    assert float(middle_of(view)) == 0.0
    terms = correction_terms(view)
    assert [float(term[0, 1]) for term in terms] == [2.0, 1.0, 2.0]
    nothing = replace(view, known=torch.full((2, 2), math.nan))
    assert float(middle_of(nothing)) == 2.0


def test_what_is_unsure_is_left_out_by_hand() -> None:
    """0.3 with a spread of 0.3 counts half, with 0.1 nine tenths; signs and zero stay."""
    change, spread = torch.tensor([0.3, 0.3, -0.3, 0.0]), torch.tensor([0.3, 0.1, 0.1, 0.2])
    torch.testing.assert_close(trusted(change, spread), torch.tensor([0.15, 0.27, -0.27, 0.0]))


def test_planes_are_means_over_what_they_belong_to() -> None:
    view = view_of()
    planes = seen_planes(view)
    assert planes.shape == (12, 144, 192)
    assert planes[3].mean() == pytest.approx(30 / 80, abs=0.01)
    known = (view.known - view.fitted)[~view.hole]
    inside = planes[5][:, :110]
    assert inside.mean() == pytest.approx(float(known.mean()), abs=0.01)
    tall = replace(view_of(), camera=CAMERA)
    assert torch.isfinite(seen_planes(tall)).all()


def test_level_ground_by_hand() -> None:
    """Half the height below the middle of a picture with 90 degrees, the ray falls 1 in 2."""
    camera = Camera.from_fov(90.0, 100, 100)
    ground = level_ground(camera)
    assert float(ground[75, 50]) == pytest.approx(-math.log(0.51), abs=1e-5)
    assert float(ground[10, 50]) == pytest.approx(-math.log(0.03))
    down = level_ground(camera.moved(pitch_degrees=-45.0))
    assert float(down[50, 50]) == pytest.approx(math.log(math.sqrt(2)), abs=0.02)


def test_any_shape_is_answered() -> None:
    network = scattered()
    for height, width in ((16, 16), (20, 300), (200, 33)):
        some = torch.rand(height, width)
        hole = torch.zeros(height, width, dtype=torch.bool)
        hole[:, width // 2 :] = True
        view = PartialView(
            rgb=torch.rand(height, width, 3),
            hole=hole,
            known=torch.where(hole, math.nan, some),
            fitted=some,
            membrane=some,
            continued=some,
            inward=hole.float(),
            sky=hole,
            camera=Camera.from_fov(60.0, width, height),
        )
        found = corrected(network, view)
        assert found.log_depth.shape == (height, width)
        assert torch.isfinite(found.log_depth).all() and (found.spread > 0).all()


def test_a_file_comes_back_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "completion.safetensors"
    data, card = pack_completion_network(scattered(), {"name": "tiny"})
    path.write_bytes(data)
    path.with_suffix(".json").write_text(card)
    back = load_completion_network(path)
    assert back.layout == TINY
    torch.testing.assert_close(
        back.last.weight, scattered().last.weight.half().float(), rtol=0, atol=0
    )
    path.write_bytes(data[:-1] + b"x")
    with pytest.raises(SceneError, match="sha256") as caught:
        load_completion_network(path)
    assert str(caught.value).count("\n") == 2


def test_only_estimates_that_it_was_trained_on_are_completed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert completion_network("prior") is None and completion_network("moge") is None
    monkeypatch.setattr(completing, "shipped_path", lambda name: tmp_path / f"{name}.safetensors")
    with pytest.raises(SceneError, match=r"cannot load the network .*completion") as caught:
        completion_network("dpt")
    assert str(caught.value).count("\n") == 2


def test_a_step_says_that_its_depth_was_completed() -> None:
    assert set(models.growth_weights("dpt", "patch")) == {"dpt", "completion", "patch"}
    assert models.growth_weights("prior", "patch") == {"prior": None, "patch": None}


def test_the_shipped_network_changes_the_hole_and_nothing_else() -> None:
    network = completion_network("dpt")
    assert network is not None and network.layout == CompletionLayout()
    view = view_of()
    change = known_continued(network, view) / known_continued(None, view)
    assert change[~view.hole].sub(1).abs().max() < 1e-6
    assert 1e-4 < change[view.hole].log().abs().max() < 0.5
