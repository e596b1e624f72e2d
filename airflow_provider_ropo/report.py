"""How far a run is, and what became of it: for the log now and then, and for whoever shows it to a person."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from airflow_provider_ropo.delivery import GOOD, Delivery, DeliverySummary
from airflow_provider_ropo.errors import RopoError

log = logging.getLogger(__name__)

#: Seconds between two lines in the log, and between two reports shown while events are posted.
LOG_EVERY, SHOW_EVERY = 10.0, 3.0
READING, POSTING, ENDED = "reading", "posting", "ended"
#: The XCom that holds a run's report, as :meth:`Report.as_dict` makes it.
REPORT_KEY = "ropo_report"


class Report:
    """Follows one run, from reading to its end; a context manager, whose end is the run's.

    :param summary: the counts, which others keep.
    :param show: shows the report to a person: at each step, and every few seconds while events are posted.
    :param clock: seconds, from any start.
    :param preview: nothing is posted.
    """

    def __init__(
        self,
        summary: DeliverySummary,
        show: Callable[[dict[str, Any]], None] = lambda _report: None,
        clock: Callable[[], float] = time.monotonic,
        *,
        preview: bool = False,
    ) -> None:
        self.summary = summary
        self._show = show
        self._clock = clock
        self._about: dict[str, str | bool] = {"preview": preview}
        self._state = READING
        self._stopped_by: BaseException | None = None
        self._total = self._landed = 0
        self._started = self._logged = self._shown = clock()

    def __enter__(self) -> Self:
        """Begin."""
        self._say()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End: what is known by then is the last word."""
        self._state = ENDED
        self._stopped_by = error or self._stopped_by
        self._say()

    def about(self, *, server: str) -> None:
        """Note where the events go."""
        self._about["server"] = server
        self._say()

    def post(self, total: int) -> None:
        """Begin to post so many events."""
        self._state, self._total = POSTING, total
        self._started = self._logged = self._clock()
        self._say()

    def landed(self, delivery: Delivery) -> None:
        """Count one more event that has come to its end."""
        self._landed += 1
        self.summary.add(delivery)
        now = self._clock()
        if now - self._logged >= LOG_EVERY:
            self._logged = now
            self._log()
        if now - self._shown >= SHOW_EVERY:
            self._say()

    @property
    def left(self) -> int:
        """How many events have not come to their end."""
        return self._total - self._landed

    def stop(self, error: BaseException) -> None:
        """Note why nothing more is posted."""
        self._stopped_by = error

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain data; no customer's data is in it."""
        return {
            "state": self._state,
            **self._about,
            "counts": self.summary.as_dict(),
            **self.progress(),
            "stopped": None if self._stopped_by is None else _in_words(self._stopped_by),
            "failures": [
                {
                    "id": failure.event_id,
                    "usageplacecode": failure.usageplacecode,
                    "status": failure.status.value,
                    "detail": failure.detail,
                    "http_status": failure.http_status,
                }
                for failure in self.summary.failures
            ],
            "updated_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }

    def progress(self) -> dict[str, Any]:
        """Return how far it is: events done of the total, not good, done a second, and seconds left."""
        took = max(self._clock() - self._started, 0.001)
        rate = self._landed / took
        return {
            "total": self._total,
            "done": self._landed,
            "not_good": self.summary.events - self.summary.count(*GOOD),
            "per_second": round(rate, 1),
            "seconds_left": round(self.left / rate) if rate else None,
        }

    def _log(self) -> None:
        figures = self.progress()
        log.info(
            "Posted %s of %s events, %.1f a second, %s not good, about %.0f s left",
            f"{figures['done']:,}",
            f"{figures['total']:,}",
            figures["per_second"],
            f"{figures['not_good']:,}",
            figures["seconds_left"],
        )

    def _say(self) -> None:
        self._shown = self._clock()
        self._show(self.as_dict())


def _in_words(error: BaseException) -> str:
    """Return an error's words where they are our own; a database's may quote what nobody should read."""
    return str(error) if isinstance(error, RopoError) else f"{type(error).__name__}; the task's log says more"
