"""The third step: linear answers from tokens, in closed form: the base, and rooms or outdoors."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from scenegen.fields import normalised
from scenegen.geometry.dpt import PLACE_LEVEL, SCALE, DepthNetwork, base_features
from scenegen.training.tokens import TokenStore

RIDGE = 0.2
"""Weight of the coefficients' squares, per token. Less fits drawn scenes better and photographs
worse."""
PER_IMAGE = 110
"""Tokens of each image that are used."""
SKY_LOGIT = 3.0
"""What the sky output should be in the sky; the opposite elsewhere."""
ROOM_RIDGE = 1.0
"""Weight of the coefficients' squares when rooms are told from the outdoors, per image. Views of
18 panoramas (photographs), a room and one of the outdoors: 83 % of such pairs are told apart at
0.001, 95 % at 0.1, 98 % at 1."""
ROOM_EDGE, ROOM_SLOPE = -0.25, 8.0
"""Drawn rooms are fitted to 1 and the outdoors to -1. On photographs both are lower: no panorama
of a room has a mean below -0.13, and none of the outdoors one above -0.37. The first is where a
room is as likely as not, the second how fast its logit grows from there."""
AT_ONCE = 16
"""Images read together."""


@torch.no_grad()
def fit_base(network: DepthNetwork, store: TokenStore, seed: int, device: str) -> int:
    """Set the linear base of a network to the ridge solution. The number of tokens used.

    Args:
        network: Its ``base`` is changed.
        store: Frames to fit.
        seed: Chooses the tokens.
        device: Where the network runs.
    """
    rng = np.random.default_rng((seed, 11))
    size = network.base.in_features
    gram = torch.zeros(size, size, dtype=torch.float64)
    cross = torch.zeros(size, 2, dtype=torch.float64)
    used = 0
    for places in store.batches(AT_ONCE, None):
        sample = store.read(places).to(device)
        rows, columns = sample.disparity.shape[1] // SCALE, sample.disparity.shape[2] // SCALE
        levels = [network.backbone.norm(level) for level in sample.levels]
        features = base_features(levels, rows, columns)  # (b, p, f)
        targets = _token_targets(sample.disparity)  # (b, p, 2)
        count = min(PER_IMAGE, features.shape[1])
        chosen = torch.from_numpy(rng.permutation(features.shape[1])[:count]).to(device)
        x = features[:, chosen].flatten(0, 1).double().cpu()
        y = targets[:, chosen].flatten(0, 1).double().cpu()
        gram += x.T @ x
        cross += x.T @ y
        used += len(x)
    solution = solve_ridge(gram, cross, RIDGE * used).float()
    network.base.weight.copy_(solution.T)
    network.base.bias.zero_()  # one of the features is constant
    return used


@torch.no_grad()
def fit_room(network: DepthNetwork, store: TokenStore, device: str) -> int:
    """Teach a network which images show rooms, both kinds weighing alike. The number of images.

    Args:
        network: Its ``room`` is changed.
        store: Frames to fit.
        device: Where the network runs.
    """
    rows, truths = [], []
    for places in store.batches(AT_ONCE, None):
        sample = store.read(places).to(device)
        rows.append(network.backbone.norm(sample.levels[PLACE_LEVEL][:, 0]).double().cpu())
        truths.append(2.0 * sample.indoors.double().cpu() - 1.0)
    x, y = torch.cat(rows), torch.cat(truths)  # (n, c), (n)
    weight = torch.ones_like(y)
    for kind in (y > 0, y < 0):
        weight[kind] /= kind.sum()
    weight /= weight.sum()
    middle, level = weight @ x, weight @ y
    x, y = x - middle, y - level
    weighted = x.T * weight
    solution = solve_ridge(weighted @ x, weighted @ y[:, None], ROOM_RIDGE)[:, 0]
    network.room.weight.copy_(ROOM_SLOPE * solution[None])
    network.room.bias.fill_(float(ROOM_SLOPE * (level - middle @ solution - ROOM_EDGE)))
    return len(x)


def solve_ridge(
    gram: Float64[Tensor, "f f"], cross: Float64[Tensor, "f k"], weight: float
) -> Float64[Tensor, "f k"]:
    """Least squares with a penalty: ``(X'X + weight 1) w = X'y``."""
    return torch.linalg.solve(gram + weight * torch.eye(len(gram), dtype=gram.dtype), cross)


def _token_targets(disparity: Float[Tensor, "b h w"]) -> Float[Tensor, "b p 2"]:
    """Mean normalised disparity and sky logit over the cells of each token."""
    sky = SKY_LOGIT * (2.0 * (disparity <= 0).float() - 1.0)
    both = torch.stack([normalised(disparity, disparity > 0), sky], dim=1)
    return avg_pool2d(both, SCALE).flatten(2).transpose(1, 2)
