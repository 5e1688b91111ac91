"""The sixth step: how good the network is in worlds that training never saw."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float64
from scipy.stats import rankdata

from scenegen.geometry.dpt import SCALE, DepthNetwork, fuse
from scenegen.training.fitting import Stage, predict
from scenegen.training.tokens import Sample, TokenStore

Array = np.ndarray
Table = dict[str, dict[str, dict[str, float]]]
"""Kind of world, method, metric: mean over its frames."""

AT_ONCE = 12
"""Frames read together."""
EVERY = 13
"""One in so many pixels is compared."""
FARTHEST = 150.0
"""Fitted surfaces are placed no farther, in metres."""


@torch.no_grad()
def evaluate(
    network: DepthNetwork, store: TokenStore, stage: Stage, blocks: int, device: str
) -> Table:
    """Compare a network with the linear base and with answers that never look.

    Args:
        network: The network; its base alone is one of the baselines.
        store: Held-out frames.
        stage: Which stage the weights are from.
        blocks: How many blocks that stage trained.
        device: Where it runs.
    """
    network.to(device).eval()
    rows: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for places in store.batches(AT_ONCE, None):
        sample = store.read(places).to(device)
        answers = _answers(network, sample, stage, blocks)
        sky = (predict(network, sample, stage, blocks).sky > 0).cpu().numpy()
        truth = sample.disparity.double().cpu().numpy()
        for i, place in enumerate(places):
            seen = truth[i] > 0
            for method, disparity in answers.items():
                at = np.flatnonzero(seen.ravel())[::EVERY]
                measured = compare(disparity[i].ravel()[at], truth[i].ravel()[at])
                if method == stage:
                    measured["sky"] = float((sky[i] == ~seen).mean())
                rows[store.kinds[place]][method].append(measured)
    return {
        kind: {
            method: {name: float(np.mean([m[name] for m in many])) for name in many[0]}
            for method, many in methods.items()
        }
        for kind, methods in rows.items()
    }


def compare(said: Float64[Array, " n"], right: Float64[Array, " n"]) -> dict[str, float]:
    """Quality of disparities after the best scale and shift: rank order, error, hits.

    Args:
        said: Estimated disparity, up to scale and shift.
        right: True disparity, 1/m, positive.

    Returns:
        ``spearman``; ``absrel``, mean relative error of the depth; ``delta1``, share of the
        pixels whose depth is within 25 %.
    """
    spread = said - said.mean()
    slope = spread @ (right - right.mean()) / max(spread @ spread, 1e-12)
    fitted = np.maximum(right.mean() + slope * spread, 1 / FARTHEST)
    ratio = np.maximum(fitted / right, right / fitted)
    return {
        "spearman": _spearman(said, right),
        "absrel": float(np.abs(right / fitted - 1).mean()),
        "delta1": float((ratio < 1.25).mean()),
    }


def table_lines(table: Table) -> list[str]:
    """The table as text, one line per kind and method."""
    lines = []
    for kind, methods in sorted(table.items()):
        for method, values in methods.items():
            numbers = "  ".join(f"{name} {value:.3f}" for name, value in values.items())
            lines.append(f"{kind:6} {method:9} {numbers}")
    return lines


def mean_delta1(table: Table, method: str) -> float:
    """Share of hits of a method, each kind of world counting alike."""
    return float(np.mean([methods[method]["delta1"] for methods in table.values()]))


def _answers(network: DepthNetwork, sample: Sample, stage: Stage, blocks: int) -> dict[str, Array]:
    said = predict(network, sample, stage, blocks)
    height, width = said.disparity.shape[1:]
    base = network.base_alone(sample.levels, height // SCALE, width // SCALE)[:, 0]
    rows = np.broadcast_to(np.arange(height)[:, None], (height, width))
    numpy: Callable[[torch.Tensor], Array] = lambda x: x.double().cpu().numpy()  # noqa: E731
    return {
        "constant": np.zeros(said.disparity.shape),
        "ramp": np.broadcast_to(rows, said.disparity.shape).astype(np.float64),
        "fastdepth": numpy(sample.fast),
        "base": numpy(base),
        stage: numpy(said.disparity),
        "fused": numpy(fuse(said, sample.fast)),
    }


def _spearman(a: Array, b: Array) -> float:
    x, y = rankdata(a), rankdata(b)
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / max(np.sqrt((x @ x) * (y @ y)), 1e-12))
