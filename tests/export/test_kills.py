"""A process is killed at every step of a run that sends a file: the next try leaves one whole file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from killed_runs import FILES, Worker, Workers, check_whole, later_tries


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Return workers, which are there from the start."""
    with Workers(3, FILES) as workers:
        yield workers


def job_in(folder: Path, number: int = 0, **others: Any) -> dict[str, Any]:
    """Return a first try that sends to a folder of its own, with a ledger of its own."""
    drop = folder / f"drop{number}"
    drop.mkdir(parents=True)
    database = f"sqlite:///{folder / f'ledger{number}.db'}"
    job = {"database": database, "path": str(drop), "rows": 6, "places": 2, "run": "run", "try": 1}
    return job | others


def files_of(job: dict[str, Any]) -> list[bytes]:
    return [path.read_bytes() for path in Path(job["path"]).iterdir()]


@pytest.mark.parametrize("temporary", [".part", None], ids=["renamed", "no temporary name"])
def test_kill_at_every_step(workers: Workers, tmp_path: Path, temporary: str | None) -> None:
    """Killed at any step, a run leaves what the next try makes one whole file of, and nothing else."""

    def story(worker: Worker, step: int) -> None:
        job = job_in(tmp_path, step, temporary=temporary)
        assert not worker.run(job | {"kill_at": step})["well"]
        worker.finish(later_tries(job), first=2)
        files = files_of(job)
        assert 1 == len(files), step
        check_whole(files, (f"e{number}" for number in range(6)))

    steps = workers.run(job_in(tmp_path / "whole", temporary=temporary))["steps"]
    assert steps >= 12
    workers.each(story, range(1, steps + 1))


def test_kill_at_every_step_of_the_next_try(workers: Workers, tmp_path: Path) -> None:
    """Killed between the rename and the deliveries, and again at any step of the next try, nothing is sent twice."""

    def story(worker: Worker, step: int) -> None:
        job = job_in(tmp_path, step)
        worker.run(job | {"kill_at": renamed})
        worker.run(job | {"try": 2, "kill_at": step})
        worker.finish(later_tries(job), first=3)
        files = files_of(job)
        assert 1 == len(files)
        check_whole(files, (f"e{number}" for number in range(6)))

    # The steps after it: the file is recorded, and then its events.
    renamed = workers.run(job_in(tmp_path / "whole"))["steps"] - 4
    workers.each(story, range(1, 9))


def test_more_events_after_a_kill(workers: Workers, tmp_path: Path) -> None:
    """Events that come between a kill and the next try are sent, too, and none is in two files."""

    def story(worker: Worker, step: int) -> None:
        job = job_in(tmp_path, step)
        worker.run(job | {"kill_at": step})
        worker.finish(later_tries(job | {"rows": 9, "name": "later"}), first=2)
        files = files_of(job)
        assert len(files) <= 2
        check_whole(files, (f"e{number}" for number in range(9)))

    steps = workers.run(job_in(tmp_path / "whole"))["steps"]
    workers.each(story, range(1, steps + 1, 2))
