"""Long work, one piece at a time over all visitors, with progress and a way to stop it."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar, cast

from renderers.errors import SceneError
from scenegen.stopping import Stopped, stoppable

logger = logging.getLogger("scenegen")

T = TypeVar("T")
END = object()
Work = Generator[tuple[str, float | None], None, None]
"""Says after each part what was done, and which share of all is done, 0 to 1, if that is known.
Closed when it is to stop early; or it ends by itself, at a checkpoint."""


@dataclass(frozen=True)
class Job:
    """Work that is going on."""

    title: str
    """What is done, such as "Growing here"."""
    who: str
    """Who asked for it; empty for the command line."""

    def __str__(self) -> str:
        return f"{self.title} ({self.who})" if self.who else self.title


def one_by_one(parts: Iterable[T], lock: threading.Lock) -> Iterator[T]:
    """The same parts; each is made while the lock is held."""
    left = iter(parts)
    while True:
        with lock:
            part = next(left, END)
        if part is END:
            return
        yield cast(T, part)


class Jobs:
    """Runs one job at a time. Safe to use from any thread.

    Args:
        tell: Called with the job, what it says, and the share that is done; with None for all
            when it has ended.
    """

    def __init__(self, tell: Callable[[Job | None, str, float | None], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._ended.set()

    @property
    def job(self) -> Job | None:
        """What is going on now."""
        return self._job

    def start(
        self, job: Job, work: Callable[[], Work], failed: Callable[[Exception], None]
    ) -> None:
        """Do the work in a thread of its own.

        Args:
            job: What it is.
            work: Makes the generator; called in that thread.
            failed: Called with what went wrong.

        Raises:
            SceneError: Other work is going on.
        """
        self._take(job)

        def run() -> None:
            try:
                self._run(job, work)
            except Exception as error:
                if not isinstance(error, SceneError):
                    logger.exception("viewer: %s failed", job.title)
                failed(error)

        threading.Thread(target=run, name=job.title, daemon=True).start()

    def run(self, job: Job, work: Callable[[], Work]) -> bool:
        """Do the work here and now.

        Returns:
            Whether it was done to the end.

        Raises:
            SceneError: Other work is going on, or the work failed.
        """
        self._take(job)
        return self._run(job, work)

    def cancel(self) -> None:
        """Ask what is going on to stop, at its next :func:`scenegen.stopping.checkpoint`."""
        job = self._job
        if job is not None and not self._stop.is_set():
            self._stop.set()
            self._tell(job, "stopping ...", None)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until nothing is going on. Returns whether that is so."""
        return self._ended.wait(seconds)

    def _take(self, job: Job) -> None:
        with self._lock:
            if self._job is not None:
                raise SceneError(
                    f"{job.title.lower()} has to wait",
                    why=f"one thing is done at a time, and now it is: {self._job}",
                    fix="wait until it is done, or cancel it",
                )
            self._job = job
            self._stop.clear()
            self._ended.clear()

    def _run(self, job: Job, work: Callable[[], Work]) -> bool:
        try:
            self._tell(job, "", 0.0)
            with stoppable(self._stop.is_set), contextlib.closing(work()) as parts:
                for text, share in parts:
                    if self._stop.is_set():
                        return False
                    self._tell(job, text, share)
            return True
        except Stopped:
            return False
        finally:
            with self._lock:
                self._job = None
            self._tell(None, "", None)
            self._ended.set()
