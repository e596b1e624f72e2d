"""What the ledger remembers of files, and what that means for the events in them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest

from airflow_provider_ropo.errors import SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import Round
from airflow_provider_ropo.ledger.decisions import Action
from airflow_provider_ropo.ledger.entries import PUBLISHING, SENDING, UNPUBLISHED, UPLOADED, Claimant
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from ledger_steps import LedgerTime

FILE = FileRecord("events_20260114T030000Z_3f9c2a71b0de.jsonl", 2, 300, "3f9c2a71b0de" + "0" * 52)
OpenLedger = Callable[..., DeliveryLedger]
MakeEvent = Callable[..., UsageplaceEvent]


def claimant(run_id: str, try_number: int = 1) -> Claimant:
    return Claimant("dag", "report", run_id, -1, try_number, f"process {run_id} {try_number}")


def test_text() -> None:
    """A file is read from a row's detail, with whatever follows."""
    assert FILE == FileRecord.parse(f"{FILE}; it was collected")


@pytest.mark.parametrize("detail", ["", "may have arrived already", "file a of events"], ids=repr)
def test_no_file(detail: str) -> None:
    """A detail that does not begin with a file is about none."""
    assert FileRecord.parse(detail) is None


def claim(ledger: DeliveryLedger, *events: UsageplaceEvent) -> None:
    """Claim events for the file."""
    ledger.exchange(Round(look_ups=events, claim_limit=9, claims_per_place=9, detail=str(FILE)))


def test_file_of_an_event(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """The next try of a run that was killed is told in which file an event may have arrived."""
    claim(open_ledger(claimant("run")), make_event())

    (decision,) = open_ledger(claimant("run", 2)).decide([make_event()])

    assert (Action.SEND, True, FILE) == (decision.action, decision.unconfirmed, decision.file)


def test_file_of_an_event_that_has_changed(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """The file is told, too, where the event has changed since."""
    claim(open_ledger(claimant("run")), make_event())

    (decision,) = open_ledger(claimant("run", 2)).decide([make_event(description="something else")])

    assert (Action.CONTENT_CHANGED, FILE) == (decision.action, decision.file)


def test_file_that_was_never_published(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """An event of a file that was never published has not arrived, also where such events are held or have changed."""
    claim(open_ledger(claimant("run")), make_event())
    second = open_ledger(claimant("run", 2), on_unconfirmed="hold")
    second.record_found([(make_event(), second.decide([make_event()])[0])], UNPUBLISHED, FILE, "it was not published")

    for event in (make_event(), make_event(description="something else")):
        (decision,) = second.decide([event])

        assert (Action.SEND, False, None) == (decision.action, decision.unconfirmed, decision.file)


def test_found_at_its_destination(open_ledger: OpenLedger, make_event: MakeEvent) -> None:
    """An event of a file that was found is delivered, with the content that was sent then."""
    claim(open_ledger(claimant("run")), make_event())
    second = open_ledger(claimant("run", 2))
    changed = make_event(description="something else")
    second.record_found([(changed, second.decide([changed])[0])], "delivered", FILE, "it was found")

    (before, after) = (second.decide([event])[0] for event in (make_event(), changed))

    assert (Action.ALREADY_DELIVERED, Action.CONTENT_CHANGED) == (before.action, after.action)


@pytest.mark.parametrize("status", [SENDING, UPLOADED, PUBLISHING])
def test_file_of_another_run(open_ledger: OpenLedger, clock: LedgerTime, status: str) -> None:
    """A file that another run is sending is respected for as long as its claims are; of an earlier try, it is not."""
    open_ledger(claimant("run")).record_file(FILE, status)

    assert [claimant("run")] == open_ledger(claimant("other")).senders_of_file(FILE.name)
    assert [] == open_ledger(claimant("run", 2)).senders_of_file(FILE.name)
    clock.time += dt.timedelta(seconds=601)
    assert [] == open_ledger(claimant("other")).senders_of_file(FILE.name)


def test_file_that_was_taken_over(open_ledger: OpenLedger) -> None:
    """A process notices that another has written about its file, and an earlier try's rows do not stop a later one."""
    first, second = open_ledger(claimant("run")), open_ledger(claimant("run", 2))
    began = first.record_file(FILE, SENDING)
    first.check_file_is_mine(FILE, began)
    later = second.record_file(FILE, SENDING)
    first.record_file(FILE, PUBLISHING)

    with pytest.raises(SupersededError, match="taken over"):
        first.check_file_is_mine(FILE, began)
    second.check_file_is_mine(FILE, later)


@pytest.mark.parametrize(
    ("others", "is_taken"),
    [
        ((SENDING,), False),
        ((SENDING, UNPUBLISHED), False),
        ((UNPUBLISHED,), True),
        ((UNPUBLISHED, SENDING), True),
        ((SENDING, UPLOADED), True),
        ((UPLOADED,), True),
    ],
    ids=["claims", "gives up", "takes over", "takes over and sends", "sends", "goes on"],
)
def test_file_that_another_run_writes_about(
    open_ledger: OpenLedger, others: tuple[str, ...], *, is_taken: bool
) -> None:
    """A run that claims the same file, and gives it up again, takes nothing away; one that goes on with it does."""
    first, other = open_ledger(claimant("run")), open_ledger(claimant("other"))
    began = first.record_file(FILE, SENDING)
    for status in others:
        other.record_file(FILE, status)

    with pytest.raises(SupersededError, match="run other has taken over") if is_taken else nullcontext():
        first.check_file_is_mine(FILE, began)


def test_event_that_may_have_arrived_in_another_file(
    open_ledger: OpenLedger, make_event: MakeEvent, clock: LedgerTime
) -> None:
    """An event of a file that its run has left is not claimed for another file: that one is looked for first."""
    claim(open_ledger(claimant("run")), make_event("e1"))
    clock.time += dt.timedelta(seconds=601)
    other = open_ledger(claimant("other"))
    again = Round(look_ups=[make_event("e1"), make_event("e2")], claim_limit=9, claims_per_place=9)

    apart, together = (other.exchange(replace(again, detail=detail)) for detail in ("file another", str(FILE)))

    assert [(Action.CLAIMED_ELSEWHERE, "e1")] == [(each.decision.action, each.event.id) for each in apart.refused]
    assert FILE.name in apart.refused[0].decision.detail
    assert [] == together.refused
