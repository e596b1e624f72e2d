"""Group commit: one thread owns the ledger while events are posted.

What has gathered while the database was busy goes out together, and as soon as that is committed, the next goes: a
batch is as large as the database is slow, and no larger.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from airflow_provider_ropo.delivery import Delivery
from airflow_provider_ropo.errors import SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import Outcome, PendingClaim, Round
from airflow_provider_ropo.ledger.decisions import Action, Decision
from airflow_provider_ropo.ledger.protocol import Ledger

#: Seconds between two looks at claims of other runs, where nothing else is to be done.
POLL_INTERVAL = 0.05
#: The weight of the newest round in the average time of one.
_NEWEST = 0.2


class _Request(NamedTuple):
    """What the recorder is asked for.

    :param look_ups: events to look up, and to claim if they are to be sent.
    :param blocked: events to look up and not to claim.
    :param results: what is to be recorded.
    """

    look_ups: Sequence[UsageplaceEvent] = ()
    blocked: Sequence[UsageplaceEvent] = ()
    results: Sequence[tuple[PendingClaim, Delivery]] = ()


class Recorder:
    """Looks up, claims and records, on a thread of its own.

    :param ledger: used by that thread alone until :meth:`finish`.
    :param answer: takes what came of each round, or the error that ended the thread. Called by that thread.
    """

    def __init__(self, ledger: Ledger, answer: Callable[[Outcome | BaseException], object]) -> None:
        self._ledger = ledger
        self._answer = answer
        # Not a list with a lock: an interruption of the calling thread could leave that locked for ever. None: the end.
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        #: What a round that failed was to record.
        self._results: Sequence[tuple[PendingClaim, Delivery]] = ()
        self._unresolved: list[PendingClaim] = []
        self._is_closing = False
        self._polls = False
        self._thread = threading.Thread(target=self._work, name="ropo-ledger", daemon=True)
        # Each is counted by one thread alone: by the recorder's, and by the calling one.
        self._claimed, self._recorded = 0, 0
        #: The number of events that may be claimed and not recorded; and of one usage place.
        self.claim_target, self.claims_per_place = 1, 1
        #: Seconds that a round takes, on average.
        self.round_seconds = 0.0

    @property
    def open_claims(self) -> int:
        """Events that are claimed and not recorded."""
        return self._claimed - self._recorded

    def start(self) -> None:
        """Start the thread. It does not keep the process from ending."""
        self._ledger.release_connection()
        self._thread.start()

    def look_up(self, events: Sequence[UsageplaceEvent], blocked: Sequence[UsageplaceEvent] = ()) -> None:
        """Look events up, and claim those that are to be sent.

        :param blocked: events to look up and not to claim.
        """
        self._requests.put(_Request(events, blocked))

    def record(self, claim: PendingClaim, delivery: Delivery) -> None:
        """Record an event's delivery status: it is on its way to the ledger at once."""
        self._requests.put(_Request(results=[(claim, delivery)]))
        self._recorded += claim.is_claimed

    def finish(self) -> list[PendingClaim]:
        """Record what is there and end the thread; return the claims that it has not resolved."""
        self._requests.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        unresolved, self._unresolved = self._unresolved, []
        return unresolved

    def flush(self) -> None:
        """Record what is left, after :meth:`finish`: what was sent first.

        :raises RopoLedgerError: if that fails.
        """
        results = [*self._results, *chain.from_iterable(request.results for request in self._take_requests(0.0))]
        superseded: SupersededError | None = None
        try:
            for is_sent in (True, False):
                group = [(claim, delivery) for claim, delivery in results if bool(delivery.attempts) is is_sent]
                try:
                    if group:
                        self._ledger.exchange(Round(results=group))
                except SupersededError as error:
                    # Raised once, and after writing.
                    superseded = error
        finally:
            self._ledger.release_connection()
        if superseded is not None:
            raise superseded

    def _work(self) -> None:
        try:
            while (asked := self._next_round()) is not None:
                self._exchange(asked)
        except BaseException as error:  # noqa: BLE001 - the other side raises it again
            self._answer(error)
        finally:
            self._ledger.release_connection()

    def _exchange(self, asked: Round) -> None:
        began = time.monotonic()
        try:
            outcome = self._ledger.exchange(asked)
        except BaseException as error:
            if not isinstance(error, SupersededError):
                # Not recorded, as far as is known: tried once more at the end.
                self._results = asked.results
            raise
        took = time.monotonic() - began
        self.round_seconds = self.round_seconds + _NEWEST * (took - self.round_seconds) if self.round_seconds else took
        # What was refused after it had been claimed, the ledger has closed itself.
        self._claimed += len(outcome.unresolved) + len(outcome.ready) - len(asked.unresolved)
        if asked.event_ids:
            self._unresolved = outcome.unresolved
        self._polls = not (asked.look_ups or asked.results or outcome.ready or outcome.refused)
        self._answer(outcome)

    def _next_round(self) -> Round | None:
        if self._is_closing:
            return None
        # What is to be verified waits for nothing, unless it is another run's turn.
        idle = None if not self._unresolved else POLL_INTERVAL if self._polls else 0.0
        requests = list(self._take_requests(idle))
        results = list(chain.from_iterable(request.results for request in requests))
        if self._is_closing:
            return Round(results=results) if results else None
        return Round(
            look_ups=list(chain.from_iterable(request.look_ups for request in requests)),
            blocked=list(chain.from_iterable(request.blocked for request in requests)),
            claim_limit=max(self.claim_target - self.open_claims, 0),
            claims_per_place=self.claims_per_place,
            unresolved=self._unresolved,
            results=results,
        )

    def _take_requests(self, timeout: float | None) -> Iterator[_Request]:
        """Yield what has been asked for meanwhile.

        :param timeout: seconds to wait for the first request; None: as long as it takes.
        """
        with suppress(queue.Empty):
            request = self._requests.get(timeout=timeout)
            while True:
                if request is None:
                    self._is_closing = True
                else:
                    yield request
                request = self._requests.get_nowait()


class NullRecorder:
    """Stands in where there is no ledger: every event is to be sent.

    :param answer: as :class:`Recorder`'s.
    """

    claim_target = claims_per_place = 1
    open_claims = 0
    round_seconds = 0.0

    def __init__(self, answer: Callable[[Outcome | BaseException], object]) -> None:
        self._answer = answer

    def start(self) -> None:
        """Do nothing."""

    def look_up(self, events: Sequence[UsageplaceEvent], blocked: Sequence[UsageplaceEvent] = ()) -> None:
        """Let everything be sent that no earlier event holds back."""
        send = Decision(Action.SEND)
        self.open_claims += len(events)
        ready = [PendingClaim(event, send, is_claimed=True) for event in events]
        self._answer(Outcome(ready=ready, refused=[PendingClaim(event, send) for event in blocked]))

    def record(self, claim: PendingClaim, delivery: Delivery) -> None:
        """Forget it."""
        del delivery
        self.open_claims -= claim.is_claimed

    def finish(self) -> list[PendingClaim]:
        """Return no claims: none is unresolved."""
        return []

    def flush(self) -> None:
        """Do nothing."""
