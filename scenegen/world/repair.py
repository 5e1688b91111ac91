"""A journal that was lost or damaged, made again from what the folders of its entries say.

What the old database still says, and is sealed, is taken over too. The old database is kept beside.
Steps themselves cannot be made again: of those that are damaged it is said which.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from renderers import SceneError, Splats, join
from scenegen import __version__
from scenegen.export.atomic import sync_file, sync_folder
from scenegen.world.arrays import SPLATS, read_splats
from scenegen.world.database import (
    CHANGING,
    DATABASE,
    FORMAT,
    SCHEMA,
    NewerWorld,
    connect,
    explained,
    seal_of,
)
from scenegen.world.folder import LOCK, has_steps
from scenegen.world.history import last_whole
from scenegen.world.journal import MAIN, Journal, Row, Step
from scenegen.world.records import read_record
from scenegen.world.stepfiles import STEPS
from scenegen.world.store import PATIENCE, Store

logger = logging.getLogger("scenegen")


@dataclass
class Repaired:
    """What :func:`repair_world` found and did."""

    rebuilt: bool
    """Whether the journal was made again."""
    entries: int = 0
    """Entries that the journal has now."""
    head: int | None = None
    lost: dict[str, str] = field(default_factory=dict)
    """Folders and entries that could not be taken over, and why."""
    damaged: dict[int, str] = field(default_factory=dict)
    """Steps in the journal whose files are damaged, and how."""
    whole: int | None = None
    """The newest entry that is whole with all before it."""

    def lines(self) -> list[str]:
        """The same in words."""
        did = f"made again, with {self.entries} entries" if self.rebuilt else "whole"
        lines = [f"the journal {'was' if self.rebuilt else 'is'} {did}"]
        lines += [f"lost: {name}: {why}" for name, why in self.lost.items()]
        lines += [f"damaged: step {number}: {why}" for number, why in self.damaged.items()]
        if self.damaged:
            lines.append(f"entry {self.whole} is the newest that is whole with all before it")
        return [*lines, f"the world is at entry {self.head}"]


@dataclass
class _Found:
    """What can still be read of a journal."""

    rows: dict[int, tuple[Row, str]] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    branches: dict[str, int] = field(default_factory=dict)
    head: int | None = None
    branch: str | None = MAIN
    last: int = -1
    """Largest number of an entry, or of a folder."""


def repair_world(folder: str | Path) -> Repaired:
    """Make the journal of a world again if it needs that, and say what is damaged.

    Args:
        folder: The world.

    Raises:
        SceneError: Nothing can be restored, a newer release made the world, or it is in use.
    """
    folder = Path(folder)
    if not (has_steps(folder) or (folder / DATABASE).is_file()):
        raise SceneError(
            f"there is nothing to repair in {folder}",
            why="it has neither world.db nor steps"
            if folder.is_dir()
            else "there is no such folder",
            fix="give the folder of a world",
        )
    try:
        with explained(folder), FileLock(folder / LOCK, timeout=PATIENCE):
            found = Repaired(rebuilt=not _is_whole(folder))
            if found.rebuilt:
                _make_again(folder, found)
            _examine(folder, found)
            return found
    except Timeout as error:
        raise SceneError(
            f"the world {folder} is in use", why="a process writes to it", fix="stop that first"
        ) from error


def salvaged(folder: str | Path) -> Splats:
    """All splats that can still be read from the steps of a world, whatever is said of them.

    Raises:
        SceneError: There are none.
    """
    parts = []
    for path in sorted(Path(folder).glob(f"{STEPS}/*/{SPLATS}")):
        with suppress(OSError, ValueError):
            parts.append(read_splats(path.read_bytes()))
    if not any(map(len, parts)):
        raise SceneError(
            f"no splats can be saved from {folder}",
            why="there are no steps in it, or all are damaged",
            fix="restore the folder from a copy",
        )
    return join(parts)


def _is_whole(folder: Path) -> bool:
    """Whether journal and settings are as they were written.

    Raises:
        NewerWorld: They may be; a later release knows.
    """
    try:
        with closing(Store.open(folder)) as store:
            journal = store.journal()
    except NewerWorld:
        raise
    except SceneError as error:
        logger.info("%s: %s", folder, error.why)
        return False
    return not journal.broken and journal.head in journal.entries


def _make_again(folder: Path, said: Repaired) -> None:
    found = _read_database(folder)
    _read_records(folder, found, said)
    journal = Journal(str(folder))
    journal.read(found.rows.values())
    for number, why in journal.broken.items():
        said.lost[f"entry {number}"] = why
    if found.settings is None or not journal.entries:
        missing = "the settings of the world" if journal.entries else "which step continues which"
        raise SceneError(
            f"the world {folder} cannot be repaired",
            why=f"neither world.db nor the folders of the steps say {missing}",
            fix=f"its splats can be saved: `scenegen repair {folder} --splats FILE.ply`, and then "
            "`scenegen import FILE.ply NEW_WORLD`",
        )
    beside = folder / f".{DATABASE}.{secrets.token_hex(4)}"
    try:
        _write(beside, found, journal)
        sync_file(beside)
        for end in ("-wal", "-shm", ""):
            old = folder / f"{DATABASE}{end}"
            if old.exists():
                old.replace(_free(folder / f"{DATABASE}.damaged{end}"))
        beside.replace(folder / DATABASE)
        sync_folder(folder)
    finally:
        beside.unlink(missing_ok=True)
    with closing(Store.open(folder)) as store:
        if found.head not in journal.entries or not journal.way(found.head):
            if (whole := last_whole(store)) is None:
                whole = max(journal.entries)
            on = next((name for name, at in found.branches.items() if at == whole), None)
            store.move(whole, on, {})


def _write(path: Path, found: _Found, journal: Journal) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for statement in SCHEMA:
            db.execute(statement)
        for number in sorted(journal.entries):
            row, seal = found.rows[number]
            values = (row.id, row.parent, row.kind, row.body, row.made_at, seal)
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, NULL)", values)
        db.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'entries'", (found.last,))
        branches = {n: at for n, at in found.branches.items() if at in journal.entries}
        db.executemany("INSERT INTO branches VALUES (?, ?)", branches.items())
        assert found.settings is not None
        meta = {**found.settings, "seal": seal_of(found.settings), "format": FORMAT}
        head = found.head if found.head in journal.entries else None
        meta |= {"made_by": __version__, "head": head, "branch": found.branch}
        db.executemany(
            "INSERT INTO meta VALUES (?, ?)", [(k, json.dumps(v)) for k, v in meta.items()]
        )
        db.commit()
        db.execute("PRAGMA journal_mode = WAL")


def _read_database(folder: Path) -> _Found:
    """What the old database still says, as far as it can be read."""
    found = _Found()
    if not (folder / DATABASE).is_file():  # connecting would make one
        return found
    with suppress(sqlite3.Error, ValueError, TypeError), closing(connect(folder / DATABASE)) as db:
        kinds = {kind for (kind,) in db.execute("SELECT type FROM sqlite_master")}
        if kinds - {"table", "index"}:
            return found
        query = "SELECT id, parent, kind, body, made_at, seal FROM entries"
        with suppress(sqlite3.Error):
            for *fields, seal in db.execute(query):
                if type(fields[0]) is int:
                    found.rows[fields[0]] = Row(*fields), str(seal)
        with suppress(sqlite3.Error):
            found.branches = dict(db.execute("SELECT name, entry FROM branches"))
        meta = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
        found.head, found.branch = meta.get("head"), meta.get("branch")
        if meta.get("seal") == seal_of(meta):
            found.settings = {key: meta[key] for key in meta if key not in CHANGING}
    return found


def _read_records(folder: Path, found: _Found, said: Repaired) -> None:
    """What the folders say, where the database says nothing that its seals confirm."""
    newest: dict[str, int] = {}
    sound = Journal(str(folder))
    sound.read(found.rows.values())
    for path in sorted((folder / STEPS).glob("*")):
        if not path.name.isdigit():
            continue
        found.last = max(found.last, int(path.name))
        try:
            record = read_record(path)
        except (OSError, ValueError) as error:
            if int(path.name) not in found.rows:
                said.lost[f"{STEPS}/{path.name}"] = f"it has no record that can be read: {error}"
            continue
        if record.format > FORMAT:
            raise NewerWorld(
                f"cannot repair the world {folder}",
                why=f"it has format {record.format}; this release knows up to {FORMAT}",
                fix="install a later release of scenegen",
            )
        if record.row.id != int(path.name):
            said.lost[f"{STEPS}/{path.name}"] = f"its record is that of entry {record.row.id}"
            continue
        if record.row.id not in sound.entries:
            found.rows[record.row.id] = record.row, record.seal
        if record.branch is not None:
            newest[record.branch] = max(newest.get(record.branch, -1), record.row.id)
        settings = record.settings
        if settings is not None and "sky_radius" in settings:
            found.settings = found.settings or settings
    for name, entry in newest.items():
        if found.branches.get(name) not in found.rows:
            found.branches[name] = entry
    found.last = max([found.last, *found.rows])
    if found.branch not in found.branches:
        found.branch = None


def _examine(folder: Path, said: Repaired) -> None:
    """Read every step once."""
    with closing(Store.open(folder)) as store:
        journal = store.journal()
        said.entries, said.head = len(journal.entries), journal.head
        for entry in journal.entries.values():
            if isinstance(entry, Step):
                try:
                    store.files.load(entry)
                except SceneError as error:
                    said.damaged[entry.id] = error.why
        said.whole = last_whole(store) if said.damaged else said.head


def _free(path: Path) -> Path:
    """A name that nothing has yet."""
    names: Iterable[Path] = (path.with_name(f"{path.name}.{n}") for n in range(2, 1 << 20))
    return path if not path.exists() else next(name for name in names if not name.exists())
