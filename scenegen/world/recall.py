"""What the memory says about a view and why: all that a person needs to judge the choice."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int64
from torch import Tensor

from renderers import Camera
from scenegen.world.grow import Choice, Look, remembered
from spatial_memory import View, ViewMemory, evidence_map, shares_shown

MAX_OTHERS, MIN_SHOWN = 4, 0.001
"""Views that were not taken are worth a word when they have seen this share of the target's pixels;
at most so many."""


@dataclass(frozen=True, eq=False)
class Recall:
    """A target view, the views chosen for it, and the evidence for each."""

    look: Look
    """The target as the world renders it."""
    choice: Choice
    """The views chosen, and why."""
    evidence: Int64[Tensor, "h w"]
    """Which chosen view explains each pixel of the target. See :func:`evidence_map`."""
    others: tuple[int, ...]
    """Views not taken that have seen most of the target, best first."""
    views: Mapping[int, View]
    """The chosen views and the others."""
    step: int | None = None
    """The step that the choice was made for; None when nobody has acted on it."""

    @property
    def title(self) -> str:
        """Which view this is, in words."""
        place = place_of(self.look.camera)
        return f"view {place}" if self.step is None else f"step {self.step}, {place}"

    def share(self, value: int) -> float:
        """Share of the target's pixels that have this value in ``evidence``."""
        return float((self.evidence == value).float().mean())

    def lines(self) -> list[str]:
        """The same in words."""
        chosen = self.choice.view_ids
        lines = [
            f"{self.title}: {self.look.hole_share:.1%} of it is unknown",
            f"chosen: {len(chosen)} of {self.choice.asked} views, "
            f"which have seen {self.choice.coverage:.0%} of it",
        ]
        votes = (f"; {vote:,.1f} votes" for vote in self.choice.votes)
        lines += [f"  {self._line(view_id)}{next(votes, '')}" for view_id in chosen]
        if self.others:
            lines.append("not chosen, though they have seen some of it:")
            lines += [f"  {self._line(view_id)}" for view_id in self.others]
        return lines

    def _line(self, view_id: int) -> str:
        return f"view {view_id} ({self.views[view_id].provenance}): {self.choice.reasons[view_id]}"

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        first = {view_id: self.share(rank) for rank, view_id in enumerate(self.choice.view_ids)}
        return {
            "step": self.step,
            "camera": self.look.camera.cam_from_world.tolist(),
            "unknown": self.look.hole_share,
            **as_info(self.choice),
            "explains_first": {str(view_id): share for view_id, share in first.items()},
            "others": list(self.others),
        }


def recall(
    view: Look, memory: ViewMemory, choice: Choice | None = None, step: int | None = None
) -> Recall:
    """Ask the memory about a view.

    Args:
        view: The target.
        memory: Who is asked.
        choice: What was chosen, when that is known already; otherwise what a growth step from
            here would be given.
        step: The step that it was chosen for.
    """
    choice = remembered(memory, view) if choice is None else choice
    shown = shares_shown(memory, view.camera)
    rest = (shown.keys() & choice.reasons.keys()) - set(choice.view_ids)
    best = sorted(rest, key=lambda view_id: (-shown[view_id], view_id))[:MAX_OTHERS]
    others = tuple(view_id for view_id in best if shown[view_id] >= MIN_SHOWN)
    return Recall(
        view,
        choice,
        evidence_map(memory, view.camera, choice.view_ids),
        others,
        {view_id: memory.views[view_id] for view_id in (*choice.view_ids, *others)},
        step,
    )


def as_info(choice: Choice) -> dict[str, Any]:
    """A choice as the journal keeps it: plain values, the same before and after a reopen."""
    lists = {name: list(getattr(choice, name)) for name in ("view_ids", "gains", "votes")}
    reasons = {str(view_id): reason for view_id, reason in choice.reasons.items()}
    return {**lists, "coverage": choice.coverage, "reasons": reasons, "asked": choice.asked}


def from_info(info: Mapping[str, Any]) -> Choice:
    """Inverse of :func:`as_info`; worlds of format 1 kept neither gains nor votes.

    Without a number of views asked there is a reason for each of them.
    """
    reasons = {int(view_id): reason for view_id, reason in info["reasons"].items()}
    return Choice(
        tuple(info["view_ids"]),
        info["coverage"],
        tuple(info.get("gains", ())),
        tuple(info.get("votes", ())),
        reasons,
        info.get("asked", len(reasons)),
    )


def place_of(camera: Camera) -> str:
    """Where a camera is and where it looks, in words, from the photograph's camera."""
    pose = camera.world_from_cam.double()
    x, y, z = pose[:3, 3].tolist()
    ahead = pose[:3, 2]
    yaw = math.degrees(math.atan2(float(ahead[0]), float(ahead[2])))
    pitch = math.degrees(math.asin(max(-1.0, min(1.0, -float(ahead[1])))))
    parts = [
        _either(x, "{:.2f} m right", "{:.2f} m left"),
        _either(y, "{:.2f} m down", "{:.2f} m up"),
        _either(z, "{:.2f} m forward", "{:.2f} m back"),
        _either(yaw, "turned {:.0f} degrees right", "turned {:.0f} degrees left"),
        _either(pitch, "turned {:.0f} degrees up", "turned {:.0f} degrees down"),
    ]
    return ", ".join(part for part in parts if part) or "from where the photograph was taken"


def _either(value: float, plus: str, minus: str) -> str:
    """The value in the words for its sign; nothing where it rounds to 0."""
    words = plus if value > 0 else minus
    return "" if words.format(abs(value)) == words.format(0.0) else words.format(abs(value))
