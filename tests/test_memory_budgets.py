"""What the memory does when it is full: pixels go to files, views that add nothing go away."""

from __future__ import annotations

import gc
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rooms import SMALL, TARGETS, answers, photograph, remember, same_surfels, strolls

from renderers import Camera, SceneError
from spatial_memory import Candidate, MemoryConfig, View, ViewMemory
from spatial_memory.pictures import decode, encode
from spatial_memory.store import ViewStore
from spatial_memory.views import make_view

WALK = strolls(8, seed=5)
HOME = Camera.from_fov(70.0, 96, 64)
WALL = np.full((64, 96), 3.0, np.float32)
GREY = np.full((64, 96, 3), 0.5, np.float32)


def views(count: int) -> list[View]:
    """Pictures of noise, 0.1 MB each."""
    rng = np.random.default_rng(0)
    pixels = rng.random((count, 64, 96, 3), np.float32)
    return [make_view(rgb, WALL, HOME, "generated") for rgb in pixels]


def same(one: View, two: View) -> bool:
    names = ("rgb", "depth", "known")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


# ---------------------------------------------------------------- pixels in files


def test_pixels_that_do_not_fit_come_back_from_files(tmp_path: Path) -> None:
    pictures = views(6)
    store = ViewStore(250_000, tmp_path)
    for picture in pictures:
        store.add(picture)
    files = list(tmp_path.glob("*/*"))
    assert len(files) == 4  # two fit
    for view_id in (0, 5, 3, 0):
        assert same(store[view_id], pictures[view_id])
        assert store[view_id] is store[view_id]
    store.remove(0)
    assert len(list(tmp_path.glob("*/0-*"))) == 0
    assert list(store) == [1, 2, 3, 4, 5] and [i for i, _ in store.items()] == list(store)
    del store
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_memory_with_a_small_cache_gives_the_same_answers(tmp_path: Path) -> None:
    """Also after forgetting, erasing, saving and loading; 8 views of 0.1 MB, 10 times larger."""
    cameras = [camera.resized(288, 192) for camera in WALK]
    box = [[-4.0, -3.0, 0.0], [0.0, 0.0, 3.0]]
    large, small = (ViewMemory(replace(SMALL, view_cache_mb=mb), tmp_path) for mb in (256, 1))
    for memory in (large, small):
        for camera in cameras:
            memory.write(*photograph(camera), camera)
        memory.forget(2)
        memory.erase(box)
    assert answers(large) == answers(small)
    small.save(tmp_path / "saved")
    back = ViewMemory.load(tmp_path / "saved")
    assert answers(back) == answers(large) and same_surfels(back, large)
    assert all(same(back.views[i], large.views[i]) for i in large.views)
    back.save(tmp_path / "saved")
    back.save(tmp_path / "copy")
    assert answers(ViewMemory.load(tmp_path / "copy")) == answers(large)


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_damaged_picture_is_an_error_when_it_is_read(tmp_path: Path, harm: str) -> None:
    store = ViewStore(1, tmp_path)
    for picture in views(2):
        store.add(picture)
    path = next(tmp_path.glob("*/0-*"))
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SceneError, match="the pixels of view 0 cannot be read"):
        store[0]


def test_a_full_disk_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    memory = ViewMemory(replace(SMALL, view_cache_mb=1), tmp_path / "file")
    camera = WALK[0].resized(288, 192)
    memory.write(*photograph(camera), camera)
    before = answers(memory)
    with pytest.raises(SceneError, match="the memory cannot put pixels aside"):
        memory.write(*photograph(camera), camera)
    assert list(memory.views) == [0] and answers(memory) == before


@pytest.mark.parametrize("levels", [True, False])
def test_a_picture_loses_nothing_in_its_file(levels: bool) -> None:
    rng = np.random.default_rng(1)
    rgb = rng.integers(0, 256, (5, 7, 3)).astype(np.float32) / np.float32(255)
    rgb = rgb if levels else rgb + np.float32(1e-4)
    depth, known = rng.random((5, 7), np.float32), rng.random((5, 7)) > 0.5
    depth[0, 0], rgb[0, 0], known[0, 0] = np.inf, 0.25 if not levels else rgb[0, 1], True
    view = make_view(rgb, depth + np.float32(0.1), Camera.from_fov(60.0, 7, 5), "observed", known)
    data = encode(view)
    back = decode(data, "observed")
    assert same(view, back) and torch.equal(view.camera.px_from_cam, back.camera.px_from_cam)
    assert (len(data) < 800) == levels
    with pytest.raises(ValueError, match="unknown provenance"):
        decode(data, "dreamt")
    with pytest.raises(ValueError, match="incomplete"):
        decode(data[:40], "observed")


