"""Camera: by hand, and by the laws that tie its methods to one another."""

from __future__ import annotations

import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from renderers import Camera, SceneError

LENS = torch.tensor([[80.0, 0.0, 5.5], [0.0, 120.0, 3.25], [0.0, 0.0, 1.0]], dtype=torch.float64)
"""fx != fy, and the principal point off the centre of a 9 x 7 image."""

steps = st.floats(-3, 3)
turns = st.floats(-170, 170)
pixels = st.floats(-20, 30)
depths = st.floats(0.1, 1e3)


def camera(right: float = 0.3, yaw: float = 25.0, pitch: float = -10.0) -> Camera:
    still = Camera(LENS, torch.eye(4, dtype=torch.float64), 9, 7)
    return still.moved(right=right, down=-0.7, forward=0.2, yaw_degrees=yaw, pitch_degrees=pitch)


def close(got: torch.Tensor, want: torch.Tensor | list[float], atol: float = 1e-9) -> None:
    want = torch.as_tensor(want, dtype=got.dtype)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=atol)


@pytest.fixture
def no_shape_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users run without the checks of conftest.py: shows them what we do with their input."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_project_by_hand() -> None:
    """u = 80 * 1 / 4 + 5.5, v = 120 * 2 / 4 + 3.25."""
    px, depth = Camera(LENS, torch.eye(4), 9, 7).project(torch.tensor([1.0, 2.0, 4.0]))
    close(px, [25.5, 63.25])
    assert depth.item() == 4.0


def test_a_pose_takes_world_points_to_the_camera() -> None:
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([0.0, 0.0, 5.0])  # the world's origin lies 5 m ahead
    moved = Camera(LENS, pose, 9, 7)
    close(moved.center, [0.0, 0.0, -5.0])
    assert moved.project(torch.zeros(3))[1].item() == 5.0


@given(u=pixels, v=pixels, depth=depths, right=steps, yaw=turns, pitch=turns)
def test_project_undoes_unproject(
    u: float, v: float, depth: float, right: float, yaw: float, pitch: float
) -> None:
    view = camera(right, yaw, pitch)
    px = torch.tensor([u, v], dtype=torch.float64)
    back, z = view.project(view.unproject(px, torch.tensor(depth, dtype=torch.float64)))
    close(back, px, atol=1e-7)
    close(z, torch.tensor(depth, dtype=torch.float64), atol=1e-7)


@given(right=steps, yaw=turns, pitch=turns, seed=st.integers(0, 99))
def test_unproject_undoes_project(right: float, yaw: float, pitch: float, seed: int) -> None:
    view = camera(right, yaw, pitch)
    points = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed)).double()
    px, depth = view.project(points)
    assert px.shape == (4, 5, 2) and depth.shape == (4, 5)
    good = depth.abs() > 1e-3  # behind the camera too
    torch.testing.assert_close(view.unproject(px, depth)[good], points[good], rtol=0, atol=1e-7)


@given(right=steps, yaw=turns, pitch=turns)
def test_world_from_cam_inverts_the_pose(right: float, yaw: float, pitch: float) -> None:
    view = camera(right, yaw, pitch)
    close(view.world_from_cam @ view.cam_from_world, torch.eye(4), atol=1e-12)
    close(view.cam_from_world[:3, :3] @ view.center + view.cam_from_world[:3, 3], torch.zeros(3))


