"""Runs that send a file and are killed, until one ends well; imported as ``from killed_runs import Worker``."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

SCRIPT = Path(__file__).resolve().parents[1] / "export" / "crashing" / "run.py"
ENOUGH_TRIES = 30


class Worker:
    """Makes tries, one after another, each in a process of its own.

    :param arguments: of the script; ``--airflow`` where a try needs a connection.
    """

    def __init__(self, *arguments: str) -> None:
        self._script = subprocess.Popen(
            [sys.executable, SCRIPT, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._script.stdin is not None
        assert self._script.stdout is not None
        self._script.stdin.close()
        self._script.wait(30)
        self._script.stdout.close()

    def run(self, job: Mapping[str, Any], kill_after: float | None = None) -> dict[str, Any]:
        """Make one try; return how it ended.

        :param kill_after: seconds after which it is killed, if it is still there.
        """
        assert self._script.stdin is not None
        self._script.stdin.write(json.dumps(job) + "\n")
        self._script.stdin.flush()
        process = self._told()["process"]
        if kill_after is not None:
            # Any moment will do: nothing is waited for.
            time.sleep(kill_after)
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        end: dict[str, Any] = {"well": False, "said": "killed"}
        while "ended" not in (told := self._told()):
            end = told
        assert "bug" not in end, end["bug"]
        return end

    def finish(self, job: Mapping[str, Any], first: int) -> dict[str, Any]:
        """Make one try after another, from that number on, until one ends well."""
        for number in range(first, first + ENOUGH_TRIES):
            end = self.run({**job, "try": number, "kill_at": 0})
            if end["well"]:
                return end
        raise AssertionError(end)

    def _told(self) -> dict[str, Any]:
        assert self._script.stdout is not None
        # Airflow logs to the standard output.
        line = next(line for line in self._script.stdout if line.startswith("{"))
        told: dict[str, Any] = json.loads(line)
        return told


class Workers:
    """Several workers, which run stories side by side.

    :param arguments: of their script.
    """

    def __init__(self, count: int, *arguments: str) -> None:
        self._workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(count)
        for _ in range(count):
            self._workers.put(Worker(*arguments))
        self._count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()
        for _ in range(self._count):
            self._workers.get().__exit__()

    def run(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Make one try."""
        return self._with_a_worker(lambda worker: worker.run(job))

    def each(self, story: Callable[[Worker, T], None], values: Iterable[T]) -> None:
        """Run a story for each value."""

        def run(value: T) -> None:
            self._with_a_worker(lambda worker: story(worker, value))

        for _ in self._pool.map(run, values):
            pass

    def _with_a_worker(self, work: Callable[[Worker], R]) -> R:
        worker = self._workers.get()
        try:
            return work(worker)
        finally:
            self._workers.put(worker)


def check_whole(files: Iterable[bytes], expected: Iterable[str]) -> None:
    """Check that the files hold these events, each once, and nothing else."""
    lines = [json.loads(line) for content in files for line in content.splitlines()]
    assert Counter(expected) == Counter(event["id"] for event in lines)
