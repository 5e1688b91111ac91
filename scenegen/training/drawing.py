"""The first step: which worlds are visited, and the frames taken in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renderers import SceneError
from scenegen.training.boxes import BoxWorld
from scenegen.training.frames import FrameNote, has_frame, write_frame
from scenegen.training.furniture import missing_furniture
from scenegen.training.gl import GlRenderer, SceneRenderer, missing_gl
from scenegen.training.lens import develop, jpeg
from scenegen.training.licences import Licences
from scenegen.training.progress import Deadline, Progress
from scenegen.training.recipe import DepthRecipe
from scenegen.training.shots import Shot, worth_keeping
from scenegen.training.tracks import (
    COPYRIGHT,
    Track,
    free_textures,
    missing_tracks,
    read_track,
    track_names,
)
from scenegen.training.worlds import TrackWorld, World

ROUND = (
    ("room", 6),
    ("room", 6),
    ("track", 24),
    ("room", 6),
    ("room", 6),
    ("room", 6),
    ("room", 6),
)
"""Worlds visited in turn and frames taken in each: three in five indoors."""
HELD_OUT_EVERY = 10
"""One round in so many is never trained on; the first is, so that there always is one."""
ATTEMPTS = 15
"""Pictures tried for one frame before it is given up."""
FLOORS = ("wood", "plank", "parquet", "tile", "carpet", "marble", "ceramic")
WALLS = ("wall", "plaster", "brick", "stucco", "fabric", "concrete")
"""Words in the names of textures that suit floors and walls."""


@dataclass(frozen=True)
class Visit:
    """A world, and the frames that are taken in it."""

    number: int
    kind: str
    held_out: bool
    first: int
    """Index of its first frame."""
    count: int


def plan_visits(recipe: DepthRecipe) -> list[Visit]:
    """All worlds of a recipe in the order in which they are visited."""
    found: list[Visit] = []
    first = turn = 0
    while first < recipe.frames:
        held_out = turn % (4 if recipe.smoke else HELD_OUT_EVERY) == 0
        for kind, count in (("boxes", 4),) if recipe.smoke else ROUND:
            count = min(count, recipe.frames - first)
            if count > 0:
                found.append(Visit(len(found), kind, held_out, first, count))
                first += count
        turn += 1
    return found


def check_data() -> None:
    """Make sure that what rooms and tracks are drawn from is here.

    Raises:
        SceneError: A package is missing.
    """
    missing = [why for why in (missing_gl(), missing_tracks(), missing_furniture()) if why]
    if missing:
        raise SceneError(
            "cannot draw training scenes",
            why="; ".join(missing),
            fix="apt-get install supertuxkart-data sweethome3d-furniture libegl1 libgl1-mesa-dri"
            " && pip install 'scenegen-worlds[training]', or try --smoke",
        )


def draw_frames(recipe: DepthRecipe, folder: Path, deadline: Deadline) -> Iterator[Progress]:
    """Take all frames that are not there yet.

    Raises:
        SceneError: Data are missing, or the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.smoke:
        enter = smoke_worlds(recipe.seed, recipe.sides)
    else:
        check_data()
        enter = real_worlds(recipe.seed, recipe.gpl, GlRenderer())
    for visit in plan_visits(recipe):
        mark = folder / f"visit-{visit.number:05d}.done"
        if mark.exists():
            continue
        if deadline.passed():
            return
        name, world = enter(visit)
        kept = sum(
            _take(recipe, folder, visit, name, world, index)
            for index in range(visit.first, visit.first + visit.count)
        )
        mark.touch()
        text = f"{name}, {kept} of {visit.count} frames kept"
        yield Progress("render", visit.first + visit.count, recipe.frames, text)


def _take(
    recipe: DepthRecipe, folder: Path, visit: Visit, name: str, world: World, index: int
) -> bool:
    """Take one frame; False where no picture was worth keeping."""
    if has_frame(folder, index):
        return True
    for attempt in range(ATTEMPTS):
        seed = (recipe.seed, index, attempt)
        rng = np.random.default_rng(seed)
        shot = world.shoot(rng)
        if worth_keeping(shot):
            pixels, quality = develop(shot.linear, rng)
            note = _note(index, name, visit, seed, shot)
            write_frame(folder, note, jpeg(pixels, quality), shot.depth)
            return True
    return False


def _note(index: int, name: str, visit: Visit, seed: tuple[int, ...], shot: Shot) -> FrameNote:
    camera = shot.camera
    return FrameNote(
        index=index,
        world=name,
        kind=visit.kind,
        held_out=visit.held_out,
        seed=seed,
        px_from_cam=camera.px_from_cam.tolist(),
        cam_from_world=camera.cam_from_world.tolist(),
        width=camera.width,
        height=camera.height,
    )


Enter = Callable[[Visit], tuple[str, World]]
"""Builds the world of a visit; its name and the world."""


def smoke_worlds(seed: int, sides: tuple[int, int]) -> Enter:
    """Worlds of boxes, whose pictures have these sides, in pixels."""

    def enter(visit: Visit) -> tuple[str, World]:
        rng = np.random.default_rng((seed, visit.number, 7))
        return f"boxes-{visit.number}", BoxWorld(rng, sides)

    return enter


def real_worlds(seed: int, gpl: bool, renderer: SceneRenderer) -> Enter:
    """Rooms and tracks.

    Args:
        seed: Source of the random choices.
        gpl: Whether files under the GPL are used.
        renderer: Draws them.
    """
    from scenegen.training.rooms import RoomWorld

    licences = Licences(COPYRIGHT, gpl)
    families = {"floor": FLOORS, "wall": WALLS, "any": ("",)}
    pictures = {name: free_textures(licences, words) for name, words in families.items()}

    def enter(visit: Visit) -> tuple[str, World]:
        rng = np.random.default_rng((seed, visit.number, 7))
        if visit.kind == "room":
            return f"room-{visit.number}", RoomWorld(renderer, rng, pictures)
        turn = visit.number // len(ROUND)
        track = _usable_track(turn // HELD_OUT_EVERY if visit.held_out else turn, visit, licences)
        return f"track-{track.name}", TrackWorld(renderer, track)

    return enter


def _usable_track(turn: int, visit: Visit, licences: Licences) -> Track:
    """The track whose turn it is, or the next of which enough may be used."""
    names = track_names(visit.held_out)
    why = "there are none"
    for offset in range(len(names)):
        try:
            return read_track(names[(turn + offset) % len(names)], licences)
        except SceneError as error:
            why = error.why  # the model card lists the tracks that were used
    raise SceneError(
        "no track can be trained on",
        why=why,
        fix="install supertuxkart-data again, or allow what is under the GPL (--gpl)",
    )
