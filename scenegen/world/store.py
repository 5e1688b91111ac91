"""The world on disk: a SQLite journal and one immutable folder per step.

A step is written beside, fsynced, renamed into place, and only then entered in the database:
killing the process at any moment loses at most the step in flight. Edits of the memory are rows in
the database. Reading changes nothing, in a folder that may not be written to as well.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from renderers import Camera, SceneError, Splats
from scenegen import __version__
from scenegen.export.atomic import sync_file, sync_folder

logger = logging.getLogger("scenegen")

FORMAT = 2
"""Version of this layout. Older ones are read, and upgraded when they are written to; newer ones
are refused."""
READ_ME = """This folder is a 3D world made from one photograph by scenegen {version}.

  scenegen view FOLDER                 walk through it in a browser
  scenegen export FOLDER world.ply     take the splats elsewhere
  scenegen render FOLDER --out film.mp4 --path forward

world.db   the journal: every step, its camera, how it was made, and what was changed by hand
steps/     one folder per step: the splats it added and the view it saw

One unit is one metre: {scale}.

Nothing in here runs code. Moving or copying the whole folder is safe.
"""
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE steps (
    id INTEGER PRIMARY KEY, parent INTEGER REFERENCES steps(id),
    provenance TEXT NOT NULL, camera TEXT NOT NULL, info TEXT NOT NULL
);
"""
"""Format 1."""
UPGRADES = {
    2: """
CREATE TABLE edits (
    id INTEGER PRIMARY KEY, after INTEGER NOT NULL REFERENCES steps(id),
    kind TEXT NOT NULL, arguments TEXT NOT NULL, made_at TEXT NOT NULL
)
""",
}
"""What each later format adds to the one before: one statement."""


@dataclass(frozen=True, eq=False)
class Step:
    """One entry of the journal."""

    id: int
    """Number; 0 is the photograph."""
    parent: int | None
    """The step that this one continues."""
    provenance: str
    """"observed" or "generated"."""
    camera: Camera
    """The view of the step."""
    info: Mapping[str, Any]
    """How it was made: backends, seed, retrieved views, alignment, seconds."""


@dataclass(frozen=True)
class Edit:
    """A change of the memory by hand. See :mod:`scenegen.world.replay`."""

    id: int
    """Number; edits happened in this order."""
    after: int
    """The step that was the last one then."""
    kind: str
    """"pin", "unpin", "forget" or "erase"."""
    arguments: Mapping[str, Any]
    """{"view": id}, or {"box": [[x0, y0, z0], [x1, y1, z1]]} in metres."""
    made_at: str
    """When: UTC, ISO 8601."""


@dataclass(frozen=True, eq=False)
class StepData:
    """What one step adds to the world."""

    splats: Splats
    rgb: Tensor
    """The whole view, (h, w, 3) in [0, 1], on 8-bit levels."""
    depth: Tensor
    """Depth of the whole view, (h, w) in metres; NaN unknown, +inf sky."""
    known: Tensor
    """Pixels that this step contributed, (h, w) bool."""


