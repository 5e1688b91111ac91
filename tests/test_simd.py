"""Vectors of eight floats in kernels: sums by hand."""

from __future__ import annotations

import numpy as np

from renderers.kernels import kernel
from renderers.simd import fetch, load, load_rows, store, total, totals


@kernel()
def _all_sums(values, out):
    for line in range(8):
        fetch(values, np.uint64(8 * line))
        out[8 + line] = total(load(values, np.uint64(8 * line)))
    rows = (
        load(values, np.uint64(0)),
        load(values, np.uint64(8)),
        load(values, np.uint64(16)),
        load(values, np.uint64(24)),
        load(values, np.uint64(32)),
        load(values, np.uint64(40)),
        load(values, np.uint64(48)),
        load(values, np.uint64(56)),
    )
    store(out, np.uint64(0), totals(*rows))


def test_eight_sums_at_once_are_those_one_by_one() -> None:
    """Line ``n`` holds 8 n, 8 n + 1, ... 8 n + 7: its sum is 64 n + 28."""
    out = np.empty(16, np.float32)
    _all_sums(np.arange(64, dtype=np.float32), out)
    expected = 64 * np.arange(8, dtype=np.float32) + 28
    np.testing.assert_array_equal(out[:8], expected)
    np.testing.assert_array_equal(out[8:], expected)


def test_neighbours_are_added_first() -> None:
    """1e8 and -1e8 cancel before the 1 beside them could be lost."""
    values = np.zeros(64, np.float32)
    values[:4] = 1e8, -1e8, 1.0, 0.0
    out = np.empty(16, np.float32)
    _all_sums(values, out)
    assert out[0] == 1.0


@kernel()
def _turn(rows, first, out):
    columns = load_rows(rows, np.uint64(first))
    for axis in range(3):
        store(out, np.uint64(8 * axis), columns[axis])


def test_rows_are_loaded_as_columns() -> None:
    rows, out = np.arange(30, dtype=np.float32), np.empty(24, np.float32)
    _turn(rows, 6, out)
    np.testing.assert_array_equal(out.reshape(3, 8), rows.reshape(10, 3)[2:].T)
