"""Files that visitors send: bounded, checked, and put where we say, under a name that we choose."""

from __future__ import annotations

import logging
import re
import tempfile
from pathlib import Path
from typing import Any

import viser
from viser import _messages

from renderers.errors import SceneError
from scenegen.image.picture import load_picture

logger = logging.getLogger("scenegen")

MAX_BYTES = 64_000_000
"""Largest file that is taken, in bytes: more than any camera's JPEG."""
MAX_PIXELS = 100_000_000
"""Largest photograph that is decoded for a visitor."""
MAX_NAME = 40
_PLAIN = re.compile(r"[^a-z0-9]+")


def bound_uploads(server: viser.ViserServer) -> None:
    """Refuse files beyond MAX_BYTES before a byte of them is kept, and answer the sender alone.

    viser takes whatever comes into memory. Its handlers are wrapped: a refused file is answered as
    if it had arrived, so that the browser stops waiting, and the visitor is told why. Its answers
    go to everyone, and again to whoever comes later, as uploads of nobody knows what.
    """
    gui = server.gui
    handlers: Any = server._websock_server._incoming_handlers
    everyone: Any = gui._websock_interface
    tell = everyone.queue_message
    start = gui._handle_file_transfer_start
    part = gui._handle_file_transfer_part

    def guarded_start(client_id: Any, message: _messages.FileTransferStartUpload) -> None:
        size = message.size_bytes
        parts_fit = 0 <= message.part_count <= MAX_BYTES // 1024
        busy = any(s["client_id"] == client_id for s in gui._current_file_upload_states.values())
        if 0 <= size <= MAX_BYTES and parts_fit and not busy:
            start(client_id, message)
            return
        client = server.get_clients().get(client_id)
        if client is None:
            return
        client._websock_connection.queue_message(
            _messages.FileTransferPartAck(
                message.source_component_uuid, message.transfer_uuid, size, size
            )
        )
        why = "another file is on its way" if busy else f"it has {size / 1e6:.0f} MB"
        fix = f"At most {MAX_BYTES / 1e6:.0f} MB are taken, one file at a time."
        client.add_notification("The file was not taken", f"{why}. {fix}", color="red")

    def guarded_part(client_id: Any, message: _messages.FileTransferPart) -> None:
        state = gui._current_file_upload_states.get(message.transfer_uuid)
        if state is None or state["client_id"] != client_id:
            return
        if state["transferred_bytes"] + len(message.content) > state["total_bytes"]:
            gui._current_file_upload_states.pop(message.transfer_uuid, None)
            logger.warning("viewer: an upload was longer than it said: dropped")
            return
        part(client_id, message)

    def answer(message: _messages.Message) -> None:
        if not isinstance(message, _messages.FileTransferPartAck):
            tell(message)
            return
        state = gui._current_file_upload_states.get(message.transfer_uuid)
        sender = server.get_clients().get(state["client_id"]) if state else None
        if sender is not None:  # else they left meanwhile
            sender._websock_connection.queue_message(message)

    everyone.queue_message = answer
    for kind, old, new in (
        (_messages.FileTransferStartUpload, start, guarded_start),
        (_messages.FileTransferPart, part, guarded_part),
    ):
        handlers[kind] = [new if handler == old else handler for handler in handlers[kind]]


def safe_name(name: str) -> str:
    """Letters, digits and dashes of a file name, without its suffix; "photo" if none are left."""
    stem = name.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
    return _PLAIN.sub("-", stem.lower()).strip("-")[:MAX_NAME].strip("-") or "photo"


def keep_photo(name: str, content: bytes, folder: Path) -> Path:
    """Check a photograph that was sent, and keep it in a folder under a safe name.

    Args:
        name: As the visitor's computer calls it; not trusted.
        content: The file.
        folder: Where to.

    Raises:
        SceneError: It is no photograph that can be used. Nothing is kept then.
    """
    if len(content) > MAX_BYTES:
        raise SceneError(
            "the file was not taken",
            why=f"it has {len(content) / 1e6:.0f} MB",
            fix=f"send at most {MAX_BYTES / 1e6:.0f} MB",
        )
    suffix = _PLAIN.sub("", name.lower().rsplit(".", 1)[-1])[:5] if "." in name else "jpg"
    path = folder / f"{safe_name(name)}.{suffix or 'jpg'}"
    path.write_bytes(content)
    try:
        load_picture(path, long_side=256, max_pixels=MAX_PIXELS)
    except BaseException:
        path.unlink()
        raise
    return path


def new_world_folder(root: Path, name: str) -> Path:
    """A folder under ``root`` that does not exist yet, named after a photograph."""
    stem = safe_name(name)
    names = [stem, *(f"{stem}-{number}" for number in range(2, 10_000))]
    return next(root / n for n in names if not (root / n).exists())


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Where photographs lie while their worlds are made."""
    return tempfile.TemporaryDirectory(prefix="scenegen-photo-")
