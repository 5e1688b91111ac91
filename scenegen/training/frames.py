"""Training frames on disk: a photograph-like JPEG, its exact depth, and how it came about.

A frame is three files, NNNNNN.jpg, NNNNNN.npz and NNNNNN.json. The last is written last, so a
frame whose JSON exists is whole.
"""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from renderers import SceneError

Array = np.ndarray


@dataclass(frozen=True)
class FrameNote:
    """What is known of a frame besides its pixels."""

    index: int
    world: str
    """Name of the world it was taken in, for example ``room-12`` or ``track-hacienda``."""
    kind: str
    """Family of the world: boxes, room or track."""
    held_out: bool
    """Taken in a world that training never sees."""
    seed: tuple[int, ...]
    """Seed of the random choices of this frame."""
    px_from_cam: list[list[float]]
    """Intrinsics, in pixels."""
    cam_from_world: list[list[float]]
    """Rigid transform, in metres."""
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class Frame:
    """One training frame."""

    note: FrameNote
    rgb: UInt8[Array, "h w 3"]
    depth: Float32[Array, "h w"]
    """z in metres; +inf in the sky."""


def write_frame(folder: Path, note: FrameNote, jpeg: bytes, depth: Float32[Array, "h w"]) -> None:
    """Write a frame whole or not at all."""
    stem = folder / f"{note.index:06d}"
    stem.with_suffix(".jpg").write_bytes(jpeg)
    packed = io.BytesIO()
    np.savez_compressed(packed, depth=depth)
    stem.with_suffix(".npz").write_bytes(packed.getvalue())
    part = stem.with_suffix(".part")
    part.write_text(json.dumps(asdict(note)))
    part.replace(stem.with_suffix(".json"))


def has_frame(folder: Path, index: int) -> bool:
    """Whether a frame is there and whole."""
    return (folder / f"{index:06d}.json").is_file()


def frame_notes(folder: Path) -> list[FrameNote]:
    """Notes of all whole frames, by index.

    Raises:
        SceneError: There is none, or a note cannot be read.
    """
    notes = [_read_note(path) for path in sorted(folder.glob("*.json"))]
    if not notes:
        raise SceneError(
            f"there are no training frames in {folder}",
            why="none was drawn yet",
            fix="run the step `render` first",
        )
    return notes


def read_frame(folder: Path, note: FrameNote) -> Frame:
    """Read the pixels of a frame.

    Raises:
        SceneError: A file of it is missing or damaged.
    """
    stem = folder / f"{note.index:06d}"
    try:
        with Image.open(stem.with_suffix(".jpg")) as image:
            rgb = np.asarray(image.convert("RGB"))
        with np.load(stem.with_suffix(".npz"), allow_pickle=False) as arrays:
            depth = arrays["depth"]
    except (OSError, KeyError, ValueError) as error:
        raise _damaged(stem, str(error)) from error
    if rgb.shape[:2] != depth.shape or rgb.shape[:2] != (note.height, note.width):
        raise _damaged(stem, "image, depth and note disagree about the size")
    return Frame(note, rgb, depth)


def _read_note(path: Path) -> FrameNote:
    try:
        fields = json.loads(path.read_text())
        return FrameNote(**{**fields, "seed": tuple(fields["seed"])})
    except (OSError, TypeError, KeyError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, why: str) -> SceneError:
    return SceneError(
        f"the training frame {path} is damaged",
        why=why,
        fix=f"remove {path.parent / path.stem}.* and run the step `render` again",
    )
