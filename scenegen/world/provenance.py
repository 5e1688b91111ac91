"""Where things come from: the photograph, a generator, or somebody else's world."""

from __future__ import annotations

from scenegen.world.journal import Step

ORIGINS = ("photograph", "generated", "imported")
"""What :meth:`scenegen.World.provenance` counts by. New ones are added at the end."""
WORDS = {"observed": 0, "generated": 1, "imported": 2}
"""The words of the journal for them."""


def origin_of(step: Step) -> int:
    """The place of a step's origin in ORIGINS."""
    return WORDS[step.provenance]


def was_generated(step: Step) -> bool:
    """Whether somebody made up what a step shows: a generator here, or in the world it is from."""
    merged = step.info.get("merged", {})
    return "generated" in (step.provenance, merged.get("provenance"))
