"""What keeps kernels safe and repeatable: one lock for parallel ones, and strict arithmetic."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from numba import njit

RENDER_LOCK = threading.RLock()
"""Held by whoever runs a parallel kernel. Numba's `workqueue` threads, the only ones present on
every machine, abort the process when two Python threads use them at once."""


def strict_kernel(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that compiles a function on its first call, with IEEE arithmetic to the letter.

    No operation is reordered or fused, so that an element gives the same bits whichever thread,
    vector lane or loop remainder works on it. Numba's disk cache notices changes in the file of
    a kernel only: kernels read constants and call functions of their own file, nothing else.

    Args:
        parallel: Whether the function's ``prange`` loops are spread over threads. Call such a
            kernel under RENDER_LOCK.
    """

    def compile_lazily(function: Callable[..., Any]) -> Callable[..., Any]:
        plain = inspect.unwrap(function)  # without the wrapper of the test-time shape checker
        options: dict[str, Any] = {"parallel": parallel, "nogil": True, "error_model": "numpy"}
        try:
            return njit(cache=True, **options)(plain)
        except RuntimeError as error:  # numba found no folder that it may write to
            if "cannot cache" not in str(error):
                raise
            return njit(**options)(plain)

    return compile_lazily
