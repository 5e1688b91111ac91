"""The shipped depth network as a backend: its answer, its zero, and an install that lost it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from renderers import SceneError
from scenegen import geometry, models
from scenegen.geometry import base, trained
from scenegen.geometry.dpt import DepthLayout, DepthNetwork
from scenegen.geometry.sky import find_sky, seen_sky
from scenegen.geometry.weights import load_depth_network, pack_depth_network

TINY = DepthLayout(width=24, heads=2, depth=4, positions=4, fusion=8, head=8)


@pytest.fixture
def tiny_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A small network where the shipped one would be: it says that rows recede upwards."""
    torch.manual_seed(0)
    network = DepthNetwork(TINY)
    with torch.no_grad():
        network.base.weight.zero_()
        network.base.bias.zero_()
        network.base.weight[0, 4 * TINY.width + 2] = 2.0
    path = tmp_path / "depth.safetensors"
    data, card = pack_depth_network(network, {"name": "tiny"})
    path.write_bytes(data)
    path.with_suffix(".json").write_text(card)
    monkeypatch.setattr(trained, "shipped_path", lambda name: path)
    monkeypatch.setattr(models, "shipped_path", lambda name: path)
    trained._load.cache_clear()
    return path


@pytest.mark.usefixtures("tiny_file")
@pytest.mark.parametrize("shape", [(120, 160), (200, 90), (16, 16)])
def test_depth_follows_the_network(shape: tuple[int, int]) -> None:
    rgb = torch.rand(*shape, 3, generator=torch.Generator().manual_seed(1))
    found = geometry.estimate(rgb, "dpt")
    assert found.depth.shape == shape and torch.isfinite(found.depth).all()
    assert float(found.depth[-1].median()) < float(found.depth[0].median())
    assert 0 <= float(found.confidence.min()) <= float(found.confidence.max()) <= 1
    again = geometry.estimate(rgb, "dpt")
    assert torch.equal(found.depth, again.depth)


def test_a_look_is_the_mean_of_all_sizes_with_the_details_of_the_finest(tiny_file: Path) -> None:
    """Each look answers with its own number and, the first two, a stripe narrower than a cell."""
    network, numbers = load_depth_network(tiny_file), iter([1.0, 2.0, 6.0, 7.0])
    sizes: list[int] = []

    def say(image: torch.Tensor) -> torch.Tensor:
        sizes.append(image.shape[2] * image.shape[3])
        answer = torch.full((1, 1, 256, 256), next(numbers))
        answer[..., ::2] += 1.0 if len(sizes) <= trained.FINE_LOOKS else 0.0
        answer[..., 1::2] -= 1.0 if len(sizes) <= trained.FINE_LOOKS else 0.0
        return answer.flip(3) if trained.LOOKS[len(sizes) - 1][1] else answer

    found = trained.look(network, torch.rand(256, 256, 3), say)[0]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 2.5 * sizes[-1]
    torch.testing.assert_close(found[:, ::2], torch.full((256, 128), 5.0))  # (1 + 2 + 6 + 7) / 4
    torch.testing.assert_close(found[:, 1::2], torch.full((256, 128), 3.0))


@pytest.mark.usefixtures("tiny_file")
def test_the_mirror_image_is_mirrored_back() -> None:
    """Who answers with the image itself gets it back, from every look."""
    rgb = torch.linspace(0, 1, 112)[None, :, None].expand(84, 112, 3)
    found = trained.look(trained.TrainedDepth().network, rgb, lambda image: image[:, :1])[0]
    torch.testing.assert_close(found, rgb[..., 0], atol=0.03, rtol=0)


