"""The steps of any stage: learning rate, running average, saved states, reports.

What a step sees must follow from its number, so that a stage that was cut into pieces gives the
same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scenegen.training.checkpoints import TrainingState
from scenegen.training.progress import Deadline, Progress

WARM_UP, WARM_STEPS = 0.05, 10
"""Share of the steps in which the learning rate rises, and the fewest of them: AdamW's first
steps are as long as its rate allows, whatever the gradient, and would undo the stage before."""
WARY, MOST_NORM = (0.9, 0.98), 1.0
"""AdamW's betas; gradients longer than the last are shortened to it."""
AVERAGE = 0.995
"""How much of the running average stays from step to step, once it has begun."""
SAVE_EVERY, SAY_EVERY = 300.0, 15.0
"""Seconds between saved states, and between reports."""

LossOf = Callable[[int], tuple[Tensor, dict[str, float]]]
"""From the number of a step to its loss, and what is reported of it."""


@dataclass(frozen=True)
class Course:
    """One stage of a training, ready to run."""

    step: str
    """The step of the recipe."""
    stage: str
    """Its name in the saved state."""
    steps: int
    batch: int
    """Images in each."""
    state_file: Path
    """Where the state is kept; one that is there is gone on with."""


def descend(
    state: TrainingState, loss_of: LossOf, course: Course, end: Deadline
) -> Iterator[Progress]:
    """Take steps until finished or the time is over; the state is saved either way.

    What is trained ends as its running average.

    Args:
        state: What is trained. Each group of its optimizer has its highest rate as "peak".
        loss_of: Says how wrong the network is.
        course: How far, and where the state is kept.
        end: When to stop.

    Raises:
        SceneError: The state on disk is damaged or of another stage.
    """
    steps, batch = course.steps, course.batch
    if course.state_file.exists():
        state.restore(course.state_file, course.stage)
    recent: list[dict[str, float]] = []
    saved = said = began = time.monotonic()
    first = state.step
    while state.step < steps and not end.passed():
        for group in state.optimizer.param_groups:
            group["lr"] = group["peak"] * _share_of_rate(state.step, steps)
        loss, parts = loss_of(state.step)
        state.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(state.parameters.values()), MOST_NORM)
        state.optimizer.step()
        state.step += 1
        _follow(state)
        recent.append(parts)
        now = time.monotonic()
        if now - said > SAY_EVERY or state.step == steps:
            each = (now - began) / (state.step - first) / batch
            text = f"{_means(recent)}, {each:.3f} s an image"
            yield Progress(course.step, state.step * batch, steps * batch, text)
            recent, said = [], now
        if now - saved > SAVE_EVERY:
            state.save(course.state_file, course.stage, steps)
            saved = now
    state.save(course.state_file, course.stage, steps)
    with torch.no_grad():
        for name, value in state.parameters.items():
            value.copy_(state.average[name])


def _share_of_rate(step: int, steps: int) -> float:
    """Share of the highest learning rate: a short rise, under half a cosine."""
    rise = max(WARM_UP * steps, min(WARM_STEPS, steps / 2))
    return min(1.0, (step + 1) / rise) * 0.5 * (1 + math.cos(math.pi * step / steps))


@torch.no_grad()
def _follow(state: TrainingState) -> None:
    """Move the running average towards the weights; the first steps count less."""
    keep = min(AVERAGE, (1 + state.step) / (10 + state.step))
    for name, value in state.parameters.items():
        state.average[name].lerp_(value, 1 - keep)


def _means(recent: list[dict[str, float]]) -> str:
    names = dict.fromkeys(name for parts in recent for name in parts)
    means = {name: np.mean([parts[name] for parts in recent if name in parts]) for name in names}
    return " ".join(f"{name} {value:.3f}" for name, value in means.items())
