"""Z-buffer of surfels, and the surfels that a view gives: by hand, by law, against plain loops."""

from __future__ import annotations

import inspect
import math
import threading

import numba
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renderers import Camera, SceneError
from renderers import surfels as surfels_module
from renderers.surfels import BACK_SLACK, FAR, NEAR, N, SurfelMap, SurfelScene, render_surfels
from renderers.zbuffer import PIECE
from spatial_memory.sampling import Samples, sample_view
from spatial_memory.views import make_view

FACING = (0.0, 0.0, -1.0)
CAMERA = Camera.from_fov(90.0, 8, 8)  # focal length 4 px, principal point (4, 4)


def draw(
    *discs: tuple[tuple[float, float, float], tuple[float, float, float], float],
    camera: Camera = CAMERA,
    backs: bool = False,
) -> SurfelMap:
    points, normals, radii = (torch.tensor(column) for column in zip(*discs, strict=True))
    return render_surfels(points, normals, radii, camera, backs=backs)


def random_discs(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    points = rng.uniform((-3, -3, -1), (3, 3, 8), (count, 3))
    normals = rng.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    radii = rng.choice([0.003, 0.05, 0.4, 1.0], count)
    return torch.tensor(points).float(), torch.tensor(normals).float(), torch.tensor(radii).float()


def assert_same_map(one: SurfelMap, other: SurfelMap) -> None:
    """Bit by bit."""
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.depth.nan_to_num(-1), other.depth.nan_to_num(-1))
    assert torch.equal(one.cos, other.cos)


# ---------------------------------------------------------------- by hand


def test_a_facing_disc_by_hand() -> None:
    """Radius 0.5 m at 2 m spans 4 * 0.5 / 2 = 1 px around (4, 4): four centres, 0.71 px away."""
    seen = draw(((0.0, 0.0, 2.0), FACING, 0.5))
    expected = torch.full((8, 8), -1)
    expected[3:5, 3:5] = 0
    assert torch.equal(seen.ids, expected)
    torch.testing.assert_close(seen.depth[3:5, 3:5], torch.full((2, 2), 2.0))
    cos = 1 / math.sqrt(1 + 2 * 0.125**2)
    torch.testing.assert_close(seen.cos[3:5, 3:5], torch.full((2, 2), cos))
    assert torch.isnan(seen.depth[seen.ids < 0]).all()
    assert (seen.cos[seen.ids < 0] == 0).all()


def test_a_tilted_disc_by_hand() -> None:
    """Plane z = 2 + x meets the ray x = s z at z = 2 / (1 - s)."""
    slope = math.sqrt(0.5)
    seen = draw(((0.0, 0.0, 2.0), (slope, 0.0, -slope), 2.5))
    s = (torch.arange(8) + 0.5 - 4) / 4
    for column in range(2, 6):  # |y| and |x| stay well within the disc there
        torch.testing.assert_close(seen.depth[4, column], 2 / (1 - s[column]))


def test_a_disc_smaller_than_a_pixel_marks_the_pixel_of_its_centre() -> None:
    seen = draw(((0.3, -0.8, 2.0), FACING, 1e-4))  # u = 4 + 0.6, v = 4 - 1.6
    assert (seen.ids >= 0).sum() == 1
    assert seen.ids[2, 4] == 0
    torch.testing.assert_close(seen.depth[2, 4].item(), 2.0)
    cos = 2 / math.sqrt(0.3**2 + 0.8**2 + 2**2)
    torch.testing.assert_close(seen.cos[2, 4].item(), cos)


def test_backs_are_culled_unless_asked_for() -> None:
    away, front = (0.0, 0.0, 1.0), ((0.0, 0.0, 3.0), FACING, 2.0)
    assert (draw(((0.0, 0.0, 2.0), away, 0.5)).ids == -1).all()
    culled = draw(((0.0, 0.0, 2.0), away, 0.5), front)
    assert culled.ids[3, 3] == 1
    blocked = draw(((0.0, 0.0, 2.0), away, 0.5), front, backs=True)
    assert blocked.ids[3, 3] == 0
    assert blocked.cos[3, 3] < 0
    torch.testing.assert_close(blocked.depth[3, 3].item(), 2.0)


