"""The tab `Grow`: what of the view is unknown, and filling it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import viser

from renderers import SceneError
from scenegen.world.sketches import Shares
from viewer.telling import complain, guarded

if TYPE_CHECKING:
    from viewer.visitor import Visitor

WORTH = 0.04
"""Share of the view that must be unknown before growing is offered."""
HINT = "Turn or walk to where nothing is yet; growing fills what you see there."


class GrowPanel:
    """The controls of one visitor."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._grown = -1.0
        gui = visitor.client.gui
        self._shares = gui.add_markdown(HINT)
        self._grow = gui.add_button("Grow here", icon=viser.Icon.SEEDING, disabled=True)
        self._auto = gui.add_checkbox(
            "Grow by itself", False, hint="Fill what is unknown whenever you stand still"
        )
        self._grow.on_click(guarded(self._clicked))
        self._auto.on_update(guarded(lambda event: visitor.look_again()))
        visitor.command("Grow here", "G", self._clicked)

    def looked(self, shares: Shares, busy: bool) -> None:
        """What the visitor sees is made of this. Called when the visitor stands still."""
        self._shares.content = (
            f"In this view **{shares.seen:.0%}** is from the photograph, "
            f"**{shares.invented:.0%}** invented, **{shares.unknown:.0%}** unknown."
        )
        worth = shares.unknown >= WORTH
        self._grow.disabled = busy or not self._visitor.can_grow
        self._grow.label = f"Grow here ({shares.unknown:.0%} unknown)" if worth else "Grow here"
        self._grow.color = "orange" if worth else None
        stood = self._visitor.walker.moved_at
        if worth and self._auto.value and not self._grow.disabled and stood != self._grown:
            self._grown = stood  # once from here: a rest may stay unknown
            try:
                self._visitor.grow()
            except SceneError as error:  # somebody else was faster
                complain(self._visitor.client, error)

    def _clicked(self, event: Any) -> None:
        self._visitor.grow()
