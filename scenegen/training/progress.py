"""How a training tells what it does, and when it has to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One thing that was done."""

    step: str
    """The step of the recipe."""
    done: int
    total: int
    """How much of the step is done: frames, files or images."""
    text: str
    """What there is to say of it."""

    def __str__(self) -> str:
        return f"{self.step} {self.done}/{self.total}: {self.text}"


class Deadline:
    """The end of one piece of a training; what is done by then is kept."""

    def __init__(self, minutes: float) -> None:
        self.minutes, self.end = minutes, time.monotonic() + 60 * minutes

    def passed(self) -> bool:
        """Whether it is time to stop."""
        return time.monotonic() > self.end


def in_order(
    steps: Mapping[str, Callable[[], Iterator[Progress]]], step: str, end: Deadline
) -> Iterator[Progress]:
    """Do one step of a training, or "all" of them until it is time to stop."""
    for name in steps if step == "all" else (step,):
        yield from steps[name]()
        if end.passed() and name != "export":
            text = f"stopped after {end.minutes:g} minutes; go on with --resume"
            yield Progress(name, 0, 0, text)
            return
