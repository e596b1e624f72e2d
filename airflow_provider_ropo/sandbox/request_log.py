"""Log of the events that arrived at the sandbox, and of the answers. Kept in memory only."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

KEPT = 100_000
"""Maximum number of arrivals kept; older ones are dropped, but are still counted."""


@dataclass(frozen=True)
class Arrival:
    """One request to report an event."""

    number: int
    received_at: str
    """UTC, ISO 8601."""
    http_status: int | None
    """None if a scripted fault reset the connection instead of answering."""
    repeated: bool
    """Accepted, and an event with the same ``id`` had been accepted before."""
    problem: str | None
    """Why the event was not accepted; None if it was."""
    payload: Any
    """The parsed body; None if it was not JSON."""

    @property
    def accepted(self) -> bool:
        """True if the event counts as accepted, whatever the client's answer was."""
        return self.problem is None


class RequestLog:
    """Arrivals and their counts. Written by the server's thread, read by any thread."""

    def __init__(self, keep: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._arrivals: deque[Arrival] = deque(maxlen=keep)
        self.clear()

    def clear(self) -> None:
        """Delete everything, as after a start."""
        with self._lock:
            self._arrivals.clear()
            self._ids: set[str] = set()
            self._count = 0
            self.since = _now()
            self.sign_ins = self.accepted = self.refused = self.repeated = 0

    def signed_in(self) -> None:
        """Count a sign-in."""
        with self._lock:
            self.sign_ins += 1

    def record(self, payload: object, http_status: int | None, problem: str | None = None) -> None:
        """Record an arrival; it counts as accepted if ``problem`` is None."""
        with self._lock:
            self._count += 1
            repeated = problem is None and self._is_repeated(payload)
            self._arrivals.append(Arrival(self._count, _now(), http_status, repeated, problem, payload))
            self.accepted += problem is None
            self.refused += problem is not None
            self.repeated += repeated

    def _is_repeated(self, payload: Any) -> bool:
        known = payload["id"] in self._ids
        self._ids.add(payload["id"])
        return known

    def arrivals(
        self, *, refused: bool = True, after: int = 0, limit: int | None = None, newest: bool = False
    ) -> list[Arrival]:
        """Return arrivals numbered above ``after``, oldest first, or newest first."""
        with self._lock:
            # Numbers have no gaps, so the arrivals after `after` are found without reading the others.
            fresh = min(self._count - after, len(self._arrivals))
            latest_first = list(islice(reversed(self._arrivals), max(fresh, 0)))
        ordered = latest_first if newest else reversed(latest_first)
        return list(islice((arrival for arrival in ordered if refused or arrival.accepted), limit))

    def rows(self, **selection: Any) -> list[dict[str, Any]]:
        """Return arrivals as plain data for JSON; the parameters are those of :meth:`arrivals`."""
        return [asdict(arrival) for arrival in self.arrivals(**selection)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
