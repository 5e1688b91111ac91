"""The second step of a completion training: views with a part hidden, as a growth step has them.

Depth outside the hole is known exactly in most samples. In some it is what the depth network says
of the known part alone, as the depth of a photograph in a world is: there the target goes on from
what is wrong at the rim. A sample is one file, written whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from renderers import Camera, SceneError
from scenegen.fields import pull_push
from scenegen.geometry import Geometry, estimate
from scenegen.geometry.completion import seen_planes
from scenegen.training.completion_recipe import CompletionRecipe
from scenegen.training.frames import Frame, frame_notes, read_frame
from scenegen.training.holes import random_known, uncovered_by_step
from scenegen.training.progress import Deadline, Progress
from scenegen.world.align import fit_depth
from scenegen.world.completing import partial_view

STEPS_ASIDE, REACH = 0.4, (0.02, 0.2)
"""How often a hole is what a step aside uncovers, and how far nearest surfaces move then, as a
share of the width."""
TILT = 4.0
"""Standard deviation of what is wrong with a camera's pitch, in degrees: a photograph's camera is
taken for level."""
SMOOTH_PX, MOST_WRONG = 15, 0.5
"""What is wrong with estimated known depth is averaged over so many pixels, and at most so much in
logarithms, before it is continued."""
ESTIMATED_EVERY = 3
"""In the first sample of every so many frames known depth is estimated."""
SAY_EVERY = 10
"""Frames between two reports."""


def make_samples(
    recipe: CompletionRecipe, frames: Path, folder: Path, end: Deadline
) -> Iterator[Progress]:
    """Make all samples that are not there yet.

    Args:
        recipe: How many.
        frames: The drawn frames.
        folder: Where samples go.
        end: When to stop.

    Raises:
        SceneError: There are no frames, or one is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notes = frame_notes(frames)
    for number, note in enumerate(notes):
        mark = folder / f"frame-{note.index:06d}.done"
        if mark.exists():
            continue
        if end.passed():
            return
        for hole, sample in enumerate(_of_frame(read_frame(frames, note), recipe)):
            path = folder / f"{note.index:06d}-{hole}.safetensors"
            _write(path, sample, note.held_out, note.kind)
        mark.touch()
        if number % SAY_EVERY == 0 or number == len(notes) - 1:
            yield Progress("samples", number + 1, len(notes), note.world)


def is_sampled(frames: Path, folder: Path) -> bool:
    """Whether the samples of all frames are there."""
    marks = (folder / f"frame-{note.index:06d}.done" for note in frame_notes(frames))
    return all(mark.exists() for mark in marks)


Files = dict[str, list[Path]]
"""Samples by kind and shape."""


def sample_files(folder: Path, held_out: bool) -> Files:
    """Samples to train on, or the others."""
    found: Files = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            about = file.metadata()
            if about["held_out"] == str(int(held_out)):
                rows, columns = file.get_slice("planes").get_shape()[1:]
                found.setdefault(f"{about['kind']} {rows}x{columns}", []).append(path)
    return found


def read_samples(paths: list[Path]) -> tuple[Tensor, Tensor]:
    """Planes as the network sees them, and the right correction, NaN where it does not count.

    Raises:
        SceneError: A file is missing or damaged.
    """
    planes, wanted = [], []
    for path in paths:
        try:
            arrays = load_file(path)
            planes.append(arrays["planes"].float())
            wanted.append(arrays["wanted"].float())
        except (OSError, SafetensorError, KeyError) as error:
            raise SceneError(
                f"the training sample {path} cannot be used",
                why=str(error),
                fix="remove it and its .done and run the step `samples` again",
            ) from error
    return torch.stack(planes), torch.stack(wanted)


