"""The journal: a tree of steps and edits, a head in it, and branches that name places in it.

Each entry continues its parent. The head is the entry that the world is at: a world is what the
entries from the first one to the head add up to. Moving the head changes no entry.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from renderers import Camera, SceneError

STEP = "step"
MAIN = "main"
"""The branch that a new world is on."""
_NAME = re.compile(r"[A-Za-z_][\w.-]{0,63}", re.ASCII)


@dataclass(frozen=True, eq=False)
class Step:
    """A view, and the splats that it added."""

    id: int
    """Number of the entry, and of the view in the memory; 0 is the first."""
    parent: int | None
    """The entry that this one continues."""
    provenance: str
    """One of :data:`scenegen.world.provenance.ORIGINS`, by its word in the journal."""
    camera: Camera
    """The view of the step."""
    info: Mapping[str, Any]
    """How it was made: backends, hashes of their weights, seed, retrieved views, seconds."""
    made_at: str = ""
    """When: UTC, ISO 8601; empty in worlds of earlier releases."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of each file of the step, by name; empty in worlds of earlier releases."""


@dataclass(frozen=True)
class Edit:
    """A change of the memory by hand. See :mod:`scenegen.world.replay`."""

    id: int
    """Number of the entry."""
    parent: int
    """The entry that this one continues."""
    kind: str
    """"pin", "unpin", "forget" or "erase"."""
    arguments: Mapping[str, Any]
    """{"view": id}, or {"box": [[x0, y0, z0], [x1, y1, z1]]} in metres."""
    made_at: str
    """When: UTC, ISO 8601."""


Entry = Step | Edit


def change_of(entry: Entry) -> int:
    """The change that an entry is part of: the number of its first entry, usually its own.

    What was done at once, as a merge of several steps, is undone and redone at once.
    """
    number = entry.info.get("part_of") if isinstance(entry, Step) else None
    return number if isinstance(number, int) else entry.id


def changes(path: Iterable[Entry]) -> list[list[Entry]]:
    """The entries of a path, those of one change together."""
    found: list[list[Entry]] = []
    for entry in path:
        if found and change_of(entry) == found[-1][0].id:
            found[-1].append(entry)
        else:
            found.append([entry])
    return found


@dataclass(frozen=True)
class Row:
    """An entry as the database holds it."""

    id: int
    parent: int | None
    kind: str
    """STEP, or the kind of an edit."""
    body: str
    """JSON: the arguments of an edit; see :func:`step_row` for a step."""
    made_at: str

    def seal(self, before: str) -> str:
        """SHA-256 of the row and of all before it.

        Args:
            before: Seal of the parent; empty for the first entry.
        """
        content = [before, self.id, self.parent, self.kind, self.body, self.made_at]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def entry(self) -> Entry:
        """What it says.

        Raises:
            ValueError: It is damaged.
        """
        try:
            body = json.loads(self.body)
            if self.kind == STEP:
                camera, parts = _camera(body["camera"]), (body["provenance"], body["info"])
                files = body["files"]
                return Step(self.id, self.parent, parts[0], camera, parts[1], self.made_at, files)
            if self.parent is None or not isinstance(body, dict):
                raise ValueError("an edit of nothing")
            return Edit(self.id, self.parent, self.kind, body, self.made_at)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
        except SceneError as error:
            raise ValueError(error.what) from error


def step_row(step: Step) -> Row:
    """The row of a step."""
    body = {
        "provenance": step.provenance,
        "camera": json.loads(camera_to_json(step.camera)),
        "info": dict(step.info),
        "files": dict(step.files),
    }
    return Row(step.id, step.parent, STEP, json.dumps(body), step.made_at)


