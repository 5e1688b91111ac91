"""What a report says of a world: by hand where a number can be, and on a small world."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import scenegen
from scenegen import cli
from scenegen.splatting.losses import psnr
from scenegen.world.plan import LATERAL
from scenegen.world.report import Measure, measure, safe_cameras, seam_contrast

NAMES = {
    *("source view", "source view SSIM", "drift", "return to a view", "return, worst"),
    *("return SSIM", "holes", "seen", "depth fit", "splats", "time", "time of a step"),
}


def test_a_seam_by_hand() -> None:
    """Columns of grey rise by 0.1 a pixel, and by 0.3 across the border: three times as much."""
    row = 0.1 * torch.arange(40.0)
    row[20:] += 0.2
    rgb = row[None, :, None].expand(80, 40, 3) * 0.1
    new = torch.zeros(80, 40, dtype=torch.bool)
    new[:, 20:] = True
    depth = torch.ones(80, 40)
    assert seam_contrast(rgb, new, depth) == pytest.approx(3.0, rel=1e-4)
    assert seam_contrast(rgb, new, torch.full_like(depth, torch.inf)) == pytest.approx(
        3.0, rel=1e-4
    )
    depth[:, 20:] = 2.0  # now the border is the outline of something nearer
    assert seam_contrast(rgb, new, depth) is None


def test_no_border_no_seam() -> None:
    rgb = torch.rand(50, 50, 3)
    new = torch.zeros(50, 50, dtype=torch.bool)
    assert seam_contrast(rgb, new, torch.ones(50, 50)) is None
    new[20:22, 20:22] = True  # 8 pairs
    assert seam_contrast(rgb, new, torch.ones(50, 50)) is None


def test_a_border_in_noise_cannot_be_seen() -> None:
    rgb = torch.rand(200, 200, 3, generator=torch.Generator().manual_seed(0))
    new = torch.zeros(200, 200, dtype=torch.bool)
    new[:, 100:] = True
    assert seam_contrast(rgb, new, torch.ones(200, 200)) == pytest.approx(1.0, abs=0.1)


def test_targets_in_both_directions() -> None:
    reached = [
        Measure("a", value, "dB", target, higher, "").reached
        for value, target, higher in ((31, 30, True), (29, 30, True), (2, 1, False), (1, 1, False))
    ]
    assert reached == [True, False, False, True]
    free = Measure("a", 3.0, "", None, True, "of nothing")
    assert free.reached is None and "MISSED" not in str(free) and "of nothing" in str(free)


def test_a_small_world_is_measured_and_left_alone(grown_world: Path) -> None:
    before = {path: path.read_bytes() for path in grown_world.rglob("*.safetensors")}
    world = scenegen.open(grown_world)
    found = {one.name: one for one in measure(world, walks=True)}
    assert NAMES <= set(found)
    assert {"turn 0-90-0", "1 m out and back"} <= set(found)
    assert all(math.isfinite(one.value) for one in found.values())
    photo = world.memory.views[0].rgb
    again = psnr(world.render(world.camera0).rgb, torch.as_tensor(photo))
    assert found["source view"].value == pytest.approx(again, abs=1e-6)
    assert found["splats"].value == len(world.splats)
    assert 0 < found["seen"].value <= 100
    assert len(scenegen.open(grown_world).steps) == len(world.steps)
    assert before == {path: path.read_bytes() for path in grown_world.rglob("*.safetensors")}


def test_views_in_between_are_the_same_each_time_and_near(grown_world: Path) -> None:
    world = scenegen.open(grown_world)
    first, second = safe_cameras(world), safe_cameras(world)
    assert all(
        torch.equal(a.cam_from_world, b.cam_from_world) for a, b in zip(first, second, strict=True)
    )
    depth = torch.as_tensor(world.memory.views[0].depth)
    farthest = float(depth[torch.isfinite(depth)].median())
    assert all(float(camera.center.norm()) < 4 * LATERAL * farthest for camera in first)


def test_the_command(grown_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    command = ["report", str(grown_world), "--no-walks", "--html", str(page)]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("source view ") for line in lines)
    text = page.read_text()
    assert text.count("data:image/jpeg;base64,") == 9
    assert "http" not in text.replace("http-equiv", "")  # nothing is fetched
    assert cli.main([*command[:3], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["measures"]
    assert {one["name"] for one in told} == NAMES | {
        one["name"] for one in told if one["name"].startswith("seam")
    }


def test_a_page_that_cannot_be_written(grown_world: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "missing" / "report.html"
    assert cli.main(["report", str(grown_world), "--no-walks", "--html", str(nowhere)]) == 2
