"""What the memory writes, merges and forgets: by hand, and against rays cast through the world."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rooms import BOXES, SMALL, first_hits, photograph, pose, remember, stand, strolls

from renderers import Camera
from spatial_memory import ViewMemory


@pytest.fixture(scope="module")
def walk() -> list[Camera]:
    return strolls(12, seed=0)


@pytest.fixture(scope="module")
def walked(walk: list[Camera]) -> ViewMemory:
    """Twelve views of both rooms. Tests read it and do not change it."""
    return remember(walk)


# ---------------------------------------------------------------- writing


def test_writing_a_view_again_adds_next_to_nothing(walk: list[Camera]) -> None:
    memory = remember(walk[:3])
    before = len(memory.surfels)
    assert memory.write(*photograph(walk[1]), walk[1]) == 3
    assert len(memory.surfels) - before <= 0.05 * before / 3
    assert len(memory.views) == 4


def test_what_was_seen_from_elsewhere_is_mostly_not_new(walk: list[Camera]) -> None:
    memory = remember(walk[:1])
    before = len(memory.surfels)
    nudged = walk[0].moved(right=0.1, yaw_degrees=2.0)
    memory.write(*photograph(nudged), nudged)
    assert len(memory.surfels) - before < 0.3 * before


def test_walking_the_same_way_again_maps_next_to_nothing_anew(walk: list[Camera]) -> None:
    """Each time from a little beside: tiles do not fit those of the time before."""
    memory, sizes = remember(walk[:4]), []
    for lap in range(3):
        sway = np.random.default_rng(lap).uniform(-1.0, 1.0, (4, 2)) * [0.05, 2.0]
        for camera, (right, yaw) in zip(walk, sway.tolist(), strict=False):
            nudged = camera.moved(right=right, yaw_degrees=yaw)
            memory.write(*photograph(nudged), nudged)
        sizes.append(len(memory.surfels))
    assert sizes[1] <= 1.03 * sizes[0] and sizes[2] <= 1.01 * sizes[1], sizes


def test_observers_are_those_that_truly_see(walk: list[Camera], walked: ViewMemory) -> None:
    """Surfels against rays cast at their centres, for every pair of surfel and view."""
    surfels = walked.surfels
    rows, views = surfels.observers.pairs()
    noted = np.zeros((len(surfels), len(walk)), np.bool_)
    noted[rows, views] = True
    right = wrong = missed = 0
    for view_id, camera in enumerate(walk):
        _, eye, _ = pose(camera)
        true = sees_points(camera, surfels.points)
        out = eye - surfels.points
        squarely = (out * surfels.normals).sum(1) > 0.1 * np.linalg.norm(out, axis=1)
        right += (noted[:, view_id] & true).sum()
        wrong += (noted[:, view_id] & ~true).sum()
        missed += (~noted[:, view_id] & true & squarely).sum()
    assert wrong < 0.03 * right
    assert missed < 0.03 * right


def sees_points(camera: Camera, points: np.ndarray) -> np.ndarray:
    rotation, eye, k = pose(camera)
    local = (points - eye) @ rotation.T
    z = np.maximum(local[:, 2], 1e-9)
    u, v = k[0, 0] * local[:, 0] / z + k[0, 2], k[1, 1] * local[:, 1] / z + k[1, 2]
    inside = (local[:, 2] > 0) & (u >= 0) & (v >= 0) & (u <= camera.width) & (v <= camera.height)
    return inside & (first_hits(eye, points - eye)[0] > 0.98)


def test_merging_averages_by_confidence() -> None:
    """A wall at 2.00 m, then at 2.01 m, both seen squarely: the weights are 1/3 and 1/3.01."""
    rgb = np.zeros((48, 64, 3), np.float32)
    camera = Camera.from_fov(40.0, 64, 48)
    memory = ViewMemory(SMALL)
    memory.write(rgb, np.full((48, 64), 2.0, np.float32), camera)
    count = len(memory.surfels)
    memory.write(rgb + 1, np.full((48, 64), 2.01, np.float32), camera)
    assert len(memory.surfels) == count
    first, second = 1 / 3, (2.0 / 2.01) ** 2 / 3.01  # the second is a little coarser
    share = second / (first + second)
    np.testing.assert_allclose(memory.surfels.points[:, 2], 2.0 + 0.01 * share, atol=1e-5)
    np.testing.assert_allclose(memory.surfels.colors, share, atol=1e-5)
    assert (memory.surfels.first_seen == 0).all() and (memory.surfels.last_seen == 1).all()


def test_surfaces_in_front_of_each_other_stay_apart() -> None:
    """1.5 % of the depth between two walls is more than the 1 % that merges, and less than the
    radius of the discs (49 mm): cells of 1 / 32 of 2 m, half their diagonal, 10 % margin."""
    rgb, camera = np.zeros((48, 64, 3), np.float32), Camera.from_fov(90.0, 64, 48)
    memory = ViewMemory(SMALL)
    memory.write(rgb, np.full((48, 64), 2.0, np.float32), camera)
    count = len(memory.surfels)
    memory.write(rgb, np.full((48, 64), 2.03, np.float32), camera)
    assert len(memory.surfels) == 2 * count
    assert set(np.round(memory.surfels.points[:, 2], 4).tolist()) == {
        float(np.float32(2.0)), float(np.round(np.float32(2.03), 4))
    }  # fmt: skip


def test_what_was_generated_never_moves_what_was_observed() -> None:
    rgb = np.zeros((48, 64, 3), np.float32)
    near, far = (np.full((48, 64), z, np.float32) for z in (2.0, 2.01))
    camera = Camera.from_fov(40.0, 64, 48)
    memory = ViewMemory(SMALL)
    memory.write(rgb, near, camera, provenance="observed")
    memory.write(rgb + 1, far, camera, provenance="generated")
    np.testing.assert_allclose(memory.surfels.points[:, 2], 2.0, atol=1e-6)
    memory = ViewMemory(SMALL)
    memory.write(rgb + 1, far, camera, provenance="generated")
    memory.write(rgb, near, camera, provenance="observed")
    np.testing.assert_allclose(memory.surfels.points[:, 2], 2.0, atol=1e-6)
    assert (memory.surfels.provenance == 0).all()


def test_only_known_pixels_count(walk: list[Camera]) -> None:
    camera = walk[0]
    known = np.zeros((camera.height, camera.width), np.bool_)
    known[:, : camera.width // 2] = True
    memory = ViewMemory(SMALL)
    memory.write(*photograph(camera), camera, known=known)
    pixels, _ = camera.project(torch.from_numpy(memory.surfels.points))
    assert (pixels[:, 0] < camera.width / 2).all()
    assert memory.retrieve([camera], k=1).coverage == pytest.approx(0.5, abs=0.05)


def test_sky_is_remembered_without_surfels() -> None:
    camera = Camera.from_fov(60.0, 48, 32)
    memory = ViewMemory(SMALL)
    memory.write(np.ones((32, 48, 3), np.float32), np.full((32, 48), np.inf, np.float32), camera)
    assert (len(memory.views), len(memory.surfels)) == (1, 0)
    assert memory.retrieve([camera], k=2).view_ids == (0,)


def test_tensors_arrays_and_other_sizes_mean_the_same(walk: list[Camera]) -> None:
    rgb, depth = photograph(walk[0])
    one, two = ViewMemory(SMALL), ViewMemory(SMALL)
    one.write(rgb, depth, walk[0])
    two.write(torch.from_numpy(rgb).double(), torch.from_numpy(depth), walk[0].resized(192, 128))
    for name in ("points", "normals", "radii", "colors"):
        np.testing.assert_allclose(
            getattr(one.surfels, name), getattr(two.surfels, name), atol=1e-5
        )
    view = two.views[0]
    assert (view.camera.width, view.camera.height) == (96, 64)
    assert view.provenance == "observed" and bool(view.known.all())
    rgb[:] = 0.0  # what was written is a copy
    assert float(one.views[0].rgb.mean()) > 0.1


# ---------------------------------------------------------------- forgetting


def test_forgetting_removes_a_view_and_what_only_it_saw(walk: list[Camera]) -> None:
    memory, without = remember(walk[:4]), remember(walk[:3])
    memory.forget(3)
    assert list(memory.views) == [0, 1, 2]
    assert len(memory.surfels) == len(without.surfels)
    assert 3 not in memory.surfels.observers.pairs()[1]
    hit = memory.retrieve([walk[3]], k=4)
    assert 3 not in hit.view_ids and 3 not in hit.reasons
    assert memory.write(*photograph(walk[3]), walk[3]) == 4  # ids are never used twice
    for view_id in list(memory.views):
        memory.forget(view_id)
    assert len(memory.views) == len(memory.surfels) == 0


def test_erasing_a_box_removes_surfels_and_the_pixels_that_show_it(walk: list[Camera]) -> None:
    camera = stand(-2.8, 0.6, 0.0, y=-1.2)
    crate = BOXES[1] + np.array([[-0.05], [0.05]])
    memory = remember([camera, walk[0]])
    points = memory.surfels.points.copy()
    inside = ((points >= crate[0]) & (points <= crate[1])).all(1)
    assert inside.sum() > 50
    seen_before = memory.retrieve([camera], k=1).gains[0]
    assert memory.erase(crate.tolist()) == inside.sum()
    np.testing.assert_array_equal(memory.surfels.points, points[~inside])
    view = memory.views[0]
    shown = camera.unproject(camera.pixel_centers(), view.depth).numpy()
    in_crate = ((shown >= crate[0]) & (shown <= crate[1])).all(-1)
    np.testing.assert_array_equal(view.known.numpy(), ~in_crate)
    assert memory.retrieve([camera], k=1).gains[0] < seen_before - 0.5 * in_crate.mean()


def test_the_map_still_works_after_rows_were_removed(walk: list[Camera]) -> None:
    memory = remember(walk[:4])
    memory.erase([[-4.0, -3.0, 0.0], [0.0, 0.0, 3.0]])
    memory.forget(1)
    before = len(memory.surfels)
    memory.write(*photograph(walk[0]), walk[0])
    memory.write(*photograph(walk[0]), walk[0])
    grown = len(memory.surfels)
    memory.write(*photograph(walk[0]), walk[0])
    assert len(memory.surfels) - grown <= 0.05 * grown
    assert grown >= before
    assert memory.retrieve([walk[0]], k=2).gains[0] > 0.9
