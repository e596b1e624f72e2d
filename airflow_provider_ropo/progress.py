"""A line in the log now and then, so that nobody wonders whether long work still goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from airflow_provider_ropo.delivery import GOOD, DeliverySummary

log = logging.getLogger(__name__)

#: Seconds between two lines.
EVERY = 10.0


class Progress:
    """Says how far the posting is: done of total, per second, failures, time left.

    :param total: events to post.
    :param clock: seconds, from any start.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._started = self._said = clock()
        self._landed = 0

    def landed(self, summary: DeliverySummary) -> None:
        """Count one more event that has come to its end."""
        self._landed += 1
        now = self._clock()
        if now - self._said < EVERY:
            return
        self._said = now
        rate = self._landed / (now - self._started)
        log.info(
            "Posted %s of %s events, %.1f a second, %s not good, about %.0f s left",
            f"{self._landed:,}",
            f"{self._total:,}",
            rate,
            f"{summary.events - summary.count(*GOOD):,}",
            (self._total - self._landed) / rate,
        )
