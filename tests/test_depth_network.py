"""The depth network and its files: against the ONNX, by hand, and with damaged files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from renderers import SceneError
from scenegen import models
from scenegen.geometry import dinov2
from scenegen.geometry.dinov2 import DinoV2, missing_backbone, pretrained_backbone
from scenegen.geometry.dpt import (
    SCALE,
    DepthLayout,
    DepthNetwork,
    DepthPrediction,
    fuse,
    outline_image,
)
from scenegen.geometry.fast_branch import (
    FastBranch,
    missing_branch,
    pretrained_branch,
    square_image,
)
from scenegen.geometry.weights import load_depth_network, pack_depth_network
from scenegen.models.onnx import onnx_session
from scenegen.models.weights import read_card

TINY = DepthLayout(width=24, heads=2, depth=4, positions=4, fusion=8, head=8)
NO_BACKBONE = missing_backbone()


def tiny(seed: int = 0) -> DepthNetwork:
    torch.manual_seed(seed)
    return DepthNetwork(TINY).eval()


@pytest.mark.skipif(NO_BACKBONE is not None, reason=str(NO_BACKBONE))
def test_backbone_is_the_one_in_the_onnx_file() -> None:
    onnx: Any = pytest.importorskip("onnx", reason="the package onnx is not installed")
    runtime: Any = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    graph = onnx.load(models.model_path("dinov2-s"))
    name = "/backbone/layernorm/Add_1_output_0"  # the tokens after the final norm
    output = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
    graph.graph.output.append(output)
    session = runtime.InferenceSession(graph.SerializeToString())
    rgb = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    mean, deviation = (
        np.array(x, dtype=np.float32)[:, None, None] for x in (dinov2.MEAN, dinov2.DEVIATION)
    )
    (expected,) = session.run([name], {"input_image": (rgb.numpy() - mean) / deviation})
    backbone = pretrained_backbone()
    with torch.no_grad():
        ours = backbone.norm(backbone(rgb)[3]).numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.skipif(missing_branch() is not None, reason=str(missing_branch()))
def test_the_second_branch_is_the_one_in_the_onnx_file() -> None:
    square = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    session = onnx_session("fastdepth")
    expected = [
        session.run(None, {session.get_inputs()[0].name: x[None].numpy()})[0][0, 0] for x in square
    ]
    with torch.no_grad():
        ours = pretrained_branch().depth(square)
    np.testing.assert_allclose(ours.numpy(), np.stack(expected), rtol=0, atol=1e-5)


def test_the_second_branch_answers_in_deviations_from_its_median() -> None:
    torch.manual_seed(0)
    branch = FastBranch()
    with torch.no_grad():
        for layer in branch.modules():  # torch's own start lets an image fade over 38 layers
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight)
        branch.last.weight.abs_()
        said = branch(torch.rand(2, 3, 224, 224), 16, 24)
    torch.testing.assert_close(said.flatten(1).median(1).values, torch.zeros(2))
    torch.testing.assert_close(said.abs().mean((1, 2)), torch.ones(2), atol=1e-2, rtol=0)


def test_pretrained_weights_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path))
    assert "not on this machine" in str(missing_backbone())
    with pytest.raises(SceneError, match="scenegen models pull dinov2-s"):
        pretrained_backbone()
    assert "not on this machine" in str(missing_branch())
    with pytest.raises(SceneError, match="scenegen models pull fastdepth"):
        pretrained_branch()


def test_levels_are_those_of_the_last_block_of_each_quarter() -> None:
    assert DinoV2(24, 2, 12, 4).levels == (2, 5, 8, 11)
    backbone = DinoV2(24, 2, 4, 4).eval()
    rgb = torch.rand(2, 3, 28, 42)
    levels = backbone(rgb)
    assert [tuple(level.shape) for level in levels] == [(2, 7, 24)] * 4
    torch.testing.assert_close(backbone.run(levels[2], 3)[0], levels[3])


@pytest.mark.parametrize("shape", [(28, 42), (42, 28), (14, 14), (70, 98)])
def test_outputs_lie_on_eight_cells_a_token(shape: tuple[int, int]) -> None:
    rows, columns = shape[0] // 14, shape[1] // 14
    with torch.no_grad():
        said = tiny()(torch.rand(2, 3, *shape))
    assert said.disparity.shape == (2, SCALE * rows, SCALE * columns)
    assert said.sky.shape == said.confidence.shape == said.disparity.shape
    lengths = torch.linalg.norm(said.normals, dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_an_untrained_head_answers_with_the_base() -> None:
    """A base that knows only the row, disparity = y: a ramp from -1 to 1, and a usual lens."""
    network = tiny()
    with torch.no_grad():
        network.base.weight.zero_()
        network.base.bias.zero_()
        network.base.weight[0, 4 * TINY.width + 2] = 1.0
        rgb = torch.rand(1, 3, 70, 70)
        said = network(rgb)
        levels = network.backbone(rgb)
        base = network.base_alone(levels, 5, 5)
    first = network.decode(levels, outline_image(rgb, 5, 5))
    torch.testing.assert_close(first.disparity, base[:, 0])
    torch.testing.assert_close(
        first.disparity[0, 4::8, 0], torch.linspace(-1, 1, 5), atol=0.1, rtol=0
    )
    assert float(said.log_focal) == pytest.approx(math.log(0.85))
    torch.testing.assert_close(said.normals[0, :, 0, 0], torch.tensor([0.0, 0.0, -1.0]))


def test_cached_tokens_give_what_the_image_gives() -> None:
    network, rgb = tiny(), torch.rand(1, 3, 28, 42)
    with torch.no_grad():
        direct = network(rgb)
        fast = network.fast(square_image(rgb), 16, 24)
        cached = network.decode(network.backbone(rgb), outline_image(rgb, 2, 3))
    assert torch.equal(direct.disparity, fuse(cached, fast))
    assert torch.equal(direct.normals, cached.normals)


def test_the_branches_are_averaged_in_rooms_only() -> None:
    """Rows 4, 2, 1, and sky: median 2, mean deviation (2 + 0 + 1) / 3 = 1; the other says 0."""
    plane = torch.tensor([[[4.0], [2.0], [1.0], [0.0]]])
    sky = torch.tensor([[[-1.0], [-1.0], [-1.0], [1.0]]])
    empty = torch.zeros_like(plane)
    normals, lens = torch.zeros(1, 3, 4, 1), torch.zeros(1)
    said = DepthPrediction(plane, sky, normals, empty, lens, torch.tensor([50.0]))
    room = fuse(said, empty)
    torch.testing.assert_close(room, torch.tensor([[[1.0], [0.0], [-0.5], [-2.0]]]))
    street = fuse(replace(said, indoors=torch.tensor([-50.0])), empty)
    torch.testing.assert_close(street, torch.tensor([[[2.0], [0.0], [-1.0], [-2.0]]]))


def test_noise_on_tokens_is_that_of_its_seed() -> None:
    network, rgb = tiny(), torch.rand(1, 3, 28, 42)
    with torch.no_grad():
        network.base.weight.normal_()
        levels, image = network.backbone(rgb), outline_image(rgb, 2, 3)
        plain, one, same, other = (
            network.decode(levels, image, seed and torch.Generator().manual_seed(seed)).disparity
            for seed in (None, 1, 1, 2)
        )
    assert torch.equal(one, same)
    assert not torch.allclose(one, plain) and not torch.allclose(one, other)


def written(folder: Path) -> Path:
    data, card = pack_depth_network(tiny(), {"name": "tiny"})
    path = folder / "tiny.safetensors"
    path.write_bytes(data)
    path.with_suffix(".json").write_text(card)
    return path


def test_files_hold_the_network_in_half_precision(tmp_path: Path) -> None:
    path = written(tmp_path)
    again, network, rgb = load_depth_network(path), tiny(), torch.rand(1, 3, 28, 28)
    assert read_card(path)["name"] == "tiny" and again.layout == TINY and not again.training
    for name, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], value.half().float()), name
    with torch.no_grad():
        torch.testing.assert_close(again(rgb).sky, network(rgb).sky, atol=0.02, rtol=0)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    good, card = path.read_bytes(), json.loads(path.with_suffix(".json").read_text())

    def refused(match: str, data: bytes = good, **changed: Any) -> None:
        path.write_bytes(data)
        path.with_suffix(".json").write_text(json.dumps({**card, **changed}))
        with pytest.raises(SceneError, match=match) as error:
            load_depth_network(path)
        assert len(str(error.value).splitlines()) == 3

    refused("its sha256 is", good[:-1] + bytes([good[-1] ^ 1]))
    refused("its sha256 is", good[: len(good) // 2])
    refused("size mismatch|Error", layout={**card["layout"], "fusion": 16})
    refused("unexpected keyword", layout={"weird": 1})
    refused("is newer than this program", format=2)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(SceneError, match="model card cannot be read"):
        load_depth_network(path)
    path.with_suffix(".json").write_text("[]")
    with pytest.raises(SceneError, match="lacks the format"):
        load_depth_network(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(SceneError, match="no model card"):
        load_depth_network(path)
    path.with_suffix(".json").write_text(json.dumps(card))
    path.unlink()
    with pytest.raises(SceneError, match="cannot be read"):
        load_depth_network(path)


def test_weights_beyond_half_precision_are_not_written() -> None:
    network = tiny()
    with torch.no_grad():
        network.base.bias.fill_(1e6)
    with pytest.raises(SceneError, match="beyond half precision"):
        pack_depth_network(network, {})