class Store:
    """Reads and writes one world folder."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection

    @classmethod
    def create(cls, folder: Path, meta: Mapping[str, Any]) -> Store:
        """Make a new world folder.

        Raises:
            SceneError: The folder holds something already, or cannot be written.
        """
        check_free(folder)
        with _explained(folder):
            (folder / "steps").mkdir(parents=True, exist_ok=True)
            scale = meta.get("scale_source", "as estimated from the photograph")
            (folder / "README.txt").write_text(READ_ME.format(version=__version__, scale=scale))
            store = cls(folder, _connect(folder / "world.db"))
            store._db.execute("PRAGMA journal_mode = WAL")  # the file remembers
            store._db.executescript(SCHEMA)
            store.set_meta(meta)
        return store

    @classmethod
    def open(cls, folder: Path) -> Store:
        """Open a world folder. Reading changes nothing: another process may be writing to it.

        Raises:
            SceneError: It is not a world, is damaged, or is of a newer format.
        """
        if not (folder / "world.db").is_file():
            raise SceneError(
                f"{folder} is not a world",
                why="there is no world.db in it" if folder.is_dir() else "there is no such folder",
                fix="make one with `scenegen create PHOTO --out FOLDER`",
            )
        with _explained(folder):
            store = cls(folder, _connect(folder / "world.db"))
            version = store._format()
        if version > FORMAT:
            made_by = store.meta().get("made_by", "a later release")
            raise SceneError(
                f"cannot read the world {folder}",
                why=f"it has format {version}; this release reads up to {FORMAT}",
                fix=f"install scenegen {made_by} or later",
            )
        return store

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def meta(self) -> dict[str, Any]:
        """All settings of the world."""
        rows = self._db.execute("SELECT key, value FROM meta")
        return {key: json.loads(value) for key, value in rows}

    def set_meta(self, values: Mapping[str, Any]) -> None:
        """Set some settings, in one transaction."""
        with _explained(self.folder), self._writing():
            self._put_meta(values)

    def steps(self) -> tuple[Step, ...]:
        """All committed steps, in order."""
        rows = self._db.execute(
            "SELECT id, parent, provenance, camera, info FROM steps ORDER BY id"
        )
        return tuple(
            Step(number, parent, provenance, camera_from_json(camera), json.loads(info))
            for number, parent, provenance, camera, info in rows
        )

    def commit(self, step: Step, data: StepData) -> None:
        """Write one step for good.

        Raises:
            SceneError: The disk is full or read-only; the world stays as it was.
        """
        final = self._step_folder(step.id)
        beside = final.with_name(f".{final.name}.part")
        with _explained(self.folder):
            self._drop_orphans()
            try:
                beside.mkdir()
                _save(beside / "splats.safetensors", _splat_tensors(data.splats))
                levels = (data.rgb * 255).round().to(torch.uint8)
                view = {"rgb": levels, "depth": data.depth, "known": data.known}
                _save(beside / "view.safetensors", view)
                sync_folder(beside)
                beside.rename(final)
                sync_folder(final.parent)
                row = (step.id, step.parent, step.provenance)
                text = (camera_to_json(step.camera), json.dumps(dict(step.info)))
                with self._writing():
                    self._db.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?)", row + text)
            except BaseException:
                shutil.rmtree(beside, ignore_errors=True)
                if not self._has(step.id):
                    shutil.rmtree(final, ignore_errors=True)
                raise

    def edits(self) -> tuple[Edit, ...]:
        """All edits of the memory, in order.

        Raises:
            SceneError: They cannot be read.
        """
        if self._format() < 2:
            return ()
        query = "SELECT id, after, kind, arguments, made_at FROM edits ORDER BY id"
        with _explained(self.folder):
            return tuple(
                Edit(number, after, kind, json.loads(arguments), made_at)
                for number, after, kind, arguments, made_at in self._db.execute(query)
            )

    def record(self, after: int, kind: str, arguments: Mapping[str, Any]) -> Edit:
        """Write one edit for good, in one transaction.

        Args:
            after: The last step there is.
            kind: As in :class:`Edit`, like ``arguments``.
            arguments: Plain values that JSON holds.

        Raises:
            SceneError: The disk is full or read-only; the world stays as it was.
        """
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        with _explained(self.folder), self._writing():
            row = (after, kind, json.dumps(arguments), made_at)
            into = "INSERT INTO edits (after, kind, arguments, made_at) VALUES (?, ?, ?, ?)"
            number = self._db.execute(into, row).lastrowid
        assert number is not None
        return Edit(number, after, kind, arguments, made_at)

    def load(self, step: int) -> StepData:
        """Read what one step added.

        Raises:
            SceneError: A file is missing or damaged.
        """
        folder = self._step_folder(step)
        try:
            view = load_file(folder / "view.safetensors")
            splats = load_file(folder / "splats.safetensors")
            data = StepData(
                splats=Splats(**splats),
                rgb=view["rgb"].float() / 255,
                depth=view["depth"],
                known=view["known"],
            )
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise SceneError(
                f"step {step} of the world {self.folder} is damaged",
                why=f"{type(error).__name__}: {error}".splitlines()[0],
                fix="restore the folder steps/ from a copy, or make the world again",
            ) from error
        return data

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, which also brings an older world up to this format."""
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            version = self._format()
            for later in range(max(version, 1) + 1, FORMAT + 1):
                self._db.execute(UPGRADES[later])
            if version < FORMAT:
                self._put_meta({"format": FORMAT, "made_by": __version__})
            yield

    def _put_meta(self, values: Mapping[str, Any]) -> None:
        rows = [(key, json.dumps(value)) for key, value in values.items()]
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)

    def _format(self) -> int:
        return int(self.meta().get("format", 0))

    def _step_folder(self, step: int) -> Path:
        return self.folder / "steps" / f"{step:04d}"

    def _has(self, step: int) -> bool:
        return self._db.execute("SELECT 1 FROM steps WHERE id = ?", (step,)).fetchone() is not None

    def _drop_orphans(self) -> None:
        """Remove what a killed process left half done: folders that never reached the journal."""
        committed = {self._step_folder(step.id).name for step in self.steps()}
        for path in sorted((self.folder / "steps").glob("*")):
            if path.name not in committed:
                logger.info("dropping %s: its step was never committed", path.name)
                shutil.rmtree(path, ignore_errors=True)


def check_free(folder: Path) -> None:
    """Refuse a target folder that holds something, or that cannot be made.

    Raises:
        SceneError: It is a file, or a folder with anything in it, or cannot be written.
    """
    if (folder / "world.db").is_file():
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
    fields = json.loads(text)
    return Camera(
        torch.tensor(fields["px_from_cam"]),
        torch.tensor(fields["cam_from_world"]),
        fields["width"],
        fields["height"],
    )


def _splat_tensors(splats: Splats) -> dict[str, Tensor]:
    names = ("means", "quats", "scales", "opacities", "colors", "sh")
    values = {name: getattr(splats, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    sync_file(path)


def _connect(path: Path) -> sqlite3.Connection:
    """Open the database of a world.

    SQLite reads through files that it makes beside the database. Where it may make none, it reads
    without, once told that nobody writes: that is so while no log of a writer lies there.
    """
    writable = os.access(path.parent, os.W_OK) and (not path.exists() or os.access(path, os.W_OK))
    sealed = not writable and not path.with_name(f"{path.name}-wal").exists()
    address = path.absolute().as_uri() + ("?immutable=1" if sealed else "")
    connection = sqlite3.connect(address, uri=True, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn errors of the disk and of the database into ones that a user can act on."""
    try:
        yield
    except (OSError, sqlite3.Error, SafetensorError, json.JSONDecodeError) as error:
        raise SceneError(
            f"cannot read or write the world {folder}",
            why=f"{error}".splitlines()[0],
            fix="check that the disk has room, that the folder is writable and world.db intact",
        ) from error
