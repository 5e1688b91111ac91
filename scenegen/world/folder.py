"""The folder of a world: what lies in it, and whether a folder may become one."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from renderers import SceneError
from scenegen.world.database import DATABASE, connect
from scenegen.world.stepfiles import STEPS

README, LOCK = "README.txt", "world.lock"
READ_ME = """This folder is a 3D world made from one photograph by scenegen {version}.

  scenegen view FOLDER                 walk through it in a browser
  scenegen log FOLDER                  how it came about; undo and redo move through that
  scenegen export FOLDER world.ply     take the splats elsewhere
  scenegen render FOLDER --out film.mp4 --path forward

world.db   the journal: every step, its camera, how it was made, and what was changed by hand
steps/     one folder per step: the splats it added and the view it saw
cache/     what makes opening quick; it can be deleted

One unit is one metre: {scale}.

Nothing in here runs code. Moving or copying the whole folder is safe.
"""


def check_free(folder: Path) -> None:
    """Refuse a target folder that holds something, or that cannot be made.

    Raises:
        SceneError: It is a file, or a folder with anything in it, or cannot be written.
    """
    if never_begun(folder):
        return
    if (folder / DATABASE).is_file():
        raise SceneError(
            f"{folder} already holds a world",
            why="a world is never overwritten",
            fix="give another --out, or open it with `scenegen view`",
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise SceneError(
            f"{folder} cannot become a world",
            why="it is a file" if folder.is_file() else "it holds other files",
            fix="give --out a new or an empty folder",
        )
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise SceneError(
            f"{folder} cannot become a world",
            why=f"{nearest} is not a folder that may be written to",
            fix="give another --out",
        )


def check_begun(folder: Path) -> None:
    """Refuse a folder that has no journal.

    Raises:
        SceneError: It has none.
    """
    if not (folder / DATABASE).is_file():
        raise SceneError(
            f"{folder} is not a world",
            why="there is no world.db in it" if folder.is_dir() else "there is no such folder",
            fix=f"`scenegen repair {folder}` makes it again from the steps that are there"
            if has_steps(folder)
            else "make one with `scenegen create PHOTO --out FOLDER`",
        )


def has_steps(folder: Path) -> bool:
    """Whether there are steps in a folder, or what was begun of them."""
    return (folder / STEPS).is_dir() and any((folder / STEPS).iterdir())


def never_begun(folder: Path) -> bool:
    """Whether a folder holds only what is left where making a world was killed at the start."""
    logs = {f"{DATABASE}-wal", f"{DATABASE}-shm"}
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    if not names or not names <= {DATABASE, README, LOCK, STEPS, *logs}:
        return False
    if DATABASE not in names:  # with steps, it is a world that has lost its journal
        return not has_steps(folder)
    try:
        with closing(connect(folder / DATABASE)) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
            if not tables:
                return not has_steps(folder)
            return db.execute("SELECT 1 FROM entries").fetchone() is None
    except sqlite3.Error:
        return False
