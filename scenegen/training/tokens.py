"""The second step: both frozen branches look at every frame once; their answers go to disk.

A shard is a safetensors file of frames of one shape:
  tokens     (n, 4, 1 + patches, width) float16: the levels before the final norm
  rgb        (n, 3, h, w) uint8, on the grid of the output (8 x 8 cells per token), as are
  fast       (n, h, w) float16: what the branch FastDepth says, normalised disparity
  disparity  (n, h, w) float16: 1/z per metre, 0 in the sky
  normals    (n, 3, h, w) int8: unit normals times 127
  log_focal  (n) float32: natural logarithm of the focal length over the longer side
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from renderers import SceneError
from scenegen.geometry.dinov2 import PATCH
from scenegen.geometry.dpt import SCALE, DepthNetwork, outline_image
from scenegen.geometry.fast_branch import square_image
from scenegen.geometry.normals import disparity_normals
from scenegen.training.frames import Frame, FrameNote, frame_notes, read_frame
from scenegen.training.progress import Deadline, Progress
from scenegen.training.recipe import DepthRecipe

SAVED = ("tokens", "rgb", "fast", "disparity", "normals", "log_focal")
"""What a shard holds of every frame."""
AT_ONCE = 8
"""Frames that the backbone looks at together."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A batch from the cache, as float32."""

    levels: list[Float[Tensor, "b n c"]]
    rgb: Float[Tensor, "b 3 h w"]
    fast: Float[Tensor, "b h w"]
    disparity: Float[Tensor, "b h w"]
    normals: Float[Tensor, "b 3 h w"]
    log_focal: Float[Tensor, " b"]
    indoors: Float[Tensor, " b"]
    """1 where the frame was taken in a room, 0 outside."""

    def to(self, device: str) -> Sample:
        """The same on another device."""
        levels = [level.to(device) for level in self.levels]
        rest = (self.rgb, self.fast, self.disparity, self.normals, self.log_focal, self.indoors)
        return Sample(levels, *(value.to(device) for value in rest))


def write_tokens(
    recipe: DepthRecipe,
    frames: Path,
    folder: Path,
    network: DepthNetwork,
    device: str,
    end: Deadline,
) -> Iterator[Progress]:
    """Write all shards that are not there yet.

    Raises:
        SceneError: There are no frames, or one is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    groups = _groups(frame_notes(frames), recipe.shard)
    network = network.to(device).eval()
    for done, (name, notes) in enumerate(groups, start=1):
        path = folder / f"{name}.safetensors"
        if path.exists():
            continue
        if end.passed():
            return
        parts = [
            _look(network, [read_frame(frames, note) for note in notes[i : i + AT_ONCE]], device)
            for i in range(0, len(notes), AT_ONCE)
        ]
        arrays = {key: torch.cat([part[key] for part in parts]).contiguous() for key in parts[0]}
        part = path.with_suffix(".part")
        about = {"kinds": json.dumps([note.kind for note in notes])}
        save_file(arrays, part, about)
        part.replace(path)
        yield Progress("tokens", done, len(groups), f"{name}, {len(notes)} frames")


def _groups(notes: list[FrameNote], size: int) -> list[tuple[str, list[FrameNote]]]:
    """Frames of one shape, all held out or none, in pieces of at most ``size``."""
    piles: dict[tuple[bool, int, int], list[FrameNote]] = {}
    for note in notes:
        piles.setdefault((note.held_out, note.width, note.height), []).append(note)
    found = []
    for (held_out, width, height), pile in sorted(piles.items()):
        for start in range(0, len(pile), size):
            kind = "held" if held_out else "train"
            name = f"{kind}-{width}x{height}-{pile[start].index:06d}"
            found.append((name, pile[start : start + size]))
    return found


@torch.inference_mode()
def _look(network: DepthNetwork, frames: list[Frame], device: str) -> dict[str, Tensor]:
    pixels = np.stack([frame.rgb for frame in frames])
    rgb = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().to(device) / 255
    rows, columns = rgb.shape[2] // PATCH, rgb.shape[3] // PATCH
    small = outline_image(rgb, rows, columns).clamp(0, 1)
    targets = [_targets(frame, SCALE * rows, SCALE * columns) for frame in frames]
    return {
        "tokens": torch.stack(network.backbone(rgb), dim=1).half().cpu(),
        "rgb": (small * 255).round().byte().cpu(),
        "fast": network.fast(square_image(rgb), SCALE * rows, SCALE * columns).half().cpu(),
        "disparity": torch.stack([disparity for disparity, _ in targets]),
        "normals": torch.stack([normals for _, normals in targets]),
        "log_focal": torch.tensor(
            [math.log(f.note.px_from_cam[0][0] / max(f.note.width, f.note.height)) for f in frames]
        ),
    }


def _targets(frame: Frame, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Disparity and normals at the pixels nearest to the centres of the output's cells.

    Nothing is averaged: a mean across a depth edge is the depth of nothing.
    """
    depth = torch.from_numpy(frame.depth)
    normals = disparity_normals(depth, torch.tensor(frame.note.px_from_cam))
    y = ((torch.arange(height) + 0.5) * depth.shape[0] / height).long()
    x = ((torch.arange(width) + 0.5) * depth.shape[1] / width).long()
    near = normals[y][:, x].permute(2, 0, 1)  # (3, h, w)
    return (1.0 / depth[y][:, x]).half(), (near * 127).round().to(torch.int8).contiguous()


