from __future__ import annotations

import dataclasses
import datetime as dt
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import permutations
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.dispatch.dispatcher import Dispatcher
from airflow_provider_ropo.errors import InvalidRowError, RopoLedgerError, SupersededError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import Action, Decision, LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import CLAIM_RACE_POLLS, EARLIER_TRY_POLLS, POLL_INTERVAL, DeliveryLedger
from airflow_provider_ropo.ledger.table import LedgerTable

SEND, KNOWN, CHANGED = Action.SEND, Action.ALREADY_DELIVERED, Action.CONTENT_CHANGED
CLAIMED_ELSEWHERE, LOST = Action.CLAIMED_ELSEWHERE, Action.UNCONFIRMED

ME = Claimant("dag", "report", "run_5", -1, 1)
RETRY = ME._replace(try_number=2)
EARLIER_RUN = ME._replace(run_id="run_3")
LATER_RUN = ME._replace(run_id="run_7")

MakeEvent = Callable[..., UsageplaceEvent]


class Clock:
    """Stands in for the time, and for waiting: what is to happen in the meantime happens then."""

    def __init__(self, hour: int = 12) -> None:
        self.time = dt.datetime(2024, 1, 4, hour)  # noqa: DTZ001 - as the ledger writes it
        self.polls = 0
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> dt.datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += dt.timedelta(seconds=seconds)
        self.polls += 1
        self.meanwhile()

    def go_on(self, seconds: float) -> None:
        self.time += dt.timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    """Return noon."""
    return Clock()


@pytest.fixture
def open_ledger(engine: sa.engine.Engine, clock: Clock) -> Callable[..., DeliveryLedger]:
    """Return a shorthand for the ledger, as one run sees it."""

    def open_one(me: Claimant = ME, now: Clock = clock, **policy: Any) -> DeliveryLedger:
        ledger = DeliveryLedger(
            LedgerTable(engine, "ropo_ledger"), me, LedgerPolicy(**policy), now=now, sleep=now.sleep
        )
        ledger.prepare()
        return ledger

    return open_one


OpenLedger = Callable[..., DeliveryLedger]


def claim(ledger: DeliveryLedger, *events: UsageplaceEvent) -> list[Decision]:
    """Look events up, claim those that are to be sent, and return how each stands then."""
    decisions = ledger.look_up(events)
    to_send = [(event, found) for event, found in zip(events, decisions, strict=True) if found.action is SEND]
    claimed = iter(ledger.claim(to_send))
    return [next(claimed) if found.action is SEND else found for found in decisions]


def actions(decisions: Iterable[Decision]) -> list[Action]:
    return [decision.action for decision in decisions]


def end(
    ledger: DeliveryLedger, event: UsageplaceEvent, status: str = "delivered", detail: str = "", **more: Any
) -> None:
    """Write what became of an event."""
    ledger.record([(event, Delivery(DeliveryStatus(status), event.id, detail=detail, **more))])


def send(ledger: DeliveryLedger, event: UsageplaceEvent, status: str = "delivered") -> None:
    """Claim an event, and write what became of it."""
    assert [SEND] == actions(claim(ledger, event))
    end(ledger, event, status)


def written(engine: sa.engine.Engine, event_id: str = "e1") -> list[Any]:
    """Return the rows about an event, oldest first."""
    with engine.connect() as connection:
        table = sa.Table("ropo_ledger", sa.MetaData(), autoload_with=connection)
        query = sa.select(table).where(table.c.event_id == event_id).order_by(table.c.recorded_at)
        return list(connection.execute(query))


def states(engine: sa.engine.Engine, event_id: str = "e1") -> list[str]:
    return [row.delivery_status for row in written(engine, event_id)]


# From one run to the next.


