"""Delivery status of one event, and how it came to be."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_ropo.errors import InvalidRowError, RopoError, RopoRejectedError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.retry import RetryResult

#: Number of events, or reasons, that a message names.
NAMED = 10
#: The detail of an event that is held, before the id of the event that it waits for.
WAITS_FOR = "waits for the earlier event "
#: The same, where the event that it waits for is not named.
WAITS = "waits for an earlier event of its usage place"


def quantity(number: int, noun: str) -> str:
    """Return a number of things as text: ``1 row``, ``1,200 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def first_of(event_ids: Sequence[str]) -> str:
    """Return the first of some ids, with an ellipsis if there are more of them than a message names."""
    return ", ".join(event_ids[:NAMED]) + (", …" if len(event_ids) > NAMED else "")


class DeliveryStatus(StrEnum):
    """How one event ended in this run."""

    #: Ropo One has it.
    DELIVERED = "delivered"
    #: Ropo One had it before this run.
    ALREADY_DELIVERED = "already_delivered"
    #: Ropo One said no, and would again.
    REJECTED = "rejected"
    #: The row never became an event.
    INVALID = "invalid"
    #: Ropo One has an earlier version of it.
    CHANGED = "changed"
    #: The attempts are used up; the next run takes it again.
    UNDELIVERED = "undelivered"
    #: It may have arrived.
    UNCONFIRMED = "unconfirmed"
    #: An earlier event of the same usage place has not arrived.
    HELD = "held"
    #: A person has settled it: it is not sent.
    CLOSED = "closed"


ARRIVED = frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.ALREADY_DELIVERED})
#: Nothing is left to be done.
SUCCESSFUL = ARRIVED | {DeliveryStatus.CLOSED}
#: Trying again cannot help: the row has to be fixed in the source table.
PERMANENT = frozenset({DeliveryStatus.REJECTED, DeliveryStatus.INVALID, DeliveryStatus.CHANGED})

#: After one of these an event may yet arrive later, so its place's next events have to wait.
BLOCKING = frozenset({DeliveryStatus.UNDELIVERED, DeliveryStatus.UNCONFIRMED, DeliveryStatus.HELD})


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event's journey and its end.

    :param status: the end.
    :param event_id: the event's id; None where a row is too broken to have one.
    :param usageplacecode: the usage place, where known.
    :param detail: why, fit for a log.
    :param http_status: Ropo One's last answer, where there was one.
    :param attempts: how often it was tried.
    :param seconds: how long each attempt took.
    :param event_time: when it happened in the field; None where a row never became an event.
    :param row: of an invalid row: its number and id, with which ``detail`` begins.
    """

    status: DeliveryStatus
    event_id: str | None = None
    usageplacecode: str | None = None
    detail: str = ""
    http_status: int | None = None
    attempts: int = 0
    seconds: tuple[float, ...] = field(default=(), compare=False)
    event_time: dt.datetime | None = field(default=None, compare=False)
    row: str = field(default="", compare=False)

    @classmethod
    def of_invalid_row(cls, error: InvalidRowError) -> Delivery:
        """Return the end of a row that never became an event."""
        return cls(DeliveryStatus.INVALID, error.event_id, error.usageplacecode, str(error), row=error.row)

    @property
    def reason(self) -> str:
        """Return the detail without what names this one event, so that equal reasons are equal text."""
        if self.detail.startswith(WAITS_FOR):
            return WAITS
        return self.detail.removeprefix(f"{self.row}: ")

    def __str__(self) -> str:
        """Return it as one line: ``rejected: id 1a2b3c4d5: HTTP 400 …``."""
        name = "" if self.status is DeliveryStatus.INVALID else f"id {self.event_id}: "
        return f"{self.status}: {name}{self.detail}"


def waits_for(event_id: str) -> str:
    """Return the detail of an event that is held until an earlier one of its usage place has arrived."""
    return f"{WAITS_FOR}{event_id}"


def delivery_of(event: UsageplaceEvent, result: RetryResult[object]) -> Delivery:
    """Return an event's delivery, by how its attempts ended."""
    error = result.result
    http_status = getattr(error, "status_code", None)
    if not isinstance(error, RopoError):
        return end_of(event, DeliveryStatus.DELIVERED, "", http_status, result.attempts, result.seconds)
    detail = str(error)
    if isinstance(error, RopoRejectedError):
        status = DeliveryStatus.REJECTED
        if result.may_have_arrived:
            detail += " (an earlier attempt went unanswered and may have arrived)"
    else:
        status = DeliveryStatus.UNCONFIRMED if result.may_have_arrived else DeliveryStatus.UNDELIVERED
    return end_of(event, status, detail, http_status, result.attempts, result.seconds)


def end_of(
    event: UsageplaceEvent,
    status: DeliveryStatus,
    detail: str = "",
    http_status: int | None = None,
    attempts: int = 0,
    seconds: tuple[float, ...] = (),
) -> Delivery:
    """Return one event's end."""
    return Delivery(status, event.id, event.usageplacecode, detail, http_status, attempts, seconds, event.time)