def test_a_back_yields_to_a_front_within_its_slack() -> None:
    """Both sides of a thin wall: the side that faces the camera shows."""
    back = ((0.0, 0.0, 2.0), (0.0, 0.0, 1.0), 0.5)
    close, beyond = 2.0 * (1 + 0.5 * BACK_SLACK), 2.0 * (1 + 2 * BACK_SLACK)
    assert draw(back, ((0.0, 0.0, close), FACING, 0.5), backs=True).ids[3, 3] == 1
    assert draw(back, ((0.0, 0.0, beyond), FACING, 0.5), backs=True).ids[3, 3] == 0


def test_ties_in_depth_go_to_the_lower_row() -> None:
    near, far = ((0.0, 0.0, 2.0), FACING, 0.5), ((0.0, 0.0, 2.0002), FACING, 0.5)
    assert draw(near, far).ids[3, 3] == 0
    assert draw(far, near).ids[3, 3] == 0
    assert draw(((0.0, 0.0, 2.01), FACING, 0.5), near).ids[3, 3] == 1


# ---------------------------------------------------------------- against plain loops


def slow_map(
    points: np.ndarray, normals: np.ndarray, radii: np.ndarray, camera: Camera, backs: bool
) -> np.ndarray:
    """Ids, by testing every ray against every disc in float64."""
    pose, k = camera.cam_from_world.double().numpy(), camera.px_from_cam.double().numpy()
    p = points.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    n = normals.astype(np.float64) @ pose[:3, :3].T
    offset = (p * n).sum(1)
    ids = np.full((camera.height, camera.width), -1)
    for row in range(camera.height):
        for column in range(camera.width):
            ray = np.linalg.solve(k, [column + 0.5, row + 0.5, 1.0])
            z = offset / (n @ ray)
            miss = ((z[:, None] * ray - p) ** 2).sum(1) > radii.astype(np.float64) ** 2
            u, v = (p @ k.T)[:, 0] / p[:, 2], (p @ k.T)[:, 1] / p[:, 2]
            own = (np.floor(u) == column) & (np.floor(v) == row) & (p[:, 2] > NEAR)
            z = np.where(miss | (z <= NEAR), np.where(own, p[:, 2], np.inf), z)
            back = offset > 0
            z = np.where(back, z * (1 + BACK_SLACK) if backs else np.inf, z)
            steps = z.astype(np.float32).view(np.uint32).astype(np.int64) >> 13
            order = np.lexsort((np.arange(len(p)), back, steps))
            if np.isfinite(z[order[0]]):
                ids[row, column] = order[0]
    return ids


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 5), (600, 3)])
def test_pictures_of_any_size_show_a_wall(size: tuple[int, int]) -> None:
    seen = draw(((0.0, 0.0, 2.0), FACING, 900.0), camera=Camera.from_fov(150.0, *size))
    assert (seen.ids == 0).all()
    torch.testing.assert_close(seen.depth, torch.full_like(seen.depth, 2.0))


@pytest.mark.parametrize("radius", [1e3, 1e9, 1e20, 3e38])
def test_a_disc_of_any_finite_radius_is_drawn(radius: float) -> None:
    seen = draw(((0.0, 0.0, 2.0), FACING, radius))
    assert (seen.ids == 0).all()
    torch.testing.assert_close(seen.depth, torch.full_like(seen.depth, 2.0))


@pytest.mark.parametrize("depth", [2 * float(FAR), 1e25, 3e38])
@pytest.mark.parametrize("radius", [1.0, 1e30])
def test_what_is_so_far_that_squares_overflow_is_left_out(depth: float, radius: float) -> None:
    assert (draw(((0.0, 0.0, depth), FACING, radius)).ids == -1).all()


