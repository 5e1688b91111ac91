"""Runs the steps of a completion training in order, each from where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from renderers import SceneError
from scenegen import __version__
from scenegen.geometry.completion import (
    CompletionLayout,
    CompletionNetwork,
    load_completion_network,
    pack_completion_network,
    trusted,
)
from scenegen.models import shipped_path
from scenegen.models.weights import read_card
from scenegen.training.cards import UNTRAINED, data_list, read_quality, write_network
from scenegen.training.checkpoints import (
    chosen_device,
    claim_folder,
    is_finished,
    load_average,
    seen_steps,
)
from scenegen.training.completion_fitting import fit_completion, small_correction
from scenegen.training.completion_recipe import (
    CompletionRecipe,
    CompletionStep,
    smoke_completion,
)
from scenegen.training.completion_samples import (
    is_sampled,
    make_samples,
    read_samples,
    sample_files,
)
from scenegen.training.drawing import draw_frames
from scenegen.training.frames import frame_notes
from scenegen.training.progress import Deadline, Progress, in_order

NAME = "completion"
"""Name of the exported files."""
TINY = CompletionLayout((8, 8, 8))
"""The network of a smoke run."""

Table = dict[str, dict[str, float]]
"""By kind of sample: mean error of the logarithm of depth in the hole, before and after, and the
mean spread."""


def train_completion(
    recipe: CompletionRecipe,
    folder: Path,
    step: CompletionStep = "all",
    minutes: float = 100.0,
    resume: bool = False,
) -> Iterator[Progress]:
    """Train depth completion, or go on doing so; what was done stays in the folder.

    Args:
        recipe: How it is trained.
        folder: New or empty folder, or with ``resume`` the one of a training.
        step: One step only, or all of them.
        minutes: Stop after about so long; a later call goes on.
        resume: Whether the folder holds a training already.

    Raises:
        SceneError: Data or earlier steps are missing, or the folder is of another training.
    """
    recipe = smoke_completion(recipe) if recipe.smoke else recipe
    run = _Run(recipe, folder, Deadline(minutes))
    claim_folder(folder, recipe, resume)
    steps = {
        "render": run.render,
        "samples": run.sample,
        "fit": run.fit,
        "evaluate": run.evaluate,
        "export": run.export,
    }
    yield from in_order(steps, step, run.end)


class _Run:
    """One call of the command: recipe, folder and time."""

    def __init__(self, recipe: CompletionRecipe, folder: Path, end: Deadline) -> None:
        self.recipe, self.folder, self.end = recipe, folder, end
        self.frames, self.samples = folder / "frames", folder / "samples"
        self.state_file = folder / "completion-state.safetensors"
        self.device = chosen_device(recipe.device)

    def render(self) -> Iterator[Progress]:
        if self.recipe.smoke:
            yield Progress("render", 0, 0, "smoke: boxes drawn in software, no rooms or tracks")
        yield from draw_frames(self.recipe.drawing, self.frames, self.end)

    def sample(self) -> Iterator[Progress]:
        yield from make_samples(self.recipe, self.frames, self.samples, self.end)

    def fit(self) -> Iterator[Progress]:
        if is_finished(self.state_file):
            return
        if not is_sampled(self.frames, self.samples):
            raise SceneError(
                "cannot fit yet",
                why=f"not all samples are in {self.samples}",
                fix="run --step samples --resume until it is done",
            )
        files = sample_files(self.samples, held_out=False)
        arguments = self.recipe, self.state_file, self.device, self.end
        yield from fit_completion(self._untrained(), files, *arguments)

    def evaluate(self) -> Iterator[Progress]:
        """Measure in held-out worlds."""
        network, table = self._trained().to(self.device), {}
        files = sample_files(self.samples, held_out=True)
        for kind in sorted({name.partition(" ")[0] for name in files}):
            paths = [p for name, own in files.items() if name.startswith(f"{kind} ") for p in own]
            rows = [measured(network, path, self.device) for path in paths]
            means = np.nanmean(rows, 0).tolist()
            table[kind] = dict(zip(("before", "after", "spread"), means, strict=True))
            text = ", ".join(f"{name} {value:.4f}" for name, value in table[kind].items())
            yield Progress("evaluate", len(table), len(table), f"{kind}, {len(rows)}: {text}")
        (self.folder / "quality.json").write_text(json.dumps(table, indent=2))

    def export(self) -> Iterator[Progress]:
        """Write the weights in half precision and their card."""
        table: Table = read_quality(self.folder, "fit")
        if not is_finished(self.state_file):
            yield Progress("export", 0, 1, "the training is not finished: an early state")
        about = {
            "name": NAME,
            "made_with": f"scenegen-worlds {__version__}",
            "licence": "Apache-2.0",
            "started_from": UNTRAINED,
            "completes": {"backend": "dpt", "sha256": read_card(shipped_path("depth"))["sha256"]},
            "seed": self.recipe.seed,
            "recipe": asdict(self.recipe),
            "data": data_list(frame_notes(self.frames), self.recipe.drawing),
            "mean_error_in_held_out_samples": table,
            "samples_seen": seen_steps(self.state_file) * self.recipe.batch,
            "warning": "a smoke run: worth nothing" if self.recipe.smoke else "",
        }
        path = self.folder / f"{NAME}.safetensors"
        write_network(path, *pack_completion_network(self._trained(), about))
        load_completion_network(path)  # what cannot be read back is not done
        gains = (f"{kind} {row['before']:.3f} -> {row['after']:.3f}" for kind, row in table.items())
        yield Progress("export", 1, 1, f"{path}; {', '.join(gains)}")

    def _untrained(self) -> CompletionNetwork:
        torch.manual_seed(self.recipe.seed)
        return CompletionNetwork(TINY if self.recipe.smoke else CompletionLayout())

    def _trained(self) -> CompletionNetwork:
        network = self._untrained()
        load_average(network, self.state_file)
        return network.eval()


@torch.no_grad()
def measured(network: CompletionNetwork, path: Path, device: str) -> tuple[float, float, float]:
    """Mean error of a sample without and with the correction, and the spread that is expected."""
    planes, wanted = (each.to(device) for each in read_samples([path]))
    change, log_spread = small_correction(network, planes)
    counts = torch.isfinite(wanted)
    error = (trusted(change, log_spread.exp()) - wanted).abs()
    rows = (wanted.abs()[counts], error[counts], log_spread.exp()[counts])
    before, after, spread = (float(row.mean()) for row in rows)
    return before, after, spread
