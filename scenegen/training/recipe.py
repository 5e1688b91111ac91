"""What a depth training consists of: one dataclass, which is also the command's options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

Step = Literal["all", "render", "tokens", "probe", "head", "blocks", "evaluate", "export"]
Device = Literal["auto", "cpu", "cuda"]
Recipe = TypeVar("Recipe", bound=Any)  # any dataclass


@dataclass(frozen=True)
class DepthRecipe:
    """How the depth network is trained. Same recipe on the same machine: same weights."""

    seed: int = 0
    """Source of every random choice."""
    frames: int = 8000
    """Training frames that are drawn, held-out ones included."""
    head_samples: int = 60_000
    """Images that the head sees while the backbone is frozen."""
    blocks_samples: int = 15_000
    """Images that head and last blocks then see together."""
    batch: int = 12
    """Images per step."""
    head_rate: float = 1e-3
    """Highest learning rate of the head (AdamW)."""
    blocks_rate: float = 2e-5
    """Highest learning rate of the last blocks; the head goes on at ten times that."""
    blocks: int = 2
    """How many of the backbone's last blocks are trained."""
    fusion: int = 32
    """Channels in which the head fuses its levels: 32 for CPUs, 64 where a GPU trains."""
    gpl: bool = False
    """Whether files of the game under the GPL are drawn too. Without them several tracks are left
    out and others are bare; with them, who ships the weights has to ask what they owe to it."""
    device: Device = "auto"
    """Where the network runs: cuda when there is one, or the CPU."""
    smoke: bool = False
    """Everything in small, in minutes: boxes drawn in software, and an untrained backbone where
    the real one is missing. Shows that the recipe runs; the weights are worth nothing."""

    @property
    def sides(self) -> tuple[int, int]:
        """Shorter and longer side of the frames, in pixels; multiples of 14."""
        return (84, 112) if self.smoke else (252, 336)

    @property
    def shard(self) -> int:
        """Frames whose tokens share a file."""
        return 16 if self.smoke else 64


def smoke_recipe(recipe: DepthRecipe) -> DepthRecipe:
    """The recipe in small; what the user changed from the defaults stays."""
    small = {"frames": 64, "head_samples": 960, "blocks_samples": 96, "batch": 8}
    return shrunk(recipe, DepthRecipe(), small)


def shrunk(recipe: Recipe, plain: Recipe, small: Mapping[str, int]) -> Recipe:
    """A recipe with smaller numbers, but for those that differ from the plain one's."""
    asked = {name for name in small if getattr(recipe, name) != getattr(plain, name)}
    return replace(recipe, **{name: small[name] for name in small.keys() - asked})