@pytest.mark.parametrize("backs", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_equals_every_ray_against_every_disc(seed: int, backs: bool) -> None:
    points, normals, radii = random_discs(150, seed)
    camera = Camera.look_at((0.5, -0.2, -1.0), (0.0, 0.0, 3.0), 70.0, 30, 22)
    seen = render_surfels(points, normals, radii, camera, backs=backs)
    slow = slow_map(points.numpy(), normals.numpy(), radii.numpy(), camera, backs)
    assert (slow >= 0).mean() > 0.3
    np.testing.assert_array_equal(seen.ids.numpy(), slow)


def test_many_blocks_equal_every_ray_against_every_disc() -> None:
    """More than one block, seen from among the discs, so that some cross the camera's plane."""
    points, normals, radii = random_discs(3 * N + 7, 11)
    camera = Camera.look_at((0.2, 0.1, 2.0), (1.0, -0.5, 5.0), 110.0, 21, 26)
    discs = points.numpy(), normals.numpy(), radii.numpy()
    for backs in (False, True):
        seen = render_surfels(points, normals, radii, camera, backs=backs)
        np.testing.assert_array_equal(seen.ids.numpy(), slow_map(*discs, camera, backs))


# ---------------------------------------------------------------- by law


@given(
    x=st.floats(-2.5, 2.5),
    y=st.floats(-2.5, 2.5),
    z=st.floats(-0.5, 6.0),
    lean=st.floats(0.0, math.pi),
    around=st.floats(0.0, 2 * math.pi),
    radius=st.sampled_from([1e-4, 0.02, 0.1, 0.4, 1.5, 20.0]),
)
def test_a_disc_covers_the_pixels_whose_rays_meet_it(
    x: float, y: float, z: float, lean: float, around: float, radius: float
) -> None:
    """All of them and no others, but for a thousandth of the radius at its rim."""
    normal = np.array(
        [math.sin(lean) * math.cos(around), math.sin(lean) * math.sin(around), math.cos(lean)]
    ).astype(np.float32)
    centre = np.array([x, y, z]).astype(np.float32)
    camera = Camera.from_fov(80.0, 37, 23)
    arrays = (torch.from_numpy(array)[None] for array in (centre, normal))
    seen = render_surfels(*arrays, torch.tensor([radius]), camera, backs=True)
    k = camera.px_from_cam.double().numpy()
    pixels = camera.pixel_centers().double().numpy()
    rays = np.concatenate([(pixels - k[:2, 2]) / k[[0, 1], [0, 1]], np.ones((23, 37, 1))], -1)
    p, n = centre.astype(np.float64), normal.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (p @ n) / (rays @ n)
        off = np.linalg.norm(depth[..., None] * rays - p, axis=-1) / radius
    sure = np.abs(rays @ n) > 1e-4  # others are seen edge-on
    drawn = seen.ids.numpy() == 0
    assert drawn[sure & (off < 0.999) & (depth > NEAR * 1.001)].all()
    assert drawn[sure & ((off > 1.001) | (depth < NEAR * 0.999))].sum() <= 1  # its own pixel
    met = drawn & sure & (off < 0.999)
    np.testing.assert_allclose(seen.depth.numpy()[met], depth[met], rtol=1e-3)


@pytest.fixture
def always_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surfels_module, "MIN_PARALLEL", 0)


@pytest.mark.usefixtures("always_parallel")
def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    discs, camera = random_discs(3000, 7), Camera.from_fov(70.0, 96, 64)
    threads = numba.get_num_threads()
    maps = []
    for count in sorted({1, threads}):
        numba.set_num_threads(count)
        maps += [render_surfels(*discs, camera), SurfelScene(*discs).render(camera)]
    numba.set_num_threads(threads)
    monkeypatch.setattr(surfels_module, "MIN_PARALLEL", 10_000)
    alone = render_surfels(*discs, camera)
    for seen in maps:
        assert_same_map(seen, alone)


@pytest.mark.usefixtures("always_parallel")
def test_python_threads_may_draw_at_once() -> None:
    discs, camera = random_discs(3000, 7), Camera.from_fov(70.0, 96, 64)
    alone, others, scene = render_surfels(*discs, camera), [], SurfelScene(*discs)

    def work() -> None:
        for _ in range(5):
            others.extend((render_surfels(*discs, camera).ids, scene.render(camera).ids))

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(others) == 30
    assert all(torch.equal(ids, alone.ids) for ids in others)


def test_moving_world_and_camera_together_changes_nothing() -> None:
    points, normals, radii = random_discs(200, 3)
    camera = Camera.from_fov(70.0, 40, 30)
    moved = camera.moved(right=0.4, down=-0.2, forward=0.3, yaw_degrees=25, pitch_degrees=10)
    turn = moved.world_from_cam
    there = render_surfels(
        points @ turn[:3, :3].T + turn[:3, 3], normals @ turn[:3, :3].T, radii, moved
    )
    here = render_surfels(points, normals, radii, camera)
    same = here.ids == there.ids
    assert same.float().mean() > 0.99  # all but the pixels on the rim of a disc
    torch.testing.assert_close(
        here.depth[same], there.depth[same], rtol=1e-4, atol=0, equal_nan=True
    )


