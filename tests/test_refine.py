"""Refinement, in a house whose views are known exactly: better views, old places, same bytes."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import numba
import numpy as np
import pytest
import torch
from rooms import photograph, stand
from splat_scenes import small_camera, splat

from renderers import Camera, Render, SceneError, Splats, join, make_renderer
from renderers.cpu.renderer import CpuRenderer
from scenegen import splatting
from scenegen.splatting.density import pruned_and_split
from scenegen.splatting.losses import photometric_loss, psnr
from scenegen.splatting.refining import (
    COLOR_RATE,
    LAST_RATE,
    MEAN_RATE,
    OPACITY_RATE,
    QUAT_RATE,
    REACH,
    SCALE_RATE,
    STRETCH,
    _State,
)
from spatial_memory import View
from spatial_memory.views import make_view

SKY = 30.0
"""Beyond every wall of the house."""
ROUNDS = 4
PHOTO = stand(-2.6, 0.6, 10.0, size=(48, 36))
CLOSE = PHOTO.moved(right=0.4, yaw_degrees=-4.0)
"""Sees what the crate hid from the photograph, and a strip beside it."""


def seen(camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    """Colours with more detail than one sample per pixel shows, and depth."""
    fine = camera.resized(4 * camera.width, 4 * camera.height)
    rgb = torch.from_numpy(photograph(fine)[0])
    depth = torch.from_numpy(photograph(camera)[1])
    points = fine.unproject(fine.pixel_centers(), torch.from_numpy(photograph(fine)[1]))
    stripes = 0.2 * torch.sign(torch.sin(14.0 * points.sum(-1, keepdim=True)))
    small = torch.nn.functional.avg_pool2d((rgb + stripes).permute(2, 0, 1)[None], 4)
    return small[0].permute(1, 2, 0).clamp(0, 1), depth


def house() -> tuple[Splats, list[View]]:
    """Splats of a photograph and of what a second view adds to it, and both views."""
    rgb, depth = seen(PHOTO)
    first = splatting.lift(rgb, depth, PHOTO)
    views = [make_view(rgb, depth, PHOTO, "observed")]
    rgb, depth = seen(CLOSE)
    hole = make_renderer("cpu").render(first, CLOSE).alpha < 0.7
    assert 0.02 < hole.float().mean() < 0.3
    views.append(make_view(rgb, depth, CLOSE, "generated", hole))
    return join([first, splatting.lift(rgb, depth, CLOSE, hole)]), views


def quality(splats: Splats, view: View) -> float:
    picture = make_renderer("cpu").render(splats, view.camera).rgb
    return psnr(picture, view.rgb, view.known.float())


def values(splats: Splats) -> list[bytes]:
    kept = (getattr(splats, field.name) for field in fields(splats))
    return [value.numpy().tobytes() for value in kept if value is not None]


@pytest.fixture(scope="module")
def world() -> tuple[Splats, list[View]]:
    return house()


@pytest.fixture(scope="module")
def refined(world: tuple[Splats, list[View]]) -> splatting.Refined:
    return splatting.refine(*world, make_renderer("cpu"), rounds=ROUNDS, sky_radius=SKY)


def test_all_views_gain_and_the_photograph_too(
    world: tuple[Splats, list[View]], refined: splatting.Refined
) -> None:
    splats, views = world
    before = [quality(splats, view) for view in views]
    after = [quality(refined.splats, view) for view in views]
    assert refined.before == pytest.approx(before, abs=1e-3)
    assert refined.after == pytest.approx(after, abs=1e-3)
    assert all(a > b + 1.0 for a, b in zip(after, before, strict=True))
    assert refined.iterations in (10, 20)  # 4 visits to the photograph and 1 to the other, 4 times
    assert str(refined).startswith(f"refined in {refined.iterations} steps: +")


def test_views_that_were_never_stored_gain_as_well(
    world: tuple[Splats, list[View]], refined: splatting.Refined
) -> None:
    for move in ({"right": 0.1, "yaw_degrees": 3.0}, {"right": 0.2, "forward": 0.3}):
        camera = PHOTO.moved(**move)
        truth = make_view(*seen(camera), camera, "observed")
        assert quality(refined.splats, truth) > quality(world[0], truth)


def assert_tips_stay(old: Splats, new: Splats) -> None:
    """No axis turns so far that its end goes beyond REACH sizes (a half angle for quaternions)."""
    scales = old.scales.sort(1).values
    turn = (torch.nn.functional.normalize(new.quats) - old.quats).norm(dim=1)
    limit = 0.5 * REACH * scales[:, 1] / scales[:, 2]
    assert (turn <= 1.001 * limit + 1e-5).all()


def test_long_splats_turn_little(
    world: tuple[Splats, list[View]], refined: splatting.Refined
) -> None:
    """The wall beside the photograph is seen at a grazing angle: its splats are long and thin."""
    assert_tips_stay(world[0], refined.splats)
    long = splat(1.0, 0.9, (1.0, 1.0, 1.0), scale=(0.4, 0.01, 0.01)).to(torch.float32)
    camera = small_camera()
    upright = make_renderer("cpu").render(replace(long, scales=long.scales[:, [1, 0, 2]]), camera)
    target = make_view(upright.rgb, torch.ones(9, 9), camera, "observed")
    tried = splatting.refine(long, [target], make_renderer("cpu"), rounds=12)
    assert tried.iterations > 0
    assert_tips_stay(long, tried.splats)


def test_geometry_stays_where_depth_put_it(
    world: tuple[Splats, list[View]], refined: splatting.Refined
) -> None:
    old, new = world[0], refined.splats
    size = old.scales.sort(1).values[:, 1]
    way = torch.linalg.norm(new.means - old.means, dim=1)
    assert (way <= 1.001 * REACH * size).all() and way.max() > 0.1 * size.max()
    stretch = new.scales / old.scales
    assert stretch.max() <= 1.001 * STRETCH and stretch.min() >= 0.999 / STRETCH
    assert new.opacities.min() > 0 and new.opacities.max() < 1
    assert new.colors.min() >= 0 and new.colors.max() <= 1
    assert new.drawable.all()


def test_the_sky_keeps_its_place(world: tuple[Splats, list[View]]) -> None:
    splats, views = world
    radius = float(splats.means.norm(dim=1).median())  # half of the house counts as sky
    result = splatting.refine(
        splats, views, make_renderer("cpu"), rounds=2, sky_radius=radius / 0.6
    )
    sky = splats.means.norm(dim=1) > radius * 1.0001
    assert torch.equal(result.splats.means[sky], splats.means[sky])
    assert not torch.equal(result.splats.colors[sky], splats.colors[sky])
    assert not torch.equal(result.splats.means[~sky], splats.means[~sky])


def test_pixels_that_a_view_did_not_bring_do_not_count(
    world: tuple[Splats, list[View]], refined: splatting.Refined
) -> None:
    splats, views = world
    noise = torch.rand(views[1].rgb.shape, generator=torch.Generator().manual_seed(0))
    known = views[1].known
    spoilt = replace(views[1], rgb=torch.where(known[..., None], views[1].rgb, noise))
    other = splatting.refine(
        splats, [views[0], spoilt], make_renderer("cpu"), rounds=ROUNDS, sky_radius=SKY
    )
    assert values(other.splats) == values(refined.splats)


def test_same_seed_same_bytes_with_any_number_of_threads(
    world: tuple[Splats, list[View]], refined: splatting.Refined
) -> None:
    most = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        again = splatting.refine(*world, make_renderer("cpu"), rounds=ROUNDS, sky_radius=SKY)
    finally:
        numba.set_num_threads(most)
    assert values(again.splats) == values(refined.splats)
    assert again.after == refined.after
    other = splatting.refine(*world, make_renderer("cpu"), seed=1, rounds=ROUNDS, sky_radius=SKY)
    assert values(other.splats) != values(refined.splats)


def test_steps_are_told_and_stopping_changes_nothing(world: tuple[Splats, list[View]]) -> None:
    splats, views = world
    old = values(splats)
    events = list(splatting.refine_events(splats, views, make_renderer("cpu"), rounds=2))
    steps = [event for event in events if isinstance(event, splatting.RefineProgress)]
    last = events[len(steps)]
    assert len(events) == len(steps) + 1
    assert [event.iteration for event in steps] == list(range(1, 11))
    assert {event.iterations for event in steps} == {10}
    assert sorted(event.view for event in steps) == [0] * 8 + [1] * 2
    assert all(event.loss > 0 for event in steps)
    assert str(steps[2]).startswith("refining: step 3 of 10")
    assert isinstance(last, splatting.Refined)
    stopped = splatting.refine_events(splats, views, make_renderer("cpu"))
    next(stopped)
    stopped.close()
    assert values(splats) == old


def test_a_photograph_never_gets_worse(world: tuple[Splats, list[View]]) -> None:
    """Three liars agree on other colours for what the photograph shows: they would win the mean."""
    splats, views = world
    lie = replace(views[0], rgb=1 - views[0].rgb, provenance="generated")
    result = splatting.refine(splats, [views[0], lie, lie, lie], make_renderer("cpu"), rounds=2)
    assert result.splats is splats
    assert result.iterations == 0 and result.after == result.before
    believed = [replace(views[0], provenance="generated"), lie, lie, lie]
    assert splatting.refine(splats, believed, make_renderer("cpu"), rounds=2).iterations > 0


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_one_step_by_hand(name: str) -> None:
    """The first step of Adam is the whole rate, towards the target: here brighter and denser."""
    scene = splat(1.0, 0.6, (0.5, 0.5, 0.5), scale=0.05).to(torch.float32)
    camera = small_camera()
    target = make_view(torch.ones(9, 9, 3), torch.ones(9, 9), camera, "generated")
    result = splatting.refine(scene, [target], make_renderer(name), rounds=1)
    assert result.iterations == 1
    expected = torch.full((1, 3), 0.5 + COLOR_RATE)
    torch.testing.assert_close(result.splats.colors, expected, rtol=0, atol=1e-5)
    logit = math.log(0.6 / 0.4) + OPACITY_RATE
    assert result.splats.opacities.item() == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
    assert result.after[0] > result.before[0]


def test_many_steps_are_those_of_torch() -> None:
    """Adam as torch has it, on displacements in sizes, quaternions, logarithms and logits."""
    scene = splat(1.0, 0.6, (0.5, 0.4, 0.3), at=(0.02, -0.03), scale=(0.05, 0.08, 0.02))
    scene = scene.to(torch.float32)
    renderer, camera = make_renderer("reference"), small_camera()
    picture = torch.rand(9, 9, 3, generator=torch.Generator().manual_seed(2))
    target = make_view(picture, torch.ones(9, 9), camera, "generated")
    rounds = 6
    free = [torch.zeros(1, 3), scene.quats, scene.scales.log(), scene.opacities.logit()]
    free = [value.double().requires_grad_() for value in (*free, scene.colors)]
    groups = [
        {"params": [value], "lr": rate}
        for value, rate in zip(
            free, (MEAN_RATE, QUAT_RATE, SCALE_RATE, OPACITY_RATE, COLOR_RATE), strict=True
        )
    ]
    adam = torch.optim.Adam(groups, eps=1e-20)
    decay = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda t: LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * t / rounds)) / 2
    )

    def moved() -> Splats:
        way, quats, logs, logits, colors = free
        return Splats(scene.means + 0.05 * way, quats, logs.exp(), logits.sigmoid(), colors)

    for _ in range(rounds):
        adam.zero_grad()
        photometric_loss(renderer.render(moved(), camera).rgb, target.rgb).backward()
        adam.step()
        decay.step()
        with torch.no_grad():
            free[1] /= free[1].norm()
    result = splatting.refine(scene, [target], renderer, rounds=rounds)
    assert result.iterations == rounds
    for field in ("means", "quats", "scales", "opacities", "colors"):
        expected = getattr(moved(), field).detach().float()
        torch.testing.assert_close(getattr(result.splats, field), expected, rtol=1e-4, atol=1e-5)


def test_far_too_small_a_splat_grows_to_its_limit_only() -> None:
    scene = splat(1.0, 0.9, (1.0, 1.0, 1.0), scale=0.05).to(torch.float32)
    target = make_view(torch.ones(9, 9, 3), torch.ones(9, 9), small_camera(), "observed")
    result = splatting.refine(scene, [target], make_renderer("cpu"), rounds=12)
    growth = result.splats.scales[0, :2] / 0.05
    torch.testing.assert_close(growth, torch.full((2,), STRETCH), rtol=1e-4, atol=0)


def test_rows_out_of_sight_or_undrawable_stay_as_they_are() -> None:
    scene = join(
        [
            splat(1.0, 0.6, (0.5, 0.5, 0.5), scale=0.05),
            splat(-1.0, 0.6, (0.5, 0.5, 0.5), scale=0.05),  # behind the camera
            splat(1.0, 0.6, (0.5, 0.5, 0.5), at=(9.0, 0.0)),  # far to the side
            splat(math.nan, 0.6, (0.5, 0.5, 0.5)),
            splat(1.0, 0.6, (0.5, 0.5, 0.5), quat=(0.0, 0.0, 0.0, 0.0)),
        ]
    ).to(torch.float32)
    target = make_view(torch.ones(9, 9, 3), torch.ones(9, 9), small_camera(), "observed")
    result = splatting.refine(scene, [target], make_renderer("cpu"), rounds=2)
    assert not torch.equal(result.splats.colors[0], scene.colors[0])
    assert values(result.splats[1:]) == values(scene[1:])
    hidden = splatting.refine(scene[1:], [target], make_renderer("cpu"), rounds=1)
    assert hidden.iterations == 0


def test_harmonics_dtype_and_row_order_are_kept() -> None:
    rng = torch.Generator().manual_seed(5)
    scene = splatting.lift(*seen(PHOTO), PHOTO)
    sh = 0.02 * torch.randn(len(scene), 3, 3, generator=rng)
    scene = replace(scene, sh=sh).to(torch.float64)
    view = make_view(*seen(PHOTO), PHOTO, "observed")
    result = splatting.refine(scene, [view], make_renderer("cpu"), rounds=3)
    assert result.iterations > 0 and result.after[0] > result.before[0]
    assert result.splats.sh is not None and torch.equal(result.splats.sh, sh.double())
    assert result.splats.means.dtype == torch.float64
    assert (result.splats.means - scene.means).norm(dim=1).max() < 0.2  # row by row the same


def test_a_target_is_cut_out_without_moving_it(world: tuple[Splats, list[View]]) -> None:
    """Only the box around known pixels is drawn: it must look as it does in the whole picture."""
    splats, views = world
    known = torch.zeros(36, 48, dtype=torch.bool)
    known[11:29, 20:37] = True
    known[20, 25] = False
    part = replace(views[0], known=known)
    result = splatting.refine(splats, [part], make_renderer("cpu"), rounds=1)
    assert result.before[0] == pytest.approx(quality(splats, part), abs=1e-3)


class Blank(CpuRenderer):
    """A renderer whose pictures do not depend on the splats."""

    def render(self, splats: Splats, camera: Camera, *args: Any, **kwargs: Any) -> Render:
        return super().render(Splats.empty(), camera)


def test_nothing_to_gain_gives_back_what_came(world: tuple[Splats, list[View]]) -> None:
    result = splatting.refine(*world, Blank(), rounds=1)
    assert result.splats is world[0] and result.before == result.after


@pytest.mark.parametrize("missing", ["splats", "views", "rounds"])
def test_refining_needs_something(world: tuple[Splats, list[View]], missing: str) -> None:
    splats, views = world
    with pytest.raises(SceneError, match=f"with 0 {missing}"):
        splatting.refine(
            Splats.empty() if missing == "splats" else splats,
            [] if missing == "views" else views,
            make_renderer("cpu"),
            rounds=0 if missing == "rounds" else 1,
        )


def test_the_house_has_edges_that_one_sample_misses() -> None:
    """The tests above mean something only where pixels mix colours."""
    rgb = seen(PHOTO)[0].numpy()
    assert np.abs(np.diff(rgb, axis=1)).mean() > 0.02


def test_splitting_by_hand() -> None:
    """A faded splat goes; the one pulled most splits along its longest axis, turned to y."""
    turn = math.sqrt(0.5)  # by 90 degrees about z: x becomes y
    row = [1.0, 2.0, 3.0, turn, 0.0, 0.0, turn, 0.4, 0.1, 0.2, 0.75, 0.1, 0.2, 0.3]
    table = np.array([row, row, row, row], np.float32)
    table[1, 10], table[2, :3] = 0.005, 0.0
    made, rows = pruned_and_split(table, np.array([1.0, 9.0, 5.0, 0.0], np.float32), 4)
    assert rows.tolist() == [0, 2, 2, 3]
    np.testing.assert_array_equal(made[[0, 3]], table[[0, 3]])
    np.testing.assert_allclose(made[1:3, :3], [[0, -0.2, 0], [0, 0.2, 0]], atol=1e-6)
    np.testing.assert_allclose(made[1:3, 10], 0.5)  # two of 0.5 hide as much as one of 0.75
    spread = made[1:3, 7] ** 2 + 0.2**2
    np.testing.assert_allclose(spread, 0.4**2, rtol=1e-6)
    np.testing.assert_array_equal(made[1:3, 11:], table[[2, 2], 11:])


@pytest.mark.parametrize("budget", [0, 3, 4, 100])
def test_a_budget_is_kept_and_what_is_not_pulled_stays_whole(budget: int) -> None:
    row = [0.0, 0, 1, 1, 0, 0, 0, 0.1, 0.1, 0.1, 0.9, 0.5, 0.5, 0.5]
    table = np.array([row] * 4, np.float32)
    made, rows = pruned_and_split(table, np.array([0.0, 2.0, 0.0, 1.0], np.float32), budget)
    assert len(made) == len(rows) == {0: 4, 3: 4, 4: 4, 100: 6}[budget]
    assert rows.tolist() == ([0, 1, 2, 3] if budget <= 4 else [0, 1, 1, 2, 3, 3])


def test_refinement_within_a_budget() -> None:
    """Splits where the stripes are, keeps the origin of every row, and still gains."""
    splats, views = house()
    budget = len(splats) + 200
    done = splatting.refine(splats, views, make_renderer("cpu"), rounds=4, budget=budget)
    assert len(splats) < len(done.splats) <= budget
    assert len(done.rows) == len(done.splats) and (done.rows.diff() >= 0).all()
    assert done.rows.unique().numel() == len(splats)
    assert sum(done.after) / 2 >= sum(done.before) / 2 + 1.0
    again = splatting.refine(splats, views, make_renderer("cpu"), rounds=4, budget=budget)
    assert values(again.splats) == values(done.splats)


def test_halves_are_held_to_their_own_place_and_size(world: tuple[Splats, list[View]]) -> None:
    state = _State(world[0], None)
    quats = state.anchors[:, 3:7].copy()
    state.pulls[7] = 1.0
    state.rearrange(len(world[0]) + 1)
    np.testing.assert_array_equal(state.rows[6:10], [6, 7, 7, 8])
    np.testing.assert_array_equal(state.anchors[:, :3], state.table[:, :3])
    np.testing.assert_array_equal(state.anchors[:, 3:7], quats[state.rows])
    np.testing.assert_array_equal(state.anchors[:, 7:10], state.table[:, 7:10])
    assert (state.anchors[7, :3] != state.anchors[8, :3]).any()


def test_splats_become_solid_where_they_shall_cover_what_is_behind() -> None:
    """A dark wall that half lets through what is behind: before black that hardly matters."""
    camera = small_camera()
    shape = camera.height, camera.width
    dark = torch.full((*shape, 3), 0.1)
    view = make_view(dark, torch.ones(shape), camera, "observed")
    wall = splatting.lift(dark, view.depth, camera)
    wall = replace(wall, opacities=torch.full_like(wall.opacities, 0.5))
    renderer, alphas = make_renderer("cpu"), []
    for solid in (False, True):
        refined = splatting.refine(wall, [view], renderer, rounds=6, solid=solid)
        assert refined.iterations > 0
        alphas.append(float(renderer.render(refined.splats, camera).alpha.mean()))
    assert alphas[1] > alphas[0] + 0.02
