"""Outpainting: what every backend that runs here must keep, and the errors of the door."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from renderers import Camera, SceneError
from scenegen import outpaint
from scenegen.outpaint.filling import GROW_PX
from scenegen.outpaint.seams import with_grain

RUNNABLE = [
    name
    for name, entry in outpaint.OUTPAINTERS.items()
    if entry.missing() is None and name != "none"
]


@dataclass(frozen=True, eq=False)
class Past:
    rgb: torch.Tensor
    known: torch.Tensor
    depth: torch.Tensor
    camera: Camera


def stripes(height: int = 96, width: int = 128) -> torch.Tensor:
    """Blue over green, with a fence of vertical bars."""
    image = torch.zeros(height, width, 3)
    image[: height // 2] = torch.tensor([0.3, 0.5, 0.9])
    image[height // 2 :] = torch.tensor([0.2, 0.6, 0.2])
    image[height // 3 : 2 * height // 3, ::8] = 0.9
    return image


def right_side_hidden(image: torch.Tensor, share: float = 0.25) -> torch.Tensor:
    known = torch.ones(image.shape[:2], dtype=torch.bool)
    known[:, int(image.shape[1] * (1 - share)) :] = False
    return known


@pytest.mark.parametrize("name", RUNNABLE)
def test_known_pixels_come_back_bit_identical_and_the_hole_continues(name: str) -> None:
    image = stripes()
    known = right_side_hidden(image)
    dirty = torch.where(known[..., None], image, torch.nan)
    filled = outpaint.fill(dirty, known, seed=3, backend=name)
    assert torch.equal(filled[known], image[known])
    assert filled.shape == image.shape and filled.min() >= 0 and filled.max() <= 1
    top, bottom = filled[5:30, -20:].mean((0, 1)), filled[-20:, -20:].mean((0, 1))
    assert top[2] > top[1] and bottom[1] > bottom[2]  # blue above, green below


@pytest.mark.parametrize("name", RUNNABLE)
def test_the_same_seed_gives_the_same_picture(name: str) -> None:
    image = stripes()
    known = right_side_hidden(image)
    first, second = (outpaint.fill(image, known, seed=5, backend=name) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("shape", [(33, 47), (64, 200), (150, 40)])
def test_any_size(name: str, shape: tuple[int, int]) -> None:
    image = stripes(*shape)
    known = right_side_hidden(image)
    assert outpaint.fill(image, known, backend=name).shape == image.shape


@pytest.mark.skipif("patch" not in RUNNABLE, reason="pypatchmatch is not installed")
def test_patches_come_from_the_retrieved_view() -> None:
    """The hole's surroundings are plain grey; only the reference holds red."""
    image = torch.full((96, 128, 3), 0.5)
    image[40:56, :100] = torch.tensor([0.9, 0.1, 0.1])  # a red band that runs into the hole
    known = right_side_hidden(image)
    band = image.clone()
    band[40:56] = torch.tensor([0.9, 0.1, 0.1])
    everywhere = torch.ones(96, 128, dtype=torch.bool)
    past = Past(band, everywhere, everywhere.float(), Camera.from_fov(60, 128, 96))
    with_past = outpaint.fill(image, known, references=(past,), backend="patch")
    assert float(with_past[44:52, -16:, 0].mean()) > 0.8


def test_nothing_to_fill_and_nothing_known() -> None:
    image = stripes()
    everything = torch.ones(image.shape[:2], dtype=torch.bool)
    assert torch.equal(outpaint.fill(image, everything), image)
    with pytest.raises(SceneError, match="nothing is known"):
        outpaint.fill(image, ~everything)


def test_the_colour_at_the_seam_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outpainter that is 0.2 too dark everywhere: at the seam nothing shows, far in it stays."""

    class TooDark:
        def fill(self, rgb: torch.Tensor, *_: object) -> torch.Tensor:
            return torch.full_like(rgb, 0.4)

    monkeypatch.setattr(outpaint.filling, "choose_outpainter", lambda *_: ("dark", TooDark))
    image = torch.full((40, 120, 3), 0.6)
    filled = outpaint.fill(image, right_side_hidden(image, 0.5))
    torch.testing.assert_close(filled[:, 60], torch.full((40, 3), 0.6), rtol=0, atol=0.015)
    torch.testing.assert_close(filled[:, -1], torch.full((40, 3), 0.4), rtol=0, atol=0.006)


def test_a_seam_in_grainy_sand_is_no_steeper_than_the_sand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outpainter gives a flat grey; along the seam single pixels must not end at once."""

    class Flat:
        def fill(self, rgb: torch.Tensor, *_: object) -> torch.Tensor:
            return torch.full_like(rgb, 0.5)

    monkeypatch.setattr(outpaint.filling, "choose_outpainter", lambda *_: ("flat", Flat))
    draw = torch.Generator().manual_seed(0)
    image = 0.5 + 0.05 * torch.randn(96, 128, 1, generator=draw).expand(-1, -1, 3)
    known = right_side_hidden(image)
    filled = outpaint.fill(image, known)
    steps = torch.diff(filled, dim=1).abs().mean((0, 2))
    assert steps[95] < 1.2 * steps[60:95].mean()
    plain = torch.where(known[..., None], image, 0.5)
    assert torch.diff(plain, dim=1).abs().mean((0, 2))[95] < steps[60:95].mean()  # grain alone
    mismatch = torch.where(known[..., None], image, image.roll(5, 0))
    assert torch.diff(mismatch, dim=1).abs().mean((0, 2))[95] > 0.8 * steps[60:95].mean()


def test_grain_goes_on() -> None:
    """White grain of 3 levels beside a flat hole: it gets the same, by the seed."""
    draw = torch.Generator().manual_seed(0)
    image = 0.5 + 3 / 255 * torch.randn(96, 128, 1, generator=draw).expand(-1, -1, 3)
    known = right_side_hidden(image)
    flat = torch.where(known[..., None], image, 0.5)
    grainy = with_grain(flat, known, ~known, 4)
    assert torch.equal(grainy[known], image[known])
    assert float(grainy[~known][:, 0].std()) == pytest.approx(3 / 255, rel=0.25)
    assert torch.equal(grainy, with_grain(flat, known, ~known, 4))
    assert not torch.equal(grainy, with_grain(flat, known, ~known, 5))
    smooth = torch.full_like(image, 0.5)
    assert torch.equal(with_grain(smooth, known, ~known, 4), smooth)


def test_a_few_known_pixels_are_enough() -> None:
    image = stripes()
    known = torch.zeros(image.shape[:2], dtype=torch.bool)
    known[10 : 10 + GROW_PX, 10 : 10 + GROW_PX] = True  # vanishes when the hole grows
    filled = outpaint.fill(image, known, backend=RUNNABLE[-1])
    assert torch.isfinite(filled).all() and torch.equal(filled[known], image[known])


def test_errors_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    with pytest.raises(SceneError, match="same pixel grid"):
        outpaint.fill(stripes().numpy(), torch.ones(9, 9, dtype=torch.bool).numpy())
    with pytest.raises(SceneError, match="unknown outpaint backend 'magic'"):
        outpaint.fill(stripes(), right_side_hidden(stripes()), backend="magic")
    monkeypatch.setenv("SCENEGEN_MODELS", str(tmp_path))
    with pytest.raises(SceneError, match="scenegen models pull migan"):
        outpaint.fill(stripes(), right_side_hidden(stripes()), backend="migan")
