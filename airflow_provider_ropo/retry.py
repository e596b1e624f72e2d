"""One request, with retries: attempts and the waits between them."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from airflow_provider_ropo.errors import RopoError, RopoResponseError, RopoTransportError

log = logging.getLogger(__name__)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with jitter, so that many workers do not come back in step.

    :param max_attempts: how often one request is tried in all.
    :param initial: the first wait, in seconds, before jitter; each further one is twice as long.
    :param max_retry_after: the longest wait Ropo One may ask for with ``Retry-After``, in seconds; beyond it the
        attempt is the last one of this run.
    """

    max_attempts: int = 5
    initial: float = 0.5
    max_retry_after: float = 120.0
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def delay(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Return the seconds to wait after a failed attempt, or None to give up.

        :param attempt: the attempt that failed, from 1.
        :param retry_after: the seconds the answer asked for.
        """
        if attempt >= self.max_attempts or (retry_after or 0.0) > self.max_retry_after:
            return None
        wait: float = self.initial * 2.0 ** (attempt - 1) * (0.5 + self.jitter() / 2)
        return wait if retry_after is None else retry_after + wait * 0.1


class RetryResult(NamedTuple, Generic[R]):
    """How a request ended, after one attempt or several.

    :param result: what the request returned, or the error of its last attempt.
    :param attempts: how many there were.
    :param may_have_arrived: one of them may have arrived without our knowing.
    :param seconds: how long each attempt took, without the waits between.
    """

    result: R | RopoError
    attempts: int
    may_have_arrived: bool
    seconds: tuple[float, ...] = ()


def sleep(seconds: float) -> bool:
    """Wait, and never ask to stop."""
    time.sleep(seconds)
    return False


class RetryLog:
    """Logs failed attempts that are tried again: the first at once, then one line every few seconds.

    Safe to share between threads, so that a run with many posts in parallel has one.

    :param every: seconds between two lines; 0: each attempt has its line.
    :param clock: seconds, from any start.
    """

    def __init__(self, every: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._lock = threading.Lock()
        self._next = -math.inf
        self._unlogged = 0

    def on_retry(self, line: str) -> None:
        """Take note of a failed attempt that is tried again."""
        with self._lock:
            self._unlogged += 1
            if self._clock() < self._next:
                return
            count, self._unlogged = self._unlogged, 0
            self._next = self._clock() + self._every
        if count == 1:
            log.warning("%s", line)
        else:
            log.warning("%s attempts failed and are tried again; the last: %s", f"{count:,}", line)


def call_with_retries(
    request: Callable[[], R],
    backoff: Backoff,
    *,
    what: str,
    wait: Callable[[float], bool] = sleep,
    may_have_arrived: bool = False,
    retry_log: RetryLog | None = None,
) -> RetryResult[R]:
    """Try a request until it succeeds, fails for good, or the attempts are used up.

    Only an answer, or the lack of one, is caught: a bug passes through.

    :param what: what to call the request in the log, as in ``event 1a2b3c4d5``.
    :param wait: waits that many seconds; true if there are to be no more attempts.
    :param may_have_arrived: an attempt before these may have arrived.
    :param retry_log: logs each wait; by default each has a line.
    """
    retry_log = retry_log or RetryLog()
    took: tuple[float, ...] = ()
    while True:
        attempt, began = len(took) + 1, time.monotonic()
        try:
            result = request()
            return RetryResult(result, attempt, may_have_arrived, (*took, time.monotonic() - began))
        except (RopoTransportError, RopoResponseError) as error:
            took = (*took, time.monotonic() - began)
            may_have_arrived = may_have_arrived or error.may_have_arrived
            retry_after = getattr(error, "retry_after", None)
            delay = backoff.delay(attempt, retry_after) if error.transient else None
            if delay is None:
                return RetryResult(error, attempt, may_have_arrived, took)
            retry_log.on_retry(f"{what}: attempt {attempt} of {backoff.max_attempts}: {error}; again in {delay:.1f} s")
            last = error
        if wait(delay):
            return RetryResult(last, attempt, may_have_arrived, took)
