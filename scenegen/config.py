"""What a user can choose when a world is made: one dial, and names for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Extent = Literal["photo", "look", "around"]
Quality = Literal["draft", "standard", "high"]

LONG_SIDE: dict[Quality, int] = {"draft": 512, "standard": 768, "high": 1024}
"""The dial: longer side of every view, in pixels. Splats, time and memory follow its square."""


@dataclass(frozen=True)
class CreateConfig:
    """How a photograph becomes a world."""

    extent: Extent = "look"
    """How much is built: photo, what the photograph shows; look, also about 45 degrees to both
    sides and half a metre around; around, the full circle, laid out with
    copies of the photograph, every other one mirrored."""
    quality: Quality = "standard"
    """Size of every view: draft 512, standard 768, high 1024 pixels on its longer side."""
    layers: bool = True
    """Continue what lies behind the edges of things in the photograph, so that a step aside shows
    background and no gaps."""
    seed: int = 0
    """Same photograph, seed and backends: same world."""
    fov: float | None = None
    """Horizontal field of view of the photograph in degrees. Left out: read from the file, or a
    usual lens where the file does not say."""
    eye_height: float = 1.6
    """Height of the camera above the ground, in metres. Where ground is seen, the size of the world
    comes from it: twice the height makes a world twice as large."""
    depth: str = "auto"
    """Depth backend; `scenegen doctor` lists them. NAME:FOLDER or NAME:OWNER/MODEL takes other
    weights, for depth-anything and moge."""
    outpaint: str = "auto"
    """Outpainting backend; `scenegen doctor` lists them. none: nothing is invented, and what the
    photograph does not show stays unknown. NAME:FOLDER or NAME:OWNER/MODEL takes other weights, for
    flux and sdxl."""
    prompt: str | None = None
    """What is around, in words, for the backends flux and sdxl."""
    renderer: str = "auto"
    """Renderer; `scenegen doctor` lists them."""
