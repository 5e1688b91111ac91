"""Files that appear whole or not at all: written beside, fsynced, then renamed.

A process that is killed while it writes leaves ``.scenegen-*.part.*``. Who writes holds a lock on
that file, so the next process that writes into the folder knows it for what it is, and removes it.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from renderers.errors import SceneError

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well.

    When the block raises, Ctrl-C included, the temporary file is removed and a file that was at
    ``path`` before is still there, unchanged. The temporary file exists, is empty, and has the
    suffix of ``path``. A symbolic link is followed, not replaced.

    Args:
        path: Where the file shall be. Its folder must exist.

    Raises:
        SceneError: The folder does not exist, ``path`` is something other than a file, or the
            machine refuses to write (no space, no permission); any OSError of the block.
    """
    target = _target(Path(path))
    remove_leftovers(target.parent)
    temporary = target.with_name(f".scenegen-{secrets.token_hex(8)}.part{target.suffix}")
    try:
        # 0o666 less the umask, as open() does; mkstemp would leave a file only its owner can read.
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        try:
            _lock(handle)
            yield temporary
            sync_file(temporary)
        finally:
            os.close(handle)  # Windows renames no open file
        temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise cannot_write(Path(path), error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()  # gone already when it was renamed


@functools.cache  # once for a process: folders of frames may be large
def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder; what others are writing now stays.

    On systems without file locks (Windows) nothing is removed.
    """
    for part in folder.glob(".scenegen-*.part*"):
        with suppress(OSError):  # gone already, or somebody else's
            handle = os.open(part, os.O_RDWR)  # a pipe would wait for a reader
            try:
                if _lock(handle):
                    part.unlink()
            finally:
                os.close(handle)


def _lock(handle: int) -> bool:
    """Lock an open file until it is closed. False where that cannot be had: it may be in use."""
    try:
        system: Any = importlib.import_module("fcntl")
        system.flock(handle, system.LOCK_EX | system.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True


def cannot_write(path: Path, error: OSError) -> SceneError:
    """The error a user sees when the machine refuses to write ``path``."""
    if error.errno in FULL:
        why = "no space is left on the disk"
        fix = "free some space, or write to another disk"
    elif error.errno in FORBIDDEN:
        why = f"writing into {path.parent} is not permitted"
        fix = "write to a folder of your own, or change the folder's permissions"
    else:
        why = str(error)
        fix = "check the path and the disk, or write somewhere else"
    return SceneError(f"cannot write {path}", why=why, fix=fix)


def cannot_read(path: Path, error: OSError) -> SceneError:
    """The error a user sees when the machine refuses to read ``path``."""
    if isinstance(error, FileNotFoundError):
        why, fix = "there is no such file", "check the path"
    elif error.errno in FORBIDDEN:
        why, fix = "reading it is not permitted", "change the file's permissions, or copy it"
    else:
        why, fix = str(error), "check the path and the disk"
    return SceneError(f"cannot read {path}", why=why, fix=fix)


def _target(path: Path) -> Path:
    """``path`` with symbolic links followed, once it is sure that a file may be put there."""
    try:
        target = path.resolve()
        if not target.parent.is_dir():
            raise SceneError(
                f"cannot write {path}",
                why=f"there is no folder {path.parent}",
                fix="create the folder first, or write to one that exists",
            )
        if target.exists() and not target.is_file():  # renaming over /dev/null would replace it
            raise SceneError(
                f"cannot write {path}",
                why="a folder or a device is there, not a file",
                fix="give the path of a file",
            )
    except (OSError, RuntimeError) as error:  # Python before 3.13: RuntimeError for a link loop
        wrapped = error if isinstance(error, OSError) else OSError(errno.ELOOP, str(error))
        raise cannot_write(path, wrapped) from error
    return target


def sync_file(path: Path) -> None:
    """Wait until the file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the new name last through a power cut, where the system can (not on Windows)."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
