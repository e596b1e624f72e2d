from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from airflow_provider_ropo.dispatch.workers import Workers

SOON = 5.0


@contextmanager
def at_work(
    do: Callable[[int], object], count: int = 2, stop: threading.Event | None = None
) -> Iterator[Workers[int, object]]:
    workers: Workers[int, object] = Workers(do, count, stop or threading.Event())
    workers.start()
    try:
        yield workers
    finally:
        workers.shutdown()


def test_each_job_comes_back_with_its_result() -> None:
    """Every job is done once, and handed back with what came of it."""
    with at_work(lambda job: job * job) as workers:
        for job in range(50):
            workers.put(job)
        results = dict(workers.get(SOON) for _ in range(50))

    assert {job: job * job for job in range(50)} == results
    with pytest.raises(queue.Empty):
        workers.get(0)


@pytest.mark.parametrize("bug", [ZeroDivisionError("no"), SystemExit(3)], ids=["error", "exit"])
def test_bug_comes_back_and_the_worker_goes_on(bug: BaseException) -> None:
    """What a bug raises is handed back with its job, and the thread takes the next one."""

    def do(job: int) -> int:
        if job == 0:
            raise bug
        return job

    with at_work(do, count=1) as workers:
        workers.put(0)
        workers.put(1)

        assert [(0, bug), (1, 1)] == [workers.get(SOON), workers.get(SOON)]


def test_jobs_are_done_side_by_side() -> None:
    """As many jobs as there are threads are done at once, and not one more."""
    together = threading.Barrier(3)
    done: list[int] = []

    def do(job: int) -> None:
        together.wait(SOON)
        done.append(job)

    with at_work(do, count=3) as workers:
        for job in range(4):
            workers.put(job)
        first = [workers.get(SOON)[1] for _ in range(3)]
        with pytest.raises(queue.Empty):
            workers.get(0.05)
        together.abort()
        _, broken = workers.get(SOON)

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

        assert (1, None) == workers.get(SOON)
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
        for job in range(4):
            workers.put(job)
        assert begun.wait(SOON)

        assert [1, 2, 3] == list(workers.cancel_pending())
        assert [] == list(workers.cancel_pending())
        release.set()
        assert (0, None) == workers.get(SOON)
    assert [0] == done


def test_getting_waits_no_longer_than_told() -> None:
    """Getting a result waits as long as told, and not at all for no time or less."""
    with at_work(int) as workers:
        for timeout, least, most in [(0.1, 0.09, SOON), (0, 0, 0.09), (-1, 0, 0.09)]:
            started = time.monotonic()
            with pytest.raises(queue.Empty):
                workers.get(timeout)
            assert least <= time.monotonic() - started < most


def test_dismissed_threads_end() -> None:
    """Dismissed, every thread ends; none keeps the process from ending."""
    before = set(threading.enumerate())
    with at_work(int, count=3) as workers:
        threads = set(threading.enumerate()) - before
        workers.put(1)

    for thread in threads:
        thread.join(SOON)
    assert [(True, False)] * 3 == [(thread.daemon, thread.is_alive()) for thread in threads]
