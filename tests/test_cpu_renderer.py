"""The CPU renderer against the reference, and what only it promises: threads, caches, errors."""

from __future__ import annotations

import gc
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from splat_scenes import cloud, room, small_camera, splat

from renderers import Camera, Render, Splats, join, make_renderer
from renderers.cpu import frame, pack
from renderers.splats import parts_of

ROOT = Path(__file__).resolve().parents[1]
BACKGROUND = (0.2, 0.5, 0.9)
OFF_CENTRE = Camera(
    torch.tensor([[90.0, 0.0, 31.3], [0.0, 70.0, 40.9], [0.0, 0.0, 1.0]]), torch.eye(4), 97, 61
)


def both(scene: Splats, camera: Camera) -> tuple[Render, Render]:
    fast = make_renderer("cpu").render(scene, camera, BACKGROUND)
    return fast, make_renderer("reference").render(scene, camera, BACKGROUND)


def compare(scene: Splats, camera: Camera, *, decibels: float = 100.0) -> None:
    """Close nearly everywhere; at the rim of a splat a pixel may fall on the other side."""
    fast, slow = both(scene, camera)
    error = (fast.rgb.double() - slow.rgb).abs()
    assert error.square().mean() <= 10 ** (-decibels / 10)
    assert error.max() < 2 / 255
    assert (error > 1e-5).double().mean() < 1e-3
    assert ((fast.alpha.double() - slow.alpha).abs() > 1e-5).double().mean() < 1e-3
    known = ~(fast.depth.isnan() | slow.depth.isnan())
    assert (fast.depth.isnan() != slow.depth.isnan()).double().mean() < 1e-3
    relative = (fast.depth.double() / slow.depth - 1).abs()[known]
    assert (relative > 1e-4).double().mean() < 1e-3


def test_a_cloud_equals_the_reference() -> None:
    compare(cloud(2000), Camera.from_fov(60, 97, 61))


@pytest.mark.parametrize(("degree", "n"), [(1, 300), (2, 300), (3, 900)])
def test_harmonics_off_centre_equal_the_reference(degree: int, n: int) -> None:
    camera = OFF_CENTRE.moved(right=0.4, yaw_degrees=-20, pitch_degrees=15)
    compare(cloud(n, degree=degree), camera)


def test_a_room_equals_the_reference() -> None:
    compare(room(2500), Camera.from_fov(70, 49, 35).moved(right=0.2, yaw_degrees=30))


@pytest.mark.parametrize("length", [1e-30, 1e30])
def test_quaternions_turn_alike_at_any_length(length: float) -> None:
    """Their squares leave float32."""
    unit, camera = cloud(200), Camera.from_fov(60, 64, 48)
    scaled = Splats(unit.means, unit.quats * length, unit.scales, unit.opacities, unit.colors)
    one, other = (make_renderer("cpu").render(scene, camera).rgb for scene in (unit, scaled))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_half_a_row_goes_on_when_the_other_is_finished() -> None:
    """An opaque stack ends the left half of a tile early; the right half must go on."""
    wall = [splat(1.0 + 0.01 * i, 0.99, (1, 0, 0), at=(-0.5, 0.0), scale=0.3) for i in range(40)]
    camera = small_camera(16, 16, 8.0)
    scene = join([*wall, splat(3.0, 0.8, (0, 1, 0), at=(1.2, 0.0), scale=0.5)])
    fast = make_renderer("cpu").render(scene, camera)
    slow = make_renderer("reference").render(scene, camera)
    torch.testing.assert_close(fast.rgb.double(), slow.rgb, rtol=0, atol=1e-5)
    assert fast.rgb[8, 1, 0] > 0.99 and fast.rgb[8, 11, 1] > 0.4


def test_long_thin_splats_equal_the_reference() -> None:
    """They cross many tiles, of which most of their boxes' are empty."""
    scene = cloud(150, seed=3)
    scales = torch.tensor([1.5, 0.004, 0.004]).expand(150, 3)
    rods = Splats(scene.means, scene.quats, scales, scene.opacities, scene.colors)
    compare(rods, Camera.from_fov(60, 150, 130))


def test_many_layers_finish_like_the_reference() -> None:
    """Opaque splats in every pixel: the stop rule decides what is left."""
    scene = cloud(1500, seed=5)
    opaque = Splats(
        scene.means, scene.quats, scene.scales * 4, 0.5 + scene.opacities / 2, scene.colors
    )
    compare(opaque, Camera.from_fov(60, 48, 40), decibels=85)


