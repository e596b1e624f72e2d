"""Threads that do jobs side by side, and hand back each with its result."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Generic, TypeVar

J = TypeVar("J")
R = TypeVar("R")


class Workers(Generic[J, R]):
    """Does jobs on threads of its own.

    :param do: does one job; called on the threads.
    :param count: how many there are.
    :param stop: once it is set, jobs that have not begun are handed back undone.
    :param done: takes each job with its result; called on the threads.
    """

    def __init__(
        self,
        do: Callable[[J], R],
        count: int,
        stop: threading.Event,
        done: Callable[[tuple[J, R | BaseException | None]], object],
    ) -> None:
        self._do = do
        self._count = count
        self._stop = stop
        self._jobs: queue.SimpleQueue[J | None] = queue.SimpleQueue()
        self._done = done

    def start(self) -> None:
        """Start the threads. They do not keep the process from ending."""
        for number in range(self._count):
            threading.Thread(target=self._work, name=f"ropo-{number}", daemon=True).start()

    def put(self, job: J) -> None:
        """Hand over a job."""
        self._jobs.put(job)

    def cancel_pending(self) -> Iterator[J]:
        """Yield the jobs that no thread has begun, and never will: they may all be at work on others, and stuck."""
        with suppress(queue.Empty):
            while (job := self._jobs.get_nowait()) is not None:
                yield job

    def shutdown(self) -> None:
        """Let the threads end, each after the job it is at."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _work(self) -> None:
        for job in iter(self._jobs.get, None):
            # None: not begun. An error: a bug, which the other side raises again.
            result: R | BaseException | None
            try:
                result = None if self._stop.is_set() else self._do(job)
            except BaseException as error:  # noqa: BLE001
                result = error
            self._done((job, result))
