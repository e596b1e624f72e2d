from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger import maintenance
from airflow_provider_ropo.ledger.decisions import Action, Decision
from airflow_provider_ropo.ledger.digest import ContentDigest, unkeyed
from airflow_provider_ropo.ledger.entries import SENDING, UNPUBLISHED, Claimant
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.maintenance import (
    Erased,
    Purged,
    Settlement,
    erase,
    parse_age,
    purge,
    review,
    settle,
)
from airflow_provider_ropo.ledger.table import LedgerTable
from ledger_steps import DESTINATION, LedgerTime, actions, claim, record, send, statuses, written

MakeEvent = Callable[..., UsageplaceEvent]
OpenLedger = Callable[..., DeliveryLedger]

ME = Claimant("dag", "report", "run_5", -1, 1, "process 5")
NEXT_RUN = Claimant("dag", "report", "run_6", -1, 1, "process 6")
TEST = "https://test 1"
SEND, KNOWN, CHANGED, CLOSED = Action.SEND, Action.ALREADY_DELIVERED, Action.CONTENT_CHANGED, Action.CLOSED


@pytest.fixture
def table(tables: Callable[..., LedgerTable]) -> LedgerTable:
    """Return the ledger's table, as the command opens it."""
    table = tables()
    table.create_or_upgrade()
    return table


def says(*event_ids: str, **fields: Any) -> Settlement:
    """Return what a person says of events, unless told otherwise that they are closed."""
    values = {"settle_as": "closed", "reason": "a duplicate", "who": "anna"} | fields
    return Settlement(event_ids=event_ids, **values)


def refusal(table: LedgerTable, settlement: Settlement) -> str:
    """Return why a settlement is refused, and make sure that nothing was written."""
    before = table.fetch(sa.select(table.definition))
    with pytest.raises(RopoConfigurationError) as caught:
        settle(table, settlement)
    assert before == table.fetch(sa.select(table.definition))
    return str(caught.value)


def invalid(reason: str = "is missing", number: int = 7) -> InvalidRowError:
    return InvalidRowError(f"row {number} (id e1)", "time", reason, event_id="e1", usageplacecode="RE1")


# Settling.


@pytest.mark.parametrize(
    ("before", "settle_as", "after"),
    [
        pytest.param("unconfirmed", "delivered", KNOWN, id="an unconfirmed has arrived"),
        pytest.param("unconfirmed", "undelivered", SEND, id="an unconfirmed has not arrived"),
        pytest.param("unconfirmed", "closed", CLOSED, id="an unconfirmed is closed"),
        pytest.param("rejected", "closed", CLOSED, id="a rejected is closed"),
        pytest.param("rejected", "delivered", KNOWN, id="a rejected was reported in another way"),
        pytest.param("undelivered", "closed", CLOSED, id="an undelivered is closed"),
        pytest.param("closed", "undelivered", SEND, id="a closed is opened again"),
        pytest.param("closed", "delivered", KNOWN, id="a closed was reported in another way"),
    ],
)
def test_settled_as(
    before: str,
    settle_as: str,
    after: Action,
    open_ledger: OpenLedger,
    table: LedgerTable,
    make_event: MakeEvent,
) -> None:
    """The next run does with a settled event as the person said."""
    send(open_ledger(), make_event(), before)

    settle(table, says("e1", settle_as=settle_as))

    [decision] = open_ledger(NEXT_RUN).decide([make_event()])
    assert (after, False) == (decision.action, decision.unconfirmed)


