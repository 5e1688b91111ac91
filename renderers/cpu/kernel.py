"""How kernels are compiled: cached on disk where a folder allows it, announced when it takes long.

Numba's disk cache notices a change in the file of a kernel and in the types of its arguments, and
nothing else. Kernels therefore read no constant from another file: such values are arguments. After
a change to this file, delete the ``__pycache__`` beside it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.event import Event, Listener, register

logger = logging.getLogger("scenegen")

FLOAT_RULES = {"contract", "nsz", "arcp", "afn"}
"""Liberties the compiler may take with floats. NaN and infinity keep their meaning, and sums their
order: work is cut into blocks and tiles of fixed size, so bits do not depend on the threads."""


def kernel(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that compiles a function on its first call.

    Args:
        parallel: Whether the function's ``prange`` loops are spread over threads. Such a kernel
            runs under renderers.locking.RENDER_LOCK.
    """

    def compile_lazily(function: Callable[..., Any]) -> Callable[..., Any]:
        plain = inspect.unwrap(function)  # without the wrapper of the test-time shape checker
        options: dict[str, Any] = {
            "parallel": parallel,
            "nogil": True,
            "forceinline": not parallel,  # a call per row of pixels costs more than the row
            "fastmath": FLOAT_RULES,
            "error_model": "numpy",
        }
        try:
            return njit(cache=True, **options)(plain)
        except RuntimeError as error:  # numba found no folder that it may write to
            if "cannot cache" not in str(error):
                raise
            logger.debug("kernels compile in every process: %s", error)
            return njit(**options)(plain)

    return compile_lazily


class _Announcer(Listener):
    """Tells the user, once, why the first picture takes long."""

    def __init__(self) -> None:
        self.done = False

    def on_start(self, event: Event) -> None:
        """A kernel was not in the cache."""
        kernel = (event.data or {}).get("dispatcher")
        if not self.done and getattr(kernel, "__module__", "").startswith("renderers.cpu."):
            self.done = True
            logger.info("compiling kernels, once (about 10 s)")

    def on_end(self, event: Event) -> None:
        """Nothing to say."""


register("numba:compile", _Announcer())
