"""A world's past: what it is at the head of its journal, and how the head moves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int32, UInt8
from torch import Tensor

from renderers import Camera, SceneError, Splats, join
from scenegen.world.arrays import StepData, StepView
from scenegen.world.chronicle import log_lines
from scenegen.world.journal import Edit, Entry, Journal, Step, changes, check_branch_name
from scenegen.world.provenance import origin_of
from scenegen.world.replay import State, check, replay
from scenegen.world.snapshots import EVERY, StepPixels
from scenegen.world.store import Store
from spatial_memory import ViewMemory

logger = logging.getLogger("scenegen")


@dataclass(frozen=True)
class Freed:
    """What :meth:`History.gc` removed, or would remove."""

    entries: tuple[int, ...]
    bytes: int


class History:
    """What the entries from the first one to the head add up to. See :class:`scenegen.World`."""

    def __init__(self, store: Store, at: str | int | None = None) -> None:
        """Open a world at its head, or move the head first.

        Args:
            store: The open folder.
            at: As in :meth:`switch`. What is at the old head then need not be whole.
        """
        self._store = store
        self._joined: Splats | None = None
        self._meta, self._journal, self._state = store.meta(), store.journal(), State()
        if at is None:
            self._load()
        else:
            self.switch(at)

    @property
    def folder(self) -> Path:
        """Where the world lives on disk."""
        return self._store.folder

    @property
    def memory(self) -> ViewMemory:
        """Geometry and past views.

        To change them use :meth:`pin`, :meth:`forget` and :meth:`erase` of the world: what is done
        to the memory itself is lost when the world is closed.
        """
        return self._state.memory

    @property
    def journal(self) -> Journal:
        """All entries, those of other branches too. For reading only."""
        return self._journal

    @property
    def head(self) -> int:
        """Number of the entry that the world is at."""
        assert self._journal.head is not None  # `open` refuses empty worlds
        return self._journal.head

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps up to the head, first step first."""
        return self._state.steps

    @property
    def edits(self) -> tuple[Edit, ...]:
        """What was pinned, forgotten and erased up to the head, in order."""
        return self._state.edits

    @property
    def chunks(self) -> tuple[Splats, ...]:
        """The splats that each step added and nobody erased, in the order of ``steps``."""
        return tuple(self._state.chunks)

    @property
    def splats(self) -> Splats:
        """All splats of the world."""
        if self._joined is None:
            self._joined = join(self._state.chunks)
        return self._joined

    def provenance(self) -> dict[str, Int32[Tensor, " n"] | UInt8[Tensor, " n"]]:
        """Where each of ``splats`` comes from.

        Returns:
            ``step``: (n,) int32, the number of its step. ``origin``: (n,) uint8, the place of its
            origin in :data:`scenegen.world.ORIGINS`.
        """
        pairs = list(zip(self.steps, self._state.chunks, strict=True))
        counts = torch.tensor([len(chunk) for _, chunk in pairs])
        steps = torch.tensor([step.id for step, _ in pairs], dtype=torch.int32)
        origins = torch.tensor([origin_of(step) for step, _ in pairs], dtype=torch.uint8)
        return {
            "step": steps.repeat_interleave(counts),
            "origin": origins.repeat_interleave(counts),
        }

    def seen(self, step: Step) -> StepView:
        """The view of a step as it was when the step was made.

        Raises:
            SceneError: Its file is missing or damaged.
        """
        return self._store.files.view(step)

    def at(self, entry: int) -> State:
        """Splats and memory as they were after an entry, of whatever branch.

        Raises:
            SceneError: There is no such entry, or it is damaged.
        """
        return self._state_at(self._journal.path(entry))

    def log(self) -> list[str]:
        """The whole journal in words, newest entries first."""
        return log_lines(self._journal)

    def undo(self, steps: int = 1) -> tuple[Entry, ...]:
        """Go back: the last steps or edits are no part of the world any more. Nothing is lost.

        Args:
            steps: How many; what was done at once counts as one.

        Returns:
            What was undone, newest first.

        Raises:
            SceneError: There are not so many, or the world cannot be written.
        """
        with self.writing():
            done = changes(self._state.entries)
            if not 0 < steps < len(done):
                raise SceneError(
                    f"cannot undo {steps} entries",
                    why=f"there are {len(done) - 1} after the first one, which stays",
                    fix=f"undo 1 to {len(done) - 1}" if len(done) > 1 else "grow the world first",
                )
            undone = tuple(entry for change in done[-steps:] for entry in change)[::-1]
            self._go(done[-steps - 1][-1].id, self._journal.branch)
        return undone

    def redo(self, steps: int = 1) -> tuple[Entry, ...]:
        """Go forward again along what was undone last.

        Args:
            steps: How many; what was done at once counts as one.

        Returns:
            What was redone, oldest first.

        Raises:
            SceneError: So many were not undone, or the world cannot be written.
        """
        with self.writing():
            redone: list[Entry] = []
            at = self.head
            while at in self._journal.left:
                at = self._journal.left[at]
                redone += self._journal.path(at)[-1:]
            ahead = changes(redone)
            if not 0 < steps <= len(ahead):
                raise SceneError(
                    f"cannot redo {steps} entries",
                    why=f"from entry {self.head} on {len(ahead) or 'none'} were undone",
                    fix=f"`scenegen log {self.folder}` shows all entries, and "
                    f"`scenegen switch {self.folder} N` goes to any of them",
                )
            redone = [entry for change in ahead[:steps] for entry in change]
            self._go(redone[-1].id, self._journal.branch)
        return tuple(redone)

    def branch(self, name: str) -> None:
        """Give the place of the head a name, which goes along with it from now on.

        Raises:
            SceneError: The name is taken or is none, or the world cannot be written.
        """
        check_branch_name(name)
        with self.writing():
            if name in self._journal.branches:
                raise SceneError(
                    f"there is a branch {name!r} already",
                    why=f"it names entry {self._journal.branches[name]}",
                    fix=f"choose another name, or go there: scenegen switch {self.folder} {name}",
                )
            self._go(self.head, name)

    def drop_branch(self, name: str) -> None:
        """Forget the name of a branch. Its entries stay until :meth:`gc`.

        Raises:
            SceneError: There is none, the head is on it, or the world cannot be written.
        """
        with self.writing():
            _, found = self._journal.find(name)
            if found is None or found == self._journal.branch:
                raise SceneError(
                    f"the branch {name!r} cannot be dropped",
                    why="the world is on it" if found else "it is an entry, not a branch",
                    fix="switch to another branch first" if found else "give the name of a branch",
                )
            self._store.drop_branch(found)
            del self._journal.branches[found]

    def switch(self, to: str | int) -> None:
        """Go to a branch, or to any entry, from which a new branch may start.

        Args:
            to: Name of a branch, or number of an entry.

        Raises:
            SceneError: There is neither, or the world cannot be written.
        """
        with self.writing():
            self._go(*self._journal.find(to))

    def gc(self, dry_run: bool = False) -> Freed:
        """Remove for good what no branch leads to and is not before the head.

        Args:
            dry_run: Only say what would be removed.

        Raises:
            SceneError: The world cannot be written.
        """
        with self.writing():
            journal = self._journal
            known = journal.entries.keys() | journal.broken.keys()
            gone = tuple(sorted(known - journal.reachable()))
            freed = Freed(gone, sum(map(self._store.files.size, gone)))
            if not dry_run:
                self._store.drop(gone)
                self._journal = self._store.journal()
        return freed

    def refresh(self) -> bool:
        """Take over what another process has written meanwhile; whether there was anything."""
        if self._store.head() == (self._journal.head, self._journal.branch):
            return False
        self._load()
        return True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes, and at the newest state, for as long as the block lasts.

        Raises:
            SceneError: Somebody else writes and does not come to an end, or nobody may write.
        """
        with self._store.writing():
            if self.refresh():
                logger.info("%s: another process has changed it; going on from there", self.folder)
            yield

    def commit(self, camera: Camera, data: StepData, provenance: str, info: dict[str, Any]) -> Step:
        """Add a step to the journal, the splats and the memory. For the loop's own use."""
        with self.writing():
            return self.add(camera, data, provenance, info)

    def add(self, camera: Camera, data: StepData, provenance: str, info: dict[str, Any]) -> Step:
        """The same within :meth:`writing`."""
        step = Step(-1, self._journal.head, provenance, camera, info)
        ((step, seal),) = self._store.add_steps([(step, data)], self._journal.branch)
        self._enter(step, seal)
        self._state.take(step, data, StepPixels(self._store.files, step))
        return step

    def add_all(
        self, parts: Iterable[tuple[Camera, StepData, dict[str, Any]]], provenance: str
    ) -> list[Step]:
        """Add steps at once, within :meth:`writing`: all or none, and undone at once."""
        head = self._journal.head
        steps = ((Step(-1, head, provenance, c, info), data) for c, data, info in parts)
        added = self._store.add_steps(steps, self._journal.branch)
        for step, seal in added:
            self._enter(step, seal)
            data = self._store.files.load(step)
            self._state.take(step, data, StepPixels(self._store.files, step))
        return [step for step, _ in added]

    def set_aside(self) -> None:
        """Have the next `open` start from here, if much was done since the last snapshot.

        The memory is made anew for that: somebody may have changed the one in use.
        """
        path = self._state.entries
        if len(path) >= self._state.kept + EVERY:
            try:
                self._state.kept = replay(self._store, path, self._journal.seals).kept
            except SceneError as error:
                logger.warning("%s: %s", self.folder, error.what)

    def _edit(self, kind: str, arguments: dict[str, Any]) -> None:
        """Check, record, then apply: killed in between, the next `open` applies it."""
        check(self._state, kind, arguments)
        edit, seal = self._store.add_edit(self.head, kind, arguments, self._journal.branch)
        self._enter(edit, seal)
        self._state.apply(edit)

    def _enter(self, entry: Entry, seal: str) -> None:
        journal = self._journal
        journal.entries[entry.id], journal.seals[entry.id] = entry, seal
        if entry.parent is not None:
            journal.left.pop(entry.parent, None)
        self._stand(entry.id, journal.branch)
        self._joined = None

    def _go(self, to: int, branch: str | None) -> None:
        """Move the head. What it leaves is remembered, for :meth:`redo`."""
        path = self._journal.path(to)
        state = self._state_at(path)
        passed = {entry.id for entry in path}
        left = {
            entry.parent: entry.id
            for entry in self._state.entries
            if entry.id not in passed and entry.parent is not None
        }
        self._store.move(to, branch, left)
        self._journal.left |= left
        self._stand(to, branch)
        self._state, self._joined = state, None

    def _stand(self, head: int, branch: str | None) -> None:
        self._journal.head, self._journal.branch = head, branch
        if branch is not None:
            self._journal.branches[branch] = head

    def _state_at(self, path: list[Entry]) -> State:
        entries = self._state.entries
        if entries and [entry.id for entry in entries] == [entry.id for entry in path]:
            return self._state
        return replay(self._store, path, self._journal.seals)

    def _load(self) -> None:
        self._meta = self._store.meta()
        self._journal = self._store.journal()
        self._state = self._state_at(self._journal.path(self._journal.head))
        self._joined = None


def last_whole(store: Store) -> int | None:
    """The newest entry that is whole with all before it: what a damaged world can go back to."""
    journal = store.journal()
    whole: dict[int | None, bool] = {None: True}
    for entry in (entry for tip in journal.entries for entry in journal.way(tip)):
        if entry.id not in whole:
            whole[entry.id] = whole[entry.parent] and _is_whole(store, entry)
    return max((n for n, fine in whole.items() if fine and n is not None), default=None)


def _is_whole(store: Store, entry: Entry) -> bool:
    try:
        if isinstance(entry, Step):
            store.files.load(entry)
    except SceneError:
        return False
    return True
