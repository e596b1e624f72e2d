"""The database's time, by this worker's clock and an offset.

Claims of all runs are judged by one clock, the database's: workers' clocks may differ by more than ``claim_timeout``.
The offset is off by half of the quickest round trip at most, and by what the worker's monotonic clock drifts until
it is taken again.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable

#: Seconds after which the offset is taken again.
MAX_AGE = 300.0
#: Seconds of a round trip that is good enough; the first may have to connect, on a busy machine for seconds.
QUICK = 0.02
#: Questions at a time, at most.
MAX_ASKS = 3
#: Seconds by which the wall clock may move against the monotonic one (a suspended machine, a clock that was set).
MAX_DRIFT = 1.0


class DatabaseClock:
    """Returns the database's time.

    :param ask: returns the database's time, UTC, naive; one round trip.
    :param monotonic: seconds, from any start.
    :param wall: seconds since 1970.
    """

    def __init__(
        self,
        ask: Callable[[], dt.datetime],
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._ask = ask
        self._monotonic = monotonic
        self._wall = wall
        self._asked: tuple[dt.datetime, float, float] | None = None

    def now(self) -> dt.datetime:
        """Return the database's time, UTC, naive; ask for it where the last answer is old."""
        if self._asked is None or self._is_old(*self._asked):
            self._asked = self._measure()
        answer, at, _wall = self._asked
        return answer + dt.timedelta(seconds=self._monotonic() - at)

    def _measure(self) -> tuple[dt.datetime, float, float]:
        """Ask for the time until an answer comes quickly; the quickest of a few is the most exact."""
        best = None
        for _ in range(MAX_ASKS):
            before = self._monotonic()
            answer = self._ask()
            took = self._monotonic() - before
            if best is None or took < best[0]:
                # The answer is from between the two readings.
                best = took, (answer, before + took / 2, self._wall())
            if took < QUICK:
                break
        assert best is not None  # noqa: S101 - at least one was asked
        return best[1]

    def _is_old(self, _answer: dt.datetime, at: float, wall: float) -> bool:
        passed = self._monotonic() - at
        return passed > MAX_AGE or abs((self._wall() - wall) - passed) > MAX_DRIFT