def test_a_settled_event_has_one_row_more(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """The row says who settled the event and why, is about the same event and content, and is the newest."""
    send(open_ledger(), make_event(), "unconfirmed")

    settle(table, says("e1", settle_as="delivered", reason=" seen in\nRopo One ", who="anna"))

    *_, before, row = written(engine)
    assert "settled as delivered by anna: seen in Ropo One" == row.detail
    assert ("delivered", "person", None) == (row.delivery_status, row.process, row.http_status)
    same = ("destination", "event_id", "usageplacecode", "event_status", "event_time", "payload_hash")
    assert [getattr(before, name) for name in same] == [getattr(row, name) for name in same]
    assert before.recorded_at < row.recorded_at


def test_a_task_that_settles_is_in_its_row(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """The row of a task names the run, and is a person's all the same."""
    send(open_ledger(), make_event(), "unconfirmed")

    settle(table, says("e1", settle_as="undelivered", task=Claimant("settle", "settle", "manual", -1, 1, "process 9")))

    row = written(engine)[-1]
    assert ("settle", "manual", "person") == (row.dag_id, row.run_id, row.process)
    assert [False] == [each.unconfirmed for each in open_ledger(NEXT_RUN).decide([make_event()])]


def test_a_runs_undelivered_is_no_answer(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """That a run has not sent an unconfirmed event does not say that it has not arrived."""
    send(open_ledger(), make_event(), "unconfirmed")
    open_ledger(NEXT_RUN).record_unsent([make_event()], "not sent")
    send(open_ledger(NEXT_RUN._replace(run_id="run_7", process="7")), make_event(), "undelivered", attempts=0)

    [decision] = open_ledger(NEXT_RUN._replace(run_id="run_8", process="8")).decide([make_event()])

    assert (SEND, True) == (decision.action, decision.unconfirmed)


def test_a_killed_run_is_settled_when_its_claim_has_run_out(
    open_ledger: OpenLedger, table: LedgerTable, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """A *sending* whose run was killed can be settled as delivered."""
    clock.time = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(seconds=601)
    claim(open_ledger(), make_event())

    settle(table, says("e1", settle_as="delivered"))

    assert [KNOWN] == actions(open_ledger(NEXT_RUN).decide([make_event()]))


def test_a_live_claim_is_refused(
    open_ledger: OpenLedger, table: LedgerTable, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """An event that a run is sending right now cannot be settled."""
    clock.time = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(seconds=500)
    claim(open_ledger(), make_event())

    assert (
        "nothing was settled; e1: run run_5 is sending it; wait until that run has ended, or if it was killed, until "
        "its claim is 600 s old (claim_timeout)"
    ) == refusal(table, says("e1"))
    settle(table, says("e1", claim_timeout=400.0))


@pytest.mark.parametrize(
    ("before", "settle_as", "reason"),
    [
        pytest.param("delivered", "closed", "it is delivered; to send it again, run its task with", id="delivered"),
        pytest.param("closed", "closed", "it is closed", id="closed twice"),
        pytest.param("undelivered", "undelivered", "it is undelivered; the next run", id="undelivered twice"),
        pytest.param("rejected", "undelivered", "it is rejected; the next run that reads it", id="taken again anyway"),
    ],
)
def test_what_makes_no_sense(
    before: str, settle_as: str, reason: str, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """A settlement that would change nothing, or would be wrong, is refused with the reason."""
    send(open_ledger(), make_event(), before)

    assert refusal(table, says("e1", settle_as=settle_as)).startswith(f"nothing was settled; e1: {reason}")


def test_all_or_nothing(open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent) -> None:
    """If one of several events cannot be settled, none is, and each that cannot be is named."""
    send(open_ledger(), make_event("e1"), "rejected")
    send(open_ledger(), make_event("e2"), "delivered")

    message = refusal(table, says("e1", "e2", "e3"))

    assert "e2: it is delivered" in message
    assert "e3: no row of the ledger is about it" in message
    assert "e1" not in message


def test_several_events(open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent) -> None:
    """Several events are settled at once; one that is named twice, or with blanks around it, is settled once."""
    events = [make_event(f"e{number}") for number in range(3)]
    for event in events:
        send(open_ledger(), event, "rejected")

    done = settle(table, says("e0", "e1", "e0", " e1 ", "e2\n"))

    assert ["e0", "e1", "e2"] == [each.event_id for each in done]
    assert [CLOSED] * 3 == actions(open_ledger(NEXT_RUN).decide(events))


def test_several_destinations(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """An event with several destinations is settled for the one that is named, and for no other."""
    for destination in (DESTINATION, TEST):
        send(open_ledger(destination=destination), make_event(), "rejected")

    assert f"choose one of: {DESTINATION}, {TEST}" in refusal(table, says("e1"))
    assert "no row is about destination 'elsewhere'; there are:" in refusal(table, says("e1", destination="elsewhere"))
    settle(table, says("e1", destination=TEST))

    assert TEST == written(engine)[-1].destination
    assert [SEND] == actions(open_ledger(NEXT_RUN).decide([make_event()]))
    assert [CLOSED] == actions(open_ledger(NEXT_RUN, destination=TEST).decide([make_event()]))


def test_closed_until_the_content_changes(open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent) -> None:
    """A closed event is sent when its content changes."""
    send(open_ledger(), make_event(), "rejected")

    settle(table, says("e1"))

    assert [CLOSED] == actions(open_ledger(NEXT_RUN).decide([make_event()]))
    assert [SEND] == actions(open_ledger(NEXT_RUN).decide([make_event(customernumber="A2")]))


def test_changed_content(open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent) -> None:
    """A change that Ropo One does not have can be closed, or said to be there; a later one is a change again."""
    changed, again = make_event(customernumber="A2"), make_event(customernumber="A3")
    send(open_ledger(), make_event())
    ledger = open_ledger(NEXT_RUN)
    [found] = claim(ledger, changed)
    assert [CHANGED] == actions([found])
    record_changed(ledger, found)

    assert "run its task with redeliver='changed'" in refusal(table, says("e1", settle_as="undelivered"))
    settle(table, says("e1"))
    closed = actions(open_ledger(NEXT_RUN).decide([changed])) + actions(open_ledger(NEXT_RUN).decide([again]))
    settle(table, says("e1", settle_as="delivered"))
    delivered = actions(open_ledger(NEXT_RUN).decide([changed])) + actions(open_ledger(NEXT_RUN).decide([again]))

    assert [CLOSED, CHANGED] == closed
    assert [KNOWN, CHANGED] == delivered


def record_changed(ledger: DeliveryLedger, found: Any) -> None:
    record(ledger, found, "changed", attempts=0)


def test_what_may_have_arrived_is_the_content_that_was_sent(
    open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """An unconfirmed event whose row has changed since is settled as delivered with what was sent then."""
    changed = make_event(customernumber="A2")
    send(open_ledger(), make_event(), "unconfirmed")
    ledger = open_ledger(NEXT_RUN)
    record_changed(ledger, claim(ledger, changed)[0])

    settle(table, says("e1", settle_as="delivered"))

    last = open_ledger(NEXT_RUN._replace(run_id="run_7", process="7"))
    assert [KNOWN, CHANGED] == actions([*last.decide([make_event()]), *last.decide([changed])])


def test_an_invalid_row_stays_closed_while_its_reason_is_the_same(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """A closed row that never became an event is closed in the next runs too, whichever number it has there."""
    open_ledger().record_invalid([invalid()])

    settle(table, says("e1", reason="never was one"))

    ledger = open_ledger(NEXT_RUN)
    ledger.record_invalid([invalid(number=9)])
    [same, other] = ledger.deliveries_of_invalid([invalid(number=9), invalid("is no time")])
    assert ("closed", "settled as closed by anna: never was one") == (same.status, same.detail)
    assert ("invalid", "row 7 (id e1): time: is no time") == (other.status, other.detail)
    assert ["invalid", "closed"] == statuses(engine)
    assert [SEND] == actions(ledger.decide([make_event()]))


def test_an_invalid_row_is_open_again_when_its_reason_changes(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable
) -> None:
    """A closed row that is invalid for another reason is written down as invalid, and may be closed again."""
    open_ledger().record_invalid([invalid()])
    settle(table, says("e1"))

    open_ledger(NEXT_RUN).record_invalid([invalid("is no time")])
    settle(table, says("e1"))

    assert ["invalid", "closed", "invalid", "closed"] == statuses(engine)


@pytest.mark.parametrize("settle_as", ["delivered", "undelivered"])
def test_an_invalid_row_was_never_sent(settle_as: str, open_ledger: OpenLedger, table: LedgerTable) -> None:
    """A row that never became an event can be closed, and nothing else."""
    open_ledger().record_invalid([invalid()])

    assert "its row never became an event, so nothing was sent" in refusal(table, says("e1", settle_as=settle_as))


def test_a_row_closed_by_hand_is_closed_for_any_reason(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable
) -> None:
    """A row without a digest, as a person inserts it, closes an invalid row whatever the reason."""
    open_ledger().record_invalid([invalid()])
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO ropo_ledger (event_id, delivery_status) VALUES ('e1', 'closed')"))

    [delivery] = open_ledger(NEXT_RUN).deliveries_of_invalid([invalid("is no time")])

    assert "closed" == delivery.status


def test_rows_of_the_layout_before(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """An event whose rows have no destination is settled without one, for all destinations."""
    statement = (
        "INSERT INTO ropo_ledger (event_id, delivery_status, run_id, payload_hash) VALUES ('e1', :status, 'x', :digest)"
    )
    with engine.begin() as connection:
        connection.execute(sa.text(statement), {"status": "unconfirmed", "digest": unkeyed(make_event())})

    settle(table, says("e1", settle_as="delivered"))

    assert None is written(engine)[-1].destination
    for destination in (DESTINATION, TEST):
        assert [KNOWN] == actions(open_ledger(NEXT_RUN, destination=destination).decide([make_event()]))


def test_an_unreadable_row_is_named(engine: sa.engine.Engine, table: LedgerTable) -> None:
    """An event with a row that makes no sense cannot be settled: that row has to be corrected first."""
    with engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO ropo_ledger (event_id, delivery_status) VALUES ('e1', 'done')"))

    assert "has the delivery_status 'done'" in refusal(table, says("e1"))


def test_what_was_agreed_to_must_still_be_so(
    open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """If a run writes about an event between the question and the answer, nothing is settled."""
    send(open_ledger(), make_event(), "rejected")
    seen = review(table, says("e1"))
    send(open_ledger(NEXT_RUN), make_event(), "undelivered")

    with pytest.raises(RopoConfigurationError, match="a run has written about e1 meanwhile: look again"):
        settle(table, says("e1"), confirmed=seen)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"settle_as": "rejected"}, "events are settled as one of delivered, closed, undelivered"),
        ({"reason": "  "}, "give a reason"),
        ({"event_ids": []}, "give the id of one event at least"),
        ({"event_ids": ["e1", 7]}, "ids are text"),
        ({"event_ids": [str(number) for number in range(101)]}, "settle 100 events at a time, at most"),
        ({"claim_timeout": 0}, "`claim_timeout` must be more than 0 seconds"),
    ],
    ids=["status", "reason", "no events", "a number", "many", "timeout"],
)
def test_a_settlement_that_makes_no_sense(fields: dict[str, Any], message: str) -> None:
    """What a person says is checked before any database is asked."""
    values = {"event_ids": ["e1"], "settle_as": "closed", "reason": "a duplicate", "who": "anna"} | fields
    with pytest.raises(RopoConfigurationError, match=message):
        Settlement(**values)


# Purging.

OLD = dt.datetime.now(dt.UTC).replace(tzinfo=None) - dt.timedelta(days=401)
YEAR = dt.timedelta(days=400)


@pytest.fixture
def old(clock: LedgerTime) -> LedgerTime:
    """Return a time more than 400 days ago, which the runs of a test take for the time."""
    clock.time = OLD
    return clock


def ids(table: LedgerTable) -> list[str]:
    ledger = table.definition.c
    return [row["event_id"] for row in table.fetch(sa.select(ledger.event_id).distinct().order_by(ledger.event_id))]


@pytest.mark.parametrize(
    ("status", "is_kept"),
    [
        ("delivered", False),
        ("closed", False),
        *((status, True) for status in ("undelivered", "unconfirmed", "held", "rejected", "changed")),
    ],
)
def test_finished_events_are_purged(
    status: str,
    is_kept: bool,  # noqa: FBT001
    old: LedgerTime,
    open_ledger: OpenLedger,
    table: LedgerTable,
    make_event: MakeEvent,
) -> None:
    """All rows of an old event are deleted if it is delivered or closed; an open one keeps them."""
    send(open_ledger(), make_event(), status)

    counts = purge(table, YEAR)

    assert (Purged(0, 0, 1) if is_kept else Purged(1, 2, 0)) == counts
    assert (["e1"] if is_kept else []) == ids(table)


def test_claims_and_invalid_rows_are_kept(
    old: LedgerTime, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """A *sending* without an end, and a row that never became an event, are open."""
    claim(open_ledger(), make_event("e0"))
    open_ledger().record_invalid([invalid()])

    assert Purged(kept=2) == purge(table, YEAR)
    assert ["e0", "e1"] == ids(table)


@pytest.mark.parametrize(("status", "is_kept"), [(UNPUBLISHED, False), ("delivered", False), (SENDING, True)])
def test_file_is_purged(
    status: str,
    is_kept: bool,  # noqa: FBT001
    old: LedgerTime,
    open_ledger: OpenLedger,
    table: LedgerTable,
) -> None:
    """A file that was never published is nobody's open business, as one that has arrived; another one is."""
    file = FileRecord("e1.jsonl", 2, 300, "0" * 64)
    open_ledger().record_file(file, status)

    assert (Purged(0, 0, 1) if is_kept else Purged(1, 1, 0)) == purge(table, YEAR)


def test_event_in_a_file_that_was_given_up_is_kept(
    old: LedgerTime, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """An event that was in such a file has not arrived: it is open."""
    file = FileRecord("e1.jsonl", 1, 300, "0" * 64)
    event, ledger = make_event(), open_ledger()
    ledger.record_found([(event, Decision(Action.SEND))], UNPUBLISHED, file, "the run was stopped")

    assert Purged(kept=1) == purge(table, YEAR)


def test_what_is_younger_is_kept(
    old: LedgerTime, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """An event with one row that is younger keeps all of them."""
    send(open_ledger(), make_event("e0"), "undelivered")
    send(open_ledger(), make_event("e1"))
    old.go_on(3 * 24 * 3600)
    send(open_ledger(NEXT_RUN), make_event("e0"))

    assert Purged(1, 2, 0) == purge(table, YEAR)
    assert ["e0"] == ids(table)
    assert 4 == len(table.fetch(sa.select(table.definition)))


def test_open_at_one_destination(
    old: LedgerTime, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """An event that is open at any of its destinations keeps all its rows."""
    for number, status in enumerate(["delivered", "undelivered"]):
        send(open_ledger(), make_event(f"e{number}"))
        send(open_ledger(destination=TEST), make_event(f"e{number}"), status)

    assert Purged(1, 4, 1) == purge(table, YEAR)
    assert ["e1"] == ids(table)


def test_delivered_whatever_is_newer(
    old: LedgerTime, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """An event is finished by its state, not by its newest row alone."""
    send(open_ledger(), make_event())
    send(open_ledger(NEXT_RUN, redeliver="always"), make_event(), "undelivered")

    assert Purged(1, 4, 0) == purge(table, YEAR)


def test_pages_and_batches(monkeypatch: pytest.MonkeyPatch, engine: sa.engine.Engine, table: LedgerTable) -> None:
    """Ids are read in pages and deleted in batches; none is left out at the seams."""
    monkeypatch.setattr(maintenance, "PAGE", 300)
    empty = dict.fromkeys(table.definition.c.keys())
    table.insert(
        [
            {**empty, "event_id": f"e{number}", "destination": DESTINATION, "attempts": 1, "recorded_at": OLD}
            | {"delivery_status": "rejected" if number % 100 == 0 else "delivered", "process": "p"}
            for number in range(1_200)
        ]
    )

    assert Purged(1_188, 1_188, 12) == purge(table, YEAR)
    assert sorted(f"e{number}" for number in range(0, 1_200, 100)) == ids(table)


def test_a_trial_deletes_nothing(
    old: LedgerTime, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """A dry run counts what would be deleted."""
    send(open_ledger(), make_event())

    assert Purged(1, 2, 0) == purge(table, YEAR, dry_run=True)
    assert ["e1"] == ids(table)


def test_the_floor(old: LedgerTime, open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent) -> None:
    """An age below the floor is refused, with the reason, unless it is forced."""
    send(open_ledger(), make_event())

    with pytest.raises(RopoConfigurationError, match="without their rows they would be sent again"):
        purge(table, dt.timedelta(days=89))
    assert ["e1"] == ids(table)
    assert Purged(1, 2, 0) == purge(table, dt.timedelta(days=89), force=True)


@pytest.mark.parametrize(("text", "days"), [("400d", 400), (" 90d ", 90), ("0d", 0)])
def test_ages(text: str, days: int) -> None:
    """An age is a number of days."""
    assert dt.timedelta(days=days) == parse_age(text)


@pytest.mark.parametrize("text", ["", "400", "d", "-1d", "1.5d", "4w", "400 d", "1234567d"])
def test_no_ages(text: str) -> None:
    """What is no age is refused and quoted."""
    with pytest.raises(RopoConfigurationError, match="is no age in days such as 400d"):
        parse_age(text)


# Erasing.


def test_an_erased_place_is_in_no_row(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """The place, what happened there, when, and the details go; id, destination and delivery status stay."""
    send(open_ledger(), make_event("e1"), detail="of RE1")
    send(open_ledger(), make_event("e2", "RE2"), detail="of RE2")
    before = [(row.destination, row.event_id, row.delivery_status, row.recorded_at) for row in written(engine)]

    assert Erased(1, 2) == erase(table, "RE1")

    rows = written(engine)
    assert before == [(row.destination, row.event_id, row.delivery_status, row.recorded_at) for row in rows]
    assert {(None, None, None, None)} == {
        (row.usageplacecode, row.event_status, row.event_time, row.detail) for row in rows
    }
    assert [("RE2", None), ("RE2", "of RE2")] == [(row.usageplacecode, row.detail) for row in written(engine, "e2")]


def test_nothing_erased_is_sent_again(open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent) -> None:
    """Delivered and closed events stay known, with their content, after their place was erased."""
    send(open_ledger(), make_event("e1"))
    send(open_ledger(), make_event("e2"), "rejected")
    settle(table, says("e2"))

    erase(table, "RE1")

    ledger = open_ledger(NEXT_RUN)
    assert [KNOWN, CLOSED] == actions(ledger.decide([make_event("e1"), make_event("e2")]))
    assert [CHANGED] == actions(ledger.decide([make_event("e1", customernumber="A2")]))


def test_no_digest_of_a_single_field_is_left(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """Of a digest, only that of the whole content stays; of the layout before, nothing, and the event stays known."""
    send(open_ledger(), make_event("e1"))
    send(open_ledger(), make_event("e2"))
    with engine.begin() as connection:
        earlier = {"digest": unkeyed(make_event("e2"))}
        connection.execute(sa.text("UPDATE ropo_ledger SET payload_hash = :digest WHERE event_id = 'e2'"), earlier)

    erase(table, "RE1")

    whole = ContentDigest(make_event("e1"), DESTINATION).text[:32]
    assert {whole} == {row.payload_hash for row in written(engine, "e1")}
    assert {None} == {row.payload_hash for row in written(engine, "e2")}
    assert [KNOWN] == actions(open_ledger(NEXT_RUN).decide([make_event("e2")]))


def test_a_row_without_its_place_belongs_to_it(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """The details of an invalid row, whose place could not be read, are erased with its event."""
    send(open_ledger(), make_event(), "rejected")
    open_ledger(NEXT_RUN).record_invalid([InvalidRowError("row 1 (id e1)", "time", "is missing", event_id="e1")])

    assert Erased(1, 3, ("e1",)) == erase(table, "RE1")
    assert [None] * 3 == [row.detail for row in written(engine)]


def test_the_same_id_at_another_place(
    open_ledger: OpenLedger, engine: sa.engine.Engine, table: LedgerTable, make_event: MakeEvent
) -> None:
    """A row about another place keeps it, though it has the id of an erased event."""
    send(open_ledger(), make_event("e1", "RE1"), "rejected")
    send(open_ledger(NEXT_RUN), make_event("e1", "RE2"))

    assert Erased(1, 2) == erase(table, "RE1")
    assert [None, None, "RE2", "RE2"] == [row.usageplacecode for row in written(engine)]


def test_open_events_of_an_erased_place_are_named(
    open_ledger: OpenLedger, table: LedgerTable, make_event: MakeEvent
) -> None:
    """A run that reads an open event writes its place again, so it is named; a dry run changes nothing."""
    send(open_ledger(), make_event("e1"))
    send(open_ledger(), make_event("e2"), "unconfirmed")

    assert Erased(2, 4, ("e2",)) == erase(table, "RE1", dry_run=True)
    assert Erased(2, 4, ("e2",)) == erase(table, "RE1")


def test_an_unknown_place(table: LedgerTable) -> None:
    """A place that no row is about is an error; its code is not repeated."""
    with pytest.raises(RopoConfigurationError, match="no row of the ledger ropo_ledger is about this usage place"):
        erase(table, "RE1")
