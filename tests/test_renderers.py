"""The contract of renderers, for every backend that runs here: by hand, and by law."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from splat_scenes import cloud, rotation_of, small_camera, splat, transformed

from renderers import RENDERERS, Camera, Render, Splats, join, make_renderer
from renderers.base import ALPHA_MAX, NEAR

RUNNABLE = [name for name, backend in RENDERERS.items() if backend.missing() is None]
RED, GREEN, BLUE = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)

every_renderer = pytest.mark.parametrize("name", RUNNABLE)


def draw(
    name: str, scene: Splats, camera: Camera, background: Sequence[float] = (0.0, 0.0, 0.0)
) -> Render:
    """The picture in float64 on the CPU, whatever the backend works with."""
    out = make_renderer(name).render(scene, camera, background)
    return Render(out.rgb.cpu().double(), out.alpha.cpu().double(), out.depth.cpu().double())


def close(got: torch.Tensor, want: float | Sequence[float], atol: float = 1e-5) -> None:
    torch.testing.assert_close(
        got, torch.as_tensor(want, dtype=got.dtype).expand_as(got), rtol=0, atol=atol
    )


def same_picture(a: Render, b: Render) -> None:
    for left, right in ((a.rgb, b.rgb), (a.alpha, b.alpha), (a.depth, b.depth)):
        torch.testing.assert_close(left, right, rtol=0, atol=0, equal_nan=True)


@every_renderer
def test_two_splats_by_hand(name: str) -> None:
    """Red at 1 m in front of blue at 2 m. Footprint variance (f s / z)^2 + 0.3 = 1.3 px^2.

    centre pixel:      red 0.6,                 blue (1 - 0.6) * 0.5 = 0.2
    one pixel right:   red 0.6 exp(-0.5 / 1.3) = 0.408435
    expected depth:    (0.6 * 1 + 0.2 * 2) / 0.8 = 1.25
    """
    scene = join([splat(2.0, 0.5, BLUE), splat(1.0, 0.6, RED)])
    out = draw(name, scene, small_camera())
    close(out.rgb[4, 4], [0.6, 0.0, 0.2])
    close(out.rgb[4, 5, 0], 0.408435)
    close(out.alpha[4, 4], 0.8)
    close(out.depth[4, 4], 1.25)


@every_renderer
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (17, 31), (50, 33)])
def test_one_splat_by_hand_in_any_image(name: str, size: tuple[int, int]) -> None:
    """Alpha 0.6 exp(-0.5 d^2 / 4.3) down to 1 / 255; the depth is its own wherever it shows."""
    width, height = size
    out = draw(name, splat(1.0, 0.6, GREEN, scale=0.2), small_camera(width, height))
    rows = torch.arange(height).double()[:, None] + 0.5 - height / 2
    columns = torch.arange(width).double() + 0.5 - width / 2
    want = 0.6 * torch.exp(-0.5 * (rows**2 + columns**2) / 4.3)
    want[want < 1 / 255] = 0.0
    torch.testing.assert_close(out.alpha, want, rtol=0, atol=1e-6)
    torch.testing.assert_close(out.rgb[..., 1], want, rtol=0, atol=1e-6)
    depth = torch.where(want > 0, 1.0, math.nan).double()
    torch.testing.assert_close(out.depth, depth, rtol=0, atol=1e-4, equal_nan=True)


@every_renderer
@pytest.mark.parametrize("scene", [Splats.empty(), splat(-1.0, 0.9, RED), splat(0.0, 0.9, RED)])
def test_nothing_in_view_shows_the_background(name: str, scene: Splats) -> None:
    out = draw(name, scene, small_camera(), (0.25, 0.5, 1.0))
    close(out.rgb, [0.25, 0.5, 1.0], atol=0)
    close(out.alpha, 0.0, atol=0)
    assert out.depth.isnan().all()


@every_renderer
def test_the_near_plane(name: str) -> None:
    near, beyond = (
        splat(NEAR * 0.99, 0.9, RED, scale=1e-4),
        splat(NEAR * 1.01, 0.9, RED, scale=1e-4),
    )
    assert draw(name, near, small_camera()).alpha.max() == 0
    close(draw(name, beyond, small_camera()).alpha[4, 4], 0.9)


@every_renderer
def test_background_shines_through(name: str) -> None:
    out = draw(name, splat(1.0, 0.6, RED), small_camera(), (0.2, 0.4, 0.6))
    close(out.rgb[4, 4], [0.6 + 0.4 * 0.2, 0.4 * 0.4, 0.4 * 0.6])
    close(out.rgb[0, 0], [0.2, 0.4, 0.6])


@every_renderer
@pytest.mark.parametrize("order", [(RED, BLUE), (BLUE, RED)])
def test_ties_in_depth_break_by_row(name: str, order: tuple[Sequence[float], ...]) -> None:
    scene = join([splat(1.0, 0.6, color) for color in order])
    rgb = draw(name, scene, small_camera()).rgb[4, 4]
    close(rgb, [0.6 * a + 0.24 * b for a, b in zip(*order, strict=True)])


@every_renderer
def test_off_centre_and_unequal_focal_lengths(name: str) -> None:
    """u = 20 * 0.1 + 2.5 = 4.5, v = 40 * 0.05 + 1.5 = 3.5; variances 1 + 0.3 and 4 + 0.3 px^2."""
    lens = torch.tensor([[20.0, 0.0, 2.5], [0.0, 40.0, 1.5], [0.0, 0.0, 1.0]])
    scene = splat(1.0, 0.8, RED, at=(0.1, 0.05), scale=(0.05, 0.05, 1e-6))
    alpha = draw(name, scene, Camera(lens, torch.eye(4), 11, 8)).alpha
    assert alpha.shape == (8, 11)
    # a flat disc: its thickness, which an off-axis camera would see, adds nothing
    close(alpha[3, 4], 0.8)
    close(alpha[3, 5], 0.8 * math.exp(-0.5 / 1.3))
    close(alpha[4, 4], 0.8 * math.exp(-0.5 / 4.3))


@every_renderer
def test_rotation_by_hand(name: str) -> None:
    """A rod along x, turned by 45 degrees about z: from x towards y, which is down the image."""
    half = math.radians(45) / 2
    scene = splat(
        1.0, 0.8, RED, scale=(0.2, 0.02, 0.02), quat=(math.cos(half), 0, 0, math.sin(half))
    )
    alpha = draw(name, scene, small_camera()).alpha
    along, across = 0.8 * math.exp(-1 / 4.3), 0.8 * math.exp(-1 / 0.34)
    close(alpha[5, 5], along)
    close(alpha[3, 3], along)
    close(alpha[3, 5], across)
    close(alpha[5, 3], across)


@every_renderer
def test_quaternions_need_not_be_unit(name: str) -> None:
    once, scaled = (
        draw(name, splat(1.0, 0.8, RED, scale=(0.2, 0.02, 0.02), quat=quat), small_camera())
        for quat in ((0.6, 0.0, 0.0, 0.8), (-3.0, 0.0, 0.0, -4.0))
    )
    torch.testing.assert_close(once.rgb, scaled.rgb, rtol=0, atol=1e-6)


@every_renderer
def test_an_opaque_wall_hides_what_is_behind(name: str) -> None:
    """The second wall would leave 1e-6: the pixel is finished, and the weak third adds nothing."""
    wall = splat(2.0, 1.0, RED, scale=(100, 100, 1e-3))
    behind = splat(5.0, 1.0, GREEN, scale=(100, 100, 1e-3))
    weak = splat(6.0, 0.5, BLUE, scale=(100, 100, 1e-3))
    out = draw(name, join([weak, behind, wall]), small_camera(20, 18))
    close(out.rgb, [ALPHA_MAX, 0.0, 0.0])
    close(out.alpha, ALPHA_MAX)
    close(out.depth, 2.0)


@every_renderer
def test_splats_too_faint_to_see_add_nothing(name: str) -> None:
    faint = join([splat(1.0 + i / 100, 0.0039, RED, scale=10.0) for i in range(20)])
    assert draw(name, faint, small_camera()).alpha.max() == 0


@every_renderer
@pytest.mark.parametrize("field", ["means", "quats", "scales", "opacities", "colors", "sh"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_skipped(name: str, field: str, bad: float) -> None:
    scene = cloud(40, degree=1)
    row = 7
    getattr(scene, field)[row] = bad
    others = torch.arange(40) != row
    camera = Camera.from_fov(60, 33, 21)
    same_picture(draw(name, scene, camera), draw(name, scene[others], camera))


@every_renderer
def test_zero_quaternions_are_skipped(name: str) -> None:
    scene = join([splat(1.0, 0.9, BLUE, quat=(0, 0, 0, 0)), splat(2.0, 0.6, RED)])
    close(draw(name, scene, small_camera()).rgb[4, 4], [0.6, 0.0, 0.0])


@every_renderer
@pytest.mark.parametrize("scale", [1e3, 1e8, 1e30])
def test_huge_splats_fill_the_image(name: str, scale: float) -> None:
    out = draw(name, splat(2.0, 0.7, RED, scale=scale), small_camera(20, 18))
    close(out.alpha, 0.7, atol=1e-4)
    close(out.depth, 2.0, atol=1e-4)


@every_renderer
def test_moving_world_and_camera_together_changes_nothing(name: str) -> None:
    scene, camera = cloud(300).to(torch.float64), Camera.from_fov(60, 61, 45)
    quat = torch.tensor([0.5, -0.5, 0.1, 0.7]).double()
    quat = quat / quat.norm()
    shift = torch.tensor([3.0, -2.0, 5.0], dtype=torch.float64)
    world_from_old = torch.eye(4, dtype=torch.float64)
    world_from_old[:3, :3], world_from_old[:3, 3] = rotation_of(quat), shift
    moved = camera.posed(torch.linalg.inv(world_from_old))
    here, there = draw(name, scene, camera), draw(name, transformed(scene, quat, shift), moved)
    error = (here.rgb - there.rgb).abs()
    assert here.alpha.mean() > 0.3
    assert error.quantile(0.99) < 2e-5
    assert error.max() < 2 / 255  # a splat may gain or lose a pixel at the rim


@every_renderer
def test_spherical_harmonics_by_hand(name: str) -> None:
    """Seen along +z, the first three functions are 0, 0.4886025 and 0."""
    scene = splat(1.0, 0.5, (0.2, 0.2, 0.2))
    sh = torch.tensor([[[9.0, 9.0, 9.0], [1.0, 0.5, -1.0], [7.0, 7.0, 7.0]]], dtype=torch.float64)
    lit = Splats(scene.means, scene.quats, scene.scales, scene.opacities, scene.colors, sh)
    want = [0.5 * (0.2 + 0.4886025), 0.5 * (0.2 + 0.5 * 0.4886025), 0.0]  # never below 0
    close(draw(name, lit, small_camera()).rgb[4, 4], want)


@every_renderer
def test_harmonics_of_degree_zero_are_no_harmonics(name: str) -> None:
    scene = cloud(50)
    empty = torch.zeros(50, 0, 3)
    lit = Splats(scene.means, scene.quats, scene.scales, scene.opacities, scene.colors, empty)
    camera = Camera.from_fov(60, 20, 15)
    same_picture(draw(name, lit, camera), draw(name, scene, camera))


@every_renderer
def test_the_same_picture_every_time(name: str) -> None:
    scene, camera = cloud(500), Camera.from_fov(60, 61, 45)
    same_picture(draw(name, scene, camera), draw(name, scene, camera))


def test_reference_gradients_match_finite_differences() -> None:
    scene = join([splat(1.0, 0.6, RED), splat(2.0, 0.5, BLUE)])
    names = ("means", "quats", "scales", "opacities", "colors")
    fields = tuple(getattr(scene, field).requires_grad_() for field in names)
    render = make_renderer("reference").render
    assert torch.autograd.gradcheck(lambda *f: render(Splats(*f), small_camera(3, 3)).rgb, fields)


def test_reference_gradients_of_harmonics_depth_and_pose() -> None:
    scene = join([splat(1.0, 0.6, RED, at=(0.02, 0.01)), splat(2.0, 0.5, BLUE)])
    rng = torch.Generator().manual_seed(0)
    sh = 0.1 * torch.randn(2, 3, 3, generator=rng, dtype=torch.float64)
    camera, render = small_camera(3, 3), make_renderer("reference").render

    def run(sh: torch.Tensor, pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        lit = Splats(
            scene.means, scene.quats, scene.scales, scene.opacities, scene.colors + 0.5, sh
        )
        out = render(lit, camera.posed(pose))
        return out.rgb, out.depth

    pose = camera.cam_from_world.clone()
    assert torch.autograd.gradcheck(run, (sh.requires_grad_(), pose.requires_grad_()))


@every_renderer
def test_antialiasing_by_hand(name: str) -> None:
    """Footprint variance 1 px^2, widened to 1.3: the area of the splat is 1 / 1.3 of what shows."""
    scene = splat(1.0, 0.8, RED)
    out = make_renderer(name).render(scene, small_camera(), antialiased=True)
    close(out.alpha.cpu().double()[4, 4], 0.8 / 1.3)
    close(out.alpha.cpu().double()[4, 5], 0.8 / 1.3 * math.exp(-0.5 / 1.3))


@every_renderer
def test_antialiasing_keeps_the_light_of_a_splat_far_away(name: str) -> None:
    """Four times as far, a sixteenth of the light; without it far more."""
    sums = {}
    for antialiased in (False, True):
        for depth in (1.0, 4.0):
            scene = splat(depth, 0.9, RED, scale=0.05)
            out = make_renderer(name).render(scene, small_camera(31, 31), antialiased=antialiased)
            sums[antialiased, depth] = float(out.alpha.sum())
    assert sums[True, 1.0] / sums[True, 4.0] == pytest.approx(16, rel=0.1)
    assert sums[False, 1.0] / sums[False, 4.0] < 5


@every_renderer
@pytest.mark.parametrize(
    ("opacity", "median", "top", "weight"), [(0.6, 1.0, 2, 0.6), (0.3, 2.0, 1, 0.35)]
)
def test_details_by_hand(name: str, opacity: float, median: float, top: int, weight: float) -> None:
    """Row 2 at 1 m before row 1 at 2 m, whose alpha is 0.5; row 0 is not drawable."""
    scene = join([splat(0.5, math.nan, GREEN), splat(2.0, 0.5, BLUE), splat(1.0, opacity, RED)])
    out = make_renderer(name).render(scene, small_camera(), details=True).details
    assert out is not None
    close(out.median_depth.cpu().double()[4, 4], median)
    assert int(out.top_ids[4, 4]) == top
    close(out.top_weights.cpu().double()[4, 4], weight)
    assert int(out.top_ids[0, 0]) == -1 and float(out.top_weights[0, 0]) == 0
    assert math.isnan(float(out.median_depth[0, 0]))


@every_renderer
def test_details_come_on_request_only(name: str) -> None:
    assert make_renderer(name).render(splat(1.0, 0.5, RED), small_camera()).details is None


@every_renderer
def test_details_equal_the_reference(name: str) -> None:
    scene, camera = cloud(800), Camera.from_fov(60, 50, 40)
    got = make_renderer(name).render(scene, camera, details=True).details
    want = make_renderer("reference").render(scene, camera, details=True).details
    assert got is not None and want is not None
    same = got.top_ids.cpu() == want.top_ids
    assert same.double().mean() > 0.995  # two nearly equal weights may change places
    off = (got.top_weights.cpu().double() - want.top_weights).abs()
    assert off[same].max() < 1e-5
    here, there = got.median_depth.cpu().double(), want.median_depth
    agree = torch.isclose(here, there, rtol=1e-5, atol=0, equal_nan=True)
    assert agree.double().mean() > 0.995


@every_renderer
def test_details_of_an_empty_scene(name: str) -> None:
    out = make_renderer(name).render(Splats.empty(), small_camera(), details=True).details
    assert out is not None
    assert (out.top_ids == -1).all() and (out.top_weights == 0).all()
    assert out.median_depth.isnan().all()


@every_renderer
def test_a_batch_is_its_pictures(name: str) -> None:
    scene, camera = cloud(300, degree=1), Camera.from_fov(60, 30, 20)
    cameras = [camera, Camera.from_fov(50, 17, 23), camera.moved(right=0.3, yaw_degrees=20)]
    renderer = make_renderer(name)
    batch = renderer.render_batch(scene, cameras, (0.1, 0.2, 0.3), antialiased=True)
    assert len(batch) == 3
    for one, picture in zip(cameras, batch, strict=True):
        alone = renderer.render(scene, one, (0.1, 0.2, 0.3), antialiased=True)
        torch.testing.assert_close(picture.rgb, alone.rgb, rtol=0, atol=1e-6)
        assert picture.rgb.shape == (one.height, one.width, 3)
    assert renderer.render_batch(scene, []) == []


@every_renderer
def test_a_gradient_by_hand(name: str) -> None:
    """Red 0.6 before blue 0.5 over black, at the centre pixel: rgb = (0.6, 0, 0.4 * 0.5).

    By the first opacity: red +1, blue -0.5. By the second: blue 0.4. By the first's colour: 0.6.
    """
    scene = join([splat(1.0, 0.6, RED), splat(2.0, 0.5, BLUE)])
    scene.opacities.requires_grad_()
    scene.colors.requires_grad_()
    out = make_renderer(name).render(scene, small_camera())
    (out.rgb[4, 4, 0] + 10 * out.rgb[4, 4, 2]).backward()
    assert scene.opacities.grad is not None and scene.colors.grad is not None
    close(scene.opacities.grad, [1.0 - 10 * 0.5, 10 * 0.4])
    close(scene.colors.grad, [[0.6, 0, 6.0], [0.2, 0, 2.0]])
