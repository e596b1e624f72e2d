from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.dispatch.dispatcher import Dispatcher
from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import Round
from airflow_provider_ropo.ledger.decisions import Action, LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import RECONNECT_DELAYS, LedgerTable
from ledger_steps import DESTINATION, actions, claim, look_up, record, statuses, verify

MakeEvent = Callable[..., UsageplaceEvent]

ME = Claimant("dag", "report", "run_1", -1, 1, "me")


class Outage:
    """A ledger whose way to PostgreSQL a test can cut; waits take no time.

    :param address: PostgreSQL, past the proxy.
    :param through: PostgreSQL, by the proxy.
    """

    def __init__(self, address: str, through: str, proxy: Any) -> None:
        self.proxy = proxy
        self.engine = sa.create_engine(address, poolclass=sa.NullPool)
        #: Seconds of each wait for the database.
        self.waits: list[float] = []
        #: The database is back after that number of waits.
        self.back_after = 1
        self._through = sa.create_engine(through)
        self.ledger = DeliveryLedger(
            LedgerTable(self._through, "ropo_ledger", sleep=self._sleep), DESTINATION, ME, LedgerPolicy()
        )
        self.ledger.prepare()

    def later(self) -> DeliveryLedger:
        """Return the ledger as a later run sees it."""
        me = ME._replace(run_id="run_2", process="later")
        return DeliveryLedger(LedgerTable(self.engine, "ropo_ledger"), DESTINATION, me, LedgerPolicy())

    def close(self) -> None:
        self.ledger.close()
        self._through.dispose()

    def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) >= self.back_after:
            self.proxy.is_away = False


@pytest.fixture(params=["psycopg", "psycopg2"])
def outage(request: pytest.FixtureRequest, postgres: Any, proxy: Any) -> Iterator[Outage]:
    """Return a ledger in PostgreSQL, by two drivers."""
    schema = postgres.make_schema()
    plain = {"sslmode": "disable", "gssencmode": "disable"}
    through = postgres.address(schema, driver=request.param, host="127.0.0.1", port=str(proxy.port), **plain)
    outage = Outage(postgres.address(schema), through, proxy)
    yield outage
    outage.close()


def rows_of(engine: sa.engine.Engine) -> Counter[tuple[str, str]]:
    """Count the rows of each event and delivery status."""
    with engine.connect() as connection:
        return Counter(
            (event_id, status)
            for event_id, status in connection.execute(sa.text("SELECT event_id, delivery_status FROM ropo_ledger"))
        )


def test_a_connection_that_was_cut_is_replaced(outage: Outage, make_event: MakeEvent) -> None:
    """A connection that a firewall has cut between two rounds is replaced, and the round goes on."""
    claimed = claim(outage.ledger, make_event("e1"))
    outage.proxy.cut()
    record(outage.ledger, claimed[0])

    assert {("e1", "sending"): 1, ("e1", "delivered"): 1} == rows_of(outage.engine)


def test_connections_that_the_server_ended_are_replaced(outage: Outage, make_event: MakeEvent) -> None:
    """A restarted server ends connections in the middle of claim, verify and record; nothing is lost or doubled."""
    end = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND client_addr IS NULL AND query LIKE '%ropo_ledger%'"
    )

    def terminate() -> None:
        with outage.engine.begin() as connection:
            assert connection.execute(end).scalars().all()

    claimed = look_up(outage.ledger, make_event("e1"), make_event("e2"))
    terminate()
    ready = verify(outage.ledger, *claimed)
    terminate()
    for each in ready:
        record(outage.ledger, each)
        terminate()

    assert dict.fromkeys([(name, status) for name in ("e1", "e2") for status in ("sending", "delivered")], 1) == (
        rows_of(outage.engine)
    )


@pytest.mark.parametrize("waits", [1, 4, len(RECONNECT_DELAYS)])
def test_a_database_that_is_away_is_waited_for(waits: int, outage: Outage, make_event: MakeEvent) -> None:
    """Results wait for a database that is away for up to half a minute, and are written once."""
    events = [make_event(f"e{number}", f"RE{number}") for number in range(20)]
    ready = claim(outage.ledger, *events)
    outage.back_after = waits
    outage.proxy.go_away()

    results = [(each, Delivery(DeliveryStatus.DELIVERED, each.event.id, attempts=1)) for each in ready]
    outage.ledger.exchange(Round(results=results))

    assert list(RECONNECT_DELAYS[:waits]) == outage.waits
    assert {(event.id, status): 1 for event in events for status in ("sending", "delivered")} == rows_of(outage.engine)


