from __future__ import annotations

import datetime as dt
from itertools import product

import pytest

from airflow_provider_ropo.export.resume import NOTHING, UNKNOWN, Seen, Step, newest_status, next_step
from airflow_provider_ropo.ledger.entries import Claimant, LedgerEntry

SAME, OTHER = Seen(120), Seen(77)
ANYTHING = (NOTHING, SAME, OTHER, UNKNOWN)
NOON = dt.datetime(2026, 1, 14, 12)  # noqa: DTZ001 - the ledger's times are naive
FIRST, SECOND = (Claimant("dag", "report", "run", -1, number, f"process {number}") for number in (1, 2))


@pytest.mark.parametrize("temporary", ANYTHING)
@pytest.mark.parametrize("newest", [None, "sending"])
def test_never_published(newest: str | None, temporary: Seen) -> None:
    """A file that was being sent, and is not there, is uploaded again, whatever has the temporary name."""
    assert next_step(newest, 120, temporary, NOTHING) is Step.UPLOAD


def test_rename_did_not_happen() -> None:
    """A file that was about to be published, and still has its temporary name, is renamed."""
    assert next_step("publishing", 120, SAME, NOTHING) is Step.PUBLISH


@pytest.mark.parametrize("newest", [None, "sending", "uploaded", "publishing", "unconfirmed"])
def test_arrived(newest: str | None) -> None:
    """A file of the same size under its final name has arrived."""
    assert next_step(newest, 120, NOTHING, SAME) is Step.DELIVERED


def test_collected_or_lost() -> None:
    """A file that was about to be published, and is nowhere, is unconfirmed."""
    assert next_step("publishing", 120, NOTHING, NOTHING) is Step.UNCONFIRMED


@pytest.mark.parametrize(
    ("newest", "temporary"), list(product([None, "sending", "uploaded", "publishing", "unconfirmed"], ANYTHING))
)
def test_another_file_has_the_name(newest: str | None, temporary: Seen) -> None:
    """A file of another size under the final name is left to a person."""
    assert next_step(newest, 120, temporary, OTHER) is Step.CONFLICT


@pytest.mark.parametrize("temporary", ANYTHING)
@pytest.mark.parametrize("newest", ["publishing", "unconfirmed"])
def test_cannot_look(newest: str, temporary: Seen) -> None:
    """A file that may have been published is unconfirmed where the destination does not tell."""
    assert next_step(newest, 120, temporary, UNKNOWN) is Step.UNCONFIRMED


def test_cannot_look_for_what_was_never_published() -> None:
    """A file that was certainly not published is uploaded again, also where the destination does not tell."""
    assert next_step("sending", 120, UNKNOWN, UNKNOWN) is Step.UPLOAD


@pytest.mark.parametrize(
    ("temporary", "expected"),
    [(SAME, Step.PUBLISH), (OTHER, Step.UPLOAD), (NOTHING, Step.UPLOAD), (UNKNOWN, Step.UPLOAD)],
    ids=["whole", "another size", "gone", "unknown"],
)
def test_uploaded(temporary: Seen, expected: Step) -> None:
    """A file that was uploaded is published if it is still there whole, and otherwise uploaded again."""
    assert next_step("uploaded", 120, temporary, NOTHING) is expected


def test_half_a_file_is_not_published() -> None:
    """What has the temporary name is not published if its size is another."""
    assert next_step("publishing", 120, OTHER, NOTHING) is Step.UNCONFIRMED


@pytest.mark.parametrize(
    ("newest", "expected"), [("delivered", Step.DELIVERED), ("closed", Step.CLOSED)], ids=["delivered", "closed"]
)
def test_settled(newest: str, expected: Step) -> None:
    """What the ledger knows for certain is not looked for."""
    assert next_step(newest, 120, OTHER, OTHER) is expected


@pytest.mark.parametrize("newest", ["unpublished", "undelivered", "rejected"])
def test_settled_as_not_delivered(newest: str) -> None:
    """What the ledger says was not published is uploaded again."""
    assert next_step(newest, 120, NOTHING, NOTHING) is Step.UPLOAD


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], None),
        ([(FIRST, "sending")], "sending"),
        ([(FIRST, "sending"), (FIRST, "uploaded"), (FIRST, "publishing")], "publishing"),
        ([(FIRST, "publishing"), (FIRST, "delivered")], "delivered"),
        ([(FIRST, "publishing"), (SECOND, "sending")], "publishing"),
        ([(FIRST, "publishing"), (SECOND, "publishing"), (SECOND, "unpublished")], "publishing"),
        ([(FIRST, "sending"), (SECOND, "unpublished")], "unpublished"),
        ([(FIRST, "publishing"), (FIRST, "unpublished")], "unpublished"),
        ([(FIRST, "publishing"), (SECOND, "delivered"), (FIRST, "unpublished")], "delivered"),
        ([(FIRST, "publishing"), (SECOND, "undelivered")], "undelivered"),
        ([(FIRST, "delivered"), (SECOND, "sending")], "sending"),
    ],
    ids=[
        "no row",
        "one row",
        "the newest",
        "delivered",
        "published by another process",
        "not published by this process",
        "taken over",
        "taken back",
        "delivered, and then taken back",
        "settled by a person",
        "sent again",
    ],
)
def test_newest_status(rows: list[tuple[Claimant, str]], expected: str | None) -> None:
    """A file is judged by the newest row of each process, and by nothing before the last answer."""
    entries = [
        LedgerEntry(status, "digest", NOON + dt.timedelta(seconds=number), claimant)
        for number, (claimant, status) in enumerate(rows)
    ]

    assert newest_status(entries) == expected
