"""Looks at what visitors see whenever they stand still: what of it is unknown, and other pictures.

One thread for all of them: drawing uses every core as it is.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from viewer.visitor import Visitor

logger = logging.getLogger("scenegen")

STILL = 0.35
"""Seconds without moving after which a visitor stands still."""
NAP = 0.1


def look_around(visitors: Callable[[], Iterable[Visitor]], closed: threading.Event) -> None:
    """Look at what each visitor sees once they stand still, until ``closed`` is set."""
    while not closed.wait(NAP):
        for visitor in visitors():
            if closed.is_set():
                return
            try:
                visitor.keep_pace()
                if visitor.due(time.monotonic() - STILL):
                    visitor.look()
            except Exception:
                logger.exception("viewer: looking at what %s sees failed", visitor.name)