def test_where_disparity_is_zero_by_hand() -> None:
    """Farthest 1, median 3: zero lies at 1 - 2 indoors, and at 1 - 0.2 under a sky."""
    disparity = torch.tensor([[1.0] * 10 + [3.0] * 20 + [7.0] * 10])
    no_sky = torch.zeros(disparity.shape, dtype=torch.bool)
    torch.testing.assert_close(trained._from_zero(disparity, no_sky), disparity + 1.0)
    sky, with_sky = no_sky.clone(), torch.cat([torch.tensor([[-9.0]]), disparity], dim=1)
    sky = torch.cat([torch.ones(1, 1, dtype=torch.bool), sky], dim=1)
    found = trained._from_zero(with_sky, sky)
    torch.testing.assert_close(found[:, 1:], disparity - 0.8)
    assert 0 < float(found[0, 0]) < 0.01


def test_an_install_that_lost_its_weights(tiny_file: Path) -> None:
    assert base.DEPTH_BACKENDS["dpt"].missing() is None
    tiny_file.with_suffix(".json").unlink()
    with pytest.raises(SceneError, match="no model card"):
        geometry.estimate(torch.rand(32, 32, 3), "dpt")
    tiny_file.unlink()
    with pytest.raises(SceneError, match="come with the install, are gone"):
        geometry.estimate(torch.rand(32, 32, 3), "dpt")


def test_a_damaged_file_is_refused(tiny_file: Path) -> None:
    data = bytearray(tiny_file.read_bytes())
    data[len(data) // 2] ^= 1
    tiny_file.write_bytes(data)
    with pytest.raises(SceneError, match="its sha256 is"):
        geometry.estimate(torch.rand(32, 32, 3), "dpt")


@pytest.mark.parametrize(("room", "found"), [(0.0, True), (9.0, False)])
def test_the_network_sees_the_sky_that_colours_miss_but_not_in_rooms(
    tiny_file: Path, room: float, found: bool
) -> None:
    """A grey picture; the network says sky where the middle of a token is above the fourth row.

    Six rows of tokens are at -1, -0.6, -0.2, 0.2 ...: 20 (-y - 0.4) changes sign between the
    second and third, at y = -0.4: two of six rows and half a token's smoothing.
    """
    network = load_depth_network(tiny_file)
    with torch.no_grad():
        network.base.weight[1, 4 * TINY.width + 2], network.base.bias[1] = -20.0, -8.0
        network.room.bias.fill_(room)
    data, card = pack_depth_network(network, {"name": "tiny"})
    tiny_file.write_bytes(data)
    tiny_file.with_suffix(".json").write_text(card)
    rgb = torch.full((252, 336, 3), 0.5)
    sky = geometry.estimate(rgb, "dpt").sky
    assert bool(sky[:60].all()) is found and not sky[120:].any()


@pytest.mark.parametrize(("believed", "found"), [(8.0, True), (0.0, True), (-8.0, False)])
def test_a_sky_by_its_colours_is_none_where_the_network_sees_a_wall(
    tiny_file: Path, believed: float, found: bool
) -> None:
    """Plain blue above noise; the network says a chance of 1, of a half, of 1 in 3,000 all over."""
    network = load_depth_network(tiny_file)
    with torch.no_grad():
        network.base.bias[1] = believed
    data, card = pack_depth_network(network, {"name": "tiny"})
    tiny_file.write_bytes(data)
    tiny_file.with_suffix(".json").write_text(card)
    rgb = 0.4 * torch.rand(252, 336, 3, generator=torch.Generator().manual_seed(1))
    rgb[:100] = torch.tensor([0.5, 0.7, 0.95])
    assert find_sky(rgb)[:90].all()
    answer = geometry.estimate(rgb, "dpt")
    assert bool(answer.sky[:90].all()) is found and not answer.sky[120:].any()
    assert bool(torch.isfinite(answer.depth[:90]).any()) is not found


def test_the_seen_sky_follows_the_outlines_of_the_image() -> None:
    """A white sky above row 40, seen softly and three rows too low."""
    rgb = torch.full((90, 480, 3), 0.3)
    rgb[:40] = 0.9
    rows = torch.arange(90)[:, None].expand(90, 480)
    sky = seen_sky(rgb, torch.sigmoid((43.0 - rows) / 2))
    assert sky[:40].all() and not sky[40:].any()
    assert not seen_sky(rgb, torch.where(rows < 1, 0.9, 0.0)).any()  # too little of it
