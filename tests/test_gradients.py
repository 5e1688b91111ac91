"""The CPU renderer's gradients: against autograd through the reference, and by law."""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from splat_scenes import cloud, room, small_camera, splat

from renderers import Camera, Render, SceneError, Splats, join, make_renderer

FIELDS = ("means", "quats", "scales", "opacities", "colors", "sh")
BACKGROUND = (0.2, 0.5, 0.9)
CAMERA = Camera(
    torch.tensor([[60.0, 0.0, 27.3], [0.0, 52.0, 24.9], [0.0, 0.0, 1.0]]), torch.eye(4), 61, 45
).moved(right=0.2, yaw_degrees=12)


def leaves(scene: Splats, dtype: torch.dtype = torch.float64) -> Splats:
    """The same splats, every field a leaf that collects its gradient."""
    return scene._map(lambda values: values.detach().clone().to(dtype).requires_grad_())


def weighted(render: Render, seed: int = 1) -> torch.Tensor:
    """A loss that looks at every pixel of every channel, each with a weight of its own."""
    rng = torch.Generator().manual_seed(seed)
    shape = render.alpha.shape
    rgb = torch.randn(*shape, 3, generator=rng, dtype=torch.float64)
    alpha = torch.randn(shape, generator=rng, dtype=torch.float64)
    depth = 0.1 * torch.randn(shape, generator=rng, dtype=torch.float64)
    known = ~render.depth.isnan()
    total = (render.rgb.double() * rgb).sum() + (render.alpha.double() * alpha).sum()
    return total + (torch.where(known, render.depth.double(), 0.0) * depth).sum()


def gradients(
    name: str, scene: Splats, camera: Camera = CAMERA, *, antialiased: bool = False
) -> dict[str, torch.Tensor]:
    scene = leaves(scene)
    pose = camera.cam_from_world.double().requires_grad_()
    render = make_renderer(name).render(
        scene, camera.posed(pose), BACKGROUND, antialiased=antialiased
    )
    weighted(render).backward()
    found = {field: getattr(scene, field) for field in FIELDS} | {"pose": pose}
    return {key: value.grad for key, value in found.items() if value is not None}


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize(
    "make", [lambda: cloud(300), lambda: cloud(200, degree=3), lambda: room(2500)]
)
def test_gradients_equal_autograd_through_the_reference(
    make: Callable[[], Splats], antialiased: bool
) -> None:
    scene = make()
    got = gradients("cpu", scene, antialiased=antialiased)
    want = gradients("reference", scene, antialiased=antialiased)
    errors = {field: relative(got[field], want[field]) for field in want}
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("degree", [1, 2])
def test_gradients_of_lower_harmonics(degree: int) -> None:
    scene = cloud(80, degree=degree)
    got, want = gradients("cpu", scene), gradients("reference", scene)
    assert relative(got["sh"], want["sh"]) < 1e-5
    assert relative(got["means"], want["means"]) < 1e-5


def test_gradients_of_opaque_layers() -> None:
    """Many finished pixels, clamped alphas, and splats that nothing shows of."""
    scene = cloud(600, seed=5)
    opaque = Splats(
        scene.means, scene.quats, scene.scales * 3, 0.7 + 0.3 * scene.opacities, scene.colors
    )
    got, want = gradients("cpu", opaque), gradients("reference", opaque)
    # a pixel may finish one splat earlier or later: rare, and loud
    for field in ("means", "colors", "opacities"):
        close = (got[field] - want[field]).abs() <= 1e-3 * want[field].abs().max()
        assert close.double().mean() > 0.995


def test_gradients_do_not_depend_on_threads_or_on_the_run() -> None:
    scene, before, seen = cloud(1500, degree=2), numba.get_num_threads(), []
    try:
        for threads in sorted({1, min(2, before), before}) * 2:
            numba.set_num_threads(threads)
            seen.append(gradients("cpu", scene))
    finally:
        numba.set_num_threads(before)
    for other in seen[1:]:
        for field, value in seen[0].items():
            assert torch.equal(other[field], value), field


def test_the_picture_is_the_same_with_and_without_gradients() -> None:
    scene = cloud(500, degree=1)
    plain = make_renderer("cpu").render(scene, CAMERA, BACKGROUND, details=True)
    taped = make_renderer("cpu").render(leaves(scene), CAMERA, BACKGROUND, details=True)
    assert taped.rgb.requires_grad and taped.alpha.requires_grad and taped.depth.requires_grad
    assert torch.equal(plain.rgb, taped.rgb) and torch.equal(plain.alpha, taped.alpha)
    assert plain.details is not None and taped.details is not None
    assert torch.equal(plain.details.top_ids, taped.details.top_ids)
    with torch.no_grad():
        assert not make_renderer("cpu").render(leaves(scene), CAMERA).rgb.requires_grad


