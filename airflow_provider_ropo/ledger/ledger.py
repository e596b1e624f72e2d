"""The ledger in the warehouse: an append-only table with the delivery status of every event.

*Sending* is committed before an event's first attempt, its delivery status after. How runs keep out of each other's
way is the protocol's matter (:mod:`airflow_provider_ropo.ledger.claims`); this is what reads and writes for it.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus, end_of, first_of
from airflow_provider_ropo.errors import InvalidRowError, SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import ClaimProtocol, Outcome, PendingClaim, Round, Snapshot, looked_up
from airflow_provider_ropo.ledger.clock import DatabaseClock
from airflow_provider_ropo.ledger.decisions import (
    STATUS_OF_ACTION,
    Action,
    Decision,
    LedgerPolicy,
    competing_claims,
    file_of,
    last_unresolved,
    latest,
    of_destination,
)
from airflow_provider_ropo.ledger.digest import ContentDigest, invalid_digest, is_of_invalid
from airflow_provider_ropo.ledger.entries import (
    IN_PROGRESS,
    LONGEST_DETAIL,
    SENDING,
    TICK,
    UNPUBLISHED,
    Claimant,
    LedgerEntry,
    event_row,
    file_row,
    invalid_row,
    later_timestamp,
    unread_row,
)
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.left_files import events_in, names_of_left_files
from airflow_provider_ropo.ledger.table import LedgerTable, batches

log = logging.getLogger(__name__)


class DeliveryLedger:
    """Reads and writes the ledger; used by one thread at a time.

    :param table: where it is kept.
    :param destination: where the events go, such as ``https://rc.ropo24.fi 1000011``.
    :param me: who writes.
    :param policy: what the user wants.
    :param now: the database's time, UTC, naive; by default it is asked for.
    :param clock: seconds, from any start.
    :raises RopoLedgerError: from every method, if the database fails; nothing may be posted then.
    """

    def __init__(
        self,
        table: LedgerTable,
        destination: str,
        me: Claimant,
        policy: LedgerPolicy,
        *,
        now: Callable[[], dt.datetime] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._destination = destination
        self._me = me
        self._policy = policy
        self._now = now or DatabaseClock(table.database_time).now
        self._clock = clock
        self._started: tuple[dt.datetime, ClaimProtocol] | None = None
        self._superseded = False
        #: Events delivered although a later one of their usage place had been delivered before.
        self.stale = 0

    @property
    def claim_timeout(self) -> float:
        """Seconds for which another run's unfinished *sending* is respected."""
        return self._policy.claim_timeout

    def exists(self) -> bool:
        """Tell whether there is a table that may be read."""
        return self._table.exists()

    def prepare(self) -> None:
        """Create the table if it is missing, and add the columns that an earlier layout lacks."""
        self._table.create_or_upgrade()
        self._protocol()
        self.release_connection()

    def release_connection(self) -> None:
        """Close the database connection; the next call opens one, on whichever thread makes it."""
        self._table.release_connection()

    def close(self) -> None:
        """Let the database go."""
        self._table.close()

    def exchange(self, asked: Round) -> Outcome:
        """Read, decide and write once.

        :raises SupersededError: once, and after the results are written, if a later try of the same task instance is
            running.
        """
        protocol = self._protocol()
        now, clock = self._now(), self._clock()
        read = self._read(asked)
        if self._superseded:
            read = replace(read, is_superseded=True)
        plan = protocol.plan(asked, read, now, clock)
        refused = self._table.insert([*plan.results, *plan.claims])
        if refused:
            log.error("the ledger does not take rows of these events: %s", refused)
            plan.outcome.refuse(refused)
        self.stale += plan.outcome.stale
        if plan.is_superseded and not self._superseded:
            self._superseded = True
            raise SupersededError("a later try of this task instance is running; this one stops")
        _log_unconfirmed(plan.outcome.ready)
        return plan.outcome

    def decide(self, events: Sequence[UsageplaceEvent]) -> list[Decision]:
        """Return what a run would do with each event; nothing is written.

        :raises SupersededError: if a later try of the same task instance is running.
        """
        return [claim.decision for claim in self.look_up(events)]

    def look_up(self, events: Sequence[UsageplaceEvent], *, mine: bool = True) -> list[PendingClaim]:
        """Look events up; nothing is written.

        :param mine: count this process's own rows.
        :raises SupersededError: if a later try of the same task instance is running.
        """
        protocol, now = self._protocol(), self._now()
        read = self._table.entries([event.id for event in events])
        claims = []
        for event in events:
            entries = read.get(event.id, [])
            others = entries if mine else [entry for entry in entries if entry.claimant != self._me]
            claim = looked_up(event, protocol.decide(event, others, now), now)
            if (
                len(others) < len(entries)
                and entries[-1].claimant == self._me
                and entries[-1].delivery_status == SENDING
            ):
                # Claimed, and never sent: the claim is still to be closed.
                claim = replace(claim, at=entries[-1].recorded_at + TICK, is_claimed=True)
            claims.append(claim)
        return claims

    def reassert(self, events: Sequence[UsageplaceEvent], after: dt.datetime, detail: str) -> dt.datetime:
        """Write *sending* again for events that are claimed; return the time of the rows.

        :param after: a time that is not before any of the claims'.
        :param detail: the file that they are in now.
        """
        at = later_timestamp(after, self._now())
        self._table.insert([self._protocol().claim_row(event, at, detail) for event in events])
        return at

    def withhold(self, event_id: str) -> None:
        """Do not send an event in this run, even if another run lets it go meanwhile."""
        self._protocol().withhold(event_id)

    def is_own(self, entry: LedgerEntry) -> bool:
        """Tell whether a try of this task instance wrote a row."""
        return entry.claimant.is_same_task(self._me)

    def record_unsent(self, events: Sequence[UsageplaceEvent], detail: str, *, write: bool = True) -> list[Delivery]:
        """Record events that the run did not come to, unless their newest row has that status already.

        :param detail: why it did not.
        :param write: False: read only.
        :return: their delivery statuses, in order: what is at Ropo One already is counted as such.
        """
        claims = self.look_up(events, mine=False)
        deliveries = [_unsent(claim, detail) for claim in claims]
        protocol = self._protocol()
        if not write:
            return deliveries
        self._table.insert(
            [
                protocol.closing_row(claim, delivery, claim.at)
                for claim, delivery in zip(claims, deliveries, strict=True)
                if claim.is_claimed or (claim.decision.action is Action.SEND and not protocol.is_known(claim, delivery))
            ]
        )
        return deliveries

    def file_entries(self, name: str) -> list[LedgerEntry]:
        """Return the rows about a file that count for this destination, oldest first."""
        return of_destination(self._table.entries([name]).get(name, ()), self._destination)

    def senders_of_file(self, name: str) -> list[Claimant]:
        """Return the other runs that may be sending a file right now."""
        return competing_claims(self.file_entries(name), self._me, self._policy, self._now())

    def record_file(self, file: FileRecord, status: str, detail: str = "") -> dt.datetime:
        """Record how far a file has come; return the row's time.

        :param detail: why.
        """
        entries = self.file_entries(file.name)
        at = later_timestamp(entries[-1].recorded_at if entries else None, self._now())
        self._table.insert(
            [file_row(file, status, at, destination=self._destination, claimant=self._me, detail=detail)]
        )
        return at

    def check_file_is_mine(self, file: FileRecord, since: dt.datetime) -> None:
        """Refuse to go on with a file that another process has taken over, or goes on with itself, since then.

        A run that only claims the file takes nothing away: of those that claim its events, one alone gets them. A later
        try of this task instance does, and an earlier one gives way itself.

        :raises SupersededError: naming the other run.
        """
        claimed: set[Claimant] = set()
        for entry in self.file_entries(file.name):
            who = entry.claimant
            if entry.delivery_status == SENDING and not self._me.is_earlier_try_of(who):
                claimed.add(who)
            is_own_claim = entry.delivery_status in {SENDING, UNPUBLISHED} and who in claimed
            is_mine = who == self._me or who.is_earlier_try_of(self._me)
            if entry.recorded_at > since and not (is_mine or is_own_claim):
                raise SupersededError(f"run {who.run_id} has taken over the file {file.name}; this one stops")

    def record_found(
        self, found: Sequence[tuple[UsageplaceEvent, Decision]], status: str, file: FileRecord, detail: str
    ) -> None:
        """Record what was found out about events of a file, with the content that is in it.

        The row comes right after the newest one that was read: it is no answer to what another run sends meanwhile.

        :param found: each event, and the decision that names the file.
        :param detail: what was found out.
        """
        self._table.insert(
            [
                event_row(
                    event,
                    status,
                    decision.newest.recorded_at + TICK if decision.newest else self._now(),
                    destination=self._destination,
                    payload_hash=decision.sent_hash or ContentDigest(event, self._destination).text,
                    claimant=self._me,
                    detail=f"{file}; {detail}",
                )
                for event, decision in found
            ]
        )

    def left_files(self) -> list[tuple[FileRecord, list[LedgerEntry]]]:
        """Return the files of this task that no run has recorded as delivered or closed, and the rows about each."""
        names = names_of_left_files(self._table, self._destination, self._me)
        read = self._table.entries(names)
        left = []
        for name in names:
            entries = of_destination(read[name], self._destination)
            files = (FileRecord.parse(entry.detail or "") for entry in entries)
            left += [(file, entries) for file in files if file is not None][:1]
        return left

    def record_unread(self, file: FileRecord, status: str, detail: str) -> int:
        """Record what was found out about a file for the events in it that are open still: no row of this run has them.

        :param detail: what was found out.
        :return: the number of these events.
        """
        senders = {entry.claimant for entry in self.file_entries(file.name) if entry.delivery_status in IN_PROGRESS}
        count = 0
        for page in events_in(self._table, self._destination, file, senders):
            about = {each["event_id"]: each for each in page}
            for event_ids in batches(about):
                rows = []
                read = self._table.entries(event_ids)
                for event_id in event_ids:
                    entries = of_destination(read[event_id], self._destination)
                    unresolved = last_unresolved(entries)
                    if unresolved is None or file_of(entries) != file or entries[-1].delivery_status == status:
                        continue
                    rows.append(
                        unread_row(
                            about[event_id],
                            status,
                            entries[-1].recorded_at + TICK,
                            destination=self._destination,
                            payload_hash=unresolved.payload_hash,
                            claimant=self._me,
                            detail=f"{file}; {detail}",
                        )
                    )
                self._table.insert(rows)
                count += len(rows)
        return count

    def record_invalid(self, errors: Iterable[InvalidRowError]) -> None:
        """Record rows that never became an event, but for those whose id Ropo One has, or may have."""
        for batch in batches(error for error in errors if error.event_id):
            now = self._now()
            read = self._table.entries([str(error.event_id) for error in batch])
            rows = []
            for error in batch:
                entries = of_destination(read.get(str(error.event_id), ()), self._destination)
                newest = entries[-1] if entries else None
                is_settled = latest(entries, DeliveryStatus.DELIVERED) is not None or (
                    newest is not None and _stays_closed(newest, error)
                )
                if not is_settled and last_unresolved(entries) is None and not _says(newest, error):
                    at = later_timestamp(newest.recorded_at if newest else None, now)
                    rows.append(invalid_row(error, at, destination=self._destination, claimant=self._me))
            self._table.insert(rows)

    def deliveries_of_invalid(self, errors: Sequence[InvalidRowError]) -> list[Delivery]:
        """Return the delivery of each row that never became an event; nothing is written.

        :return: in order, *invalid*; or *closed*, where a person has closed it and it is invalid for the same reason.
        """
        read = self._table.entries([error.event_id for error in errors if error.event_id])
        deliveries = []
        for error in errors:
            entries = of_destination(read.get(error.event_id or "", ()), self._destination)
            delivery = Delivery.of_invalid_row(error)
            if entries and _is_closed(entries[-1], error):
                delivery = replace(delivery, status=DeliveryStatus.CLOSED, detail=entries[-1].detail or "")
            deliveries.append(delivery)
        return deliveries

    def _protocol(self) -> ClaimProtocol:
        if self._started is None:
            since = self._now()
            self._started = since, ClaimProtocol(self._destination, self._me, self._policy, since)
        return self._started[1]

    def _read(self, asked: Round) -> Snapshot:
        since = self._started[0] if self._started else self._now()
        later_try = None if self._superseded else (self._me, since)
        return self._table.read(asked.event_ids, asked.places, self._destination, later_try)


