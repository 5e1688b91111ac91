"""A way to be asked to stop in the middle of long work, between two of its parts.

The parts call :func:`checkpoint` where nothing is half written; who has them done says, with
:func:`stoppable`, when that shall end them. Without it they go on to the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Stopped(BaseException):
    """Somebody asked to stop. No Exception: nobody shall take it for a failure and go on."""


_asked: ContextVar[Callable[[], bool] | None] = ContextVar("asked", default=None)


@contextmanager
def stoppable(asked: Callable[[], bool]) -> Iterator[None]:
    """Let work in this thread be stopped.

    Args:
        asked: Whether it shall stop; asked often.
    """
    before = _asked.set(asked)
    try:
        yield
    finally:
        _asked.reset(before)


def checkpoint() -> None:
    """Stop here, if somebody asked for it.

    Raises:
        Stopped: That is so.
    """
    asked = _asked.get()
    if asked is not None and asked():
        raise Stopped
