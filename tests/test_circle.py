"""Copies of a photograph that make a full circle, and the joins between them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_world import SETTINGS, write_photo

import scenegen
from renderers import Camera, Splats, make_renderer
from scenegen.splatting.losses import psnr
from scenegen.world.arrays import StepData
from scenegen.world.circle import JOIN, OPEN, Copy, copied, copies, joins

CAMERA = Camera.from_fov(60.0, 64, 48)


def scattered() -> StepData:
    """Splats of all shapes in front of the camera; the picture of them."""
    generator = torch.Generator().manual_seed(3)
    count = 60
    means = 2 * torch.rand(count, 3, generator=generator) - 1 + torch.tensor([0.0, 0.0, 4.0])
    scales = 0.02 + 0.3 * torch.rand(count, 3, generator=generator)
    quats = torch.nn.functional.normalize(torch.randn(count, 4, generator=generator), dim=1)
    opacities = torch.rand(count, generator=generator)
    splats = Splats(means, quats, scales, opacities, torch.rand(count, 3, generator=generator))
    view = make_renderer("cpu").render(splats, CAMERA)
    return StepData(splats, view.rgb, view.depth, view.alpha > 0.5)


@pytest.mark.parametrize("copy", [Copy(90.0, True), Copy(180.0, False), Copy(245.0, True)])
def test_a_copy_shows_the_same_picture_from_where_it_faces(copy: Copy) -> None:
    data = scattered()
    facing, made = copied(data, CAMERA, copy)
    assert len(made.splats) == len(data.splats)
    seen = make_renderer("cpu").render(made.splats, facing)
    torch.testing.assert_close(seen.rgb, made.rgb, rtol=0, atol=5e-4)
    torch.testing.assert_close(seen.depth[made.known], made.depth[made.known], rtol=1e-3, atol=1e-3)
    expected = data.rgb.flip(1) if copy.flip else data.rgb
    torch.testing.assert_close(made.rgb, expected, rtol=0, atol=0)


@pytest.mark.parametrize("fov", [35.0, 50.0, 63.0, 80.0, 95.0, 140.0])
def test_copies_close_the_circle(fov: float) -> None:
    """Every other one is mirrored, the last one too: across each join the same thing goes on."""
    found = copies(fov)
    assert len(found) % 2 == 1
    assert [copy.flip for copy in found] == [k % 2 == 0 for k in range(len(found))]
    turn = 360.0 / (len(found) + 1)
    assert turn >= fov
    assert [copy.yaw_degrees for copy in found] == pytest.approx(
        [turn * (k + 1) for k in range(len(found))]
    )


@pytest.mark.parametrize("fov", [35.0, 50.0, 63.0, 80.0, 95.0, 140.0])
def test_joins_are_filled_from_what_is_known(fov: float) -> None:
    """Followed with intervals of known directions: each view sees either both ends of what is
    missing, no wider than JOIN, or adds no more than OPEN at one end; at the end all is known."""
    turn = 360.0 / (len(copies(fov)) + 1)
    left, right = fov / 2, turn - fov / 2  # what is missing between the first copies
    for middle in [angle for angle in joins(fov) if 0 < angle < turn]:
        start, end = middle - fov / 2, middle + fov / 2
        if start < left and end > right:
            assert right - left <= JOIN * fov + 1e-6
            left = right
        elif start < left:
            assert 0 < end - left <= OPEN * fov + 1e-6
            left = end
        else:
            assert 0 < right - start <= OPEN * fov + 1e-6
            right = start
    assert left >= right - 1e-6


def test_a_world_all_round(tmp_path: Path) -> None:
    photo = write_photo(tmp_path / "house.png", 96, 72)
    settings = {**SETTINGS, "extent": "around"}
    world = scenegen.create(photo, tmp_path / "world", fov=75.0, **settings)
    assert [step.info.get("copy") for step in world.steps[:5]] == [None, 0, 0, 0, None]
    assert {step.provenance for step in world.steps[1:]} == {"generated"}
    for step in world.steps[1:4]:
        photograph = torch.as_tensor(world.memory.views[step.id].rgb)
        assert psnr(world.render(step.camera).rgb, photograph) > 22
    for yaw in range(0, 360, 30):
        alpha = world.render(world.camera0.moved(yaw_degrees=float(yaw))).alpha
        assert float((alpha < 0.7).float().mean()) < 0.05
