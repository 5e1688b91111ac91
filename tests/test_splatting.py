"""Lifting: splats lie on the surface and look like the pixels they came from."""

from __future__ import annotations

import math

import pytest
import torch

from renderers import Camera, join, make_renderer
from renderers.reference import rotation_matrices
from scenegen import splatting
from scenegen.splatting.lifting import OPACITY, SIGMA_PX


def tilted_plane(camera: Camera) -> torch.Tensor:
    """Depth of the plane n . p = -3 with n = (0, -0.6, -0.8)."""
    rays = camera.unproject(camera.pixel_centers(), torch.ones(camera.height, camera.width))
    return -3.0 / (-0.6 * rays[..., 1] - 0.8)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2).mean()))


def texture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return fine[0].permute(1, 2, 0).clamp(0, 1)


def test_one_pixel_by_hand() -> None:
    """Focal 100 px, 5 m away, seen straight on: the footprint is 5 cm."""
    px_from_cam = torch.tensor([[100.0, 0, 1.5], [0, 100, 1.5], [0, 0, 1]])
    camera = Camera(px_from_cam, torch.eye(4), 3, 3)
    splats = splatting.lift(torch.full((3, 3, 3), 0.5), torch.full((3, 3), 5.0), camera)
    assert len(splats) == 9
    torch.testing.assert_close(splats.means[4], torch.tensor([0.0, 0.0, 5.0]))
    torch.testing.assert_close(splats.means[5], torch.tensor([0.05, 0.0, 5.0]))
    expected = torch.tensor([0.05 * SIGMA_PX, 0.05 * SIGMA_PX, 0.005])
    torch.testing.assert_close(splats.scales[4].sort(descending=True).values, expected)
    assert splats.opacities.unique().tolist() == [pytest.approx(OPACITY)]


def test_splats_lie_on_the_plane_and_project_to_round_dots() -> None:
    pose = Camera.look_at((1, 2, 3), (0, 1, 9), 60, 48, 36).cam_from_world
    camera = Camera.from_fov(60, 48, 36, pose)
    depth = tilted_plane(camera.posed(torch.eye(4)))
    splats = splatting.lift(texture(36, 48), depth, camera)
    points = splats.means @ pose[:3, :3].T + pose[:3, 3]
    normal = torch.tensor([0.0, -0.6, -0.8])
    torch.testing.assert_close(points @ normal, torch.full((len(splats),), -3.0))
    axes = pose[:3, :3] @ rotation_matrices(splats.quats)
    thin = axes[torch.arange(len(splats)), :, splats.scales.argmin(1)]
    torch.testing.assert_close((thin @ normal).abs(), torch.ones(len(splats)), rtol=0, atol=1e-4)
    # The image of the covariance under the projection's Jacobian is SIGMA_PX^2 times the identity,
    # but for the thickness of the splat, (0.1 px)^2, which shows where the surface is oblique.
    half = axes * splats.scales[:, None]
    x, y, z = points.unbind(-1)
    focal, zero = camera.px_from_cam[0, 0], torch.zeros_like(z)
    rows = [focal / z, zero, -focal * x / z**2, zero, focal / z, -focal * y / z**2]
    image = torch.stack(rows, -1).reshape(-1, 2, 3) @ half
    expected = SIGMA_PX**2 * torch.eye(2).expand(len(splats), 2, 2)
    torch.testing.assert_close(image @ image.mT, expected, rtol=0, atol=0.0102)


def test_the_render_from_the_same_camera_is_the_picture() -> None:
    camera = Camera.from_fov(60, 48, 36)
    picture, depth = texture(36, 48), tilted_plane(camera)
    renderer = make_renderer("reference")
    splats = splatting.lift(picture, depth, camera)
    everything = torch.ones(36, 48, dtype=torch.bool)
    matched = splatting.match_colors(splats, picture, everything, camera, renderer)
    before, after = renderer.render(splats, camera), renderer.render(matched, camera)
    assert after.alpha.min() > 0.98
    assert psnr(after.rgb, picture) > 34
    assert psnr(after.rgb, picture) > psnr(before.rgb, picture) + 3
    torch.testing.assert_close(after.depth.float(), depth, rtol=0.03, atol=0)


