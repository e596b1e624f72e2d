from __future__ import annotations

import dataclasses
import datetime as dt
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import permutations
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.dispatch.dispatcher import Dispatcher
from airflow_provider_ropo.errors import InvalidRowError, RopoLedgerError, SupersededError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent
from airflow_provider_ropo.ledger.claims import CLAIM_RACE_GRACE, EARLIER_TRY_GRACE, PendingClaim, Round
from airflow_provider_ropo.ledger.decisions import Action, LedgerPolicy
from airflow_provider_ropo.ledger.entries import TICK, Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.recorder import POLL_INTERVAL
from airflow_provider_ropo.ledger.table import LedgerTable
from ledger_steps import (
    DESTINATION,
    LedgerTime,
    actions,
    claim,
    look_up,
    record,
    send,
    statuses,
    verify,
    written,
)

SEND, KNOWN, CHANGED = Action.SEND, Action.ALREADY_DELIVERED, Action.CONTENT_CHANGED
CLAIMED_ELSEWHERE, LOST, CLOSED = Action.CLAIMED_ELSEWHERE, Action.UNCONFIRMED, Action.CLOSED

ME = Claimant("dag", "report", "run_5", -1, 1, "process 5")
RETRY = ME._replace(try_number=2, process="retry")
EARLIER_RUN = ME._replace(run_id="run_3", process="process 3")
LATER_RUN = ME._replace(run_id="run_7", process="process 7")

MakeEvent = Callable[..., UsageplaceEvent]
MakeEngine = Callable[[str], sa.engine.Engine]
OpenLedger = Callable[..., DeliveryLedger]


# From one run to the next.