def test_a_database_that_stays_away_is_an_error(outage: Outage, make_event: MakeEvent) -> None:
    """After half a minute the run stops with an error; results can be written later, and are then there once."""
    ready = claim(outage.ledger, make_event("e1"))
    outage.back_after = 1_000
    outage.proxy.go_away()

    with pytest.raises(RopoLedgerError, match="ropo_ledger could not be"):
        record(outage.ledger, ready[0])
    outage.proxy.is_away = False
    record(outage.ledger, ready[0])

    assert 25 < sum(outage.waits) < 60
    assert {("e1", "sending"): 1, ("e1", "delivered"): 1} == rows_of(outage.engine)


@pytest.mark.parametrize("count", [1, 3, 1_200], ids=["one", "a few", "several statements"])
def test_a_lost_answer_is_looked_up(count: int, outage: Outage, make_event: MakeEvent) -> None:
    """What was committed although its answer was lost is not written again, and what was not is completed."""
    ready = claim(outage.ledger, *(make_event(f"e{number}", f"RE{number}") for number in range(count)))
    outage.proxy.loses_answer_to = b"INSERT"

    results = [(each, Delivery(DeliveryStatus.DELIVERED, each.event.id, attempts=1)) for each in ready]
    outage.ledger.exchange(Round(results=results))

    assert 1 == outage.proxy.lost
    assert {(each.event.id, status): 1 for each in ready for status in ("sending", "delivered")} == rows_of(
        outage.engine
    )


def test_a_claims_lost_answer_is_looked_up(outage: Outage, make_event: MakeEvent) -> None:
    """A claim whose answer was lost is written once, and the event is sent by this run alone."""
    outage.proxy.loses_answer_to = b"INSERT"

    ready = claim(outage.ledger, make_event("e1"))

    later = outage.later()
    assert 1 == outage.proxy.lost
    assert ([Action.SEND], ["sending"]) == (actions(ready), statuses(outage.engine))
    assert [Action.CLAIMED_ELSEWHERE] == actions(later.decide([make_event("e1")]))
    later.close()


def test_a_round_is_two_round_trips(outage: Outage, make_event: MakeEvent) -> None:
    """A round asks PostgreSQL twice, once to read and once to write, whatever the number of events."""
    ready = claim(outage.ledger, *(make_event(f"a{number}", f"RE{number}") for number in range(50)))
    waiting = look_up(outage.ledger, *(make_event(f"b{number}", f"RE{number}") for number in range(50)))
    results = [(each, Delivery(DeliveryStatus.DELIVERED, each.event.id, attempts=1)) for each in ready]
    third = [make_event(f"c{number}", f"RE{number}") for number in range(50)]
    before = outage.proxy.round_trips

    outage.ledger.exchange(
        Round(look_ups=third, claim_limit=50, claims_per_place=50, unresolved=waiting, results=results)
    )

    assert 2 == outage.proxy.round_trips - before


def test_a_run_goes_on_through_an_outage(outage: Outage, make_event: MakeEvent) -> None:
    """A run whose database goes away again and again posts every event once, and remembers every one."""
    events = [make_event(f"e{number}", f"RE{number}") for number in range(60)]
    sent: list[str] = []
    ends: Counter[str] = Counter()

    def post(event: UsageplaceEvent) -> None:
        sent.append(event.id)
        if len(sent) % 15 == 0:
            outage.back_after = len(outage.waits) + 2
            outage.proxy.go_away()

    Dispatcher(
        post,
        lambda delivery: ends.update([delivery.status.value]),
        ledger=outage.ledger,
        max_workers=4,
        stop=threading.Event(),
    ).run([[event] for event in events])

    assert {"delivered": 60} == ends
    assert {event.id: 1 for event in events} == Counter(sent)
    assert {(event.id, status): 1 for event in events for status in ("sending", "delivered")} == rows_of(outage.engine)
