"""Two moments of a world side by side: what one has and the other has not, and how both look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from renderers import Camera, Splats, join
from scenegen.splatting.losses import psnr
from scenegen.world.chronicle import describe
from scenegen.world.journal import Entry, Step

if TYPE_CHECKING:
    from scenegen.world.world import World

VIEWS = 4
"""Views that are compared at most."""
VISIBLE = 8 / 255
"""Colours further apart than this are seen to differ."""


@dataclass(frozen=True, eq=False)
class Difference:
    """What two moments of a world have in common, and what not."""

    ids: tuple[int, int]
    only: tuple[tuple[Entry, ...], tuple[Entry, ...]]
    """Entries of one that the other has not."""
    splats: tuple[int, int]
    views: tuple[int, int]
    """Views remembered."""
    renders: tuple[tuple[str, Tensor, Tensor], ...]
    """Of some views: what it is, and how it looks in the one and the other, (h, w, 3)."""

    def lines(self) -> list[str]:
        """The same in words."""
        lines = [
            f"{name}: entry {self.ids[i]}, {self.splats[i]:,} splats, {self.views[i]} views"
            for i, name in enumerate("AB")
        ]
        for i, name in enumerate("AB"):
            lines += [f"only in {name}: {entry.id}: {describe(entry)}" for entry in self.only[i]]
        for title, one, two in self.renders:
            lines.append(
                f"{title}: {_changed(one, two):.1%} of it differs, {psnr(one, two):.1f} dB"
            )
        return lines

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        only = [[entry.id for entry in entries] for entries in self.only]
        renders = [{"view": t, "differs": _changed(a, b)} for t, a, b in self.renders]
        return {"entries": self.ids, "only": only, "splats": self.splats, "renders": renders}

    def picture(self) -> Float[Tensor, "h w 3"]:
        """A row per view: the one, the other, and where they differ, brighter where by more."""
        width = max(one.shape[1] for _, one, _ in self.renders)
        rows = []
        for _, one, two in self.renders:
            gap = ((one - two).abs().amax(-1, keepdim=True) * 3).clamp(max=1).expand_as(one)
            spare = width - one.shape[1]
            tiles = [
                torch.nn.functional.pad(t, (0, 0, 0, spare + 4, 0, 4)) for t in (one, two, gap)
            ]
            rows.append(torch.cat(tiles, 1))
        return torch.cat(rows)[:-4, :-4]


def compare(world: World, a: str | int, b: str | int) -> Difference:
    """Compare two branches or entries of a world.

    Raises:
        SceneError: There is no such branch or entry, or it is damaged.
    """
    ids = world.journal.find(a)[0], world.journal.find(b)[0]
    states = [world.at(number) for number in ids]
    ways = [{entry.id for entry in state.entries} for state in states]
    only = [
        tuple(entry for entry in states[i].entries if entry.id not in ways[1 - i]) for i in (0, 1)
    ]
    cameras: list[tuple[str, Camera]] = [("first view", states[0].steps[0].camera)]
    added = [entry for entries in only for entry in entries if isinstance(entry, Step)]
    cameras += [(f"view of step {step.id}", step.camera) for step in added[-VIEWS + 1 :]]
    joined = [join(state.chunks) for state in states]
    renders = [(title, *_both(world, joined, camera)) for title, camera in cameras]
    return Difference(
        ids,
        (only[0], only[1]),
        (len(joined[0]), len(joined[1])),
        (len(states[0].memory.views), len(states[1].memory.views)),
        tuple(renders),
    )


def _both(world: World, splats: list[Splats], camera: Camera) -> tuple[Tensor, Tensor]:
    one, two = (world.render_splats(part, camera).rgb.cpu().float().clamp(0, 1) for part in splats)
    return one, two


def _changed(one: Tensor, two: Tensor) -> float:
    return float(((one - two).abs().amax(-1) > VISIBLE).float().mean())
