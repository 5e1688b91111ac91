"""What a user can choose when a world is made: one dial, and names for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
    sides and around as far as one can safely step, at most a metre; around, the full circle, laid
    out with copies of the photograph, every other one mirrored."""
    quality: Quality = "standard"
    """Size of every view: draft 512, standard 768, high 1024 pixels on its longer side. At standard
    and high the splats of the photograph are refined until they render as it."""
    layers: bool = True
    """Continue what lies behind the edges of things in the photograph, so that a step aside shows
    background and no gaps."""
    budget: int = 1_500_000
    """Splats at most. Those of the photograph stay; what is invented is merged to fit."""
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


@dataclass(frozen=True)
class ImportConfig:
    """How a file of splats becomes a world."""

    camera: Path | None = None
    """A transforms.json with cameras in the axes of the file: the world begins at the first of
    them, and remembers what all of them see. Left out: a camera at the origin of the file that
    looks ahead, and turns once around."""
    up: Literal["-y", "y", "z"] = "-y"
    """The axis of the file that points up: -y as 3D Gaussian Splatting has it (ahead is z), y as
    OpenGL (ahead is -z), z as Blender (ahead is y)."""
    scale: float = 1.0
    """Metres per unit of the file."""
    fov: float = 60.0
    """Horizontal field of view of the views, in degrees, where no camera is given."""
    quality: Quality = "standard"
    """Size of every view, where no camera is given: draft 512, standard 768, high 1024 pixels on
    its longer side."""
    seed: int = 0
    """Of what grows from here."""
    eye_height: float = 1.6
    """Height of the first camera above the ground, in metres."""
    depth: str = "auto"
    """Depth backend for what grows; `scenegen doctor` lists them."""
    outpaint: str = "auto"
    """Outpainting backend for what grows; `scenegen doctor` lists them."""
    prompt: str | None = None
    """What is around, in words, for the backends flux and sdxl."""
    renderer: str = "auto"
    """Renderer; `scenegen doctor` lists them."""