def _unsent(claim: PendingClaim, detail: str) -> Delivery:
    decision = claim.decision
    if decision.action is not Action.SEND:
        return end_of(claim.event, STATUS_OF_ACTION[decision.action], decision.detail)
    # What may have arrived before still may.
    status = DeliveryStatus.UNCONFIRMED if decision.unconfirmed else DeliveryStatus.UNDELIVERED
    return end_of(claim.event, status, detail)


def _says(newest: LedgerEntry | None, error: InvalidRowError) -> bool:
    return newest is not None and newest.delivery_status == DeliveryStatus.INVALID and newest.detail == str(error)


def _is_closed(newest: LedgerEntry, error: InvalidRowError) -> bool:
    """Tell whether a person has closed an invalid row; a row without a digest stands for any reason."""
    is_same = not newest.payload_hash or newest.payload_hash == _digest(error)
    return newest.delivery_status == DeliveryStatus.CLOSED and is_same


def _stays_closed(newest: LedgerEntry, error: InvalidRowError) -> bool:
    """Tell whether an invalid row leaves its event closed; not if it was closed as invalid for another reason."""
    is_other_reason = is_of_invalid(newest.payload_hash) and newest.payload_hash != _digest(error)
    return newest.delivery_status == DeliveryStatus.CLOSED and not is_other_reason


def _digest(error: InvalidRowError) -> str:
    return invalid_digest(str(error)[:LONGEST_DETAIL], error.event_id or "")


def _log_unconfirmed(claims: Sequence[PendingClaim]) -> None:
    event_ids = [claim.event.id for claim in claims if claim.decision.unconfirmed]
    if event_ids:
        log.warning(
            "%d events may have arrived already and are sent again with the same id: %s",
            len(event_ids),
            first_of(event_ids),
        )