def test_a_world_far_from_its_origin_loses_nothing() -> None:
    """Steps of 2^-10 m are exact in float32 also 4 km away; the camera's 2^-13 m are not."""
    points, normals, radii = random_discs(300, 5)
    points = (points * 1024).round() / 1024
    away, step = torch.tensor([4096.0, -1024.0, 2048.0]), torch.full((3,), 2.0**-13)
    camera = Camera.from_fov(70.0, 40, 30)
    near, far = (torch.eye(4, dtype=torch.float64) for _ in range(2))
    near[:3, 3], far[:3, 3] = -step.double(), -step.double() - away.double()
    here = render_surfels(points, normals, radii, camera.posed(near))
    assert (here.ids >= 0).float().mean() > 0.5
    assert_same_map(render_surfels(points + away, normals, radii, camera.posed(far)), here)
    assert_same_map(SurfelScene(points + away, normals, radii).render(camera.posed(far)), here)


def test_what_cannot_be_drawn_is_left_out() -> None:
    nan, inf = math.nan, math.inf
    good = ((0.0, 0.0, 2.0), FACING, 0.5)
    seen = draw(
        ((nan, 0.0, 1.0), FACING, 1.0),
        ((0.0, 0.0, 1.0), (nan, 0.0, -1.0), 1.0),
        ((0.0, 0.0, 1.0), FACING, nan),
        ((0.0, 0.0, 1.0), FACING, inf),
        ((0.0, 0.0, 1.0), FACING, 0.0),
        ((0.0, 0.0, inf), FACING, 1.0),
        ((0.0, 0.0, -1.0), FACING, 0.5),
        good,
    )
    assert set(seen.ids.unique().tolist()) == {-1, 7}


def test_a_disc_through_the_camera_plane_is_cut_there() -> None:
    """The floor 1 m below, centred at the camera: rows below the horizon see it at 1 / s."""
    seen = draw(((0.0, 1.0, 0.0), (0.0, -1.0, 0.0), 100.0))
    assert (seen.ids[:4] == -1).all()
    s = (torch.arange(4, 8) + 0.5 - 4) / 4
    torch.testing.assert_close(seen.depth[4:], (1 / s)[:, None].expand(4, 8))


def test_no_surfels_and_one_pixel() -> None:
    empty = render_surfels(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), CAMERA)
    assert (empty.ids == -1).all() and empty.ids.shape == (8, 8)
    one = draw(((0.0, 0.0, 2.0), FACING, 0.1), camera=Camera.from_fov(60.0, 1, 1))
    assert one.ids.tolist() == [[0]]


def test_pieces_of_rows_that_leave_the_image_lose_nothing() -> None:
    """A wall row by row, and the same with a surfel in every piece that no ball can hold."""
    wall = torch.cartesian_prod(torch.linspace(-3, 3, 62), torch.linspace(-3, 3, 70))
    points = torch.cat([wall, torch.full((len(wall), 1), 2.5)], 1)
    pieces = points.reshape(-1, PIECE - 1, 3)
    kept = torch.cat([torch.full((len(pieces), 1, 3), 3e38), pieces], 1).reshape(-1, 3)
    rows = torch.arange(len(points)) // (PIECE - 1) + torch.arange(len(points)) + 1
    camera, facing = Camera.from_fov(40.0, 48, 48), torch.tensor(FACING)
    for yaw in range(-60, 61, 5):
        turned = camera.moved(yaw_degrees=yaw)
        seen, whole = (
            render_surfels(p, facing.expand(len(p), 3), torch.full((len(p),), 0.05), turned).ids
            for p in (points, kept)
        )
        expected = torch.where(seen >= 0, rows[seen.clamp_min(0)], -1)
        assert torch.equal(whole, expected)


# ---------------------------------------------------------------- prepared scenes


