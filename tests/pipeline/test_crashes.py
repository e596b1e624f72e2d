"""Nothing lost, nothing sent twice: processes are killed at any moment, and run side by side, until all is done.

Each try is a process of its own, on a real database, against a sandbox in this process. At the end, what the ledger
says and what arrived are held against each other, event by event, on this machine's one clock.
"""

from __future__ import annotations

import datetime as dt
import random
import signal
import sqlite3
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.sandbox import Fault, Sandbox
from airflow_provider_ropo.sandbox.request_log import Arrival
from killed_runs import POSTING, Worker

Row = dict[str, Any]
MakeEngine = Callable[[str], sa.engine.Engine]


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    """Ten workers."""
    workers = [Worker(POSTING) for _ in range(10)]
    yield workers
    for worker in workers:
        worker.close()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A local Ropo One that takes a moment for an answer."""
    with Sandbox(latency=0.01) as sandbox:
        yield sandbox


def rows_of(count: int, places: int, prefix: str = "e") -> list[Row]:
    """Return rows in a wild order; of some places there are many, of most a few."""
    order = random.Random(count)  # noqa: S311 - the same every time
    rows = []
    for number in range(count):
        place = min(order.randrange(places), order.randrange(places), order.randrange(places))
        time = dt.datetime(2024, 1, 4, 6) + dt.timedelta(seconds=number)  # noqa: DTZ001 - in the server's zone
        rows.append(
            {
                "id": f"{prefix}{number}",
                "usageplacecode": f"{prefix}-RE{place}",
                "status": order.choice(["connected", "disconnected"]),
                "time": time.isoformat(),
                "customernumber": f"A{number}",
            }
        )
    order.shuffle(rows)
    return rows


def job(database: str, sandbox: Sandbox, rows: list[Row], run: str, number: int = 1, **policy: Any) -> dict[str, Any]:
    """Return what a worker has to do: a try of a run."""
    me = Claimant("dag", "report", run, -1, number)
    what = {"me": me, "rows": rows, "policy": policy, "workers": 8}
    return what | {"database": database, "server": sandbox.url, "first": ""}


class Story:
    """What the ledger says and what arrived, event by event."""

    def __init__(self, engine: sa.engine.Engine, sandbox: Sandbox) -> None:
        self.rows: dict[str, list[Any]] = defaultdict(list)
        with engine.connect() as connection:
            table = sa.Table("ropo_ledger", sa.MetaData(), autoload_with=connection)
            for row in connection.execute(sa.select(table).order_by(table.c.recorded_at)):
                self.rows[row.event_id].append(row)
        self.arrivals: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in sandbox.arrivals:
            self.arrivals[arrival.payload["id"]].append(arrival)

    def took(self, event_id: str) -> list[dt.datetime]:
        """Return when Ropo One took the event in."""
        return [when(arrival) for arrival in self.arrivals[event_id] if arrival.accepted]

    def written(self, event_id: str, *statuses: str) -> list[dt.datetime]:
        """Return when one of these was written about the event."""
        return [row.recorded_at for row in self.rows[event_id] if row.delivery_status in statuses]

    def states(self) -> dict[str, str]:
        """Return each event's state: delivered, whatever is newer, or else its newest row's."""
        return {
            event_id: "delivered" if self.written(event_id, "delivered") else rows[-1].delivery_status
            for event_id, rows in self.rows.items()
            if rows
        }

    def posted_after_delivery(self) -> list[str]:
        """Return the events that were posted, with whatever success, after their delivery was recorded."""
        return [
            event_id
            for event_id, arrivals in self.arrivals.items()
            if (delivered := self.written(event_id, "delivered")) and when(arrivals[-1]) > delivered[0]
        ]

    def posted_unannounced(self) -> list[str]:
        """Return the events that were posted without *sending* before it."""
        return [
            event_id
            for event_id, arrivals in self.arrivals.items()
            if not (sending := self.written(event_id, "sending")) or when(arrivals[0]) < sending[0]
        ]

    def doubled(self) -> list[str]:
        """Return the events that arrived more than once."""
        return [event_id for event_id in self.arrivals if len(self.took(event_id)) > 1]

    def doubled_unawares(self) -> list[str]:
        """Return the events of which one arrived after another without being unconfirmed in between.

        Attempts after an attempt without an answer belong to one *sending*, and need no word in between.
        """
        return [
            event_id
            for event_id in self.arrivals
            for one, other in pairwise(self.took(event_id))
            if any(one < time <= other for time in self.written(event_id, "sending"))
            and not any(one < time <= other for time in self.written(event_id, "unconfirmed"))
        ]

    def out_of_order(self, rows: Sequence[Row]) -> list[str]:
        """Return the places whose events did not first arrive in the order of their time."""
        lanes: dict[str, list[str]] = defaultdict(list)
        for row in sorted(rows, key=lambda row: row["time"]):
            lanes[row["usageplacecode"]].append(row["id"])
        firsts = {
            place: [took[0] for event_id in event_ids if (took := self.took(event_id))]
            for place, event_ids in lanes.items()
        }
        return [place for place, times in firsts.items() if times != sorted(times)]

    def violations(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """Return what must not be, whatever happened on the way."""
        wrong = {
            "posted after its delivery was recorded": self.posted_after_delivery(),
            "posted unannounced": self.posted_unannounced(),
            "arrived twice unawares": self.doubled_unawares(),
            "out of order": self.out_of_order(rows),
            "recorded but never arrived": [
                event_id
                for event_id in self.rows
                for delivered in self.written(event_id, "delivered")[:1]
                if not any(took <= delivered for took in self.took(event_id))
            ],
        }
        return {what: event_ids for what, event_ids in wrong.items() if event_ids}


def when(arrival: Arrival) -> dt.datetime:
    return dt.datetime.fromisoformat(arrival.received_at).replace(tzinfo=None)


def trouble(chance: random.Random) -> Iterator[Fault]:
    """Yield a bad day's answers."""
    while True:
        yield chance.choices(
            [
                Fault(),
                Fault(status=503),
                Fault(status=429, headers={"Retry-After": "0"}),
                Fault(cut=True),
                Fault(cut=True, remember=True),
                Fault(delay=0.2),
            ],
            [80, 2, 2, 2, 2, 2],
        )[0]