@dataclass
class Journal:
    """All entries of a world, by number. Changed only together with the database."""

    place: str
    """The world's folder, for messages."""
    entries: dict[int, Entry] = field(default_factory=dict)
    seals: dict[int, str] = field(default_factory=dict)
    """Seal of each entry: worlds whose heads have the same seal are the same."""
    broken: dict[int, str] = field(default_factory=dict)
    """Entries that cannot be used, and why."""
    head: int | None = None
    """The entry that the world is at; None while there is none."""
    branch: str | None = MAIN
    """The branch that goes along when the head moves; None when it stands on none."""
    branches: dict[str, int] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)
    """For entries that the head has left towards their parent: which child it left last."""

    @property
    def next_id(self) -> int:
        """Number above all that are there."""
        return max([*self.entries, *self.broken], default=-1) + 1

    def read(self, rows: Iterable[tuple[Row, str | None]]) -> None:
        """Take in rows with the seals that were stored with them, None where there were none."""
        rows = list(rows)
        after: dict[int | None, list[tuple[Row, str | None]]] = {}
        for row, stored in rows:
            after.setdefault(row.parent, []).append((row, stored))
        ready = after.pop(None, [])
        for row, stored in ready:  # grows: parents before children, whatever their numbers
            self._take(row, stored)
            ready += after.pop(row.id, [])
        for row, _ in rows:
            if row.id not in self.seals:
                self.broken[row.id] = f"the entry {row.parent} before it is missing"

    def _take(self, row: Row, stored: str | None) -> None:
        seal = row.seal("" if row.parent is None else self.seals[row.parent])
        self.seals[row.id] = seal if stored is None else stored
        try:
            if stored not in (None, seal):
                raise ValueError("it was changed after it was written")
            self.entries[row.id] = row.entry()
        except ValueError as error:
            self.broken[row.id] = str(error)

    def path(self, to: int | None) -> list[Entry]:
        """The entries from the first one to ``to``.

        Raises:
            SceneError: There is no such entry, or one on the way is broken.
        """
        entries: list[Entry] = []
        while to is not None:
            if to in self.broken or to not in self.entries:
                raise self._no_way(to)
            entries.append(self.entries[to])
            to = entries[-1].parent
        return entries[::-1]

    def way(self, to: int | None) -> list[Entry]:
        """As :meth:`path`, but nothing where that is broken."""
        try:
            return self.path(to)
        except SceneError:
            return []

    def children(self, of: int | None) -> list[int]:
        """The entries that continue one, in the order of their making."""
        return sorted(entry.id for entry in self.entries.values() if entry.parent == of)

    def find(self, name: str | int) -> tuple[int, str | None]:
        """An entry by the name of a branch, or by its number; and the branch, if it is one.

        Raises:
            SceneError: There is neither.
        """
        if isinstance(name, str) and name in self.branches:
            return self.branches[name], name
        try:
            number = int(name)
        except ValueError:
            number = -1
        if number not in self.entries:
            known = ", ".join(self.branches)
            raise SceneError(
                f"the world has no branch or entry {name!r}",
                why=f"branches: {known}; entries: {_ranges(self.entries)}",
                fix=f"`scenegen log {self.place}` shows them all",
            )
        return number, None

    def reachable(self) -> set[int]:
        """The entries on the way to the head or to a branch."""
        found: set[int] = set()
        for tip in (self.head, *self.branches.values()):
            while tip is not None and tip not in found and tip in self.entries:
                found.add(tip)
                tip = self.entries[tip].parent
        return found

    def _no_way(self, number: int) -> SceneError:
        return SceneError(
            f"entry {number} of the world {self.place} is damaged",
            why=self.broken.get(number, "it is not in world.db any more"),
            fix=f"`scenegen repair {self.place}` restores what its steps still say",
        )


def check_branch_name(name: str) -> None:
    """Refuse what could be taken for a number or an option.

    Raises:
        SceneError: It is no name for a branch.
    """
    if not _NAME.fullmatch(name):
        raise SceneError(
            f"{name!r} cannot be the name of a branch",
            why="names start with a letter and go on with letters, digits, '_', '-' and '.', "
            "64 at most",
            fix="choose such a name",
        )


def camera_to_json(camera: Camera) -> str:
    """Exact text form of a camera."""
    return json.dumps(
        {
            "px_from_cam": camera.px_from_cam.tolist(),
            "cam_from_world": camera.cam_from_world.tolist(),
            "width": camera.width,
            "height": camera.height,
        }
    )


def camera_from_json(text: str) -> Camera:
    """Inverse of :func:`camera_to_json`."""
    return _camera(json.loads(text))


def _camera(fields: Mapping[str, Any]) -> Camera:
    return Camera(
        torch.tensor(fields["px_from_cam"]),
        torch.tensor(fields["cam_from_world"]),
        fields["width"],
        fields["height"],
    )


def _ranges(numbers: Iterable[int]) -> str:
    """Numbers in words: "0-4, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs) or "none"
