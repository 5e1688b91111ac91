"""What the steps of a world, and the edits between them, add up to.

Memory and splats are a function of the journal: of the entries from the first one to the head.
They are replayed when a world is opened or its head moves, so that nothing else needs to be
stored, nothing can disagree, and any other moment can be had as well. For the memory of a long
history that begins at the latest of its :mod:`snapshots`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from renderers import Camera, SceneError, Splats
from scenegen.world.arrays import StepData
from scenegen.world.journal import Edit, Entry, Step
from scenegen.world.provenance import was_generated
from scenegen.world.snapshots import EVERY, KEPT, Snapshots, StepPixels
from scenegen.world.store import Store
from spatial_memory import MemoryConfig, ViewMemory


@dataclass(eq=False)
class State:
    """A world at one moment. Changed only by a step, or by an edit that :func:`check` let pass."""

    memory: ViewMemory = field(default_factory=lambda: ViewMemory(MemoryConfig()))
    """Geometry and past views; the id of a view is the number of its step."""
    entries: list[Entry] = field(default_factory=list)
    """Steps and edits, in order."""
    chunks: list[Splats] = field(default_factory=list)
    """What is left of the splats that each step added."""
    kept: int = 0
    """How many of the entries the latest snapshot stands for."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, in order."""
        return tuple(entry for entry in self.entries if isinstance(entry, Step))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The edits, in order."""
        return tuple(entry for entry in self.entries if isinstance(entry, Edit))

    def take(self, step: Step, data: StepData, pixels: StepPixels | None = None) -> None:
        """Add what a step brought.

        Args:
            step: The step.
            data: Its arrays.
            pixels: Where its view lies, if that is on the disk.
        """
        self.memory.views.next_id = step.id  # numbers of edits and of other branches are left out
        provenance = "generated" if was_generated(step) else "observed"
        self.memory.write(data.rgb, data.depth, step.camera, provenance, data.known)
        if pixels is not None:
            self.memory.views.found(step.id, pixels)
        self.entries.append(step)
        self.chunks.append(data.splats)

    def apply(self, edit: Edit) -> None:
        """Make an edit. Erasing takes splats away as well, so that the place can grow anew."""
        if edit.kind in ("pin", "unpin"):
            self.memory.pin(edit.arguments["view"], pinned=edit.kind == "pin")
        elif edit.kind == "forget":
            self.memory.forget(edit.arguments["view"])
        elif edit.kind == "erase":
            self.memory.erase(edit.arguments["box"])
        else:
            raise ValueError(f"there is no edit {edit.kind!r}")
        self.keep(edit)

    def keep(self, edit: Edit) -> None:
        """Note an edit, and take away the splats that it erases."""
        if edit.kind == "erase":
            inside = [in_box(chunk.means, edit.arguments["box"]) for chunk in self.chunks]
            self.chunks = [
                chunk[~gone] if gone.any() else chunk
                for chunk, gone in zip(self.chunks, inside, strict=True)
            ]
        self.entries.append(edit)


def replay(store: Store, entries: Sequence[Entry], seals: Mapping[int, str]) -> State:
    """A world after some entries.

    Args:
        store: Where the steps lie.
        entries: From the first one on, each after its parent.
        seals: Their seals. Moments of long histories are set aside for the next time.

    Raises:
        SceneError: A step or an edit is damaged.
    """
    snapshots = Snapshots(store.folder)
    state = _begin(store, entries, seals, snapshots)
    begun = len(state.entries)
    for entry in entries[begun:]:
        if isinstance(entry, Step):
            state.take(entry, store.files.load(entry), StepPixels(store.files, entry))
        else:
            _redo(state, entry, store)
        left, done = len(entries) - len(state.entries), len(state.entries) - begun
        if done >= EVERY and left % EVERY == 0 and left < KEPT * EVERY:
            snapshots.save(seals[entry.id], state.memory)
            state.kept = len(state.entries)
    return state


def _begin(
    store: Store, entries: Sequence[Entry], seals: Mapping[int, str], snapshots: Snapshots
) -> State:
    """As much as the latest snapshot on the way stands for."""
    for count in range(len(entries), EVERY - 1, -1):
        seal = seals[entries[count - 1].id]
        if not snapshots.has(seal):
            continue
        past = [entry for entry in entries[:count] if isinstance(entry, Step)]
        store.files.check_views(past)
        memory = snapshots.load(seal, store.files, past)
        if memory is None:
            continue
        state = State(memory, kept=count)
        for entry in entries[:count]:
            if isinstance(entry, Step):
                state.entries.append(entry)
                state.chunks.append(store.files.splats(entry))
            else:
                state.keep(entry)
        return state
    return State()


def surfaces(store: Store, state: State) -> Iterator[tuple[Tensor, Tensor, Camera, Tensor]]:
    """What each step saw: colours, depth, camera, and the pixels it added that nobody erased.

    From the steps, not from the memory: what was forgotten is still part of the world.

    Raises:
        SceneError: A step is damaged.
    """
    for place, step in enumerate(state.entries):
        if not isinstance(step, Step):
            continue
        view = store.files.view(step)
        known, pixels = view.known, step.camera.pixel_centers()
        points = step.camera.unproject(pixels, view.depth)  # (h, w, 3)
        for later in state.entries[place:]:
            if isinstance(later, Edit) and later.kind == "erase":
                known = known & ~in_box(points, later.arguments["box"])
        yield view.rgb, view.depth, step.camera, known


def _redo(state: State, edit: Edit, store: Store) -> None:
    try:
        check(state, edit.kind, edit.arguments)
        state.apply(edit)
    except (SceneError, KeyError, TypeError, ValueError) as error:
        why = error.what if isinstance(error, SceneError) else f"{type(error).__name__}: {error}"
        raise SceneError(
            f"edit {edit.id} of the world {store.folder} is damaged",
            why=f"{edit.kind} {edit.arguments}: {why}",
            fix="restore world.db from a copy, or make the world again",
        ) from error


def check(state: State, kind: str, arguments: Mapping[str, Any]) -> None:
    """Refuse an edit that cannot be made, before it is recorded.

    Raises:
        SceneError: There is no such view, it is pinned or a photograph, or it is not a box.
    """
    if kind == "erase":
        check_box(arguments["box"])
        return
    view_id = arguments["view"]
    view = state.memory.views[view_id]
    if kind != "forget":
        return
    if view.provenance == "observed":
        raise SceneError(
            f"view {view_id} cannot be forgotten",
            why="it is a photograph, or was imported, and all else was grown from such",
            fix="erase a place of it instead: scenegen memory erase WORLD --box ...",
        )
    if view_id in state.memory.pinned:
        raise SceneError(
            f"view {view_id} cannot be forgotten",
            why="it is pinned",
            fix=f"unpin it first: scenegen memory unpin WORLD {view_id}",
        )


def check_box(box: Sequence[Sequence[float]]) -> None:
    """Refuse what is not a box: two corners of three finite numbers, the smaller ones first.

    Raises:
        SceneError: It is not.
    """
    if [len(corner) for corner in box] == [3, 3]:
        low, high = box
        if all(
            math.isfinite(a) and math.isfinite(b) and a <= b for a, b in zip(low, high, strict=True)
        ):
            return
    raise SceneError(
        f"this is not a box: {box}",
        why="a box is two corners, the smaller x, y and z first, without NaN or infinity",
        fix="give X0 Y0 Z0 X1 Y1 Z1 in metres, with X0 <= X1, Y0 <= Y1 and Z0 <= Z1",
    )


def in_box(
    points: Float[Tensor, "*batch 3"], box: Sequence[Sequence[float]]
) -> Bool[Tensor, "*batch"]:
    """Which points lie in a box, its surface included; NaN does not."""
    low, high = torch.tensor(box, dtype=torch.float64)
    return ((points >= low) & (points <= high)).all(-1)