class Campaign:
    """Kills tries at random moments, a given number of times, and then lets every run end well."""

    def __init__(self, database: str, sandbox: Sandbox, kills: int) -> None:
        self._database = database
        self._sandbox = sandbox
        self._wanted = kills
        self._lock = threading.Lock()
        self.kills = 0
        self.rows: list[Row] = []
        self.extra: list[Row] = []

    def go_on(self, worker: Worker, number: int) -> None:
        """Make runs over rows of their own, and over some of the run before, until enough tries were killed."""
        chance = random.Random(number)  # noqa: S311 - the same every time
        before: list[Row] = []
        run = 0
        while not run or self.kills < self._wanted:
            rows = rows_of(60, 15, f"w{number}-r{run}-")
            bad = {"id": f"w{number}-r{run}-bad", "usageplacecode": "X", "status": "exploded", "time": "2024-01-04"}
            refused = dict(rows[0], id=f"w{number}-r{run}-refused", usageplacecode=f"UNKNOWN-{number}-{run}")
            with self._lock:
                self.rows += rows
                self.extra += [bad, refused]
            make_job = partial(job, self._database, self._sandbox, [*before, *rows, bad, refused], f"{number}-{run}")
            self._run(worker, make_job, chance)
            before = rows[:20]
            run += 1

    def _run(self, worker: Worker, make_job: Callable[[int], dict[str, Any]], chance: random.Random) -> None:
        for number in range(1, 8):
            worker.start(make_job(number))
            self._wait_for_a_bad_moment(chance)
            worker.kill()
            end = worker.wait()
            with self._lock:
                self.kills += end["ended"] == -signal.SIGKILL
            if end["well"]:
                return
        worker.finish(make_job, 8)

    def _wait_for_a_bad_moment(self, chance: random.Random) -> None:
        """Wait for some events to arrive, of whichever run, or a while."""
        arrived = len(self._sandbox.arrivals) + chance.randrange(1, 40)
        until = time.monotonic() + chance.choice([0.1, 0.3, 2, 2])
        while time.monotonic() < until and len(self._sandbox.arrivals) < arrived:
            time.sleep(0.005)
        time.sleep(chance.random() * 0.1)


