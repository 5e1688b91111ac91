"""Words for visitors: notifications, and callbacks whose failures become some."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import viser

from renderers.errors import SceneError

logger = logging.getLogger("scenegen")

PATIENCE = 20.0
"""Seconds that bad news stays on the page."""


def plain(text: str) -> str:
    """Text that markdown shows as it is."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+!|~-" else c for c in text)


def tell(client: viser.ClientHandle, title: str, body: str, seconds: float | None = 8.0) -> None:
    """Tell a visitor something good."""
    client.add_notification(title, body, auto_close_seconds=seconds)


def complain(client: viser.ClientHandle, error: Exception) -> None:
    """Tell a visitor what went wrong, and what can be done about it."""
    if isinstance(error, SceneError):
        why = f"{_sentence(error.why)}. {_sentence(error.fix)}."
        client.add_notification(
            _sentence(error.what), why, color="red", auto_close_seconds=PATIENCE
        )
    else:
        client.add_notification("That did not work", str(error), color="red")


def guarded(action: Callable[[Any], None]) -> Callable[[Any], None]:
    """A callback of viser whose failure is told to the visitor who caused it."""

    def callback(event: Any) -> None:
        try:
            action(event)
        except Exception as error:
            if not isinstance(error, SceneError):
                logger.exception("viewer: %s failed", getattr(action, "__name__", "a callback"))
            if event.client is not None:
                complain(event.client, error)

    return callback


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
