"""The first step of an outpainting training: pictures with a hole, and what belongs there.

Two kinds. Photographs, with what the untrained network answers. Drawn places, where past views
were merged into the hole as in a world: depth, exposure and sometimes the place itself are wrong.
A sample is one file, written whole or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import interpolate

from renderers import Camera, SceneError
from scenegen.outpaint.filling import GROW_PX, complete
from scenegen.outpaint.seams import along
from scenegen.outpaint.sides import geometry_inputs
from scenegen.training.groups import Group, Sight
from scenegen.training.holes import random_known

DEPTH_OFF, EXPOSURE_OFF, WRONG = 0.05, 0.15, 0.15
"""What is wrong with past views: depth (standard deviation of its logarithm, at most), exposure
(at most), and how often they are of another place."""
HIDDEN = (0.2, 0.45)
"""Share of a drawn view that is hidden."""


@dataclass(frozen=True, eq=False)
class HoleSample:
    """A square picture with a hole."""

    truth: Float[Tensor, "3 s s"]
    """What is right, 0 to 1."""
    picture: Float[Tensor, "3 s s"]
    """What is known, with what past views show; 0 in the hole."""
    known: Bool[Tensor, "s s"]
    """Pixels that are given to the network: not quite up to the hole, as in a world."""
    answer: Float[Tensor, "3 s s"] | None
    """What the untrained network says; photographs only."""
    side: Float[Tensor, "8 s s"] | None
    """The geometry; drawn places only."""


def photo_sample(
    rgb: Float[Tensor, "s s 3"],
    rng: np.random.Generator,
    untrained: Callable[[Tensor, Tensor], Tensor],
) -> HoleSample:
    """A photograph with a hole.

    Args:
        rgb: The photograph.
        rng: Source of the random choices.
        untrained: From batches of pictures and known pixels to the untrained network's pictures.
    """
    known = random_known(rng, len(rgb))
    truth = rgb.permute(2, 0, 1)
    picture, given = truth * known, _given(known)
    answer = untrained(picture[None], given[None, None])[0].clamp(0, 1)
    return HoleSample(truth, picture, given, answer, None)


def place_sample(
    group: Group, other: Group | None, rng: np.random.Generator, side: int
) -> HoleSample:
    """A view of a drawn place with a hidden side, completed as far as its past views go.

    Args:
        group: The view, and its past views.
        other: Another place, whose views sometimes claim to be of this one.
        rng: Source of the random choices.
        side: Side of the sample; the view is at least as large.
    """
    view = group.target
    hidden = round(rng.uniform(*HIDDEN) * view.known.shape[1])
    known = torch.ones_like(view.known)
    known[:, known.shape[1] - hidden :] = False
    known = known if group.side > 0 else known.flip(1)
    pasts = tuple(spoiled(past, rng) for past in group.pasts)
    if other is not None and rng.random() < WRONG:
        pasts = tuple(misplaced(past, other, group) for past in other.pasts)
    depth = torch.where(known, view.depth, torch.nan)
    done = complete(view.rgb, known, view.camera, depth, pasts, backend="none")
    explained = known | done.remembered
    depth = torch.where(known, depth, done.depth)
    top = int(rng.integers(known.shape[0] - side + 1))
    left = known.shape[1] - side if group.side > 0 else 0
    rows, columns = slice(top, top + side), slice(left, left + side)
    lens = view.camera.px_from_cam.clone()
    lens[:2, 2] -= torch.tensor([left, top])
    return HoleSample(
        view.rgb[rows, columns].permute(2, 0, 1),
        done.rgb[rows, columns].permute(2, 0, 1),
        _given(explained)[rows, columns],
        None,
        geometry_inputs(depth[rows, columns], Camera(lens, view.camera.cam_from_world, side, side)),
    )


def _given(known: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    given = known & ~along(known, GROW_PX)
    return given if given.any() else known


def spoiled(past: Sight, rng: np.random.Generator) -> Sight:
    """A past view as it is in life: depth and exposure not quite right."""
    waves = torch.from_numpy(rng.standard_normal((1, 1, 6, 8))).float()
    field = interpolate(waves, past.depth.shape, mode="bicubic")[0, 0]
    depth = past.depth * torch.exp(float(rng.uniform(0, DEPTH_OFF)) * field / field.std())
    gain = torch.from_numpy(1 + rng.uniform(-EXPOSURE_OFF, EXPOSURE_OFF) + rng.normal(0, 0.02, 3))
    return replace(past, depth=depth, rgb=(past.rgb * gain.float()).clamp(0, 1))


def misplaced(past: Sight, there: Group, here: Group) -> Sight:
    """A past view of one place that claims to be of another."""
    from_there = there.target.camera.world_from_cam.double()
    pose = past.camera.cam_from_world.double() @ from_there
    pose = pose @ here.target.camera.cam_from_world.double()
    return replace(past, camera=past.camera.posed(pose.float()))


def group_size(side: int) -> int:
    """Longer side of drawn views (4:3) whose shorter side holds a sample."""
    return math.ceil(4 * (side + 2) / 3)


def write_sample(path: Path, sample: HoleSample, held_out: bool, source: str) -> None:
    """Write a sample whole or not at all; pictures in eight bits, geometry in half precision."""
    arrays = {"known": sample.known}
    for name in ("truth", "picture", "answer"):
        value = getattr(sample, name)
        if value is not None:
            arrays[name] = (value * 255).round().to(torch.uint8)
    if sample.side is not None:
        arrays["side"] = sample.side.half()
    part = path.with_suffix(".part")
    arrays = {name: value.contiguous() for name, value in arrays.items()}
    save_file(arrays, part, {"held_out": str(int(held_out)), "source": source})
    part.replace(path)


def read_sample(path: Path) -> HoleSample:
    """Read a sample.

    Raises:
        SceneError: It is missing or damaged.
    """
    try:
        arrays = load_file(path)
        found = {name: arrays[name].float() / 255 for name in ("truth", "picture")}
        known = arrays["known"].bool()
    except (OSError, SafetensorError, KeyError) as error:
        raise SceneError(
            f"the training sample {path} cannot be used",
            why=str(error),
            fix="remove it and run the step `draw` again",
        ) from error
    answer = arrays["answer"].float() / 255 if "answer" in arrays else None
    side = arrays["side"].float() if "side" in arrays else None
    return HoleSample(found["truth"], found["picture"], known, answer, side)
