"""What a row of the ledger holds; nothing that tells who the customer is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.standing import Claimant, payload_hash

#: The smallest step of the ledger's clock.
TICK = dt.timedelta(microseconds=1)

#: Where the database wants to know it. A code that makes its row invalid may be any text.
_LONGEST_CODE, _LONGEST_DETAIL = 255, 1_000


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


def after(earlier: dt.datetime | None, now: dt.datetime) -> dt.datetime:
    """Return the time for a row, later than a row it follows, even if that was written by a faster clock."""
    return now if earlier is None or now > earlier else earlier + TICK


def wall_clock(event: UsageplaceEvent) -> dt.datetime:
    """Return the event's time as Ropo One is told it."""
    return event.time.replace(tzinfo=None, microsecond=0, fold=0)


def staleness(event: UsageplaceEvent, latest_deliveries: Mapping[str, dt.datetime]) -> str:
    """Say so if a later event of the usage place had been delivered before, by the time of each place's latest."""
    latest = latest_deliveries.get(event.usageplacecode)
    if latest is None or latest <= wall_clock(event):
        return ""
    return f"stale: an event of {latest} of this usage place had been delivered before"
