"""What the folder of an entry says of it, so that a lost journal can be made again.

A record is JSON: the row that the journal has, its seal, and the branch that the world was on. That
of the first entry holds the settings of the world as well. A seal stands for its row and all before
it, so a record is believed only together with all those before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scenegen.world.database import CHANGING, FORMAT, seal_of
from scenegen.world.journal import Row

RECORD = "entry.json"
LARGEST = 1 << 28
"""Longest record that is read, in bytes."""


@dataclass(frozen=True)
class Record:
    """What one folder says."""

    row: Row
    seal: str
    branch: str | None
    settings: dict[str, Any] | None
    """Of the first entry only."""
    format: int
    """That of the world when it was written."""


def write_record(row: Row, seal: str, branch: str | None, meta: Mapping[str, Any] | None) -> bytes:
    """The contents of a record."""
    content = {**asdict(row), "seal": seal, "branch": branch, "format": FORMAT}
    if meta is not None:
        content["settings"] = {key: meta[key] for key in meta if key not in CHANGING}
        content["settings_seal"] = seal_of(meta)
    return json.dumps(content).encode()


def read_record(folder: Path) -> Record:
    """What the folder of an entry says.

    Raises:
        OSError: It says nothing.
        ValueError: It is damaged.
    """
    path = folder / RECORD
    if path.stat().st_size > LARGEST:
        raise ValueError("it is too long")
    try:
        it = json.loads(path.read_bytes())
        row = Row(it["id"], it["parent"], it["kind"], it["body"], it["made_at"])
        record = Record(row, it["seal"], it["branch"], it.get("settings"), it["format"])
        if record.settings is not None and it["settings_seal"] != seal_of(record.settings):
            raise ValueError("its settings were changed after they were written")
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    texts = (row.kind, row.body, row.made_at, record.seal)
    numbers = (row.id, record.format, 0 if row.parent is None else row.parent)
    known = isinstance(record.branch, str | None) and isinstance(record.settings, dict | None)
    if not (known and all(isinstance(text, str) for text in texts)):
        raise ValueError("it is no record")
    if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers):
        raise ValueError("its numbers are none")
    return record
