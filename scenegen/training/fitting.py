"""The fourth and fifth step: train the head on cached tokens, then the last blocks as well.

The batch of every step follows from the seed and the number of the step, so a stage that was cut
into pieces gives the same weights as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from renderers import SceneError
from scenegen.geometry.dpt import DepthNetwork, DepthPrediction
from scenegen.training.checkpoints import TrainingState
from scenegen.training.descent import WARY, Course, descend
from scenegen.training.losses import depth_loss
from scenegen.training.progress import Deadline, Progress
from scenegen.training.recipe import DepthRecipe
from scenegen.training.tokens import Sample, TokenStore

Stage = Literal["head", "blocks"]

GRADIENT_WEIGHT = (0.5, 2.0)
"""Weight of the gradients' errors at the beginning and at the end of the head's stage; the blocks'
stage goes on with the last."""
DECAY = 0.01
"""AdamW's weight decay."""
HEAD_BOOST = 10.0
"""Learning rate of the head over that of the blocks, when both are trained."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of the training, ready to run."""

    stage: Stage
    steps: int
    rate: float
    state_file: Path


def plan_stage(recipe: DepthRecipe, stage: Stage, folder: Path) -> StagePlan:
    """Length, rate and place of a stage."""
    samples = recipe.head_samples if stage == "head" else recipe.blocks_samples
    rate = recipe.head_rate if stage == "head" else recipe.blocks_rate
    return StagePlan(
        stage, math.ceil(samples / recipe.batch), rate, folder / f"{stage}.safetensors"
    )


def fit(
    network: DepthNetwork,
    store: TokenStore,
    recipe: DepthRecipe,
    plan: StagePlan,
    device: str,
    end: Deadline,
) -> Iterator[Progress]:
    """Train until the stage is finished or the time is over; the state is saved either way.

    The network ends with the averaged weights.

    Raises:
        SceneError: More blocks are asked for than the cache allows, or the state is damaged.
    """
    trained = _select(network, plan.stage, recipe.blocks)
    state = TrainingState.begin(trained, _optimizer(trained, plan))
    batches = _Batches(store, recipe)
    network.to(device).train()
    low, high = GRADIENT_WEIGHT if plan.stage == "head" else GRADIENT_WEIGHT[1:] * 2

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        sample = store.read(batches.of(step)).to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            noise = torch.Generator().manual_seed(step)
            prediction = predict(network, sample, plan.stage, recipe.blocks, noise)
        loss, parts = depth_loss(prediction, sample, low + (high - low) * step / plan.steps)
        return loss, {"loss": float(loss.detach()), **parts}

    course = Course(plan.stage, plan.stage, plan.steps, recipe.batch, plan.state_file)
    yield from descend(state, loss_of, course, end)
    network.eval()


def predict(
    network: DepthNetwork,
    sample: Sample,
    stage: Stage,
    blocks: int,
    noise: torch.Generator | None = None,
) -> DepthPrediction:
    """Predictions from cached tokens; in the stage ``blocks`` the last ones run anew.

    Without the second branch; ``noise`` is that of :meth:`DepthNetwork.decode`.
    """
    if stage == "head":
        return network.decode(sample.levels, sample.rgb, noise)
    backbone = network.backbone
    tokens = sample.levels[2]
    depth = len(backbone.blocks)
    with torch.no_grad():
        for index in range(backbone.levels[2] + 1, depth - blocks):
            tokens = backbone.blocks[index](tokens)
    last = backbone.run(tokens, depth - blocks)
    return network.decode([*sample.levels[:3], last[-1]], sample.rgb, noise)


def _select(network: DepthNetwork, stage: Stage, blocks: int) -> dict[str, nn.Parameter]:
    """What a stage trains; all else is frozen."""
    backbone = network.backbone
    depth = len(backbone.blocks)
    most = depth - 1 - backbone.levels[2]
    if stage == "blocks" and not 1 <= blocks <= most:
        raise SceneError(
            f"cannot train the last {blocks} blocks",
            why=f"tokens are cached before the last {most} of {depth}",
            fix=f"choose 1 to {most}",
        )
    prefixes = ["head.", "lens."]
    if stage == "blocks":
        prefixes += [f"backbone.blocks.{index}." for index in range(depth - blocks, depth)]
    chosen = {}
    for name, value in network.named_parameters():
        value.requires_grad_(name.startswith(tuple(prefixes)))
        if value.requires_grad:
            chosen[name] = value
    return chosen


def _optimizer(trained: dict[str, nn.Parameter], plan: StagePlan) -> torch.optim.AdamW:
    deep = [value for name, value in trained.items() if name.startswith("backbone.")]
    rest = [value for name, value in trained.items() if not name.startswith("backbone.")]
    boost = HEAD_BOOST if plan.stage == "blocks" else 1.0
    groups = [{"params": rest, "peak": plan.rate * boost}]
    if deep:
        groups.append({"params": deep, "peak": plan.rate})
    return torch.optim.AdamW(groups, lr=plan.rate, betas=WARY, weight_decay=DECAY)


class _Batches:
    """Which frames each step sees: every frame once per round, in an order of its own."""

    def __init__(self, store: TokenStore, recipe: DepthRecipe) -> None:
        self.length = len(store.batches(recipe.batch, None))

        @lru_cache(maxsize=2)
        def round_of(number: int) -> list[list[tuple[int, int]]]:
            rng = np.random.default_rng((recipe.seed, number, 13))
            return store.batches(recipe.batch, rng)

        self._round = round_of

    def of(self, step: int) -> list[tuple[int, int]]:
        return self._round(step // self.length)[step % self.length]
