"""Send events side by side, each usage place's one after another, and remember what becomes of them.

The calling thread reads, remembers and decides; workers do nothing but post. What is in flight is bounded, whatever
the number of events and however many of them belong to one place.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from airflow_provider_ropo.delivery import BLOCKING, Delivery, DeliveryStatus, delivery_of, end_of
from airflow_provider_ropo.dispatch.circuit_breaker import CircuitBreaker
from airflow_provider_ropo.dispatch.lanes import Job, Lane, Lanes
from airflow_provider_ropo.dispatch.rate_limiter import RateLimiter
from airflow_provider_ropo.dispatch.sender import Sender
from airflow_provider_ropo.dispatch.workers import Workers
from airflow_provider_ropo.errors import RopoAuthenticationError, RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action, Decision
from airflow_provider_ropo.ledger.protocol import FLUSH_INTERVAL, Ledger, Recorder
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.retry import Backoff, RetryResult

log = logging.getLogger(__name__)

#: Events claimed at a time: what a kill leaves unconfirmed. Of one place, no more than an eighth of them.
CLAIM_SIZE, CLAIM_SIZE_PER_LANE = 64, 8
#: Events looked up at a time while most of them turn out to be known: one select.
LOOK_UP_SIZE = 500
#: Seconds that a stop waits for what is in flight; Airflow kills after five.
SHUTDOWN_TIMEOUT = 4.0


class Dispatcher:
    """Sends events.

    :param send: posts one event; raises one of the tree's errors. Called by the workers.
    :param on_delivery: told what became of each event, on the calling thread.
    :param ledger: the ledger, or :class:`~airflow_provider_ropo.ledger.protocol.NullLedger`.
    :param max_workers: posts side by side.
    :param rate_limit: posts a second over all workers, at most.
    :param stop: set, from any thread, to end the posting soon; set when it has ended.
    :param report: asked now and then, on the calling thread, whether it has something to say.
    """

    def __init__(
        self,
        send: Callable[[UsageplaceEvent], object],
        on_delivery: Callable[[Delivery], None],
        *,
        ledger: Ledger,
        max_workers: int,
        stop: threading.Event,
        backoff: Backoff | None = None,
        rate_limit: float | None = None,
        report: Report | None = None,
    ) -> None:
        self._on_delivery = on_delivery
        self._report = report
        self._ledger = ledger
        # Lanes with an event on its way: one for each worker, and one to follow.
        self._enough = 2 * max_workers
        self._stop = stop
        backoff = backoff or Backoff()
        self._circuit_breaker = CircuitBreaker(backoff.max_retry_after)
        sender = Sender(send, backoff, RateLimiter(rate_limit), self._circuit_breaker, stop)
        self._workers: Workers[Job, RetryResult[object] | None] = Workers(
            lambda job: sender.deliver(job.event, job.decision), max_workers, stop
        )
        self._lanes = Lanes(())
        self._in_flight: dict[str, Job] = {}
        self._claimed_lanes: set[Lane] = set()
        self._look_up = CLAIM_SIZE
        self._recorder = Recorder(ledger)
        self._stopped_by: BaseException | None = None

    def run(self, lanes: Iterable[Iterable[UsageplaceEvent]]) -> None:
        """Send every event, or what can be sent until told to stop.

        :param lanes: one usage place's events each, in the order of their time.
        :raises RopoAuthenticationError: if Ropo One refuses to let this run go on.
        :raises RopoUnavailableError: if nothing gets through.
        :raises RopoLedgerError: if what happens cannot be remembered.
        """
        self._lanes = Lanes(lanes)
        try:
            self._workers.start()
            self._post()
        except BaseException:
            try:
                self._shutdown()
            except RopoLedgerError as error:
                # Said, not raised: the error that is on its way says why the run ends.
                log.error("what became of the last events is not remembered: %s", error)  # noqa: TRY400
            raise
        self._shutdown()
        if self._stopped_by is not None:
            raise self._stopped_by

    def _post(self) -> None:
        while not self._stop.is_set():
            supplied = self._refill()
            if not (supplied or self._in_flight):
                return
            self._drain_results(0.0 if supplied else FLUSH_INTERVAL)
            if self._report is not None and self._report.is_due:
                # What is known is written first: to say something may take its time.
                self._recorder.write()
                self._report.publish()

    # What the calling thread does: keep the workers supplied …

    def _refill(self) -> bool:
        """Take some of the next events, unless the workers have enough to do; return whether there were any."""
        in_flight = len(self._in_flight)
        if in_flight >= self._enough or self._lanes.should_batch(in_flight, CLAIM_SIZE // CLAIM_SIZE_PER_LANE):
            return False
        batch = self._lanes.take(self._look_up, CLAIM_SIZE_PER_LANE if self._look_up == CLAIM_SIZE else LOOK_UP_SIZE)
        if batch:
            left = self._triage(batch)
            # While most events are not to be sent, look up many at a time; else as many as are claimed at a time.
            self._look_up = LOOK_UP_SIZE if left * 2 > len(batch) else CLAIM_SIZE
        return bool(batch)

    def _triage(self, batch: Sequence[tuple[Lane, UsageplaceEvent]]) -> int:
        """Claim the events that are next, and say how those stand that are not sent; return how many these are."""
        decisions = self._ledger.look_up([event for _, event in batch])
        to_claim: list[Job] = []
        shares: Counter[Lane] = Counter()
        later: dict[Lane, list[UsageplaceEvent]] = {}
        left = 0
        for (lane, event), decision in zip(batch, decisions, strict=True):
            to_send = decision.action is Action.SEND and lane.blocked_by is None
            if lane in later or (to_send and (len(to_claim) == CLAIM_SIZE or shares[lane] == CLAIM_SIZE_PER_LANE)):
                later.setdefault(lane, []).append(event)
            elif to_send:
                to_claim.append(Job(lane, event, decision))
                shares[lane] += 1
            else:
                self._skip(lane, event, decision)
                left += 1
        if to_claim:
            self._claim(to_claim)
        for lane, events in later.items():
            lane.put_back(events)
        for lane in dict.fromkeys(lane for lane, _ in batch):
            self._submit_next(lane)
        return left

    def _skip(self, lane: Lane, event: UsageplaceEvent, decision: Decision) -> None:
        """Say how an event stands that is not sent."""
        if decision.action is Action.SEND:
            detail = f"waits for the earlier event {lane.blocked_by}"
            # What may have arrived still may, and the ledger says so already.
            self._finish_unsent(event, decision, DeliveryStatus.HELD, detail, write=not decision.unconfirmed)
            return
        # What another run does, and what is at Ropo One, is that other run's to write.
        status, write = STATUS_OF_ACTION[decision.action], decision.action is Action.UNCONFIRMED
        self._finish(event, end_of(event, status, decision.detail), write=write)
        if status in BLOCKING:
            lane.blocked_by = lane.blocked_by or event.id

    def _claim(self, jobs: Sequence[Job]) -> None:
        try:
            decisions = self._ledger.claim([(job.event, job.decision) for job in jobs])
        except BaseException:
            # Remembered or not: none of them has been sent.
            for _, event, decision in jobs:
                self._finish_unsent(event, decision, DeliveryStatus.UNDELIVERED, "not sent: the run was stopped")
            raise
        refused: list[Job] = []
        lost: dict[Lane, str] = {}
        for (lane, event, _), decision in zip(jobs, decisions, strict=True):
            if decision.action is Action.SEND and lane not in lost:
                lane.claimed.append((event, decision))
                self._claimed_lanes.add(lane)
            else:
                refused.append(Job(lane, event, decision))
                if decision.action is not Action.SEND and STATUS_OF_ACTION[decision.action] in BLOCKING:
                    lost.setdefault(lane, event.id)
        for lane, event_id in lost.items():
            lane.blocked_by = lane.blocked_by or event_id
        for lane, event, decision in refused:
            if decision.action is Action.SEND:
                self._finish_unsent(event, decision, DeliveryStatus.HELD, f"waits for the earlier event {lost[lane]}")
            else:
                # The ledger has written that down itself.
                self._finish(event, end_of(event, STATUS_OF_ACTION[decision.action], decision.detail), write=False)

    def _submit_next(self, lane: Lane) -> None:
        """Send a lane's next event, if none of it is in flight."""
        if lane.claimed and not lane.in_flight and not self._stop.is_set():
            job = Job(lane, *lane.claimed.popleft())
            lane.in_flight = True
            self._in_flight[job.event.id] = job
            self._workers.put(job)
        if not lane.claimed:
            self._claimed_lanes.discard(lane)
        if len(lane.claimed) < CLAIM_SIZE_PER_LANE // 2:
            self._lanes.request_refill(lane)

    # … and take in what became of the events.

    def _drain_results(self, timeout: float) -> None:
        """Take in a result, unless that takes long, and whatever else has come by then."""
        with suppress(queue.Empty):
            self._handle_result(*self._workers.get(timeout))
            while True:
                self._recorder.write_if_due()
                self._handle_result(*self._workers.get(0))
        self._recorder.write_if_due()

    def _handle_result(self, job: Job, result: RetryResult[object] | BaseException | None) -> None:
        lane, event, decision = job
        lane.in_flight = False
        del self._in_flight[event.id]
        if result is None:
            lane.claimed.appendleft((event, decision))
            self._claimed_lanes.add(lane)
        elif isinstance(result, BaseException):
            self._stop_for(result)
            self._finish(event, end_of(event, DeliveryStatus.UNCONFIRMED, "a bug broke the attempt off"))
        else:
            delivery = delivery_of(event, result)
            self._check_circuit(result, delivery)
            self._finish(event, delivery)
            if delivery.status in BLOCKING:
                lane.blocked_by = event.id
                self._release_lane(lane, DeliveryStatus.HELD, f"waits for the earlier event {event.id}")
            self._submit_next(lane)

    def _check_circuit(self, ending: RetryResult[object], delivery: Delivery) -> None:
        """Stop if nothing more can be sent, or nothing gets through."""
        stopped = self._stop.is_set()
        error = self._circuit_breaker.record_event(ending.result, arrived=delivery.status not in BLOCKING)
        # Once it is to stop, attempts are broken off: that nothing gets through then means nothing.
        if error is not None and (not stopped or isinstance(error, RopoAuthenticationError)):
            self._stop_for(error)

    def _stop_for(self, error: BaseException) -> None:
        """Stop the run for this error, or for the one before it."""
        self._stopped_by = self._stopped_by or error
        self._stop.set()

    def _release_lane(self, lane: Lane, status: DeliveryStatus, detail: str) -> None:
        """Let go of a lane's claimed events."""
        while lane.claimed:
            self._finish_unsent(*lane.claimed.popleft(), status, detail)

    def _finish_unsent(
        self, event: UsageplaceEvent, decision: Decision, status: DeliveryStatus, detail: str, *, write: bool = True
    ) -> None:
        """End an event that was to be sent and is not: what may have arrived before still may."""
        status = DeliveryStatus.UNCONFIRMED if decision.unconfirmed else status
        self._finish(event, end_of(event, status, detail), write=write)

    def _finish(self, event: UsageplaceEvent, delivery: Delivery, *, write: bool = True) -> None:
        # In this order: `on_delivery` may be interrupted.
        if write:
            self._recorder.add(event, delivery)
        self._on_delivery(delivery)

    def _shutdown(self) -> None:
        """Wait a moment for what is in flight, let go of the rest, and remember all of it."""
        self._stop.set()
        try:
            for job in self._workers.cancel_pending():
                self._handle_result(job, None)
            self._await_in_flight(time.monotonic() + SHUTDOWN_TIMEOUT)
            for lane in list(self._claimed_lanes):
                self._release_lane(lane, DeliveryStatus.UNDELIVERED, "not sent: the run was stopped")
        finally:
            self._workers.shutdown()
            self._recorder.write()

    def _await_in_flight(self, until: float) -> None:
        with suppress(queue.Empty):
            while self._in_flight:
                self._handle_result(*self._workers.get(until - time.monotonic()))
        for _, event, _ in self._in_flight.values():
            self._finish(event, end_of(event, DeliveryStatus.UNCONFIRMED, "no answer yet when the run was stopped"))
