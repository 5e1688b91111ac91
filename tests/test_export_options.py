"""What of a world is exported: budget, box, axes, ground, origin and scale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from coloured_room import camera, check_picture, coloured_room, psnr
from splat_scenes import room, rotation_of

from renderers import Camera, SceneError, Splats, make_renderer
from scenegen import cli
from scenegen.export import ExportOptions, export_file, read_ply, read_splats
from scenegen.export.budget import thinned


def pair(gap: float, opacity: float = 0.5) -> Splats:
    """Two equal round discs that face z, ``gap`` apart along x, red and blue."""
    return Splats(
        means=torch.tensor([[-gap / 2, 0.0, 3.0], [gap / 2, 0.0, 3.0]]),
        quats=torch.tensor([[1.0, 0, 0, 0]] * 2),
        scales=torch.tensor([[0.1, 0.1, 0.001]] * 2),
        opacities=torch.full((2,), opacity),
        colors=torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]),
        sh=torch.tensor([[[1.0] * 3] * 3, [[0.0] * 3] * 3]),
    )


def test_two_splats_become_one_by_hand() -> None:
    """Variance along x: 0.1^2 + 0.1^2 = 0.02; areas 2 x 0.01 on sqrt(2) x 0.01: opacity 0.7071."""
    one = thinned(pair(0.2), 1)
    assert len(one) == 1
    torch.testing.assert_close(one.means, torch.tensor([[0.0, 0.0, 3.0]]))
    torch.testing.assert_close(one.scales.sort().values[0], torch.tensor([0.001, 0.1, 0.02**0.5]))
    torch.testing.assert_close(one.opacities, torch.tensor([0.5**0.5]))
    torch.testing.assert_close(one.colors, torch.tensor([[0.5, 0.0, 0.5]]))
    assert one.sh is not None
    torch.testing.assert_close(one.sh, torch.full((1, 3, 3), 0.5))
    axes = rotation_of(one.quats[0])
    covariance = axes @ torch.diag(one.scales[0].double() ** 2) @ axes.T
    want = torch.diag(torch.tensor([0.02, 0.01, 1e-6], dtype=torch.float64))
    torch.testing.assert_close(covariance, want, rtol=1e-4, atol=1e-8)


def test_opaque_splats_grow_to_cover_what_they_covered() -> None:
    """Twice 0.9 on sqrt(2) times the area is 1.2728: opacity 0.99, both axes times 1.2857^0.35."""
    one = thinned(pair(0.2, 0.9), 1)
    torch.testing.assert_close(one.opacities, torch.tensor([0.99]))
    grown = (1.8 / 2**0.5 / 0.99) ** 0.35
    want = torch.tensor([0.001, 0.1 * grown, 0.02**0.5 * grown])
    torch.testing.assert_close(one.scales.sort().values[0], want)


def test_merging_beats_cutting_and_leaves_no_holes() -> None:
    """A third of a room, seen from its middle and from another place."""
    scene, few = room(12_000), 4000
    merged = thinned(scene, few)
    assert len(merged) == few
    keep = torch.randperm(len(scene), generator=torch.Generator().manual_seed(0))[:few]
    cut = scene[keep]
    grown = Splats(cut.means, cut.quats, cut.scales * 3**0.5, cut.opacities, cut.colors)
    home = Camera.from_fov(70, 240, 180)
    for view in (home, home.moved(right=0.4, forward=0.3, yaw_degrees=40)):
        renders = [make_renderer("cpu").render(s, view) for s in (scene, merged, cut, grown)]
        whole, ours, holes, blurred = (render.rgb for render in renders)
        assert renders[1].alpha.mean() > 0.97 * renders[0].alpha.mean()
        assert psnr(ours, whole) > max(psnr(holes, whole), psnr(blurred, whole)) + 2.0


def test_edges_stay_where_surfaces_are_smooth() -> None:
    merged = thinned(coloured_room(), 2600)
    picture = make_renderer("cpu").render(merged, camera()).rgb.numpy()
    check_picture(picture, tolerance=0.2)


def test_a_budget_is_kept_exactly_and_the_same_each_time() -> None:
    scene = room(3000)
    assert thinned(scene, 3000) is scene
    for budget in (2999, 700, 3, 1):
        assert len(thinned(scene, budget)) == budget
    one, two = thinned(scene, 500), thinned(scene, 500)
    assert all(torch.equal(getattr(one, n), getattr(two, n)) for n in ("means", "quats", "scales"))
    lengths = torch.linalg.norm(one.quats, dim=1)
    torch.testing.assert_close(lengths, torch.ones(500), rtol=0, atol=1e-5)


def test_transparent_and_broken_splats_go_first() -> None:
    scene = room(100)
    scene.opacities[:40] = 0.001
    scene.means[40] = torch.nan
    assert torch.equal(thinned(scene, 60).means, scene.means[41:])


@pytest.mark.parametrize("name", ["ply", "spz"])
@pytest.mark.parametrize(
    ("up", "want"),
    [("-y", (1.0, 2.0, 3.0)), ("y", (1.0, -2.0, -3.0)), ("z", (1.0, 3.0, -2.0))],
)
def test_up_is_up_in_the_file_whatever_the_format(
    tmp_path: Path, name: str, up: str, want: tuple
) -> None:
    """A point 1 right, 2 below, 3 ahead; the reader's own axes undone to see the file's."""
    scene = pair(0.0)
    scene = Splats(
        torch.tensor([[1.0, 2, 3], [0, 0, 0]]), scene.quats, scene.scales, scene.opacities,
        scene.colors,
    )  # fmt: skip
    options = ExportOptions(up=up)  # type: ignore
    export_file(tmp_path / f"a.{name}", splats=scene, options=options)
    point = read_splats(tmp_path / f"a.{name}").means[0]
    point = point * torch.tensor([1.0, -1, -1]) if name == "spz" else point
    torch.testing.assert_close(point, torch.tensor(want))


def test_scale_ground_and_origin(tmp_path: Path) -> None:
    """A point 0.2 m above ground that is 1.6 m below the camera, 1 m left of the new origin."""
    scene = pair(2.0)
    scene = Splats(
        torch.tensor([[-1.0, 1.4, 4.0], [1.0, 1.4, 4.0]]), scene.quats, scene.scales,
        scene.opacities, scene.colors,
    )  # fmt: skip
    options = ExportOptions(scale=100.0, ground=True, origin=(0.0, 9.0, 3.0), up="z")
    export_file(tmp_path / "a.ply", splats=scene, options=options, ground=1.6)
    back = read_ply(tmp_path / "a.ply")
    want = torch.tensor([[-100.0, 100.0, 20.0], [100.0, 100.0, 20.0]])
    torch.testing.assert_close(back.means, want, rtol=0, atol=1e-3)
    torch.testing.assert_close(back.scales, scene.scales * 100, rtol=1e-5, atol=0)


def test_crop_keeps_what_is_inside(tmp_path: Path) -> None:
    scene = coloured_room()
    options = ExportOptions(crop=(-1.5, -1.0, 3.0, 1.5, 1.0, 3.95))
    export_file(tmp_path / "a.ply", splats=scene, options=options)
    back = read_ply(tmp_path / "a.ply")
    assert len(back) == 2 * 81 and (back.means[:, 2] - 3.9).abs().max() < 1e-6
    with pytest.raises(SceneError, match=r"nothing to export\n.*is empty"):
        export_file(
            tmp_path / "a.ply", splats=scene, options=ExportOptions(crop=(9, 9, 9, 10, 10, 10))
        )
    assert len(read_ply(tmp_path / "a.ply")) == 2 * 81


def test_meshes_are_placed_and_cropped_too(tmp_path: Path) -> None:
    box = trimesh.creation.box((2.0, 2.0, 2.0))
    box.visual.vertex_colors = np.full((8, 4), 255, np.uint8)
    options = ExportOptions(origin=(1.0, 1.0, 1.0), scale=2.0)
    export_file(tmp_path / "a.glb", splats=pair(1.0), mesh=lambda most: box, options=options)
    back = trimesh.load_scene(tmp_path / "a.glb").to_geometry()
    np.testing.assert_allclose(back.bounds, [[-4, 0, 0], [0, 4, 4]], atol=1e-6)  # y up, z back
    np.testing.assert_allclose(box.bounds, [[-1] * 3, [1] * 3])
    half = ExportOptions(crop=(-1, -1, -1, 1, 1, -1))
    export_file(tmp_path / "a.glb", splats=pair(1.0), mesh=lambda most: box, options=half)
    assert len(trimesh.load_scene(tmp_path / "a.glb").to_geometry().faces) == 2
    with pytest.raises(SceneError, match="nothing to export"):
        export_file(
            tmp_path / "a.glb", splats=pair(1.0), mesh=lambda most: box,
            options=ExportOptions(crop=(-1, -1, -1, 0, 0, 0)),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"scale": 0.0}, "a scale of 0.0 is impossible"),
        ({"scale": float("nan")}, "a scale of nan is impossible"),
        ({"splats": 0}, "a budget of 0 splats is impossible"),
        ({"crop": (1, 0, 0, 0, 1, 1)}, "this is not a box"),
        ({"crop": (0, 0, 0, float("nan"), 1, 1)}, "this is not a box"),
        ({"origin": (0, float("inf"), 0)}, "cannot be the origin"),
    ],
)
def test_impossible_options_are_refused(values: dict, text: str) -> None:
    with pytest.raises(SceneError, match=text):
        ExportOptions(**values)


def test_options_reach_from_the_command_line(
    grown_world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", grown_world, tmp_path / "a.spz", "--splats", 900, "--up", "z", "--ground"]
    assert cli.main([str(word) for word in words]) == 0
    assert len(read_splats(tmp_path / "a.spz")) == 900
    words = ["export", grown_world, tmp_path / "b.ply", "--crop", -9, -9, -9, 9, 9, 9]
    assert cli.main([str(word) for word in words]) == 0
    assert read_ply(tmp_path / "b.ply").means.abs().max() <= 9
    capsys.readouterr()
    words = ["export", grown_world, tmp_path / "c.ply", "--scale", -1]
    assert cli.main([str(word) for word in words]) == 2
    assert "error: a scale of -1.0 is impossible" in capsys.readouterr().err