# ---------------------------------------------------------------- budgets


def test_the_view_that_is_missed_least_goes_first() -> None:
    """Three walls side by side; the middle one is seen twice. The older of these two goes."""
    memory = ViewMemory(replace(SMALL, max_views=3))
    for yaw in (0.0, 90.0, 0.0):
        memory.write(GREY, WALL, HOME.moved(yaw_degrees=yaw), provenance="generated")
    surfels = len(memory.surfels)
    assert memory.write(GREY, WALL, HOME.moved(yaw_degrees=180.0), provenance="generated") == 3
    assert list(memory.views) == [1, 2, 3]
    assert len(memory.surfels) == 1.5 * surfels
    assert memory.retrieve([HOME], k=1).view_ids == (2,)


def test_being_over_the_budget_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    memory = ViewMemory(replace(SMALL, max_views=1))
    with caplog.at_level(logging.WARNING, "scenegen"):
        for _ in range(3):
            memory.write(GREY, WALL, HOME, provenance="observed")
    assert caplog.text.count("over its budget") == 1


def test_pinned_and_observed_views_stay(caplog: pytest.LogCaptureFixture) -> None:
    memory = ViewMemory(replace(SMALL, max_views=2))
    memory.write(GREY, WALL, HOME, provenance="observed")
    memory.write(GREY, WALL, HOME, provenance="generated")
    memory.pin(1)
    with caplog.at_level(logging.WARNING, "scenegen"):
        memory.write(GREY, WALL, HOME, provenance="generated")
    assert list(memory.views) == [0, 1, 2]
    assert "over its budget" in caplog.text
    memory.pin(1, pinned=False)
    assert memory.write(GREY, WALL, HOME, provenance="generated") == 3
    assert list(memory.views) == [0, 3]


def test_surfels_stay_within_their_budget() -> None:
    """Every view is a wall of its own; each write beyond the budget costs one earlier wall."""
    one = ViewMemory(SMALL)
    one.write(GREY, WALL, HOME, provenance="generated")
    wall = len(one.surfels)
    memory = ViewMemory(replace(SMALL, max_surfels=int(2.5 * wall)))
    for step in range(5):
        camera = HOME.moved(yaw_degrees=72.0 * step)
        memory.write(GREY, WALL, camera, provenance="generated")
        assert len(memory.surfels) <= 2.5 * wall
    assert len(memory.views) == 2 and 4 in memory.views
    assert memory.retrieve([camera], k=1).coverage > 0.95


def test_a_view_from_the_same_place_replaces_what_it_covers() -> None:
    config = replace(SMALL, replace_same_pose=True)
    memory = ViewMemory(config)
    half = np.zeros(WALL.shape, np.bool_)
    half[:, :48] = True
    memory.write(GREY, WALL, HOME, provenance="generated", known=half)
    memory.write(GREY, WALL, HOME, provenance="generated")
    assert list(memory.views) == [1]
    memory.write(GREY, WALL, HOME, provenance="generated", known=half)
    assert list(memory.views) == [1, 2]  # the new one shows less
    memory.write(GREY, WALL, HOME.moved(right=0.2), provenance="generated")
    assert list(memory.views) == [1, 2, 3]  # from elsewhere
    memory.pin(1)
    memory.write(GREY, WALL, HOME.moved(right=0.001), provenance="observed")
    assert list(memory.views) == [1, 3, 4]
    memory.write(GREY, WALL, HOME, provenance="generated")
    assert list(memory.views) == [1, 3, 4, 5]
    assert list(remember([WALK[0]] * 3, config).views) == [0, 1, 2]  # observed


# ---------------------------------------------------------------- explanations


def test_candidates_say_in_numbers_what_reasons_say_in_words() -> None:
    memory = remember(WALK)
    memory.pin(5)
    hit = memory.retrieve(TARGETS[:2], k=3)
    assert [each.view_id for each in hit.candidates] == list(memory.views)
    assert hit.candidates[-1] == list(hit.candidates)[-1]
    assert hit.candidates[:2] == tuple(hit.candidates)[:2]
    by_id = {each.view_id: each for each in hit.candidates}
    for view_id, gain in zip(hit.view_ids, hit.gains, strict=True):
        it = by_id[view_id]
        assert it.taken and it.adds == gain <= it.shows
        assert it.cause in (("pinned",) if view_id == 5 else ("adds most", "a place was left"))
    for view_id in set(by_id) - set(hit.view_ids):
        it = by_id[view_id]
        assert not it.taken and it.adds <= it.shows
        assert it.cause in (
            *("shows nothing", "adds too little", "enough are taken"),
            "hidden by what nobody has seen",
        )
        assert (it.cause == "shows nothing") == (it.shows == 0.0)
    assert hit.reasons == {each.view_id: each.reason for each in hit.candidates}
    shows = sorted((each.shows for each in hit.candidates if not each.taken), reverse=True)
    kept = hit.main_reasons(3)
    assert len(kept) == len(hit.view_ids) + 3 and kept.items() <= hit.reasons.items()
    assert all(by_id[v].taken or by_id[v].shows >= shows[2] for v in kept)
    alone = memory.retrieve(TARGETS[:2], k=1)
    memory.pin(5, pinned=False)
    best = memory.retrieve(TARGETS[:2], k=1).candidates
    assert max(best, key=lambda each: each.shows).taken
    assert alone.view_ids == (5,)