def test_a_row_before_and_a_row_after(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """Sending is written before an event is sent, and its delivery status after, with all that is known."""
    ledger, event = open_ledger(RETRY), make_event("e1", "RE1", "10:00:00.5", customernumber="A1")

    [claimed] = claim(ledger, event)
    before = statuses(engine)
    clock.go_on(2)
    record(ledger, claimed, "rejected", "HTTP 400: unknown", http_status=400, attempts=3)

    rows = [row._asdict() for row in written(engine)]
    assert ["sending"] == before
    assert {
        "destination": DESTINATION,
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
        "process": "retry",
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
        ("closed", CLOSED, False),
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
    """What is delivered or closed is not sent again; all else is, and what may have arrived is known to be so."""
    send(open_ledger(), make_event(), status)

    [claimed] = claim(open_ledger(next_one), make_event())

    assert (action, unconfirmed) == (claimed.decision.action, claimed.decision.unconfirmed)


def test_a_long_story(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """Over many tries, each writes what it knew, and the newest row is the event's state."""
    event = make_event()
    tries = [ME._replace(try_number=number, process=f"try {number}") for number in range(1, 6)]
    claim(open_ledger(tries[0]), event)
    for me, status in zip(tries[1:4], ["unconfirmed", "undelivered", "delivered"], strict=True):
        send(open_ledger(me), event, status, wait=clock.wait)

    last = claim(open_ledger(tries[4]), event)

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


def test_unconfirmed_is_logged(
    open_ledger: OpenLedger,
    engine: sa.engine.Engine,
    clock: LedgerTime,
    make_event: MakeEvent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What is sent although it may have arrived is named in the log, and the ledger names the try that sent it."""
    events = [make_event(f"e{number}") for number in range(12)]
    claim(open_ledger(), *events)

    claim(open_ledger(RETRY), *events, wait=clock.wait)

    named = ", ".join(f"e{number}" for number in range(10))
    assert [
        f"12 events may have arrived already and are sent again with the same id: {named}, …",
    ] == caplog.messages
    assert [None, "may have arrived already, from run run_5, try 1", None] == [row.detail for row in written(engine)]


@pytest.mark.parametrize("status", ["held", "undelivered"])
def test_unconfirmed_survives(status: str, open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """What may have arrived still may after a run that did not get to it, or not through with it."""
    send(open_ledger(), make_event(), "unconfirmed")
    send(open_ledger(EARLIER_RUN), make_event(), status)
    send(open_ledger(RETRY), make_event(), status)

    [decision] = open_ledger(LATER_RUN).decide([make_event()])

    assert (SEND, True) == (decision.action, decision.unconfirmed)


def test_unconfirmed_survives_a_release(
    open_ledger: OpenLedger, make_event: MakeEvent, engine: sa.engine.Engine
) -> None:
    """A run that gives way to another leaves what may have arrived as it was."""
    event = make_event()
    send(open_ledger(EARLIER_RUN), event, "unconfirmed")
    first, late = open_ledger(ME), open_ledger(LATER_RUN)
    claimed = between_reading_and_writing(engine, partial(claim, first, event))

    released = verify(late, *look_up(late, event))
    record(first, claimed[0][0], "undelivered")
    [decision] = open_ledger(RETRY).decide([event])

    assert [CLAIMED_ELSEWHERE] == actions(released)
    assert ["unconfirmed", "sending", "unconfirmed"] == [
        row.delivery_status for row in written(engine) if row.run_id == LATER_RUN.run_id
    ]
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

    [decision] = open_ledger(LATER_RUN).decide([other])

    assert (CHANGED, "its time, customernumber, description differ from what was sent with this id before") == (
        decision.action,
        decision.detail.split(";")[0],
    )


def test_changed_is_a_delivery_status(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """An event of which Ropo One has another content is recorded as changed, and is known delivered all the same."""
    send(open_ledger(), make_event())
    later, changed = open_ledger(LATER_RUN), make_event(customernumber="A1")

    [found] = look_up(later, changed)
    record(later, found, "changed", found.decision.detail, attempts=0)
    decisions = open_ledger(RETRY).decide([changed]) + open_ledger(RETRY).decide([make_event()])

    assert ["sending", "delivered", "changed"] == statuses(engine)
    assert [CHANGED, KNOWN] == actions(decisions)


def test_hold(open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent) -> None:
    """What may have arrived is held if the user wants that, and stays so until a run resends it."""
    events = [make_event("e1"), make_event("e2")]
    before = open_ledger()
    claimed = claim(before, *events)
    record(before, claimed[1], "unconfirmed")
    holding = open_ledger(RETRY, on_unconfirmed="hold")

    held = look_up(holding, *events)
    record(holding, held[0], "unconfirmed", held[0].decision.detail, attempts=0)
    clock.go_on(600)
    later = open_ledger(LATER_RUN).decide(events)

    assert [LOST, LOST] == actions(held)
    assert ["sending", "unconfirmed"] == statuses(engine)
    assert [(SEND, True)] * 2 == [(decision.action, decision.unconfirmed) for decision in later]


def test_what_is_known_of_an_unclaimed_event_is_not_written_again(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """A run that holds an unconfirmed event back adds no row to the one that says so."""
    send(open_ledger(), make_event(), "unconfirmed")
    holding = open_ledger(LATER_RUN, on_unconfirmed="hold")

    [held] = look_up(holding, make_event())
    record(holding, held, "unconfirmed", attempts=0)

    assert ["sending", "unconfirmed"] == statuses(engine)


def test_stale(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """An event is stale if a later one of its place had been delivered; it is sent, counted and marked."""
    send(open_ledger(), make_event("e1", "RE1", "11:00"))
    send(open_ledger(), make_event("e2", "RE2", "11:00"), "rejected")
    backfill = open_ledger(LATER_RUN)
    events = make_event("e3", "RE1", "10:59"), make_event("e4", "RE1", "11:00"), make_event("e5", "RE2", "10:00")

    claimed = claim(backfill, *events)
    for each in claimed:
        record(backfill, each, detail="at last")

    remark = "stale: an event of 2024-01-04 11:00:00 of this usage place had been delivered before"
    assert [SEND] * 3 == actions(claimed)
    assert 1 == backfill.stale
    assert [None, f"at last; {remark}"] == [row.detail for row in written(engine, "e3")]
    assert [None, "at last"] * 2 == [row.detail for event_id in ("e4", "e5") for row in written(engine, event_id)]


@pytest.mark.parametrize("status", ["undelivered", "rejected", "unconfirmed", "held"])
def test_what_is_not_delivered_is_not_stale(status: str, open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """Only an event that arrived after a later one of its place is counted as stale."""
    send(open_ledger(), make_event("e1", "RE1", "11:00"))
    backfill = open_ledger(LATER_RUN)

    send(backfill, make_event("e2", "RE1", "10:00"), status)

    assert 0 == backfill.stale


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

    newest = {event_id: statuses(engine, event_id)[-1] for event_id in ids if event_id}
    assert {
        "e0": "delivered",
        "e1": "unconfirmed",
        "e2": "invalid",
        "e3": "invalid",
        "e4": "sending",
        "e5": "invalid",
    } == newest
    assert ("row 7 (id e5): time: is missing", None, None, DESTINATION) == next(
        (row.detail, row.usageplacecode, row.payload_hash, row.destination) for row in written(engine, "e5")
    )


def test_the_same_invalid_row_is_written_once(open_ledger: OpenLedger, engine: sa.engine.Engine) -> None:
    """What the newest row already says of an invalid row is not written again; another reason is."""
    reasons = ["is missing", "is missing", "is no time"]

    for number, reason in enumerate(reasons):
        ledger = open_ledger(ME._replace(run_id=f"run {number}", process=f"process {number}"))
        ledger.record_invalid([InvalidRowError("row 7 (id e1)", "time", reason, event_id="e1")])

    assert ["row 7 (id e1): time: is missing", "row 7 (id e1): time: is no time"] == [
        row.detail for row in written(engine)
    ]


def test_an_invalid_row_does_not_hide_a_delivery(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """Rows that became invalid, and valid again, do not make an event forgotten."""
    send(open_ledger(), make_event())
    open_ledger(LATER_RUN).record_invalid([InvalidRowError("row 1", "time", "is missing", event_id="e1")])

    assert [KNOWN] == actions(open_ledger(RETRY).decide([make_event()]))


def test_an_invalid_row_does_not_open_a_closed_event(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """An event that a person has closed stays closed after its row was invalid for a while."""
    send(open_ledger(), make_event(), "closed")
    open_ledger(LATER_RUN).record_invalid([InvalidRowError("row 1", "time", "is missing", event_id="e1")])

    assert [CLOSED] == actions(open_ledger(RETRY).decide([make_event()]))


# The next try of the same task instance.


def test_a_dead_try_is_taken_over(open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent) -> None:
    """The next try takes over what the one before left open, after a moment in which that could still speak up."""
    claim(open_ledger(), make_event("e1"), make_event("e2"))
    retry = open_ledger(RETRY)

    claimed = [
        *claim(retry, make_event("e1"), wait=clock.wait),
        *claim(retry, make_event("e2"), wait=clock.wait),
    ]

    assert [(SEND, True)] * 2 == [(each.decision.action, each.decision.unconfirmed) for each in claimed]
    # Once, not for every event.
    assert clock.polls * POLL_INTERVAL == pytest.approx(EARLIER_TRY_GRACE, abs=2 * POLL_INTERVAL)


def test_a_long_dead_try_is_taken_over_at_once(
    open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A try that would be dead for every other run is not waited for."""
    claim(open_ledger(), make_event())
    clock.go_on(600)

    [claimed] = claim(open_ledger(RETRY), make_event(), wait=clock.wait)

    assert (SEND, True, 0) == (claimed.decision.action, claimed.decision.unconfirmed, clock.polls)


def test_others_wait_for_the_claim_to_run_out(
    open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """Another run leaves an open claim alone until it has run out, and then knows that the event may have arrived."""
    claim(open_ledger(), make_event())

    clock.go_on(59.9)
    before = open_ledger(LATER_RUN, claim_timeout=60).decide([make_event()])
    clock.go_on(0.1)
    after = open_ledger(LATER_RUN, claim_timeout=60).decide([make_event()])

    assert [(CLAIMED_ELSEWHERE, False), (SEND, True)] == [
        (decision.action, decision.unconfirmed) for decision in [*before, *after]
    ]


def test_a_claim_ends_before_others_take_it_over(
    open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A claim knows until when it holds, and by then no other run has taken the event over."""
    ledger = open_ledger(claim_timeout=60)
    clock.go_on(5)

    [claimed] = claim(ledger, make_event())
    clock.go_on(claimed.holds_until - clock.seconds - 0.001)
    [decision] = open_ledger(LATER_RUN, claim_timeout=60).decide([make_event()])

    assert claimed.holds_until <= 1000.0 + 5 + 60
    assert CLAIMED_ELSEWHERE is decision.action


@pytest.mark.parametrize(
    ("last_word", "expected"),
    [("delivered", KNOWN), ("undelivered", SEND), ("rejected", SEND), ("unconfirmed", SEND)],
)
def test_the_try_before_has_the_last_word(
    last_word: str,
    expected: Action,
    open_ledger: OpenLedger,
    engine: sa.engine.Engine,
    clock: LedgerTime,
    make_event: MakeEvent,
) -> None:
    """A try that is still at work when the next one starts records its results, and those count."""
    first, event = open_ledger(), make_event()
    [claimed] = claim(first, event)
    superseded: list[SupersededError] = []

    def speak_up() -> None:
        if clock.polls == 5:
            with pytest.raises(SupersededError) as caught:
                record(first, claimed, last_word)
            superseded.append(caught.value)

    clock.meanwhile = speak_up

    [taken] = claim(open_ledger(RETRY), event, wait=clock.wait)

    assert (expected, 5, 1) == (taken.decision.action, clock.polls, len(superseded))
    assert ("delivered" if expected is KNOWN else "sending") == statuses(engine)[-1]


def test_a_superseded_stops(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A try whose successor has begun may not claim, and still writes its last results."""
    superseded, events = open_ledger(), [make_event("e1"), make_event("e2"), make_event("e3")]
    claimed = claim(superseded, *events[:2])
    claim(open_ledger(RETRY), events[0], wait=clock.wait)

    with pytest.raises(SupersededError):
        look_up(superseded, events[2])
    record(superseded, claimed[1], "undelivered", attempts=0)

    assert [("sending", 1), ("undelivered", 1)] == [
        (row.delivery_status, row.try_number) for row in written(engine, "e2")
    ]
    assert [] == written(engine, "e3")


def test_a_superseded_may_not_claim_later_either(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A try that has been told that it is superseded claims nothing from then on, whatever it asks for."""
    superseded = open_ledger()
    [claimed] = claim(superseded, make_event("e1"))
    claim(open_ledger(RETRY), make_event("e1"), wait=clock.wait)
    with pytest.raises(SupersededError):
        record(superseded, claimed, "undelivered")

    outcome = superseded.exchange(Round(look_ups=[make_event("e3")], claim_limit=1))

    assert ([], [], []) == (outcome.ready, outcome.unresolved, written(engine, "e3"))


def test_a_superseded_learns_of_it_as_it_writes(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """Writing results tells a superseded try once that it is superseded, and after they are written."""
    superseded = open_ledger()
    one, other = claim(superseded, make_event("e1"), make_event("e2"))
    clock.go_on(1)
    claim(open_ledger(RETRY), make_event("e3"))

    with pytest.raises(SupersededError):
        record(superseded, one)
    record(superseded, other)

    assert [["sending", "delivered"]] * 2 == [statuses(engine, event_id) for event_id in ("e1", "e2")]


def test_a_superseded_in_the_middle_of_its_claim(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A try whose successor begins while it claims an event does not send it."""
    superseded, event = open_ledger(), make_event()
    clock.go_on(1)
    overtaken = between_reading_and_writing(engine, partial(claim, open_ledger(RETRY), event))
    claimed = look_up(superseded, event)

    with pytest.raises(SupersededError):
        verify(superseded, *claimed)

    assert [SEND] == actions(overtaken[0])


def test_a_dag_run_made_anew(open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent) -> None:
    """A DAG run that was deleted and made anew starts with the first try again; the old tries do not stop it.

    What one of them may still be sending is left to it until its claim has run out.
    """
    before = open_ledger(ME._replace(try_number=3, process="before"))
    send(before, make_event("e1"))
    claim(before, make_event("e2"))
    clock.go_on(1)

    soon = open_ledger(ME).decide([make_event("e1"), make_event("e2")])
    clock.go_on(600)
    late = claim(open_ledger(ME), make_event("e1"), make_event("e2"))

    assert [KNOWN, CLAIMED_ELSEWHERE] == actions(soon)
    assert [(KNOWN, False), (SEND, True)] == [(each.decision.action, each.decision.unconfirmed) for each in late]


# Runs at the same time.


def between_reading_and_writing(engine: sa.engine.Engine, *acts: Callable[[], Any]) -> list[Any]:
    """Let things happen, one each, after the next rounds have read and before they write; return their results."""
    results: list[Any] = []
    waiting = list(acts)

    def look(*told: Any) -> None:
        if waiting and told[2].startswith("INSERT"):
            results.append(waiting.pop(0)())

    sa.event.listen(engine, "before_cursor_execute", look)
    return results


def resolve_together(
    clock: LedgerTime, ledgers: Sequence[DeliveryLedger], claims: Sequence[PendingClaim]
) -> list[Action]:
    """Let several processes verify their claims, a round each at a time; return what each does."""
    found: dict[int, Action] = {}
    pending = dict(enumerate(claims))
    while pending:
        for number, each in list(pending.items()):
            outcome = ledgers[number].exchange(Round(unresolved=[each]))
            if outcome.unresolved:
                [pending[number]] = outcome.unresolved
            else:
                [found[number]] = actions([*outcome.ready, *outcome.refused])
                del pending[number]
        clock.wait()
        assert clock.polls < 200
    return [found[number] for number in range(len(claims))]


@pytest.mark.parametrize("other", [EARLIER_RUN, LATER_RUN], ids=["earlier run", "later run"])
def test_known_to_be_elsewhere(
    other: Claimant, open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """What another run is sending is left to it, and nothing is written about it."""
    claim(open_ledger(other), make_event())

    [found] = look_up(open_ledger(), make_event())

    assert (CLAIMED_ELSEWHERE, f"run {other.run_id} is sending it") == (found.decision.action, found.decision.detail)
    assert ["sending"] == statuses(engine)


@pytest.mark.parametrize("other", [EARLIER_RUN, LATER_RUN], ids=["earlier run", "later run"])
def test_a_look_up_older_than_another_claim(
    other: Claimant, open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A run that claims an event after another has, although it read before that, gives way."""
    mine, event = open_ledger(), make_event()
    between_reading_and_writing(engine, partial(claim, open_ledger(other), event))

    released = claim(mine, event, wait=clock.wait)

    assert [CLAIMED_ELSEWHERE] == actions(released)
    # The first waits for the other to release its claim, for a limited time.
    expected = CLAIM_RACE_GRACE if ME < other else 0
    assert clock.polls * POLL_INTERVAL == pytest.approx(expected, abs=2 * POLL_INTERVAL)
    assert ["sending", "held"] == [row.delivery_status for row in written(engine) if row.run_id == ME.run_id]


@pytest.mark.parametrize("other", [EARLIER_RUN, LATER_RUN], ids=["earlier run", "later run"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("delivered", KNOWN),
        ("rejected", SEND),
        ("undelivered", SEND),
        ("held", SEND),
        ("unconfirmed", SEND),
        ("closed", CLOSED),
    ],
)
def test_a_look_up_older_than_another_send(
    status: str,
    expected: Action,
    other: Claimant,
    open_ledger: OpenLedger,
    engine: sa.engine.Engine,
    make_event: MakeEvent,
) -> None:
    """A run that read before another began with an event knows the other's result before sending it again."""
    mine, event = open_ledger(), make_event()
    between_reading_and_writing(engine, partial(send, open_ledger(other), event, status))

    [claimed] = claim(mine, event)

    assert (expected, status == "unconfirmed") == (claimed.decision.action, claimed.decision.unconfirmed)
    if expected is KNOWN:
        assert ["sending", "already_delivered"] == [
            row.delivery_status for row in written(engine) if row.run_id == ME.run_id
        ]


def test_a_look_up_older_than_another_content(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """A run that read before another content of an event was delivered does not send its own."""
    other = partial(send, open_ledger(LATER_RUN), make_event(customernumber="A1"))
    between_reading_and_writing(engine, other)

    [claimed] = claim(open_ledger(), make_event())

    assert CHANGED is claimed.decision.action


def test_a_look_up_older_than_a_loss(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A run that holds the unconfirmed does not send what became unconfirmed since it read."""
    between_reading_and_writing(engine, partial(send, open_ledger(LATER_RUN), make_event(), "unconfirmed"))

    [claimed] = claim(open_ledger(on_unconfirmed="hold"), make_event())

    assert LOST is claimed.decision.action


def test_the_first_waits_and_the_other_delivers(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A run that waits for another to release its claim does not send what that one delivers in the meantime."""
    mine, theirs, event = open_ledger(), open_ledger(LATER_RUN), make_event()
    claimed = between_reading_and_writing(engine, partial(claim, theirs, event))
    clock.meanwhile = lambda: record(theirs, claimed[0][0])

    [found] = claim(mine, event, wait=clock.wait)

    assert (KNOWN, 1) == (found.decision.action, clock.polls)


@pytest.mark.parametrize("me", [EARLIER_RUN, LATER_RUN], ids=["first", "last"])
@pytest.mark.parametrize("looks_first", [True, False], ids=["looks first", "looks last"])
def test_two_claims_cross(
    me: Claimant,
    looks_first: bool,  # noqa: FBT001
    open_ledger: OpenLedger,
    engine: sa.engine.Engine,
    clock: LedgerTime,
    make_event: MakeEvent,
) -> None:
    """Of two runs that have both written their claims before either looks, exactly one sends."""
    mine, theirs, event = open_ledger(me), open_ledger(ME), make_event()
    their_claim = between_reading_and_writing(engine, partial(look_up, theirs, event))
    claims = [(mine, look_up(mine, event)[0]), (theirs, their_claim[0][0])]
    order = claims if looks_first else claims[::-1]

    resolved = resolve_together(clock, [ledger for ledger, _ in order], [each for _, each in order])

    assert Counter({SEND: 1, CLAIMED_ELSEWHERE: 1}) == Counter(resolved)


@pytest.mark.parametrize(
    "order",
    list(permutations([EARLIER_RUN, ME, LATER_RUN])),
    ids=lambda order: "".join(who.run_id[-1] for who in order),
)
def test_three_claims_cross(
    order: Sequence[Claimant],
    open_ledger: OpenLedger,
    engine: sa.engine.Engine,
    clock: LedgerTime,
    make_event: MakeEvent,
) -> None:
    """Of three runs that have all written their claims before any looks, exactly one sends."""
    ledgers, event = [open_ledger(who) for who in order], make_event()
    others = between_reading_and_writing(engine, *(partial(look_up, ledger, event) for ledger in ledgers[1:]))
    first = look_up(ledgers[0], event)
    # The third wrote before the second did, which wrote before the first.
    claims = [first[0], others[1][0], others[0][0]]

    resolved = resolve_together(clock, ledgers, claims)

    assert Counter({SEND: 1, CLAIMED_ELSEWHERE: 2}) == Counter(resolved)


def test_one_event_of_many_is_elsewhere(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """Of a batch, only what another run claimed too is left to that."""
    events = [make_event(f"e{number}") for number in range(5)]
    between_reading_and_writing(engine, partial(claim, open_ledger(), events[2]))

    claimed = claim(open_ledger(LATER_RUN), *events)

    assert [SEND, SEND, CLAIMED_ELSEWHERE, SEND, SEND] == actions(claimed)


def test_what_was_released_is_free(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A run that gave way stands in no other's way."""
    theirs, event = open_ledger(), make_event()
    claimed = between_reading_and_writing(engine, partial(claim, theirs, event))
    claim(open_ledger(LATER_RUN), event)
    record(theirs, claimed[0][0], "undelivered")

    assert [SEND] == actions(claim(open_ledger(EARLIER_RUN), event))


def test_the_state_is_the_other_runs(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """What a run writes about an event it only looked at does not hide what another run did with it since."""
    mine, theirs, event = open_ledger(), open_ledger(LATER_RUN), make_event()
    [blocked] = mine.exchange(Round(blocked=[event])).refused
    clock.go_on(1)
    send(theirs, event)
    clock.go_on(1)

    record(mine, blocked, "held", "waits for the earlier event e0", attempts=0)

    assert ["held", "sending", "delivered"] == statuses(engine)


def test_a_release_does_not_hide_a_delivery(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """What a run writes as it gives way, however late, comes before the other's result."""
    mine, theirs, event = open_ledger(LATER_RUN), open_ledger(), make_event()
    claimed = between_reading_and_writing(engine, partial(claim, theirs, event))
    mine_claimed = look_up(mine, event)
    clock.go_on(1)
    record(theirs, claimed[0][0])
    clock.go_on(1)

    verify(mine, *mine_claimed)

    assert "delivered" == statuses(engine)[-1]


@pytest.mark.parametrize("redeliver", ["never", "always"])
@pytest.mark.parametrize("count", [2, 10])
def test_a_race(
    count: int,
    redeliver: Any,
    database: str,
    make_engine: MakeEngine,
    make_event: MakeEvent,
) -> None:
    """However many runs look the same events up and claim them at once, each is sent by exactly one of them."""
    events = [make_event(f"e{number}", f"RE{number}") for number in range(40)]
    start = threading.Barrier(count, timeout=60)
    sent: list[str] = []
    LedgerTable(make_engine(database), "ropo_ledger").create_or_upgrade()

    def run(number: int) -> None:
        order = random.Random(number)  # noqa: S311 - the same every time
        table = LedgerTable(make_engine(database), "ropo_ledger")
        me = ME._replace(run_id=f"run_{number}", process=f"process {number}")
        start.wait()
        with closing(DeliveryLedger(table, DESTINATION, me, LedgerPolicy(redeliver))) as ledger:
            for at in range(0, len(events), 10):
                time.sleep(order.random() * 0.02)
                claimed = claim(ledger, *events[at : at + 10])
                sent.extend(each.event.id for each in claimed if each.decision.action is SEND)

    run_all([threading.Thread(target=run, args=(number,)) for number in range(count)])

    assert {event.id: 1 for event in events} == Counter(sent)


@pytest.mark.parametrize("count", [2, 10])
def test_a_race_to_the_end(count: int, database: str, make_engine: MakeEngine, make_event: MakeEvent) -> None:
    """However far runs are apart, from looking events up to recording them delivered, each is sent exactly once."""
    events = [make_event(f"e{number}", f"RE{number}") for number in range(40)]
    start = threading.Barrier(count, timeout=60)
    sent: list[str] = []
    LedgerTable(make_engine(database), "ropo_ledger").create_or_upgrade()

    def run(number: int) -> None:
        order = random.Random(number)  # noqa: S311 - the same every time
        engine = make_engine(database)
        # Any statement may take its time.
        sa.event.listen(engine, "before_cursor_execute", lambda *_told: time.sleep(order.random() * 0.02))
        me = ME._replace(run_id=f"run_{number}", process=f"process {number}")
        start.wait()
        with closing(DeliveryLedger(LedgerTable(engine, "ropo_ledger"), DESTINATION, me, LedgerPolicy())) as ledger:
            for at in order.sample(range(0, len(events), 10), 4):
                claimed = look_up(ledger, *events[at : at + 10])
                time.sleep(order.random() * 0.1)
                won = [each for each in verify(ledger, *claimed) if each.decision.action is SEND]
                sent.extend(each.event.id for each in won)
                delivered = [(each, Delivery(DeliveryStatus.DELIVERED, each.event.id, attempts=1)) for each in won]
                ledger.exchange(Round(results=delivered))

    run_all([threading.Thread(target=run, args=(number,)) for number in range(count)])

    assert {event.id: 1 for event in events} == Counter(sent)
    engine = make_engine(database)
    assert {"delivered", "already_delivered"} >= {statuses(engine, event.id)[-1] for event in events}


def run_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)


# Time.


def test_a_clock_that_goes_backwards(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """What happened later is written as later, even if the database's clock was set back in between."""
    ledger, event = open_ledger(), make_event()
    [claimed] = claim(ledger, event)
    clock.go_on(-3600)
    record(ledger, claimed, "unconfirmed")
    clock.go_on(-3600)
    send(open_ledger(RETRY), event, "rejected")
    clock.go_on(-3600)
    open_ledger(LATER_RUN).record_invalid([InvalidRowError("row 1", "time", "is missing", event_id="e1")])

    assert ["sending", "unconfirmed", "unconfirmed", "sending", "rejected", "invalid"] == statuses(engine)
    times = [row.recorded_at for row in written(engine)]
    assert sorted(set(times)) == times


def test_clocks_that_differ(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """What is written by a slow clock after a fast one is written as later."""
    event, fast, slow = make_event(), LedgerTime(13), LedgerTime(11)
    send(open_ledger(ME, fast), event, "undelivered")

    send(open_ledger(LATER_RUN, slow), event, "delivered")

    assert ["sending", "undelivered", "sending", "delivered"] == statuses(engine)
    assert [KNOWN] == actions(open_ledger(RETRY, slow).decide([event]))


def test_a_clock_that_stands_still(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """Rows written at one moment keep their order."""
    send(open_ledger(), make_event(), "unconfirmed")
    send(open_ledger(RETRY), make_event(), "delivered")

    assert ["sending", "unconfirmed", "unconfirmed", "sending", "delivered"] == statuses(engine)


def test_waiting_ends_whatever_the_databases_clock_does(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A database whose clock goes backwards makes no run wait for longer."""
    event = make_event()
    between_reading_and_writing(engine, partial(claim, open_ledger(LATER_RUN), event))

    def go_back() -> None:
        clock.time -= dt.timedelta(seconds=60)

    clock.meanwhile = go_back

    assert [CLAIMED_ELSEWHERE] == actions(claim(open_ledger(), event, wait=clock.wait))
    assert clock.polls * POLL_INTERVAL == pytest.approx(CLAIM_RACE_GRACE, abs=2 * POLL_INTERVAL)


@pytest.mark.parametrize("status", ["held", "undelivered", "unconfirmed"])
def test_an_unsent_claim_ends_right_after_itself(
    status: str, open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """The end of a claim that was not sent is dated right after the claim, whenever it is written."""
    ledger = open_ledger()
    [claimed] = claim(ledger, make_event())
    clock.go_on(3600)

    record(ledger, claimed, status, attempts=0)

    sending, end = written(engine)
    assert (status, TICK) == (end.delivery_status, end.recorded_at - sending.recorded_at)


# What a run never came to.


def test_what_a_run_never_came_to_is_recorded(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """Each event gets a row and is returned with the status it is in; what is at Ropo One is counted as such."""
    before = open_ledger(EARLIER_RUN)
    send(before, make_event("delivered"))
    send(before, make_event("changed", description="one"))
    send(before, make_event("closed"), "closed")
    send(before, make_event("unconfirmed"), "unconfirmed")
    send(before, make_event("rejected"), "rejected")
    claim(before, make_event("elsewhere"))
    names = ["new", "delivered", "changed", "closed", "unconfirmed", "rejected", "elsewhere"]

    deliveries = open_ledger().record_unsent([make_event(name, description="other") for name in names[2:3]], "why")
    deliveries += open_ledger().record_unsent([make_event(name) for name in names if name != "changed"], "why")

    assert {
        "changed": "changed",
        "new": "undelivered",
        "delivered": "already_delivered",
        "closed": "closed",
        "unconfirmed": "unconfirmed",
        "rejected": "undelivered",
        "elsewhere": "held",
    } == {str(delivery.event_id): delivery.status.value for delivery in deliveries}
    assert {
        "new": ["undelivered"],
        "delivered": [],
        "changed": [],
        "closed": [],
        "unconfirmed": [],
        "rejected": ["undelivered"],
        "elsewhere": [],
    } == {name: [row.delivery_status for row in written(engine, name) if row.process == ME.process] for name in names}
    assert [("why", DESTINATION)] == [(row.detail, row.destination) for row in written(engine, "new")]


def test_what_the_newest_row_says_is_not_written_again(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """However many runs do not come to an event, one row says so; a new content gets one of its own."""
    for number in range(3):
        clock.go_on(60)
        me = ME._replace(run_id=f"run {number}", process=f"process {number}")
        open_ledger(me).record_unsent([make_event()], f"run {number} was stopped")
    open_ledger(RETRY).record_unsent([make_event(customernumber="A1")], "stopped")

    assert ["run 0 was stopped", "stopped"] == [row.detail for row in written(engine)]


def test_what_may_have_arrived_stays_unconfirmed_when_unsent(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """An event that a dead run was sending is recorded as unconfirmed by a run that does not come to it."""
    claim(open_ledger(EARLIER_RUN), make_event())
    clock.go_on(601)

    [delivery] = open_ledger().record_unsent([make_event()], "stopped")
    [decision] = open_ledger(LATER_RUN).decide([make_event()])

    assert DeliveryStatus.UNCONFIRMED is delivery.status
    assert ["sending", "unconfirmed"] == statuses(engine)
    assert (SEND, True) == (decision.action, decision.unconfirmed)


def test_unsent_claims_are_closed(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """What this process has claimed and never sent is undelivered, dated right after the claim, and free at once."""
    ledger = open_ledger()
    claim(ledger, make_event())
    clock.go_on(60)

    [delivery] = ledger.record_unsent([make_event()], "stopped")

    sending, end = written(engine)
    assert DeliveryStatus.UNDELIVERED is delivery.status
    assert ("undelivered", TICK) == (end.delivery_status, end.recorded_at - sending.recorded_at)
    [decision] = open_ledger(LATER_RUN).decide([make_event()])
    assert (SEND, False) == (decision.action, decision.unconfirmed)


def test_unsent_claims_are_closed_behind_other_rows(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """What another run has written about an event since does not keep this process's unsent claim open."""
    ledger, other = open_ledger(), open_ledger(LATER_RUN)
    claim(ledger, make_event())
    clock.go_on(1)
    [blocked] = other.exchange(Round(blocked=[make_event()])).refused
    record(other, blocked, "held", attempts=0)
    clock.go_on(1)

    ledger.record_unsent([make_event()], "stopped")

    [decision] = open_ledger(LATER_RUN).decide([make_event()])
    assert (SEND, False) == (decision.action, decision.unconfirmed)


# What it costs, and what is kept.


def count_statements(engine: sa.engine.Engine) -> list[str]:
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    return statements


@pytest.mark.parametrize("count", [1, 64, 500])
def test_a_round_is_one_read_and_one_write(
    count: int, open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """A round that verifies, claims and records reads once and writes once, whatever the number of events."""
    first, second, third = (
        [make_event(f"{name}{number}", f"RE{number % 100}") for number in range(count)] for name in "abc"
    )
    ledger = open_ledger()
    ready, unresolved = claim(ledger, *first), look_up(ledger, *second)
    results = [(each, Delivery(DeliveryStatus.DELIVERED, each.event.id, attempts=1)) for each in ready]
    statements = count_statements(engine)

    ledger.exchange(
        Round(look_ups=third, claim_limit=count, claims_per_place=count, unresolved=unresolved, results=results)
    )

    kinds = Counter(statement.split()[0].strip("(") for statement in statements)
    # Of more than 500 ids and places, each 500 take a statement.
    reads = 1 if count < 500 else 2 + 1 + 1
    assert {"SELECT": reads, "INSERT": 1} == dict(kinds)


def test_a_claim_is_dated_before_the_reading(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """However long the reading takes, a claim has the time just before it: what others write meanwhile comes after."""
    ledger = open_ledger(claim_timeout=60)
    noon, seconds = clock.time, clock.seconds
    sa.event.listen(engine, "before_cursor_execute", lambda *_told: clock.go_on(5))

    [claimed] = look_up(ledger, make_event())

    assert [noon] == [row.recorded_at for row in written(engine)]
    assert (noon, seconds, seconds + 60) == (claimed.at, claimed.claimed_at, claimed.holds_until)


def test_statements_of_a_run(engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """Statements grow with events by the batch, not with events; and known events take next to none."""
    statements = count_statements(engine)

    def run(me: Claimant) -> int:
        ledger = DeliveryLedger(LedgerTable(engine, "ropo_ledger"), DESTINATION, me, LedgerPolicy())
        ledger.prepare()
        before = len(statements)
        lanes = [[make_event(f"e{place}-{number}", f"RE{place}") for number in range(5)] for place in range(200)]
        Dispatcher(
            # A post takes a moment, in which the ledger has time for a round.
            lambda _event: time.sleep(0.005),
            lambda _delivery: None,
            ledger=ledger,
            max_workers=8,
            stop=threading.Event(),
        ).run(lanes)
        return len(statements) - before

    first, again = run(ME), run(LATER_RUN)

    assert 1_000 > first
    assert 30 > again


def test_no_customer_in_the_ledger(
    open_ledger: OpenLedger, engine: sa.engine.Engine, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """Nothing that tells who the customer is stands in any column, whatever the delivery status."""
    secret = {
        "customernumber": "A7654321",
        "contract_no": "C7654321",
        "description": "D7654321",
        "invoices": (Invoice("7654321", 7654321),),
    }
    for number, status in enumerate(DeliveryStatus):
        event = make_event(f"e{number}", **secret)
        ledger = open_ledger(ME._replace(run_id=f"made_{number}", process=f"made {number}"))
        [claimed] = claim(ledger, event)
        record(ledger, claimed, status.value)
        [found] = look_up(open_ledger(RETRY), dataclasses.replace(event, description="other"))
        record(open_ledger(RETRY), found, "changed", found.decision.detail, attempts=0)
    open_ledger(LATER_RUN).record_invalid([InvalidRowError("row 1", "time", "is missing", event_id="e99")])

    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT * FROM ropo_ledger")).all()

    assert len(rows) > 16
    assert "7654321" not in str(rows)


def test_long_details_are_cut(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A detail that is too long for its column is cut."""
    ledger = open_ledger()
    [claimed] = claim(ledger, make_event())

    record(ledger, claimed, "rejected", "ä" * 2_000)

    assert "ä" * 1_000 == written(engine)[-1].detail


def test_deciding_leaves_nothing(open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent) -> None:
    """A preview learns the decision about each event, and writes nothing."""
    claim(open_ledger(), make_event("e1"))

    decisions = open_ledger(LATER_RUN).decide([make_event("e1"), make_event("e2")])

    assert [CLAIMED_ELSEWHERE, SEND] == actions(decisions)
    assert (["sending"], []) == (statuses(engine), statuses(engine, "e2"))


def test_an_unreadable_status_stops_the_event(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """An event about which a row has an unknown delivery status is not sent, and the row is named."""
    send(open_ledger(), make_event("e1"), "undelivered")
    with engine.begin() as connection:
        connection.execute(
            sa.text("UPDATE ropo_ledger SET delivery_status = 'done' WHERE delivery_status <> 'sending'")
        )

    found = claim(open_ledger(LATER_RUN), make_event("e1"), make_event("e2"))

    assert [Action.UNREADABLE, SEND] == actions(found)
    assert "2024-01-04 12:00:00.000001 has the delivery_status 'done'" in found[0].decision.detail


def test_a_preview_does_not_make_the_table(engine: sa.engine.Engine) -> None:
    """Whether there is a ledger can be asked without making one."""
    ledger = DeliveryLedger(LedgerTable(engine, "ropo_ledger"), DESTINATION, ME, LedgerPolicy())

    before = ledger.exists()
    ledger.prepare()
    after = ledger.exists()
    ledger.close()

    assert (False, True) == (before, after)


def test_a_claim_that_cannot_be_written(
    open_ledger: OpenLedger, engine: sa.engine.Engine, make_event: MakeEvent
) -> None:
    """A claim that cannot be written or verified is an error, so that nothing is sent."""
    ledger = open_ledger()
    claimed = look_up(ledger, make_event())
    ledger.release_connection()
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE ropo_ledger RENAME TO gone"))

    with pytest.raises(RopoLedgerError, match=r"ropo_ledger could not be read: .*ropo_ledger"):
        verify(ledger, *claimed)
