"""The second step of an outpainting training: fit the network to samples, gently.

What is learnt is to look right: LPIPS decides, L1 only holds colours, and on photographs the answer
of the untrained network pulls back, so that what it knows of the world survives. In the second
half of the training some holes are filled in two steps, the second from what the network itself
has painted: the cure for stripes that grow from step to step. There is no adversarial loss: a new
discriminator would need more pictures than a gentle training sees, and the trunk brings the
texture of one along.

The batch of every step follows from the seed and its number, so a training in pieces gives the
same weights as one that was not stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from scenegen.outpaint.network import OutpaintNetwork
from scenegen.training.checkpoints import TrainingState
from scenegen.training.descent import WARY, Course, descend
from scenegen.training.outpaint_recipe import OutpaintRecipe
from scenegen.training.perceptual import Lpips
from scenegen.training.progress import Deadline, Progress
from scenegen.training.samples import HoleSample, read_sample

STAGE = "outpaint"
L1, KEEP = 0.25, 0.25
"""Weights of L1 in the hole, and of LPIPS to the untrained answer, against 1 of LPIPS."""
ROLLED, ROLL = 0.3, 0.12
"""How many batches of the second half are filled in two steps, and how far the first goes, as a
share of the picture's side."""

Kind = str
Files = dict[Kind, list[Path]]


def sample_files(folder: Path, held_out: bool) -> Files:
    """Samples by kind, photo and place; a kind without samples is left out."""
    found: Files = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            if file.metadata()["held_out"] == str(int(held_out)):
                found.setdefault(path.name.partition("-")[0], []).append(path)
    return found


def batch_of(files: Files, recipe: OutpaintRecipe, step: int) -> list[Path]:
    """Samples of a step, all of one kind; kinds come as often as they have samples."""
    rng = np.random.default_rng((recipe.seed, step, 17))
    counts = [len(paths) for paths in files.values()]
    kind = rng.choice(list(files), p=np.array(counts) / sum(counts))
    return [files[kind][index] for index in rng.integers(len(files[kind]), size=recipe.batch)]


def fit_outpaint(
    network: OutpaintNetwork,
    files: Files,
    recipe: OutpaintRecipe,
    state_file: Path,
    measure: Lpips | None,
    device: str,
    end: Deadline,
) -> Iterator[Progress]:
    """Train until finished or the time is over; the state is saved either way.

    Args:
        network: Starts as the untrained one, ends with the averaged weights.
        files: What it is trained on.
        recipe: How.
        state_file: Where the state is kept; one that is there is gone on with.
        measure: What pictures are compared with; without it, by L1 alone.
        device: Where it runs.
        end: When to stop.

    Raises:
        SceneError: A sample or the state is damaged.
    """
    steps = math.ceil(recipe.samples / recipe.batch)
    placed: Any = network  # torch types no memory format here
    placed.to(device, memory_format=torch.channels_last).train()
    trained = _select(network, recipe)
    state = TrainingState.begin(trained, _optimizer(trained, recipe))

    def loss_of(step: int) -> tuple[Tensor, dict[str, float]]:
        samples = [read_sample(path) for path in batch_of(files, recipe, step)]
        rng = np.random.default_rng((recipe.seed, step, 19))
        rolls = step > steps // 2 and rng.random() < ROLLED
        return hole_loss(network, samples, measure, device, rolls)

    course = Course("fit", STAGE, steps, recipe.batch, state_file)
    yield from descend(state, loss_of, course, end)
    network.eval()


def hole_loss(
    network: OutpaintNetwork,
    samples: Sequence[HoleSample],
    measure: Lpips | None,
    device: str,
    rolls: bool = False,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The loss of a batch of one kind, and its parts as numbers.

    Args:
        network: What fills.
        samples: Pictures with holes.
        measure: What pictures are compared with.
        device: Where the network is.
        rolls: Whether the part of each hole next to what is known is filled first, without being
            learnt from, and the rest is continued from there.
    """
    truth, picture = (
        torch.stack([getattr(sample, name) for sample in samples]).to(device)
        for name in ("truth", "picture")
    )
    known = torch.stack([sample.known for sample in samples])[:, None].to(device)
    sides = [sample.side for sample in samples if sample.side is not None]
    side = torch.stack(sides).to(device) if sides else None
    answers = [sample.answer for sample in samples if sample.answer is not None]
    if rolls:
        with torch.no_grad():
            picture = paint(network, picture, known, side)
        known = known | _reached(known, round(ROLL * known.shape[-1]))
        answers = []
    painted = paint(network, picture, known, side)
    parts = {"l1": L1 * ((painted - truth).abs() * ~known).sum() / (3 * ~known).sum().clamp_min(1)}
    if measure is not None:
        features = measure.features(painted)
        with torch.no_grad():
            right = measure.features(truth)
        parts["lpips"] = measure.between(features, right).mean()
        if answers:
            with torch.no_grad():
                before = torch.where(known, picture, torch.stack(answers).to(device))
                kept = measure.features(before)
            parts["keep"] = KEEP * measure.between(features, kept).mean()
    total = torch.stack(list(parts.values())).sum()
    return total, {name: float(value.detach()) for name, value in parts.items()}


def paint(
    network: OutpaintNetwork,
    picture: Float[Tensor, "b 3 h w"],
    known: Bool[Tensor, "b 1 h w"],
    side: Float[Tensor, "b 8 h w"] | None,
) -> Float[Tensor, "b 3 h w"]:
    """Pictures, 0 to 1, with their holes filled. Differentiable in the network."""
    given = 2 * picture - 1
    said = network(given.contiguous(memory_format=torch.channels_last), known.to(given.dtype), side)
    return torch.where(known, picture, (said + 1) / 2)


def _reached(known: Bool[Tensor, "b 1 h w"], pixels: int) -> Bool[Tensor, "b 1 h w"]:
    """Within that distance of what is known."""
    return max_pool2d(known.float(), 2 * pixels + 1, 1, pixels) > 0.5


def _select(network: OutpaintNetwork, recipe: OutpaintRecipe) -> dict[str, nn.Parameter]:
    """What is trained; all else is frozen."""
    for name, value in network.named_parameters():
        value.requires_grad_(recipe.encoder or not name.startswith("encoder."))
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def _optimizer(trained: dict[str, nn.Parameter], recipe: OutpaintRecipe) -> torch.optim.AdamW:
    side = [value for name, value in trained.items() if name.startswith("side.")]
    trunk = [value for name, value in trained.items() if not name.startswith("side.")]
    groups = [
        {"params": trunk, "peak": recipe.trunk_rate},
        {"params": side, "peak": recipe.side_rate},
    ]
    return torch.optim.AdamW(groups, lr=recipe.trunk_rate, betas=WARY, weight_decay=0.0)
