"""What once misled the ledger's users, each with all of the ledger and a real database."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import PendingClaim, Round
from airflow_provider_ropo.ledger.clock import DatabaseClock
from airflow_provider_ropo.ledger.decisions import Action, LedgerPolicy
from airflow_provider_ropo.ledger.entries import TICK, Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.schema import define_table
from airflow_provider_ropo.ledger.states import open_events
from airflow_provider_ropo.ledger.table import LedgerTable
from ledger_steps import DESTINATION, LedgerTime, actions, claim, look_up, record, send, statuses, written

MakeEvent = Callable[..., UsageplaceEvent]
OpenLedger = Callable[..., DeliveryLedger]

ME = Claimant("dag", "report", "run_1", -1, 1, "me")
OTHER = ME._replace(run_id="run_2", process="other")
TEST = "http://localhost:8099 1000011"


def listed(engine: sa.engine.Engine) -> list[tuple[str | None, str, str]]:
    """Return what the ledger's list of open events says."""
    with engine.connect() as connection:
        rows = connection.execute(open_events(define_table("ropo_ledger")))
        return sorted((row.destination, row.event_id, row.delivery_status) for row in rows)


# Where an event went.


def test_what_a_test_server_has_is_sent_to_production(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """After a green run against a test server, the same ledger sends every event to production, once."""
    events = [make_event(f"e{number}") for number in range(23)]
    test = open_ledger(ME, destination=TEST)
    for event in events:
        send(test, event)

    first = claim(open_ledger(OTHER), *events)
    again = claim(open_ledger(ME._replace(run_id="run_3", process="third"), destination=TEST), *events)

    assert {Action.SEND: 23} == Counter(actions(first))
    assert {Action.ALREADY_DELIVERED: 23} == Counter(actions(again))


def test_claims_of_another_destination_stand_in_no_ones_way(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """Two runs may send one event to two Ropo Ones at the same time."""
    first = claim(open_ledger(ME, destination=TEST), make_event())
    second = claim(open_ledger(OTHER), make_event())

    assert [Action.SEND, Action.SEND] == actions([*first, *second])


def test_a_later_event_elsewhere_makes_none_stale(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """What a test server was told of a usage place does not make production's events stale."""
    send(open_ledger(ME, destination=TEST), make_event("e1", "RE1", "11:00"))
    production = open_ledger(OTHER)

    send(production, make_event("e2", "RE1", "10:00"))

    assert 0 == production.stale


# One odd row.


def test_an_odd_event_stops_no_other(engine: sa.engine.Engine, open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """An id that the database refuses is not sent; results in the same round and other claims are written once."""
    ledger = open_ledger(ME)
    ready = claim(ledger, *(make_event(f"e{number}", f"RE{number}") for number in range(24)))
    # Too long for an index of PostgreSQL: it cannot be compressed.
    odd = [make_event("".join(chr(0x4E00 + number) for number in range(3_000)), "RE91")]
    results = [(each, Delivery(DeliveryStatus.DELIVERED, each.event.id, attempts=1)) for each in ready]

    outcome = ledger.exchange(
        Round(look_ups=[*odd, make_event("next", "RE92")], claim_limit=3, claims_per_place=1, results=results)
    )

    sent = {each.event.id for each in outcome.unresolved}
    assert {"next"} <= sent
    assert sent | {each.event.id for each in outcome.refused} == {"next", *(event.id for event in odd)}
    if engine.dialect.name == "postgresql":
        assert {"next"} == sent
    assert [["sending", "delivered"]] * 24 == [statuses(engine, f"e{number}") for number in range(24)]
    again = open_ledger(OTHER).decide([each.event for each in ready])
    assert {Action.ALREADY_DELIVERED: 24} == Counter(actions(again))


# A claim that ran out.


@pytest.mark.parametrize("seconds", [601, 3_600], ids=["just over", "an hour"])
def test_a_claim_that_ran_out_hides_no_delivery(
    seconds: int, engine: sa.engine.Engine, open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A run that wakes after its claim ran out and another run delivered records that before the delivery."""
    sleeping, awake = open_ledger(ME), open_ledger(OTHER)
    [claimed] = claim(sleeping, make_event())
    clock.go_on(seconds)
    send(awake, make_event())
    clock.go_on(60)

    assert claimed.holds_until < clock.seconds
    record(sleeping, claimed, "undelivered", "the claim ran out", attempts=0)

    rows = written(engine)
    assert ["sending", "undelivered", "unconfirmed", "sending", "delivered"] == [row.delivery_status for row in rows]
    assert TICK == rows[1].recorded_at - rows[0].recorded_at
    assert [] == listed(engine)
    assert [Action.ALREADY_DELIVERED] == actions(open_ledger(OTHER).decide([make_event()]))


def test_a_late_result_hides_no_delivery(
    engine: sa.engine.Engine, open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A row that is newer than another run's delivery of the event does not make it undelivered."""
    slow, awake = open_ledger(ME), open_ledger(OTHER)
    [claimed] = claim(slow, make_event())
    clock.go_on(601)
    send(awake, make_event())
    clock.go_on(60)

    record(slow, claimed, "undelivered", "no answer", attempts=3)

    assert "undelivered" == statuses(engine)[-1]
    assert [] == listed(engine)
    assert [Action.ALREADY_DELIVERED] == actions(open_ledger(OTHER).decide([make_event()]))


# Clocks.


@pytest.fixture
def apart(engine: sa.engine.Engine) -> Iterator[list[DeliveryLedger]]:
    """Return the ledgers of two workers whose clocks are hours apart, in a database with one of its own."""
    ledgers = []
    for number, hours in enumerate((-5, 7)):
        table = LedgerTable(engine, "ropo_ledger")
        clock = DatabaseClock(
            table.database_time,
            monotonic=lambda offset=hours: time.monotonic() + 3600 * offset,  # type: ignore[misc]
            wall=lambda offset=hours: time.time() + 3600 * offset,  # type: ignore[misc]
        )
        me = ME._replace(run_id=f"run_{number}", process=f"process {number}")
        ledgers.append(DeliveryLedger(table, DESTINATION, me, LedgerPolicy(claim_timeout=60), now=clock.now))
    ledgers[0].prepare()
    yield ledgers
    for ledger in ledgers:
        ledger.close()


@pytest.mark.parametrize("first", [0, 1], ids=["the slow one first", "the fast one first"])
def test_clocks_that_differ_by_hours_double_nothing(
    first: int, apart: list[DeliveryLedger], engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """Two live runs on workers whose clocks differ by more than the claim timeout respect each other's claims."""
    events = [make_event(f"e{number}") for number in range(20)]
    one, other = apart[first], apart[1 - first]

    sent = claim(one, *events)
    refused = claim(other, *events)
    for each in sent:
        record(one, each)
    known = claim(other, *events)

    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    assert {Action.SEND: 20} == Counter(actions(sent))
    assert {Action.CLAIMED_ELSEWHERE: 20} == Counter(actions(refused))
    assert {Action.ALREADY_DELIVERED: 20} == Counter(actions(known))
    assert all(abs(row.recorded_at - now) < dt.timedelta(seconds=60) for row in written(engine, "e0"))


# Stale.


def test_stale_is_decided_when_an_event_is_delivered(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """An event that is overtaken between its claim and its delivery is stale, and the one that overtook it is not."""
    slow, fast = open_ledger(ME), open_ledger(OTHER)
    claimed = claim(slow, *(make_event(f"early{number}", "RE1", f"10:{number:02}") for number in range(8)))
    record(slow, claimed[0])
    clock.go_on(1)
    send(fast, make_event("late", "RE1", "11:00"))
    clock.go_on(1)

    for each in claimed[1:]:
        record(slow, each)

    marked = [each.event.id for each in claimed if "stale" in str(written(engine, each.event.id)[-1].detail)]
    assert [each.event.id for each in claimed[1:]] == marked
    assert (7, 0) == (slow.stale, fast.stale)


# Whose claim.


def test_the_same_try_in_two_processes(open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent) -> None:
    """Two processes that are the same try of the same task instance do not take each other's claims for their own."""
    one, twin = open_ledger(ME), open_ledger(ME._replace(process="twin"))
    events = [make_event(f"e{number}") for number in range(20)]
    mine = claim(one, *events[:10])

    theirs = claim(twin, *events)
    for each in mine:
        record(one, each)
    again = claim(twin, *events[:10])

    assert [Action.CLAIMED_ELSEWHERE] * 10 + [Action.SEND] * 10 == actions(theirs)
    assert {Action.ALREADY_DELIVERED: 10} == Counter(actions(again))


def test_the_same_try_in_two_processes_at_once(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """Of two processes of one try that claim an event at once, one sends it."""
    one, twin = open_ledger(ME), open_ledger(ME._replace(process="twin"))
    event = make_event()
    crossing: list[PendingClaim] = []
    crossed: list[object] = []

    def cross(*told: object) -> None:
        if not crossed and str(told[2]).startswith("INSERT"):
            crossed.append(told)
            crossing.extend(look_up(twin, event))

    sa.event.listen(engine, "before_cursor_execute", cross)
    mine = look_up(one, event)
    found: list[Action] = []
    pending = [(one, mine[0]), (twin, crossing[0])]
    while pending:
        clock.wait()
        ledger, each = pending.pop(0)
        outcome = ledger.exchange(Round(unresolved=[each]))
        pending += [(ledger, later) for later in outcome.unresolved]
        found += actions([*outcome.ready, *outcome.refused])

    assert {Action.SEND: 1, Action.CLAIMED_ELSEWHERE: 1} == Counter(found)


# Never twice.


def test_an_event_that_changed_since_the_earlier_layout_is_not_sent_later(
    engine: sa.engine.Engine, open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A delivery of the earlier layout is known after a run has recorded that the event changed since."""
    earlier, changed = make_event(), make_event(customernumber="A1")
    send(open_ledger(ME), earlier)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE ropo_ledger SET destination = NULL, process = NULL"))
    clock.go_on(60)
    run = open_ledger(OTHER)
    [found] = look_up(run, changed)
    record(run, found, "changed", found.decision.detail, attempts=0)
    clock.go_on(60)

    later = open_ledger(ME._replace(run_id="run_3", process="third"))
    decisions = [*later.decide([changed]), *later.decide([earlier])]

    assert [Action.CONTENT_CHANGED, Action.ALREADY_DELIVERED] == actions(decisions)


def test_a_result_that_cannot_be_written_is_an_error(
    engine: sa.engine.Engine, open_ledger: OpenLedger, make_event: MakeEvent
) -> None:
    """A run whose delivered events cannot be recorded learns of it: they would be sent again."""
    ledger = open_ledger(ME)
    [claimed] = claim(ledger, make_event())
    ledger.release_connection()
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE ropo_ledger RENAME TO gone"))

    with pytest.raises(RopoLedgerError):
        record(ledger, dataclasses.replace(claimed), "rejected")


def test_a_ledger_for_each_process(engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """Two processes without anything in common but the table see each other's results."""
    ledgers = [
        DeliveryLedger(LedgerTable(engine, "ropo_ledger"), DESTINATION, me, LedgerPolicy()) for me in (ME, OTHER)
    ]
    with closing(ledgers[0]), closing(ledgers[1]):
        ledgers[0].prepare()
        send(ledgers[0], make_event())

        assert [Action.ALREADY_DELIVERED] == actions(ledgers[1].decide([make_event()]))
