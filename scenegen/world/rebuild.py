"""Making a world again from its journal, to see that it is what the journal says.

From the photograph's colours as they were loaded, which step 0 keeps, everything is made anew by
the backends, seeds and edits that were recorded, and what comes out is compared by its hashes.
Nothing is written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from renderers import Camera, SceneError, make_renderer
from scenegen import models
from scenegen.config import CreateConfig
from scenegen.world.arrays import StepData, sha256
from scenegen.world.build import copies_of, first_steps
from scenegen.world.journal import Edit, Entry, Journal, Step
from scenegen.world.replay import State, check
from scenegen.world.world import World


@dataclass(frozen=True)
class Rebuilt:
    """One entry, made again."""

    entry: Entry
    difference: str | None
    """What is not as it was; None when all is the same to the bit."""
    taken: bool
    """Whether it was taken as it is: an import cannot be made again."""
    seconds: float

    def __str__(self) -> str:
        what = self.entry.kind if isinstance(self.entry, Edit) else self.entry.provenance
        if self.difference is None:
            said = "taken as it is" if self.taken else "the same"
        else:
            said = f"DIFFERENT: {self.difference}"
        return f"entry {self.entry.id}, {what}: {said} ({self.seconds:.1f} s)"


def remake(world: World) -> Iterator[Rebuilt]:
    """Make the entries up to the head again, one after another, until one comes out different.

    Raises:
        SceneError: A backend that was used does not run here, or a step is damaged.
    """
    again = _Again(world)
    for entry in world.journal.path(world.head):
        begun = time.monotonic()
        difference = again.make(entry)
        taken = isinstance(entry, Step) and entry.provenance == "imported"
        yield Rebuilt(entry, difference, taken, time.monotonic() - begun)
        if difference is not None:
            return


class _Again(World):
    """A world that keeps its steps to itself."""

    def __init__(self, world: World) -> None:
        self._store, self._meta, self._journal = world._store, world.settings, Journal("")
        self._state, self._joined = State(), None
        known = {field.name for field in fields(CreateConfig)}
        self._config = CreateConfig(**{k: v for k, v in self._meta.items() if k in known})
        self._renderer = make_renderer(self._config.renderer)
        self._parts: list[StepData] = []
        self._copies: Iterator[tuple[Camera, StepData, dict[str, Any]]] = iter(())
        self._due: Step | None = None
        self._made: StepData | None = None

    def make(self, entry: Entry) -> str | None:
        """Make an entry again; what is different then."""
        if isinstance(entry, Edit):
            check(self._state, entry.kind, entry.arguments)
            self._state.apply(entry)
            self._joined = None
            return None
        self._due, self._made = entry, None
        self._make(entry)
        if self._made is None:
            return "nothing is unknown there any more"
        difference = self._difference(entry, self._made)
        if difference is None:
            return None
        then = entry.info.get("weights", {})
        now = models.growth_weights(*then)
        if "retrieved" not in entry.info:  # not grown: nothing is completed
            now = {name: now[name] for name in then}
        others = [name for name, weights in now.items() if then.get(name) != weights]
        return (
            f"{difference}; made with other weights of {', '.join(others)}"
            if others
            else difference
        )

    def add(self, camera: Camera, data: StepData, provenance: str, info: dict[str, Any]) -> Step:
        """Keep a step, under the number that it had."""
        assert self._due is not None
        self._made, self._joined = data, None
        self._state.take(self._due, data)
        return self._due

    def _make(self, step: Step) -> None:
        info = step.info
        if "retrieved" in info:
            made_with = info["depth"], info["outpaint"], info["seed"]
            for _ in self.step(step.camera, *made_with, limit=info.get("limit")):
                pass
            return
        if step.provenance == "observed":
            rgb = self._store.files.view(step).rgb
            names = {"renderer": self._config.renderer}
            names |= {"depth": self._config.depth, "outpaint": self._config.outpaint}
            data, layer, _, _ = first_steps(rgb, step.camera, names, self._config)
            self._parts = [data] if layer is None else [data, layer]
            self._copies = copies_of(self._parts, step.camera, self._config.budget)
        elif "layer" in info:
            data = self._parts[-1]
        elif "copy" in info:
            _, data, _ = next(self._copies)
        else:
            data = self._store.files.load(step)
        self.add(step.camera, data, step.provenance, dict(info))

    def _difference(self, step: Step, made: StepData) -> str | None:
        contents = made.files()
        if step.files and all(sha256(data) == step.files[name] for name, data in contents.items()):
            return None
        was = self._store.files.contents(step)
        for name, data in contents.items():
            if data != was[name]:
                return f"{name}: {_difference(load(was[name]), load(data))}"
        return None


def _difference(was: dict[str, Tensor], now: dict[str, Tensor]) -> str:
    """The first array that differs, and how much."""
    for name in sorted(was.keys() | now.keys()):
        if name not in was or name not in now:
            return f"{name} is in only one of both"
        a, b = was[name], now[name]
        if a.shape != b.shape:
            return f"{name} was {tuple(a.shape)} and is {tuple(b.shape)}"
        unequal = (a != b) & ~((a != a) & (b != b))  # NaN is NaN
        if unequal.any():
            gap = float((a.double() - b.double()).abs()[unequal].nan_to_num(torch.inf).max())
            return f"{int(unequal.sum())} of {a.numel()} values of {name}, by up to {gap:.3g}"
    return "the same values in another order of bytes"


def check_world(world: World) -> Iterator[Rebuilt]:
    """As :func:`remake`, but the first difference is an error.

    Raises:
        SceneError: The world is not what its journal says; or see :func:`remake`.
    """
    for one in remake(world):
        yield one
        if one.difference is not None:
            raise SceneError(
                f"entry {one.entry.id} comes out different from what it was",
                why=one.difference,
                fix="the world itself is whole and can be used; it was made by another release, "
                "other libraries or another machine, or with a renderer on a GPU",
            )
