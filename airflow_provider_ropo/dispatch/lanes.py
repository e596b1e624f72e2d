"""One lane a usage place: its events go one after another, whatever the other lanes do.

A place's code is what message queues call an *ordering key* or a message group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple

from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import PendingClaim


@dataclass(eq=False, slots=True)
class Lane:
    """One usage place's events that have not come to their end."""

    source: Iterator[UsageplaceEvent]
    #: Looked up once, and not due yet.
    unclaimed: deque[UsageplaceEvent] = field(default_factory=deque)
    #: With the ledger, or claimed and not yet sent, in their order: event id → the claim, once it may be sent.
    queue: dict[str, PendingClaim | None] = field(default_factory=dict)
    #: Of these, the ones whose look-up is not answered yet.
    looking_up: dict[str, UsageplaceEvent] = field(default_factory=dict)
    #: Of these, the ones that an earlier event holds back: event id → that event's.
    held: dict[str, str] = field(default_factory=dict)
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
        for event in events:
            self.queue[event.id] = None
            self.looking_up[event.id] = event
        return events

    def put_back(self, events: Sequence[UsageplaceEvent]) -> None:
        """Take back events that were looked up and are not due yet; they come first the next time."""
        for event in events:
            self.drop(event.id)
        self.unclaimed.extendleft(reversed(events))
        self.exhausted = False

    def drop(self, event_id: str) -> None:
        """Forget an event that has come to its end."""
        self.queue.pop(event_id, None)
        self.looking_up.pop(event_id, None)
        self.held.pop(event_id, None)

    def pop_next(self) -> PendingClaim | None:
        """Take the claim to send next; none while an earlier event is in flight, or still with the ledger."""
        event_id = next(iter(self.queue), None)
        if event_id is None or self.in_flight or (claim := self.queue[event_id]) is None:
            return None
        self.drop(event_id)
        return claim

    def block(self, event_id: str) -> list[PendingClaim]:
        """Hold back all events after one that has not arrived; return those that were claimed, which are to end.

        :param event_id: that event: of the queue, or in flight before all of it.
        """
        ids = list(self.queue)
        later = ids[ids.index(event_id) + 1 :] if event_id in self.queue else ids
        self.blocked_by = self.blocked_by or event_id
        for each in later:
            self.held.setdefault(each, event_id)
        return [claim for each in later if (claim := self.queue[each]) is not None]

    @property
    def is_busy(self) -> bool:
        """Tell whether events of it are on their way."""
        return self.in_flight or bool(self.queue)


class Lanes:
    """All lanes: those that have begun and want more, then those that are still to come.

    :param sources: one usage place's events each.
    """

    def __init__(self, sources: Iterable[Iterable[UsageplaceEvent]]) -> None:
        self._new = (Lane(iter(source)) for source in sources)
        self._to_refill: deque[Lane] = deque()

    def take(self, count: int, of_a_lane: int) -> list[tuple[Lane, UsageplaceEvent]]:
        """Take about that many events, those of one lane together and in their order; none if there are no more.

        :param of_a_lane: the number of events of one lane that may be on their way.
        """
        events: list[tuple[Lane, UsageplaceEvent]] = []
        while len(events) < count:
            lane = self._to_refill.popleft() if self._to_refill else next(self._new, None)
            if lane is None:
                break
            room = of_a_lane - len(lane.queue) - lane.in_flight
            events += [(lane, event) for event in lane.take(max(room, 1))]
        return events

    def request_refill(self, lane: Lane) -> None:
        """Take more of a lane the next time, unless there is no more, or an answer about it is still to come."""
        if not (lane.exhausted or lane.wants_refill or lane.looking_up):
            lane.wants_refill = True
            self._to_refill.append(lane)

    def remaining(self, begun: Iterable[Lane]) -> Iterator[UsageplaceEvent]:
        """Yield the events that have not been handed out, or were put back.

        :param begun: lanes that may have such events beside those that wait for a refill.
        """
        for lane in chain(dict.fromkeys([*begun, *self._to_refill]), self._new):
            yield from lane.unclaimed
            yield from lane.source


class Job(NamedTuple):
    """An event on its way, with its lane and its claim."""

    lane: Lane
    claim: PendingClaim
