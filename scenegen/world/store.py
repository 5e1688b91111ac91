"""The world on disk: a SQLite journal and one immutable folder per step.

A step is written beside, fsynced, renamed into place, and only then entered in the database:
killing the process at any moment loses at most the step in flight. One process writes at a time;
reading changes nothing, needs no lock, and works in a folder that may not be written to as well.
"""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from renderers import SceneError
from scenegen import __version__
from scenegen.world.arrays import StepData, sha256
from scenegen.world.database import (
    DATABASE,
    FORMAT,
    SCHEMA,
    NewerWorld,
    check_database,
    connect,
    explained,
    seal_of,
)
from scenegen.world.folder import LOCK, READ_ME, README, check_begun, check_free
from scenegen.world.journal import MAIN, Edit, Journal, Row, Step, step_row
from scenegen.world.records import RECORD, write_record
from scenegen.world.stepfiles import STEPS, StepFiles
from scenegen.world.upgrade import old_rows

logger = logging.getLogger("scenegen")

PATIENCE = 10.0
"""Seconds to wait for another writer: longer than a growth step usually takes."""


class Store:
    """Reads and writes one world folder."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self.files = StepFiles(folder)
        self._db = connection
        self._lock = FileLock(folder / LOCK, timeout=PATIENCE, thread_local=False)
        self._writer: int | None = None
        self._turn = threading.Lock()
        self._recorded = False

    @classmethod
    def create(cls, folder: Path, settings: Mapping[str, Any]) -> Store:
        """Make a new world folder.

        Raises:
            SceneError: The folder holds something already, or cannot be written.
        """
        check_free(folder)
        with explained(folder):
            (folder / STEPS).mkdir(parents=True, exist_ok=True)
            scale = settings.get("scale_source", "as estimated from the photograph")
            (folder / README).write_text(READ_ME.format(version=__version__, scale=scale))
            store = cls(folder, connect(folder / DATABASE))
            store._db.execute("PRAGMA journal_mode = WAL")  # the file remembers
            with store._transaction():
                for statement in SCHEMA:
                    store._db.execute(statement)
                kept = {"head": None, "branch": MAIN, "seal": seal_of(settings)}
                store._put_meta({**settings, **kept, "format": FORMAT, "made_by": __version__})
        return store

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open a world folder. Reading changes nothing: another process may be writing to it.

        Raises:
            SceneError: It is not a world, is damaged, or is of a newer format.
        """
        check_begun(folder)
        with explained(folder):
            store = cls(folder, connect(folder / DATABASE))
            try:
                store._check()
            except BaseException:
                store.close()
                raise
        return store

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    @property
    def format(self) -> int:
        """Version of the layout that the folder has now."""
        return int(self.meta().get("format", 0))

    def meta(self) -> dict[str, Any]:
        """All settings of the world, and what else is kept with them."""
        with explained(self.folder):
            return {
                str(key): json.loads(value)
                for key, value in self._db.execute("SELECT key, value FROM meta")
            }

    def set_meta(self, values: Mapping[str, Any]) -> None:
        """Keep some values, in one transaction."""
        with self._transaction():
            self._put_meta(values)

    def journal(self) -> Journal:
        """All that is in the journal.

        Raises:
            SceneError: The database cannot be read. Single entries that are damaged are listed
                in the journal.
        """
        journal = Journal(str(self.folder))
        with explained(self.folder):
            version, meta = self.format, self.meta()
            if version < 3:
                rows = old_rows(self._db, version)
                journal.read((row, None) for row in rows)
                journal.head = rows[-1].id if rows else None
                journal.branches = {MAIN: rows[-1].id} if rows else {}
                return journal
            query = "SELECT id, parent, kind, body, made_at, seal, redo FROM entries ORDER BY id"
            stored = self._db.execute(query).fetchall()
            journal.read((Row(*fields[:5]), str(fields[5])) for fields in stored)
            journal.left = {fields[0]: fields[6] for fields in stored if fields[6] is not None}
            journal.branches = dict(self._db.execute("SELECT name, entry FROM branches"))
            journal.head, journal.branch = meta.get("head"), meta.get("branch")
        return journal

    def head(self) -> tuple[int | None, str | None]:
        """Where the head is now, and on which branch. Cheap."""
        meta = self.meta()
        return meta.get("head"), meta.get("branch")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the only one who writes, for as long as the block lasts.

        Another process, or another thread, is waited for a while. The first writing to an older
        world brings it up to this format, and what a killed process left half done is removed.

        Raises:
            SceneError: Somebody else writes and does not come to an end, or nobody may write.
        """
        me = threading.get_ident()
        if self._writer == me or not self._turn.acquire(timeout=PATIENCE):
            raise self._busy("a step is being made right now")
        try:
            with explained(self.folder):
                self._lock.acquire()
            self._writer = me
            try:
                self._upgrade()
                self._drop_unfinished()
                if not self._recorded:
                    self.keep_records()
                    self._recorded = True
                yield
            finally:
                self._writer = None
                self._lock.release()
        except Timeout as error:
            raise self._busy("another process is writing to it") from error
        finally:
            self._turn.release()

    def add_steps(
        self, parts: Iterable[tuple[Step, StepData]], on: str | None
    ) -> list[tuple[Step, str]]:
        """Write steps for good, one after another, all or none, and move the head to the last.

        Args:
            parts: The steps with their arrays. ``id``, ``made_at`` and ``files`` are replaced, and
                the ``parent`` of all but the first, to which they are said to belong.
            on: The branch that moves along.

        Returns:
            The steps as they were written, with their seals.

        Raises:
            SceneError: The disk is full or read-only; the world stays as it was.
        """
        added: list[tuple[Step, str]] = []
        rows: list[tuple[Row, str]] = []
        with explained(self.folder):
            first = number = self._next_id()
            seal = None
            try:
                for step, data in parts:
                    contents = data.files()
                    hashes = {name: sha256(content) for name, content in contents.items()}
                    if number > first:
                        info = {**step.info, "part_of": first}
                        step = replace(step, parent=number - 1, info=info)
                    step = replace(step, id=number, made_at=_now(), files=hashes)
                    row = step_row(step)
                    seal = row.seal(self._seal(row.parent) if seal is None else seal)
                    self.files.write(number, contents | self._record(row, seal, on))
                    rows.append((row, seal))
                    added.append((step, seal))
                    number += 1
                self._enter(rows, on)
            except BaseException:
                if not self._has(first):
                    for written in range(first, number):
                        self.files.remove(written)
                raise
        return added

    def add_edit(
        self, parent: int, kind: str, arguments: Mapping[str, Any], on: str | None
    ) -> tuple[Edit, str]:
        """Write one edit for good, in one transaction, and move the head to it.

        Args:
            parent: The entry that it continues.
            kind: As in :class:`Edit`, like ``arguments``.
            arguments: Plain values that JSON holds.
            on: The branch that moves along.

        Returns:
            The edit, and its seal.

        Raises:
            SceneError: The disk is full or read-only; the world stays as it was.
        """
        with explained(self.folder):
            row = Row(self._next_id(), parent, kind, json.dumps(arguments), _now())
            seal = row.seal(self._seal(parent))
            try:
                self.files.write(row.id, self._record(row, seal, on))
                self._enter([(row, seal)], on)
            except BaseException:
                if not self._has(row.id):
                    self.files.remove(row.id)
                raise
        return Edit(row.id, parent, kind, arguments, row.made_at), seal

    def move(self, head: int, branch: str | None, left: Mapping[int, int]) -> None:
        """Move the head, and the branch that it is on.

        Args:
            head: The entry.
            branch: The branch it is on then, which names the entry from now on; None for none.
            left: New values of :attr:`Journal.left`.
        """
        with self._transaction():
            self._db.executemany(
                "UPDATE entries SET redo = ? WHERE id = ?", [(b, a) for a, b in left.items()]
            )
            self._stand(head, branch)

    def copy_database(self, to: Path) -> None:
        """A copy of the journal as it is at this moment, in one file."""
        with explained(self.folder), closing(sqlite3.connect(to)) as copy:
            self._db.backup(copy)

    def drop_branch(self, name: str) -> None:
        """Forget the name of a branch; its entries stay."""
        with self._transaction():
            self._db.execute("DELETE FROM branches WHERE name = ?", (name,))

    def drop(self, entries: Iterable[int]) -> None:
        """Forget entries for good, then remove their folders, and all others that no entry has."""
        numbers = [(number,) for number in sorted(entries, reverse=True)]
        with self._transaction():
            self._db.executemany("UPDATE entries SET redo = NULL WHERE redo = ?", numbers)
            self._db.executemany("DELETE FROM entries WHERE id = ?", numbers)
        with explained(self.folder):
            left = {number for (number,) in self._db.execute("SELECT id FROM entries")}
            for path in self.files.unknown(left):
                shutil.rmtree(path, ignore_errors=True)

    def _check(self) -> None:
        """Refuse newer formats, a damaged database, and one that holds more than data."""
        version = self.format
        if version > FORMAT:
            made_by = self.meta().get("made_by", "a later release")
            raise NewerWorld(
                f"cannot read the world {self.folder}",
                why=f"it has format {version}; this release reads up to {FORMAT}",
                fix=f"install scenegen {made_by} or later",
            )
        check_database(self._db)
        meta = self.meta()
        if "sky_radius" not in meta or (version >= 3 and meta.get("seal") != seal_of(meta)):
            raise sqlite3.DatabaseError("the settings of the world are damaged")

    def _upgrade(self) -> None:
        """Bring an older world up to this format, in one transaction."""
        if (version := self.format) >= FORMAT:
            return
        with self._transaction():
            rows = old_rows(self._db, version)
            for statement in SCHEMA:
                self._db.execute(statement)
            seal, last = "", None
            for row in rows:
                seal, last = row.seal(seal), row.id
                self._insert(row, seal)
            self._db.execute("DROP TABLE IF EXISTS edits")
            self._db.execute("DROP TABLE steps")
            kept: dict[str, Any] = {"format": FORMAT, "made_by": __version__}
            self._put_meta(kept | {"seal": seal_of(self.meta()), "head": None, "branch": MAIN})
            if last is not None:
                self._stand(last, MAIN)
        logger.info("%s: upgraded from format %d to %d", self.folder, version, FORMAT)

    def _enter(self, rows: list[tuple[Row, str]], on: str | None) -> None:
        with self._transaction():
            for row, seal in rows:
                self._insert(row, seal)
            row, last = rows[0][0], rows[-1][0]
            if row.parent is not None:  # what was undone there is not what redo means any more
                self._db.execute("UPDATE entries SET redo = NULL WHERE id = ?", (row.parent,))
            self._stand(last.id, on)

    def _seal(self, entry: int | None) -> str:
        query = "SELECT seal FROM entries WHERE id = ?"
        found = self._db.execute(query, (entry,)).fetchone()
        return "" if found is None else found[0]

    def _record(self, row: Row, seal: str, on: str | None) -> dict[str, bytes]:
        return {RECORD: write_record(row, seal, on, self.meta() if row.parent is None else None)}

    def keep_records(self) -> None:
        """Put into the folders of all entries what is said of them, where it is not there yet.

        Entries of earlier releases have no records, nor have those of a world that was packed.
        """
        query = "SELECT id, parent, kind, body, made_at, seal FROM entries ORDER BY id"
        with explained(self.folder):
            for *fields, seal in self._db.execute(query).fetchall():
                if not (self.files.folder(fields[0]) / RECORD).exists():
                    row = Row(*fields)
                    self.files.add(row.id, self._record(row, seal, None))

    def _insert(self, row: Row, seal: str) -> None:
        values = (row.id, row.parent, row.kind, row.body, row.made_at, seal)
        self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, NULL)", values)

    def _stand(self, head: int, branch: str | None) -> None:
        self._put_meta({"head": head, "branch": branch})
        if branch is not None:
            self._db.execute("INSERT OR REPLACE INTO branches VALUES (?, ?)", (branch, head))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.folder), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    def _put_meta(self, values: Mapping[str, Any]) -> None:
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def _next_id(self) -> int:
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'entries'"
        found = self._db.execute(query).fetchone()
        return 0 if found is None else found[0] + 1

    def _has(self, number: int) -> bool:
        found = self._db.execute("SELECT 1 FROM entries WHERE id = ?", (number,)).fetchone()
        return found is not None

    def _drop_unfinished(self) -> None:
        """Remove what a killed process left half done."""
        for path in self.files.unfinished(self._next_id()):
            logger.info("dropping %s: its step was never committed", path.name)
            shutil.rmtree(path, ignore_errors=True)

    def _busy(self, why: str) -> SceneError:
        return SceneError(
            f"the world {self.folder} is in use",
            why=why,
            fix="wait until that is done, or stop it; looking at the world is possible meanwhile",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