@pytest.mark.parametrize("count", [1, N - 1, N, N + 1, 5 * N])
def test_a_scene_draws_the_same_bits(count: int) -> None:
    """From inside, outside, and where all of it is out of sight; with rows that cannot be drawn."""
    points, normals, radii = random_discs(count, count)
    spoilt = torch.arange(count) % 17 == 3
    points[spoilt, 0], radii[torch.arange(count) % 23 == 5] = math.nan, 0.0
    normals[torch.arange(count) % 29 == 7] = math.inf
    points[torch.arange(count) % 31 == 9] = 3e38  # drawable, but what block could hold it?
    scene = SurfelScene(points, normals, radii)
    assert len(scene) == count
    eyes = [(0.0, 0.0, 2.0), (0.0, 0.0, -9.0), (20.0, 3.0, 0.0)]
    for eye in eyes:
        for target in [(0.3, 0.1, 4.0), (40.0, 0.0, -9.0)]:
            camera = Camera.look_at(eye, target, 75.0, 41, 33)
            for backs in (False, True):
                plain = render_surfels(points, normals, radii, camera, backs=backs)
                assert_same_map(scene.render(camera, backs=backs), plain)


def test_a_scene_skips_no_block_that_shows_at_an_edge() -> None:
    """A wall of small discs; blocks, about square, come in with a corner first."""
    grid = torch.cartesian_prod(torch.linspace(-3, 3, 70), torch.linspace(-3, 3, 70))
    points = torch.cat([grid, torch.full((len(grid), 1), 2.5)], 1)
    normals, radii = torch.tensor(FACING).expand(len(grid), 3), torch.full((len(grid),), 0.05)
    scene, camera = SurfelScene(points, normals, radii), Camera.from_fov(40.0, 48, 48)
    roll = torch.eye(4)
    roll[:2, :2] = math.sqrt(0.5) * torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    for yaw in range(-60, 61, 5):
        turned = camera.moved(yaw_degrees=yaw)
        turned = turned.posed(roll @ turned.cam_from_world)
        assert_same_map(scene.render(turned), render_surfels(points, normals, radii, turned))


def test_ties_in_a_scene_go_to_the_lower_row() -> None:
    """Coplanar discs, sorted by place when the scene is made, that all cover the middle."""
    turn = torch.linspace(0.0, 2 * math.pi, 4 * N)[
        torch.randperm(4 * N, generator=torch.manual_seed(0))
    ]
    points = torch.stack([turn.cos(), turn.sin(), torch.full_like(turn, 2.0)], 1)
    normals = torch.tensor(FACING).expand(4 * N, 3)
    scene = SurfelScene(points, normals, torch.full((4 * N,), 1.5))
    assert (scene.render(CAMERA).ids[3:5, 3:5] == 0).all()


def test_a_scene_is_a_copy() -> None:
    points, normals, radii = random_discs(100, 2)
    scene, before = (
        SurfelScene(points, normals, radii),
        render_surfels(points, normals, radii, CAMERA),
    )
    points += 1.0
    radii *= 0.0
    assert_same_map(scene.render(CAMERA), before)


@pytest.mark.parametrize("radius", [0.0, math.nan])
@pytest.mark.parametrize("count", [0, 5])
def test_a_scene_of_nothing_shows_nothing(count: int, radius: float) -> None:
    scene = SurfelScene(torch.zeros(count, 3), torch.ones(count, 3), torch.full((count,), radius))
    assert (scene.render(CAMERA).ids == -1).all() and torch.isnan(scene.render(CAMERA).depth).all()


def test_arrays_that_disagree_are_an_error() -> None:
    with pytest.raises(SceneError, match="radii has shape"):
        unchecked = inspect.unwrap(render_surfels)  # what users run, without the test-time checker
        unchecked(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(3), CAMERA)
    with pytest.raises(SceneError, match="normals has shape"):
        unchecked = inspect.unwrap(SurfelScene.__init__)
        unchecked(object.__new__(SurfelScene), torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2))


# ---------------------------------------------------------------- surfels of a view


def plane_depth(camera: Camera, normal: np.ndarray, distance: float) -> np.ndarray:
    """Depth of the plane ``normal . x = distance`` in the camera frame; +inf where it is missed."""
    k = camera.px_from_cam.double().numpy()
    px = camera.pixel_centers().double().numpy()
    rays = np.concatenate([px, np.ones((*px.shape[:2], 1))], -1) @ np.linalg.inv(k).T
    slope = rays @ normal
    with np.errstate(divide="ignore"):
        return np.where(slope > 1e-9, distance / slope, np.inf).astype(np.float32)