@settings(max_examples=30)
@given(
    x=st.floats(-3, 3),
    y=st.floats(-3, 3),
    z=st.floats(0.02, 20),
    sizes=st.tuples(*[st.floats(-5, 2)] * 3),
    quat=st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: sum(v * v for v in q) > 0.01),
    opacity=st.floats(0.0, 1.0),
)
def test_any_splat_equals_the_reference(
    x: float,
    y: float,
    z: float,
    sizes: tuple[float, float, float],
    quat: tuple[float, float, float, float],
    opacity: float,
) -> None:
    scale = [10.0**size for size in sizes]
    scene = splat(z, opacity, (1.0, 0.5, 0.0), at=(x, y), scale=scale, quat=quat)
    fast, slow = both(scene, Camera.from_fov(75, 37, 35))
    error = (fast.alpha.double() - slow.alpha).abs()
    assert error.max() < 1 / 254  # at the cut a pixel may fall on the other side
    assert (error > 2e-4).double().mean() < 0.02


def test_far_from_the_origin() -> None:
    """Near a camera 1 km out, float32 positions are good to 0.1 mm, and nothing else is lost."""
    scene, camera = cloud(500), Camera.from_fov(60, 61, 45)
    shift = torch.tensor([1024.0, -512.0, 256.0])
    far = Splats(
        scene.means.double() + shift, scene.quats, scene.scales, scene.opacities, scene.colors
    )
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = -shift
    here = make_renderer("cpu").render(scene, camera)
    there = make_renderer("cpu").render(far, camera.posed(pose))
    assert (here.rgb - there.rgb).abs().quantile(0.99) < 5e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_dtypes_are_drawn_in_float32(dtype: torch.dtype) -> None:
    scene, camera = cloud(50).to(torch.float16), Camera.from_fov(60, 20, 15)
    out = make_renderer("cpu").render(scene.to(dtype), camera)
    assert out.rgb.dtype == out.alpha.dtype == out.depth.dtype == torch.float32
    want = make_renderer("cpu").render(scene.to(torch.float32), camera)
    torch.testing.assert_close(out.rgb, want.rgb, rtol=0, atol=1e-6)


def test_values_too_large_for_float32_are_skipped() -> None:
    scene = cloud(40).to(torch.float64)
    scene.colors[3], scene.means[5] = 1e300, 1e300
    others = torch.tensor([row not in (3, 5) for row in range(40)])
    camera = Camera.from_fov(60, 33, 21)
    got = make_renderer("cpu").render(scene, camera)
    assert torch.equal(got.rgb, make_renderer("cpu").render(scene[others], camera).rgb)


def test_harmonics_that_overflow_are_skipped() -> None:
    scene = splat(1.0, 0.5, (1.0, 0.0, 0.0)).to(torch.float32)
    sh = torch.full((1, 15, 3), 3e38)
    lit = Splats(scene.means, scene.quats, scene.scales, scene.opacities, scene.colors, sh)
    out = make_renderer("cpu").render(lit, small_camera())
    assert out.rgb.isfinite().all() and out.alpha.max() == 0


def test_extreme_splats_leave_the_picture_finite() -> None:
    rng = torch.Generator().manual_seed(0)
    n = 2000
    exponents = torch.rand(n, 10, generator=rng) * 76 - 38
    signs = torch.randint(0, 2, (n, 10), generator=rng) * 2 - 1
    values = signs * 10**exponents
    plain = cloud(n)
    scene = Splats(values[:, :3], values[:, 3:7], values[:, 7:], plain.opacities, plain.colors)
    out = make_renderer("cpu").render(scene, Camera.from_fov(60, 40, 30), BACKGROUND)
    assert out.rgb.isfinite().all()
    assert (out.alpha >= 0).all() and (out.alpha <= 1).all()


MANY_THREADS = numba.get_num_threads()
several_threads = pytest.mark.skipif(
    MANY_THREADS < 2, reason="numba may use one thread only on this machine"
)


@several_threads
@pytest.mark.parametrize("degree", [0, 3])
def test_the_number_of_threads_does_not_change_a_bit(degree: int) -> None:
    scene, camera = cloud(3000, degree=degree), OFF_CENTRE.moved(yaw_degrees=10)
    before = numba.get_num_threads()
    pictures = []
    try:
        for threads in (1, 2, MANY_THREADS):
            numba.set_num_threads(threads)
            pictures.append(make_renderer("cpu").render(scene, camera, BACKGROUND))
    finally:
        numba.set_num_threads(before)
    for picture in pictures[1:]:
        assert torch.equal(picture.rgb, pictures[0].rgb)
        assert torch.equal(picture.alpha, pictures[0].alpha)
        torch.testing.assert_close(picture.depth, pictures[0].depth, rtol=0, atol=0, equal_nan=True)


