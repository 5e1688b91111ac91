"""Views with known depth, and what a growing world would not know of them.

Drawn: rooms and tracks that no network here was trained on (moderngl and the Debian packages
supertuxkart-data and sweethome3d-furniture). Real: the rooms of depth_data.py and the motorcycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from benchmarks import depth_data
from benchmarks.outpaint_data import missing_places
from renderers import Camera
from scenegen.fields import pull_push
from scenegen.geometry import default_fov
from scenegen.training.drawing import ATTEMPTS, Visit, real_worlds
from scenegen.training.gl import GlRenderer
from scenegen.training.groups import Recorder
from scenegen.training.holes import uncovered_by_step
from scenegen.training.lens import develop
from scenegen.training.shots import worth_keeping

SIDE = 768
"""Longer side of drawn views, in pixels: as in a world of the quality `standard`."""
SEED = 90
"""Of the drawn worlds; no training shipped with this seed."""
PLACES, QUICK_PLACES = 12, 4
"""Rooms that are drawn, and as many views of tracks."""
KINDS = {"room": "drawn rooms", "track": "drawn tracks"}
REAL = "real rooms"
SHARES = (1 / 4, 1 / 3)
"""Shares of a view that are hidden at a side, in turn."""
BELOW = 1 / 4
"""Share that is hidden at the lower edge."""
REACH = (0.06, 0.12)
"""How far the nearest surfaces move at a step aside, as a share of the width, in turn."""


@dataclass(frozen=True, eq=False)
class View:
    """A picture whose depth is known."""

    name: str
    scope: str
    rgb: Float[Tensor, "h w 3"]
    truth: Float[Tensor, "h w"]
    """Depth, metres; NaN unknown, +inf sky."""
    camera: Camera


def views(quick: bool, absent: dict[str, str]) -> Iterator[View]:
    """All views at hand, the same ones each time; what is not is entered into ``absent``."""
    if why := missing_places():
        absent.update(dict.fromkeys(KINDS.values(), why))
    else:
        yield from _drawn(QUICK_PLACES if quick else PLACES)
    missing: dict[str, str] = {}
    for sample in depth_data.samples(quick, None, missing):
        if not sample.ordinal:
            height, width = sample.truth.shape
            fov = sample.fov_degrees or default_fov(width, height)
            camera = Camera.from_fov(fov, width, height)
            yield View(sample.name, REAL, sample.rgb, sample.truth, camera)
    absent.update(missing)
    if missing:
        absent[REAL] = f"it lacks {', '.join(missing)}"


def _drawn(places: int) -> Iterator[View]:
    recorder = Recorder(GlRenderer())
    enter = real_worlds(SEED, False, recorder)
    for number in range(2 * places):
        kind = tuple(KINDS)[number % 2]
        name, world = enter(Visit(70 * number, kind, True, 0, 1))  # another track each time
        rng = np.random.default_rng((SEED, number))
        for _ in range(ATTEMPTS):
            shot = world.shoot(rng)
            if worth_keeping(shot):
                break
        else:
            continue
        scale = SIDE / max(shot.camera.width, shot.camera.height)
        size = round(scale * shot.camera.width), round(scale * shot.camera.height)
        shot = recorder.again(shot.camera.resized(*size))
        rgb = torch.from_numpy(develop(shot.linear, rng)[0]).float() / 255
        truth = torch.from_numpy(shot.depth).float()
        yield View(f"{name} {number}", KINDS[kind], rgb, truth, shot.camera)


def holes(view: View, number: int) -> dict[str, Bool[Tensor, "h w"]]:
    """What a turn, a look at the feet and a step aside would not know yet.

    Args:
        view: The view.
        number: Of the view; shares and sides take turns.
    """
    height, width = view.truth.shape
    side, below = (torch.zeros(height, width, dtype=torch.bool) for _ in range(2))
    side[:, round((1 - SHARES[number // 2 % 2]) * width) :] = True
    below[round((1 - BELOW) * height) :] = True
    known = ~torch.isnan(view.truth)
    solid = pull_push(torch.log(view.truth.nan_to_num(1.0)).clamp(max=20.0)[..., None], known)
    reach = REACH[number // 2 % 2] * (1 if number % 2 else -1)
    step = ~uncovered_by_step(torch.exp(solid[..., 0]), reach)
    return {"side": side if number % 2 else side.flip(1), "below": below, "step": step}
