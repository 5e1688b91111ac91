"""How many splats a browser is given."""

from __future__ import annotations

from renderers.errors import SceneError

BUDGET = 1_500_000
"""Splats sent to a browser at most: 48 MB, and what an ordinary graphics chip sorts smoothly."""


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
