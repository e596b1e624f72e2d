"""What dispatch needs of a ledger."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from airflow_provider_ropo.delivery import Delivery
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import Action, Decision

#: Results are remembered in batches: after so many, or so many seconds.
FLUSH_SIZE, FLUSH_INTERVAL = 32, 0.25


class Ledger(Protocol):
    """Remembers, from one run to the next."""

    def look_up(self, events: Sequence[UsageplaceEvent]) -> list[Decision]:
        """Say how each event stands."""

    def claim(self, events: Sequence[tuple[UsageplaceEvent, Decision]]) -> list[Decision]:
        """Remember that events are about to be sent, and say which of them this run may send."""

    def record(self, deliveries: Iterable[tuple[UsageplaceEvent, Delivery]]) -> None:
        """Remember what became of events."""


class NullLedger:
    """No ledger: everything is sent."""

    def look_up(self, events: Sequence[UsageplaceEvent]) -> list[Decision]:
        """Say that nothing is known."""
        return [Decision(Action.SEND)] * len(events)

    def claim(self, events: Sequence[tuple[UsageplaceEvent, Decision]]) -> list[Decision]:
        """Let everything be sent."""
        return [decision for _, decision in events]

    def record(self, deliveries: Iterable[tuple[UsageplaceEvent, Delivery]]) -> None:
        """Forget."""


class Recorder:
    """What became of events and is still to be remembered, many at a time."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._deliveries: list[tuple[UsageplaceEvent, Delivery]] = []
        self._written_at = time.monotonic()

    def add(self, event: UsageplaceEvent, delivery: Delivery) -> None:
        """Take what became of an event."""
        self._deliveries.append((event, delivery))

    def write_if_due(self) -> None:
        """Remember it, if it is much or has waited long."""
        if len(self._deliveries) >= FLUSH_SIZE or time.monotonic() - self._written_at >= FLUSH_INTERVAL:
            self.write()

    def write(self) -> None:
        """Remember it now; what could not be remembered stays to be."""
        if self._deliveries:
            self._ledger.record(self._deliveries)
            self._deliveries = []
        self._written_at = time.monotonic()