def test_killed_again_and_again(
    database: str, engine: sa.engine.Engine, sandbox: Sandbox, workers: list[Worker]
) -> None:
    """However often tries are killed: all arrives, in order, nothing after its delivery, nothing twice unawares."""
    faults = trouble(random.Random(database[:6]))  # noqa: S311
    sandbox.script(next(faults) for _ in range(2_000))
    campaign = Campaign(database, sandbox, 50)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(campaign.go_on, workers[:4], range(4)))

    story = Story(engine, sandbox)
    assert campaign.kills >= 50
    assert {} == story.violations(campaign.rows)
    expected = {row["id"]: "delivered" for row in campaign.rows}
    expected |= {row["id"]: "invalid" if row["id"].endswith("bad") else "rejected" for row in campaign.extra}
    assert expected == story.states()
    assert {row["id"] for row in campaign.rows} == {payload["id"] for payload in sandbox.events}


def wait_for(arrivals: int, sandbox: Sandbox) -> None:
    """Wait until this number of events has arrived."""
    until = time.monotonic() + 30
    while len(sandbox.arrivals) < arrivals:
        assert time.monotonic() < until
        time.sleep(0.005)


@pytest.mark.parametrize("count", [2, 10])
def test_side_by_side(
    count: int, database: str, engine: sa.engine.Engine, sandbox: Sandbox, workers: list[Worker]
) -> None:
    """Runs over the same rows at once, one of them killed: nothing arrives twice but what the killed one left open."""
    rows = rows_of(200, 40)
    jobs = [partial(job, database, sandbox, rows, f"run_{number}") for number in range(count)]

    def go_on(worker: Worker, make_job: Callable[[int], dict[str, Any]]) -> dict[str, Any]:
        end = worker.wait()
        return end if end["well"] else worker.finish(make_job, 2)

    for worker in workers[:count]:
        worker.prepare()
    for worker, make_job in zip(workers, jobs, strict=False):
        worker.start(make_job(1))
    wait_for(25, sandbox)
    workers[0].kill()
    with ThreadPoolExecutor(count) as pool:
        ends = list(pool.map(go_on, workers, jobs))

    story = Story(engine, sandbox)
    killed = {
        event_id
        for event_id, rows in story.rows.items()
        for row in rows
        if (row.run_id, row.try_number) == ("run_0", 1)
    }
    assert {True} == {end["well"] for end in ends}
    assert {} == story.violations(rows)
    assert {row["id"]: 1 for row in rows} == {row["id"]: len(story.written(row["id"], "delivered")) for row in rows}
    assert {"delivered", "already_delivered"} >= set(story.states().values())
    assert killed >= set(story.doubled())


def test_killed_for_good(database: str, engine: sa.engine.Engine, sandbox: Sandbox, workers: list[Worker]) -> None:
    """What a run that was killed and never comes back left open is taken over by another once its claim runs out."""
    rows = rows_of(100, 20)
    workers[0].start(job(database, sandbox, rows, "dead"))
    wait_for(20, sandbox)
    workers[0].kill()
    workers[0].wait()

    workers[1].start(job(database, sandbox, rows, "alive"))
    at_once = workers[1].wait()
    time.sleep(1)
    end = workers[1].finish(partial(job, database, sandbox, rows, "alive", claim_timeout=1), 2)

    story = Story(engine, sandbox)
    assert (False, True) == (at_once["well"], end["well"])
    assert at_once["counts"]["held"] > 0
    assert {} == story.violations(rows)
    assert {row["id"]: "delivered" for row in rows} == story.states()


def test_a_superseded(database: str, engine: sa.engine.Engine, workers: list[Worker]) -> None:
    """A try that still posts when the next one starts stops by itself, and hands over what it had not sent."""
    rows = rows_of(300, 40)
    with Sandbox(latency=0.05) as sandbox:
        workers[0].start(job(database, sandbox, rows, "run", 1))
        wait_for(60, sandbox)
        workers[1].start(job(database, sandbox, rows, "run", 2))
        superseded, end = workers[0].wait(), workers[1].wait()

        story = Story(engine, sandbox)
    assert ("SupersededError", True) == (superseded["stopped"], end["well"])
    assert {} == story.violations(rows)
    assert {row["id"]: "delivered" for row in rows} == story.states()
    # What was on its way when the superseded try had to stop, at the very most.
    assert 8 >= len(story.doubled())