def test_project_has_gradients() -> None:
    points = torch.tensor([[0.1, 0.2, 3.0], [-1.0, 0.5, 2.0]], dtype=torch.float64)
    pose = camera().cam_from_world.clone().requires_grad_()

    def run(points: torch.Tensor, pose: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        return Camera(lens, pose, 9, 7).project(points)[0]

    inputs = (points.requires_grad_(), pose, LENS.clone().requires_grad_())
    assert torch.autograd.gradcheck(run, inputs)


def test_unproject_has_gradients() -> None:
    px = torch.tensor([[1.0, 2.0], [7.5, 3.0]], dtype=torch.float64, requires_grad=True)
    depth = torch.tensor([2.0, 5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(camera().unproject, (px, depth))


@given(fov=st.floats(5, 170), width=st.integers(1, 500), height=st.integers(1, 500))
def test_from_fov_sees_that_angle(fov: float, width: int, height: int) -> None:
    view = Camera.from_fov(fov, width, height)
    assert math.isclose(view.fov_degrees, fov, rel_tol=1e-5)
    half = math.radians(fov) / 2
    edge = torch.tensor([math.sin(half), 0.0, math.cos(half)], dtype=torch.float64)
    px, _ = view.project(edge)
    torch.testing.assert_close(
        px, torch.tensor([width, height / 2], dtype=torch.float64), rtol=1e-5, atol=1e-6
    )


def test_fov_of_an_off_centre_camera_by_hand() -> None:
    """atan(5.5 / 80) + atan(3.5 / 80)."""
    assert math.isclose(camera().fov_degrees, 3.932807 + 2.505069, abs_tol=1e-3)


@given(eye=st.tuples(steps, steps, steps), target=st.tuples(steps, steps, steps))
def test_look_at_centres_the_target_with_up_upwards(
    eye: tuple[float, float, float], target: tuple[float, float, float]
) -> None:
    start, aim = torch.tensor(eye, dtype=torch.float64), torch.tensor(target, dtype=torch.float64)
    if (aim - start)[[0, 2]].norm() < 0.1:  # nearly straight up or down
        return
    view = Camera.look_at(eye, target, 60, 40, 30)
    torch.testing.assert_close(view.center.double(), start, rtol=0, atol=1e-5)
    px, depth = view.project(aim)
    torch.testing.assert_close(px, torch.tensor([20.0, 15.0]).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(depth, (aim - start).norm(), rtol=0, atol=1e-5)
    above, _ = view.project(aim + 0.01 * torch.tensor([0.0, -1.0, 0.0]).double())
    assert above[1] < px[1] and abs(above[0] - px[0]) < 1e-2


def test_look_at_takes_another_up() -> None:
    view = Camera.look_at((0, 0, 0), (0, 0, 1), 60, 40, 30, up=(1, 0, 0))
    px, _ = view.project(torch.tensor([0.1, 0.0, 1.0]))  # up in the world is up in the image
    assert px[1] < 15.0 and abs(px[0] - 20.0) < 1e-4


@pytest.mark.parametrize(
    ("move", "center"),
    [({"right": 2.0}, [2, 0, 0]), ({"down": 2.0}, [0, 2, 0]), ({"forward": 2.0}, [0, 0, 2])],
)
def test_moved_steps(move: dict[str, float], center: list[float]) -> None:
    close(Camera(LENS, torch.eye(4), 9, 7).moved(**move).center, center)


def test_moved_turns() -> None:
    still = Camera(LENS, torch.eye(4, dtype=torch.float64), 9, 7)
    ahead = torch.tensor([0.0, 0.0, 10.0], dtype=torch.float64)
    right, _ = still.moved(yaw_degrees=10).project(ahead)
    assert right[0] < 5.5 and math.isclose(right[1], 3.25)  # turning right moves it left
    up, _ = still.moved(pitch_degrees=10).project(ahead)
    assert up[1] > 3.25 and math.isclose(up[0], 5.5)  # looking up moves it down
    close(still.moved(yaw_degrees=90).world_from_cam[:3, 2], [1, 0, 0], atol=1e-12)


@given(right=steps, down=steps, forward=steps, yaw=turns)
def test_moved_is_in_the_cameras_own_frame(
    right: float, down: float, forward: float, yaw: float
) -> None:
    start = camera(yaw=yaw)
    step = torch.tensor([right, down, forward], dtype=torch.float64)
    there = start.moved(right=right, down=down, forward=forward)
    close(there.center, start.center + start.world_from_cam[:3, :3] @ step, atol=1e-9)
    back = there.moved(right=-right, down=-down, forward=-forward)
    close(back.cam_from_world, start.cam_from_world, atol=1e-9)
    turned = start.moved(yaw_degrees=yaw).moved(yaw_degrees=-yaw)
    close(turned.cam_from_world, start.cam_from_world, atol=1e-9)


@given(width=st.integers(1, 100), height=st.integers(1, 100))
def test_resized_keeps_the_view(width: int, height: int) -> None:
    view, point = camera(), torch.tensor([0.3, -0.2, 4.0], dtype=torch.float64)
    resized = view.resized(width, height)
    assert (resized.width, resized.height) == (width, height)
    scale = torch.tensor([width / 9, height / 7], dtype=torch.float64)
    torch.testing.assert_close(
        resized.project(point)[0], view.project(point)[0] * scale, rtol=1e-5, atol=1e-4
    )
    assert math.isclose(resized.fov_degrees, view.fov_degrees, rel_tol=1e-5)


def test_posed_keeps_the_lens() -> None:
    posed = camera().posed(torch.eye(4))
    close(posed.center, [0.0, 0.0, 0.0])
    assert torch.equal(posed.px_from_cam, LENS)


def test_pixel_centers() -> None:
    centers = camera().pixel_centers()
    assert centers.shape == (7, 9, 2)
    close(centers[0, 0], [0.5, 0.5])
    close(centers[6, 8], [8.5, 6.5])


def test_whole_numbers_become_floats(no_shape_hook: None) -> None:
    view = Camera(torch.tensor([[80, 0, 5], [0, 80, 3], [0, 0, 1]]), torch.eye(4).long(), 9, 7)
    assert view.px_from_cam.is_floating_point() and view.cam_from_world.is_floating_point()
    px, _ = view.project(torch.tensor([0, 0, 2]))
    close(px, [5.0, 3.0])


def pose_with(row: int, column: int, value: float) -> torch.Tensor:
    pose = torch.eye(4)
    pose[row, column] = value
    return pose


@pytest.mark.parametrize("lens", [torch.eye(4), torch.eye(3)[:2], torch.tensor(80.0)])
def test_wrong_shapes_are_refused(no_shape_hook: None, lens: torch.Tensor) -> None:
    with pytest.raises(SceneError) as caught:
        Camera(lens, torch.eye(4), 9, 7)
    assert caught.value.what == f"Camera.px_from_cam has shape {tuple(lens.shape)}"
    assert caught.value.why == "it must be (3, 3)"


def lens_with(row: int, column: int, value: float) -> torch.Tensor:
    lens = LENS.clone()
    lens[row, column] = value
    return lens


@pytest.mark.parametrize(
    ("lens", "pose", "size", "why"),
    [
        (LENS, torch.eye(4), (0, 7), "the image is 0 x 7 pixels"),
        (LENS, torch.eye(4), (9, -1), "the image is 9 x -1 pixels"),
        (LENS, pose_with(0, 3, math.nan), (9, 7), "its matrices hold NaN or infinity"),
        (lens_with(0, 2, math.inf), torch.eye(4), (9, 7), "its matrices hold NaN or infinity"),
        (lens_with(0, 0, 0.0), torch.eye(4), (9, 7), "its focal length is not positive"),
        (lens_with(1, 1, -5.0), torch.eye(4), (9, 7), "its focal length is not positive"),
        (LENS, 2 * torch.eye(4), (9, 7), "not a rotation and a translation"),
        (LENS, pose_with(0, 0, -1.0), (9, 7), "not a rotation and a translation"),  # a mirror
        (LENS, pose_with(3, 0, 2.0), (9, 7), "not a rotation and a translation"),  # transposed
    ],
)
def test_impossible_cameras(
    lens: torch.Tensor, pose: torch.Tensor, size: tuple[int, int], why: str
) -> None:
    with pytest.raises(SceneError, match="this is not a camera") as caught:
        Camera(lens, pose, *size)
    assert why in caught.value.why
    assert "check the intrinsics and the pose" in caught.value.fix


@pytest.mark.parametrize("fov", [0.0, -10.0, 180.0, math.nan])
def test_impossible_fields_of_view(fov: float) -> None:
    with pytest.raises(SceneError, match=r"a field of view of .* degrees is impossible"):
        Camera.from_fov(fov, 9, 7)


@pytest.mark.parametrize("target", [(0, 0, 0), (0, 5, 0)])
def test_look_at_without_a_direction(target: tuple[float, float, float]) -> None:
    with pytest.raises(SceneError, match="the camera's orientation is undefined"):
        Camera.look_at((0, 0, 0), target, 60, 9, 7)
