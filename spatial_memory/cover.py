"""The best few of many sets: greedily, and then better where a search finds better.

Greedy cover is within 1 - 1/e of the best (Nemhauser, Wolsey & Fisher 1978), mostly within 1 %. Of
few candidates the best choice can be had: branch and bound, where a choice of ``k`` sets is worth
no more than what is covered already and the ``k`` largest gains on top of that.
"""

from __future__ import annotations

import numpy as np

from renderers.kernels import kernel

CANDIDATES = 32
"""Sets that are looked at, the largest: one bit each."""
NODES = 256
"""Branches that are looked at. The first ones are the greedy choice: there is always an answer."""


def best_cover(masks: np.ndarray, worth: np.ndarray, candidates: int, k: int) -> np.ndarray:
    """The sets that together cover most; where others cover as much, those of the greedy choice.

    Args:
        masks: (m,) int64, which of the sets each element is in, a bit each.
        worth: (m,) int64, what each element counts.
        candidates: How many sets there are, up to CANDIDATES. Of equals the lower one is taken.
        k: Sets that may be taken, one or more.

    Returns:
        (candidates,) bool.
    """
    masks, place = np.unique(masks, return_inverse=True)
    summed = np.zeros(len(masks), np.int64)
    np.add.at(summed, place, worth)
    best = _search(masks, summed, candidates, min(k, candidates), NODES + k)
    return (best >> np.arange(candidates)) & 1 > 0


@kernel()
def _search(masks, worth, candidates, k, nodes):
    order, gains = np.empty((k, candidates), np.int64), np.empty((k, candidates), np.int64)
    size, place = np.zeros(k, np.int64), np.zeros(k, np.int64)
    taken, value = np.zeros(k, np.int64), np.zeros(k, np.int64)
    best, most, depth = np.int64(0), np.int64(0), 0
    size[0] = _rank(masks, worth, np.int64(0), np.arange(candidates), order[0], gains[0])
    while depth >= 0:
        i, left = place[depth], k - depth
        bound = value[depth] + gains[depth, i : min(i + left, size[depth])].sum()
        if bound <= most or nodes == 0:
            depth -= 1
            continue
        nodes -= 1
        place[depth] += 1
        chosen = taken[depth] | np.int64(1) << order[depth, i]
        total = value[depth] + gains[depth, i]
        if total > most:
            best, most = chosen, total
        if left > 1:
            rest = order[depth, i + 1 : size[depth]]
            depth += 1
            taken[depth], value[depth], place[depth] = chosen, total, 0
            size[depth] = _rank(masks, worth, chosen, rest, order[depth], gains[depth])
    return best


@kernel()
def _rank(masks, worth, taken, rest, order, gains):
    """Put the sets ``rest`` in the order of what each adds to those taken; how many they are."""
    adds = np.zeros(len(rest), np.int64)
    for m in range(len(masks)):
        if masks[m] & taken == 0:
            for c in range(len(rest)):
                adds[c] += worth[m] * (masks[m] >> rest[c] & 1)
    ranked = np.argsort(-adds, kind="mergesort")
    for c in range(len(rest)):
        order[c], gains[c] = rest[ranked[c]], adds[ranked[c]]
    return len(rest)
