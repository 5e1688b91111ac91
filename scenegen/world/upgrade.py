"""Worlds of earlier formats: what their journals say, in rows of the present one.

1: a table of steps, one after another.
2: and one of edits, each with the step that was the last one then.

Both were lines, not trees, and had no hashes.
"""

from __future__ import annotations

import json
import sqlite3

from scenegen.world.journal import STEP, Row


def old_rows(db: sqlite3.Connection, version: int) -> list[Row]:
    """The journal of a world of format 1 or 2: one line, first entry first.

    Steps keep their numbers, which are those of their folders and views; edits get numbers above.

    Raises:
        ValueError: It is damaged.
    """
    steps = db.execute("SELECT id, provenance, camera, info FROM steps ORDER BY id").fetchall()
    edits: dict[int, list[tuple[str, str, str]]] = {}
    if version >= 2:
        query = "SELECT after, kind, arguments, made_at FROM edits ORDER BY id"
        for after, *edit in db.execute(query):
            edits.setdefault(after, []).append(tuple(edit))
    rows: list[Row] = []
    number = max((step[0] for step in steps), default=-1)
    for step, provenance, camera, info in steps:
        body = {"provenance": provenance, "camera": json.loads(camera), "info": json.loads(info)}
        text = json.dumps(body | {"files": {}})
        rows.append(Row(step, rows[-1].id if rows else None, STEP, text, ""))
        for kind, arguments, made_at in edits.get(step, []):
            number += 1
            rows.append(Row(number, rows[-1].id, kind, arguments, made_at))
    return rows
