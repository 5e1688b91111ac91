"""Smooth completion and slopes, by hand and by law."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from scenegen.fields import box_of, flatter_slope, pull_push


def test_pull_push_by_hand() -> None:
    """1 x 4, known 2 and 6 at its ends: the membrane between is a straight line."""
    values = torch.tensor([[[2.0], [9.0], [float("nan")], [6.0]]])
    known = torch.tensor([[True, False, False, True]])
    filled = pull_push(values, known)[0, :, 0]
    expected = torch.tensor([2.0, 2 + 4 / 3, 2 + 8 / 3, 6.0])
    torch.testing.assert_close(filled, expected, rtol=0, atol=1e-3)


@given(seed=st.integers(0, 10_000), share=st.floats(0.01, 0.9))
def test_pull_push_keeps_known_and_stays_in_range(seed: int, share: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(13, 21, 2, generator=generator)
    known = torch.rand(13, 21, generator=generator) < share
    known[4, 7] = True
    filled = pull_push(values, known)
    assert torch.equal(filled[known], values[known])
    low, high = values[known].amin(0), values[known].amax(0)
    assert (filled >= low - 1e-5).all() and (filled <= high + 1e-5).all()


def test_pull_push_of_nothing_is_zero() -> None:
    values, known = torch.full((5, 6, 1), torch.nan), torch.zeros(5, 6, dtype=torch.bool)
    assert torch.equal(pull_push(values, known), torch.zeros(5, 6, 1))


def test_flatter_slope_ignores_the_step_on_one_side() -> None:
    row = torch.tensor([[0.0, 1.0, 2.0, 50.0, 51.0]])
    torch.testing.assert_close(flatter_slope(row, 1), torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0]]))


def test_a_box_holds_what_is_wanted_and_a_margin_within_the_picture() -> None:
    wanted = torch.zeros(6, 8, dtype=torch.bool)
    wanted[1, 3] = wanted[4, 6] = True
    assert box_of(wanted) == (slice(1, 5), slice(3, 7))
    assert box_of(wanted, margin=2) == (slice(0, 6), slice(1, 8))
