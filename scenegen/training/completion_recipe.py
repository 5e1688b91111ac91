"""What a training of depth completion consists of: one dataclass, and the command's options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scenegen.training.recipe import DepthRecipe, Device, shrunk

CompletionStep = Literal["all", "render", "samples", "fit", "evaluate", "export"]


@dataclass(frozen=True)
class CompletionRecipe:
    """How depth completion is trained. Same recipe on the same machine: same weights."""

    seed: int = 1
    """Source of every random choice. Not that of a training of the depth network, whose estimates
    would be too good in rooms that it knows."""
    frames: int = 360
    """Frames that are drawn, held-out ones included."""
    holes: int = 5
    """Samples of each frame: so many times a part of it is hidden."""
    samples: int = 12_000
    """Samples that the network sees; each of the above comes several times."""
    batch: int = 8
    """Samples per step; all of one size."""
    rate: float = 2e-3
    """Highest learning rate (AdamW)."""
    gpl: bool = False
    """Whether files of the game under the GPL are drawn too."""
    device: Device = "auto"
    """Where the network runs: cuda when there is one, or the CPU."""
    smoke: bool = False
    """Everything in small, in a minute: boxes drawn in software. Shows that the recipe runs; the
    weights are worth nothing."""

    @property
    def drawing(self) -> DepthRecipe:
        """How the frames are drawn: as those of the depth network."""
        return DepthRecipe(seed=self.seed, frames=self.frames, gpl=self.gpl, smoke=self.smoke)


def smoke_completion(recipe: CompletionRecipe) -> CompletionRecipe:
    """The recipe in small; what the user changed from the defaults stays."""
    small = {"frames": 8, "holes": 2, "samples": 48, "batch": 4}
    return shrunk(recipe, CompletionRecipe(), small)
