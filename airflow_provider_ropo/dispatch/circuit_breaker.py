"""Circuit breaker: ends the run early when posts keep failing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from airflow_provider_ropo.errors import RopoAuthenticationError, RopoError, RopoUnavailableError

#: The run ends after this number of events in a row that did not arrive,
FAILURE_LIMIT = 20
#: or after this number of failed attempts in a row, over at least this number of seconds.
MIN_ATTEMPTS, FAILURE_WINDOW = 5, 120.0


def asks_for_long(result: object, max_retry_after: float) -> RopoUnavailableError | None:
    """Return the error to end a run with, if Ropo One asks to wait for longer than a run does.

    :param result: what a request came to.
    :param max_retry_after: seconds.
    """
    retry_after = getattr(result, "retry_after", None) or 0.0
    if retry_after <= max_retry_after:
        return None
    message = f"Ropo One asks to wait {retry_after:,.0f} s, so the run ends early: {result}"
    return RopoUnavailableError(message, retry_after=retry_after)


class CircuitBreaker:
    """Counts attempts and events that fail in a row; safe to share between threads.

    :param max_retry_after: seconds, the longest ``Retry-After`` that a run waits for.
    :param clock: seconds, from any start.
    """

    def __init__(self, max_retry_after: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_retry_after = max_retry_after
        self._clock = clock
        self._lock = threading.Lock()
        self._events = self._attempts = 0
        self._failing_since = 0.0

    def record_attempt(self, *, failed: bool) -> None:
        """Record an attempt; failed: with an error that another attempt may not have."""
        with self._lock:
            if failed and not self._attempts:
                self._failing_since = self._clock()
            self._attempts = self._attempts + 1 if failed else 0

    @property
    def is_open(self) -> bool:
        """Return whether attempts have failed for so long that no further one is made."""
        with self._lock:
            return self._attempts >= MIN_ATTEMPTS and self._clock() - self._failing_since >= FAILURE_WINDOW

    def record_event(self, result: object, *, arrived: bool) -> RopoError | None:
        """Record how an event ended; return the error that ends the run, if the run has to end.

        :param result: the receipt, or the error of the last attempt.
        :param arrived: Ropo One has it, or has rejected it.
        """
        with self._lock:
            self._events = 0 if arrived else self._events + 1
            too_many = self._events >= FAILURE_LIMIT
        if isinstance(result, RopoAuthenticationError):
            return result
        if (long := asks_for_long(result, self._max_retry_after)) is not None:
            return long
        early = "so the run ends early"
        if too_many:
            return RopoUnavailableError(f"{FAILURE_LIMIT} events in a row did not arrive, {early}; the last: {result}")
        if self.is_open:
            return RopoUnavailableError(f"nothing got through for {FAILURE_WINDOW:,.0f} s, {early}; the last: {result}")
        return None
