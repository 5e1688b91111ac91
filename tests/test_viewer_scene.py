"""What the viewer sends to the browser: sizes, colours, thinning, one node per chunk."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from viewer_parts import CAMERA, dots, nodes, onlooker, world

from renderers import SceneError, Splats
from viewer import ViewerApp, scene
from viewer.levels import room_of
from viewer.stage import Chunk


@pytest.fixture
def app() -> Iterator[ViewerApp]:
    with ViewerApp(port=0) as made:
        onlooker(made)
        yield made


# What is sent -------------------------------------------------------------------------------


def test_covariances_by_hand() -> None:
    """Variances 1, 4, 9 as they are; turned a quarter and an eighth about z."""
    half, eighth = math.sqrt(0.5), math.radians(45) / 2
    quats = torch.tensor(
        [[2.0, 0, 0, 0], [half, 0, 0, half], [math.cos(eighth), 0, 0, math.sin(eighth)]]
    )
    got = scene.covariances(quats, torch.tensor([[1.0, 2.0, 3.0]]).repeat(3, 1))
    wanted = [
        [[1.0, 0, 0], [0, 4, 0], [0, 0, 9]],
        [[4.0, 0, 0], [0, 1, 0], [0, 0, 9]],
        [[2.5, -1.5, 0], [-1.5, 2.5, 0], [0, 0, 9]],
    ]
    torch.testing.assert_close(got, torch.tensor(wanted), rtol=0, atol=1e-5)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: max(map(abs, q)) > 0.1))
def test_covariance_has_the_scales_as_axes(quat: list[float]) -> None:
    scales = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64)
    got = scene.covariances(torch.tensor([quat], dtype=torch.float64), scales)
    axes = torch.linalg.eigvalsh(got[0])
    torch.testing.assert_close(axes, scales[0] ** 2, rtol=0, atol=1e-9)


def test_floor_by_hand() -> None:
    """opacity (sigma^2 + 0.3)^2 = 1/4: 0.2 px^2 for 1 (below 0.7 px), 0.7 px^2 for 0.25."""
    got = scene.floor_px(torch.tensor([1.0, 0.25, 0.0]))
    torch.testing.assert_close(got, torch.tensor([0.7, math.sqrt(0.7), 1.5]))


@given(opacity=st.floats(0.04, 1.0))
def test_browser_draws_what_has_the_floor(opacity: float) -> None:
    sigma = float(scene.floor_px(torch.tensor([opacity])))
    assert opacity * (sigma**2 + 0.3) ** 2 >= 0.25 - 1e-6


def test_small_splats_grow_to_the_floor_and_large_ones_stay() -> None:
    """5 m away, a pixel of 1/500 is 10 mm: the floor is 7 mm on every axis."""
    splats = dots(1, depth=5.0)
    splats = Splats(
        torch.tensor([[3.0, 0.0, 4.0]]), splats.quats, torch.tensor([[0.001, 0.02, 0.006]]),
        torch.tensor([1.0]), splats.colors,
    )  # fmt: skip
    got = scene.sized(splats, scene.footprints(splats, torch.zeros(3), 1 / 500))
    torch.testing.assert_close(got.scales, torch.tensor([[0.007, 0.02, 0.007]]))
    nearer = scene.sized(splats, scene.footprints(splats, torch.tensor([3.0, 0, 3]), 1 / 500))
    torch.testing.assert_close(nearer.scales, torch.tensor([[0.0014, 0.02, 0.006]]))


def test_covariances_survive_float16() -> None:
    """Half floats lose sigma below 0.24 mm and above 256 m: neither zero nor infinity is sent."""
    tiny, huge = dots(1, depth=0.01, sigma=1e-6), dots(1, depth=100.0, sigma=1e4)
    for splats in (tiny, huge):
        footprint = scene.footprints(splats, torch.zeros(3), 1e-3)
        sent = scene.cloud(scene.sized(splats, footprint)).covariances
        diagonal = np.diagonal(sent[0].astype(np.float16))
        assert np.isfinite(diagonal).all()
        assert (diagonal > 0).all()


def test_cloud_rounds_to_levels() -> None:
    got = scene.cloud(dots(2))
    assert got.rgbs.tolist() == [[128, 128, 128]] * 2  # 127.5, to even
    assert got.opacities.tolist() == [[230], [230]]  # 229.5, to even
    assert got.centers.dtype == np.float32


@given(count=st.integers(1, 3000), share=st.floats(0.01, 1.0))
def test_thinning_is_even_nested_and_keeps_the_area(count: int, share: float) -> None:
    kept = max(1, int(count * share))
    rows = scene.kept_rows(count, kept)
    assert len(set(rows.tolist())) == kept
    assert (rows.diff() > 0).all()
    assert set(scene.kept_rows(count, max(1, kept // 2)).tolist()) <= set(rows.tolist())
    gaps = np.diff([-1, *rows.tolist(), count])
    assert gaps.max() <= 3.0 * count / kept + 1  # three-gap theorem: at most about 2.6 x the mean
    splats = dots(count)
    got = scene.thinned(splats, kept / count, torch.full((count,), 0.02))
    assert len(got) == pytest.approx(kept, abs=1)
    blur = 0.3 * 0.02**2  # the browser adds it to each splat
    area = (splats.scales[:, 0] ** 2 + blur).sum()
    torch.testing.assert_close((got.scales[:, 0] ** 2 + blur).sum(), area, rtol=1e-3, atol=0)


def test_thinning_covers_the_picture_once_however_fine_the_world_is() -> None:
    """100 splats of 2 px on a grid of one per pixel: 4 + 0.3 px^2, of which COVER says 0.5. A
    quarter of them have 4 px each: 0.5 * 4 - 0.3 = 1.7 px^2, but none shrinks."""
    fine = replace(dots(100), scales=torch.full((100, 3), 2.0))
    pixel = torch.ones(100)
    got = scene.thinned(fine, 0.25, pixel, room=1.0)
    torch.testing.assert_close(got.scales, torch.full((25, 3), 2.0))
    small = replace(fine, scales=torch.full((100, 3), 0.7))
    got = scene.thinned(small, 0.25, pixel, room=1.0)
    torch.testing.assert_close(got.scales**2, torch.full((25, 3), 1.7))
    got = scene.thinned(small, 0.25, pixel, room=5.0)  # so sparse, all of the area counts
    torch.testing.assert_close(got.scales**2, torch.full((25, 3), 0.79 * 4 - 0.3))


def test_room_of_a_splat_by_hand() -> None:
    """A view of 64 x 48 pixels, each 1 / f wide at a distance of 1, seen in pixels half as wide."""
    chunk = Chunk("a", dots(12), torch.zeros(3), dots(12), CAMERA, "observed")
    pixel = 0.5 / float(CAMERA.px_from_cam[0, 0])
    assert room_of(chunk, pixel) == pytest.approx(4 * 64 * 48 / 12)


@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "colors"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_bad_splats_are_left_out(
    app: ViewerApp, caplog: pytest.LogCaptureFixture, field: str, value: float
) -> None:
    splats = dots(5)
    getattr(splats, field)[2] = value
    app.add_chunk("step 0", splats)
    sent = nodes(app)["/world/step 0"]
    assert sent.buffer.shape[0] == 4
    np.testing.assert_allclose(sent.centers[:, 0], [-0.5, -0.25, 0.25, 0.5])
    assert "1 of 5 splats" in caplog.text


def test_far_and_unturned_splats_are_left_out() -> None:
    splats = dots(3)
    splats.means[0, 2] = 2000.0
    splats.quats[1] = 0.0
    assert scene.drawable(splats).tolist() == [False, False, True]


def test_chunk_of_only_bad_splats_is_an_error(app: ViewerApp) -> None:
    splats = dots(3)
    splats.means[:] = math.nan
    with pytest.raises(SceneError, match="nothing of step 0 can be drawn"):
        app.add_chunk("step 0", splats)


# One node per chunk -------------------------------------------------------------------------


def test_every_chunk_is_a_node(app: ViewerApp) -> None:
    app.show_world(world(5, 0, 7))
    sizes = {name: node.buffer.shape[0] for name, node in nodes(app).items()}
    assert sizes == {"/world/step 0": 5, "/world/step 2": 7}
    assert "12 splats in 3 steps" in app.panel.title.content
    assert "a\\_street" in app.panel.title.content
    with pytest.raises(SceneError, match="step 2"):
        app.add_chunk("step 2", dots(1))
    app.show_world(world(3))
    assert {name: node.buffer.shape[0] for name, node in nodes(app).items()} == {"/world/step 0": 3}


def test_sent_splats_are_those_of_the_world(app: ViewerApp) -> None:
    app.set_home("", CAMERA)
    splats = dots(3, sigma=0.1)
    app.add_chunk("step 0", splats)
    (node,) = nodes(app).values()
    np.testing.assert_array_equal(node.centers, splats.means.numpy())
    wanted = np.broadcast_to(0.01 * np.eye(3), (3, 3, 3))
    np.testing.assert_allclose(node.covariances, wanted, rtol=1e-3)
    assert torch.equal(splats.scales, torch.full((3, 3), 0.1))


def test_adding_does_not_touch_older_nodes(app: ViewerApp) -> None:
    app.add_chunk("step 0", dots(5))
    first = nodes(app)["/world/step 0"]
    app.add_chunk("step 1", dots(5))
    assert nodes(app)["/world/step 0"] is first


def test_a_large_world_is_thinned_once_and_evenly() -> None:
    with ViewerApp(port=0, budget=100) as app:
        onlooker(app)
        app.show_world(world(300, 100))
        sizes = {name: node.buffer.shape[0] for name, node in nodes(app).items()}
        assert sizes == {"/world/step 0": 75, "/world/step 1": 25}
        assert "400 splats in 2 steps" in app.panel.title.content


def test_a_growing_world_stays_within_the_budget() -> None:
    with ViewerApp(port=0, budget=100) as app:
        onlooker(app)
        shown = []
        for k in range(8):
            app.add_chunk(f"step {k}", dots(40))
            shown.append(sum(node.buffer.shape[0] for node in nodes(app).values()))
        assert shown[:2] == [40, 80]
        assert max(shown) <= 100
        assert min(shown[2:]) >= 40
        sizes = [node.buffer.shape[0] for node in nodes(app).values()]
        assert max(sizes) - min(sizes) <= 1


def test_empty_budget_is_an_error_and_leaves_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    start = Mock()
    monkeypatch.setattr("viewer.app.start_server", start)
    with pytest.raises(SceneError, match="a budget of 0 splats"):
        ViewerApp(port=0, budget=0)
    assert not start.called