def test_a_frozen_superseded(database: str, engine: sa.engine.Engine, workers: list[Worker]) -> None:
    """A try that freezes, and wakes when the next one has done all, posts no more than what it had in its hands."""
    rows = rows_of(200, 40)
    with Sandbox(latency=0.05) as sandbox:
        workers[0].start(job(database, sandbox, rows, "run", 1))
        wait_for(60, sandbox)
        freeze(workers[0], engine)
        end = workers[1].finish(partial(job, database, sandbox, rows, "run"), 2)
        arrived = len(sandbox.arrivals)
        workers[0].signal(signal.SIGCONT)
        superseded = workers[0].wait()

        story = Story(engine, sandbox)
        posted = len(sandbox.arrivals) - arrived
    assert ("SupersededError", True) == (superseded["stopped"], end["well"])
    assert {row["id"] for row in rows} == {event_id for event_id in story.rows if story.written(event_id, "delivered")}
    assert [] == story.doubled_unawares()
    assert 16 >= posted


def freeze(worker: Worker, engine: sa.engine.Engine) -> None:
    """Freeze a try, but not while it reads or writes: SQLite would let nobody else write until it wakes."""
    while True:
        worker.signal(signal.SIGSTOP)
        time.sleep(0.05)
        if engine.dialect.name != "sqlite" or is_free(str(engine.url.database)):
            return
        worker.signal(signal.SIGCONT)
        time.sleep(0.01)


def is_free(database: str) -> bool:
    with closing(sqlite3.connect(database, timeout=0.1)) as connection:
        try:
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            return False
    return True


def make_table(worker: Worker, database: str, sandbox: Sandbox) -> None:
    """Let a try over no rows make the table."""
    worker.start(job(database, sandbox, [], "first"))
    assert worker.wait()["well"]


def test_read_only(tmp_path: Path, sandbox: Sandbox, workers: list[Worker]) -> None:
    """With a ledger that cannot be written, nothing at all is posted, and the error says why."""
    make_table(workers[0], f"sqlite:///{tmp_path / 'ledger.db'}", sandbox)

    workers[0].start(job(f"sqlite:///file:{tmp_path / 'ledger.db'}?mode=ro&uri=true", sandbox, rows_of(50, 10), "run"))
    end = workers[0].wait()

    assert [] == sandbox.arrivals
    assert ("RopoLedgerError", "the ledger ropo_ledger could not be written: attempt to write a readonly database") == (
        end["stopped"],
        end["said"],
    )
    assert (50, 0) == (end["counts"]["undelivered"], end["counts"]["delivered"])


@pytest.mark.parametrize("pages", [10, 15, 20, 30])
def test_full_disk(
    pages: int, tmp_path: Path, sandbox: Sandbox, workers: list[Worker], make_engine: MakeEngine
) -> None:
    """When the disk is full, posting ends with it; when there is room again, the next try brings the rest."""
    database, rows = f"sqlite:///{tmp_path / 'ledger.db'}", rows_of(200, 40)
    make_table(workers[0], database, sandbox)
    full = job(database, sandbox, rows, "run") | {"first": f"PRAGMA max_page_count = {pages}"}

    workers[0].start(full)
    end = workers[0].wait()
    engine = make_engine(database)
    full_story, posted = Story(engine, sandbox), len(sandbox.arrivals)
    workers[0].finish(partial(job, database, sandbox, rows, "run"), 2)

    assert ("RopoLedgerError", "the ledger ropo_ledger could not be written: database or disk is full") == (
        end["stopped"],
        end["said"],
    )
    assert [] == full_story.posted_unannounced()
    assert posted < len(rows)
    story = Story(engine, sandbox)
    assert {} == story.violations(rows)
    assert {row["id"]: "delivered" for row in rows} == story.states()


@pytest.mark.parametrize("arrivals", [1, 20, 70, 130])
def test_dropped_connection(
    arrivals: int, postgres: Any, sandbox: Sandbox, workers: list[Worker], make_engine: MakeEngine
) -> None:
    """When PostgreSQL hangs up, a new connection takes over: nothing is lost, and nothing is posted twice."""
    name = f"ropo_{uuid.uuid4().hex[:8]}"
    database, rows = postgres.address(postgres.make_schema(), application_name=name), rows_of(200, 40)
    with postgres.connect(autocommit=True) as connection:
        make_table(workers[0], database, sandbox)

        workers[0].start(job(database, sandbox, rows, "run"))
        wait_for(arrivals, sandbox)
        hung_up = 0
        while not hung_up:
            query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = %s"
            (hung_up,) = connection.execute(query, [name]).fetchone()
        end = workers[0].wait()

    assert (True, None) == (end["well"], end["stopped"])
    story = Story(make_engine(database), sandbox)
    assert [] == story.doubled()
    assert {} == story.violations(rows)
    assert {row["id"]: "delivered" for row in rows} == story.states()
