"""The same bits on machines with any number of cores: networks run with a fixed number of threads.

Matrix products and convolutions split their sums among the threads there are, and round
differently then. The renderer and the fits do not, and use all cores.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 2
"""Of torch, while a world is made. More gain little for networks as small as ours."""


def steady(function: Callable[P, T]) -> Callable[P, T]:
    """A function that runs with THREADS threads of torch, and leaves the number as it was."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        before = torch.get_num_threads()
        torch.set_num_threads(THREADS)
        try:
            return function(*args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return run
