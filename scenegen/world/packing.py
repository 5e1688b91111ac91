"""A world as one file: a zip of its journal and its steps, with a list of their hashes.

``manifest.json`` names every other member with its size and SHA-256. A file is unpacked only when
its members have names of ours, sizes that were declared, no more than the disk holds, and the
hashes of the list and of the journal. Nothing is written outside a new folder, which takes its
place when all is checked.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from renderers import SceneError
from scenegen.export.atomic import atomic_write, cannot_read, sync_file, sync_folder
from scenegen.world.arrays import sha256
from scenegen.world.database import DATABASE
from scenegen.world.folder import README, check_free
from scenegen.world.journal import Step
from scenegen.world.stepfiles import STEPS
from scenegen.world.store import Store

MANIFEST = "manifest.json"
KIND = "scenegen-world"
MEMBER = re.compile(rf"{DATABASE}|{README}|{STEPS}/[0-9]{{4,9}}/(splats|view)\.safetensors")
"""Names that are unpacked; there can be no others."""
MOST_MEMBERS, MOST_MANIFEST = 400_000, 1 << 26
MOST_RATIO = 50
"""Unpacked to packed bytes, of the whole file; worlds have about 2."""
BLOCK = 1 << 20


def pack(folder: str | Path, file: str | Path) -> int:
    """Put a world, with all its branches, into one file.

    Args:
        folder: The world.
        file: The file; it appears whole or not at all.

    Returns:
        Its size, in bytes.

    Raises:
        SceneError: The world is damaged, or the file cannot be written.
    """
    store = Store.open(Path(folder))
    try:
        with tempfile.TemporaryDirectory() as scratch, atomic_write(file) as beside:
            store.copy_database(Path(scratch) / DATABASE)
            journal = store.journal()
            if journal.broken:
                number, why = min(journal.broken.items())
                raise SceneError(
                    f"the world {folder} cannot be packed whole",
                    why=f"entry {number} is damaged: {why}",
                    fix="switch to a whole entry, and let `scenegen gc` remove what is damaged",
                )
            manifest: dict[str, Any] = {}
            with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:

                def put(name: str, data: bytes) -> None:
                    manifest[name] = {"bytes": len(data), "sha256": sha256(data)}
                    archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, 1)

                put(DATABASE, (Path(scratch) / DATABASE).read_bytes())
                put(README, (store.folder / README).read_bytes())
                for step in journal.entries.values():
                    if isinstance(step, Step):
                        for name, data in store.files.contents(step).items():
                            put(f"{STEPS}/{step.id:04d}/{name}", data)
                text = json.dumps({"kind": KIND, "version": 1, "files": manifest})
                archive.writestr(zipfile.ZipInfo(MANIFEST), text, zipfile.ZIP_DEFLATED, 1)
    finally:
        store.close()
    return Path(file).stat().st_size


def unpack(file: str | Path, folder: str | Path) -> None:
    """Make a world of a file that :func:`pack` wrote.

    Args:
        file: The file, from whomever.
        folder: New or empty folder for the world.

    Raises:
        SceneError: The folder is taken, or the file is damaged or not what it should be. Nothing
            is left behind then.
    """
    file, folder = Path(file), Path(folder)
    check_free(folder)
    beside = folder.absolute().with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = _manifest(archive, file)
            beside.mkdir(parents=True)
            room = shutil.disk_usage(beside).free
            if (needed := sum(entry["bytes"] for entry in manifest.values())) > room:
                raise _refused(file, f"it unpacks to {needed / 1e6:,.0f} MB; that much is not free")
            for name, entry in manifest.items():
                _extract(archive, name, entry, beside / name, file)
        _check_world(beside, manifest, file)
        if folder.is_dir():
            shutil.rmtree(folder)  # `check_free` found nothing in it that anybody needs
        beside.rename(folder)
        sync_folder(folder.absolute().parent)
    except OSError as error:
        raise cannot_read(file, error) from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise _refused(file, f"{error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _refused(file, f"{type(error).__name__}: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _manifest(archive: zipfile.ZipFile, file: Path) -> dict[str, Any]:
    """The list of members, once names, kinds and sizes are known to be harmless."""
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(members) > MOST_MEMBERS or len(set(names)) < len(names) or MANIFEST not in names:
        raise _refused(file, "it has too many members, one twice, or no list of them")
    for member in members:
        mode = member.external_attr >> 16
        if member.filename != MANIFEST and not MEMBER.fullmatch(member.filename):
            raise _refused(file, f"it holds {member.filename!r}, which is no part of a world")
        if member.is_dir() or (mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
            raise _refused(file, f"{member.filename} is no plain file")
    packed = sum(member.compress_size for member in members)
    declared = sum(member.file_size for member in members)
    if declared > MOST_RATIO * max(packed, BLOCK):
        raise _refused(file, f"{packed:,} bytes would unpack to {declared:,}")
    with archive.open(MANIFEST) as stream:
        text = stream.read(MOST_MANIFEST + 1)
    content = json.loads(text) if len(text) <= MOST_MANIFEST else {}
    if content.get("kind") != KIND or content.get("version") != 1:
        raise _refused(file, "its list of members is not one of ours, or of a later release")
    files = content["files"]
    sizes = {member.filename: member.file_size for member in members}
    del sizes[MANIFEST]
    if {name: entry["bytes"] for name, entry in files.items()} != sizes or DATABASE not in files:
        raise _refused(file, "its members are not those of its list")
    return files


def _extract(
    archive: zipfile.ZipFile, name: str, entry: dict[str, Any], target: Path, file: Path
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, left = hashlib.sha256(), entry["bytes"]
    with archive.open(name) as source, target.open("xb") as sink:
        while left >= 0 and (block := source.read(min(BLOCK, left + 1))):
            digest.update(block)
            left -= len(block)
            sink.write(block)
    if left != 0 or digest.hexdigest() != entry["sha256"]:
        raise _refused(file, f"{name} has other contents than its list says")
    sync_file(target)


def _check_world(folder: Path, manifest: dict[str, Any], file: Path) -> None:
    """Journal and steps agree, and every step is there."""
    (folder / STEPS).mkdir(exist_ok=True)
    store = Store.open(folder)
    try:
        journal = store.journal()
        store.keep_records()
    finally:
        store.close()
    for log in folder.glob(f"{DATABASE}-*"):
        log.unlink(missing_ok=True)
    if journal.broken or journal.head not in journal.entries:
        raise _refused(file, "its journal is damaged")
    for step in (entry for entry in journal.entries.values() if isinstance(entry, Step)):
        for name in step.files:
            listed = manifest.get(f"{STEPS}/{step.id:04d}/{name}", {})
            if listed.get("sha256") != step.files[name]:
                raise _refused(file, f"{name} of step {step.id} is not the one of the journal")


def _refused(file: Path, why: str) -> SceneError:
    return SceneError(
        f"{file} is not a world that can be unpacked",
        why=why.splitlines()[0] if why else "it is damaged",
        fix="get it again from where it came; `scenegen pack` makes such files",
    )
