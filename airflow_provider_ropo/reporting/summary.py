"""Counts of the delivery statuses of a run, and the error that they end it with."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

from airflow_provider_ropo.delivery import ARRIVED, PERMANENT, SUCCESSFUL, Delivery, DeliveryStatus
from airflow_provider_ropo.errors import DeliveriesFailedError
from airflow_provider_ropo.reporting.reasons import FailureReasons

#: How many failed events a summary remembers.
REMEMBERED = 100


class DeliverySummary:
    """Counts deliveries as they come in, and keeps the first that are not good.

    :param rows: how many rows were read.
    :param preview: nothing is posted.
    """

    def __init__(self, rows: int = 0, *, preview: bool = False) -> None:
        self.rows = rows
        self.is_preview = preview
        self.failures: list[Delivery] = []
        #: In a preview, the first payloads that would be posted, without customers' data.
        self.sample: list[dict[str, Any]] = []
        self._failed = 0
        self._reasons = FailureReasons()
        #: When the oldest event happened that is not at Ropo One; and the longest time from an event to its delivery.
        self.oldest_open: dt.datetime | None = None
        self.longest_lag: dt.timedelta | None = None
        self._counts: Counter[DeliveryStatus] = Counter()

    def add(self, delivery: Delivery) -> None:
        """Count one delivery."""
        self._counts[delivery.status] += 1
        if delivery.status not in SUCCESSFUL:
            self._failed += 1
            self.note_open(delivery.event_time)
            self._reasons.add(delivery)
            if len(self.failures) < REMEMBERED:
                self.failures.append(delivery)

        elif delivery.status is DeliveryStatus.DELIVERED and delivery.event_time is not None:
            lag = dt.datetime.now(dt.UTC) - delivery.event_time
            self.longest_lag = max(lag, self.longest_lag or lag)

    def note_open(self, event_time: dt.datetime | None) -> None:
        """Take note of an event that is not at Ropo One."""
        if event_time is not None:
            self.oldest_open = min(event_time, self.oldest_open or event_time)

    def count_undelivered(self, count: int) -> None:
        """Count events that a preview leaves where they are, or that a run did not come to."""
        self._counts[DeliveryStatus.UNDELIVERED] += count

    def count(self, *statuses: DeliveryStatus) -> int:
        """Return how many deliveries ended in one of these."""
        return sum(self._counts[status] for status in statuses)

    @property
    def events(self) -> int:
        """What the rows came to; always the sum of the counts."""
        return self._counts.total()

    @property
    def failed(self) -> int:
        """How many are not at Ropo One; in a preview, of those that would not even be posted."""
        would = self._counts[DeliveryStatus.UNDELIVERED] if self.is_preview else 0
        return self.events - self.count(*SUCCESSFUL) - would

    def as_dict(self) -> dict[str, int]:
        """Return what goes to XCom: whole numbers and nothing else."""
        counts = {status.value: self._counts[status] for status in DeliveryStatus}
        return {"rows": self.rows, "events": self.events, **counts}

    def failure(self, max_failed: float = 0) -> DeliveriesFailedError | None:
        """Return the error to end the task with, or None if all is well enough.

        :param max_failed: rejected, invalid and changed events tolerated: a count, or a fraction below 1.
        """
        failed = self.count(*PERMANENT)
        # Divided, not multiplied: 0.29 * 100 is less than 29.
        share = failed / max(self.events, 1) if max_failed < 1 else failed
        if not self.retryable and share <= max_failed:
            return None
        return DeliveriesFailedError(str(self), summary=self.as_dict())

    @property
    def retryable(self) -> bool:
        """Return whether another run may deliver something that this one did not."""
        return self._failed > self.count(*PERMANENT)

    def __str__(self) -> str:
        """Return the counts, and the reasons of what failed, the most frequent first."""
        return "\n".join([self._headline(), *(f"  {line}" for line in self._reasons.lines())])

    def _headline(self) -> str:
        if not self.rows and not self.events:
            return "Preview: there were no rows" if self.is_preview else "There were no rows: nothing to report"
        counts = {status: f"{count:,} {status}" for status in DeliveryStatus if (count := self._counts[status])}
        if self.is_preview:
            counts.pop(DeliveryStatus.UNDELIVERED, None)
            would = f"{self._counts[DeliveryStatus.UNDELIVERED]:,} of {self.events:,} events would be posted"
            return f"Preview, nothing was posted: {', '.join([would, *counts.values()])}"
        return f"{self.count(*ARRIVED):,} of {self.events:,} events are at Ropo One: {', '.join(counts.values())}"
