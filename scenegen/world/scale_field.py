"""What one scale and shift cannot correct: a smooth field of scales over a view.

Depth networks judge each view anew. What is left after an affine fit of disparity is smooth over
the picture, and goes with depth: a wall too far as a whole, everything far too near. So

    log known = log estimated + power * (log estimated - middle) + field(column, row),

with a field that is bilinear between few nodes, fitted robustly with a penalty on the differences
between neighbouring nodes, which also carries it into what is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

NODES = 8
"""Nodes of the field along each side."""
STIFFNESS = 0.03
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
    middle = float(np.median(start))
    places, shares = _corners(rows, columns, use.shape)
    # One column for each of four corner nodes, and one for the power.
    places = np.column_stack([places, np.full(len(rows), NODES**2)])
    shares = np.column_stack([shares, start - middle])
    unknowns, wanted = NODES**2 + 1, goal - start
    stiff = STIFFNESS * len(rows) / NODES**2 * _differences()
    stiff[-1, -1] = POWER_STIFFNESS * len(rows)
    stiff += 1e-6 * np.eye(unknowns)
    pairs = (places[:, :, None] * unknowns + places[:, None, :]).ravel()
    products = shares[:, :, None] * shares[:, None, :]
    weight, answer = np.ones(len(rows)), np.zeros(unknowns)
    for _ in range(ROUNDS):
        # bincount adds in order, so that the sums are the same for any number of threads
        normal = np.bincount(pairs, (weight[:, None, None] * products).ravel(), unknowns**2)
        right = np.bincount(places.ravel(), ((weight * wanted)[:, None] * shares).ravel())
        answer = np.linalg.solve(normal.reshape(unknowns, unknowns) + stiff, right)
        rest = wanted - (shares * answer[places]).sum(1)
        weight = 1.0 / (1.0 + (rest / TOLERANCE) ** 2)
    nodes = torch.from_numpy(answer[:-1].reshape(NODES, NODES)).float()
    return ScaleField(nodes, float(answer[-1]), middle)


def _corners(
    rows: np.ndarray, columns: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The four nodes around each pixel, and how much of it each has."""
    places: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    down, along = (
        at * (NODES - 1) / max(1, size - 1) for at, size in zip((rows, columns), shape, strict=True)
    )
    row, column = (np.minimum(at.astype(int), NODES - 2) for at in (down, along))
    down, along = down - row, along - column
    for r, share_r in ((0, 1 - down), (1, down)):
        for c, share_c in ((0, 1 - along), (1, along)):
            places.append((row + r) * NODES + column + c)
            shares.append(share_r * share_c)
    return np.stack(places, 1), np.stack(shares, 1)


def _differences() -> np.ndarray:
    """Sum of squared differences between neighbouring nodes, as a quadratic form."""
    names = np.arange(NODES**2).reshape(NODES, NODES)
    form = np.zeros((NODES**2 + 1, NODES**2 + 1))
    for one, other in ((names[:, :-1], names[:, 1:]), (names[:-1], names[1:])):
        for a, b in zip(one.ravel(), other.ravel(), strict=True):
            form[[a, b], [a, b]] += 1.0
            form[[a, b], [b, a]] -= 1.0
    return form
