from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from airflow_provider_ropo.dispatch.workers import Workers

SOON = 5.0


class AtWork(NamedTuple):
    """Workers at work, and what they handed back."""

    workers: Workers[int, object]
    done: queue.SimpleQueue[tuple[int, object]]

    def put(self, *jobs: int) -> None:
        for job in jobs:
            self.workers.put(job)

    def get(self) -> tuple[int, object]:
        return self.done.get(timeout=SOON)


@contextmanager
def at_work(do: Callable[[int], object], count: int = 2, stop: threading.Event | None = None) -> Iterator[AtWork]:
    done: queue.SimpleQueue[tuple[int, object]] = queue.SimpleQueue()
    workers: Workers[int, object] = Workers(do, count, stop or threading.Event(), done.put)
    workers.start()
    try:
        yield AtWork(workers, done)
    finally:
        workers.shutdown()


def test_each_job_comes_back_with_its_result() -> None:
    """Every job is done once, and handed back with what came of it."""
    with at_work(lambda job: job * job) as workers:
        workers.put(*range(50))
        results = dict(workers.get() for _ in range(50))

    assert {job: job * job for job in range(50)} == results
    assert workers.done.empty()


@pytest.mark.parametrize("bug", [ZeroDivisionError("no"), SystemExit(3)], ids=["error", "exit"])
def test_bug_comes_back_and_the_worker_goes_on(bug: BaseException) -> None:
    """What a bug raises is handed back with its job, and the thread takes the next one."""

    def do(job: int) -> int:
        if job == 0:
            raise bug
        return job

    with at_work(do, count=1) as workers:
        workers.put(0, 1)

        assert [(0, bug), (1, 1)] == [workers.get(), workers.get()]


def test_jobs_are_done_side_by_side() -> None:
    """As many jobs as there are threads are done at once, and not one more."""
    together = threading.Barrier(3)
    done: list[int] = []

    def do(job: int) -> None:
        together.wait(SOON)
        done.append(job)

    with at_work(do, count=3) as workers:
        workers.put(*range(4))
        first = [workers.get()[1] for _ in range(3)]
        with pytest.raises(queue.Empty):
            workers.done.get(timeout=0.05)
        together.abort()
        _, broken = workers.get()

    assert [None] * 3 == first
    assert isinstance(broken, threading.BrokenBarrierError)
    assert 3 == len(done)


def test_jobs_not_begun_come_back_undone() -> None:
    """Once told to stop, threads hand back undone what they have not begun."""
    stop = threading.Event()
    done: list[int] = []
    with at_work(done.append, stop=stop) as workers:
        stop.set()
        workers.put(1)

        assert (1, None) == workers.get()
    assert [] == done


def test_jobs_behind_a_stuck_one_are_taken_back() -> None:
    """Jobs that wait behind one that is stuck can be taken back, and are not done then."""
    release, begun = threading.Event(), threading.Event()
    done: list[int] = []

    def do(job: int) -> None:
        begun.set()
        release.wait(SOON)
        done.append(job)

    with at_work(do, count=1) as workers:
        workers.put(*range(4))
        assert begun.wait(SOON)

        assert [1, 2, 3] == list(workers.workers.cancel_pending())
        assert [] == list(workers.workers.cancel_pending())
        release.set()
        assert (0, None) == workers.get()
    assert [0] == done


def test_dismissed_threads_end() -> None:
    """Dismissed, every thread ends; none keeps the process from ending."""
    before = set(threading.enumerate())
    with at_work(int, count=3) as workers:
        threads = set(threading.enumerate()) - before
        workers.put(1)

    for thread in threads:
        thread.join(SOON)
    assert [(True, False)] * 3 == [(thread.daemon, thread.is_alive()) for thread in threads]
