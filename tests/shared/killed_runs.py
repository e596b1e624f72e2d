"""Runs that are killed, until one ends well; imported as ``from killed_runs import Worker``."""

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
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

T = TypeVar("T")
R = TypeVar("R")

TESTS = Path(__file__).resolve().parents[1]
#: What makes the tries of a run that posts, and of one that sends a file.
POSTING, FILES = TESTS / "pipeline" / "crashing" / "run.py", TESTS / "export" / "crashing" / "run.py"
ENOUGH_TRIES = 60


class Worker:
    """Makes tries, one after another, each in a process of its own.

    :param script: makes a try.
    :param arguments: of the script; ``--airflow`` where a try needs a connection.
    """

    def __init__(self, script: Path, *arguments: str) -> None:
        self._command = [sys.executable, str(script), *arguments]
        self._process = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @cached_property
    def _script(self) -> subprocess.Popen[str]:
        """The process that forks: it imports for a second, so it is there only where it is used."""
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def prepare(self) -> None:
        """Let the first try start as soon as any other."""
        assert self._script.poll() is None

    def start(self, job: Mapping[str, Any]) -> None:
        """Start a try."""
        assert self._script.stdin is not None
        self._script.stdin.write(json.dumps(job) + "\n")
        self._script.stdin.flush()
        self._process = self._told()["process"]

    def signal(self, number: signal.Signals) -> None:
        """Send the try a signal."""
        os.kill(self._process, number)

    def kill(self) -> None:
        """Kill the try, if it has not ended yet."""
        with suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)

    def wait(self) -> dict[str, Any]:
        """Return how the try ended."""
        end: dict[str, Any] = {"well": False, "stopped": "killed"}
        while "ended" not in (told := self._told()):
            end = told
        assert "bug" not in end, end["bug"]
        return end | told

    def run(self, job: Mapping[str, Any], kill_after: float | None = None) -> dict[str, Any]:
        """Make one try; return how it ended.

        :param kill_after: seconds after which it is killed, if it is still there.
        """
        self.start(job)
        if kill_after is not None:
            # Any moment will do: nothing is waited for.
            time.sleep(kill_after)
            self.kill()
        return self.wait()

    def finish(self, make_job: Callable[[int], Mapping[str, Any]], first: int = 1) -> dict[str, Any]:
        """Make one try after another, from that number on, until one ends well; return how that ended."""
        for number in range(first, first + ENOUGH_TRIES):
            end = self.run(make_job(number))
            if end["well"]:
                return end
            time.sleep(0.1)
        raise AssertionError(end)

    def close(self) -> None:
        """Make no more tries."""
        if "_script" not in vars(self):
            return
        assert self._script.stdin is not None
        assert self._script.stdout is not None
        self._script.stdin.close()
        self._script.wait(30)
        self._script.stdout.close()

    def _told(self) -> dict[str, Any]:
        assert self._script.stdout is not None
        # Airflow logs to the standard output.
        line = next(line for line in self._script.stdout if line.startswith("{"))
        told: dict[str, Any] = json.loads(line)
        return told


def later_tries(job: Mapping[str, Any]) -> Callable[[int], dict[str, Any]]:
    """Return what makes the job of a try, by its number, from that of the first one: that one alone kills itself."""
    return lambda number: {**job, "try": number, "kill_at": 0}


class Workers:
    """Several workers, which run stories side by side.

    :param script: as :class:`Worker`'s.
    """

    def __init__(self, count: int, script: Path) -> None:
        self._workers: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(count)
        for _ in range(count):
            self._workers.put(Worker(script))
        self._count = count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._pool.shutdown()
        for _ in range(self._count):
            self._workers.get().close()

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
