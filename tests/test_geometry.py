"""Geometry: by hand on planes, by law for every backend that runs here."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from renderers import Camera, SceneError
from scenegen import geometry
from scenegen.geometry.edges import sharpen
from scenegen.geometry.ground import fit_ground, ground_aligned, ground_disparity, horizon_row
from scenegen.geometry.normals import disparity_normals
from scenegen.geometry.sky import find_sky

RUNNABLE = [name for name, entry in geometry.DEPTH_BACKENDS.items() if entry.missing() is None]


def outdoor(height: int = 96, width: int = 144) -> torch.Tensor:
    """Blue sky above row 0.4 h, a brown house in the middle, green ground below row 0.6 h."""
    generator = torch.Generator().manual_seed(1)
    image = torch.empty(height, width, 3)
    image[:] = torch.tensor([0.45, 0.65, 0.95])
    image[int(0.4 * height) :] = torch.tensor([0.5, 0.35, 0.25])
    image[int(0.6 * height) :] = torch.tensor([0.2, 0.45, 0.15])
    return (image + 0.01 * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def test_normals_of_a_plane_by_hand() -> None:
    """n . p = -2 with n = (0.6, 0, -0.8): 1/z = -(0.6 x - 0.8) / 2 on the ray (x, y, 1)."""
    camera = Camera.from_fov(60, 40, 30)
    rays = camera.unproject(camera.pixel_centers(), torch.ones(30, 40))
    depth = -2.0 / (0.6 * rays[..., 0] - 0.8)
    normals = disparity_normals(depth, camera.px_from_cam)
    torch.testing.assert_close(normals, torch.tensor([0.6, 0.0, -0.8]).expand_as(normals))


def test_normals_beside_a_step_stay_those_of_their_surface() -> None:
    depth = torch.full((20, 20), 2.0)
    depth[:, 10:] = 5.0
    normals = disparity_normals(depth, Camera.from_fov(60, 20, 20).px_from_cam)
    torch.testing.assert_close(normals, torch.tensor([0.0, 0.0, -1.0]).expand_as(normals))


def test_normals_of_sky_and_unknown_are_finite() -> None:
    depth = torch.full((8, 8), math.inf)
    depth[4:] = math.nan
    normals = disparity_normals(depth, Camera.from_fov(60, 8, 8).px_from_cam)
    assert torch.isfinite(normals).all()


def test_ground_by_hand() -> None:
    """Eye height 1.6 m, focal 100 px: 40 px below the horizon the ground is 4 m away."""
    px_from_cam = torch.tensor([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    disparity = ground_disparity(80, 100, px_from_cam)
    torch.testing.assert_close(1 / disparity[79, 0], torch.tensor(100 * 1.6 / 39.5))


def test_ground_at_another_eye_height_by_hand() -> None:
    """0.5 m, focal 100 px: 40 px below the horizon 1.25 m away; half the height, half as far."""
    px_from_cam = torch.tensor([[100.0, 0, 50], [0, 100, 39.5], [0, 0, 1]])
    torch.testing.assert_close(1 / ground_disparity(80, 100, px_from_cam, 0.5)[79, 0], tensor(1.25))
    half = ground_disparity(80, 100, px_from_cam, 0.25)[79, 0]
    torch.testing.assert_close(1 / half, tensor(0.625))


def test_ground_fit_by_hand() -> None:
    """Estimated disparity is half the true one plus 0.02: true = 2 estimated - 0.04.

    With eyes at 3.2 m where the floor was made for 1.6 m, all is twice as far: half of both.
    """
    camera = Camera.from_fov(60, 120, 90)
    truth = ground_disparity(90, 120, camera.px_from_cam).clamp_min(1 / 30)
    no_sky = torch.zeros(90, 120, dtype=torch.bool)
    for eye_height, scale, shift in ((1.6, 2.0, -0.04), (3.2, 1.0, -0.02)):
        fit = fit_ground(1 / (0.5 * truth + 0.02), no_sky, camera.px_from_cam, eye_height)
        assert fit is not None
        assert fit.scale == pytest.approx(scale, rel=0.01)
        assert fit.shift == pytest.approx(shift, abs=0.001)
    wall = torch.full((90, 120), 3.0)
    assert fit_ground(wall, no_sky, camera.px_from_cam) is None
    torch.testing.assert_close(ground_aligned(wall, no_sky, camera.px_from_cam), wall)


def test_ground_gives_scale_and_shift_back() -> None:
    """A level floor seen by an estimator that is off by a scale and a shift of disparity."""
    camera = Camera.from_fov(60, 120, 90)
    truth = ground_disparity(90, 120, camera.px_from_cam).clamp_min(1 / 30)
    estimated = 1 / (0.5 * truth + 0.02)
    fitted = ground_aligned(estimated, torch.zeros(90, 120, dtype=torch.bool), camera.px_from_cam)
    torch.testing.assert_close(1 / fitted, truth, rtol=0.02, atol=1e-3)


def test_sharpen_turns_a_ramp_into_a_step_and_keeps_the_ground() -> None:
    width = 480
    image = torch.zeros(80, width, 3)
    image[:, 240:] = 1.0
    ramp = torch.sigmoid((torch.arange(width) - 239.5) / 4)  # as soft as a small network's answer
    depth = 1 / (0.5 - 0.4 * ramp).expand(80, width)  # 2 m on the left, 10 m on the right
    sharp = sharpen(depth, image, torch.zeros(80, width, dtype=torch.bool))
    between = (sharp > 2.4) & (sharp < 6.5)
    assert between.float().mean() < 0.006 < 0.02 < ((depth > 2.4) & (depth < 6.5)).float().mean()

    camera = Camera.from_fov(60, width, 80)
    ground = 1 / ground_disparity(80, width, camera.px_from_cam)[44:]
    flat = sharpen(
        ground, torch.full((36, width, 3), 0.5), torch.zeros(36, width, dtype=torch.bool)
    )
    torch.testing.assert_close(flat[8:-8, 8:-8], ground[8:-8, 8:-8], rtol=0.02, atol=0)


def test_sky_is_found_where_it_is_and_nowhere_else() -> None:
    sky = find_sky(outdoor())
    truth = torch.zeros(96, 144, dtype=torch.bool)
    truth[:38] = True
    assert (sky == truth).float().mean() > 0.97
    dark_ceiling = outdoor() * 0.25
    assert not find_sky(dark_ceiling).any()
    assert not find_sky(torch.full((64, 64, 3), 0.8)).any()


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("shape", [(96, 144), (144, 96), (16, 16), (61, 97)])
def test_every_backend_answers_in_range(name: str, shape: tuple[int, int]) -> None:
    image = outdoor(*shape)
    result = geometry.estimate(image, backend=name, fov_degrees=60)
    again = geometry.estimate(image, backend=name, fov_degrees=60)
    assert result.depth.shape == shape and result.normals.shape == (*shape, 3)
    assert torch.equal(torch.isposinf(result.depth), result.sky)
    assert (result.depth > 0.1).all() and not torch.isnan(result.depth).any()
    assert (result.depth[~result.sky] <= 200).all()
    lengths = torch.linalg.norm(result.normals, dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()
    assert torch.equal(result.depth, again.depth)


def test_the_horizon_is_where_the_sky_ends_below_the_middle() -> None:
    """50 rows of 80 columns, 2 % of the sky in a row at the bottom of it: no more than a puddle."""
    camera = Camera.from_fov(60, 100, 80)
    sky = torch.zeros(80, 100, dtype=torch.bool)
    assert horizon_row(sky, camera.px_from_cam) == 40
    sky[:30] = True
    assert horizon_row(sky, camera.px_from_cam) == 40
    sky[:50] = True
    assert horizon_row(sky, camera.px_from_cam) == 49
    sky[:49], sky[49] = True, False
    sky[75, :90] = True
    assert horizon_row(sky, camera.px_from_cam) == 49
    assert horizon_row(torch.ones_like(sky), camera.px_from_cam) == 72  # nothing but sky
    truth = ground_disparity(80, 100, camera.px_from_cam, horizon=49.0)
    sky[75] = False
    depth = 1.0 / (0.5 * truth.clamp_min(0.01) + 0.02)
    fit = fit_ground(depth, sky, camera.px_from_cam)
    assert fit is not None
    torch.testing.assert_close(1.0 / fit.depth(depth)[60:], truth[60:], rtol=0.03, atol=0.0)


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_ground_at_the_feet_is_nearer_than_the_horizon(name: str) -> None:
    result = geometry.estimate(outdoor(192, 288), backend=name)
    assert result.depth[-4:].mean() < 0.7 * result.depth[120:128].mean()


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_scale_is_said(name: str) -> None:
    assert "2.5 m below the camera" in geometry.estimate(outdoor(), name, eye_height=2.5).scale
    with pytest.raises(SceneError, match=r"0\.05 to 100 metres above the ground"):
        geometry.estimate(outdoor(), name, eye_height=0.0)


def test_default_lens_by_hand() -> None:
    """28 mm equivalent on 4:3: the frame is 0.8 * 43.27 mm wide, so 2 atan(17.308 / 28)."""
    expected = math.degrees(2 * math.atan(0.5 * 0.8 * 43.27 / 28))
    assert geometry.default_fov(400, 300) == pytest.approx(expected)


def test_numpy_is_taken_and_nonsense_refused() -> None:
    assert geometry.estimate(outdoor().numpy(), "prior").depth.shape == (96, 144)
    with pytest.raises(SceneError, match="at least 16 pixels"):
        geometry.estimate(torch.rand(4, 4, 3), "prior")
    with pytest.raises(SceneError, match="NaN or infinite"):
        geometry.estimate(torch.full((32, 32, 3), torch.nan), "prior")
    with pytest.raises(SceneError, match="unknown depth backend 'best'"):
        geometry.estimate(outdoor(), "best")


def test_missing_weights_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path))
    with pytest.raises(SceneError, match="scenegen models pull fastdepth"):
        geometry.estimate(outdoor(), "fastdepth")
    shipped = geometry.estimate(outdoor(), "dpt").depth  # nothing has to be pulled for it
    assert torch.equal(geometry.estimate(outdoor()).depth, shipped)
