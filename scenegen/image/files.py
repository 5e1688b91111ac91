"""What is wrong with a file that is to be a photograph, in words that help."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from renderers.errors import SceneError

MAX_BYTES = 1 << 30
"""Largest file that is opened, in bytes."""
_RAW_SUFFIXES = frozenset(
    ".3fr .arw .cr2 .cr3 .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .rw2 .srw .x3f".split()
)
"""Raw photographs: Pillow finds only the thumbnail in some of them, which is worse than nothing."""
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_EXPORT = "open it in a photo program and export it as JPEG"
_COPY = "copy it again from where it came"
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"%PDF", "a PDF", "export the picture in it as JPEG or PNG"),
    (b"%!PS", "a PostScript drawing", "export it as PNG"),
    (b"#?RADIANCE", "a Radiance HDR picture", "tone-map it and export it as JPEG or PNG"),
    (b"v/1\x01", "an OpenEXR picture", "tone-map it and export it as JPEG or PNG"),
    (b"FUJIFILMCCD-RAW", "a raw photograph", _EXPORT),
    (b"II*\0", "a raw photograph or an unusual TIFF", _EXPORT),
    (b"MM\0*", "a raw photograph or an unusual TIFF", _EXPORT),
    (b"\xff\x0a", "a JPEG XL picture", _EXPORT),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture", _EXPORT),
    (b"\xff\xd8\xff", "a damaged JPEG", _COPY),
    (b"\x89PNG", "a damaged PNG", _COPY),
    (b"RIFF", "a film, a sound, or a damaged WebP", _COPY),
)
"""First bytes, what such a file is, and what the user can do."""


def refuse(name: str, why: str, fix: str) -> SceneError:
    """The error for a photograph that cannot be used."""
    return SceneError(f"cannot use the photograph {name!r}", why=why, fix=fix)


def check_file(path: str | os.PathLike[str]) -> Path:
    """Check that a path is a file that can be opened, without opening it.

    Args:
        path: What the user gave; ``~`` is the home folder.

    Raises:
        SceneError: It is missing, a folder, no plain file, empty, too large, raw, or not ours
            to read.
    """
    name = Path(path).name or str(path)
    try:
        file = Path(path).expanduser()
        state = file.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        address = "://" in str(path) or str(path).startswith(("http:", "https:"))
        fix = "download it first and give the file" if address else "check the spelling"
        raise refuse(name, f"there is no file {path}", fix) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise refuse(name, f"its path cannot be used: {error}", "check the spelling") from error
    if stat.S_ISDIR(state.st_mode):
        raise refuse(name, "it is a folder", "give one picture inside it")
    if not stat.S_ISREG(state.st_mode):
        raise refuse(name, "it is a device or a pipe", "save it as a file first")
    if state.st_size == 0:
        raise refuse(name, "the file is empty", _COPY)
    if state.st_size > MAX_BYTES:
        why = f"the file has {state.st_size / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.1f} are read"
        raise refuse(name, why, "export it as JPEG")
    if file.suffix.lower() in _RAW_SUFFIXES:
        raise refuse(name, "it is a raw photograph", _EXPORT)
    if not os.access(file, os.R_OK):
        raise refuse(name, "you may not read it", "change its permissions, or copy it")
    return file


def unreadable(name: str, head: bytes) -> SceneError:
    """The error for a file that Pillow does not recognise.

    Args:
        name: Its name.
        head: Its first bytes, some hundred or more.
    """
    if head[4:8] == b"ftyp":
        return _boxed(name, head[8:12])
    for start, kind, fix in _KINDS:
        if head.startswith(start):
            return refuse(name, f"it is {kind}", fix)
    if b"<svg" in head.lower():
        return refuse(name, "it is an SVG drawing", "export it as PNG")
    if _is_text(head):
        why = "it holds text, perhaps a web page saved in place of the picture"
        return refuse(name, why, "give a photograph, such as a JPEG or PNG file")
    why = "it is no picture of a known format, or its beginning is damaged"
    return refuse(name, why, "give a photograph, such as a JPEG or PNG file")


def _boxed(name: str, brand: bytes) -> SceneError:
    """A file of the MP4 family: HEIC, AVIF, Canon's raw, or a film."""
    if brand in _HEIC_BRANDS:
        fix = "convert it to JPEG; an iPhone does so under Settings, Camera, Most Compatible"
        return refuse(name, "it is a HEIC picture, which is not supported", fix)
    if brand in (b"avif", b"avis"):
        why = "it is an AVIF picture, damaged or not supported by this version of Pillow"
        return refuse(name, why, "convert it to JPEG")
    if brand == b"crx ":
        return refuse(name, "it is a raw photograph", _EXPORT)
    return refuse(name, "it is a film", "save one frame of it as JPEG or PNG")


def _is_text(head: bytes) -> bool:
    # The last character may be cut in the middle.
    text = head.decode("utf-8", errors="ignore")
    return len(text.encode()) >= len(head) - 3 and all(
        c.isprintable() or c in "\t\n\r" for c in text
    )
