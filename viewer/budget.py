"""How many splats a browser is given."""

from __future__ import annotations

import math

from renderers.errors import SceneError

BUDGET = 1_500_000
"""Splats sent to a browser at most: 48 MB, and what an ordinary graphics chip sorts smoothly."""
START, LEAST = 100_000, 50_000
"""Splats that every browser is given at first, and that none is given fewer than."""
QUICK, SLOW, LATE = 0.15, 0.4, 4.0
"""Seconds within which a browser draws a picture when it could draw more (some pictures, and a way
through a network), after which it has too many, and after which nobody waits for its answer."""
ANSWERS, CALM = 3, 150
"""Answers of a browser that are looked at before it is given more or fewer, and quick ones in a row
after which it is given more than was once too many: half a minute's."""


def check_budget(budget: int) -> None:
    """Refuse a budget that shows nothing.

    Raises:
        SceneError: It is not positive.
    """
    if budget < 1:
        raise SceneError(
            f"a budget of {budget} splats shows nothing",
            why="at least one splat must be allowed",
            fix=f"leave the budget out for {BUDGET:,}, or give a positive number",
        )


class Pace:
    """Finds how many splats one browser draws smoothly, from how soon it answers.

    Args:
        most: Splats that it is never given more than.
    """

    def __init__(self, most: int) -> None:
        check_budget(most)
        self.most = most
        """Splats that it is never given more than."""
        self.given = min(START, most)
        """Splats that it is to be given now."""
        self._ceiling = math.inf
        self._answers: list[float] = []
        self._calm = 0

    def answered(self, seconds: float) -> None:
        """The browser has drawn a picture and said so, that many seconds after it was asked to.

        The first answer after each change is not counted, if it is not late: it had to unpack.
        """
        self._answers.append(seconds)
        counted = self._answers[1:]
        if seconds >= LATE or (counted and seconds > 2.0 * SLOW):
            self._fewer(seconds)
        elif len(counted) >= ANSWERS:
            typical = sorted(counted)[ANSWERS // 2]
            if typical > SLOW:
                self._fewer(typical)
            elif typical < QUICK and self.given < min(self.most, self._ceiling):
                self._give((4 if 3 * typical < QUICK else 2) * self.given)
            else:
                del self._answers[1]
                self._calm = self._calm + 1 if typical < QUICK else 0
                if self._calm >= CALM:  # it may have been busy with something else
                    self._calm, self._ceiling = 0, math.inf

    def limit(self, most: int) -> None:
        """Begin anew with another upper limit, as somebody asked for it.

        Raises:
            SceneError: It is not positive.
        """
        check_budget(most)
        self.most, self._ceiling = most, math.inf
        self._give(most)

    def _fewer(self, seconds: float) -> None:
        if self.given > LEAST:
            self._ceiling = max(self.given / 2, LEAST)
        self._give(round(self.given * max(SLOW / seconds, 0.125)))

    def _give(self, count: int) -> None:
        self.given = int(min(max(count, LEAST), self._ceiling, self.most))
        self._answers.clear()
        self._calm = 0
