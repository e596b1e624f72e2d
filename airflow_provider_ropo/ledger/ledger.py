"""The memory in the warehouse: an append-only table of what became of every event.

*Sending* is committed before an event's first attempt, what became of it after; an event's state is its newest row.

Two runs over the same events keep out of each other's way without a lock that a dead worker could leave behind. A run
inserts its claim (*sending*), commits, and only then reads what others have written. Of any two runs the one that
committed later sees the other, so they never both find themselves alone; and only who is alone, and finds nothing
delivered that was not before, sends.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_ropo.delivery import NAMED, Delivery, DeliveryStatus
from airflow_provider_ropo.errors import InvalidRowError, SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import (
    STATUS_OF_ACTION,
    Action,
    Decision,
    LedgerPolicy,
    competing_claims,
    decide,
    last_unresolved,
    live_earlier_tries,
)
from airflow_provider_ropo.ledger.entries import (
    SENDING,
    TICK,
    Claimant,
    LedgerEntry,
    invalid_row_of,
    later_timestamp,
    payload_hash,
    row_of,
    stale_detail,
)
from airflow_provider_ropo.ledger.table import LedgerTable, batches

log = logging.getLogger(__name__)

#: Seconds between two looks at who else claims an event.
POLL_INTERVAL = 0.05
#: Naps, once a run, in which an earlier try of the task instance, should it still be at work, can notice that it is
#: superseded, and write what became of its events.
EARLIER_TRY_POLLS = 20
#: Naps in which the first of several runs that claimed the same event at once waits for the others to withdraw.
CLAIM_RACE_POLLS = 40


def utc_now() -> dt.datetime:
    """Return the time as the ledger writes it: UTC, naive."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)


@dataclass(slots=True)
class _Open:
    """An event that this run has yet to say the end of.

    :param decision: how it stood when it was looked up.
    :param at: when that was; or the time of its claim.
    :param stale: a later event of its place had been delivered before.
    """

    decision: Decision
    at: dt.datetime
    claimed: bool = False
    stale: str = ""


