from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import (
    CLAIM_RACE_GRACE,
    EARLIER_TRY_GRACE,
    ClaimProtocol,
    PendingClaim,
    Plan,
    Round,
    Snapshot,
)
from airflow_provider_ropo.ledger.decisions import Action, Decision, LedgerPolicy
from airflow_provider_ropo.ledger.digest import ContentDigest
from airflow_provider_ropo.ledger.entries import TICK, Claimant, LedgerEntry
from ledger_steps import DESTINATION, actions

MakeEvent = Callable[..., UsageplaceEvent]

ME = Claimant("dag", "report", "run_5", -1, 2, "me")
FIRST, LAST = ME._replace(run_id="run_3", process="first"), ME._replace(run_id="run_7", process="last")
BEFORE, LATER = ME._replace(try_number=1, process="before"), ME._replace(try_number=3, process="later")
NOON = dt.datetime(2024, 1, 4, 12)  # noqa: DTZ001 - as the ledger writes it
SECOND = dt.timedelta(seconds=1)
EVENT_TIME = dt.datetime(2024, 1, 4, 10)  # noqa: DTZ001 - a wall clock's


def protocol(**policy: Any) -> ClaimProtocol:
    return ClaimProtocol(DESTINATION, ME, LedgerPolicy(**policy), NOON - 3600 * SECOND)


def entry(event: UsageplaceEvent, status: str, who: Claimant, at: dt.datetime = NOON) -> LedgerEntry:
    return LedgerEntry(status, ContentDigest(event, DESTINATION).text, at, who, DESTINATION)


def snapshot(*entries: tuple[UsageplaceEvent, str, Claimant, dt.datetime]) -> Snapshot:
    found: dict[str, list[LedgerEntry]] = {}
    for event, status, who, at in entries:
        found.setdefault(event.id, []).append(entry(event, status, who, at))
    return Snapshot(found)


def rows(written: list[dict[str, Any]]) -> list[tuple[str, str, dt.datetime]]:
    return [(row["event_id"], row["delivery_status"], row["recorded_at"]) for row in written]


def ids(claims: list[PendingClaim]) -> list[str]:
    return [claim.event.id for claim in claims]


def claimed(event: UsageplaceEvent, at: dt.datetime = NOON, claimed_at: float = 0.0) -> PendingClaim:
    return PendingClaim(event, Decision(Action.SEND), at, is_claimed=True, claimed_at=claimed_at, holds_until=600.0)


def verify(event: UsageplaceEvent, read: Snapshot, clock: float = 0.1, **policy: Any) -> Plan:
    return protocol(**policy).plan(Round(unresolved=[claimed(event)]), read, NOON + SECOND, clock)


def test_an_unknown_event_is_claimed_with_the_time_of_the_reading(make_event: MakeEvent) -> None:
    """An event that is to be sent is claimed in the round that looks it up, and not sent yet."""
    event = make_event()

    plan = protocol().plan(Round(look_ups=[event], claim_limit=1), Snapshot(), NOON, 7.0)

    assert [("e1", "sending", NOON)] == rows(plan.claims)
    [claim] = plan.outcome.unresolved
    assert (True, 7.0, 607.0, NOON) == (claim.is_claimed, claim.claimed_at, claim.holds_until, claim.at)
    assert [] == plan.outcome.ready


def test_claims_are_limited(make_event: MakeEvent) -> None:
    """No more events are claimed than asked for, nor of one place; a place's later events wait with the first."""
    events = [
        make_event("a1", "A", "10:00"),
        make_event("a2", "A", "10:01"),
        make_event("a3", "A", "10:02"),
        make_event("b1", "B"),
        make_event("c1", "C"),
        make_event("d1", "D"),
    ]
    asked = Round(look_ups=events, claim_limit=4, claims_per_place=2)

    plan = protocol().plan(asked, Snapshot(), NOON, 0.0)

    assert ["a1", "a2", "b1", "c1"] == ids(plan.outcome.unresolved)
    assert ["a3", "d1"] == ids(plan.outcome.postponed)


def test_a_place_keeps_its_order_when_claims_run_out(make_event: MakeEvent) -> None:
    """A known event behind one that was postponed is postponed with it."""
    events = [make_event("a1", "A", "10:00"), make_event("a2", "A", "10:01")]

    plan = protocol().plan(Round(look_ups=events), snapshot((events[1], "delivered", LAST, NOON)), NOON + SECOND, 0.0)

    assert (["a1", "a2"], []) == (ids(plan.outcome.postponed), plan.claims)


