"""The best few of many sets, against all choices."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spatial_memory.cover import CANDIDATES, NODES, best_cover


def covered(masks: np.ndarray, worth: np.ndarray, chosen: np.ndarray) -> int:
    bits = sum(1 << int(i) for i in np.flatnonzero(chosen))
    return int(worth[masks & bits != 0].sum())


def greedy(masks: np.ndarray, worth: np.ndarray, candidates: int, k: int) -> np.ndarray:
    chosen = np.zeros(candidates, np.bool_)
    for _ in range(k):
        values = [
            covered(masks, worth, chosen | (np.arange(candidates) == i)) for i in range(candidates)
        ]
        chosen[int(np.argmax(values))] = True
    return chosen


@given(seed=st.integers(0, 10**6), candidates=st.integers(1, 9), k=st.integers(1, 4))
def test_no_choice_of_few_sets_covers_more(seed: int, candidates: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    masks, worth = rng.integers(0, 1 << candidates, 40), rng.integers(0, 9, 40)
    got = best_cover(masks, worth, candidates, k)
    assert got.sum() <= k
    choices = itertools.combinations(range(candidates), min(k, candidates))
    best = max(covered(masks, worth, np.isin(np.arange(candidates), c)) for c in choices)
    assert covered(masks, worth, got) == best


def test_greedy_is_beaten_where_two_halves_are_better_than_the_largest_set() -> None:
    """Sets of 6, 5 and 5 elements; the two smaller ones together have all ten."""
    masks = np.array([0b010] * 2 + [0b011] * 3 + [0b101] * 3 + [0b100] * 2)
    worth = np.ones(10, np.int64)
    assert best_cover(masks, worth, 3, 1).tolist() == [True, False, False]
    assert best_cover(masks, worth, 3, 2).tolist() == [False, True, True]


def test_of_equals_the_greedy_choice_stays() -> None:
    masks, worth = np.array([0b0111, 0b1001, 0b1110]), np.array([4, 2, 2])
    assert best_cover(masks, worth, 4, 2).tolist() == [True, True, False, False]


def test_of_many_the_answer_is_at_least_greedy() -> None:
    """More branches than are looked at."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 1 << CANDIDATES, 500) & rng.integers(0, 1 << CANDIDATES, 500)
    masks &= rng.integers(0, 1 << CANDIDATES, 500)
    worth = rng.integers(1, 9, 500)
    assert NODES < CANDIDATES**2
    got = best_cover(masks, worth, CANDIDATES, 5)
    least = greedy(masks, worth, CANDIDATES, 5)
    assert covered(masks, worth, got) >= covered(masks, worth, least)