def _of_frame(frame: Frame, recipe: CompletionRecipe) -> Iterator[dict[str, Tensor]]:
    rng = np.random.default_rng((recipe.seed, frame.note.index, 23))
    rgb = torch.tensor(frame.rgb).float() / 255
    truth = torch.tensor(frame.depth).float()
    lens, pose = (torch.tensor(m) for m in (frame.note.px_from_cam, frame.note.cam_from_world))
    camera = Camera(lens, pose, frame.note.width, frame.note.height)
    said = estimate(rgb, "dpt", camera.fov_degrees)
    for hole in range(recipe.holes):
        known = random_hole(truth, rng)
        depth, right = truth, truth.log()
        if hole == 0 and frame.note.index % ESTIMATED_EVERY == 0:
            columns = known_side(truth.shape[1], rng)
            known = torch.zeros_like(known)
            known[:, columns] = True
            depth, right = as_estimated(rgb, truth, camera, columns)
        tilted = camera.moved(pitch_degrees=float(rng.normal(0, TILT)))
        sample = hidden_sample(rgb, said, depth, right, known, tilted)
        if torch.isfinite(sample["wanted"]).any():
            yield sample


def random_hole(truth: Float[Tensor, "h w"], rng: np.random.Generator) -> Bool[Tensor, "h w"]:
    """Which pixels stay known: what was seen before a step aside, or bands and gaps."""
    if rng.random() < STEPS_ASIDE:
        reach = float(rng.uniform(*REACH) * rng.choice([-1, 1]))
        return uncovered_by_step(truth, reach)
    square = random_known(rng, max(truth.shape))
    return interpolate(square[None, None].float(), truth.shape, mode="nearest")[0, 0] > 0.5


def known_side(width: int, rng: np.random.Generator) -> slice:
    """Columns that stay known when one side is hidden."""
    hidden = round(float(rng.uniform(0.15, 0.45)) * width)
    return slice(0, width - hidden) if rng.random() < 0.5 else slice(hidden, width)


def as_estimated(
    rgb: Float[Tensor, "h w 3"], truth: Float[Tensor, "h w"], camera: Camera, columns: slice
) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """Known depth as a photograph of some columns would have it, and how it goes on.

    Returns:
        Depth, metres, right but for those columns; and the logarithm of what continues it: the
        truth with what is wrong at the rim.
    """
    seen = truth[:, columns]
    width = seen.shape[1]
    fov = math.degrees(2 * math.atan(0.5 * width / float(camera.px_from_cam[0, 0])))
    said = estimate(rgb[:, columns], "dpt", fov).depth
    surface = torch.isfinite(seen) & torch.isfinite(said)
    fit = replace(fit_depth(said, seen, surface), field=None)
    depth = truth.clone()
    depth[:, columns] = torch.where(surface, torch.exp(fit.log_depth(said)), seen)
    wrong, counted = torch.zeros_like(truth), torch.zeros_like(truth)
    wrong[:, columns] = torch.where(surface, depth[:, columns].log() - seen.log(), 0.0)
    counted[:, columns] = surface.float()
    total, mass = (
        avg_pool2d(plane[None, None], SMOOTH_PX, 1, SMOOTH_PX // 2)[0, 0]
        for plane in (wrong.clamp(-MOST_WRONG, MOST_WRONG), counted)
    )
    known = counted > 0
    smooth = pull_push((total / mass.clamp_min(1e-6))[..., None], known)[..., 0]
    return depth, truth.log() + smooth


def hidden_sample(
    rgb: Float[Tensor, "h w 3"],
    said: Geometry,
    depth: Float[Tensor, "h w"],
    right: Float[Tensor, "h w"],
    known: Bool[Tensor, "h w"],
    camera: Camera,
) -> dict[str, Tensor]:
    """What the network sees, and the correction that would be right."""
    given = torch.where(known, depth, math.nan)
    fit = fit_depth(said.depth, given, known)
    view = partial_view(rgb, said.depth, said.sky, given, ~known, camera, fit)
    planes = seen_planes(view)
    counts = (~known & torch.isfinite(right) & ~said.sky).float()
    wanted = torch.where(counts > 0, right - view.continued, 0.0)
    rows, columns = planes.shape[1:]
    pair = adaptive_avg_pool2d(torch.stack([wanted, counts]), (rows, columns))
    small = torch.where(pair[1] > 0.5, pair[0] / pair[1].clamp_min(1e-3), math.nan)
    return {"planes": planes.half(), "wanted": small.half()}


def _write(path: Path, arrays: dict[str, Tensor], held_out: bool, kind: str) -> None:
    part = path.with_suffix(".part")
    about = {"held_out": str(int(held_out)), "kind": kind}
    save_file({name: value.contiguous() for name, value in arrays.items()}, part, about)
    part.replace(path)
