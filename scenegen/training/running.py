"""Runs the steps of a depth training in order, each from where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from renderers import SceneError
from scenegen.geometry.dinov2 import missing_backbone, pretrained_backbone
from scenegen.geometry.dpt import DepthLayout, DepthNetwork
from scenegen.geometry.fast_branch import missing_branch, pretrained_branch
from scenegen.geometry.weights import load_depth_network
from scenegen.training.cards import export, read_quality
from scenegen.training.checkpoints import chosen_device, claim_folder, is_finished, load_average
from scenegen.training.drawing import draw_frames, plan_visits
from scenegen.training.evaluation import Table, evaluate, mean_delta1, table_lines
from scenegen.training.fitting import Stage, fit, plan_stage
from scenegen.training.frames import frame_notes
from scenegen.training.probe import fit_base, fit_room
from scenegen.training.progress import Deadline, Progress, in_order
from scenegen.training.recipe import DepthRecipe, Step, smoke_recipe
from scenegen.training.tokens import TokenStore, write_tokens

STAGES: tuple[Stage, ...] = ("head", "blocks")
TINY = DepthLayout(width=48, heads=3, depth=8, positions=8, fusion=16, head=16)
"""The network of a smoke run without the real backbone."""


def train_depth(
    recipe: DepthRecipe,
    folder: Path,
    step: Step = "all",
    minutes: float = 100.0,
    resume: bool = False,
) -> Iterator[Progress]:
    """Train the depth network, or go on doing so; what was done stays in the folder.

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
    recipe = smoke_recipe(recipe) if recipe.smoke else recipe
    run = _Run(recipe, folder, Deadline(minutes))
    claim_folder(folder, recipe, resume)
    steps = {
        "render": run.render,
        "tokens": run.tokens,
        "probe": run.probe,
        "head": lambda: run.fit("head"),
        "blocks": lambda: run.fit("blocks"),
        "evaluate": run.evaluate,
        "export": run.export,
    }
    yield from in_order(steps, step, run.end)