def samples_of(camera: Camera, depth: np.ndarray, side: int = 128, detail: float = 0.0) -> Samples:
    rgb = np.full((*depth.shape, 3), 0.5, np.float32)
    return sample_view(make_view(rgb, depth, camera, "observed"), side, detail)


@given(tilt=st.floats(0.0, 60.0), turn=st.floats(0.0, 360.0), distance=st.floats(0.5, 50.0))
def test_every_cell_of_a_plane_gives_its_normal(tilt: float, turn: float, distance: float) -> None:
    """Last rows and columns included: nothing is lost at the border, no normal is zero."""
    lean, around = math.radians(tilt), math.radians(turn)
    normal = np.array(
        [math.sin(lean) * math.cos(around), math.sin(lean) * math.sin(around), math.cos(lean)]
    )
    camera = Camera.from_fov(50.0, 48, 32)
    samples = samples_of(camera, plane_depth(camera, normal, distance), side=24)
    assert len(samples) == 24 * 16
    np.testing.assert_allclose(samples.normals, np.tile(-normal, (len(samples), 1)), atol=1e-3)
    np.testing.assert_allclose(samples.points @ normal, distance, rtol=1e-5)


def test_radius_by_hand() -> None:
    """A wall at 3 m, focal length 24 px, cells of 2 px: half the diagonal of 0.25 m squares."""
    camera = Camera.from_fov(90.0, 48, 32)
    samples = samples_of(camera, np.full((32, 48), 3.0, np.float32), side=24)
    np.testing.assert_allclose(samples.radii, 1.1 * 0.5 * math.sqrt(2) * 0.25, rtol=1e-5)


def test_near_walls_take_fewer_surfels_that_cover_them() -> None:
    """A wall at 0.5 m, cells of 42 mm: blocks of 2x2 have a radius of 65 mm, of 4x4 of 130 mm."""
    camera = Camera.from_fov(90.0, 48, 32)
    samples = samples_of(camera, np.full((32, 48), 0.5, np.float32), side=24, detail=0.1)
    assert len(samples) == 12 * 8
    np.testing.assert_allclose(samples.radii, 1.1 * math.sqrt(2) * 0.5 * 2 / 24, rtol=1e-5)
    corners = np.stack(np.meshgrid(np.linspace(-0.49, 0.49, 40), np.linspace(-0.32, 0.32, 40)), -1)
    away = np.linalg.norm(corners.reshape(-1, 1, 2) - samples.points[:, :2], axis=2)
    assert (away <= samples.radii).any(1).all()


def test_blocks_are_split_where_depth_steps() -> None:
    """The step lies in the middle of a column of blocks, which falls into single cells."""
    camera = Camera.from_fov(90.0, 48, 32)
    depth = np.full((32, 48), 0.5, np.float32)
    depth[:, 22:] = 0.53
    samples = samples_of(camera, depth, side=24, detail=0.1)
    assert len(samples) == 11 * 8 + 2 * 16
    assert set(samples.depths.round(4).tolist()) == {np.float32(0.5), np.float32(0.53)}


def test_blocks_on_oblique_ground_are_wide_and_tile_the_picture() -> None:
    """A cell near the feet is longer than wide: taken together are cells that lie side by side."""
    camera = Camera.from_fov(90.0, 96, 64)
    samples = samples_of(camera, plane_depth(camera, np.array([0, 1.0, 0.0]), 1.0), 96, detail=0.1)
    taken = np.zeros(samples.grid, np.int64)
    for row, column, high, wide in samples.cells:
        taken[row : row + high, column : column + wide] += 1
    assert samples.grid == (64, 96) and taken.max() == 1 and (taken[40:] == 1).all()
    _, _, high, wide = samples.cells.T
    several = high * wide > 1
    assert several.any() and (samples.radii[several] <= 0.1).all()
    assert (wide >= high).all() and wide[several].sum() > 1.5 * high[several].sum()


