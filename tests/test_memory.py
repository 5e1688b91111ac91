"""The memory of views: in rooms with a wall between them, where nearness and field of view fool."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from rooms import (
    SMALL,
    TARGETS,
    answers,
    photograph,
    pose,
    remember,
    same_surfels,
    stand,
    strolls,
    truly_seen,
)

from renderers import Camera
from renderers import surfels as surfels_module
from renderers.surfels import render_surfels
from spatial_memory import Retrieval, ViewMemory
from spatial_memory.freespace import behind_unknown
from spatial_memory.retrieve import pose_distances
from spatial_memory.sight import sight_of


@pytest.fixture(scope="module")
def walk() -> list[Camera]:
    return strolls(12, seed=0)


@pytest.fixture(scope="module")
def walked(walk: list[Camera]) -> ViewMemory:
    """Twelve views of both rooms. Tests read it and do not change it."""
    return remember(walk)


# ---------------------------------------------------------------- retrieval


def test_a_wall_fools_nearness_and_field_of_view_but_not_the_memory() -> None:
    """The target looks at the wall from the left room.

    View 0 stands half a metre away from it and looks the same way, but behind the wall; view 1
    looks through where the target stands from afar, in the same room.
    """
    behind = stand(0.6, 2.0, 90.0)
    across = stand(-3.6, 1.0, 75.0)
    other = stand(2.0, 5.0, 180.0)
    target = stand(-0.9, 2.0, 90.0)
    memory = remember([behind, across, other])
    past = np.stack([c.cam_from_world.double().numpy()[:3] for c in (behind, across, other)])
    assert pose_distances(past, [target]).argmin() == 0  # what nearness would take
    hit = memory.retrieve([target], k=1)
    assert hit.view_ids == (1,)
    assert hit.reasons[0] == "not taken: has seen nothing that is visible and needed here"
    assert hit.coverage > 0.9
    assert truly_seen(target, across).mean() == pytest.approx(hit.coverage, abs=0.05)


def test_covers_nearly_what_the_best_choice_covers(walk: list[Camera], walked: ViewMemory) -> None:
    """Judged by rays cast through the world itself, against all choices of three views."""
    shares, precisions = [], []
    for target in TARGETS:
        hit = walked.retrieve([target], k=3)
        true = np.stack([truly_seen(target, view) for view in walk])
        best = max(true[list(c)].any(0).mean() for c in itertools.combinations(range(12), 3))
        got = true[list(hit.view_ids)].any(0).mean()
        shares.append(got / best)
        precisions.append(got / hit.coverage)
    assert np.mean(shares) > 0.98 and min(shares) > 0.93
    assert np.mean(precisions) > 0.93 and min(precisions) > 0.8


def test_a_place_passed_often_does_not_crowd_out_what_one_view_shows() -> None:
    """Forty glances ahead, lower and higher, each show more than the one to the right."""
    aside = stand(-2.0, 2.0, 62.0)
    ahead = [stand(-2.0, 2.0, 0.0, y=-1.0 - 0.025 * i) for i in range(40)]
    target = stand(-2.0, 2.0, 25.0)
    memory = remember([aside, *ahead])
    hit = memory.retrieve([target], k=2)
    assert all(hit.candidates[i].shows > hit.candidates[0].shows for i in range(1, 41))
    assert 0 in hit.view_ids
    true = np.stack([truly_seen(target, view) for view in (aside, *ahead)])
    best = max(true[list(pair)].any(0).mean() for pair in itertools.combinations(range(41), 2))
    assert true[list(hit.view_ids)].any(0).mean() > 0.98 * best


def test_beats_the_nearest_pose(walk: list[Camera], walked: ViewMemory) -> None:
    ours, nearest = [], []
    past = np.stack([camera.cam_from_world.double().numpy()[:3] for camera in walk])
    for target in TARGETS:
        true = np.stack([truly_seen(target, view) for view in walk])
        ours.append(true[list(walked.retrieve([target], k=3).view_ids)].any(0).mean())
        nearest.append(true[np.argsort(pose_distances(past, [target]))[:3]].any(0).mean())
    assert np.mean(ours) > np.mean(nearest) + 0.05


def slow_covers(memory: ViewMemory, cameras: list[Camera], k: int) -> tuple[int, int, int]:
    """Pixels of the greedy cover, of the best one, and of all targets, written the plain way."""
    surfels, config = memory.surfels, memory.config
    seen_by: list[set[int]] = [set() for _ in range(len(surfels))]
    for surfel, view in zip(*surfels.observers.pairs(), strict=True):
        seen_by[surfel].add(int(view))
    shows: dict[int, set[int]] = {view_id: set() for view_id in memory.views}
    shown: list[int] = []  # the surfel in each pixel
    pixel = 0
    for camera in cameras:
        scale = config.evidence_side / max(camera.width, camera.height)
        small = camera.resized(round(camera.width * scale), round(camera.height * scale))
        points, normals, radii = map(
            torch.from_numpy, (surfels.points, surfels.normals, surfels.radii)
        )
        seen = render_surfels(points, normals, radii, small, backs=True)
        for surfel, cos in zip(seen.ids.flatten().tolist(), seen.cos.flatten(), strict=True):
            for view in seen_by[surfel] if surfel >= 0 and cos > 0 else ():
                shows[view].add(pixel)
            shown.append(surfel)
            pixel += 1
    past = np.stack([v.camera.cam_from_world.double().numpy()[:3] for _, v in memory.views.items()])
    far = dict(zip(memory.views, pose_distances(past, cameras), strict=True))
    sights = [sight_of(memory.views[v], config.sight_side) for v in shows if shows[v]]
    eyes = np.unique([pose(camera)[1] for camera in cameras], axis=0)
    left = sorted(set().union(*shows.values()))
    points = surfels.points[[shown[p] for p in left]]
    hidden = behind_unknown(points, eyes, sights, config.depth_tolerance)
    lost = {p for p, gone in zip(left, hidden, strict=True) if gone}
    shows = {v: seen - lost for v, seen in shows.items()}
    done: set[int] = set()
    for _ in range(k):
        best = min(shows, key=lambda v: (-len(shows[v] - done), far[v], v))
        done |= shows[best]
    choices = itertools.combinations(shows.values(), k)
    return len(done), max(len(set().union(*choice)) for choice in choices), pixel


@pytest.mark.parametrize("k", [1, 2, 4])
def test_covers_as_much_as_the_best_choice_and_no_less_than_the_greedy_one(
    walked: ViewMemory, k: int
) -> None:
    for cameras in ([TARGETS[0]], TARGETS[1:4], TARGETS[4:10]):
        hit = walked.retrieve(cameras, k=k)
        greedy, best, pixels = slow_covers(walked, cameras, k=k)
        assert greedy >= 0.05 * pixels  # no fallback
        little = (k - 1) * walked.config.min_gain * pixels  # not worth a view of its own
        assert max(greedy, best - little) <= round(hit.coverage * pixels) <= best
        assert sum(hit.gains) == pytest.approx(hit.coverage)
        assert all(vote > 0 for vote in hit.votes)


def test_a_view_explains_itself(walk: list[Camera], walked: ViewMemory) -> None:
    """One view shows nearly all: itself, unless another one sees all of it too."""
    itself = 0
    for view_id, camera in enumerate(walk):
        hit = walked.retrieve([camera], k=4)
        first = hit.view_ids[0]
        assert hit.coverage > 0.95 and hit.gains[0] > 0.94 and sum(hit.gains[1:]) < 0.03
        assert truly_seen(camera, walk[first]).mean() > 0.98
        itself += first == view_id
    assert itself >= 10


def test_ties_go_to_the_nearer_pose_then_to_the_lower_id() -> None:
    """Four views of one flat wall, all of which show all of the target."""
    wall = np.full((64, 96), 3.0, np.float32)
    rgb = np.full((64, 96, 3), 0.5, np.float32)
    home = Camera.from_fov(70.0, 96, 64)
    memory = ViewMemory(SMALL)
    for step in (0.3, -0.1, 0.1, 0.3):
        memory.write(rgb, wall, home.moved(right=step))
    narrow = Camera.from_fov(20.0, 96, 64)
    assert memory.retrieve([narrow.moved(right=0.3)], k=1).view_ids == (0,)  # and not 3
    assert memory.retrieve([narrow.moved(right=0.12)], k=1).view_ids == (2,)
    assert memory.retrieve([narrow.moved(right=-0.12)], k=1).view_ids == (1,)


def test_the_union_of_all_targets_counts() -> None:
    """Two cameras back to back need one view each; the second best view of the first adds none."""
    left, right = stand(-1.5, 3.0, -90.0), stand(-1.5, 3.0, 90.0)
    memory = remember([left, stand(-1.4, 3.0, -90.0), right])
    hit = memory.retrieve([left, right], k=2)
    assert sorted(hit.view_ids) == [0, 2]
    assert hit.coverage > 0.9


def test_what_the_render_explains_needs_no_view(walk: list[Camera], walked: ViewMemory) -> None:
    camera = walk[0]
    free = walked.retrieve([camera], k=4)
    half = np.zeros((camera.height, camera.width), np.bool_)
    half[:, : camera.width // 2] = True
    helped = walked.retrieve([camera], k=4, explained=[half])
    assert helped.gains[0] == pytest.approx(0.5, abs=0.05)
    assert helped.coverage >= free.coverage - 1e-9
    everything = walked.retrieve(
        [camera], k=4, explained=[torch.ones(half.shape, dtype=torch.bool)]
    )
    assert everything.view_ids == () and everything.coverage == 1.0
    assert set(everything.reasons) == set(walked.views)


def test_every_candidate_has_a_reason(walked: ViewMemory) -> None:
    hit = walked.retrieve(TARGETS[:1], k=2)
    assert set(hit.reasons) == set(walked.views)
    taken = {view_id for view_id, why in hit.reasons.items() if why.startswith("taken: ")}
    assert taken == set(hit.view_ids)
    assert all(hit.reasons[v].startswith("not taken: ") for v in walked.views if v not in taken)


def test_one_pinned_view_comes_first_whatever_it_shows(walk: list[Camera]) -> None:
    memory = remember(walk[:5])
    free = memory.retrieve([walk[0]], k=3)
    assert free.view_ids[0] == 0
    idle = next(v for v in memory.views if v not in free.view_ids)
    memory.pin(idle)
    pinned = memory.retrieve([walk[0]], k=3)
    assert pinned.view_ids[0] == idle
    assert pinned.view_ids[1] == 0
    assert pinned.reasons[idle].startswith("taken: pinned; ")
    assert memory.retrieve([walk[0]], k=1).view_ids == (idle,)
    memory.pin(idle, pinned=False)
    assert memory.retrieve([walk[0]], k=3) == free


def test_the_nearest_poses_help_where_nothing_is_mapped() -> None:
    wall = np.full((64, 96), 3.0, np.float32)
    rgb = np.full((64, 96, 3), 0.5, np.float32)
    home = Camera.from_fov(70.0, 96, 64)
    memory = ViewMemory(SMALL)
    for yaw in (0.0, 20.0, -30.0):
        memory.write(rgb, wall, home.moved(yaw_degrees=yaw))
    hit = memory.retrieve([home.moved(yaw_degrees=170.0)], k=2)
    assert hit.coverage == 0.0
    assert hit.view_ids == (1, 2)  # 150 and 160 degrees away
    assert hit.gains == (0.0, 0.0)
    assert hit.reasons[1].startswith("taken: nearest pose (2.62)")


def test_an_empty_memory_gives_an_empty_answer() -> None:
    assert ViewMemory(SMALL).retrieve([TARGETS[0]], k=4) == Retrieval((), 0.0, (), (), ())


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (1000, 3), (640, 480)])
def test_target_cameras_may_have_any_size(walked: ViewMemory, size: tuple[int, int]) -> None:
    hit = walked.retrieve([TARGETS[0].resized(*size)], k=2)
    assert 0.0 <= hit.coverage <= 1.0


def test_pose_distance_by_hand() -> None:
    home = Camera.from_fov(60.0, 8, 8)
    past = home.moved(right=3.0, down=4.0, yaw_degrees=90.0).cam_from_world.double().numpy()
    near, exact = pose_distances(past[None, :3], [home]), 0.1 * 5.0 + math.pi / 2
    np.testing.assert_allclose(near, [exact], rtol=1e-6)
    same = pose_distances(past[None, :3], [home, home.moved(right=3.0, down=4.0, yaw_degrees=90.0)])
    np.testing.assert_allclose(same, [0.0], atol=1e-6)


# ---------------------------------------------------------------- the same answer always


def test_the_number_of_threads_changes_no_answer(
    walk: list[Camera], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surfels_module, "MIN_PARALLEL", 0)
    threads, memories, given = numba.get_num_threads(), [], []
    for count in (1, threads):
        numba.set_num_threads(count)
        memories.append(remember(walk[:6]))
        given.append(answers(memories[-1]))
    numba.set_num_threads(threads)
    assert given[0] == given[1]
    assert same_surfels(*memories)


def test_threads_may_write_and_retrieve_at_once(walk: list[Camera]) -> None:
    memory, failures = remember(walk[:1]), []

    def ask() -> None:
        try:
            for target in TARGETS:
                hit = memory.retrieve([target], k=3)
                assert set(hit.view_ids) <= set(hit.reasons)
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=ask) for _ in range(2)]
    for reader in readers:
        reader.start()
    for camera in walk[1:6]:
        memory.write(*photograph(camera), camera)
    for reader in readers:
        reader.join()
    assert not failures
    assert same_surfels(memory, remember(walk[:6]))


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, spatial_memory; heavy = {'torch', 'numba', 'numpy'} & set(sys.modules);"
        "assert not heavy, heavy; assert 'ViewMemory' in spatial_memory.__all__"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
    import spatial_memory

    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = spatial_memory.Nonsense
