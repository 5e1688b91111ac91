"""The database of a world: how it is opened safely, and what its errors mean to a user."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import Timeout

from renderers import SceneError

DATABASE = "world.db"
FORMAT = 3
"""Version of this layout. Older ones are read, and upgraded when they are written to; newer ones
are refused."""
LONGEST = 1 << 28
"""Longest value that is read, in bytes."""
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS entries ("
    "id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER REFERENCES entries(id), "
    "kind TEXT NOT NULL, body TEXT NOT NULL, made_at TEXT NOT NULL, seal TEXT NOT NULL, "
    "redo INTEGER)",
    "CREATE TABLE IF NOT EXISTS branches ("
    "name TEXT PRIMARY KEY, entry INTEGER NOT NULL REFERENCES entries(id))",
)
"""Numbers of entries are never used twice (AUTOINCREMENT)."""
CHANGING = ("format", "made_by", "head", "branch", "walker", "seal")
"""Keys of ``meta`` that are no settings: they change, and are not sealed."""


class NewerWorld(SceneError):
    """A world of a later release."""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database of a world.

    SQLite reads through files that it makes beside the database. Where it may make none, it reads
    without, once told that nobody writes: that is so while no log of a writer lies there.
    """
    writable = os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
    sealed = not writable and not path.with_name(f"{path.name}-wal").exists()
    address = path.absolute().as_uri() + ("?immutable=1" if sealed else "")
    connection = sqlite3.connect(address, uri=True, check_same_thread=False)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def check_database(db: sqlite3.Connection) -> None:
    """Refuse a database that is damaged or holds more than data.

    Raises:
        sqlite3.DatabaseError: It is, or does.
    """
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)
    if {kind for (kind,) in db.execute("SELECT type FROM sqlite_master")} - {"table", "index"}:
        raise sqlite3.DatabaseError("it holds more than tables")


def seal_of(meta: Mapping[str, Any]) -> str:
    """SHA-256 of the settings: what was said when the world was made."""
    settings = {key: value for key, value in meta.items() if key not in CHANGING}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn errors of the disk and of the database into ones that a user can act on."""
    try:
        yield
    except (OSError, sqlite3.Error, ValueError, TypeError, NotImplementedError) as error:
        if isinstance(error, Timeout):
            raise
        raise SceneError(
            f"cannot read or write the world {folder}",
            why=(f"{error}".splitlines() or [type(error).__name__])[0],
            fix="check that the disk has room and the folder is writable; a damaged world.db is "
            f"made again by `scenegen repair {folder}`",
        ) from error
