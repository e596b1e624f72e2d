"""Snowflake's own driver and dialect, over fakesnow: Snowflake's SQL, answered by DuckDB within this process."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from collections.abc import Iterator

import fakesnow
import pytest
import sqlalchemy as sa

from airflow_provider_ropo.delivery import Delivery
from airflow_provider_ropo.dispatch.dispatcher import Dispatcher
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import LedgerTable
from ledger_steps import DESTINATION, look_up

# How fakesnow asks DuckDB.
pytestmark = pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")

ME = Claimant("dag", "report", "run_1", -1, 1, "me")
LATER = ME._replace(run_id="run_2", process="later")

TEN = dt.datetime(2024, 1, 4, 10, tzinfo=dt.UTC)
EVENTS = [
    UsageplaceEvent(
        f"e{number}",
        f"RE{number % 20}",
        UsageplaceStatus.CONNECTED,
        TEN + dt.timedelta(minutes=number // 20),
        description="Usage place connected",
    )
    for number in range(60)
]


@pytest.fixture
def engine() -> Iterator[sa.engine.Engine]:
    """Return an engine on an empty Snowflake database."""
    with fakesnow.patch():
        engine = sa.create_engine("snowflake://user:password@account/warehouse/ops")
        yield engine
        engine.dispose()


def open_ledger(engine: sa.engine.Engine, me: Claimant = ME, name: str = "ropo_ledger") -> DeliveryLedger:
    ledger = DeliveryLedger(LedgerTable(engine, name), DESTINATION, me, LedgerPolicy())
    ledger.prepare()
    return ledger


def send_all(ledger: DeliveryLedger) -> tuple[list[str], Counter[str]]:
    """Send the events, and return which ones were sent, and the delivery statuses."""
    sent: list[str] = []
    ends: Counter[str] = Counter()
    places = dict.fromkeys(event.usageplacecode for event in EVENTS)
    lanes = [[event for event in EVENTS if event.usageplacecode == place] for place in places]

    def count(delivery: Delivery) -> None:
        ends[delivery.status.value] += 1

    def send(event: UsageplaceEvent) -> None:
        sent.append(event.id)

    Dispatcher(send, count, ledger=ledger, max_workers=8, stop=threading.Event()).run(lanes)
    return sorted(sent), ends


@pytest.mark.parametrize(
    "name", ["ropo_ledger", "ops.ropo_ledger", '"Ropo Ledger"', 'warehouse.ops."Ropo Ledger"', '"OPS".ropo_ledger']
)
def test_the_second_run_recognises_all(name: str, engine: sa.engine.Engine) -> None:
    """The table is made once, by any name that Snowflake has for it; the second run recognises every event."""
    before = LedgerTable(engine, name).exists()

    first = send_all(open_ledger(engine, name=name))
    second = send_all(open_ledger(engine, LATER, name))

    assert not before
    assert (sorted(event.id for event in EVENTS), {"delivered": 60}) == first
    assert ([], {"already_delivered": 60}) == second


def test_microseconds_are_kept(engine: sa.engine.Engine) -> None:
    """``recorded_at`` comes back to the microsecond: what happens within a second keeps its order."""
    moment = dt.datetime(2026, 1, 14, 5, 0, 0, 123456)  # noqa: DTZ001 - as the ledger writes it
    table = LedgerTable(engine, "ropo_ledger")
    ledger = DeliveryLedger(table, DESTINATION, ME, LedgerPolicy(), now=lambda: moment)
    ledger.prepare()

    look_up(ledger, EVENTS[0])

    assert [("sending", moment)] == [
        (entry.delivery_status, entry.recorded_at) for entry in table.entries(["e0"])["e0"]
    ]


def test_a_name_without_quotes_is_folded_as_snowflake_does(engine: sa.engine.Engine) -> None:
    """The table of ``ropo_ledger`` is the one that Snowflake itself calls ROPO_LEDGER."""
    open_ledger(engine)

    with engine.connect() as connection:
        assert 0 == connection.execute(sa.text('SELECT count(*) FROM "ROPO_LEDGER"')).scalar_one()
