"""What became of each event, and of all of them together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from airflow_provider_ropo.errors import DeliveriesFailedError, InvalidRowError

#: How many failed events a message names, and how many a summary remembers.
NAMED, REMEMBERED = 10, 100


class DeliveryStatus(StrEnum):
    """The end of one event's journey in this run."""

    #: Ropo One has it.
    DELIVERED = "delivered"
    #: Ropo One had it before this run.
    ALREADY_DELIVERED = "already_delivered"
    #: Ropo One said no, and would again.
    REJECTED = "rejected"
    #: The row never became an event.
    INVALID = "invalid"
    #: The attempts are used up; the next run takes it again.
    UNDELIVERED = "undelivered"
    #: It may have arrived.
    UNCONFIRMED = "unconfirmed"
    #: An earlier event of the same usage place has not arrived.
    HELD = "held"


GOOD = frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.ALREADY_DELIVERED})
#: Trying again cannot help: somebody has to mend the row.
PERMANENT = frozenset({DeliveryStatus.REJECTED, DeliveryStatus.INVALID})


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
    """

    status: DeliveryStatus
    event_id: str | None = None
    usageplacecode: str | None = None
    detail: str = ""
    http_status: int | None = None
    attempts: int = 0
    seconds: tuple[float, ...] = field(default=(), compare=False)

    @classmethod
    def of_invalid_row(cls, error: InvalidRowError) -> Delivery:
        """Return the end of a row that never became an event."""
        return cls(DeliveryStatus.INVALID, error.event_id, error.usageplacecode, str(error))

    def __str__(self) -> str:
        """Say it in one line: ``rejected: id 1a2b3c4d5: HTTP 400 …``."""
        name = "" if self.status is DeliveryStatus.INVALID else f"id {self.event_id}: "
        return f"{self.status}: {name}{self.detail}"


class DeliverySummary:
    """Counts deliveries as they come in, and keeps the first that are not good.

    :param rows: how many rows were read.
    :param preview: nothing is posted.
    """

    def __init__(self, rows: int = 0, *, preview: bool = False) -> None:
        self.rows = rows
        self._preview = preview
        self.failures: list[Delivery] = []
        #: In a preview, the first payloads that would be posted, without customers' data.
        self.shown: list[dict[str, Any]] = []
        self._failed = 0
        self._counts: Counter[DeliveryStatus] = Counter()

    def add(self, delivery: Delivery) -> None:
        """Count one delivery."""
        self._counts[delivery.status] += 1
        if delivery.status not in GOOD:
            self._failed += 1
            if len(self.failures) < REMEMBERED:
                self.failures.append(delivery)

    def leave(self, count: int) -> None:
        """Count events that a preview leaves where they are."""
        self._counts[DeliveryStatus.UNDELIVERED] += count

    def count(self, *statuses: DeliveryStatus) -> int:
        """Return how many deliveries ended in one of these."""
        return sum(self._counts[status] for status in statuses)

    @property
    def events(self) -> int:
        """What the rows came to; always the sum of the counts."""
        return self._counts.total()

    @property
    def not_good(self) -> int:
        """How many are not at Ropo One; in a preview, of those that would not even be posted."""
        would = self._counts[DeliveryStatus.UNDELIVERED] if self._preview else 0
        return self.events - self.count(*GOOD) - would

    def as_dict(self) -> dict[str, int]:
        """Return what goes to XCom: whole numbers and nothing else."""
        counts = {status.value: self._counts[status] for status in DeliveryStatus}
        return {"rows": self.rows, "events": self.events, **counts}

    def failure(self, max_failed: float = 0) -> DeliveriesFailedError | None:
        """Return the error to end the task with, or None if all is well enough.

        :param max_failed: rejected and invalid events tolerated: a count, or a fraction below 1.
        """
        failed = self.count(*PERMANENT)
        # Divided, not multiplied: 0.29 * 100 is less than 29.
        share = failed / max(self.events, 1) if max_failed < 1 else failed
        if not self.worth_a_retry and share <= max_failed:
            return None
        return DeliveriesFailedError(str(self), summary=self.as_dict())

    @property
    def worth_a_retry(self) -> bool:
        """Is there anything that another run may bring to a good end?"""
        return self._failed > self.count(*PERMANENT)

    def __str__(self) -> str:
        """Say the counts, and name the first failures."""
        counts = {status: f"{count:,} {status}" for status in DeliveryStatus if (count := self._counts[status])}
        lines = [f"{self.count(*GOOD):,} of {self.events:,} events are at Ropo One: {', '.join(counts.values())}"]
        if self._preview:
            counts.pop(DeliveryStatus.UNDELIVERED, None)
            would = f"{self._counts[DeliveryStatus.UNDELIVERED]:,} of {self.events:,} events would be posted"
            lines = [f"Preview, nothing was posted: {', '.join([would, *counts.values()])}"]
        lines += [f"  {failure}" for failure in self.failures[:NAMED]]
        if self._failed > NAMED:
            lines.append(f"  … and {self._failed - NAMED:,} more")
        return "\n".join(lines)
