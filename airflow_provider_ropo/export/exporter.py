"""Send events in a file: choose, claim, publish, record.

The spool is read several times, always in the same order: what is to be sent is written to a file on this machine's
disk, so that its name and digest are known; then its events are claimed, with that name in the ledger's rows; then the
file is published, and each event's delivery recorded. Of each event, one byte is in memory.

Files of earlier tries come first: what the ledger calls *sending* is looked for at the destination.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from airflow_provider_ropo.delivery import BLOCKING, WAITS, Delivery, DeliveryStatus, end_of, waits_for
from airflow_provider_ropo.errors import FileStoreError, InvalidRowError, SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.export.file_claim import FileClaim
from airflow_provider_ropo.export.formats import FileFormat
from airflow_provider_ropo.export.local_file import LocalFile
from airflow_provider_ropo.export.publisher import FilePublisher
from airflow_provider_ropo.export.resume import Step, is_left
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.claims import Outcome, PendingClaim, Round
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action, Decision
from airflow_provider_ropo.ledger.entries import NEVER, UNPUBLISHED
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.recorder import POLL_INTERVAL
from airflow_provider_ropo.ledger.table import BATCH, batches
from airflow_provider_ropo.reporting.report import Report

log = logging.getLogger(__name__)

#: What is known of an event: nothing yet, it is in the file, it has ended, it has ended and later ones of its usage
#: place have to wait.
_OPEN, _CHOSEN, _ENDED, _BLOCKING = range(4)

#: An event and its number in the spool's order.
_Numbered = tuple[int, UsageplaceEvent]


class Exporter:
    """Sends the events of a spool in a file.

    :param spool: what was read.
    :param publisher: brings files to their destination.
    :param on_delivery: takes each event's delivery.
    :param ledger: remembers deliveries.
    :param format_: how events are written.
    :param name: what the file's name begins with.
    :param hold: hold the events of a file that may have arrived, instead of sending it again.
    :param stop: set, from any thread, to end soon.
    :param report: published now and then.
    """

    def __init__(
        self,
        spool: Spool,
        publisher: FilePublisher,
        on_delivery: Callable[[Delivery], None],
        *,
        ledger: DeliveryLedger,
        format_: FileFormat,
        name: str,
        hold: bool,
        stop: threading.Event,
        report: Report | None = None,
    ) -> None:
        self._spool = spool
        self._publisher = publisher
        self._on_delivery = on_delivery
        self._ledger = ledger
        self._format = format_
        self._name = name
        self._hold = hold
        self._stop = stop
        self._report = report
        self._states = bytearray(spool.count())
        self._latest_claim = NEVER
        #: Files of earlier tries that are looked after; of those that are not sent now, how their events end.
        self._known_files: dict[str, _Waiting | None] = {}

    def run(self) -> None:
        """Send every event that is to be sent, or none if told to stop.

        :raises FileStoreError: if a file could not be sent.
        :raises RopoLedgerError: if the ledger fails, or another run has taken over.
        :raises SpoolError: if the disk fails.
        """
        while not self._stop.is_set():
            with LocalFile(self._format) as local:
                files = self._survey(local)
                if not files:
                    self._send(local)
                    return
            for file in files:
                self._look_after(file)

    def send_empty(self) -> None:
        """Send a file without events, unless it is known to have arrived.

        :raises FileStoreError: if it could not be sent.
        """
        with LocalFile(self._format) as local:
            file = local.finish(self._name)
            step = self._publisher.next_step(file)
            if step is Step.DELIVERED:
                self._publisher.finish(file)
            elif step is Step.PUBLISH:
                self._publisher.complete(file)
            elif step is Step.UPLOAD or (step is Step.UNCONFIRMED and not self._hold):
                self._publisher.send(self._publisher.claim(file), local.content())
            elif step is Step.UNCONFIRMED:
                raise FileStoreError(f"the {file} may have arrived already")

    def finish_left_files(self) -> None:
        """Bring files of this task's earlier runs to an end that no event of this run has led to.

        :raises FileStoreError: if that fails.
        """
        for file, entries in self._ledger.left_files():
            if not self._stop.is_set() and file.name not in self._known_files and is_left(entries):
                self._look_after(file)

    def unsent(self) -> Iterator[UsageplaceEvent]:
        """Yield the events that the run did not come to, once it has ended."""
        for batch in self._batches(_OPEN, _CHOSEN):
            yield from (event for _number, event in batch)

    # Choosing

    def _survey(self, local: LocalFile) -> list[FileRecord]:
        """Write every event that is to be sent to a file, and end those that are not.

        :return: files of earlier tries that have to be looked after first.
        """
        self._reopen()
        survey = _Survey()
        for batch in self._batches():
            if self._stop.is_set():
                break
            claims = self._ledger.look_up([event for number, event in batch if self._states[number] == _OPEN])
            found = iter(claims)
            for number, event in batch:
                survey.enter(event)
                state = self._states[number]
                if state == _OPEN:
                    self._judge(number, next(found), survey, local)
                elif state == _BLOCKING:
                    survey.blocked_by = event.id
            self._record(survey)
        return list(survey.files.values())

    def _judge(self, number: int, claim: PendingClaim, survey: _Survey, local: LocalFile) -> None:
        event, decision = claim.event, claim.decision
        if survey.is_waiting:
            # An earlier event of its place is in a file that is looked after first.
            return
        file = decision.file
        waiting = self._known_files.get(file.name) if file is not None else None
        if file is not None and waiting is None:
            if file.name not in self._known_files:
                survey.files[file.name] = file
                survey.is_waiting = True
                return
            waiting = _Waiting(DeliveryStatus.UNCONFIRMED, decision.detail)
        if waiting is not None:
            self._skip(number, claim, waiting.status, f"{file}; {waiting.reason}", survey)
        elif decision.action is not Action.SEND:
            status = STATUS_OF_ACTION[decision.action]
            # What another run does, and what is known, is in the ledger already.
            write = decision.action in {Action.CONTENT_CHANGED, Action.UNCONFIRMED}
            self._skip(number, claim, status, decision.detail, survey, write=write)
        elif survey.blocked_by is not None:
            status = DeliveryStatus.UNCONFIRMED if decision.unconfirmed else DeliveryStatus.HELD
            self._skip(number, claim, status, waits_for(survey.blocked_by), survey)
        else:
            self._choose(number, event, survey, local)

    def _choose(self, number: int, event: UsageplaceEvent, survey: _Survey, local: LocalFile) -> None:
        try:
            local.write(event)
        except InvalidRowError as error:
            survey.invalid.append(error)
            self._end(number, Delivery.of_invalid_row(error))
        else:
            self._states[number] = _CHOSEN

    def _skip(
        self,
        number: int,
        claim: PendingClaim,
        status: DeliveryStatus,
        detail: str,
        survey: _Survey,
        *,
        write: bool = True,
    ) -> None:
        delivery = end_of(claim.event, status, detail)
        if status in BLOCKING:
            survey.blocked_by = claim.event.id
        if write:
            survey.results.append((claim, delivery))
        self._end(number, delivery)

    def _record(self, survey: _Survey) -> None:
        if survey.results:
            self._ledger.exchange(Round(results=survey.results))
            survey.results = []
        if survey.invalid:
            self._ledger.record_invalid(survey.invalid)
            survey.invalid = []

    # Files of earlier tries

    def _look_after(self, file: FileRecord) -> None:
        waiting = self._known_files[file.name] = self._resume(file)
        if waiting is not None and waiting.status is DeliveryStatus.UNCONFIRMED:
            self._ledger.record_file(file, waiting.status, waiting.reason)
            self._record_unread(file, waiting.status, waiting.reason)

    def _resume(self, file: FileRecord) -> _Waiting | None:
        """Bring a file of an earlier try to an end; return how its events end, if they are not sent now."""
        senders = self._ledger.senders_of_file(file.name)
        if senders:
            return _Waiting(DeliveryStatus.HELD, f"run {senders[0].run_id} is sending it")
        step = self._publisher.next_step(file)
        log.info("The %s of an earlier try: %s", file, step)
        if step is Step.UNCONFIRMED:
            return self._resume_unconfirmed(file)
        if step is Step.UPLOAD:
            if not self._publisher.take_over(file):
                return _Waiting(DeliveryStatus.HELD, "another run is sending it")
            self._record_found(file, UNPUBLISHED, "it was never published")
        elif step is Step.CLOSED:
            self._record_found(file, DeliveryStatus.CLOSED, "a person has closed it")
        else:
            if step is Step.PUBLISH:
                self._publisher.complete(file)
            else:
                self._publisher.finish(file)
            self._record_found(file, DeliveryStatus.DELIVERED, "it was found at its destination")
        return None

    def _resume_unconfirmed(self, file: FileRecord) -> _Waiting | None:
        if self._hold:
            return _Waiting(DeliveryStatus.UNCONFIRMED, "it was collected or is lost")
        self._reopen()
        with LocalFile(self._format) as local:
            for batch in self._batches(_OPEN):
                claims = self._ledger.look_up([event for _number, event in batch])
                for (number, event), claim in zip(batch, claims, strict=True):
                    if claim.decision.file == file and claim.decision.action is Action.SEND:
                        local.write(event)
                        self._states[number] = _CHOSEN
            again = local.finish(self._name)
            if again.sha256 == file.sha256:
                log.warning("The %s may have arrived already and is sent again with the same name", file)
                self._send_again(file, local)
                return None
        self._reopen()
        reason = "it was collected or is lost, and cannot be made again: not all of its events are read, or one changed"
        return _Waiting(DeliveryStatus.UNCONFIRMED, reason)

    def _record_found(self, file: FileRecord, status: str, detail: str) -> None:
        """Record what was found out about a file, for each of its events."""
        for batch in self._batches(_OPEN):
            claims = self._ledger.look_up([event for _number, event in batch])
            found = [
                (number, claim)
                for (number, _event), claim in zip(batch, claims, strict=True)
                if claim.decision.file == file
            ]
            self._ledger.record_found([(claim.event, claim.decision) for _, claim in found], status, file, detail)
            for number, claim in found:
                # What has changed since is judged anew.
                if status == DeliveryStatus.DELIVERED and claim.decision.action is not Action.CONTENT_CHANGED:
                    self._end(number, end_of(claim.event, DeliveryStatus.DELIVERED, detail, attempts=1))

        self._record_unread(file, status, detail)

    def _record_unread(self, file: FileRecord, status: str, detail: str) -> None:
        """Record what was found out about a file for the events in it that this run has not read."""
        unread = self._ledger.record_unread(file, status, detail)
        if not unread:
            return
        log.warning("%s: %s; this run does not read %s events in it, which are %s", file, detail, f"{unread:,}", status)
        if status == UNPUBLISHED:
            log.warning("They are sent when a run reads them: clear the task instance that made this file")

    # Sending

    def _send(self, local: LocalFile) -> None:
        file = local.finish(self._name)
        if not file.events or self._stop.is_set():
            return
        # Before anything is claimed: the destination answers, and no other file has that name.
        self._publisher.next_step(file)
        claim = self._publisher.claim(file)
        lost = self._claim_events(claim)
        if self._stop.is_set():
            claim.withdraw("the run was stopped")
        elif lost:
            self._send_rest(claim)
        else:
            self._publish(claim, local)

    def _send_rest(self, claim: FileClaim) -> None:
        """Send those events of a file that could be claimed in another one."""
        self._end_blocked()
        with LocalFile(self._format) as rest:
            for batch in self._batches(_CHOSEN):
                for _number, event in batch:
                    rest.write(event)
            file = rest.finish(self._name)
            if file.events:
                claim_of_rest = self._publisher.claim(file)
                for batch in self._batches(_CHOSEN):
                    events = [event for _number, event in batch]
                    self._latest_claim = self._ledger.reassert(events, self._latest_claim, str(file))
                # Who takes the first file over from now on finds that its events are in this one.
                claim.check()
                claim.withdraw("other runs have some of its events; the others are in another file")
                self._publish(claim_of_rest, rest)
            else:
                claim.withdraw("other runs have its events")

    def _send_again(self, file: FileRecord, local: LocalFile) -> None:
        """Send a file that may have arrived already."""
        claim = self._publisher.claim(file)
        if self._claim_events(claim):
            claim.withdraw("another run has taken some of its events")
            raise FileStoreError(f"another run has taken events of the {file}, which may have arrived already")
        if self._stop.is_set():
            claim.withdraw("the run was stopped")
        else:
            self._publish(claim, local)

    def _claim_events(self, claim: FileClaim) -> int:
        """Claim every event of a file; return the number of those that could not be claimed."""
        file = claim.file
        assert file.events == self._states.count(_CHOSEN)  # noqa: S101 - else one is recorded that was not sent
        numbers: dict[str, int] = {}
        lost = 0
        unresolved: Sequence[PendingClaim] = ()
        for batch in self._batches(_CHOSEN):
            if self._stop.is_set():
                break
            claim.refresh()
            numbers |= {event.id: number for number, event in batch}
            events = [event for _number, event in batch]
            size = len(events)
            asked = Round(
                look_ups=events, claim_limit=size, claims_per_place=size, unresolved=unresolved, detail=str(file)
            )
            outcome = self._ledger.exchange(asked)
            unresolved = outcome.unresolved
            lost += self._take(outcome, numbers)
        while unresolved:
            outcome = self._ledger.exchange(Round(unresolved=unresolved, detail=str(file)))
            if len(outcome.unresolved) == len(unresolved):
                self._stop.wait(POLL_INTERVAL)
            unresolved = outcome.unresolved
            lost += self._take(outcome, numbers)
        return lost

    def _take(self, outcome: Outcome, numbers: dict[str, int]) -> int:
        for claim in outcome.ready:
            self._latest_claim = max(self._latest_claim, claim.at)
            del numbers[claim.event.id]
        for claim in outcome.refused:
            status = STATUS_OF_ACTION[claim.decision.action]
            self._end(numbers.pop(claim.event.id), end_of(claim.event, status, claim.decision.detail))
        for claim in outcome.postponed:
            self._end(
                numbers.pop(claim.event.id),
                end_of(claim.event, DeliveryStatus.HELD, WAITS),
            )
        return len(outcome.refused) + len(outcome.postponed)

    def _end_blocked(self) -> None:
        """End the claimed events that have to wait for an earlier one of their usage place."""
        survey = _Survey()
        for batch in self._batches():
            for number, event in batch:
                survey.enter(event)
                if self._states[number] == _BLOCKING:
                    survey.blocked_by = event.id
                elif self._states[number] == _CHOSEN and survey.blocked_by is not None:
                    claim = PendingClaim(event, Decision(Action.SEND), self._latest_claim, is_claimed=True)
                    self._skip(number, claim, DeliveryStatus.HELD, waits_for(survey.blocked_by), survey)
            self._record(survey)

    def _publish(self, claim: FileClaim, local: LocalFile) -> None:
        file = claim.file
        try:
            self._publisher.send(claim, local.content())
        except FileStoreError as error:
            if error.may_have_arrived:
                self._end_chosen(DeliveryStatus.UNCONFIRMED, f"{file}; {error}")
            raise
        log.info("Published the %s", file)
        self._end_chosen(DeliveryStatus.DELIVERED, f"in the file {file.name}")

    def _end_chosen(self, status: DeliveryStatus, detail: str) -> None:
        """Record the delivery status of every event of the file."""
        superseded: SupersededError | None = None
        for batch in self._batches(_CHOSEN):
            deliveries = [end_of(event, status, detail, attempts=1) for _number, event in batch]
            claims = [
                PendingClaim(event, Decision(Action.SEND), self._latest_claim, is_claimed=True)
                for _number, event in batch
            ]
            try:
                self._ledger.exchange(Round(results=list(zip(claims, deliveries, strict=True))))
            except SupersededError as error:
                # Raised once, and after writing.
                superseded = error
            for (number, _event), delivery in zip(batch, deliveries, strict=True):
                self._end(number, delivery)
        if superseded is not None:
            raise superseded

    def _reopen(self) -> None:
        """Put back what was chosen and is not claimed."""
        self._states = self._states.replace(bytes([_CHOSEN]), bytes([_OPEN]))

    def _end(self, number: int, delivery: Delivery) -> None:
        self._states[number] = _BLOCKING if delivery.status in BLOCKING else _ENDED
        self._on_delivery(delivery)

    def _batches(self, *states: int) -> Iterator[list[_Numbered]]:
        """Yield events in the spool's order, with their numbers.

        :param states: of these states only; none: all events.
        """
        numbered = enumerate(event for lane in self._spool.lanes() for event in lane)
        wanted = (each for each in numbered if not states or self._states[each[0]] in states)
        for batch in batches(wanted, BATCH):
            yield batch
            if self._report is not None and self._report.is_due:
                self._report.publish()


@dataclass(frozen=True)
class _Waiting:
    """How the events of a file end that is not sent now."""

    status: DeliveryStatus
    reason: str


class _Survey:
    """What is known of the usage place whose events are being read, and what is to be written."""

    def __init__(self) -> None:
        self._place = ""
        self.blocked_by: str | None = None
        self.is_waiting = False
        self.files: dict[str, FileRecord] = {}
        self.results: list[tuple[PendingClaim, Delivery]] = []
        self.invalid: list[InvalidRowError] = []

    def enter(self, event: UsageplaceEvent) -> None:
        """Go on to the next event."""
        if event.usageplacecode != self._place:
            self._place, self.blocked_by, self.is_waiting = event.usageplacecode, None, False
