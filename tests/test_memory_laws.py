"""Laws of the memory, for worlds, boxes and orders that nobody chose by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from rooms import SMALL, TARGETS, answers, photograph, remember, stand, strolls

from renderers import Camera
from renderers import surfels as surfels_module
from renderers.surfels import render_surfels
from spatial_memory import ViewMemory
from spatial_memory.blocks import SMALLEST, Blocks, frustum
from spatial_memory.observers import Observers, renumbered
from spatial_memory.views import cam_from_world, lens_of

few = settings(max_examples=8, phases=(Phase.explicit, Phase.generate))  # worlds do not shrink
WALK = strolls(6, seed=3)


def generated(cameras: list[Camera]) -> ViewMemory:
    memory = ViewMemory(SMALL)
    for camera in cameras:
        memory.write(*photograph(camera), camera, provenance="generated")
    return memory


@few
@given(gone=st.sets(st.integers(0, 5), min_size=1), target=st.integers(0, 9))
def test_what_was_forgotten_never_comes_back(gone: set[int], target: int) -> None:
    memory = generated(WALK)
    for view_id in gone:
        memory.forget(view_id)
    hit = memory.retrieve([TARGETS[target]], k=6)
    assert not gone & (set(hit.view_ids) | set(hit.reasons))
    assert not gone & set(memory.surfels.observers.pairs()[1].tolist())
    seen = np.bincount(memory.surfels.observers.pairs()[0], minlength=len(memory.surfels))
    assert (seen > 0).all()


@few
@given(
    corner=st.tuples(st.floats(-4, 3), st.floats(-2.6, 0), st.floats(0, 5)),
    size=st.tuples(st.floats(0.05, 3), st.floats(0.05, 3), st.floats(0.05, 3)),
)
def test_erasing_leaves_nothing_in_the_box(
    corner: tuple[float, ...], size: tuple[float, ...]
) -> None:
    """No surfel inside, no known pixel that shows it, and no vote by such a pixel."""
    memory = generated(WALK)
    box = np.array([corner, np.add(corner, size)])
    before = len(memory.surfels)
    erased = memory.erase(box)
    points = memory.surfels.points
    assert before - erased == len(points)
    assert not ((points >= box[0]) & (points <= box[1])).all(1).any()
    rows, views = memory.surfels.observers.pairs()
    for view_id, view in memory.views.items():
        camera = view.camera
        shown = camera.unproject(camera.pixel_centers().double(), view.depth.double()).numpy()
        inside = ((shown >= box[0] + 1e-4) & (shown <= box[1] - 1e-4)).all(-1)  # rounding aside
        assert not (view.known.numpy() & inside).any()
        pixels, depth = camera.project(torch.from_numpy(points[rows[views == view_id]]).double())
        u = pixels[:, 0].floor().long().clamp(0, camera.width - 1)
        v = pixels[:, 1].floor().long().clamp(0, camera.height - 1)
        edge = ((pixels - pixels.round()).abs() < 1e-4).any(1)  # either side is right
        assert not (torch.from_numpy(inside)[v, u] & (depth > 0) & ~edge).any()


@few
@given(step=st.floats(-0.009, 0.009), right=st.floats(-0.02, 0.02))
def test_a_merged_surfel_lies_between_its_parents(step: float, right: float) -> None:
    rgb = np.zeros((48, 64, 3), np.float32)
    home = Camera.from_fov(40.0, 64, 48)
    memory, other = ViewMemory(SMALL), ViewMemory(SMALL)
    near = np.full((48, 64), 2.0, np.float32)
    memory.write(rgb, near, home)
    first = memory.surfels.points.copy()
    memory.write(rgb, near * np.float32(1 + step), home.moved(right=right))
    other.write(rgb, near * np.float32(1 + step), home.moved(right=right))
    merged, second = memory.surfels.points[: len(first)], other.surfels.points
    moved = np.flatnonzero((merged != first).any(1))
    for row in moved:
        way = second - first[row]
        t = ((merged[row] - first[row]) * way).sum(1) / np.maximum((way * way).sum(1), 1e-12)
        off = np.linalg.norm(first[row] + t[:, None] * way - merged[row], axis=1)
        assert ((off < 1e-5) & (t >= -1e-4) & (t <= 1 + 1e-4)).any()


@few
@given(
    yaw=st.floats(-180, 180),
    pitch=st.floats(-80, 80),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50), st.floats(-50, 50)),
)
def test_a_rigidly_moved_world_gives_the_same_views(
    yaw: float, pitch: float, shift: tuple[float, float, float]
) -> None:
    move = Camera.from_fov(60.0, 8, 8).moved(*shift, yaw_degrees=yaw, pitch_degrees=pitch)
    old_from_new = move.cam_from_world.double()

    def moved(camera: Camera) -> Camera:
        return camera.posed(camera.cam_from_world.double() @ old_from_new)

    here, there = ViewMemory(SMALL), ViewMemory(SMALL)
    for camera in WALK:
        here.write(*photograph(camera), camera.posed(camera.cam_from_world.double()))
        there.write(*photograph(camera), moved(camera))
    assert abs(len(here.surfels) - len(there.surfels)) <= 0.01 * len(here.surfels)
    for target in (TARGETS[0], TARGETS[3]):
        one, two = here.retrieve([target], k=2), there.retrieve([moved(target)], k=2)
        assert one.view_ids == two.view_ids
        assert one.coverage == pytest.approx(two.coverage, abs=0.01)


@few
@given(order=st.permutations(range(4)))
def test_equal_candidates_may_come_in_any_order(order: list[int]) -> None:
    """Four views that show all of the target: the pose decides, however they were written."""
    wall, rgb = np.full((64, 96), 3.0, np.float32), np.full((64, 96, 3), 0.5, np.float32)
    home = Camera.from_fov(70.0, 96, 64)
    memory = ViewMemory(SMALL)
    for which in order:
        memory.write(rgb, wall, home.moved(right=0.1 * (which - 1)))
    hit = memory.retrieve([Camera.from_fov(20.0, 96, 64).moved(right=0.12)], k=1)
    assert order[hit.view_ids[0]] == 2


def test_one_and_two_threads_files_and_processes_agree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surfels_module, "MIN_PARALLEL", 0)
    memory = remember(WALK)
    memory.save(tmp_path)
    given, threads = [], numba.get_num_threads()
    for count in {1, min(2, threads)}:
        numba.set_num_threads(count)
        given += [answers(memory), answers(ViewMemory.load(tmp_path))]
    numba.set_num_threads(threads)
    assert all(each == given[0] for each in given)
    code = (
        "import sys; sys.path.insert(0, 'tests'); from rooms import answers;"
        f"from spatial_memory import ViewMemory; print(answers(ViewMemory.load({str(tmp_path)!r})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.strip() == str(given[0])


# ---------------------------------------------------------------- the parts


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["surfels", "add", "withdraw", "drop", "forget", "tidy"]),
            st.integers(0, 5),
            st.integers(0, 2**32 - 1),
        ),
        max_size=25,
    )
)
def test_observers_are_sets(steps: list[tuple[str, int, int]]) -> None:
    """Against a list of Python sets."""
    observers, plain = Observers(), []
    for what, view_id, seed in steps:
        rng = np.random.default_rng(seed)
        some = np.flatnonzero(rng.random(len(plain)) < rng.random())
        if what == "surfels":
            observers.add_surfels(seed % 150)
            plain += [set() for _ in range(seed % 150)]
        elif what == "add":
            observers.add(some, view_id)
            for row in some:
                plain[row].add(view_id)
        elif what == "withdraw":
            observers.withdraw(some, view_id)
            for row in some:
                plain[row].discard(view_id)
        elif what == "drop":
            orphans = observers.drop_view(view_id)
            assert orphans.tolist() == [i for i, seen in enumerate(plain) if seen == {view_id}]
            for seen in plain:
                seen.discard(view_id)
        elif what == "forget":
            observers.drop_surfels(some)
            for row in some:
                plain[row].clear()
        else:
            kept = np.ones(len(plain), np.bool_)
            kept[some] = False
            observers.drop_surfels(some)
            entries = observers.entries(0, -(-len(plain) // 64))
            rows = np.where(kept, np.cumsum(kept) - 1, -1)
            observers = Observers()
            observers.add_surfels(int(kept.sum()))
            observers.restore(*renumbered(0, entries, rows))
            plain = [seen for row, seen in enumerate(plain) if kept[row]]
    pairs = [(row, view) for row, seen in enumerate(plain) for view in sorted(seen)]
    assert list(zip(*map(np.ndarray.tolist, observers.pairs()), strict=True)) == pairs
    alone = [sum(seen == {view} for seen in plain) for view in range(6)]
    assert observers.seen_alone(np.arange(6)).tolist() == alone
    for view in range(6):
        rows = [row for row, seen in enumerate(plain) if view in seen]
        assert observers.seen_by(view).tolist() == rows


@few
@given(
    x=st.floats(-6, 6),
    z=st.floats(-2, 8),
    heading=st.floats(0, 360),
    fov=st.sampled_from([0.05, 5.0, 70.0, 150.0, 179.5]),
)
def test_nothing_visible_is_left_out(x: float, z: float, heading: float, fov: float) -> None:
    """The picture of what is in sight is the picture of everything."""
    surfels = MAPPED.surfels
    lens = Camera.from_fov(fov, 96, 64)
    camera = stand(x, z, heading)
    camera = lens.posed(camera.cam_from_world)
    around = frustum(cam_from_world(camera), lens_of(camera), 96, 64)
    near = surfels.blocks.in_sight([around], surfels.points, surfels.radii)
    every = [torch.from_numpy(a) for a in (surfels.points, surfels.normals, surfels.radii)]
    some = [torch.from_numpy(a) for a in surfels.discs(near)]
    want, got = (render_surfels(*discs, camera, backs=True) for discs in (every, some))
    rows = np.append(near, -1)[got.ids.numpy()]  # -1, nothing, is the last
    np.testing.assert_array_equal(rows, want.ids.numpy())
    np.testing.assert_array_equal(got.depth.numpy(), want.depth.numpy())


MAPPED = remember(WALK)


def test_what_is_found_does_not_depend_on_the_boxes() -> None:
    """Boxes that grew with the map are wider than those made at once; retrieval is the same."""
    surfels = MAPPED.surfels
    fresh, wide = Blocks(), Blocks()
    fresh.extend(surfels.points, surfels.radii)
    wide.extend(surfels.points, surfels.radii)
    far = surfels.points + np.float32(0.5)
    wide.widen(np.arange(len(far)), far, surfels.radii)
    for target in TARGETS:
        around = [frustum(cam_from_world(target), lens_of(target), 96, 64)]
        tight = fresh.in_sight(around, surfels.points, surfels.radii, SMALLEST)
        loose = wide.in_sight(around, surfels.points, surfels.radii, SMALLEST)
        assert len(tight) <= len(loose) and np.isin(tight, loose).all()
