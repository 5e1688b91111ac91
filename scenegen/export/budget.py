"""Fewer splats that look alike: neighbours are merged, the least visible loss first.

Cutting a world to a number of splats tears holes into it. Here two splats become one that covers
both, with their common mean and covariance (Kerbl et al. 2024, Hierarchical 3D Gaussians, section
4.1), where that changes the picture least: smooth surfaces lose splats, edges and detail keep them.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.spatial import KDTree
from torch import Tensor

from renderers.base import ALPHA_CUT
from renderers.errors import SceneError
from renderers.kernels import kernel
from renderers.splats import Splats
from scenegen.export.progress import progress

logger = logging.getLogger("scenegen")

NEIGHBORS = 4
"""Nearest splats with which one may merge in a round."""
REACH = 3.0
"""Centres further apart than this many of their sizes together do not belong to one surface."""
GROWTH = 0.35
"""How much of the light that opacity cannot take up goes into size, as a power of both axes. With
0 holes open, with 0.5 none of it is lost but surfaces blur. Between 0.3 and 0.4, which gave 36.4
and 31.8 dB on a room of 100,000 splats thinned to a third; smaller rooms liked more."""
OPACITY_MAX = 0.99
"""Opacity of a merged splat at most."""


def thinned(splats: Splats, budget: int) -> Splats:
    """At most ``budget`` splats that render almost alike. Deterministic.

    Those too transparent to be drawn go first; then pairs of neighbours are merged, those first
    whose merging is seen least from around the origin, where the photograph was taken.

    Args:
        splats: Any number.
        budget: At least 1.

    Returns:
        ``splats`` themselves when they are no more than ``budget``; otherwise ``budget`` of them,
        or fewer.

    Raises:
        SceneError: The budget is less than 1.
    """
    if budget < 1:
        raise SceneError(
            f"a budget of {budget} splats is impossible",
            why="there is nothing to see without splats",
            fix="give a number such as 500000",
        )
    before = len(splats)
    if before <= budget:
        return splats
    splats = splats.detach().to(torch.device("cpu"))
    splats = splats[splats.drawable & (splats.opacities >= ALPHA_CUT)]
    bar = progress((), "merging", total=before - budget)
    while len(splats) > budget:
        count = len(splats)
        splats = _round(splats, count - budget)
        bar.update(count - len(splats))
    bar.close()
    logger.info("%d splats merged to %d", before, len(splats))
    return splats


def _round(splats: Splats, need: int) -> Splats:
    """Merge up to ``need`` pairs, each splat in at most one of them."""
    first, second = _neighbors(splats.means)
    cost = _cost(splats, first, second)
    order = np.lexsort((second.numpy(), first.numpy(), cost.numpy()))
    # A round that took all it can would merge poor pairs, where the next has better ones.
    limit = min(need, max(1, len(splats) // 3))
    chosen = torch.from_numpy(_matched(first.numpy(), second.numpy(), order, len(splats), limit))
    first, second = first[chosen], second[chosen]
    merged = _merged(splats, first, second)
    # In place of the first, so that neighbours in the list stay neighbours.
    gone = torch.zeros(len(splats), dtype=torch.bool)
    gone[second] = True
    parts = {}
    for name, value in vars(merged).items():
        whole = getattr(splats, name)
        parts[name] = None if whole is None else whole.clone().index_copy_(0, first, value)
    return Splats(**parts)[~gone]


def _neighbors(means: Float[Tensor, "n 3"]) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Pairs of near splats, the lower row first, each pair once."""
    points = means.double().numpy()
    k = min(NEIGHBORS + 1, len(points))
    _, near = KDTree(points, compact_nodes=False, balanced_tree=False).query(points, k, workers=-1)
    near = near.reshape(len(points), k)
    pairs = np.stack([np.repeat(np.arange(len(points)), k), near.reshape(-1)])
    low, high = pairs.min(0), pairs.max(0)
    keys = np.unique(low[low != high] * len(points) + high[low != high])
    return torch.from_numpy(keys // len(points)), torch.from_numpy(keys % len(points))


def _cost(splats: Splats, first: Tensor, second: Tensor) -> Float[Tensor, " p"]:
    """How much of the picture from the origin changes when these pairs become one splat.

    The area they cover there, times how far their colours are apart, and, in units of their
    size, how far one lies off the other's plane and how far apart they are.
    """
    size = splats.scales.sort(dim=1).values
    broad = size[:, 1:].clamp_min(1e-9)
    distance = torch.linalg.norm(splats.means, dim=1) + broad.mean(1)
    area = splats.opacities * broad.prod(1) / distance.square()
    normal = _axis(splats, splats.scales.argmin(1))
    step = splats.means[second] - splats.means[first]
    reach = broad.mean(1)[first] + broad.mean(1)[second]
    off = ((step * normal[first]).sum(1).abs() + (step * normal[second]).sum(1).abs()) / reach
    apart = torch.linalg.norm(step, dim=1) / reach
    hue = (splats.colors[first] - splats.colors[second]).square().sum(1)
    bend = 1.0 - (normal[first] * normal[second]).sum(1).abs()
    fade = (splats.opacities[first] - splats.opacities[second]).square()
    strange = hue + fade + 0.1 * off.square() + 0.1 * bend + 0.01 * apart.square() + 1e-4
    return (area[first] + area[second]) * strange * torch.where(apart > REACH, 1e3, 1.0)


def _axis(splats: Splats, index: Int[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Direction in the world of one of each splat's own axes."""
    rotations = rotations_of(splats.quats)
    return rotations.gather(2, index[:, None, None].expand(-1, 3, 1))[:, :, 0]


@kernel()
def _matched(
    first: np.ndarray, second: np.ndarray, order: np.ndarray, count: int, limit: int
) -> np.ndarray:
    """Pairs taken in order, unless one of the two is taken already; at most ``limit``."""
    free = np.ones(count, np.bool_)
    chosen = np.empty(limit, np.int64)
    found = 0
    for pair in order:
        if found == limit:
            break
        if free[first[pair]] and free[second[pair]]:
            free[first[pair]] = free[second[pair]] = False
            chosen[found] = pair
            found += 1
    return chosen[:found]


def _merged(splats: Splats, first: Tensor, second: Tensor) -> Splats:
    """One splat for each pair: mean, covariance, colour and harmonics by what each shows."""
    pair = torch.stack([first, second], 1)  # (p, 2)
    size = splats.scales.double().sort(dim=1).values
    area = (size[:, 1] * size[:, 2]).clamp_min(1e-18)
    weight = (splats.opacities.double() * area)[pair]
    share = weight / weight.sum(1, keepdim=True)
    means = splats.means.double()[pair]
    mean = (share[..., None] * means).sum(1)
    step = means - mean[:, None]
    axes = rotations_of(splats.quats.double()[pair.reshape(-1)]).reshape(-1, 2, 3, 3)
    axes = axes * splats.scales.double()[pair][:, :, None, :]
    covariance = axes @ axes.transpose(2, 3) + step[..., :, None] * step[..., None, :]
    values, vectors = torch.linalg.eigh((share[..., None, None] * covariance).sum(1))
    scales = values.clamp_min(0.0).sqrt()  # smallest first
    covered = (scales[:, 1] * scales[:, 2]).clamp_min(1e-18)
    opacity = (weight.sum(1) / covered).clamp_max(OPACITY_MAX)
    opacity = torch.maximum(opacity, (share * splats.opacities.double()[pair]).sum(1))
    scales[:, 1:] *= (weight.sum(1) / (covered * opacity)).clamp_min(1.0)[:, None] ** GROWTH
    vectors[:, :, 0] *= torch.linalg.det(vectors).sign()[:, None]  # a rotation, not a mirror
    kind = splats.means.dtype

    def mixed(values: Tensor) -> Tensor:
        picked = values.double()[pair]
        return (share.reshape(*share.shape, *[1] * (picked.ndim - 2)) * picked).sum(1).to(kind)

    return Splats(
        mean.to(kind), quats_of(vectors).to(kind), scales.to(kind), opacity.clamp_max(1.0).to(kind),
        mixed(splats.colors), None if splats.sh is None else mixed(splats.sh),
    )  # fmt: skip


def rotations_of(quats: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    w, x, y, z = (quats / torch.linalg.norm(quats, dim=1, keepdim=True)).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).reshape(-1, 3, 3)


def quats_of(rotations: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions w x y z, from the largest component of each (Shepperd 1978)."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(1) for row in rotations.unbind(1))
    outer = torch.stack(
        [
            torch.stack([1 + a + e + i, h - f, c - g, d - b], 1),
            torch.stack([h - f, 1 + a - e - i, b + d, c + g], 1),
            torch.stack([c - g, b + d, 1 - a + e - i, f + h], 1),
            torch.stack([d - b, c + g, f + h, 1 - a - e + i], 1),
        ],
        1,
    )
    best = outer.diagonal(dim1=1, dim2=2).argmax(1)
    rows = outer[torch.arange(len(outer)), best]
    return rows / torch.linalg.norm(rows, dim=1, keepdim=True)