class TokenStore:
    """Reads batches out of the shards of a folder; nothing stays in memory but open files."""

    def __init__(self, folder: Path, held_out: bool) -> None:
        """Open the shards.

        Raises:
            SceneError: There are none, or one is damaged.
        """
        self.files = []
        self.places: dict[str, list[tuple[int, int]]] = {}
        """By shape: file and row of every frame."""
        self.kinds: dict[tuple[int, int], str] = {}
        """By file and row: kind of the world."""
        paths = sorted(folder.glob(f"{'held' if held_out else 'train'}-*.safetensors"))
        if not paths:
            raise SceneError(
                f"there are no {'held-out' if held_out else 'training'} tokens in {folder}",
                why="the backbone has not looked at such frames yet",
                fix="run the steps `render` and `tokens` first, with enough frames",
            )
        for path in paths:
            try:
                file = safe_open(path, "pt")
            except (OSError, SafetensorError) as error:
                raise SceneError(
                    f"the tokens in {path} are damaged",
                    why=str(error),
                    fix="remove that file and run the step `tokens` again",
                ) from error
            shape = path.stem.split("-")[1]
            for row, kind in enumerate(json.loads(file.metadata()["kinds"])):
                self.places.setdefault(shape, []).append((len(self.files), row))
                self.kinds[len(self.files), row] = kind
            self.files.append(file)

    def __len__(self) -> int:
        return len(self.kinds)

    def batches(self, size: int, rng: np.random.Generator | None) -> list[list[tuple[int, int]]]:
        """Every frame once, in batches of one shape; shuffled by ``rng``, or in order."""
        found = []
        for places in self.places.values():
            order = np.arange(len(places)) if rng is None else rng.permutation(len(places))
            chosen = [places[i] for i in order]
            found += [chosen[i : i + size] for i in range(0, len(chosen), size)]
        if rng is not None:
            found = [found[i] for i in rng.permutation(len(found))]
        return found

    def read(self, places: list[tuple[int, int]]) -> Sample:
        """One batch."""
        rows = {
            key: torch.cat([self.files[f].get_slice(key)[r : r + 1] for f, r in places])
            for key in SAVED
        }
        return Sample(
            levels=list(rows["tokens"].float().unbind(1)),
            rgb=rows["rgb"].float() / 255,
            fast=rows["fast"].float(),
            disparity=rows["disparity"].float(),
            normals=rows["normals"].float() / 127,
            log_focal=rows["log_focal"],
            indoors=torch.tensor([float(self.kinds[place] != "track") for place in places]),
        )
