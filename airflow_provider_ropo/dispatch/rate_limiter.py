"""How fast posts may go, over all workers together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimiter:
    """Says when the next post may go: evenly, at most at a rate, and not while Ropo One has asked for a pause.

    :param rate_limit: maximum number of posts a second; None: no limit.
    :param clock: seconds, from any start.
    """

    def __init__(self, rate_limit: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate_limit if rate_limit else 0.0
        self._clock = clock
        self._lock = threading.Lock()
        self._next = 0.0

    def acquire(self, wait: Callable[[float], bool]) -> bool:
        """Wait for the next post's turn; return whether it was told to stop meanwhile.

        :param wait: waits that many seconds; true if there are to be no more posts.
        """
        while True:
            with self._lock:
                now = self._clock()
                delay = self._next - now
                if delay <= 0:
                    # A wait that took a little too long does not slow the rate; a rest is not made up for in a burst.
                    due = self._next if -delay < self._interval else now
                    self._next = due + self._interval
                    return False
            if wait(delay):
                return True

    def pause(self, seconds: float) -> None:
        """Let no worker post for some seconds."""
        with self._lock:
            self._next = max(self._next, self._clock() + seconds)
