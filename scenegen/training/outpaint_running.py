"""Runs the steps of an outpainting training in order, each from where it stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from renderers import SceneError
from scenegen import __version__
from scenegen.models.onnx import missing_graph
from scenegen.outpaint.network import Layout, OutpaintNetwork, pretrained_network
from scenegen.outpaint.weights import load_outpaint_network, pack_outpaint_network
from scenegen.training.cards import (
    PACKAGES,
    UNTRAINED,
    origin,
    package_version,
    read_quality,
    write_network,
)
from scenegen.training.checkpoints import (
    chosen_device,
    claim_folder,
    is_finished,
    load_average,
    seen_steps,
)
from scenegen.training.outpaint_fitting import fit_outpaint, paint, sample_files
from scenegen.training.outpaint_recipe import OutpaintRecipe, OutpaintStep, smoke_outpaint
from scenegen.training.perceptual import Lpips, missing_lpips
from scenegen.training.progress import Deadline, Progress, in_order
from scenegen.training.samples import read_sample
from scenegen.training.sampling import draw_samples, is_drawn

NAME = "outpaint"
"""Name of the exported files."""
TINY = Layout(width=16)
"""The network of a smoke run without MI-GAN."""
MOST_MEASURED = 200
"""Held-out samples of each kind that are measured at most."""

Table = dict[str, dict[str, float]]
"""By share of the training, then by kind of sample: the mean distance."""


def train_outpaint(
    recipe: OutpaintRecipe,
    folder: Path,
    step: OutpaintStep = "all",
    minutes: float = 100.0,
    resume: bool = False,
) -> Iterator[Progress]:
    """Train the outpainting network, or go on doing so; what was done stays in the folder.

    Args:
        recipe: How it is trained.
        folder: New or empty folder, or with ``resume`` the one of a training.
        step: One step only, or all of them.
        minutes: Stop after about so long; a later call goes on.
        resume: Whether the folder holds a training already.

    Raises:
        SceneError: Data, weights or earlier steps are missing, or the folder is of another
            training.
    """
    recipe = smoke_outpaint(recipe) if recipe.smoke else recipe
    run = _Run(recipe, folder, Deadline(minutes))
    claim_folder(folder, recipe, resume)
    steps = {"draw": run.draw, "fit": run.fit, "evaluate": run.evaluate, "export": run.export}
    yield from in_order(steps, step, run.end)


class _Run:
    """One call of the command: recipe, folder and time."""

    def __init__(self, recipe: OutpaintRecipe, folder: Path, end: Deadline) -> None:
        self.recipe, self.folder, self.end = recipe, folder, end
        self.samples, self.state_file = folder / "samples", folder / "outpaint-state.safetensors"
        self.device = chosen_device(recipe.device)
        self.without = missing_graph("migan", "MI-GAN")
        self.blind = missing_lpips()

    @cached_property
    def untrained(self) -> OutpaintNetwork:
        """What the training starts from."""
        if self.without is None:
            return pretrained_network()
        if not self.recipe.smoke:
            raise SceneError(
                "cannot train without what it starts from",
                why=self.without,
                fix="`scenegen models pull migan` and pip install 'scenegen-worlds[training]',"
                " or try --smoke",
            )
        torch.manual_seed(self.recipe.seed)
        return OutpaintNetwork(TINY).eval()

    def draw(self) -> Iterator[Progress]:
        if self.recipe.smoke:
            yield Progress("draw", 0, 0, "smoke: boxes drawn in software, no rooms or tracks")
        if self.recipe.smoke and self.without:
            text = f"smoke: a tiny untrained network, because {self.without}"
            yield Progress("draw", 0, 0, text)
        network = deepcopy(self.untrained).to(self.device)

        @torch.no_grad()
        def untrained(picture: Tensor, known: Tensor) -> Tensor:
            return paint(network, picture.to(self.device), known.to(self.device), None).cpu()

        yield from draw_samples(self.recipe, self.samples, untrained, self.end)

    def fit(self) -> Iterator[Progress]:
        if is_finished(self.state_file):
            return
        if not is_drawn(self.recipe, self.samples):
            raise SceneError(
                "cannot fit yet",
                why=f"not all samples are in {self.samples}",
                fix="run --step draw --resume until it is done",
            )
        if self.blind and not self.recipe.smoke:
            raise SceneError(
                "cannot train without LPIPS",
                why=self.blind,
                fix="run `scenegen models pull lpips`, or try --smoke",
            )
        if self.blind:
            yield Progress("fit", 0, 0, f"smoke: L1 alone, because {self.blind}")
        files = sample_files(self.samples, held_out=False)
        yield from fit_outpaint(
            deepcopy(self.untrained),
            files,
            self.recipe,
            self.state_file,
            self._measure(),
            self.device,
            self.end,
        )

    def evaluate(self) -> Iterator[Progress]:
        """Measure mixtures of untrained and trained weights on held-out samples."""
        files, table = sample_files(self.samples, held_out=True), {}
        shares = sorted({0.0, self.recipe.share, 1.0})
        for share in shares:
            network = self._mixture(share).to(self.device)
            table[str(share)] = {kind: self._distance(network, f) for kind, f in files.items()}
            text = ", ".join(f"{kind} {value:.4f}" for kind, value in table[str(share)].items())
            yield Progress("evaluate", len(table), len(shares), f"{share:.0%} trained: {text}")
        (self.folder / "quality.json").write_text(json.dumps(table, indent=2))

    def export(self) -> Iterator[Progress]:
        """Write the mixture that the recipe asks for."""
        table: Table = read_quality(self.folder, "fit")
        if not is_finished(self.state_file):
            yield Progress("export", 0, 1, "the training is not finished: an early state")
        path = self.folder / f"{NAME}.safetensors"
        write_network(
            path, *pack_outpaint_network(self._mixture(self.recipe.share), self._about(table))
        )
        load_outpaint_network(path)  # what cannot be read back is not done
        gains = (
            f"{kind} {value - table['0.0'][kind]:+.4f}"
            for kind, value in table[str(self.recipe.share)].items()
        )
        yield Progress(
            "export", 1, 1, f"{path}, {self.recipe.share:.0%} trained; {', '.join(gains)}"
        )

    def _mixture(self, share: float) -> OutpaintNetwork:
        network = deepcopy(self.untrained)
        if share == 0:
            return network
        load_average(network, self.state_file)
        before = dict(self.untrained.named_parameters())
        with torch.no_grad():
            for name, value in network.named_parameters():
                if not name.startswith("side."):  # it started from nothing worth keeping
                    value.lerp_(before[name], 1 - share)
        return network.eval()

    @torch.no_grad()
    def _distance(self, network: OutpaintNetwork, files: list[Path]) -> float:
        """Mean LPIPS to what is right; without LPIPS, mean absolute difference."""
        measure, found = self._measure(), []
        for path in files[:MOST_MEASURED]:
            sample = read_sample(path)
            side = None if sample.side is None else sample.side[None].to(self.device)
            known = sample.known[None, None].to(self.device)
            painted = paint(network, sample.picture[None].to(self.device), known, side)
            painted, truth = painted.clamp(0, 1), sample.truth[None].to(self.device)
            distance = (painted - truth).abs() if measure is None else measure(painted, truth)
            found.append(float(distance.mean()))
        return float(np.mean(found))

    def _measure(self) -> Lpips | None:
        return None if self.blind else Lpips().to(self.device)

    def _about(self, table: Table) -> dict[str, Any]:
        started = [origin("migan", "MI-GAN 512, Places2")] if self.without is None else UNTRAINED
        return {
            "name": NAME,
            "made_with": f"scenegen-worlds {__version__}",
            "licence": "MIT",
            "started_from": started,
            "seed": self.recipe.seed,
            "recipe": {**asdict(self.recipe), "photos": self.recipe.photos is not None},
            "data": self._data(),
            "mean_distance_in_held_out_samples": table,
            "held_out_samples_measured": {
                kind: len(files[:MOST_MEASURED])
                for kind, files in sample_files(self.samples, held_out=True).items()
            },
            "measured_by": "mean absolute difference" if self.blind else "LPIPS",
            "pictures_seen": seen_steps(self.state_file) * self.recipe.batch,
            "warning": "a smoke run: worth nothing" if self.recipe.smoke else "",
        }

    def _data(self) -> list[dict[str, Any]]:
        """Photographs and worlds that samples came from, and how many of each."""
        counts: dict[str, Counter[str]] = {}
        for path in sorted(self.samples.glob("*.safetensors")):
            with safe_open(path, "pt") as file:
                about = file.metadata()
            source = about["source"]
            kind = "photo" if path.name.startswith("photo") else source.partition("-")[0]
            held_out = "held out" if about["held_out"] == "1" else "trained on"
            counts.setdefault(kind, Counter())[f"{source}, {held_out}"] += 1
        found = []
        for kind, sources in sorted(counts.items()):
            packages = [
                {"name": name, "version": package_version(name), "licence": licence}
                for name, licence in PACKAGES.get(kind, ())
            ]
            names = sorted(sources) if kind != "room" else len(sources)
            entry = {"kind": kind, "samples": sum(sources.values()), "sources": names}
            found.append(entry | ({"packages": packages} if packages else {}))
        return found
