"""A run sleeps at any step, for longer than others respect its claims, while another run sends the same events."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.export.folder import FolderStore
from airflow_provider_ropo.export.publisher import FilePaths
from file_runs import FileRuns, rows
from killed_runs import check_whole

#: Others take a claim for a dead run's at once.
NO_PATIENCE = {"claim_timeout": 0.000_001}


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


def published(folder: Path) -> list[bytes]:
    """Return the files; an upload of a run that was asleep may be left."""
    return [path.read_bytes() for path in folder.iterdir() if path.suffix != ".part"]


@pytest.mark.parametrize("others", [rows(6, places=2), rows(3, places=2)], ids=["the same", "some of them"])
@pytest.mark.parametrize("temporary", [".part", None], ids=["renamed", "no temporary name"])
def test_sleep_at_every_step(tmp_path: Path, temporary: str | None, others: list[dict[str, Any]]) -> None:
    """Wherever a run sleeps while another takes over from it, each event is in one file, and none is lost."""
    for number in count(1):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        runs, store = FileRuns(f"sqlite:///{tmp_path}/{number}.db"), FolderStore(folder)
        paths, steps = FilePaths("", temporary), []

        def pause(name: str) -> None:
            steps.append(name)
            if len(steps) == number:
                runs.run(others, store, run_id="other", name="other", paths=paths, policy=NO_PATIENCE)

        given: Any = Pausing(store, pause)
        runs.run(rows(6, places=2), given, paths=paths, wrap=lambda ledger: Pausing(ledger, pause))  # type: ignore[arg-type, return-value]
        last = runs.run(rows(6, places=2), store, run_id="last", name="last", paths=paths, policy=NO_PATIENCE)

        assert last.stopped is None, (number, steps[number - 1], last.stopped)
        assert last.summary.failed == 0, (number, steps[number - 1], last.counts)
        check_whole(published(folder), (f"e{each}" for each in range(6)))
        if len(steps) < number:
            break
