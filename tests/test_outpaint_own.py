"""The shipped outpainting network as a backend: any size, its geometry, an install without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_outpaint import right_side_hidden, stripes

from renderers import Camera, SceneError
from scenegen import models, outpaint
from scenegen.models.weights import read_card
from scenegen.outpaint import own
from scenegen.outpaint.network import Layout, OutpaintNetwork
from scenegen.outpaint.parts import Part
from scenegen.outpaint.weights import load_outpaint_network, pack_outpaint_network


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small network where the shipped one would be; its side branch is not silent."""
    torch.manual_seed(0)
    network = OutpaintNetwork(Layout(width=16))
    torch.nn.init.normal_(network.side.torgb.weight)
    path = tmp_path / "outpaint.safetensors"
    data, card = pack_outpaint_network(network, {"name": "tiny"})
    path.write_bytes(data)
    path.with_suffix(".json").write_text(card)
    monkeypatch.setattr(own, "shipped_path", lambda name: path)
    monkeypatch.setattr(models, "shipped_path", lambda name: path)
    own._load.cache_clear()
    return path


def camera(width: int, height: int) -> Camera:
    return Camera.from_fov(60.0, width, height)


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("shape", [(96, 128), (130, 70), (16, 300)])
def test_views_of_any_size_and_geometry_matters(shape: tuple[int, int]) -> None:
    image = stripes(*shape)
    known = right_side_hidden(image)
    filled = outpaint.fill(image, known, backend="own")
    assert torch.equal(filled[known], image[known])
    assert torch.equal(filled, outpaint.fill(image, known, backend="own"))
    assert float(filled[~known].std()) > 0
    depth = torch.where(known, torch.linspace(2, 5, shape[1]).expand(shape), torch.nan)
    view = camera(shape[1], shape[0])
    told = outpaint.fill(image, known, view, depth, backend="own")
    assert torch.equal(told[known], image[known]) and not torch.equal(told, filled)


def test_what_is_painted_lies_where_it_was_and_the_rest_is_the_view() -> None:
    """A network that turns colours into their opposites does so in the hole, and nowhere else."""

    class Opposite(OutpaintNetwork):
        def forward(
            self,
            rgb: torch.Tensor,
            known: torch.Tensor,
            side: torch.Tensor | None = None,
            wanted: Part | None = None,
        ) -> torch.Tensor:
            assert wanted is not None
            return -wanted.cut(rgb, Part.whole(rgb))

    down = torch.linspace(-1, 1, 100)[:, None].expand(100, 151)
    across = torch.linspace(-1, 1, 151).expand(100, 151)
    picture = torch.stack([down, across, -across])
    known = torch.ones(1, 100, 151)
    known[:, 30:60, 90:] = 0
    painted = own.ask(Opposite(Layout(width=16)), picture, known).permute(2, 0, 1)
    hole = known[0] == 0
    whole = (torch.where(hole, -picture, picture) + 1) / 2
    close = {"rtol": 0, "atol": 0.01}
    torch.testing.assert_close(painted[:, hole], whole[:, hole], **close)
    far = torch.ones_like(hole)
    far[30 - own.EDGE - 1 : 60 + own.EDGE + 1, 90 - own.EDGE - 1 :] = False
    torch.testing.assert_close(painted[:, far], whole[:, far], **close)


def test_what_was_packed_is_read_and_what_was_changed_is_not(tiny: Path) -> None:
    network = load_outpaint_network(tiny)
    assert network.layout == Layout(width=16) and read_card(tiny)["name"] == "tiny"
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    tiny.write_bytes(bytes(data))
    own._load.cache_clear()
    with pytest.raises(SceneError, match="its sha256 is"):
        outpaint.fill(stripes(), right_side_hidden(stripes()), backend="own")
    tiny.unlink()
    with pytest.raises(SceneError, match="come with the install, are gone"):
        outpaint.fill(stripes(), right_side_hidden(stripes()), backend="own")