def test_the_undercoat_lies_behind_and_fills_the_gaps() -> None:
    camera = Camera.from_fov(60, 48, 36)
    picture, depth = texture(36, 48), tilted_plane(camera)
    depth[:, 24:] += 4.0  # an edge, over which no splat of the undercoat reaches
    front = splatting.lift(picture, depth, camera)
    coat = splatting.undercoat(picture, depth, camera)
    assert len(coat) == 12 * 16  # every block of 3 x 3 is whole; the edge lies between two
    pixels, z = camera.project(coat.means)
    column, row = pixels.floor().long().unbind(-1)
    assert (z > depth[row, column]).all()
    assert torch.equal(column // 3 * 3 + 1, column) and torch.equal(row // 3 * 3 + 1, row)
    renderer = make_renderer("reference")
    turned = camera.moved(forward=1.2)  # pixels of the photograph are farther apart than here
    bare = renderer.render(front, turned).alpha[8:-8, 8:20]
    coated = renderer.render(join([front, coat]), turned).alpha[8:-8, 8:20]
    assert coated.min() > 0.97 > bare.min()

    depth[:, 25] *= 3.0  # now an edge crosses a column of blocks
    assert len(splatting.undercoat(picture, depth, camera)) == 12 * 15


def test_sky_goes_on_the_sphere_from_any_place() -> None:
    camera = Camera.from_fov(70, 20, 10).moved(right=5, forward=-3, yaw_degrees=40)
    depth = torch.full((10, 20), math.inf)
    splats = splatting.lift(torch.rand(10, 20, 3), depth, camera, sky_radius=80.0)
    radii = torch.linalg.norm(splats.means, dim=-1)
    torch.testing.assert_close(radii, torch.full_like(radii, 80.0), rtol=1e-4, atol=0)
    pixels, z = camera.project(splats.means)
    assert (z > 0).all()
    torch.testing.assert_close(pixels.reshape(10, 20, 2), camera.pixel_centers(), atol=1e-2, rtol=0)


def test_unknown_pixels_and_the_mask_give_no_splats() -> None:
    camera = Camera.from_fov(60, 6, 4)
    depth = torch.full((4, 6), 2.0)
    depth[0] = math.nan
    keep = torch.zeros(4, 6, dtype=torch.bool)
    keep[:, :3] = True
    assert len(splatting.lift(torch.rand(4, 6, 3), depth, camera)) == 18
    assert len(splatting.lift(torch.rand(4, 6, 3), depth, camera, keep)) == 9
    nothing = torch.zeros(4, 6, dtype=torch.bool)
    assert len(splatting.lift(torch.rand(4, 6, 3), depth, camera, nothing)) == 0


def test_flying_pixels_join_a_side_and_slopes_stay() -> None:
    depth = torch.full((5, 9), 2.0)
    depth[:, 4] = 3.3  # hangs between 2 m and 8 m
    depth[:, 5:] = 8.0
    snapped = splatting.snap_flying(depth)
    torch.testing.assert_close(snapped.unique(), torch.tensor([2.0, 8.0]))
    ground = (1.0 / torch.linspace(0.02, 0.5, 12))[:, None].expand(12, 5)
    torch.testing.assert_close(splatting.snap_flying(ground), ground)


def test_mixed_pixels_go_with_what_stands_in_front() -> None:
    depth = torch.full((6, 12), math.inf)
    depth[:, :4] = 2.0
    depth[0, 9] = math.nan
    wide = splatting.widen_fronts(depth)
    assert (wide[:, :6] == 2.0).all() and torch.isposinf(wide[1:, 6:]).all()
    assert torch.isnan(wide[0, 9])
    ground = (1.0 / torch.linspace(0.02, 0.5, 12))[:, None].expand(12, 5)
    torch.testing.assert_close(splatting.widen_fronts(ground)[2:-2], ground[2:-2])


def test_grazing_splats_stay_bounded() -> None:
    camera = Camera.from_fov(60, 32, 32)
    rows = torch.arange(32) + 0.5 - 16
    depth = (100.0 / rows.clamp_min(0.05))[:, None].expand(32, 32)
    splats = splatting.lift(torch.rand(32, 32, 3), depth, camera)
    footprint = depth.reshape(-1) / camera.px_from_cam[0, 0]
    assert torch.isfinite(splats.scales).all() and torch.isfinite(splats.quats).all()
    assert (splats.scales.amax(1) <= SIGMA_PX * footprint * 15).all()