def run_python(
    code: str, folder: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(path) for path in (folder, ROOT, ROOT / "tests"))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


TWO_THREADS = """
from concurrent.futures import ThreadPoolExecutor
import torch
from splat_scenes import cloud
from renderers import Camera, make_renderer

camera = Camera.from_fov(60, 97, 61)
scenes = [cloud(1500, seed) for seed in range(4)]
shared = make_renderer("cpu")

def render(job):
    renderer = shared if job % 2 else make_renderer("cpu")
    if job % 4 < 2:
        return renderer.render(scenes[job % 4], camera).rgb
    scene = scenes[job % 4].to(torch.float64)
    scene.means.requires_grad_()
    renderer.render(scene, camera).depth.nansum().backward()
    return scene.means.grad

alone = [render(job) for job in range(4)]
with ThreadPoolExecutor(4) as pool:
    together = list(pool.map(render, range(40)))
assert all(torch.equal(one, alone[job % 4]) for job, one in enumerate(together))
print("same")
"""


def test_python_threads_may_render_and_differentiate_at_once() -> None:
    """In a process of its own: without the lock numba aborts it."""
    done = run_python(TWO_THREADS, NUMBA_THREADING_LAYER="workqueue", NUMBA_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "same"


SMALL_KERNEL = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
import numpy as np
from renderers.cpu import bin
print(bin.__file__)
starts = np.zeros(3, np.int64)
bin._counts_to_places(np.array([[2, 5]]), starts)
bin._counts_to_places(np.array([[2, 5]], np.int32), starts)
print(starts.tolist())
"""


def test_no_folder_for_the_kernel_cache(tmp_path: Path) -> None:
    """Nowhere to write: kernels compile in memory, which is announced once."""
    package = tmp_path / "renderers"
    shutil.copytree(ROOT / "renderers", package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package, package / "cpu"):
        (folder / "__pycache__").touch()  # a file: stops even an administrator
    nowhere = str(tmp_path / "renderers" / "__pycache__" / "sub")
    done = run_python(
        "import renderers.cpu.renderer" + SMALL_KERNEL,
        tmp_path,
        NUMBA_CACHE_DIR=nowhere,
        HOME=nowhere,
        XDG_CACHE_HOME=nowhere,
        LOCALAPPDATA=nowhere,
        PYTHONDONTWRITEBYTECODE="1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        str(package / "cpu" / "bin.py"),
        "compiling kernels, once (about 20 s)",
        "[0, 2, 7]",
    ]


def test_the_kernel_cache_goes_where_numba_is_told(tmp_path: Path) -> None:
    done = run_python(SMALL_KERNEL, NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "compiling kernels, once (about 20 s)" in done.stdout.splitlines()
    assert list(tmp_path.rglob("bin._counts_to_places*.nbi"))
    again = run_python(SMALL_KERNEL, NUMBA_CACHE_DIR=str(tmp_path))
    assert again.returncode == 0 and "compiling" not in again.stdout


@pytest.fixture
def packings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all sets of splats that are packed from now on."""
    made: list[int] = []
    original = pack.pack

    def counted(splats: Splats, order: torch.Tensor | None = None) -> pack.Segment:
        made.append(len(splats))
        return original(splats, order)

    monkeypatch.setattr(pack, "pack", counted)
    return made


def test_splats_are_packed_once(packings: list[int]) -> None:
    scene, camera = cloud(50), small_camera()
    first = make_renderer("cpu").render(scene, camera)
    make_renderer("cpu").render(scene, camera.moved(right=0.1))
    assert packings == [50]
    scene.colors.mul_(0.5)  # an optimiser's step in place
    second = make_renderer("cpu").render(scene, camera)
    assert packings == [50, 50]
    torch.testing.assert_close(second.rgb, first.rgb / 2)


def test_appended_splats_alone_are_packed(packings: list[int]) -> None:
    """A world that grows: what was there before is not touched again."""
    camera = Camera.from_fov(60, 97, 61)
    chunks = [cloud(n, seed) for seed, n in enumerate((300, 200, 700))]
    for count in (1, 2, 3):
        world = join(chunks[:count])
        picture = make_renderer("cpu").render(world, camera, BACKGROUND, details=True)
    assert packings == [300, 200, 700]
    alone = Splats(world.means, world.quats, world.scales, world.opacities, world.colors)
    want = make_renderer("cpu").render(alone, camera, BACKGROUND, details=True)
    assert packings[3:] == [1200]
    assert torch.equal(picture.rgb, want.rgb)
    assert picture.details is not None and want.details is not None
    assert torch.equal(picture.details.top_ids, want.details.top_ids)


def test_joined_harmonics_draw_as_packed_anew() -> None:
    camera = Camera.from_fov(60, 61, 45)
    for degrees in ((2, 2), (0, 3)):
        parts = [cloud(200, seed, degree) for seed, degree in enumerate(degrees)]
        world = join(parts)
        assert len(parts_of(world)) == (2 if degrees[0] == degrees[1] else 0)
        alone = world.to(torch.float32)._map(torch.clone)
        pictures = [make_renderer("cpu").render(scene, camera) for scene in (world, alone)]
        assert torch.equal(pictures[0].rgb, pictures[1].rgb)


def test_thousands_of_splats_at_one_depth_blend_by_row() -> None:
    """A wall that faces the camera: packed along a curve, drawn in the order given."""
    scene = cloud(3000, seed=7)
    scene.means[:, 2] = 2.0
    compare(scene, Camera.from_fov(60, 45, 33))


def test_a_changed_part_is_no_longer_used() -> None:
    parts, camera = [cloud(40, 1), cloud(40, 2)], small_camera()
    world = join(parts)
    want = make_renderer("cpu").render(world._map(torch.clone), camera)
    parts[0].colors.mul_(0.0)  # after joining: the world does not change with it
    assert torch.equal(make_renderer("cpu").render(world, camera).rgb, want.rgb)
    world.colors.mul_(0.5)
    torch.testing.assert_close(make_renderer("cpu").render(world, camera).rgb, want.rgb / 2)
    other = join([cloud(40, 1), cloud(40, 2)])  # its parts are gone at once
    assert parts_of(other) == ()
    assert torch.equal(make_renderer("cpu").render(other, camera).rgb, want.rgb)


@pytest.mark.parametrize("degrees", [0, 90, 180, 215])
def test_culling_changes_no_bit(degrees: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block that is left out shows nothing, from inside a room and from beside it."""
    scene = join([room(4000), cloud(1000, seed=4)])
    shown = []
    original = frame.visible_blocks

    def all_blocks(bounds: np.ndarray, *view: object) -> np.ndarray:
        shown.append(len(original(bounds, *view)) / len(bounds))
        return np.arange(len(bounds))

    for camera in (OFF_CENTRE, Camera.from_fov(40, 80, 60).moved(right=4.0, forward=1.0)):
        camera = camera.moved(yaw_degrees=degrees, pitch_degrees=degrees / 9)
        culled = make_renderer("cpu").render(scene, camera, BACKGROUND)
        with monkeypatch.context() as patched:
            patched.setattr(frame, "visible_blocks", all_blocks)
            whole = make_renderer("cpu").render(scene, camera, BACKGROUND)
        assert torch.equal(culled.rgb, whole.rgb) and torch.equal(culled.alpha, whole.alpha)
    assert min(shown) < 0.8


def test_morton_order_keeps_neighbours_together() -> None:
    """Runs of 64 of 4096 points in a cube fill a small part of it each, of the order of 1 / 64."""
    points = torch.rand(4096, 3, generator=torch.Generator().manual_seed(0))
    order = pack.morton_order(points)
    assert sorted(order.tolist()) == list(range(4096))
    runs = points[order].reshape(64, 64, 3)
    volumes = (runs.amax(1) - runs.amin(1)).prod(-1)
    assert volumes.median() < 4 / 64 and volumes.mean() < 6 / 64
    odd = torch.tensor([[math.nan, 0, 0], [math.inf, 1, 1], [1e38, -1e38, 0], [0, 0, 0]])
    assert sorted(pack.morton_order(odd).tolist()) == [0, 1, 2, 3]
    assert pack.morton_order(torch.empty(0, 3)).tolist() == []


def test_packed_splats_die_with_the_splats() -> None:
    gc.collect()
    scene, before = cloud(50), len(pack._scenes)
    make_renderer("cpu").render(scene, small_camera())
    assert len(pack._scenes) == before + 1
    del scene
    gc.collect()
    assert len(pack._scenes) == before


def test_a_renderer_serves_scenes_of_any_size_in_turn() -> None:
    renderer, camera = make_renderer("cpu"), small_camera()
    for n in (10, 3000, 0, 1, 700):
        out = renderer.render(cloud(n), camera)
        assert torch.equal(out.rgb, make_renderer("cpu").render(cloud(n), camera).rgb)


def test_pictures_do_not_share_memory() -> None:
    renderer, camera = make_renderer("cpu"), small_camera()
    first = renderer.render(cloud(100), camera)
    kept = first.rgb.clone()
    renderer.render(splat(1.0, 0.9, (0.0, 0.0, 1.0)), camera)
    assert torch.equal(first.rgb, kept)
    assert not math.isnan(first.rgb.sum())
