"""Progress and result of a run: for the log now and then, and for Airflow's pages."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    RopoUnavailableError,
    RunRefusedError,
    SupersededError,
)
from airflow_provider_ropo.reporting.summary import DeliverySummary

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between two lines in the log, and between two reports shown while rows are read and events are posted.
LOG_EVERY, SHOW_EVERY = 10.0, 3.0
#: After a report is published, none is for this number of times as long as that took: the calling thread waits for it.
REST = 20
#: Seconds: the longest pause after a report that was published, so that a reader's figures stay fresh, and the shortest
#: after one that could not be.
LONGEST_PAUSE = 12.0
#: Characters of a text that are enough for a report, which has to stay small.
LONGEST = 300
READING, POSTING, ENDED = "reading", "posting", "ended"
#: The XCom that holds a run's report, as :meth:`Report.as_dict` makes it.
REPORT_KEY = "ropo_report"
#: Why a run ended early, as a word for a page that has to tell what to do; the first class that fits.
_STOPPED_BY: dict[type[RopoError], str] = {
    RopoAuthenticationError: "sign_in",
    RopoConfigurationError: "configuration",
    SupersededError: "superseded",
    RopoLedgerError: "ledger",
    RopoUnavailableError: "unavailable",
    RunRefusedError: "refused",
}


class Report:
    """Follows one run, from reading to its end; a context manager, whose end is the run's.

    :param summary: the counts, which others keep.
    :param show: shows the report to a person, and returns whether it could: called at each step, and every few
        seconds between the steps.
    :param clock: seconds, from any start.
    :param preview: nothing is posted.
    """

    def __init__(
        self,
        summary: DeliverySummary,
        show: Callable[[dict[str, Any]], bool] = lambda _report: True,
        clock: Callable[[], float] = time.monotonic,
        *,
        preview: bool = False,
    ) -> None:
        self.summary = summary
        self._show = show
        self._clock = clock
        self._about: dict[str, Any] = {"preview": preview}
        self._state = READING
        self._stopped_by: BaseException | None = None
        self._rows_taken = self._total = self._done = 0
        self._published = True
        self._started = self._logged = self._show_again = clock()

    def __enter__(self) -> Self:
        """Begin."""
        self._publish()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End, and publish the final counts."""
        self._state = ENDED
        self._stopped_by = error or self._stopped_by
        self._publish()

    def set_about(self, **about: Any) -> None:
        """Add facts about the run: plain data, such as where the events go."""
        self._about |= about

    def on_rows(self, count: int) -> None:
        """Take note of the number of rows read so far."""
        self._rows_taken = count
        self.publish()

    def follow(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items; before each, log and publish the progress if it is due."""
        for item in items:
            self.publish()
            yield item

    def start_posting(self, total: int) -> None:
        """Begin to post that many events."""
        self._state, self._total = POSTING, total
        self._started = self._logged = self._clock()
        if self._published or self._started >= self._show_again:
            self._publish()

    def on_delivery(self, delivery: Delivery) -> None:
        """Count one more event that has come to its end."""
        self._done += 1
        self.summary.add(delivery)

    def on_unsent(self, delivery: Delivery) -> None:
        """Count one more event that the run did not come to."""
        if delivery.status is DeliveryStatus.UNDELIVERED:
            self.summary.note_open(delivery.event_time)
            self.count_undelivered(1)
        else:
            self.on_delivery(delivery)

    def count_undelivered(self, count: int) -> None:
        """Count events that the run did not come to; none of them is named, as they all have one reason."""
        self._done += count
        self.summary.count_undelivered(count)

    @property
    def is_due(self) -> bool:
        """Return whether progress is to be logged or published now."""
        now = self._clock()
        return now - self._logged >= LOG_EVERY or now >= self._show_again

    def publish(self) -> None:
        """Log and publish the progress, each if it is due."""
        now = self._clock()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            self._log()
        if now >= self._show_again:
            self._publish()

    @property
    def remaining(self) -> int:
        """How many events have not come to their end."""
        return self._total - self._done

    def stop(self, error: BaseException) -> None:
        """Note why nothing more is posted."""
        self._stopped_by = error

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data; no customer's data is in it."""
        return {
            "state": self._state,
            **self._about,
            "counts": self.summary.as_dict() | {"rows": self.summary.rows or self._rows_taken},
            **self.progress(),
            "stopped": None if self._stopped_by is None else _truncated(_in_words(self._stopped_by)),
            "stopped_by": _kind_of(self._stopped_by),
            "retry_after": getattr(self._stopped_by, "retry_after", None),
            "failures": [
                {
                    "id": _truncated(failure.event_id),
                    "usageplacecode": _truncated(failure.usageplacecode),
                    "status": failure.status.value,
                    "detail": _truncated(failure.detail),
                    "http_status": failure.http_status,
                }
                for failure in self.summary.failures
            ],
            "sample": self.summary.sample,
            "oldest_open": None
            if (oldest := self.summary.oldest_open) is None
            else oldest.isoformat(timespec="seconds"),
            "longest_lag": None if (lag := self.summary.longest_lag) is None else round(lag.total_seconds()),
            "updated_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }

    def progress(self) -> dict[str, Any]:
        """Return how far it is: events done of the total, not good, done a second, and seconds left."""
        took = max(self._clock() - self._started, 0.001)
        rate = self._done / took
        return {
            "total": self._total,
            "done": self._done,
            "not_good": self.summary.failed,
            "per_second": round(rate, 1),
            "seconds_left": round(self.remaining / rate) if rate else None,
        }

    def _log(self) -> None:
        if self._state == READING:
            log.info("Read %s rows so far", f"{self._rows_taken:,}")
            return
        figures = self.progress()
        left = figures["seconds_left"]
        log.info(
            "Posted %s of %s events, %.1f a second, %s not good%s",
            f"{figures['done']:,}",
            f"{figures['total']:,}",
            figures["per_second"],
            f"{figures['not_good']:,}",
            "" if left is None else f", about {left:,} s left",
        )

    def _publish(self) -> None:
        began = self._clock()
        could = self._show(self.as_dict())
        ended = self._clock()
        pause = max(SHOW_EVERY, REST * (ended - began))
        # To find out that a report cannot be published may take long: then the next waits longer.
        self._show_again = ended + (min(pause, LONGEST_PAUSE) if could else max(pause, LONGEST_PAUSE))
        self._published = could


def _truncated(text: str | None) -> str | None:
    return text if text is None or len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _kind_of(error: BaseException | None) -> str | None:
    """Return why the run ended early, as one word; None if it did not."""
    if error is None:
        return None
    return next((kind for error_class, kind in _STOPPED_BY.items() if isinstance(error, error_class)), "other")


def _in_words(error: BaseException) -> str:
    """Return the text of this package's errors; that of a database's error may quote personal data."""
    return str(error) if isinstance(error, RopoError) else f"{type(error).__name__}; the task's log has more"