class DeliveryLedger:
    """Reads and writes the ledger, on one thread.

    :param table: where it is kept.
    :param me: who writes.
    :param policy: what the user wants.
    :param now: the time, in UTC, naive.
    :raises RopoLedgerError: from every method, if the database fails; nothing may be posted then.
    """

    def __init__(
        self,
        table: LedgerTable,
        me: Claimant,
        policy: LedgerPolicy,
        *,
        now: Callable[[], dt.datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = table
        self._me = me
        self._policy = policy
        self._now = now
        self._sleep = sleep
        self._since = now()
        self._superseded = False
        self._grace_is_over = False
        self._open: dict[str, _Open] = {}
        self._holds_until = math.inf
        #: Events sent although a later one of their usage place had been delivered before.
        self.stale = 0

    def exists(self) -> bool:
        """Is there a table already?"""
        return self._table.exists()

    def prepare(self) -> None:
        """Make the table if it is missing."""
        self._table.create_or_upgrade()

    def close(self) -> None:
        """Let the database go."""
        self._table.close()

    def peek(self, events: Sequence[UsageplaceEvent]) -> list[Decision]:
        """Say how each event stands.

        :raises SupersededError: if a later try of the same task instance is at work.
        """
        now = self._now()
        entries = self._table.entries([event.id for event in events])
        return [self._decide(event, entries[event.id], now) for event in events]

    def look_up(self, events: Sequence[UsageplaceEvent]) -> list[Decision]:
        """Say how each event stands, before those that are to be sent are claimed.

        :raises SupersededError: if a later try of the same task instance is at work.
        """
        now = self._now()
        # Rows of a claim carry the look-up's time, so others count from here.
        self._holds_until = time.monotonic() + self._policy.claim_timeout
        decisions = self.peek(events)
        for event, decision in zip(events, decisions, strict=True):
            if decision.action is Action.SEND or decision.action is Action.UNCONFIRMED:
                self._open[event.id] = _Open(decision, later_timestamp(decision.newest, now))
            else:
                self._open.pop(event.id, None)
        return decisions

    def claim(self, events: Sequence[tuple[UsageplaceEvent, Decision]]) -> list[Decision]:
        """Write *sending* for events that are to be sent, and say which of them this run may send now.

        :param events: with their decision, as :meth:`look_up` gave it.
        :raises SupersededError: if a later try of the same task instance is at work.
        """
        self._stop_if_superseded()
        later = self._table.latest_deliveries({event.usageplacecode for event, _ in events})
        rows = []
        for event, before in events:
            # Its time is that of the look-up: what another run did with the event since then comes after it.
            at, stale = self._open[event.id].at, stale_detail(event, later)
            if before.unconfirmed:
                rows.append(row_of(event, self._me, DeliveryStatus.UNCONFIRMED, at, detail=before.detail))
                at += TICK
            rows.append(row_of(event, self._me, SENDING, at, detail=stale))
            self._open[event.id] = _Open(before, at, claimed=True, stale=stale)
        self._table.insert(rows)
        resolved = self._resolve([event for event, _ in events])
        to_send = [event.id for event, _ in events if resolved[event.id].action is Action.SEND]
        self._reassert([event for event, _ in events if event.id in to_send], resolved)
        self.stale += sum(bool(self._open[event_id].stale) for event_id in to_send)
        _log_unconfirmed([event_id for event_id in to_send if resolved[event_id].unconfirmed])
        return [replace(resolved[event.id], holds_until=self._holds_until) for event, _ in events]

    def record(self, deliveries: Iterable[tuple[UsageplaceEvent, Delivery]]) -> None:
        """Write what became of events that were looked up; nothing is written twice.

        :raises SupersededError: once, and after writing, if a later try of the same task instance is at work.
        """
        rows = []
        for event, delivery in deliveries:
            if (known := self._open.get(event.id)) is None:
                continue
            # What was not claimed may by now be another run's: what that one writes is to come after this.
            at = later_timestamp(known.at, self._now()) if known.claimed else known.at
            detail = "; ".join(filter(None, (delivery.detail, known.stale)))
            row = row_of(event, self._me, delivery.status, at, detail=detail)
            rows.append(row | {"http_status": delivery.http_status, "attempts": delivery.attempts})
        self._insert_closing_rows(rows)
        if not self._superseded:
            self._stop_if_superseded()

    def record_invalid(self, errors: Iterable[InvalidRowError]) -> None:
        """Write down rows that never became an event, but for those whose id Ropo One has, or may have."""
        for batch in batches(error for error in errors if error.event_id):
            entries = self._table.entries([str(error.event_id) for error in batch])
            rows = []
            for error in batch:
                about = entries[str(error.event_id)]
                delivered = any(entry.delivery_status == DeliveryStatus.DELIVERED for entry in about)
                if not delivered and last_unresolved(about) is None:
                    at = later_timestamp(max((entry.recorded_at for entry in about), default=None), self._now())
                    rows.append(invalid_row_of(error, self._me, at))
            self._table.insert(rows)

    def _decide(self, event: UsageplaceEvent, entries: Sequence[LedgerEntry], now: dt.datetime) -> Decision:
        return decide(entries, payload_hash(event), self._me, self._policy, now, self._since)

    def _stop_if_superseded(self) -> None:
        if self._table.has_later_try(self._me, self._since):
            self._superseded = True
            raise SupersededError("a later try of this task instance is at work; this one stops")

    def _resolve(self, events: Sequence[UsageplaceEvent]) -> dict[str, Decision]:
        """Read what others have written, now that all can see this claim; give way where it is not alone."""
        resolved: dict[str, Decision] = {}
        polls = 0
        while undecided := [event for event in events if event.id not in resolved]:
            entries = self._table.entries([event.id for event in undecided])
            now = self._now()
            for event in undecided:
                decision = self._resolve_one(event, entries[event.id], now, polls)
                if decision is not None:
                    resolved[event.id] = decision
            self._release([(event, resolved[event.id]) for event in undecided if event.id in resolved])
            if len(resolved) < len(events):
                polls += 1
                self._sleep(POLL_INTERVAL)
        self._grace_is_over = self._grace_is_over or polls >= EARLIER_TRY_POLLS
        return resolved

    def _resolve_one(
        self, event: UsageplaceEvent, entries: Sequence[LedgerEntry], now: dt.datetime, polls: int
    ) -> Decision | None:
        """Judge a claimed event by what others have written, or return None if that may soon change."""
        before = self._open[event.id].decision
        # A claim does not stand in its own way.
        others = [entry for entry in entries if entry.claimant != self._me]
        decision = self._decide(event, others, now)
        if decision.action is Action.CLAIMED_ELSEWHERE:
            wait = polls < CLAIM_RACE_POLLS and self._me < min(competing_claims(others, self._me, self._policy, now))
        else:
            grace = polls < EARLIER_TRY_POLLS and not self._grace_is_over and decision.action is Action.SEND
            wait = grace and bool(live_earlier_tries(others, self._me, self._policy, now))
        return None if wait else replace(decision, unconfirmed=decision.unconfirmed or before.unconfirmed)

    def _reassert(self, events: Sequence[UsageplaceEvent], resolved: dict[str, Decision]) -> None:
        """Write *sending* once more for what had an end elsewhere after the look-up: it is sent after that."""
        rows = []
        for event in events:
            known, newest = self._open[event.id], resolved[event.id].newest
            if newest is not None and newest > known.at:
                known.at = later_timestamp(newest, self._now())
                rows.append(row_of(event, self._me, SENDING, known.at, detail=known.stale))
        self._table.insert(rows)

    def _release(self, events: Sequence[tuple[UsageplaceEvent, Decision]]) -> None:
        """Write that this run does not send what it claimed; what may have arrived before still may have."""
        rows = []
        for event, decision in events:
            if decision.action is not Action.SEND:
                elsewhere = decision.action is Action.CLAIMED_ELSEWHERE
                lost = elsewhere and self._open[event.id].decision.unconfirmed
                status = DeliveryStatus.UNCONFIRMED if lost else STATUS_OF_ACTION[decision.action]
                # Right after the claim: what becomes of the event elsewhere is to come after this.
                at = self._open[event.id].at + TICK
                rows.append(row_of(event, self._me, status, at, detail=decision.detail))
        self._insert_closing_rows(rows)

    def _insert_closing_rows(self, rows: Sequence[dict[str, Any]]) -> None:
        self._table.insert(rows)
        for row in rows:
            self._open.pop(row["event_id"], None)


def _log_unconfirmed(event_ids: list[str]) -> None:
    if event_ids:
        shown = ", ".join(event_ids[:NAMED]) + (", …" if len(event_ids) > NAMED else "")
        log.warning("%d events may have arrived already and are sent again with the same id: %s", len(event_ids), shown)
