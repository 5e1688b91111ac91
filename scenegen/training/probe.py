"""The third step: the best linear answer from tokens, in closed form: the base of the network."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from scenegen.fields import normalised
from scenegen.geometry.dpt import SCALE, DepthNetwork, base_features
from scenegen.training.tokens import TokenStore

RIDGE = 0.2
"""Weight of the coefficients' squares, per token. Less fits drawn scenes better and photographs
worse."""
PER_IMAGE = 110
"""Tokens of each image that are used."""
SKY_LOGIT = 3.0
"""What the sky output should be in the sky; the opposite elsewhere."""
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
