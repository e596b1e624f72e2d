"""Send events side by side, each usage place's one after another, and record their delivery statuses.

The calling thread reads and decides; workers do nothing but post; one more thread owns the ledger. What is on its way
is bounded, whatever the number of events and however many of them belong to one place.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from airflow_provider_ropo.delivery import BLOCKING, Delivery, DeliveryStatus, delivery_of, end_of, waits_for
from airflow_provider_ropo.dispatch.circuit_breaker import CircuitBreaker
from airflow_provider_ropo.dispatch.lanes import Job, Lane, Lanes
from airflow_provider_ropo.dispatch.rate_limiter import RateLimiter
from airflow_provider_ropo.dispatch.sender import Sender
from airflow_provider_ropo.dispatch.workers import Workers
from airflow_provider_ropo.errors import RopoAuthenticationError, RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import Outcome, PendingClaim
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action
from airflow_provider_ropo.ledger.protocol import Ledger
from airflow_provider_ropo.ledger.recorder import NullRecorder, Recorder
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.retry import Backoff, RetryResult

log = logging.getLogger(__name__)

#: Events looked up at a time while most of them turn out to be known: one select.
LOOK_UP_SIZE = 500
#: Events claimed ahead, at most, however slow the ledger and however fast the posts.
MAX_CLAIMS = 2_000
#: Claims a worker: the event that it posts, and one to follow,
CLAIMS_PER_WORKER = 2
#: next to those posted during that many rounds of the ledger: a look-up waits for the round before it, is answered
#: by its own, and verified by the next.
ROUNDS_AHEAD = 3
#: Seconds that a worker is taken to be busy with an event, until the first is measured.
EXPECTED_SECONDS = 0.05
#: Seconds that a stop waits for what is in flight; Airflow kills after five.
SHUTDOWN_TIMEOUT = 4.0
#: Seconds between two looks at what else is to be done, where nothing comes in.
IDLE_INTERVAL = 0.25
#: The weight of the newest event in the average time that a worker is busy with one.
_NEWEST = 0.1

_STOPPED = "not sent: the run was stopped"

JobResult = tuple[Job, RetryResult[object] | BaseException | None]


class Dispatcher:
    """Sends events.

    :param send: posts one event; raises one of the tree's errors. Called by the workers.
    :param on_delivery: takes each event's delivery, on the calling thread.
    :param ledger: remembers deliveries; None: nothing is remembered.
    :param max_workers: posts side by side.
    :param rate_limit: posts a second over all workers, at most.
    :param stop: set, from any thread, to end the posting soon; set when it has ended.
    :param report: published now and then, on the calling thread.
    """

    def __init__(
        self,
        send: Callable[[UsageplaceEvent], object],
        on_delivery: Callable[[Delivery], None],
        *,
        ledger: Ledger | None,
        max_workers: int,
        stop: threading.Event,
        backoff: Backoff | None = None,
        rate_limit: float | None = None,
        report: Report | None = None,
    ) -> None:
        self._on_delivery = on_delivery
        self._report = report
        self._max_workers = max_workers
        self._stop = stop
        backoff = backoff or Backoff()
        self._circuit_breaker = CircuitBreaker(backoff.max_retry_after)
        self._sender = Sender(send, backoff, RateLimiter(rate_limit), self._circuit_breaker, stop)
        #: What workers and the ledger's thread hand back, until it is handled: an interruption must not lose any of it.
        self._inbox: deque[JobResult | Outcome | BaseException] = deque()
        #: One for each of these that came: what a wait ends with.
        self._arrivals: queue.SimpleQueue[None] = queue.SimpleQueue()
        answer = self._answer
        self._workers: Workers[Job, RetryResult[object] | None] = Workers(self._work, max_workers, stop, answer)
        self._recorder: Recorder | NullRecorder = (
            Recorder(ledger, answer) if ledger is not None else NullRecorder(answer)
        )
        self._lanes = Lanes(())
        self._in_flight: dict[str, Job] = {}
        #: Event id → the lane of each event that is with the ledger.
        self._with_ledger: dict[str, Lane] = {}
        #: The same of those that are claimed and wait to be sent.
        self._queued_in: dict[str, Lane] = {}
        #: Events that are still to end.
        self._refused: deque[tuple[PendingClaim, bool]] = deque()
        self._looking_up = 0
        self._busy_lanes: set[Lane] = set()
        self._mostly_known = False
        self._busy_seconds = EXPECTED_SECONDS
        self._is_measured = False
        self._stopped_by: BaseException | None = None

    def run(self, lanes: Iterable[Iterable[UsageplaceEvent]]) -> None:
        """Send every event, or what can be sent until told to stop.

        :param lanes: one usage place's events each, in the order of their time.
        :raises RopoAuthenticationError: if Ropo One refuses to let this run go on.
        :raises RopoUnavailableError: if nothing gets through.
        :raises RopoLedgerError: if deliveries cannot be recorded.
        """
        self._lanes = Lanes(lanes)
        try:
            self._workers.start()
            self._recorder.start()
            self._post()
        except BaseException:
            try:
                self._shutdown()
            except RopoLedgerError as error:
                # Logged, not raised: the error that is on its way is why the run ends.
                log.error("the last deliveries are not recorded: %s", error)  # noqa: TRY400
            raise
        try:
            self._shutdown()
        except RopoLedgerError as error:
            if self._stopped_by is None:
                raise
            log.error("the last deliveries are not recorded: %s", error)  # noqa: TRY400
        if self._stopped_by is not None:
            raise self._stopped_by

    def unsent(self) -> Iterator[UsageplaceEvent]:
        """Yield the events that the run did not come to, once it has ended."""
        yield from self._lanes.remaining(self._busy_lanes)

    def _post(self) -> None:
        while not self._stop.is_set():
            self._refill()
            if not (self._busy_lanes or self._in_flight or self._with_ledger):
                return
            self._handle_inbox(IDLE_INTERVAL)
            if self._report is not None and self._report.is_due:
                self._report.publish()

    def _answer(self, message: JobResult | Outcome | BaseException) -> None:
        """Hand something back, from a worker's thread or the ledger's."""
        self._inbox.append(message)
        self._arrivals.put(None)

    def _work(self, job: Job) -> RetryResult[object] | None:
        """Send an event, on a worker's thread, and note how long that keeps the worker busy."""
        began = time.monotonic()
        result = self._sender.send(job.claim)
        took = time.monotonic() - began
        self._busy_seconds += (_NEWEST if self._is_measured else 1.0) * (took - self._busy_seconds)
        self._is_measured = True
        if result is not None:
            # Here, not when the calling thread comes to it: meanwhile the workers would go on.
            self._check_circuit(result, delivery_of(job.claim.event, result))
        return result

    # What the calling thread does: keep the ledger and the workers supplied …

    def _refill(self) -> None:
        """Hand the next events to the ledger, unless enough are claimed or looked up."""
        ahead = int(ROUNDS_AHEAD * self._recorder.round_seconds / max(self._busy_seconds, 0.0001))
        depth = min(CLAIMS_PER_WORKER + ahead, max(MAX_CLAIMS // self._max_workers, CLAIMS_PER_WORKER))
        self._recorder.claims_per_place = depth
        self._recorder.claim_target = target = depth * self._max_workers
        room = target - self._recorder.open_claims - self._looking_up
        if room <= 0:
            return
        # While most events are not to be sent, many are looked up at a time.
        count, of_a_lane = (LOOK_UP_SIZE, LOOK_UP_SIZE) if self._mostly_known else (room, depth)
        batch = self._lanes.take(count, of_a_lane)
        if batch:
            for lane, event in batch:
                self._with_ledger[event.id] = lane
                self._busy_lanes.add(lane)
            self._looking_up += len(batch)
            self._recorder.look_up(
                [event for lane, event in batch if lane.blocked_by is None],
                [event for lane, event in batch if lane.blocked_by is not None],
            )

    def _submit_next(self, lane: Lane) -> None:
        """Send a lane's next event, if none of it is in flight."""
        if not self._stop.is_set() and (claim := lane.pop_next()) is not None:
            job = Job(lane, claim)
            lane.in_flight = True
            self._in_flight[claim.event.id] = job
            self._queued_in.pop(claim.event.id, None)
            self._workers.put(job)
        if len(lane.queue) < CLAIMS_PER_WORKER:
            self._lanes.request_refill(lane)
        if not lane.is_busy and not lane.unclaimed:
            self._busy_lanes.discard(lane)

    # … and take in what they hand back.

    def _handle_inbox(self, timeout: float) -> None:
        """Take in what has come, or comes soon."""
        with suppress(queue.Empty):
            self._arrivals.get(timeout=timeout)
            while True:
                self._handle_next()
                self._arrivals.get_nowait()

    def _handle_next(self) -> None:
        """Handle the oldest message; it is forgotten after that, so that an interruption only makes it come again."""
        if self._inbox:
            self._handle(self._inbox[0])
            self._inbox.popleft()

    def _handle_all(self) -> None:
        """Handle all that is there, also what was interrupted."""
        while self._inbox:
            self._handle_next()

    def _handle(self, message: JobResult | Outcome | BaseException) -> None:
        if isinstance(message, Outcome):
            self._handle_outcome(message)
        elif isinstance(message, BaseException):
            self._stop_for(message)
        else:
            self._handle_result(*message)

    def _handle_outcome(self, outcome: Outcome) -> None:
        """Take in the ledger's answers: each once, should this be interrupted and come again."""
        answers = (*outcome.refused, *outcome.ready, *outcome.postponed, *outcome.unresolved)
        found = ((claim.event.id, self._with_ledger.get(claim.event.id)) for claim in answers)
        lanes = {event_id: lane for event_id, lane in found if lane is not None}
        looked_up = {event_id for event_id, lane in lanes.items() if event_id in lane.looking_up}
        if looked_up:
            self._looking_up -= len(looked_up)
            self._mostly_known = len(outcome.refused) * 2 > len(looked_up)
        # What is only moved comes first: to count a delivery may be interrupted.
        postponed: dict[Lane, list[UsageplaceEvent]] = {}
        for claim in outcome.postponed:
            if (lane_of := self._with_ledger.pop(claim.event.id, None)) is not None:
                postponed.setdefault(lane_of, []).append(claim.event)
        for lane, events in postponed.items():
            lane.put_back(events)
        self._refused += [(claim, claim.event.id in looked_up) for claim in outcome.refused]
        for claim in answers:
            if (lane_of := self._with_ledger.get(claim.event.id)) is not None:
                lane_of.looking_up.pop(claim.event.id, None)
        for claim in outcome.ready:
            if claim.event.id in self._with_ledger:
                self._take_claim(claim)
        self._skip_refused()
        for lane in dict.fromkeys(lanes.values()):
            self._submit_next(lane)

    def _take_claim(self, claim: PendingClaim) -> None:
        """Queue a claim that may be sent, unless an earlier event of its place holds it back."""
        lane = self._with_ledger[claim.event.id]
        lane.queue[claim.event.id] = claim
        self._queued_in[claim.event.id] = lane
        del self._with_ledger[claim.event.id]
        if (event_id := lane.held.get(claim.event.id)) is not None:
            self._finish_unsent(claim, DeliveryStatus.HELD, waits_for(event_id))

    def _skip_refused(self) -> None:
        """End the events that are not sent."""
        while self._refused:
            claim, at_look_up = self._refused.popleft()
            if (lane := self._with_ledger.get(claim.event.id)) is not None:
                self._skip(lane, claim, at_look_up=at_look_up)

    def _skip(self, lane: Lane, claim: PendingClaim, *, at_look_up: bool) -> None:
        action = claim.decision.action
        if action is Action.SEND:
            self._finish_unsent(claim, DeliveryStatus.HELD, waits_for(str(lane.blocked_by)))
            return
        status = STATUS_OF_ACTION[action]
        # What another run does, and what is known, is in the ledger already; so is a claim's end.
        write = at_look_up and action in {Action.CONTENT_CHANGED, Action.UNCONFIRMED}
        held = lane.block(claim.event.id) if status in BLOCKING else []
        self._finish(claim, end_of(claim.event, status, claim.decision.detail), write=write)
        self._finish_held(held, claim.event.id)

    def _handle_result(self, job: Job, result: RetryResult[object] | BaseException | None) -> None:
        lane, claim = job
        if claim.event.id not in self._in_flight:
            # It came too late: the event has ended as unconfirmed.
            return
        delivery = self._delivery_of(claim, result)
        is_answered = isinstance(result, RetryResult)
        held = lane.block(claim.event.id) if is_answered and delivery.status in BLOCKING else []
        self._finish(claim, delivery)
        self._finish_held(held, claim.event.id)
        if is_answered:
            self._submit_next(lane)

    def _delivery_of(self, claim: PendingClaim, result: RetryResult[object] | BaseException | None) -> Delivery:
        if result is None:
            # The run is stopping.
            return _unsent(claim, DeliveryStatus.UNDELIVERED, _STOPPED)
        if isinstance(result, BaseException):
            self._stop_for(result)
            return end_of(claim.event, DeliveryStatus.UNCONFIRMED, "a bug broke the attempt off", attempts=1)
        return delivery_of(claim.event, result)

    def _finish_held(self, claims: Iterable[PendingClaim], event_id: str) -> None:
        """End a lane's claimed events after one that has not arrived."""
        for claim in claims:
            self._finish_unsent(claim, DeliveryStatus.HELD, waits_for(event_id))

    def _check_circuit(self, result: RetryResult[object], delivery: Delivery) -> None:
        """Stop if nothing more can be sent, or nothing gets through."""
        stopped = self._stop.is_set()
        error = self._circuit_breaker.record_event(result.result, arrived=delivery.status not in BLOCKING)
        # Once it is to stop, attempts are broken off: that nothing gets through then means nothing.
        if error is not None and (not stopped or isinstance(error, RopoAuthenticationError)):
            self._stop_for(error)

    def _stop_for(self, error: BaseException) -> None:
        """Stop the run for this error, or for the one before it."""
        self._stopped_by = self._stopped_by or error
        self._stop.set()

    def _finish_unsent(self, claim: PendingClaim, status: DeliveryStatus, detail: str) -> None:
        """End an event that was to be sent and is not."""
        self._finish(claim, _unsent(claim, status, detail))

    def _finish(self, claim: PendingClaim, delivery: Delivery, *, write: bool = True) -> None:
        # In this order: `on_delivery` may be interrupted, and the event has come to its end all the same.
        if write:
            self._recorder.record(claim, delivery)
        self._forget(claim.event.id)
        self._on_delivery(delivery)

    def _forget(self, event_id: str) -> None:
        job = self._in_flight.pop(event_id, None)
        lane = self._with_ledger.pop(event_id, None)
        if job is not None:
            lane = job.lane
            lane.in_flight = False
        if (lane := lane or self._queued_in.pop(event_id, None)) is not None:
            lane.drop(event_id)
        self._queued_in.pop(event_id, None)

    def _shutdown(self) -> None:
        """Wait a moment for what is in flight, let go of the rest, and record all of it."""
        self._stop.set()
        try:
            self._handle_all()
            self._skip_refused()
            for job in self._workers.cancel_pending():
                self._handle_result(job, None)
            self._await_in_flight(time.monotonic() + SHUTDOWN_TIMEOUT)
        finally:
            self._workers.shutdown()
            unresolved = self._recorder.finish()
            try:
                self._handle_all()
                self._release_lanes(unresolved)
            finally:
                self._recorder.flush()

    def _await_in_flight(self, until: float) -> None:
        while self._in_flight and (left := until - time.monotonic()) > 0:
            self._handle_inbox(left)
        for job in list(self._in_flight.values()):
            detail = "no answer yet when the run was stopped"
            self._finish(job.claim, end_of(job.claim.event, DeliveryStatus.UNCONFIRMED, detail, attempts=1))

    def _release_lanes(self, unresolved: Iterable[PendingClaim]) -> None:
        """Let go of what is claimed, and take back what is not."""
        for claim in unresolved:
            if claim.event.id in self._with_ledger:
                self._take_claim(claim)
        for lane in list(self._busy_lanes):
            for claim in [claim for claim in lane.queue.values() if claim is not None]:
                if (event_id := lane.held.get(claim.event.id)) is None:
                    self._finish_unsent(claim, DeliveryStatus.UNDELIVERED, _STOPPED)
                else:
                    self._finish_unsent(claim, DeliveryStatus.HELD, waits_for(event_id))
            lane.put_back(list(lane.looking_up.values()))


def _unsent(claim: PendingClaim, status: DeliveryStatus, detail: str) -> Delivery:
    """Return the delivery of an event that was not sent: what may have arrived before still may."""
    return end_of(claim.event, DeliveryStatus.UNCONFIRMED if claim.decision.unconfirmed else status, detail)
