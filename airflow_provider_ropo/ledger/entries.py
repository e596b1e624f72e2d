"""What a row of the ledger holds; nothing that tells who the customer is."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event import UsageplaceEvent

#: In the ledger only: an attempt may be under way.
SENDING = "sending"

_FIELDS = ("usageplacecode", "status", "time", "customernumber", "contract_no", "description", "invoices")
_DIGITS = 16
#: The smallest step of the ledger's clock.
TICK = dt.timedelta(microseconds=1)

#: Where the database wants to know it. A code that makes its row invalid may be any text.
_LONGEST_CODE, _LONGEST_DETAIL = 255, 1_000


class Claimant(NamedTuple):
    """Who writes: a try of a task instance."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int

    def is_same_task(self, other: Claimant) -> bool:
        """Is the other a try of the same task instance? Of those, the one that came last is the one that counts."""
        return self[:4] == other[:4]


class LedgerEntry(NamedTuple):
    """A row of the ledger, as far as decisions need it.

    :param recorded_at: UTC, naive.
    """

    delivery_status: str
    payload_hash: str
    recorded_at: dt.datetime
    claimant: Claimant


def row_of(
    event: UsageplaceEvent, me: Claimant, status: str, recorded_at: dt.datetime, *, detail: str = ""
) -> dict[str, Any]:
    """Return a row about an event."""
    return {
        "event_id": event.id,
        "usageplacecode": event.usageplacecode,
        "event_status": event.status.value,
        "event_time": wall_clock(event),
        "delivery_status": str(status),
        "http_status": None,
        "detail": detail[:_LONGEST_DETAIL] or None,
        "payload_hash": payload_hash(event),
        "attempts": 0,
        **me._asdict(),
        "recorded_at": recorded_at,
    }


def invalid_row_of(error: InvalidRowError, me: Claimant, recorded_at: dt.datetime) -> dict[str, Any]:
    """Return a row about one that never became an event."""
    unknown = ("event_status", "event_time", "http_status", "payload_hash")
    return {
        **dict.fromkeys(unknown),
        "event_id": (error.event_id or "")[:_LONGEST_CODE],
        "usageplacecode": error.usageplacecode and error.usageplacecode[:_LONGEST_CODE],
        "delivery_status": DeliveryStatus.INVALID.value,
        "detail": str(error)[:_LONGEST_DETAIL],
        "attempts": 0,
        **me._asdict(),
        "recorded_at": recorded_at,
    }


def later_timestamp(earlier: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """Return the time for a row, later than a row it follows, even if that was written by a faster clock."""
    return now if earlier is None or now > earlier else earlier + TICK


def wall_clock(event: UsageplaceEvent) -> dt.datetime:
    """Return the event's time as Ropo One is told it."""
    return event.time.replace(tzinfo=None, microsecond=0, fold=0)


def stale_detail(event: UsageplaceEvent, latest_deliveries: Mapping[str, dt.datetime]) -> str:
    """Say so if a later event of the usage place had been delivered before, by the time of each place's latest."""
    latest = latest_deliveries.get(event.usageplacecode)
    if latest is None or latest <= wall_clock(event):
        return ""
    return f"stale: an event of {latest} of this usage place had been delivered before"


@lru_cache(maxsize=1024)
def payload_hash(event: UsageplaceEvent) -> str:
    """Return a digest for each field but the id, in one text: equal for equal content, and it tells what differs."""
    # Sorted: in which order a query returns an event's rows, an invoice each, says nothing.
    invoices = repr(sorted(repr((invoice.invoicenumber, invoice.jobid)) for invoice in event.invoices))
    return (
        _digest(event.usageplacecode)
        + _repeated_digest(event.status.value)
        + _digest(event.time.isoformat(" ", "seconds")[: len("2024-01-04 10:41:40")])
        + _digest(event.customernumber)
        + _digest(event.contract_no)
        + _repeated_digest(event.description)
        + _repeated_digest(invoices)
    )


def _digest(value: str | None) -> str:
    if value is None:
        return "-" * _DIGITS
    return hashlib.blake2b(value.encode(), digest_size=_DIGITS // 2).hexdigest()


#: For what many events have in common.
_repeated_digest = lru_cache(maxsize=1024)(_digest)


def changed_fields(one: str, other: str) -> list[str]:
    """Name the fields in which two contents differ, by their digests."""
    pieces = range(0, len(_FIELDS) * _DIGITS, _DIGITS)
    return [
        name for name, at in zip(_FIELDS, pieces, strict=True) if one[at : at + _DIGITS] != other[at : at + _DIGITS]
    ]
