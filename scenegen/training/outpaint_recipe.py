"""What an outpainting training consists of: one dataclass, which is also the command's options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scenegen.training.recipe import Device, shrunk

OutpaintStep = Literal["all", "draw", "fit", "evaluate", "export"]


@dataclass(frozen=True)
class OutpaintRecipe:
    """How the outpainting network is trained. Same recipe on the same machine: same weights."""

    photos: Path | None = None
    """Folder with photographs, looked for in all below it; docs/training.md says which were used.
    Without them all samples are drawn."""
    seed: int = 0
    """Source of every random choice."""
    photo_samples: int = 2400
    """Holes cut into photographs, held-out ones included."""
    place_samples: int = 1600
    """Views of drawn places, each with past views, held-out ones included."""
    samples: int = 16_000
    """Pictures that the network sees; each of the above comes several times."""
    batch: int = 4
    """Pictures per step; all of one kind."""
    side: int = 256
    """Side of the pictures, in pixels: a multiple of 128."""
    trunk_rate: float = 3e-5
    """Highest learning rate of what MI-GAN has learnt already (AdamW)."""
    side_rate: float = 1e-3
    """Highest learning rate of the side branch."""
    encoder: bool = False
    """Whether the way down is trained as well; without it a step takes a quarter less time."""
    gpl: bool = False
    """Whether files of the game under the GPL are drawn too."""
    device: Device = "auto"
    """Where the network runs: cuda when there is one, or the CPU."""
    smoke: bool = False
    """Everything in small, in a minute: boxes drawn in software, and a tiny untrained network where
    MI-GAN is missing. Shows that the recipe runs; the weights are worth nothing."""
    share: float = 0.5
    """How far what is exported lies from the untrained weights to the trained ones (Wortsman et al.
    2022): 1 measures best, half of it keeps more of the sharpness that MI-GAN was taught."""


def smoke_outpaint(recipe: OutpaintRecipe) -> OutpaintRecipe:
    """The recipe in small; what the user changed from the defaults stays."""
    small = {"photo_samples": 12, "place_samples": 12, "samples": 32, "side": 128}
    return shrunk(recipe, OutpaintRecipe(), small)