class _Run:
    """One call of the command: recipe, folder and time."""

    def __init__(self, recipe: DepthRecipe, folder: Path, end: Deadline) -> None:
        self.recipe, self.folder, self.end = recipe, folder, end
        self.device = chosen_device(recipe.device)
        self.without = missing_backbone() or missing_branch()

    def render(self) -> Iterator[Progress]:
        if self.recipe.smoke:
            yield Progress("render", 0, 0, "smoke: boxes drawn in software, no rooms or tracks")
        yield from draw_frames(self.recipe, self.folder / "frames", self.end)

    def tokens(self) -> Iterator[Progress]:
        self._finished_drawing()
        network = self._network()
        if self.recipe.smoke and self.without:
            text = f"smoke: tiny untrained branches, because {self.without}"
            yield Progress("tokens", 0, 0, text)
        places = self.folder / "frames", self.folder / "tokens"
        yield from write_tokens(self.recipe, *places, network, self.device, self.end)

    def probe(self) -> Iterator[Progress]:
        path = self.folder / "base.safetensors"
        if path.exists():
            return
        network = self._network().to(self.device)
        store = TokenStore(self.folder / "tokens", held_out=False)
        used = fit_base(network, store, self.recipe.seed, self.device)
        images = fit_room(network, store, self.device)
        save_file({name: fitted.detach().cpu() for name, fitted in _fitted(network)}, path)
        text = f"linear base fitted to {used} tokens, rooms told apart on {images} images"
        yield Progress("probe", len(store), len(store), text)

    def fit(self, stage: Stage) -> Iterator[Progress]:
        plan = plan_stage(self.recipe, stage, self.folder)
        if is_finished(plan.state_file):
            return
        network = self._network(with_base=True)
        if stage == "blocks":
            load_average(network, self._finished("head"))
        store = TokenStore(self.folder / "tokens", held_out=False)
        yield from fit(network, store, self.recipe, plan, self.device, self.end)

    def evaluate(self) -> Iterator[Progress]:
        """Measure every stage that has weights."""
        store = TokenStore(self.folder / "tokens", held_out=True)
        tables: dict[str, Table] = {}
        for stage in STAGES:
            if not (self.folder / f"{stage}.safetensors").exists():
                continue
            network = self._network(with_base=True)
            load_average(network, self.folder / f"{stage}.safetensors")
            tables[stage] = evaluate(network, store, stage, self.recipe.blocks, self.device)
            for line in table_lines(tables[stage]):
                yield Progress("evaluate", len(tables), len(STAGES), line)
        if not tables:
            raise SceneError(
                "there is nothing to measure",
                why=f"no stage has left weights in {self.folder} yet",
                fix="run --step head --resume first",
            )
        (self.folder / "quality.json").write_text(json.dumps(tables, indent=2))

    def export(self) -> Iterator[Progress]:
        """Ship the stage that hits more in held-out worlds."""
        tables: dict[Stage, Table] = read_quality(self.folder, "head")
        best = max(tables, key=lambda stage: mean_delta1(tables[stage], stage))
        network = self._network(with_base=True)
        load_average(network, self._finished(best))
        table, notes = tables[best], frame_notes(self.folder / "frames")
        path = export(
            network, self.recipe, self.folder, notes, table, best, pretrained=self.without is None
        )
        load_depth_network(path)  # what cannot be read back is not done
        gain = mean_delta1(table, best) - mean_delta1(table, "base")
        text = f"{path}, from {best}; delta1 {gain:+.3f} against the linear base"
        yield Progress("export", 1, 1, text)

    def _network(self, with_base: bool = False) -> DepthNetwork:
        torch.manual_seed(self.recipe.seed)
        if self.without is None:
            layout = DepthLayout(fusion=self.recipe.fusion)
            network = DepthNetwork(layout, pretrained_backbone(), pretrained_branch())
        elif self.recipe.smoke:
            network = DepthNetwork(TINY)
            _scatter(network)
        else:
            raise SceneError(
                "cannot train without what it starts from",
                why=self.without,
                fix="`scenegen models pull dinov2-s fastdepth` and"
                " pip install 'scenegen-worlds[training]', or try --smoke",
            )
        if with_base:
            self._load_base(network)
        return network

    def _load_base(self, network: DepthNetwork) -> None:
        path = self.folder / "base.safetensors"
        if not path.exists():
            raise SceneError(
                "cannot go on without the linear base",
                why=f"there is no file {path}",
                fix="run the step `probe` first, or all of them (--step all)",
            )
        kept = load_file(path)
        with torch.no_grad():
            for name, fitted in _fitted(network):
                fitted.copy_(kept[name])

    def _finished(self, stage: str) -> Path:
        path = self.folder / f"{stage}.safetensors"
        if path.exists() and not is_finished(path):
            raise SceneError(
                f"the stage {stage!r} is not finished",
                why="its learning rate has not come down yet",
                fix=f"run --step {stage} --resume until it is",
            )
        return path

    def _finished_drawing(self) -> None:
        folder = self.folder / "frames"
        left = [
            v
            for v in plan_visits(self.recipe)
            if not (folder / f"visit-{v.number:05d}.done").exists()
        ]
        if left:
            raise SceneError(
                "cannot look at the frames yet",
                why=f"{len(left)} worlds are still to be drawn",
                fix="run --step render --resume until it is done",
            )


def _fitted(network: DepthNetwork) -> list[tuple[str, Tensor]]:
    """What is fitted in closed form, by its name in the file."""
    linear = {"base": network.base, "room": network.room}
    return [(f"{n}.{k}", v) for n, layer in linear.items() for k, v in layer.named_parameters()]


def _scatter(network: DepthNetwork) -> None:
    """Random positions and class token, which start as zeros."""
    backbone = network.backbone
    with torch.no_grad():
        for value in (backbone.cls, backbone.cls_position, backbone.position):
            value.normal_(0, 0.5)