@pytest.mark.parametrize(("status", "blocks"), [("sending", True), ("delivered", False), ("closed", False)], ids=str)
def test_an_event_that_has_not_arrived_blocks_its_place(
    status: str,
    blocks: bool,  # noqa: FBT001
    make_event: MakeEvent,
) -> None:
    """Events behind one that another run is sending are not claimed; behind one that is done, they are."""
    first, second = make_event("a1", "A", "10:00"), make_event("a2", "A", "10:01")
    asked = Round(look_ups=[first, second], claim_limit=2, claims_per_place=2)

    plan = protocol().plan(asked, snapshot((first, status, LAST, NOON)), NOON + SECOND, 0.0)

    assert ["a1"] == ids(plan.outcome.refused)
    assert (["a2"] if blocks else []) == ids(plan.outcome.postponed)
    assert ([] if blocks else ["a2"]) == ids(plan.outcome.unresolved)


def test_blocked_events_are_never_claimed(make_event: MakeEvent) -> None:
    """A blocked event is looked up and not claimed, whatever the decision about it is."""
    free, known = make_event("e1"), make_event("e2")

    plan = protocol().plan(
        Round(blocked=[free, known], claim_limit=5), snapshot((known, "delivered", LAST, NOON)), NOON + SECOND, 0.0
    )

    assert [Action.SEND, Action.ALREADY_DELIVERED] == actions(plan.outcome.refused)
    assert [] == plan.claims


def test_what_may_have_arrived_is_written_down_before_it_is_claimed(make_event: MakeEvent) -> None:
    """A claim of an event that may have arrived follows a row that says so."""
    event = make_event()
    read = snapshot((event, "unconfirmed", LAST, NOON + SECOND))

    plan = protocol().plan(Round(look_ups=[event], claim_limit=1), read, NOON, 0.0)

    # After all that was read, though the reading's clock was behind.
    start = NOON + SECOND + TICK
    assert [("e1", "unconfirmed", start), ("e1", "sending", start + TICK)] == rows(plan.claims)


def test_a_claim_alone_is_ready(make_event: MakeEvent) -> None:
    """A claim beside which there is no other may be sent, and nothing more is written."""
    event = make_event()

    plan = verify(event, snapshot((event, "sending", ME, NOON)))

    assert (["e1"], []) == (ids(plan.outcome.ready), plan.claims)


@pytest.mark.parametrize(
    ("other", "clock", "waits"),
    [
        (LAST, CLAIM_RACE_GRACE - 0.1, True),
        (LAST, CLAIM_RACE_GRACE, False),
        (FIRST, 0.1, False),
        (ME._replace(process="zwilling"), 0.1, True),
        (ME._replace(process="a twin"), 0.1, False),
    ],
    ids=["I am first", "I was first for too long", "I am last", "first of two processes", "last of two processes"],
)
def test_claims_beside_each_other(
    other: Claimant,
    clock: float,
    waits: bool,  # noqa: FBT001
    make_event: MakeEvent,
) -> None:
    """Of claims beside each other, the first waits for a limited time, and every other is released at once."""
    event = make_event()

    plan = verify(event, snapshot((event, "sending", ME, NOON), (event, "sending", other, NOON)), clock)

    if waits:
        assert (["e1"], []) == (ids(plan.outcome.unresolved), plan.claims)
    else:
        assert [Action.CLAIMED_ELSEWHERE] == actions(plan.outcome.refused)
        assert [("e1", "held", NOON + TICK)] == rows(plan.claims)
        assert not plan.outcome.refused[0].is_claimed


def test_what_was_delivered_meanwhile_is_released(make_event: MakeEvent) -> None:
    """A claim of an event that another run has delivered since ends right after itself."""
    event = make_event()

    plan = verify(event, snapshot((event, "sending", ME, NOON), (event, "delivered", LAST, NOON + SECOND)))

    assert [Action.ALREADY_DELIVERED] == actions(plan.outcome.refused)
    assert [("e1", "already_delivered", NOON + TICK)] == rows(plan.claims)


def test_what_ended_meanwhile_is_claimed_after_that(make_event: MakeEvent) -> None:
    """A claim of an event that was rejected elsewhere since is written again, later than that."""
    event = make_event()

    plan = verify(event, snapshot((event, "sending", ME, NOON), (event, "rejected", LAST, NOON + 5 * SECOND)))

    assert ["e1"] == ids(plan.outcome.ready)
    assert [("e1", "sending", NOON + 5 * SECOND + TICK)] == rows(plan.claims)
    assert NOON + 5 * SECOND + TICK == plan.outcome.ready[0].at