def test_what_is_not_seen_has_no_gradient() -> None:
    """Behind the camera, beside the image, not drawable: zero, never NaN."""
    scene = cloud(40)
    scene.means[3, 2], scene.means[5, 0] = -2.0, 100.0
    scene.means[7, 1], scene.quats[9] = math.nan, 0.0
    found = gradients("cpu", scene)
    for field in FIELDS[:5]:
        assert (found[field][[3, 5, 7, 9]] == 0).all(), field
        assert found[field].isfinite().all() and found[field].any()


def test_one_input_may_require_gradients_alone() -> None:
    scene = cloud(30)
    scene.colors.requires_grad_()
    make_renderer("cpu").render(scene, CAMERA).rgb.sum().backward()
    assert scene.colors.grad is not None and scene.colors.grad.any()
    assert scene.means.grad is None


def test_gradients_come_in_the_dtype_of_the_input() -> None:
    scene = leaves(cloud(30), torch.float32)
    make_renderer("cpu").render(scene, CAMERA).rgb.sum().backward()
    assert all(getattr(scene, f).grad.dtype == torch.float32 for f in FIELDS[:5])


def test_cameras_of_a_batch_add_up() -> None:
    cameras = [CAMERA, CAMERA.moved(right=0.4)]
    both = leaves(cloud(100))
    sum(r.rgb.sum() for r in make_renderer("cpu").render_batch(both, cameras)).backward()
    parts = []
    for camera in cameras:
        one = leaves(cloud(100))
        make_renderer("cpu").render(one, camera).rgb.sum().backward()
        parts.append(one.means.grad)
    torch.testing.assert_close(both.means.grad, parts[0] + parts[1], rtol=1e-6, atol=1e-9)


def test_intrinsics_get_no_gradient() -> None:
    lens = small_camera().px_from_cam.float().requires_grad_()
    camera = Camera(lens, torch.eye(4), 9, 9)
    with pytest.raises(SceneError) as caught:
        make_renderer("cpu").render(cloud(5), camera)
    assert str(caught.value) == (
        "the intrinsics get no gradient\n"
        "  why: this renderer differentiates in the splats and in the camera's pose only\n"
        "  fix: detach px_from_cam, or use renderer 'reference'"
    )
    with torch.no_grad():
        make_renderer("cpu").render(cloud(5), camera)


def test_gradients_of_an_empty_scene() -> None:
    scene = leaves(Splats.empty())
    out = make_renderer("cpu").render(scene, small_camera(), BACKGROUND)
    out.rgb.sum().backward()
    assert scene.means.grad is not None and scene.means.grad.shape == (0, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 33), (17, 1), (40, 16)])
def test_gradients_in_any_image(size: tuple[int, int]) -> None:
    scene, camera = splat(1.0, 0.6, (1.0, 0.5, 0.0), scale=0.3), small_camera(*size)
    got, want = gradients("cpu", scene, camera), gradients("reference", scene, camera)
    for field in want:
        torch.testing.assert_close(got[field], want[field], rtol=1e-4, atol=1e-5)


ANY = st.one_of(
    st.sampled_from([0.0, -1.0, 1.0, math.nan, math.inf, -math.inf, 1e-38, 1e38, 1e9, 1e-9]),
    st.floats(width=32),
    st.floats(-3, 3, width=32),
)


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(*[ANY] * 14), min_size=0, max_size=6),
    size=st.sampled_from([(1, 1), (9, 7), (33, 20)]),
    antialiased=st.booleans(),
)
def test_whatever_is_fed_pictures_and_gradients_are_finite(
    rows: list[tuple[float, ...]], size: tuple[int, int], antialiased: bool
) -> None:
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 14)
    scene = leaves(
        Splats(values[:, :3], values[:, 3:7], values[:, 7:10], values[:, 10], values[:, 11:]),
        torch.float32,
    )
    out = make_renderer("cpu").render(
        scene, small_camera(*size), antialiased=antialiased, details=True
    )
    weighted(out).backward()
    drawn = (scene.colors.detach().abs() < 1e30).all()
    assert out.alpha.isfinite().all() and (out.rgb.isfinite().all() or not drawn)
    for field in FIELDS[:5]:
        gradient = getattr(scene, field).grad
        assert not gradient.isnan().any(), field


@pytest.mark.parametrize("depth", [1e37, 3e37, 1e38, 3e38])
@pytest.mark.parametrize("size", [(9, 7), (33, 20)])
def test_gradients_beyond_float32_are_not_nan(depth: float, size: tuple[int, int]) -> None:
    """Depth times its gradient overflows, with either sign: the sum over pixels has no value."""
    far = splat(depth, 1.0, (0.0, 0.0, 0.0), scale=0.0)
    scene = leaves(join([far, splat(2.0, 0.5, (0.2, 0.5, 0.8))]), torch.float32)
    camera = small_camera(*size)
    pose = camera.cam_from_world.clone().requires_grad_()
    weighted(make_renderer("cpu").render(scene, camera.posed(pose), details=True)).backward()
    for field in FIELDS[:5]:
        assert not getattr(scene, field).grad.isnan().any(), field
    assert pose.grad is not None and pose.grad.isfinite().all()