def test_a_row_before_and_a_row_after(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """Sending is written before an event is sent, and what became of it after, with all that is known."""
    ledger, event = open_ledger(RETRY), make_event("e1", "RE1", "10:00:00.5", customernumber="A1")

    claim(ledger, event)
    before = states(engine)
    clock.go_on(2)
    end(ledger, event, "rejected", "HTTP 400: unknown", http_status=400, attempts=3)

    rows = [row._asdict() for row in written(engine)]
    assert ["sending"] == before
    assert {
        "event_id": "e1",
        "usageplacecode": "RE1",
        "event_status": "connected",
        "event_time": dt.datetime(2024, 1, 4, 10),  # noqa: DTZ001 - as Ropo One is told
        "delivery_status": "rejected",
        "http_status": 400,
        "detail": "HTTP 400: unknown",
        "payload_hash": rows[0]["payload_hash"],
        "attempts": 3,
        "dag_id": "dag",
        "task_id": "report",
        "run_id": "run_5",
        "map_index": -1,
        "try_number": 2,
        "recorded_at": clock.time,
    } == rows[1]
    assert {"delivery_status": "sending", "http_status": None, "detail": None, "attempts": 0} == {
        name: rows[0][name] for name in ("delivery_status", "http_status", "detail", "attempts")
    }


@pytest.mark.parametrize("next_one", [RETRY, LATER_RUN], ids=["next try", "next run"])
@pytest.mark.parametrize(
    ("status", "action", "unconfirmed"),
    [
        ("delivered", KNOWN, False),
        ("rejected", SEND, False),
        ("undelivered", SEND, False),
        ("held", SEND, False),
        ("unconfirmed", SEND, True),
    ],
)
def test_what_is_taken_again(
    status: str,
    action: Action,
    unconfirmed: bool,  # noqa: FBT001
    next_one: Claimant,
    open_ledger: OpenLedger,
    make_event: MakeEvent,
) -> None:
    """What is delivered is never sent again; all else is, and what may have arrived is known to be so."""
    send(open_ledger(), make_event(), status)

    [decision] = claim(open_ledger(next_one), make_event())

    assert (action, unconfirmed) == (decision.action, decision.unconfirmed)


def test_a_long_story(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """Over many tries, each says what it knew, and the newest row is the event's state."""
    event = make_event()
    claim(open_ledger(ME), event)
    send(open_ledger(ME._replace(try_number=2)), event, "unconfirmed")
    send(open_ledger(ME._replace(try_number=3)), event, "undelivered")
    send(open_ledger(ME._replace(try_number=4)), event, "delivered")

    last = claim(open_ledger(ME._replace(try_number=5)), event)

    assert [
        (1, "sending"),
        (2, "unconfirmed"),
        (2, "sending"),
        (2, "unconfirmed"),
        (3, "unconfirmed"),
        (3, "sending"),
        (3, "undelivered"),
        (4, "unconfirmed"),
        (4, "sending"),
        (4, "delivered"),
    ] == [(row.try_number, row.delivery_status) for row in written(engine)]
    assert [KNOWN] == actions(last)


def test_unconfirmed_is_said(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    """What is sent although it may have arrived is named in the log, and the ledger says whose attempt that was."""
    events = [make_event(f"e{number}") for number in range(12)]
    claim(open_ledger(), *events)

    claim(open_ledger(RETRY), *events)

    named = ", ".join(f"e{number}" for number in range(10))
    assert [
        f"12 events may have arrived already and are sent again with the same id: {named}, …",
    ] == caplog.messages
    assert [None, "may have arrived already, from run run_5, try 1", None] == [row.detail for row in written(engine)]


@pytest.mark.parametrize("status", ["held", "undelivered"])
def test_unconfirmed_survives(
    status: str, open_ledger: OpenLedger, make_event: MakeEvent, engine: sa.engine.Engine
) -> None:
    """What may have arrived still may after a run that did not get to it, or not through with it."""
    send(open_ledger(), make_event(), "unconfirmed")
    send(open_ledger(EARLIER_RUN), make_event(), status)
    send(open_ledger(RETRY), make_event(), status)

    [decision] = open_ledger(LATER_RUN).look_up([make_event()])

    assert (SEND, True) == (decision.action, decision.unconfirmed)


def test_unconfirmed_survives_a_withdrawal(
    open_ledger: OpenLedger, make_event: MakeEvent, engine: sa.engine.Engine
) -> None:
    """A run that gives way to another leaves what may have arrived as it was."""
    event = make_event()
    send(open_ledger(EARLIER_RUN), event, "unconfirmed")
    late = open_ledger(LATER_RUN)
    found = late.look_up([event])
    first = open_ledger(ME)
    claim(first, event)
    withdrawn = late.claim([(event, found[0])])
    end(first, event, "undelivered")

    [decision] = open_ledger(RETRY).look_up([event])

    assert [CLAIMED_ELSEWHERE] == actions(withdrawn)
    assert ("unconfirmed", LATER_RUN.run_id) == next(
        (row.delivery_status, row.run_id) for row in reversed(written(engine)) if row.run_id == LATER_RUN.run_id
    )
    assert (SEND, True) == (decision.action, decision.unconfirmed)


@pytest.mark.parametrize(
    ("redeliver", "expected"),
    [("never", [KNOWN, CHANGED]), ("changed", [KNOWN, SEND]), ("always", [SEND, SEND])],
)
def test_redeliver(redeliver: str, expected: list[Action], open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """What is delivered is sent again never, if it changed, or always."""
    same, changed = make_event("e1", customernumber="A1"), make_event("e2", customernumber="A1")
    before = open_ledger()
    send(before, same)
    send(before, changed)

    again = claim(open_ledger(LATER_RUN, redeliver=redeliver), same, dataclasses.replace(changed, customernumber="A2"))

    assert expected == actions(again)


def test_changed_fields_are_named(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """What differs from what was sent is named by its fields, not by their values."""
    send(open_ledger(), make_event(description="cut off", customernumber="A1"))
    other = make_event(description="cut", customernumber="A2", time="10:30")

    [decision] = open_ledger(LATER_RUN).look_up([other])

    assert (
        CHANGED,
        "differs from what was sent with this id before: time, customernumber, description",
    ) == (decision.action, decision.detail.split(";")[0])


def test_hold(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """What may have arrived is held if the user wants that, and stays so until somebody resends it."""
    events = [make_event("e1"), make_event("e2")]
    before = open_ledger()
    claim(before, *events)
    end(before, events[1], "unconfirmed")
    holding = open_ledger(RETRY, on_unconfirmed="hold")

    held = holding.look_up(events)
    end(holding, events[0], "unconfirmed", held[0].detail)
    later = open_ledger(LATER_RUN).look_up(events)

    assert [LOST, LOST] == actions(held)
    assert ["sending", "unconfirmed"] == states(engine)
    assert [(SEND, True)] * 2 == [(decision.action, decision.unconfirmed) for decision in later]


def test_stale(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """An event is stale if a later one of its place had been delivered; it is sent, counted and marked."""
    send(open_ledger(), make_event("e1", "RE1", "11:00"))
    send(open_ledger(), make_event("e2", "RE2", "11:00"), "rejected")
    backfill = open_ledger(LATER_RUN)
    late = make_event("e3", "RE1", "10:59")

    claimed = claim(backfill, late, make_event("e4", "RE1", "11:00"), make_event("e5", "RE2", "10:00"))
    end(backfill, late, detail="at last")

    said = "stale: an event of 2024-01-04 11:00:00 of this usage place had been delivered before"
    assert [SEND] * 3 == actions(claimed)
    assert 1 == backfill.stale
    assert [said, f"at last; {said}"] == [row.detail for row in written(engine, "e3")]
    assert [None, None] == [row.detail for event_id in ("e4", "e5") for row in written(engine, event_id)]


def test_what_is_not_sent_is_not_counted_stale(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """An event that another run sends is that run's to count as stale."""
    send(open_ledger(), make_event("e1", "RE1", "11:00"))
    late = make_event("e2", "RE1", "10:00")
    first, second = open_ledger(ME), open_ledger(LATER_RUN)
    found = second.look_up([late])
    claim(first, late)

    second.claim([(late, found[0])])

    assert (1, 0) == (first.stale, second.stale)


def test_invalid_rows(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A row that never became an event is written down, unless its id is at Ropo One, or may be."""
    before = open_ledger()
    for number, status in enumerate(["delivered", "unconfirmed", "rejected", "undelivered"]):
        send(before, make_event(f"e{number}"), status)
    claim(before, make_event("e4"))
    ids = ["e0", "e1", "e2", "e3", "e4", "e5", None]

    open_ledger(LATER_RUN).record_invalid(
        InvalidRowError(f"row 7 (id {event_id})", "time", "is missing", event_id=event_id) for event_id in ids
    )

    newest = {event_id: states(engine, event_id)[-1] for event_id in ids if event_id}
    assert {
        "e0": "delivered",
        "e1": "unconfirmed",
        "e2": "invalid",
        "e3": "invalid",
        "e4": "sending",
        "e5": "invalid",
    } == newest
    assert ("row 7 (id e5): time: is missing", None, None) == next(
        (row.detail, row.usageplacecode, row.payload_hash) for row in written(engine, "e5")
    )


def test_an_invalid_row_does_not_hide_a_delivery(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """Rows that became invalid, and valid again, do not make an event forgotten."""
    send(open_ledger(), make_event())
    open_ledger(LATER_RUN).record_invalid([InvalidRowError("row 1", "time", "is missing", event_id="e1")])

    assert [KNOWN] == actions(open_ledger(RETRY).look_up([make_event()]))


# The next try of the same task instance.


def test_a_dead_try_is_taken_over(open_ledger: OpenLedger, clock: Clock, make_event: MakeEvent) -> None:
    """The next try takes over what the one before left open, after a moment in which that could still speak up."""
    claim(open_ledger(), make_event("e1"), make_event("e2"))
    retry = open_ledger(RETRY)

    decisions = [*claim(retry, make_event("e1")), *claim(retry, make_event("e2"))]

    assert [(SEND, True)] * 2 == [(decision.action, decision.unconfirmed) for decision in decisions]
    # Once, not for every event.
    assert EARLIER_TRY_POLLS == clock.polls
    assert 1 == pytest.approx(EARLIER_TRY_POLLS * POLL_INTERVAL)


def test_a_long_dead_try_is_taken_over_at_once(open_ledger: OpenLedger, clock: Clock, make_event: MakeEvent) -> None:
    """A try that would be dead for every other run is not waited for."""
    claim(open_ledger(), make_event())
    clock.go_on(600)

    [decision] = claim(open_ledger(RETRY), make_event())

    assert (SEND, True, 0) == (decision.action, decision.unconfirmed, clock.polls)


def test_others_wait_for_the_claim_to_run_out(open_ledger: OpenLedger, clock: Clock, make_event: MakeEvent) -> None:
    """Another run leaves an open claim alone until it has run out, and then knows that the event may have arrived."""
    claim(open_ledger(), make_event())

    clock.go_on(59.9)
    before = open_ledger(LATER_RUN, claim_timeout=60).look_up([make_event()])
    clock.go_on(0.1)
    after = open_ledger(LATER_RUN, claim_timeout=60).look_up([make_event()])

    assert [(CLAIMED_ELSEWHERE, False), (SEND, True)] == [
        (decision.action, decision.unconfirmed) for decision in [*before, *after]
    ]


@pytest.mark.parametrize(
    ("last_word", "expected"),
    [("delivered", KNOWN), ("undelivered", SEND), ("rejected", SEND), ("unconfirmed", SEND)],
)
def test_the_try_before_has_the_last_word(
    last_word: str,
    expected: Action,
    open_ledger: OpenLedger,
    engine: sa.engine.Engine,
    clock: Clock,
    make_event: MakeEvent,
) -> None:
    """A try that is still at work when the next one starts writes what became of its events, and that counts."""
    first, event = open_ledger(), make_event()
    claim(first, event)
    superseded: list[SupersededError] = []

    def speak_up() -> None:
        if clock.polls == 5:
            with pytest.raises(SupersededError) as caught:
                end(first, event, last_word)
            superseded.append(caught.value)

    clock.meanwhile = speak_up

    [decision] = claim(open_ledger(RETRY), event)

    assert (expected, 5, 1) == (decision.action, clock.polls, len(superseded))
    assert ({"delivered"} if expected is KNOWN else {"sending"}) >= {states(engine)[-1]}


def test_a_superseded_stops(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A try whose successor has begun may neither look up nor claim, and writes its last results once."""
    superseded, events = open_ledger(), [make_event("e1"), make_event("e2"), make_event("e3")]
    claim(superseded, *events[:2])
    found = superseded.look_up([events[2]])
    claim(open_ledger(RETRY), events[0])
    results = [(event, Delivery(DeliveryStatus.UNDELIVERED, event.id)) for event in events]

    with pytest.raises(SupersededError):
        superseded.look_up(events)
    with pytest.raises(SupersededError):
        superseded.claim([(events[2], found[0])])
    superseded.record(results[:2])
    superseded.record(results)

    assert [("sending", 1), ("undelivered", 1)] == [
        (row.delivery_status, row.try_number) for row in written(engine, "e2")
    ]
    assert ["undelivered"] == states(engine, "e3")


def test_a_superseded_learns_of_it_as_it_writes(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """Writing results tells a superseded try once that it is superseded, and after they are written."""
    superseded, one, other = open_ledger(), make_event("e1"), make_event("e2")
    claim(superseded, one, other)
    clock.go_on(1)
    claim(open_ledger(RETRY), make_event("e3"))

    with pytest.raises(SupersededError):
        end(superseded, one)
    superseded.record([(event, Delivery(DeliveryStatus.DELIVERED, event.id)) for event in (one, other)])

    assert [["sending", "delivered"]] * 2 == [states(engine, event_id) for event_id in ("e1", "e2")]


def test_a_superseded_in_the_middle_of_its_claim(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """A try whose successor begins while it claims an event does not send it."""
    superseded, event = open_ledger(), make_event()
    clock.go_on(1)
    found = superseded.look_up([event])
    overtaken = after_each_write(engine, lambda: claim(open_ledger(RETRY), event))

    with pytest.raises(SupersededError):
        superseded.claim([(event, found[0])])

    assert [SEND] == actions(overtaken[0])


def test_a_dag_run_made_anew(open_ledger: OpenLedger, clock: Clock, make_event: MakeEvent) -> None:
    """A DAG run that was deleted and made anew starts with the first try again, and the old tries do not stop it."""
    before = open_ledger(ME._replace(try_number=3))
    send(before, make_event("e1"))
    claim(before, make_event("e2"))
    clock.go_on(1)

    again = claim(open_ledger(ME), make_event("e1"), make_event("e2"))

    assert [(KNOWN, False), (SEND, True)] == [(decision.action, decision.unconfirmed) for decision in again]


# Runs at the same time.


def after_each_write(engine: sa.engine.Engine, *acts: Callable[[], Any]) -> list[Any]:
    """Let things happen, one each, right after the next things written are committed; return what came of them."""
    results: list[Any] = []
    waiting = list(acts)
    written: list[bool] = []

    def note(*told: Any) -> None:
        if told[2].startswith("INSERT"):
            written.append(True)

    def look(*_told: Any) -> None:
        if written and waiting:
            written.clear()
            results.append(waiting.pop(0)())

    sa.event.listen(engine, "after_cursor_execute", note)
    sa.event.listen(engine, "checkin", look)
    return results


@pytest.mark.parametrize("other", [EARLIER_RUN, LATER_RUN], ids=["earlier run", "later run"])
def test_known_to_be_elsewhere(
    other: Claimant, open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """What another run is sending is left to it, and nothing is written about it."""
    claim(open_ledger(other), make_event())

    [decision] = open_ledger().look_up([make_event()])

    assert (CLAIMED_ELSEWHERE, f"run {other.run_id} is sending it") == (decision.action, decision.detail)
    assert ["sending"] == states(engine)


@pytest.mark.parametrize("other", [EARLIER_RUN, LATER_RUN], ids=["earlier run", "later run"])
def test_a_look_up_older_than_another_claim(
    other: Claimant, open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """Who claims an event after another run has, although it looked it up before, gives way."""
    mine, theirs, event = open_ledger(), open_ledger(other), make_event()
    found = mine.look_up([event])
    claim(theirs, event)

    withdrawn = mine.claim([(event, found[0])])

    assert [CLAIMED_ELSEWHERE] == actions(withdrawn)
    # Who comes first waits for the other to withdraw, in vain.
    assert (CLAIM_RACE_POLLS if ME < other else 0) == clock.polls
    assert ["sending", "held"] == [row.delivery_status for row in written(engine) if row.run_id == ME.run_id]


@pytest.mark.parametrize("other", [EARLIER_RUN, LATER_RUN], ids=["earlier run", "later run"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [("delivered", KNOWN), ("rejected", SEND), ("undelivered", SEND), ("held", SEND), ("unconfirmed", SEND)],
)
def test_a_look_up_older_than_another_send(
    status: str,
    expected: Action,
    other: Claimant,
    open_ledger: OpenLedger,
    engine: sa.engine.Engine,
    make_event: MakeEvent,
) -> None:
    """Who looked an event up before another run began with it knows what became of it before sending it again."""
    mine, event = open_ledger(), make_event()
    found = mine.look_up([event])
    send(open_ledger(other), event, status)

    [decision] = mine.claim([(event, found[0])])

    assert (expected, status == "unconfirmed") == (decision.action, decision.unconfirmed)
    if expected is KNOWN:
        assert ["sending", "already_delivered"] == [
            row.delivery_status for row in written(engine) if row.run_id == ME.run_id
        ]


def test_a_look_up_older_than_another_content(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """Who looked an event up before another content of it was delivered does not send its own."""
    mine = open_ledger()
    found = mine.look_up([make_event()])
    send(open_ledger(LATER_RUN), make_event(customernumber="A1"))

    [decision] = mine.claim([(make_event(), found[0])])

    assert CHANGED is decision.action


def test_a_look_up_older_than_a_loss(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """Who wants the unconfirmed held does not send what became unconfirmed since it looked."""
    mine = open_ledger(on_unconfirmed="hold")
    found = mine.look_up([make_event()])
    send(open_ledger(LATER_RUN), make_event(), "unconfirmed")

    [decision] = mine.claim([(make_event(), found[0])])

    assert LOST is decision.action


def test_the_first_waits_and_the_other_delivers(open_ledger: OpenLedger, clock: Clock, make_event: MakeEvent) -> None:
    """Who waits for another run to withdraw does not send what that one delivers in the meantime."""
    mine, theirs, event = open_ledger(), open_ledger(LATER_RUN), make_event()
    found = mine.look_up([event])
    claim(theirs, event)
    clock.meanwhile = lambda: end(theirs, event)

    [decision] = mine.claim([(event, found[0])])

    assert (KNOWN, 1) == (decision.action, clock.polls)


@pytest.mark.parametrize("me", [EARLIER_RUN, LATER_RUN], ids=["first", "last"])
def test_two_claims_cross(
    me: Claimant, open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """Of two runs that have both written their claims before either looks, no more than one sends."""
    mine, theirs, event = open_ledger(me), open_ledger(ME), make_event()
    found, theirs_found = mine.look_up([event]), theirs.look_up([event])
    results = after_each_write(engine, lambda: theirs.claim([(event, theirs_found[0])]))

    decisions = mine.claim([(event, found[0])])

    # The last withdraws at once. The first would have sent it, had the other not had to look for this one to go on.
    assert Counter({SEND: 1, CLAIMED_ELSEWHERE: 1}) == Counter(actions([*decisions, *results[0]]))


@pytest.mark.parametrize(
    "order",
    list(permutations([EARLIER_RUN, ME, LATER_RUN])),
    ids=lambda order: "".join(who.run_id[-1] for who in order),
)
def test_three_claims_cross(
    order: Sequence[Claimant], open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """Of three runs that have all written their claims before any looks, exactly one sends."""
    ledgers, event = [open_ledger(who) for who in order], make_event()
    found = [ledger.look_up([event])[0] for ledger in ledgers]

    def claim_by(number: int) -> Callable[[], list[Decision]]:
        return lambda: ledgers[number].claim([(event, found[number])])

    results = after_each_write(engine, claim_by(1), claim_by(2))
    decisions = claim_by(0)()

    assert Counter({SEND: 1, CLAIMED_ELSEWHERE: 2}) == Counter(actions([*decisions, *results[0], *results[1]]))


def test_one_event_of_many_is_elsewhere(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """Of a batch, only what another run wants too is left to that."""
    events = [make_event(f"e{number}") for number in range(5)]
    mine, theirs = open_ledger(LATER_RUN), open_ledger()
    found = mine.look_up(events)
    claim(theirs, events[2])

    decisions = mine.claim(list(zip(events, found, strict=True)))

    assert [SEND, SEND, CLAIMED_ELSEWHERE, SEND, SEND] == actions(decisions)


def test_what_was_withdrawn_is_free(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """A run that gave way stands in nobody's way."""
    mine, theirs, event = open_ledger(LATER_RUN), open_ledger(), make_event()
    found = mine.look_up([event])
    claim(theirs, event)
    mine.claim([(event, found[0])])
    end(theirs, event, "undelivered")

    assert [SEND] == actions(claim(open_ledger(EARLIER_RUN), event))


def test_the_state_is_the_other_runs(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """What a run writes about an event it only looked at does not hide what another run did with it since."""
    mine, theirs, event = open_ledger(), open_ledger(LATER_RUN), make_event()
    mine.look_up([event])
    clock.go_on(1)
    send(theirs, event)
    clock.go_on(1)

    end(mine, event, "held", "waits for the earlier event e0")

    assert "delivered" == states(engine)[-1]


def test_a_withdrawal_does_not_hide_a_delivery(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """What a run writes as it gives way, however late, comes before what becomes of the event."""
    mine, theirs, event = open_ledger(), open_ledger(LATER_RUN), make_event()
    found = mine.look_up([event])
    claim(theirs, event)
    mine.claim([(event, found[0])])
    clock.go_on(0.001)
    end(theirs, event)

    assert "delivered" == states(engine)[-1]


@pytest.mark.parametrize("redeliver", ["never", "always"])
@pytest.mark.parametrize("count", [2, 10])
def test_a_race(
    count: int,
    redeliver: Any,
    database: str,
    make_engine: Callable[[str], sa.engine.Engine],
    make_event: MakeEvent,
) -> None:
    """However many runs look the same events up and claim them at once, each is sent by exactly one of them."""
    events = [make_event(f"e{number}", f"RE{number}") for number in range(40)]
    start = threading.Barrier(count, timeout=60)
    sent: list[list[str]] = []
    LedgerTable(make_engine(database), "ropo_ledger").create_or_upgrade()

    def run(number: int) -> None:
        order = random.Random(number)  # noqa: S311 - the same every time
        table = LedgerTable(make_engine(database), "ropo_ledger")
        me = ME._replace(run_id=f"run_{number}")
        # Nobody has anything to wait for here: what is claimed stays so.
        ledger = DeliveryLedger(table, me, LedgerPolicy(redeliver), sleep=lambda seconds: time.sleep(seconds / 10))
        found = list(zip(events, ledger.look_up(events), strict=True))
        start.wait()
        for at in range(0, len(events), 10):
            time.sleep(order.random() * 0.02)
            decisions = ledger.claim(found[at : at + 10])
            sent.append(
                [event.id for (event, _), now in zip(found[at:], decisions, strict=False) if now.action is SEND]
            )

    run_all([threading.Thread(target=run, args=(number,)) for number in range(count)])

    assert {event.id: 1 for event in events} == Counter(event_id for each in sent for event_id in each)


@pytest.mark.parametrize("count", [2, 10])
def test_a_race_to_the_end(
    count: int, database: str, make_engine: Callable[[str], sa.engine.Engine], make_event: MakeEvent
) -> None:
    """However far runs are apart, from looking events up to writing them delivered, each is sent exactly once."""
    events = [make_event(f"e{number}", f"RE{number}") for number in range(40)]
    start = threading.Barrier(count, timeout=60)
    sent: list[str] = []
    LedgerTable(make_engine(database), "ropo_ledger").create_or_upgrade()

    def run(number: int) -> None:
        order = random.Random(number)  # noqa: S311 - the same every time
        engine = make_engine(database)
        # A commit may take its time.
        sa.event.listen(engine, "commit", lambda _connection: time.sleep(order.random() * 0.02))
        ledger = DeliveryLedger(LedgerTable(engine, "ropo_ledger"), ME._replace(run_id=f"run_{number}"), LedgerPolicy())
        start.wait()
        for at in order.sample(range(0, len(events), 10), 4):
            mine = events[at : at + 10]
            found = ledger.look_up(mine)
            time.sleep(order.random() * 0.1)
            to_claim = [pair for pair in zip(mine, found, strict=True) if pair[1].action is SEND]
            decisions = ledger.claim(to_claim)
            won = [event for (event, _), now in zip(to_claim, decisions, strict=True) if now.action is SEND]
            sent.extend(event.id for event in won)
            ledger.record([(event, Delivery(DeliveryStatus.DELIVERED, event.id)) for event in won])

    run_all([threading.Thread(target=run, args=(number,)) for number in range(count)])

    assert {event.id: 1 for event in events} == Counter(sent)
    engine = make_engine(database)
    assert {"delivered", "already_delivered"} >= {states(engine, event.id)[-1] for event in events}


def run_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


# Time.


def test_a_clock_that_goes_backwards(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: Clock, make_event: MakeEvent
) -> None:
    """What happened later is written as later, even if the clock was set back in between."""
    ledger, event = open_ledger(), make_event()
    claim(ledger, event)
    clock.go_on(-3600)
    end(ledger, event, "unconfirmed")
    clock.go_on(-3600)
    send(open_ledger(RETRY), event, "rejected")
    clock.go_on(-3600)
    open_ledger(LATER_RUN).record_invalid([InvalidRowError("row 1", "time", "is missing", event_id="e1")])

    assert ["sending", "unconfirmed", "unconfirmed", "sending", "rejected", "invalid"] == states(engine)
    times = [row.recorded_at for row in written(engine)]
    assert sorted(set(times)) == times


def test_clocks_that_differ(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """What a run with a slow clock writes after one with a fast clock is written as later."""
    event, fast, slow = make_event(), Clock(13), Clock(11)
    send(open_ledger(ME, fast), event, "undelivered")

    send(open_ledger(LATER_RUN, slow), event, "delivered")

    assert ["sending", "undelivered", "sending", "delivered"] == states(engine)
    assert [KNOWN] == actions(open_ledger(RETRY, slow).look_up([event]))


def test_a_clock_that_stands_still(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """Rows written at one moment keep their order."""
    send(open_ledger(), make_event(), "unconfirmed")
    send(open_ledger(RETRY), make_event(), "delivered")

    assert ["sending", "unconfirmed", "unconfirmed", "sending", "delivered"] == states(engine)


def test_waiting_ends_whatever_the_clock_does(open_ledger: OpenLedger, clock: Clock, make_event: MakeEvent) -> None:
    """A clock that goes backwards makes nobody wait for longer."""
    mine, event = open_ledger(), make_event()
    found = mine.look_up([event])
    claim(open_ledger(LATER_RUN), event)
    clock.meanwhile = lambda: clock.go_on(-60)

    assert [CLAIMED_ELSEWHERE] == actions(mine.claim([(event, found[0])]))
    assert CLAIM_RACE_POLLS == clock.polls


# What it costs, and what it tells.


def count_statements(engine: sa.engine.Engine) -> list[str]:
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    return statements


@pytest.mark.parametrize("count", [1, 64, 500])
def test_statements_of_a_batch(
    count: int, open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """A batch takes the same few statements whether it is of one event or of five hundred."""
    events = [make_event(f"e{number}", f"RE{number}") for number in range(count)]
    ledger = open_ledger()
    statements = count_statements(engine)

    claim(ledger, *events)
    ledger.record([(event, Delivery(DeliveryStatus.DELIVERED, event.id)) for event in events])

    kinds = Counter(statement.split()[0] for statement in statements if not statement.startswith("select pg_catalog"))
    assert {"SELECT": 5, "INSERT": 2} == {kind: kinds[kind] for kind in ("SELECT", "INSERT")}


def test_statements_of_a_run(engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """Statements grow with events by the batch, not with events; and known events take next to none."""
    ledger = DeliveryLedger(LedgerTable(engine, "ropo_ledger"), ME, LedgerPolicy())
    ledger.prepare()
    statements = count_statements(engine)

    def run(memory: DeliveryLedger) -> int:
        before = len(statements)
        lanes = [[make_event(f"e{place}-{number}", f"RE{place}") for number in range(5)] for place in range(200)]
        Dispatcher(
            lambda _event: None, lambda _delivery: None, ledger=memory, max_workers=8, stop=threading.Event()
        ).run(lanes)
        return len(statements) - before

    first, again = run(ledger), run(DeliveryLedger(LedgerTable(engine, "ropo_ledger"), LATER_RUN, LedgerPolicy()))

    assert 1_000 / 5 > first
    assert 10 > again


def test_no_customer_in_the_ledger(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """Nothing that tells who the customer is stands in any column, whatever became of the event."""
    secret = {
        "customernumber": "A7654321",
        "contract_no": "C7654321",
        "description": "D7654321",
        "invoices": (Invoice("7654321", 7654321),),
    }
    for number, status in enumerate(DeliveryStatus):
        event = make_event(f"e{number}", **secret)
        ledger = open_ledger(ME._replace(run_id=f"made_{number}"))
        claim(ledger, event)
        end(ledger, event, status.value)
        claim(open_ledger(RETRY), dataclasses.replace(event, description="other"))
    open_ledger(LATER_RUN).record_invalid([InvalidRowError("row 1", "time", "is missing", event_id="e99")])

    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM ropo_ledger")).all()

    assert len(rows) > 16
    assert "7654321" not in str(rows)


def test_long_details_are_cut(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A detail that is too long for its column is cut."""
    ledger = open_ledger()
    claim(ledger, make_event())

    end(ledger, make_event(), "rejected", "ä" * 2_000)

    assert "ä" * 1_000 == written(engine)[-1].detail


def test_peeking_leaves_nothing(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A preview learns how events stand, writes nothing, and keeps nothing in memory."""
    claim(open_ledger(), make_event("e1"))
    ledger = open_ledger(LATER_RUN)

    decisions = ledger.peek([make_event("e1"), make_event("e2")])
    end(ledger, make_event("e2"))

    assert [CLAIMED_ELSEWHERE, SEND] == actions(decisions)
    assert (["sending"], []) == (states(engine), states(engine, "e2"))


def test_memory_stays_flat(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """What is written off is forgotten, and so is what is not to be sent."""
    ledger = open_ledger()
    send(ledger, make_event("e1"))
    ledger.look_up([make_event("e1")])
    claim(ledger, make_event("e2"))

    assert ["e2"] == list(ledger._open)


def test_a_preview_does_not_make_the_table(engine: sa.engine.Engine) -> None:
    """Whether there is a ledger can be asked without making one."""
    ledger = DeliveryLedger(LedgerTable(engine, "ropo_ledger"), ME, LedgerPolicy())

    before = ledger.exists()
    ledger.prepare()
    after = ledger.exists()
    ledger.close()

    assert (False, True) == (before, after)


def test_a_claim_that_cannot_be_written(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """A claim that cannot be written is an error, so that nothing is sent."""
    ledger = open_ledger()
    found = ledger.look_up([make_event()])
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE ropo_ledger"))

    with pytest.raises(RopoLedgerError, match=r"ropo_ledger could not be read: .*ropo_ledger"):
        ledger.claim([(make_event(), found[0])])
