"""What the sandbox remembers: every event that arrived, and how it was answered. In memory only."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

KEPT = 100_000
"""Arrivals remembered; older ones are forgotten, but stay in the counts."""


@dataclass(frozen=True)
class Arrival:
    """One request to report an event."""

    number: int
    received_at: str
    """UTC, ISO 8601."""
    http_status: int | None
    """None: a scripted fault cut the connection instead of answering."""
    repeated: bool
    """Accepted, and an event with the same ``id`` had been accepted before."""
    problem: str | None
    """Why it was not accepted; None if it was."""
    payload: Any
    """The body as parsed; None if it was not JSON."""

    @property
    def accepted(self) -> bool:
        """Whether the event counts as taken in, whatever its sender was told."""
        return self.problem is None


class RequestLog:
    """The arrivals and their counts. Written by the server's thread, read by any."""

    def __init__(self, keep: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._arrivals: deque[Arrival] = deque(maxlen=keep)
        self.clear()

    def clear(self) -> None:
        """Forget everything, as if just started."""
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
        """Remember an arrival; it counts as accepted if there is no problem with it."""
        with self._lock:
            self._count += 1
            repeated = problem is None and self._meet(payload)
            self._arrivals.append(Arrival(self._count, _now(), http_status, repeated, problem, payload))
            self.accepted += problem is None
            self.refused += problem is not None
            self.repeated += repeated

    def _meet(self, payload: Any) -> bool:  # noqa: ANN401 - an accepted payload, hence one with an id
        known = payload["id"] in self._ids
        self._ids.add(payload["id"])
        return known

    def arrivals(
        self, *, refused: bool = True, after: int = 0, limit: int | None = None, newest: bool = False
    ) -> list[Arrival]:
        """Return arrivals numbered above ``after``, oldest first, or newest first."""
        with self._lock:
            # Numbers have no gaps, so what follows `after` is found without looking at the rest.
            fresh = min(self._count - after, len(self._arrivals))
            latest_first = list(islice(reversed(self._arrivals), max(fresh, 0)))
        ordered = latest_first if newest else reversed(latest_first)
        return list(islice((arrival for arrival in ordered if refused or arrival.accepted), limit))

    def rows(self, **selection: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - the arguments of arrivals()
        """Return arrivals as JSON can carry them; takes what :meth:`arrivals` takes."""
        return [asdict(arrival) for arrival in self.arrivals(**selection)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
