"""The last step: the shipped file and its model card, with the data that it was made from."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from renderers import SceneError
from scenegen import __version__, models
from scenegen.export.atomic import atomic_write
from scenegen.geometry.dpt import DepthNetwork
from scenegen.geometry.weights import pack_depth_network
from scenegen.training.evaluation import Table
from scenegen.training.frames import FrameNote
from scenegen.training.recipe import DepthRecipe

NAME = "depth"
"""Name of the exported files."""
STARTS = {"dinov2-s": "DINOv2 ViT-S/14", "fastdepth": "FastDepth"}
"""Models that the branches start from, and what they are called."""
UNTRAINED = "random weights"
"""What a card says where nothing was started from."""
PACKAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "boxes": (),
    "room": (
        ("sweethome3d-furniture", "CC0-1.0, CC-BY-3.0 and CC-BY-3.0-US, by library"),
        ("supertuxkart-data", "textures: per file, from its debian/copyright"),
    ),
    "track": (
        ("supertuxkart-data", "per file, from its debian/copyright: CC0, CC-BY, CC-BY-SA, GPL"),
    ),
}
"""Debian packages that each kind of world is drawn from, and their licences."""


def export(
    network: DepthNetwork,
    recipe: DepthRecipe,
    folder: Path,
    notes: list[FrameNote],
    quality: Table,
    stage: str,
    pretrained: bool,
) -> Path:
    """Write the weights in half precision and their card. The path of the weights.

    Args:
        network: What is shipped.
        recipe: How it was made.
        folder: Where the two files go.
        notes: The frames that were drawn for it.
        quality: What was measured in held-out worlds.
        stage: Stage that the weights are from.
        pretrained: Whether the backbone started from DINOv2, or from nothing.

    Raises:
        SceneError: A weight does not fit into half precision, or the disk refuses.
    """
    about = {
        "name": NAME,
        "made_with": f"scenegen-worlds {__version__}",
        "licence": "Apache-2.0",
        "started_from": [origin(*each) for each in STARTS.items()] if pretrained else UNTRAINED,
        "stage": stage,
        "seed": recipe.seed,
        "recipe": asdict(recipe),
        "data": data_list(notes, recipe),
        "quality_in_held_out_worlds": quality,
        "warning": "a smoke run: worth nothing" if recipe.smoke else "",
    }
    path = folder / f"{NAME}.safetensors"
    write_network(path, *pack_depth_network(network, about))
    return path


def read_quality(folder: Path, stage: str) -> Any:
    """What the step `evaluate` left in the folder of a training.

    Args:
        folder: Of the training.
        stage: The step that has to be done before that one.

    Raises:
        SceneError: It left nothing.
    """
    try:
        quality = json.loads((folder / "quality.json").read_text())
    except (OSError, ValueError):
        quality = None
    if not quality:
        raise SceneError(
            "cannot export the network",
            why="nothing was measured yet",
            fix=f"run the steps `{stage}` and `evaluate` first",
        )
    return quality


def write_network(path: Path, data: bytes, card: str) -> None:
    """Write weights and card.

    Raises:
        SceneError: The disk refuses.
    """
    # The card goes last: until it is there, the weights do not match the old one and are refused.
    with atomic_write(path) as part:
        part.write_bytes(data)
    with atomic_write(path.with_suffix(".json")) as part:
        part.write_text(card)


def data_list(notes: list[FrameNote], recipe: DepthRecipe) -> list[dict[str, Any]]:
    """What the frames were drawn from: kinds, worlds, packages, versions, licences."""
    found = []
    for kind, frames in sorted(Counter(note.kind for note in notes).items()):
        mine = [note for note in notes if note.kind == kind]
        worlds = sorted({note.world for note in mine})
        entry: dict[str, Any] = {
            "kind": kind,
            "frames": frames,
            "held_out_frames": sum(note.held_out for note in mine),
            "worlds": worlds if kind == "track" else len(worlds),
            "packages": [
                {"name": name, "version": package_version(name), "licence": licence}
                for name, licence in PACKAGES[kind]
            ],
        }
        if kind == "track":
            entry["files_under_the_gpl"] = recipe.gpl
        found.append(entry)
    return found


def origin(name: str, title: str) -> dict[str, str]:
    """What a card says of a model that a network started from.

    Args:
        name: Name in the registry.
        title: What people call it.
    """
    model = models.find_model(name)
    return {
        "name": title,
        "package": f"{model.package} {model.version}",
        "sha256": model.sha256,
        "licence": model.licence,
        "licence_source": model.licence_source,
    }


def package_version(package: str) -> str:
    """Installed version of a Debian package, as far as this machine can tell."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
