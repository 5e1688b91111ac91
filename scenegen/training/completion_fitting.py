"""The third step of a completion training: fit the network to samples.

What is learnt is the right correction, in the hole alone, and its slopes, so that floors stay
level; and beside it how wrong the correction will be, from which nothing flows back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from scenegen.geometry.completion import LIMIT, TERMS, CompletionNetwork
from scenegen.training.checkpoints import TrainingState
from scenegen.training.completion_recipe import CompletionRecipe
from scenegen.training.completion_samples import Files, read_samples
from scenegen.training.descent import WARY, Course, descend
from scenegen.training.progress import Deadline, Progress

STAGE = "completion"
DECAY = 0.01
"""AdamW's weight decay."""
SLOPES, SPREAD = 2.0, 0.1
"""Weights of errors of slopes and of the spread, against 1 of errors."""
STEEPEST, WORST = 0.2, 1.5
"""Errors of slopes, per pixel, and of the correction count no more than this: outlines that are
off by a pixel, and things that nobody could have known of."""
LEAST_SPREAD = 0.01
GAIN = 0.15
"""How far contrast and brightness of pictures are changed, at most."""


def fit_completion(
    network: CompletionNetwork,
    files: Files,
    recipe: CompletionRecipe,
    state_file: Path,
    device: str,
    end: Deadline,
) -> Iterator[Progress]:
    """Train until finished or the time is over; see :func:`scenegen.training.descent.descend`.

    Args:
        network: Starts untrained, ends with the averaged weights.
        files: What it is trained on.
        recipe: How.
        state_file: Where the state is kept.
        device: Where it runs.
        end: When to stop.
    """
    steps = math.ceil(recipe.samples / recipe.batch)
    placed: Any = network  # torch types no memory format here
    placed.to(device, memory_format=torch.channels_last).train()
    trained = dict(network.named_parameters())
    group = {"params": list(trained.values()), "peak": recipe.rate}
    optimizer = torch.optim.AdamW([group], lr=recipe.rate, betas=WARY, weight_decay=DECAY)

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng((recipe.seed, step, 29))
        planes, wanted = varied(*read_samples(_batch(files, recipe.batch, rng)), rng)
        planes = planes.to(device, memory_format=torch.channels_last)
        return correction_loss(network, planes, wanted.to(device))

    state = TrainingState.begin(trained, optimizer)
    course = Course("fit", STAGE, steps, recipe.batch, state_file)
    yield from descend(state, loss_of, course, end)
    network.eval()


def correction_loss(
    network: CompletionNetwork, planes: Float[Tensor, "b 12 h w"], wanted: Float[Tensor, "b h w"]
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss of a batch, and its parts as numbers.

    Args:
        network: The network.
        planes: What it sees.
        wanted: The right correction; NaN where it does not count.
    """
    counts = torch.isfinite(wanted)
    wanted = wanted.nan_to_num(0.0)
    change, log_spread = small_correction(network, planes)
    error = change - wanted
    size = error.abs().clamp(max=WORST)
    spread = torch.exp(log_spread).clamp_min(LEAST_SPREAD)
    parts = {
        "error": _mean(size, counts),
        "slopes": SLOPES * (_slopes(error, counts, 2) + _slopes(error, counts, 1)) / 2,
        "spread": SPREAD * _mean(size.detach() / spread + spread.log(), counts),
    }
    before = _mean(wanted.abs().clamp(max=WORST), counts)
    numbers = {"before": float(before)} | {n: float(v.detach()) for n, v in parts.items()}
    return torch.stack(list(parts.values())).sum(), numbers


def small_correction(
    network: CompletionNetwork, planes: Float[Tensor, "b 12 h w"]
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Correction and logarithm of its spread, at the size that the network sees.

    As :func:`scenegen.geometry.completion.corrected` finds them at the size of the view.
    """
    said = interpolate(network(planes), planes.shape[2:], mode="bilinear")
    whole, beside, membrane = planes[:, 6:9].unbind(1)
    relief = (whole + beside).clamp(-LIMIT, LIMIT)
    terms = torch.stack([beside, membrane, relief], 1)
    return planes[:, 11] * (said[:, :TERMS] * terms).sum(1), said[:, TERMS]


def varied(
    planes: Float[Tensor, "b 12 h w"], wanted: Float[Tensor, "b h w"], rng: np.random.Generator
) -> tuple[Float[Tensor, "b 12 h w"], Float[Tensor, "b h w"]]:
    """Another picture of the same depth: mirrored or not, in another exposure."""
    if rng.random() < 0.5:
        planes, wanted = planes.flip(3), wanted.flip(2)
    gains = torch.from_numpy(rng.uniform(1 - GAIN, 1 + GAIN, (len(planes), 3, 1, 1))).float()
    shifts = torch.from_numpy(rng.uniform(-GAIN, GAIN, (len(planes), 1, 1, 1))).float()
    return torch.cat([planes[:, :3] * gains + shifts, planes[:, 3:]], 1), wanted


def _mean(values: Float[Tensor, "b h w"], counts: Bool[Tensor, "b h w"]) -> Float[Tensor, ""]:
    return (values * counts).sum() / counts.sum().clamp_min(1)


def _slopes(
    error: Float[Tensor, "b h w"], counts: Bool[Tensor, "b h w"], dim: int
) -> Float[Tensor, ""]:
    last = counts.shape[dim] - 1
    both = counts.narrow(dim, 0, last) & counts.narrow(dim, 1, last)
    return _mean(torch.diff(error, dim=dim).abs().clamp(max=STEEPEST), both)


def _batch(files: Files, size: int, rng: np.random.Generator) -> list[Path]:
    """Samples of one kind and shape; kinds come as often as they have samples."""
    counts = np.array([len(paths) for paths in files.values()])
    kind = rng.choice(list(files), p=counts / counts.sum())
    return [files[kind][index] for index in rng.integers(len(files[kind]), size=size)]
