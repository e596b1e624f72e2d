"""One lane a usage place: its events go one after another, whatever the other lanes do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import Decision


@dataclass(eq=False, slots=True)
class Lane:
    """One usage place's events, from here on."""

    source: Iterator[UsageplaceEvent]
    #: Looked up once, and not yet due.
    unclaimed: deque[UsageplaceEvent] = field(default_factory=deque)
    #: Claimed, and not yet sent.
    claimed: deque[tuple[UsageplaceEvent, Decision]] = field(default_factory=deque)
    in_flight: bool = False
    wants_refill: bool = False
    exhausted: bool = False
    #: The event that has not arrived, for which those that are still to be looked up have to wait.
    blocked_by: str | None = None

    def take(self, count: int) -> list[UsageplaceEvent]:
        """Take the next few events to look up."""
        events = [self.unclaimed.popleft() for _ in range(min(count, len(self.unclaimed)))]
        events += islice(self.source, count - len(events))
        self.wants_refill, self.exhausted = False, len(events) < count
        return events

    def put_back(self, events: Sequence[UsageplaceEvent]) -> None:
        """Take back events that were looked up and are not due yet; they come first the next time."""
        self.unclaimed.extendleft(reversed(events))
        self.exhausted = False


class Lanes:
    """All lanes: those that have begun and want more, then those that are still to come.

    :param sources: one usage place's events each.
    """

    def __init__(self, sources: Iterable[Iterable[UsageplaceEvent]]) -> None:
        self._new = (Lane(iter(source)) for source in sources)
        self._to_refill: deque[Lane] = deque()
        self._all_begun = False

    def take(self, count: int, of_a_lane: int) -> list[tuple[Lane, UsageplaceEvent]]:
        """Take about so many events, those of one lane together and in their order; none if there are no more."""
        events: list[tuple[Lane, UsageplaceEvent]] = []
        while len(events) < count:
            lane = self._to_refill.popleft() if self._to_refill else next(self._new, None)
            if lane is None:
                self._all_begun = True
                break
            events += [(lane, event) for event in lane.take(of_a_lane)]
        return events

    def request_refill(self, lane: Lane) -> None:
        """Take more of a lane the next time, unless there is no more."""
        if not (lane.exhausted or lane.wants_refill):
            lane.wants_refill = True
            self._to_refill.append(lane)

    def should_batch(self, in_flight: int, worth_it: int) -> bool:
        """Is it better to wait until more lanes want more, to take many events at once?

        :param in_flight: how many lanes have an event on its way.
        :param worth_it: the number of lanes to refill that is enough.
        """
        few = len(self._to_refill) < worth_it and 2 * len(self._to_refill) < in_flight
        return few and self._all_begun and all(lane.in_flight for lane in self._to_refill)


class Job(NamedTuple):
    """An event on its way, its lane, and how it stood before."""

    lane: Lane
    event: UsageplaceEvent
    decision: Decision
