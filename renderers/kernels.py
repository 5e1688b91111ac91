"""How numba kernels are compiled, for all parts that have them, and the lock around parallel ones.

Kernels are cached on disk where a folder allows it (``NUMBA_CACHE_DIR`` is honoured), otherwise
compiled in each process. Numba's cache notices a change in the file of a kernel and in the types
of its arguments, and nothing else: kernels read no constant and call no function of another file.
After a change to this file, delete the ``__pycache__`` folders of the kernels.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core.event import Event, Listener, register

logger = logging.getLogger("scenegen")

RENDER_LOCK = threading.RLock()
"""Held by whoever runs a parallel kernel. Numba's `workqueue` threads, the only ones present on
every machine, abort the process when two Python threads use them at once."""
FLOAT_RULES = {"contract", "nsz", "arcp", "afn"}
"""Liberties the compiler may take in fast kernels. NaN and infinity keep their meaning, and sums
their order: work is cut into blocks of fixed size, so bits do not depend on the threads."""
OURS = ("renderers.", "spatial_memory.", "scenegen.")
"""Packages whose kernels are announced when they compile."""


def kernel(
    *, parallel: bool = False, fast: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that compiles a function on its first call.

    Args:
        parallel: Whether ``prange`` loops are spread over threads. Call it under RENDER_LOCK.
        fast: Allow FLOAT_RULES and inline the function in its callers. Otherwise arithmetic is
            IEEE to the letter: an element gives the same bits in every vector lane and remainder.
    """
    options: dict[str, Any] = {"parallel": parallel, "nogil": True, "error_model": "numpy"}
    if fast:
        # Not across parallel kernels; elsewhere a call per row of pixels costs more than the row.
        options |= {"fastmath": FLOAT_RULES, "forceinline": not parallel}

    def compile_lazily(function: Callable[..., Any]) -> Callable[..., Any]:
        plain = inspect.unwrap(function)  # without the wrapper of the test-time shape checker
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
        compiled = (event.data or {}).get("dispatcher")
        if not self.done and getattr(compiled, "__module__", "").startswith(OURS):
            self.done = True
            logger.info("compiling kernels, once (about 20 s)")

    def on_end(self, event: Event) -> None:
        """Nothing to say."""


register("numba:compile", _Announcer())
