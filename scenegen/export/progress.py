"""How far slow work is: a bar on a terminal once it takes longer than a second, else nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

DELAY = 1.0
"""Seconds before a bar appears."""
Thing = TypeVar("Thing")


def progress(things: Iterable[Thing], title: str, **options: float) -> tqdm[Thing]:
    """``things``, with a bar on the standard error stream while they are gone through.

    Args:
        things: What is worked on, one after the other; empty for a bar that is updated by hand.
        title: The work, in a word or two.
        options: ``total`` and ``unit_scale`` of tqdm.
    """
    return tqdm(things, desc=title, delay=DELAY, disable=None, leave=False, **options)  # pyright: ignore
