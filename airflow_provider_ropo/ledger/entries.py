"""Rows of the ledger: who writes them, what is read of them, and what is written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.files import FileRecord

#: In the ledger only: an attempt may be under way.
SENDING = "sending"
#: Of a file alone: it is complete under its temporary name; it is about to get its final name.
UPLOADED, PUBLISHING = "uploaded", "publishing"
#: A file never got its final name: what was in it has not arrived.
UNPUBLISHED = "unpublished"
#: An attempt may be under way.
IN_PROGRESS = frozenset({SENDING, UPLOADED, PUBLISHING})
#: What a row's ``delivery_status`` may be.
KNOWN_STATUSES = frozenset({*IN_PROGRESS, UNPUBLISHED, *(status.value for status in DeliveryStatus)})
#: The smallest step of the ledger's clock.
TICK = dt.timedelta(microseconds=1)
NEVER = dt.datetime(1, 1, 1)  # noqa: DTZ001 - the ledger's times are naive

#: The ``process`` of a row that a person has settled an event with.
PERSON = "person"

#: Characters that the columns hold. An id or a usage place code with more of them is an invalid row.
LONGEST_CODE, LONGEST_DETAIL = 255, 1_000


class Claimant(NamedTuple):
    """Who writes: a process that runs a try of a task instance.

    :param process: a token that no two processes share: a DAG run that was deleted and made anew, or another Airflow,
        may have everything else in common; :data:`PERSON` where it is a person who has settled an event.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    process: str = ""

    @property
    def is_person(self) -> bool:
        """Tell whether a person wrote: with the settle command or operator, or by hand, without any of these columns.

        A run always has a process; in the layout before that column, it had a run id.
        """
        return self.process == PERSON or not (self.process or self.run_id)

    def is_same_task(self, other: Claimant) -> bool:
        """Tell whether the other runs a try of the same task instance."""
        return self[:4] == other[:4]

    def is_earlier_try_of(self, other: Claimant) -> bool:
        """Tell whether the other runs a later try of the same task instance, which takes over."""
        return self.is_same_task(other) and self.try_number < other.try_number


# Most rows that are read together have the same few writers.
@lru_cache(maxsize=1024)
def claimant_in(*columns: Any) -> Claimant:
    """Return who wrote a row, by its columns in the order of the fields, each of which may be NULL."""
    defaults = zip(columns, ("", "", "", -1, 0, ""), strict=True)
    values: list[Any] = [default if value is None else value for value, default in defaults]
    return Claimant(*values)


class LedgerEntry(NamedTuple):
    """A row of the ledger, as far as decisions need it.

    :param payload_hash: None where a row was written by hand: then it stands for any content.
    :param recorded_at: the database's time, UTC, naive.
    :param destination: None where the row is older than that column, or was written by hand.
    """

    delivery_status: str
    payload_hash: str | None
    recorded_at: dt.datetime
    claimant: Claimant
    destination: str | None = None
    detail: str | None = None


def event_row(
    event: UsageplaceEvent,
    status: str,
    recorded_at: dt.datetime,
    *,
    destination: str,
    payload_hash: str,
    claimant: Claimant,
    detail: str = "",
    http_status: int | None = None,
    attempts: int = 0,
) -> dict[str, Any]:
    """Return a row about an event; nothing in it tells who the customer is."""
    return {
        "destination": destination,
        "event_id": event.id,
        "usageplacecode": event.usageplacecode,
        "event_status": event.status.value,
        "event_time": wall_clock(event),
        "delivery_status": str(status),
        "http_status": http_status,
        "detail": detail[:LONGEST_DETAIL] or None,
        "payload_hash": payload_hash,
        "attempts": attempts,
        **claimant._asdict(),
        "recorded_at": recorded_at,
    }


def unread_row(
    about: Mapping[str, Any],
    status: str,
    recorded_at: dt.datetime,
    *,
    destination: str,
    payload_hash: str | None,
    claimant: Claimant,
    detail: str,
) -> dict[str, Any]:
    """Return a row about an event that was not read, but is known from another row.

    :param about: the event's columns there: its id, usage place, status and time.
    """
    return {
        **about,
        "destination": destination,
        "delivery_status": str(status),
        "http_status": None,
        "detail": detail[:LONGEST_DETAIL],
        "payload_hash": payload_hash,
        "attempts": 0,
        **claimant._asdict(),
        "recorded_at": recorded_at,
    }


def invalid_row(
    error: InvalidRowError, recorded_at: dt.datetime, *, destination: str, claimant: Claimant
) -> dict[str, Any]:
    """Return a row about a source row that never became an event."""
    unknown = ("event_status", "event_time", "http_status", "payload_hash")
    return {
        **dict.fromkeys(unknown),
        "destination": destination,
        "event_id": (error.event_id or "")[:LONGEST_CODE],
        "usageplacecode": error.usageplacecode and error.usageplacecode[:LONGEST_CODE],
        "delivery_status": DeliveryStatus.INVALID.value,
        "detail": str(error)[:LONGEST_DETAIL],
        "attempts": 0,
        **claimant._asdict(),
        "recorded_at": recorded_at,
    }


def file_row(
    file: FileRecord, status: str, recorded_at: dt.datetime, *, destination: str, claimant: Claimant, detail: str = ""
) -> dict[str, Any]:
    """Return a row about a file: its name stands where the id of an event would."""
    unknown = ("usageplacecode", "event_status", "event_time", "http_status")
    return {
        **dict.fromkeys(unknown),
        "destination": destination,
        "event_id": file.name,
        "delivery_status": status,
        "detail": "; ".join(filter(None, (str(file), detail)))[:LONGEST_DETAIL],
        "payload_hash": file.sha256,
        "attempts": 0,
        **claimant._asdict(),
        "recorded_at": recorded_at,
    }


def later_timestamp(earlier: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """Return a time for a row, later than that of a row it follows."""
    return now if earlier is None or now > earlier else earlier + TICK


def wall_clock(event: UsageplaceEvent) -> dt.datetime:
    """Return the event's time as Ropo One is told it."""
    return event.time.replace(tzinfo=None, microsecond=0, fold=0)