def test_the_words_of_every_cause() -> None:
    say = {
        "pinned": "taken: pinned; shows 50.0%, adds 25.0%",
        "adds most": "taken: shows 50.0%, adds 25.0%",
        "nearest pose": "taken: nearest pose (1.50), as next to nothing is mapped here; "
        "shows 50.0%, adds 25.0%",
        "a place was left": "taken: shows 50.0%, adds 25.0%, which is little or in doubt, "
        "but a place was left",
        "shows nothing": "not taken: has seen nothing that is visible and needed here",
        "adds too little": "not taken: shows 50.0%, would add only 25.0% to the views taken",
        "enough are taken": "not taken: shows 50.0%, would add 25.0%, but enough are taken",
        "hidden by what nobody has seen": "not taken: shows 50.0%, but across space that no view "
        "has looked through",
    }
    for cause, words in say.items():
        assert Candidate(1, True, cause, 0.5, 0.25, 1.5).reason == words


def test_budgets_must_make_sense() -> None:
    with pytest.raises(SceneError, match="the memory's max_views is 0"):
        MemoryConfig(max_views=0)


# ---------------------------------------------------------------- odd places and lenses


@pytest.mark.parametrize("fov", [0.01, 1.0, 179.0, 179.99])
def test_extreme_lenses_give_sound_answers(fov: float) -> None:
    memory = remember(WALK)
    lens = Camera.from_fov(fov, 96, 64)
    hit = memory.retrieve([lens.posed(WALK[0].cam_from_world)], k=2)
    assert 0.0 <= hit.coverage <= 1.0 and len(hit.view_ids) >= 1
    camera = lens.posed(WALK[1].cam_from_world)
    view_id = memory.write(*photograph(camera), camera)
    assert np.isfinite(memory.surfels.points).all() and (memory.surfels.radii > 0).all()
    assert memory.retrieve([camera], k=1).view_ids
    memory.forget(view_id)


@pytest.mark.parametrize("place", [(0.1, -1.0, 2.0), (-2.8, -0.4, 2.6), (0.0, 5.0, 3.0)])
def test_a_camera_inside_a_wall_a_crate_or_the_ground(place: tuple[float, ...]) -> None:
    """It sees backs, which explain nothing and hide most of what lies behind them."""
    memory = remember(WALK)
    target = (place[0], place[1], place[2] + 1.0)
    inside = Camera.look_at(place, target, 70.0, 96, 64)
    hit = memory.retrieve([inside], k=2)
    assert hit.coverage < 0.5 and 1 <= len(hit.view_ids) <= 2


@pytest.mark.parametrize("z", [1e-30, 1e-4, 1e8, 1e20, 3e38])
def test_depths_of_any_size_break_nothing(z: float, tmp_path: Path) -> None:
    memory = ViewMemory(SMALL)
    memory.write(GREY, np.full_like(WALL, z), HOME)
    memory.write(GREY, np.full_like(WALL, z), HOME)
    assert memory.retrieve([HOME], k=1).view_ids == (0,)
    memory.save(tmp_path)
    assert ViewMemory.load(tmp_path).retrieve([HOME], k=1).view_ids == (0,)


def test_one_pixel_is_a_view() -> None:
    memory = ViewMemory(SMALL)
    memory.write(GREY[:1, :1], WALL[:1, :1], Camera.from_fov(60.0, 1, 1))
    assert memory.retrieve([HOME], k=1).view_ids == (0,)


def test_erasing_everything_leaves_views_that_show_nothing(tmp_path: Path) -> None:
    memory = remember([HOME.moved(right=-2.0, down=-1.5, forward=0.5), WALK[0]])
    memory.erase([[-np.inf] * 3, [np.inf] * 3])
    assert len(memory.surfels) == 0
    assert not any(view.known.any() for _, view in memory.views.items())
    assert memory.retrieve([WALK[0]], k=1).coverage == 0.0
    memory.save(tmp_path)
    assert len(ViewMemory.load(tmp_path).views) == 2
