"""A run sleeps at any step, for longer than others respect its claims, while another run sends the same events."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from airflow_provider_ropo.export.folder import FolderStore
from airflow_provider_ropo.export.publisher import FilePaths
from airflow_provider_ropo.export.store import FileStore
from file_runs import FileRuns, rows
from killed_runs import check_whole

#: Others take a claim for a dead run's at once.
NO_PATIENCE = {"claim_timeout": 0.000_001}
#: Steps of a run that sends a file; and one that it does not come to.
STEPS, NEVER = 46, 1_000
#: Pairs of steps that are tried.
PAIRS = 12


class Pausing:
    """Stands in for a ledger or a store, and calls a function before and after each of its calls.

    :param pause: takes the name of the call.
    """

    def __init__(self, target: Any, pause: Callable[[str], None]) -> None:
        self._target = target
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*values: Any, **named: Any) -> Any:
            self._pause(name)
            try:
                return found(*values, **named)
            finally:
                self._pause(name)

        return call


SOME, ALL = rows(3, places=2), rows(6, places=2)


class Sleeper:
    """A run on a thread of its own that sleeps at one of its steps until it is woken.

    :param step: counted from one.
    :param run: takes what is to be called at each step.
    """

    def __init__(self, step: int, run: Callable[[Callable[[str], None]], Any]) -> None:
        self._step = step
        self._count = 0
        self._sleeps, self._woken = threading.Event(), threading.Event()
        self._run = run
        self._thread = threading.Thread(target=self._work)
        self._thread.start()
        self._sleeps.wait(60)

    def wake(self) -> None:
        """Let it end."""
        self._woken.set()
        self._thread.join(60)

    def _work(self) -> None:
        try:
            self._run(self._pause)
        finally:
            self._sleeps.set()

    def _pause(self, _name: str) -> None:
        self._count += 1
        if self._count == self._step:
            self._sleeps.set()
            self._woken.wait(60)


def check_each_in_one_file(first: int, second: int, folder: Path, temporary: str | None, others: list[Any]) -> None:
    """Let two runs sleep, and wake the first one first; whatever they did, a third one finds or sends the rest."""
    folder.mkdir()
    paths = FilePaths("", temporary)
    runs, store = FileRuns(f"sqlite:///{folder}.db"), FolderStore(folder)

    def sleeper(step: int, given: list[Any], name: str) -> Sleeper:
        def run(pause: Callable[[str], None]) -> None:
            values: Any = {"paths": paths, "policy": NO_PATIENCE, "wrap": lambda ledger: Pausing(ledger, pause)}
            runs.run(given, cast("FileStore", Pausing(store, pause)), run_id=name, name=name, **values)

        return Sleeper(step, run)

    for each in (sleeper(first, ALL, "first"), sleeper(second, others, "second")):
        each.wake()
    for name in ("third", "fourth"):
        last = runs.run(ALL, store, run_id=name, name=name, paths=paths, policy=NO_PATIENCE)

    assert (None, 0) == (last.stopped, last.summary.failed), (first, second)
    whole = [path.read_bytes() for path in folder.iterdir() if path.suffix != ".part"]
    check_whole(whole, (f"e{number}" for number in range(6)))


@pytest.mark.parametrize("temporary", [".part", None], ids=["renamed", "no temporary name"])
def test_sleep_at_every_step(tmp_path: Path, temporary: str | None) -> None:
    """Wherever a run sleeps while another takes over from it, each event is in one file, and none is lost."""
    for step in range(1 if temporary else 2, STEPS + 1, 2):
        check_each_in_one_file(step, NEVER, tmp_path / f"{step}", temporary, SOME if step % 4 < 2 else ALL)


def test_two_sleep(tmp_path: Path) -> None:
    """The same holds where the run that takes over falls asleep, too."""
    steps = random.Random(8)  # noqa: S311 - the same every time
    for number in range(PAIRS):
        first, second = steps.randint(5, 16), steps.randint(18, STEPS)
        check_each_in_one_file(first, second, tmp_path / f"{number}", ".part" if number % 3 else None, SOME)
