"""More splats where pictures lack them, fewer where they show nothing (Kerbl et al. 2023, 5.2)."""

from __future__ import annotations

import numpy as np
import torch

from renderers.reference import rotation_matrices

OPACITY_MIN = 0.01
"""A splat that has faded below this is taken away."""
OFFSET = 0.5
"""Halves of a split splat move this far apart from its centre, in its largest standard deviation;
they shrink along that axis so that the variance of the pair stays what it was."""


def pruned_and_split(
    table: np.ndarray, pulls: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Take faded splats away, and split those that want to move most, within a budget.

    A splat whose gradient keeps pulling stands for more than one can show: two halves along its
    largest axis can part. Together they are as opaque as it was.

    Args:
        table: (n, 14) mean, quaternion wxyz, scales, opacity, colour.
        pulls: (n,) sum of the gradient's length; 0 for splats that must stay whole.
        budget: Splats at most. Where pruning alone leaves more, none is split.

    Returns:
        The new table (m, 14), halves side by side, and the row (m,) that each came from, rising.
    """
    kept = np.flatnonzero(table[:, 10] >= OPACITY_MIN)
    room = max(0, budget - len(kept))
    wanted = kept[np.argsort(-pulls[kept], kind="stable")][:room]
    counts = np.ones(len(table), np.int64)
    counts[wanted[pulls[wanted] > 0.0]] = 2
    rows = np.repeat(kept, counts[kept])
    made = table[rows].copy()
    half = counts[rows] == 2
    second = np.concatenate([[False], rows[1:] == rows[:-1]])
    _halve(made, half, np.where(second, 1.0, -1.0))
    return made, rows


def _halve(table: np.ndarray, half: np.ndarray, side: np.ndarray) -> None:
    """Turn rows where ``half`` holds into the halves of their splats on a side, -1 or 1."""
    scales = np.abs(table[half, 7:10])
    axis = scales.argmax(1)
    longest = scales[np.arange(len(axis)), axis]
    columns = rotation_matrices(torch.from_numpy(table[half, 3:7]).double()).numpy()
    direction = columns[np.arange(len(axis)), :, axis]
    table[half, :3] += (side[half] * OFFSET * longest)[:, None] * direction
    rows = np.flatnonzero(half)
    table[rows, 7 + axis] *= np.sqrt(1.0 - OFFSET**2)
    table[half, 10] = 1.0 - np.sqrt(1.0 - table[half, 10])
