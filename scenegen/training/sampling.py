"""Draws the samples of an outpainting training: from photographs, and in drawn places."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from renderers import Camera
from scenegen.training.boxes import BoxWorld
from scenegen.training.drawing import (
    HELD_OUT_EVERY,
    Visit,
    check_data,
    real_worlds,
    smoke_worlds,
)
from scenegen.training.gl import GlRenderer
from scenegen.training.groups import Group, Recorder, box_again, shoot_group
from scenegen.training.outpaint_recipe import OutpaintRecipe
from scenegen.training.photographs import find_photographs, is_held_out, random_crop
from scenegen.training.progress import Deadline, Progress
from scenegen.training.samples import group_size, photo_sample, place_sample, write_sample
from scenegen.training.shots import Shot
from scenegen.training.worlds import World

PER_WORLD = 8
"""Views that are taken in one world, and photographs that are cut between two reports."""
KINDS = ("room", "track", "room")
"""Worlds visited in turn."""

Untrained = Callable[[Tensor, Tensor], Tensor]
Enter = Callable[[Visit], tuple[str, World, Callable[[Camera], Shot]]]
"""Builds the world of a visit: its name, the world, and what takes pictures in the same light."""


def draw_samples(
    recipe: OutpaintRecipe, folder: Path, untrained: Untrained, end: Deadline
) -> Iterator[Progress]:
    """Make all samples that are not there yet, in pieces that are marked when they are whole.

    Args:
        recipe: How many, and of what.
        folder: Where they go.
        untrained: From batches of pictures and known pixels to the untrained network's pictures.
        end: When to stop.

    Raises:
        SceneError: Data are missing, or a photograph cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    yield from _cut_photographs(recipe, folder, untrained, end)
    yield from _draw_places(recipe, folder, end)


def is_drawn(recipe: OutpaintRecipe, folder: Path) -> bool:
    """Whether all pieces are there."""
    return all(_mark(folder, *piece).exists() for piece in _pieces(recipe))


def _pieces(recipe: OutpaintRecipe) -> list[tuple[str, int]]:
    counts = {"photo": recipe.photo_samples if recipe.photos else 0, "place": recipe.place_samples}
    return [(kind, first) for kind, n in counts.items() for first in range(0, n, PER_WORLD)]


def _mark(folder: Path, kind: str, first: int) -> Path:
    return folder / f"{kind}-{first:06d}.done"


def _cut_photographs(
    recipe: OutpaintRecipe, folder: Path, untrained: Untrained, end: Deadline
) -> Iterator[Progress]:
    if recipe.photos is None:
        yield Progress("draw", 0, 0, "no photographs were given: drawn places only")
        return
    paths = find_photographs(recipe.photos)
    for kind, first in _pieces(recipe):
        mark = _mark(folder, kind, first)
        if kind != "photo" or mark.exists():
            continue
        if end.passed():
            return
        last = min(first + PER_WORLD, recipe.photo_samples)
        for index in range(first, last):
            number = index % len(paths)
            rng = np.random.default_rng((recipe.seed, index, 3))
            sample = photo_sample(random_crop(paths[number], rng, recipe.side), rng, untrained)
            place = folder / f"photo-{index:06d}.safetensors"
            write_sample(place, sample, is_held_out(number), paths[number].name)
        mark.touch()
        yield Progress("draw", last, recipe.photo_samples, "holes in photographs")


def _draw_places(recipe: OutpaintRecipe, folder: Path, end: Deadline) -> Iterator[Progress]:
    enter: Enter | None = None
    for kind, first in _pieces(recipe):
        mark = _mark(folder, kind, first)
        if kind != "place" or mark.exists():
            continue
        if end.passed():
            return
        enter = enter or (_box_worlds(recipe) if recipe.smoke else _drawn_worlds(recipe))
        number = first // PER_WORLD
        last = min(first + PER_WORLD, recipe.place_samples)
        held_out = number // len(KINDS) % (2 if recipe.smoke else HELD_OUT_EVERY) == 0
        visit = Visit(number, KINDS[number % len(KINDS)], held_out, first, last - first)
        name, world, again = enter(visit)
        other: Group | None = None
        kept = 0
        for index in range(first, last):
            rng = np.random.default_rng((recipe.seed, index, 5))
            group = shoot_group(world, again, rng, group_size(recipe.side))
            if group is None or min(group.target.known.shape) < recipe.side:
                continue
            sample = place_sample(group, other, rng, recipe.side)
            place = folder / f"place-{index:06d}.safetensors"
            write_sample(place, sample, held_out, name)
            other, kept = group, kept + 1
        mark.touch()
        text = f"{name}, {kept} of {last - first} views kept"
        yield Progress("draw", last, recipe.place_samples, text)


def _drawn_worlds(recipe: OutpaintRecipe) -> Enter:
    check_data()
    recorder = Recorder(GlRenderer())
    enter = real_worlds(recipe.seed, recipe.gpl, recorder)
    return lambda visit: (*enter(visit), recorder.again)


def _box_worlds(recipe: OutpaintRecipe) -> Enter:
    size = group_size(recipe.side)
    enter = smoke_worlds(recipe.seed, (round(size * 3 / 4), size))

    def enter_box(visit: Visit) -> tuple[str, World, Callable[[Camera], Shot]]:
        name, world = enter(visit)
        assert isinstance(world, BoxWorld)
        return name, world, box_again(world)

    return enter_box
