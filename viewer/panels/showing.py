"""The tab `Show`: other pictures of the world, a map, and how much is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import viser

from viewer.telling import guarded

if TYPE_CHECKING:
    from viewer.visitor import Visitor

COLOUR, SURFELS, EVIDENCE = "colour", "surfels", "evidence"
LEGENDS = {
    COLOUR: "The world.",
    "depth": "Near is yellow, far is violet, the sky is blue.",
    "normals": "Red leans right, green up, blue faces you.",
    "provenance": "Blue was photographed; yellow to red was invented, the redder the later.",
    SURFELS: "What the memory holds. Violet are backs.",
    EVIDENCE: "Which remembered view explains each place.",
}
BUDGETS = (0.05, 4.0)
"""Smallest and largest budget of the slider, in millions of splats."""


class ShowPanel:
    """The controls of one visitor."""

    def __init__(self, visitor: Visitor, budget: int) -> None:
        self._visitor = visitor
        gui = visitor.client.gui
        self._kind = gui.add_dropdown("Show", tuple(LEGENDS), initial_value=COLOUR)
        self._legend = gui.add_markdown(LEGENDS[COLOUR])
        self._map = gui.add_image(np.zeros((2, 2, 3), np.uint8), label="Map", visible=False)
        least, most = BUDGETS
        self._budget = gui.add_slider(
            "Splats, M", least, most, 0.05, min(max(budget / 1e6, least), most),
            hint="Drawn at most; near places lose fewer than far ones",
        )  # fmt: skip
        self._floor = gui.add_slider(
            "Least size", 0.3, 3.0, 0.1, 0.7, hint="No splat is drawn smaller, in pixels"
        )
        self._adapts = gui.add_checkbox(
            "No more than draws smoothly", True, hint="Fewer where the browser is slow"
        )
        limit = gui.add_button("Draw so", icon=viser.Icon.REFRESH)
        self._drawn = gui.add_markdown("")
        self._kind.on_update(guarded(lambda event: self.show(self._kind.value)))
        limit.on_click(guarded(self._limit))
        for number, kind in enumerate(LEGENDS, 4):
            visitor.command(f"Show {kind}", str(number), self._shower(kind))

    @property
    def kind(self) -> str:
        """What the visitor wants to see."""
        return self._kind.value

    def show(self, kind: str) -> None:
        """Show another picture of the world."""
        if self._kind.value != kind:
            self._kind.value = kind
        self._legend.content = LEGENDS[kind]
        self._visitor.show(kind)

    @property
    def adapts(self) -> bool:
        """Whether the browser's pace may lower the number of splats."""
        return self._adapts.value

    @property
    def floor(self) -> float:
        """Size in pixels below which no splat falls."""
        return float(self._floor.value)

    def tell(self, drawn: int, total: int) -> None:
        """Say how many splats are in the browser."""
        words = f"{drawn:,} of {total:,} splats are drawn." if drawn < total else ""
        if self._drawn.content != words:
            self._drawn.content = words

    def explain(self, words: str) -> None:
        """Say more about what is shown."""
        self._legend.content = words

    def draw_map(self, picture: np.ndarray) -> None:
        """Show where the visitor stands."""
        self._map.image = picture
        self._map.visible = True

    def _shower(self, kind: str) -> Any:
        return lambda event: self.show(kind)

    def _limit(self, event: Any) -> None:
        visitor = self._visitor
        visitor.pace.limit(round(1e6 * self._budget.value))
        visitor.limit(visitor.pace.given)
