"""Frames to an H.264 ``.mp4`` that plays everywhere, through the ffmpeg of imageio-ffmpeg."""

from __future__ import annotations

import errno
import itertools
import logging
import math
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from renderers.errors import SceneError
from scenegen.export.atomic import atomic_write
from scenegen.export.images import to_bytes

logger = logging.getLogger("scenegen")

QUALITY = 18
"""x264's constant rate factor: 18 looks lossless, 23 is x264's default, 51 the worst."""
THREADS = 4
"""Fixed, because x264's output depends on it: the same frames give the same bytes anywhere."""


def write_mp4(path: str | Path, frames: Iterable[Float[Tensor, "h w 3"]], fps: float = 30) -> int:
    """Write a video: H.264, yuv420p, BT.709, with its index in front so that it streams.

    Args:
        path: The file. It appears whole or not at all.
        frames: Pictures of one size, sRGB, 0 to 1, taken one at a time. Players want even
            sizes: an odd width or height grows by one pixel, repeated from the border.
        fps: Frames per second.

    Returns:
        The number of frames written.

    Raises:
        SceneError: No frames, frames of different sizes or with NaN, an impossible frame rate,
            no ffmpeg, or the file cannot be written.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise SceneError(
            f"a video at {fps} frames per second is impossible",
            why="the frame rate must be a positive number",
            fix="give a frame rate such as 30",
        )
    pictures = _even_pictures(frames)
    first = next(pictures, None)
    if first is None:
        raise SceneError(
            "the video has no frames",
            why="the camera path is empty",
            fix="give a path with at least one camera",
        )
    height, width = first.shape[:2]
    with atomic_write(path) as temporary:
        command = _command(temporary, width, height, fps)
        count = _encode(command, itertools.chain([first], pictures))
    logger.info(
        "%s: %d frames, %d x %d; compressed with loss, colour at half size, no depth, no cameras",
        path, count, width, height,
    )  # fmt: skip
    return count


def _even_pictures(frames: Iterable[Tensor]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    size: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        picture = to_bytes(frame)
        size = size or picture.shape
        if picture.shape != size:
            raise SceneError(
                f"frame {index} of the video is {picture.shape[1]} x {picture.shape[0]} pixels",
                why=f"the first frame is {size[1]} x {size[0]}, and a video has one size",
                fix="render every frame at the same size",
            )
        odd = [(0, size[0] % 2), (0, size[1] % 2), (0, 0)]
        yield np.ascontiguousarray(np.pad(picture, odd, mode="edge"))


def _command(out: Path, width: int, height: int, fps: float) -> list[str]:
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps}"]
    # ffmpeg would convert with BT.601 and leave the file untagged: players then shift the colours.
    color = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-pix_fmt", "yuv420p"]
    for tag in ("-colorspace", "-color_primaries", "-color_trc"):
        color += [tag, "bt709"]
    codec = ["-c:v", "libx264", "-crf", f"{QUALITY}", "-threads", f"{THREADS}"]
    same_bytes = ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    return [
        _ffmpeg(), "-y", "-loglevel", "error", *source, "-i", "-", "-an", *codec, *color,
        "-color_range", "tv", *same_bytes, "-movflags", "+faststart", "-f", "mp4", str(out),
    ]  # fmt: skip


def _ffmpeg() -> str:
    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise SceneError(
            "no ffmpeg was found to write the video",
            why=str(error),
            fix="pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE",
        ) from error


def _encode(command: list[str], pictures: Iterable[np.ndarray]) -> int:
    """Feed ffmpeg one picture at a time; its complaints go to a file, which cannot fill up."""
    count = 0
    with tempfile.TemporaryFile() as complaints:
        # Its own session: Ctrl-C reaches us alone, and we end it below.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        try:
            for picture in pictures:
                try:
                    process.stdin.write(picture.data)
                except BrokenPipeError:  # ffmpeg gave up: its exit code and complaints say why
                    break
                count += 1
            _close(process.stdin)
            if process.wait() != 0:
                raise _failure(complaints)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            _close(process.stdin)
    return count


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:  # what was still buffered; the exit code tells
        pass


def _failure(complaints: IO[bytes]) -> Exception:
    complaints.seek(0)
    lines = complaints.read(20_000).decode("utf-8", "replace").strip().splitlines()
    if any("No space left on device" in line for line in lines):
        return OSError(errno.ENOSPC, "No space left on device")
    return SceneError(
        "the video could not be encoded",
        why=lines[-1] if lines else "ffmpeg failed without a word",
        fix="try another size or frame rate, or write PNG frames instead",
    )
