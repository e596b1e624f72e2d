"""Group commit: one thread owns the ledger while events are posted.

What has gathered while the database was busy goes out together, and as soon as that is committed, the next goes: a
batch is as large as the database is slow, and no larger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

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


class Recorder:
    """Looks up, claims and records, on a thread of its own.

    :param ledger: used by that thread alone until :meth:`finish`.
    :param answer: takes what came of each round, or the error that ended the thread. Called by that thread.
    """

    def __init__(self, ledger: Ledger, answer: Callable[[Outcome | BaseException], object]) -> None:
        self._ledger = ledger
        self._answer = answer
        self._changed = threading.Condition()
        self._look_ups: list[UsageplaceEvent] = []
        self._blocked: list[UsageplaceEvent] = []
        self._results: list[tuple[PendingClaim, Delivery]] = []
        self._unresolved: list[PendingClaim] = []
        self._is_closing = False
        self._polls = False
        self._thread = threading.Thread(target=self._work, name="ropo-ledger", daemon=True)
        #: The number of events that may be claimed and not recorded; and of one usage place.
        self.claim_target, self.claims_per_place = 1, 1
        #: Events that are claimed and not recorded.
        self.open_claims = 0
        #: Seconds that a round takes, on average.
        self.round_seconds = 0.0

    def start(self) -> None:
        """Start the thread. It does not keep the process from ending."""
        self._ledger.release_connection()
        self._thread.start()

    def look_up(self, events: Sequence[UsageplaceEvent], blocked: Sequence[UsageplaceEvent] = ()) -> None:
        """Look events up, and claim those that are to be sent.

        :param blocked: events to look up and not to claim.
        """
        with self._changed:
            self._look_ups += events
            self._blocked += blocked
            self._changed.notify()

    def record(self, claim: PendingClaim, delivery: Delivery) -> None:
        """Record an event's delivery status: it is on its way to the ledger at once."""
        with self._changed:
            self._results.append((claim, delivery))
            self.open_claims -= claim.is_claimed
            self._changed.notify()

    def finish(self) -> list[PendingClaim]:
        """Record what is there and end the thread; return the claims that it has not resolved."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()
        unresolved, self._unresolved = self._unresolved, []
        return unresolved

    def flush(self) -> None:
        """Record what is left, after :meth:`finish`: what was sent first.

        :raises RopoLedgerError: if that fails.
        """
        results, self._results = self._results, []
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
            with self._changed:
                if not isinstance(error, SupersededError):
                    # Not recorded, as far as is known: tried once more at the end.
                    self._results = [*asked.results, *self._results]
            raise
        took = time.monotonic() - began
        self.round_seconds = self.round_seconds + _NEWEST * (took - self.round_seconds) if self.round_seconds else took
        with self._changed:
            # What was refused after it had been claimed, the ledger has closed itself.
            self.open_claims += len(outcome.unresolved) + len(outcome.ready) - len(asked.unresolved)
            if asked.event_ids:
                self._unresolved = outcome.unresolved
            self._polls = not (asked.look_ups or asked.results or outcome.ready or outcome.refused)
        self._answer(outcome)

    def _next_round(self) -> Round | None:
        with self._changed:
            while not (self._look_ups or self._blocked or self._results or self._unresolved or self._is_closing):
                self._changed.wait()
            if (
                self._polls
                and self._unresolved
                and not (self._look_ups or self._blocked or self._results or self._is_closing)
            ):
                self._changed.wait(POLL_INTERVAL)
            results, self._results = self._results, []
            if self._is_closing:
                return Round(results=results) if results else None
            look_ups, self._look_ups = self._look_ups, []
            blocked, self._blocked = self._blocked, []
            return Round(
                look_ups=look_ups,
                blocked=blocked,
                claim_limit=max(self.claim_target - self.open_claims, 0),
                claims_per_place=self.claims_per_place,
                unresolved=self._unresolved,
                results=results,
            )


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
