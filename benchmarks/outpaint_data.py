"""What the outpainting benchmark hides and has filled: photographs, and drawn places seen twice.

Photographs: those of ``assets/photos``, and scikit-image's samples. No outpainter here was trained
on them. Places: rooms and tracks that training holds out, drawn with exact depth (they need
moderngl and the Debian packages supertuxkart-data and sweethome3d-furniture).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from scenegen.training.groups import Group, Recorder, Sight, shoot_group

SIDE = 512
"""Longer side of all pictures, in pixels."""
PHOTOS = Path(__file__).parents[1] / "assets" / "photos"
SAMPLES = ("astronaut", "cat", "coffee", "rocket")
"""Colour photographs of scikit-image, by the name of their function."""
QUICK = ("lane", "room", "coast", "facade")
"""Photographs of a quick run."""
PLACES, QUICK_PLACES = 16, 4
"""Places that are drawn: rooms and tracks in turn."""
DEPTH_ERROR, EXPOSURE_ERROR = 0.03, 1.07
"""What is wrong with the depth (standard deviation of its logarithm, in waves of a sixth of the
view) and with the exposure of a past view that is off."""


def photographs(quick: bool, absent: dict[str, str]) -> dict[str, Tensor]:
    """Pictures (h, w, 3), 0 to 1, by name."""
    found = {path.stem: _read(Image.open(path)) for path in sorted(PHOTOS.glob("*.jpg"))}
    if quick:
        return {name: found[name] for name in QUICK}
    if importlib.util.find_spec("skimage") is None:
        absent["scikit-image's photographs"] = "pip install scikit-image"
        return found
    from skimage import data

    return found | {name: _read(Image.fromarray(getattr(data, name)())) for name in SAMPLES}


def _read(image: Image.Image) -> Tensor:
    """Brought to SIDE; width a multiple of four, so that a quarter is whole."""
    scale = SIDE / max(image.size)
    width, height = (round(side * scale / 4) * 4 for side in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(resized)).float() / 255


def missing_places() -> str | None:
    """Why no places can be drawn here, or None."""
    from scenegen.training.furniture import missing_furniture
    from scenegen.training.gl import missing_gl
    from scenegen.training.tracks import missing_tracks

    return missing_gl() or missing_tracks() or missing_furniture()


def places(quick: bool) -> Iterator[Group]:
    """Places seen from a target and from past views, the same ones each time."""
    from scenegen.training.drawing import FLOORS, WALLS
    from scenegen.training.gl import GlRenderer
    from scenegen.training.licences import Licences
    from scenegen.training.rooms import RoomWorld
    from scenegen.training.tracks import COPYRIGHT, free_textures, read_track, track_names
    from scenegen.training.worlds import TrackWorld

    renderer, licences = GlRenderer(), Licences(COPYRIGHT, gpl=False)
    words = {"floor": FLOORS, "wall": WALLS, "any": ("",)}
    pictures = {name: free_textures(licences, each) for name, each in words.items()}
    tracks = track_names(held_out=True)
    for number in range(QUICK_PLACES if quick else PLACES):
        rng, recorder = np.random.default_rng((5, number // 2)), Recorder(renderer)
        if number % 2 == 0:
            world = RoomWorld(recorder, rng, pictures)
        else:
            world = TrackWorld(recorder, read_track(tracks[number // 2 % len(tracks)], licences))
        group = shoot_group(world, recorder.again, rng, SIDE)
        if group is not None:
            yield group


def hidden_side(group: Group, share: float) -> Tensor:
    """Known pixels of a target whose side, where past views look, is hidden."""
    known = torch.ones_like(group.target.known)
    columns = round(share * known.shape[1])
    known[:, known.shape[1] - columns :] = False
    return known if group.side > 0 else known.flip(1)


def off(pasts: Sequence[Sight], seed: int) -> tuple[Sight, ...]:
    """Past views as they are in life: depth and exposure not quite right."""
    rng, found = np.random.default_rng((7, seed)), []
    for past in pasts:
        waves = torch.from_numpy(rng.standard_normal((1, 1, 6, 8))).float()
        field = interpolate(waves, past.depth.shape, mode="bicubic")[0, 0]
        depth = past.depth * torch.exp(DEPTH_ERROR * field / field.std())
        rgb = (past.rgb * EXPOSURE_ERROR).clamp(0, 1)
        found.append(replace(past, depth=depth, rgb=rgb))
    return tuple(found)


def wrong(group: Group, other: Group) -> tuple[Sight, ...]:
    """Past views of another place that claim to be of this one."""
    from_other = other.target.camera.world_from_cam.double()
    here = group.target.camera.cam_from_world.double()
    found = []
    for past in other.pasts:
        pose = past.camera.cam_from_world.double() @ from_other @ here
        found.append(replace(past, camera=past.camera.posed(pose.float())))
    return tuple(found)
