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
from airflow_provider_ropo.dispatch.circuit_breaker import Breaker
from airflow_provider_ropo.dispatch.lanes import Job, Lane, Lanes
from airflow_provider_ropo.dispatch.rate_limiter import Pace
from airflow_provider_ropo.dispatch.sender import Courier
from airflow_provider_ropo.dispatch.workers import Workers
from airflow_provider_ropo.errors import RopoAuthenticationError, RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import STATUS, Standing, Verdict
from airflow_provider_ropo.ledger.protocol import REMEMBER_EVERY, Memory, Unwritten
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.retry import Backoff, Ending

log = logging.getLogger(__name__)

#: Events claimed at a time: what a kill leaves unconfirmed. Of one place, no more than an eighth of them.
CLAIM, CLAIM_PER_LANE = 64, 8
#: Events looked up at a time while most of them turn out to be known: one select.
LOOK_UP = 500
#: Seconds that a stop waits for what is in flight; Airflow kills after five.
LAST_WAIT = 4.0


class Dispatcher:
    """Sends events.

    :param send: posts one event; raises one of the tree's errors. Called by the workers.
    :param landed: told what became of each event, on the calling thread.
    :param memory: the ledger, or :class:`~airflow_provider_ropo.ledger.protocol.NoMemory`.
    :param max_workers: posts side by side.
    :param rate_limit: posts a second over all workers, at most.
    :param stop: set, from any thread, to end the posting soon; set when it has ended.
    :param report: asked now and then, on the calling thread, whether it has something to say.
    """

    def __init__(
        self,
        send: Callable[[UsageplaceEvent], object],
        landed: Callable[[Delivery], None],
        *,
        memory: Memory,
        max_workers: int,
        stop: threading.Event,
        backoff: Backoff | None = None,
        rate_limit: float | None = None,
        report: Report | None = None,
    ) -> None:
        self._landed = landed
        self._report = report
        self._memory = memory
        # Lanes with an event on its way: one for each worker, and one to follow.
        self._enough = 2 * max_workers
        self._stop = stop
        backoff = backoff or Backoff()
        self._breaker = Breaker(backoff.patience)
        courier = Courier(send, backoff, Pace(rate_limit), self._breaker, stop)
        self._workers: Workers[Job, Ending[object] | None] = Workers(
            lambda job: courier.deliver(job.event, job.standing), max_workers, stop
        )
        self._lanes = Lanes(())
        self._flying: dict[str, Job] = {}
        self._supplied: set[Lane] = set()
        self._look_up = CLAIM
        self._unwritten = Unwritten(memory)
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
                self._wind_down()
            except RopoLedgerError as error:
                # Said, not raised: the error that is on its way says why the run ends.
                log.error("what became of the last events is not remembered: %s", error)  # noqa: TRY400
            raise
        self._wind_down()
        if self._stopped_by is not None:
            raise self._stopped_by

    def _post(self) -> None:
        while not self._stop.is_set():
            supplied = self._supply()
            if not (supplied or self._flying):
                return
            self._collect(0.0 if supplied else REMEMBER_EVERY)
            if self._report is not None and self._report.is_due:
                # What is known is written first: to say something may take its time.
                self._unwritten.write()
                self._report.say()

    # What the calling thread does: keep the workers supplied …

    def _supply(self) -> bool:
        """Take some of the next events, unless the workers have enough to do; return whether there were any."""
        flying = len(self._flying)
        if flying >= self._enough or self._lanes.can_wait(flying, CLAIM // CLAIM_PER_LANE):
            return False
        batch = self._lanes.take(self._look_up, CLAIM_PER_LANE if self._look_up == CLAIM else LOOK_UP)
        if batch:
            left = self._sort_out(batch)
            # While most events are not to be sent, look up many at a time; else as many as are claimed at a time.
            self._look_up = LOOK_UP if left * 2 > len(batch) else CLAIM
        return bool(batch)

    def _sort_out(self, batch: Sequence[tuple[Lane, UsageplaceEvent]]) -> int:
        """Claim the events that are next, and say how those stand that are not sent; return how many these are."""
        standings = self._memory.look_up([event for _, event in batch])
        to_claim: list[Job] = []
        shares: Counter[Lane] = Counter()
        later: dict[Lane, list[UsageplaceEvent]] = {}
        left = 0
        for (lane, event), standing in zip(batch, standings, strict=True):
            to_send = standing.verdict is Verdict.SEND and lane.waits_for is None
            if lane in later or (to_send and (len(to_claim) == CLAIM or shares[lane] == CLAIM_PER_LANE)):
                later.setdefault(lane, []).append(event)
            elif to_send:
                to_claim.append(Job(lane, event, standing))
                shares[lane] += 1
            else:
                self._leave(lane, event, standing)
                left += 1
        if to_claim:
            self._claim(to_claim)
        for lane, events in later.items():
            lane.put_back(events)
        for lane in dict.fromkeys(lane for lane, _ in batch):
            self._launch(lane)
        return left

    def _leave(self, lane: Lane, event: UsageplaceEvent, standing: Standing) -> None:
        """Say how an event stands that is not sent."""
        if standing.verdict is Verdict.SEND:
            detail = f"waits for the earlier event {lane.waits_for}"
            # What may have arrived still may, and the ledger says so already.
            self._end_unsent(event, standing, DeliveryStatus.HELD, detail, write=not standing.unconfirmed)
            return
        # What another run does, and what is at Ropo One, is that other run's to write.
        status, write = STATUS[standing.verdict], standing.verdict is Verdict.UNCONFIRMED
        self._end(event, end_of(event, status, standing.detail), write=write)
        if status in BLOCKING:
            lane.waits_for = lane.waits_for or event.id

    def _claim(self, jobs: Sequence[Job]) -> None:
        try:
            standings = self._memory.claim([(job.event, job.standing) for job in jobs])
        except BaseException:
            # Remembered or not: none of them has been sent.
            for _, event, standing in jobs:
                self._end_unsent(event, standing, DeliveryStatus.UNDELIVERED, "not sent: the run was stopped")
            raise
        refused: list[Job] = []
        lost: dict[Lane, str] = {}
        for (lane, event, _), standing in zip(jobs, standings, strict=True):
            if standing.verdict is Verdict.SEND and lane not in lost:
                lane.ready.append((event, standing))
                self._supplied.add(lane)
            else:
                refused.append(Job(lane, event, standing))
                if standing.verdict is not Verdict.SEND and STATUS[standing.verdict] in BLOCKING:
                    lost.setdefault(lane, event.id)
        for lane, event_id in lost.items():
            lane.waits_for = lane.waits_for or event_id
        for lane, event, standing in refused:
            if standing.verdict is Verdict.SEND:
                self._end_unsent(event, standing, DeliveryStatus.HELD, f"waits for the earlier event {lost[lane]}")
            else:
                # The ledger has written that down itself.
                self._end(event, end_of(event, STATUS[standing.verdict], standing.detail), write=False)

    def _launch(self, lane: Lane) -> None:
        """Send a lane's next event, if none of it is flying."""
        if lane.ready and not lane.flying and not self._stop.is_set():
            job = Job(lane, *lane.ready.popleft())
            lane.flying = True
            self._flying[job.event.id] = job
            self._workers.put(job)
        if not lane.ready:
            self._supplied.discard(lane)
        if len(lane.ready) < CLAIM_PER_LANE // 2:
            self._lanes.feed(lane)

    # … and take in what became of the events.

    def _collect(self, timeout: float) -> None:
        """Take in a result, unless that takes long, and whatever else has come by then."""
        with suppress(queue.Empty):
            self._take_in(*self._workers.get(timeout))
            while True:
                self._unwritten.write_if_due()
                self._take_in(*self._workers.get(0))
        self._unwritten.write_if_due()

    def _take_in(self, job: Job, result: Ending[object] | BaseException | None) -> None:
        lane, event, standing = job
        lane.flying = False
        del self._flying[event.id]
        if result is None:
            lane.ready.appendleft((event, standing))
            self._supplied.add(lane)
        elif isinstance(result, BaseException):
            self._stop_for(result)
            self._end(event, end_of(event, DeliveryStatus.UNCONFIRMED, "a bug broke the attempt off"))
        else:
            delivery = delivery_of(event, result)
            self._look_for_the_end(result, delivery)
            self._end(event, delivery)
            if delivery.status in BLOCKING:
                lane.waits_for = event.id
                self._give_up(lane, DeliveryStatus.HELD, f"waits for the earlier event {event.id}")
            self._launch(lane)

    def _look_for_the_end(self, ending: Ending[object], delivery: Delivery) -> None:
        """Stop if nothing more can be sent, or nothing gets through."""
        stopped = self._stop.is_set()
        error = self._breaker.ended(ending.result, arrived=delivery.status not in BLOCKING)
        # Once it is to stop, attempts are broken off: that nothing gets through then means nothing.
        if error is not None and (not stopped or isinstance(error, RopoAuthenticationError)):
            self._stop_for(error)

    def _stop_for(self, error: BaseException) -> None:
        """Stop the run for this error, or for the one before it."""
        self._stopped_by = self._stopped_by or error
        self._stop.set()

    def _give_up(self, lane: Lane, status: DeliveryStatus, detail: str) -> None:
        """Let go of a lane's claimed events."""
        while lane.ready:
            self._end_unsent(*lane.ready.popleft(), status, detail)

    def _end_unsent(
        self, event: UsageplaceEvent, standing: Standing, status: DeliveryStatus, detail: str, *, write: bool = True
    ) -> None:
        """End an event that was to be sent and is not: what may have arrived before still may."""
        status = DeliveryStatus.UNCONFIRMED if standing.unconfirmed else status
        self._end(event, end_of(event, status, detail), write=write)

    def _end(self, event: UsageplaceEvent, delivery: Delivery, *, write: bool = True) -> None:
        # In this order: `landed` may be interrupted.
        if write:
            self._unwritten.add(event, delivery)
        self._landed(delivery)

    def _wind_down(self) -> None:
        """Wait a moment for what is in flight, let go of the rest, and remember all of it."""
        self._stop.set()
        try:
            for job in self._workers.take_back():
                self._take_in(job, None)
            self._await_flying(time.monotonic() + LAST_WAIT)
            for lane in list(self._supplied):
                self._give_up(lane, DeliveryStatus.UNDELIVERED, "not sent: the run was stopped")
        finally:
            self._workers.dismiss()
            self._unwritten.write()

    def _await_flying(self, until: float) -> None:
        with suppress(queue.Empty):
            while self._flying:
                self._take_in(*self._workers.get(until - time.monotonic()))
        for _, event, _ in self._flying.values():
            self._end(event, end_of(event, DeliveryStatus.UNCONFIRMED, "no answer yet when the run was stopped"))
