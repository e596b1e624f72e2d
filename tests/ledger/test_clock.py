from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.ledger.clock import MAX_AGE, MAX_DRIFT, DatabaseClock
from airflow_provider_ropo.ledger.table import LedgerTable

NOON = dt.datetime(2024, 1, 4, 12)  # noqa: DTZ001 - as the ledger writes it


class FakeMachines:
    """A database and a worker, each with clocks of its own.

    :param round_trip: seconds that it takes to ask the database.
    """

    def __init__(self, round_trip: float = 0.0) -> None:
        self.database = NOON
        self.monotonic = 50.0
        self.wall = 1_000_000.0
        self.asked = 0
        self._round_trip = round_trip

    def ask(self) -> dt.datetime:
        self.asked += 1
        self.go_on(self._round_trip / 2)
        answer = self.database
        self.go_on(self._round_trip / 2)
        return answer

    def go_on(self, seconds: float) -> None:
        self.database += dt.timedelta(seconds=seconds)
        self.monotonic += seconds
        self.wall += seconds

    def clock(self) -> DatabaseClock:
        return DatabaseClock(self.ask, lambda: self.monotonic, lambda: self.wall)


def test_it_is_the_databases_time() -> None:
    """The time is the database's, whatever the worker's clock says, and goes on without being asked for."""
    machines = FakeMachines()
    clock = machines.clock()

    first = clock.now()
    machines.go_on(100)
    later = clock.now()

    assert (NOON, NOON + dt.timedelta(seconds=100), 1) == (first, later, machines.asked)


def test_the_quickest_answer_counts() -> None:
    """An answer that took long, because it had to connect first, is not relied on: another one is asked for."""
    machines = FakeMachines()
    slow = iter([6.0, 0.01])

    def ask() -> dt.datetime:
        answer = machines.ask()
        # All of the time is on the way back.
        machines.go_on(next(slow))
        return answer

    clock = DatabaseClock(ask, lambda: machines.monotonic, lambda: machines.wall)

    assert clock.now() - machines.database <= dt.timedelta(seconds=0.01)
    assert 2 == machines.asked


def test_it_is_off_by_half_a_round_trip_at_most() -> None:
    """The time of asking is taken to be in the middle of the round trip."""
    machines = FakeMachines(round_trip=2.0)

    assert machines.clock().now() == machines.database


def test_it_is_asked_again_after_a_while() -> None:
    """What the worker's clock drifts by does not add up: the database is asked again after some minutes."""
    machines = FakeMachines()
    clock = machines.clock()
    clock.now()

    machines.go_on(MAX_AGE + 0.1)
    machines.database += dt.timedelta(seconds=3)

    assert (machines.database, 2) == (clock.now(), machines.asked)


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["suspended or set forward", "set back"])
def test_it_is_asked_again_after_a_jump(seconds: float) -> None:
    """A worker that was suspended, or whose clock was set, asks again: its monotonic clock may have stood still."""
    machines = FakeMachines()
    clock = machines.clock()
    clock.now()

    machines.wall += seconds
    machines.database += dt.timedelta(seconds=abs(seconds))

    assert (machines.database, 2) == (clock.now(), machines.asked)


def test_a_small_drift_is_no_jump() -> None:
    """A wall clock that is slewed a little is no reason to ask."""
    machines = FakeMachines()
    clock = machines.clock()
    clock.now()

    machines.wall += MAX_DRIFT * 0.9
    clock.now()

    assert 1 == machines.asked


def test_an_error_is_not_remembered() -> None:
    """A database that could not be asked is asked again the next time."""
    machines = FakeMachines()
    is_away = True

    def ask() -> dt.datetime:
        if is_away:
            raise RopoLedgerError("away")
        return machines.ask()

    clock = DatabaseClock(ask, lambda: machines.monotonic, lambda: machines.wall)
    with pytest.raises(RopoLedgerError):
        clock.now()
    is_away = False

    assert NOON == clock.now()


def test_a_real_databases_time_is_utc(engine: sa.engine.Engine) -> None:
    """The database's time is UTC and naive, in whatever time zone its session is."""
    if engine.dialect.name == "postgresql":
        engine = sa.create_engine(
            engine.url.update_query_dict({"options": f"{engine.url.query['options']} -cTimeZone=Asia/Tokyo"}),
            poolclass=sa.NullPool,
        )
    table = LedgerTable(engine, "ropo_ledger")

    before = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    now = table.database_time()
    table.close()

    assert now.tzinfo is None
    assert abs(now - before) < dt.timedelta(seconds=10)


def test_a_real_databases_time_goes_on(tables: Callable[..., LedgerTable]) -> None:
    """Every answer is of the moment of asking, not of a transaction's beginning."""
    table = tables()

    first = table.database_time()
    time.sleep(0.05)
    second = table.database_time()

    assert dt.timedelta(seconds=0.05) <= second - first < dt.timedelta(seconds=10)
