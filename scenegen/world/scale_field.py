"""What one scale and shift cannot correct: a smooth field of scales over a view.

Depth networks judge each view anew. What is left after an affine fit of disparity is smooth over
the picture, and goes with depth: a wall too far as a whole, everything far too near. So

    log known = log estimated + power * (log estimated - middle) + field(column, row),

with a field that is bilinear between nodes, fitted robustly with a penalty on the differences
between neighbouring nodes, which also carries it into what is unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

COARSE, COARSE_STIFFNESS = 8, 0.03
"""As NODES and STIFFNESS, while the power is found: a finer field could take its place."""
NODES = 24
"""Nodes of the field along each side. Also what was left out of the fit, along a hole, comes out
closer with more: 0.097 in the median logarithm with 8, 0.081 with 16, 0.072 with 24."""
STIFFNESS = 0.01
"""Weight of a difference between two neighbouring nodes, in shares of the samples at a node."""
POWER_STIFFNESS = 0.002
"""Weight of the power, in shares of all samples."""
ROUNDS = 8
"""Iterations of reweighted least squares."""
TOLERANCE = 0.08
"""Difference of logarithms at which a sample weighs half (Cauchy)."""


@dataclass(frozen=True, eq=False)
class ScaleField:
    """A smooth correction of depth."""

    nodes: Float[Tensor, "r c"]
    """Logarithms of scales, evenly spread from corner to corner of the view."""
    power: float
    middle: float
    """Logarithm of the depth that the power leaves alone."""

    def apply(self, log_depth: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
        """Corrected logarithms of depth."""
        field = torch.nn.functional.interpolate(
            self.nodes[None, None], log_depth.shape, mode="bilinear", align_corners=True
        )
        return log_depth + self.power * (log_depth - self.middle) + field[0, 0]


def fit_scale_field(
    estimated: Float[Tensor, "h w"],
    known: Float[Tensor, "h w"],
    use: Bool[Tensor, "h w"],
    most: int,
) -> ScaleField:
    """The field that brings one depth onto another.

    Args:
        estimated: Logarithms of depth to correct.
        known: Logarithms of true depth.
        use: Pixels to compare, at least one.
        most: How many of them to use at most, evenly chosen.
    """
    rows, columns = np.nonzero(use.numpy())
    every = max(1, len(rows) // most)
    rows, columns = rows[::every], columns[::every]
    start, goal = (m.double().numpy()[rows, columns] for m in (estimated, known))
    middle, wanted = float(np.median(start)), goal - start
    places, shares = _corners(rows, columns, use.shape, COARSE)
    # One column for each of four corner nodes, and one for the power.
    places = np.column_stack([places, np.full(len(rows), COARSE**2)])
    shares = np.column_stack([shares, start - middle])
    stiff = np.zeros((COARSE**2 + 1, COARSE**2 + 1))
    stiff[:-1, :-1] = COARSE_STIFFNESS * len(rows) / COARSE**2 * _differences(COARSE)
    stiff[-1, -1] = POWER_STIFFNESS * len(rows)
    power = float(_robust(places, shares, wanted, stiff, np.linalg.solve)[-1])
    places, shares = _corners(rows, columns, use.shape, NODES)
    stiff = STIFFNESS * len(rows) / NODES**2 * _differences(NODES)
    left = wanted - power * (start - middle)
    nodes = _robust(places, shares, left, stiff, _solved_in_band)
    return ScaleField(torch.from_numpy(nodes.reshape(NODES, NODES)).float(), power, middle)


def _robust(
    places: np.ndarray,
    shares: np.ndarray,
    wanted: np.ndarray,
    stiff: np.ndarray,
    solve: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Unknowns whose shares add up to what is wanted of each sample, but for outliers.

    Args:
        places: (n, k) the unknowns that each sample depends on.
        shares: (n, k) how much.
        wanted: (n,) their sum.
        stiff: (u, u) penalty on the unknowns, as a quadratic form.
        solve: Of linear equations.
    """
    unknowns = len(stiff)
    stiff = stiff + 1e-6 * np.eye(unknowns)
    pairs = (places[:, :, None] * unknowns + places[:, None, :]).ravel()
    products = shares[:, :, None] * shares[:, None, :]
    weight, answer = np.ones(len(wanted)), np.zeros(unknowns)
    for _ in range(ROUNDS):
        # bincount adds in order, so that the sums are the same for any number of threads
        normal = np.bincount(pairs, (weight[:, None, None] * products).ravel(), unknowns**2)
        right = np.bincount(places.ravel(), ((weight * wanted)[:, None] * shares).ravel(), unknowns)
        answer = solve(normal.reshape(unknowns, unknowns) + stiff, right)
        rest = wanted - (shares * answer[places]).sum(1)
        weight = 1.0 / (1.0 + (rest / TOLERANCE) ** 2)
    return answer


def _solved_in_band(normal: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution for nodes that depend on their neighbours only.

    The same bits for any number of threads, which a dense solver of this size does not promise.
    """
    from scipy.linalg import solveh_banded

    bands = np.zeros((NODES + 2, len(right)))
    for below in range(NODES + 2):
        bands[below, : len(right) - below] = np.diagonal(normal, -below)
    return solveh_banded(bands, right, lower=True)


def _corners(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...], nodes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The four nodes around each pixel, and how much of it each has."""
    places: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    down, along = (
        at * (nodes - 1) / max(1, size - 1) for at, size in zip((rows, columns), shape, strict=True)
    )
    row, column = (np.minimum(at.astype(int), nodes - 2) for at in (down, along))
    down, along = down - row, along - column
    for r, share_r in ((0, 1 - down), (1, down)):
        for c, share_c in ((0, 1 - along), (1, along)):
            places.append((row + r) * nodes + column + c)
            shares.append(share_r * share_c)
    return np.stack(places, 1), np.stack(shares, 1)


def _differences(nodes: int) -> np.ndarray:
    """Sum of squared differences between neighbouring nodes, as a quadratic form."""
    names = np.arange(nodes**2).reshape(nodes, nodes)
    form = np.zeros((nodes**2, nodes**2))
    for one, other in ((names[:, :-1], names[:, 1:]), (names[:-1], names[1:])):
        for a, b in zip(one.ravel(), other.ravel(), strict=True):
            form[[a, b], [a, b]] += 1.0
            form[[a, b], [b, a]] -= 1.0
    return form