@pytest.mark.parametrize("size", [(128, 72), (768, 432)])
def test_ground_at_a_grazing_angle_stays(size: tuple[int, int]) -> None:
    """Seen from 1.6 m, ground is so oblique that neighbouring rows differ by 20 % in depth."""
    camera = Camera.from_fov(60.0, *size)
    depth = plane_depth(camera, np.array([0.0, 1.0, 0.0]), 1.6)
    samples = samples_of(camera, depth)
    assert len(samples) >= 0.97 * 128 * 36  # half of the picture is ground
    np.testing.assert_allclose(
        samples.normals, np.tile([0.0, -1.0, 0.0], (len(samples), 1)), atol=1e-3
    )
    assert samples.points[:, 2].max() > 40.0


def test_noisy_depth_gives_steady_normals() -> None:
    camera = Camera.from_fov(60.0, 96, 64)
    noise = np.random.default_rng(0).normal(1.0, 0.002, (64, 96))
    samples = samples_of(camera, (3.0 * noise).astype(np.float32), side=48)
    assert len(samples) > 0.99 * 48 * 32
    assert (samples.normals @ [0.0, 0.0, -1.0] > math.cos(math.radians(20))).mean() > 0.95


@pytest.mark.parametrize("blur", [1, 2, 3])
def test_pixels_that_fly_between_two_surfaces_give_no_surfels(blur: int) -> None:
    depth = np.full((32, 48), 2.0, np.float32)
    depth[:, 24:] = 4.0
    depth[:, 24 : 24 + blur] = np.linspace(2.0, 4.0, blur + 2, dtype=np.float32)[1:-1]
    camera = Camera.from_fov(60.0, 48, 32)
    samples = samples_of(camera, depth)
    z = samples.depths
    assert (np.isclose(z, 2.0) | np.isclose(z, 4.0)).all()
    assert np.isclose(z, 2.0).sum() >= 23 * 32 and np.isclose(z, 4.0).sum() >= (23 - blur) * 32
    np.testing.assert_allclose(samples.normals[:, 2], -1.0, atol=1e-3)  # the step bends no normal


def test_sky_and_the_unknown_give_no_surfels() -> None:
    depth = np.full((32, 48), 2.0, np.float32)
    depth[:16], depth[:, :10] = np.inf, np.nan
    samples = samples_of(Camera.from_fov(60.0, 48, 32), depth)
    assert len(samples) == 16 * 38


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (3, 5)])
def test_tiny_pictures_give_few_surfels_or_none(shape: tuple[int, int]) -> None:
    camera = Camera.from_fov(60.0, shape[1], shape[0])
    samples = samples_of(camera, np.full(shape, 2.0, np.float32))
    assert len(samples) in (0, shape[0] * shape[1])
    assert np.isfinite(samples.points).all() and np.isfinite(samples.normals).all()


MOVES = [{}, {"forward": 0.5}, {"right": 0.4, "yaw_degrees": -15}, {"down": -0.3, "forward": 0.3}]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("normal", [(0.0, 0.0, 1.0), (0.8, 0.0, 0.6), (0.0, 0.9, 0.436)])
def test_the_discs_of_a_plane_have_no_holes(
    normal: tuple[float, float, float], move: dict[str, float]
) -> None:
    unit = np.array(normal) / np.linalg.norm(normal)
    camera = Camera.from_fov(60.0, 150, 100)
    samples = samples_of(camera, plane_depth(camera, unit, 2.0), side=64)
    closer = camera.resized(300, 200).moved(**move)
    points, normals, radii = map(torch.from_numpy, (samples.points, samples.normals, samples.radii))
    seen = render_surfels(points, normals, radii, closer)
    pose = closer.cam_from_world.double().numpy()
    turned = pose[:3, :3] @ unit
    exact = plane_depth(closer, turned, 2.0 + float(turned @ pose[:3, 3]))
    points = closer.unproject(
        closer.pixel_centers(), torch.from_numpy(exact).nan_to_num(posinf=1e6)
    )
    pixels, depth = camera.project(points)
    border = 3.0
    inside = (
        (depth > 0)
        & (pixels > border).all(-1)
        & (pixels[..., 0] < camera.width - border)
        & (pixels[..., 1] < camera.height - border)
    ).numpy()
    assert inside.mean() > 0.3
    assert (seen.ids.numpy()[inside] >= 0).all()
    np.testing.assert_allclose(seen.depth.numpy()[inside], exact[inside], rtol=2e-3)