def test_an_earlier_try_may_speak_up(make_event: MakeEvent) -> None:
    """A live earlier try is waited for once a run, for a limited time, and then taken over."""
    event, other = make_event("e1"), make_event("e2")
    read = snapshot((event, "sending", BEFORE, NOON), (other, "sending", BEFORE, NOON))
    mine = protocol()

    def unresolved(which: UsageplaceEvent, claimed_at: float, clock: float) -> list[str]:
        asked = Round(unresolved=[claimed(which, claimed_at=claimed_at)])
        return ids(mine.plan(asked, read, NOON + SECOND, clock).outcome.unresolved)

    assert ["e1"] == unresolved(event, 0.0, EARLIER_TRY_GRACE - 0.1)
    assert [] == unresolved(event, 0.0, EARLIER_TRY_GRACE)
    assert [] == unresolved(other, 5.0, 5.1)


@pytest.mark.parametrize("noticed", ["by the table", "by an event's rows"])
def test_a_superseded_records_and_nothing_else(noticed: str, make_event: MakeEvent) -> None:
    """A superseded try's results are written, and nothing is claimed or ready."""
    done, waiting, new = make_event("e1"), make_event("e2"), make_event("e3")
    result = (claimed(done), Delivery(DeliveryStatus.DELIVERED, "e1", attempts=1))
    asked = Round(look_ups=[new], claim_limit=1, unresolved=[claimed(waiting)], results=[result])
    read = snapshot((waiting, "sending", LATER, NOON)) if noticed != "by the table" else Snapshot(is_superseded=True)

    plan = protocol().plan(asked, read, NOON + SECOND, 1.0)

    assert plan.is_superseded
    assert [("e1", "delivered", NOON + SECOND)] == rows(plan.results)
    assert ([], [], [], []) == (plan.claims, plan.outcome.ready, plan.outcome.unresolved, plan.outcome.refused)


@pytest.mark.parametrize(("attempts", "at"), [(1, NOON + SECOND), (0, NOON + TICK)], ids=["was sent", "was not sent"])
def test_a_result_is_dated_when_it_happened(attempts: int, at: dt.datetime, make_event: MakeEvent) -> None:
    """What was sent is dated now; what was not, right after its claim."""
    delivery = Delivery(DeliveryStatus.UNDELIVERED, "e1", attempts=attempts)

    plan = protocol().plan(Round(results=[(claimed(make_event()), delivery)]), Snapshot(), NOON + SECOND, 1.0)

    assert [("e1", "undelivered", at)] == rows(plan.results)


@pytest.mark.parametrize(
    ("status", "latest", "stale"),
    [
        (DeliveryStatus.DELIVERED, EVENT_TIME + SECOND, 1),
        (DeliveryStatus.DELIVERED, EVENT_TIME, 0),
        (DeliveryStatus.REJECTED, EVENT_TIME + SECOND, 0),
    ],
    ids=["overtaken", "at the same time", "did not arrive"],
)
def test_stale_is_decided_when_recorded(
    status: DeliveryStatus, latest: dt.datetime, stale: int, make_event: MakeEvent
) -> None:
    """A delivered event is stale if a later one of its place is known delivered when it is recorded."""
    asked = Round(results=[(claimed(make_event()), Delivery(status, "e1", attempts=1))])

    plan = protocol().plan(asked, Snapshot(latest_deliveries={"RE1": latest}), NOON, 1.0)

    assert stale == plan.outcome.stale
    assert bool(stale) is ("stale: " in str(plan.results[0]["detail"]))


def test_only_delivered_results_ask_for_their_places(make_event: MakeEvent) -> None:
    """A round reads the latest deliveries of those places alone of which an event was delivered."""
    results = [
        (claimed(make_event("e1", "A")), Delivery(DeliveryStatus.DELIVERED, "e1")),
        (claimed(make_event("e2", "B")), Delivery(DeliveryStatus.REJECTED, "e2")),
    ]

    assert {"A"} == Round(results=results).places


def test_what_the_newest_row_says_is_not_written_again(make_event: MakeEvent) -> None:
    """The result of an event that was not claimed is written unless its newest row says the same of this content."""
    event, other = make_event("e1"), make_event("e1", customernumber="A1")
    newest = entry(event, "unconfirmed", LAST)
    delivery = Delivery(DeliveryStatus.UNCONFIRMED, "e1")
    found = [PendingClaim(each, Decision(Action.UNCONFIRMED, newest=newest), NOON + TICK) for each in (event, other)]

    plans = [protocol().plan(Round(results=[(each, delivery)]), Snapshot(), NOON + SECOND, 1.0) for each in found]

    assert [[], [("e1", "unconfirmed", NOON + TICK)]] == [rows(plan.results) for plan in plans]
