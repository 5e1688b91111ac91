"""Detail of invented pixels: as strong as beside them, in each direction, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from renderers import Camera
from scenegen import outpaint
from scenegen.outpaint import filling
from scenegen.outpaint.detail import MOST, RIM_PX, with_detail

HEIGHT, WIDTH, FIRST = 96, 160, 96
TINT = torch.tensor([1.0, 0.8, 0.4])
LINES = 0.05
"""Height of the lines, in natural logarithms."""
KNOWN = torch.arange(WIDTH).expand(HEIGHT, -1) < FIRST
FAR_IN = slice(FIRST + 6, None)
"""Columns of the hole whose detail is their own alone."""


def woven(upright: Tensor | float, level: Tensor | float) -> Tensor:
    """Upright and level lines, two pixels from one to the next, at that share of LINES."""
    rows, columns = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    signs = (-1.0) ** torch.stack([columns, rows])
    return 0.4 * torch.exp(LINES * (upright * signs[0] + level * signs[1]))[..., None] * TINT


def lines_of(rgb: Tensor) -> tuple[float, float]:
    """Shares of LINES at which upright and level lines stand in the hole, far from its rim."""
    plane = torch.log(rgb[8:-8, FAR_IN, 0])
    across, down = plane.mean(0), plane.mean(1)
    return float(across.diff().abs().mean() / 2 / LINES), float(
        down.diff().abs().mean() / 2 / LINES
    )


@pytest.mark.parametrize(
    ("painted", "wanted"),
    [
        ((1, 0.8), (1, 1)),
        ((0.8, 1), (1, 1)),
        ((0.5, 0.8), (0.5 * MOST, 1)),
        ((1.2, 1.1), (1.2, 1.1)),
    ],
)
def test_each_direction_gets_the_strength_beside_it(
    painted: tuple[float, float], wanted: tuple[float, float]
) -> None:
    hidden = (~KNOWN).float()
    soft = woven(*(1 + (share - 1) * hidden for share in painted))
    found = with_detail(soft, KNOWN, ~KNOWN)
    assert lines_of(soft) == pytest.approx(painted, rel=0.01)
    assert lines_of(found) == pytest.approx(wanted, rel=0.03)
    assert torch.equal(found[KNOWN], soft[KNOWN])
    ratios = found[~KNOWN] / found[~KNOWN][:, :1]
    torch.testing.assert_close(ratios, TINT.expand_as(ratios))  # hue and saturation stay


def test_what_is_plain_stays_plain() -> None:
    """Sky over soft grass, beside sky over grass: the sky keeps its bits."""
    grass = (torch.arange(HEIGHT) >= HEIGHT // 2).float()[:, None]
    soft = woven(grass * torch.where(KNOWN, 1.0, 0.75), 0.0)
    found = with_detail(soft, KNOWN, ~KNOWN)
    sky = slice(0, HEIGHT // 2 - 6)
    assert torch.equal(found[sky], soft[sky])
    strong = [torch.log(image[HEIGHT // 2 + 8 :, FAR_IN, 0]).std() for image in (found, soft)]
    assert strong[0] == pytest.approx(float(strong[1]) / 0.75, rel=0.03)


def test_nothing_to_compare_changes_nothing() -> None:
    image = woven(1.0, 1.0)
    nothing = torch.zeros_like(KNOWN)
    assert torch.equal(with_detail(image, KNOWN, nothing), image)
    assert torch.equal(with_detail(image, nothing, ~nothing), image)
    crack = nothing.clone()
    crack[:, FIRST : FIRST + 2 * RIM_PX] = True  # all of it is rim
    assert torch.equal(with_detail(image, ~crack, crack), image)
    black = torch.zeros_like(image)
    assert torch.equal(with_detail(black, KNOWN, ~KNOWN), black)


def test_a_soft_outpainter_is_made_clearer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the door, on lines that it paints at three quarters of their height."""

    class Soft:
        def fill(self, rgb: Tensor, known: Tensor, camera: Camera | None, *_: object) -> Tensor:
            return woven(0.75, 0.75)

    monkeypatch.setattr(filling, "choose_outpainter", lambda *_: ("soft", Soft))
    image = woven(1.0, 1.0)
    filled = outpaint.fill(image, KNOWN)
    assert lines_of(filled) == pytest.approx((1, 1), rel=0.05)
    assert torch.equal(filled[KNOWN], image[KNOWN])
    assert torch.equal(filled, outpaint.fill(image, KNOWN))
