"""Interchangeable implementations: a table, best first, and no silent replacement.

Rendering, depth and outpainting share this mechanism, so that all three behave alike: ``auto``
takes the first that runs here and says why better ones were skipped; a name runs or raises.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from renderers.errors import SceneError

logger = logging.getLogger("scenegen")


@dataclass(frozen=True)
class Backend:
    """An implementation that may or may not run on this machine."""

    target: str
    """``module:attribute``, imported only when the backend is chosen."""
    missing: Callable[[], str | None]
    """Why it cannot run here, or None when it can. Must be cheap and must not raise."""
    fix: str
    """What the user can do about it."""
    about: str
    """One line for `scenegen doctor`: what it is good at."""


_announced: set[tuple[str, str]] = set()


def choose(kind: str, table: Mapping[str, Backend], name: str = "auto") -> tuple[str, Any]:
    """Load a backend.

    Args:
        kind: What the table holds, for messages: "renderer", "depth" or "outpaint".
        table: Backends by name, best first.
        name: A name of the table, or "auto" for the first that runs here.

    Returns:
        The name chosen, and the attribute its ``target`` points to.

    Raises:
        SceneError: The name is unknown, or that backend (or every one) cannot run here.
    """
    if name != "auto" and name not in table:
        raise SceneError(
            f"unknown {kind} backend {name!r}",
            why=f"known names are: auto, {', '.join(table)}",
            fix="use one of them; `scenegen doctor` shows which run here",
        )
    skipped: list[str] = []
    for candidate, backend in table.items():
        if name not in ("auto", candidate):
            continue
        reason = backend.missing()
        if reason is None:
            _announce(kind, candidate, skipped)
            module, attribute = backend.target.split(":")
            return candidate, getattr(importlib.import_module(module), attribute)
        if name == candidate:
            raise SceneError(
                f"{kind} backend {name!r} cannot run here", why=reason, fix=backend.fix
            )
        skipped.append(f"{candidate}: {reason}")
    raise SceneError(
        f"no {kind} backend runs here", why="; ".join(skipped), fix="see `scenegen doctor`"
    )


def _announce(kind: str, chosen: str, skipped: list[str]) -> None:
    if (kind, chosen) not in _announced:
        _announced.add((kind, chosen))
        better = f" (skipped {'; '.join(skipped)})" if skipped else ""
        logger.info("%s: %s%s", kind, chosen, better)
