"""The ledger's protocol: what a run writes after what it has read. Pure: no database, no clock, no thread.

A run goes through rounds. Each reads once, decides, and writes once:

1. *Look up*: the rows about the next events are read. An event that is to be sent is claimed in the same round: its
   *sending* is written, with the time of the reading.
2. *Verify*: in the next round the rows are read again. Of any two runs that claimed the same event, the one that
   committed later sees the other, so they never both find themselves alone. Only a run that is alone, and finds
   nothing delivered that was not before, sends the event; otherwise it releases the claim.
3. *Record*: the delivery status is written.

No lock is left behind by a dead worker: another run respects its *sending* for ``claim_timeout`` seconds, a later try
of the same task instance takes over at once.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_ropo.delivery import BLOCKING, Delivery, DeliveryStatus
from airflow_provider_ropo.errors import SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import (
    STATUS_OF_ACTION,
    Action,
    Decision,
    LedgerPolicy,
    competing_claims,
    decide,
    live_earlier_tries,
    of_destination,
    withheld,
)
from airflow_provider_ropo.ledger.digest import ContentDigest
from airflow_provider_ropo.ledger.entries import (
    NEVER,
    SENDING,
    TICK,
    UNPUBLISHED,
    Claimant,
    LedgerEntry,
    event_row,
    later_timestamp,
    wall_clock,
)

#: Seconds in which an earlier try of the task instance, should it still be running, can notice that it is superseded
#: and record its results; waited for once a run.
EARLIER_TRY_GRACE = 1.0
#: Seconds in which the first of several runs that claimed the same event at once waits for the others to release it.
CLAIM_RACE_GRACE = 2.0


@dataclass(frozen=True, slots=True)
class PendingClaim:
    """An event on its way through look up, claim and record.

    :param event: the event.
    :param decision: what to do with it, by what was read last.
    :param at: the time of this run's newest row about it, or of the reading.
    :param is_claimed: *sending* is written, and no closing row yet.
    :param claimed_at: the clock's reading just before it was claimed, in seconds.
    :param holds_until: the clock's reading until which other runs respect the claim, in seconds.
    """

    event: UsageplaceEvent
    decision: Decision
    at: dt.datetime = NEVER
    is_claimed: bool = False
    claimed_at: float = 0.0
    holds_until: float = math.inf


@dataclass(frozen=True, slots=True)
class Round:
    """What a run asks of the ledger at a time.

    :param look_ups: events to look up, those of a place in their order, and to claim if they are to be sent.
    :param blocked: events to look up, and not to claim: an earlier one of their place has not arrived.
    :param claim_limit: the number of events to claim, at most.
    :param claims_per_place: of these, for one usage place.
    :param unresolved: claims of the round before, to verify.
    :param results: what is to be recorded.
    :param detail: the detail of the claims' rows: the file that the events are in.
    """

    look_ups: Sequence[UsageplaceEvent] = ()
    blocked: Sequence[UsageplaceEvent] = ()
    claim_limit: int = 0
    claims_per_place: int = 1
    unresolved: Sequence[PendingClaim] = ()
    results: Sequence[tuple[PendingClaim, Delivery]] = ()
    detail: str = ""

    @property
    def event_ids(self) -> list[str]:
        """Return the events whose rows are to be read."""
        return [
            *(event.id for event in self.look_ups),
            *(event.id for event in self.blocked),
            *(claim.event.id for claim in self.unresolved),
        ]

    @property
    def places(self) -> set[str]:
        """Return the usage places whose latest delivered event is to be read."""
        return {claim.event.usageplacecode for claim, delivery in self.results if _is_delivered(delivery)}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read.

    :param entries: event id → all rows about it.
    :param latest_deliveries: usage place → the time of its latest delivered event, as Ropo One was told it.
    :param is_superseded: a later try of this task instance has written.
    """

    entries: Mapping[str, Sequence[LedgerEntry]] = field(default_factory=dict)
    latest_deliveries: Mapping[str, dt.datetime] = field(default_factory=dict)
    is_superseded: bool = False


@dataclass(slots=True)
class Outcome:
    """What came of a round.

    :param ready: claims that may be sent now.
    :param refused: events that are not sent: their decision has the reason; of blocked ones, whatever it is.
    :param postponed: events that were looked up and are to be sent, but later than those claimed.
    :param unresolved: claims to verify in the next round.
    :param stale: the number of results recorded although a later event of their place had been delivered before.
    """

    ready: list[PendingClaim] = field(default_factory=list)
    refused: list[PendingClaim] = field(default_factory=list)
    postponed: list[PendingClaim] = field(default_factory=list)
    unresolved: list[PendingClaim] = field(default_factory=list)
    stale: int = 0

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Refuse claims that could not be written.

        :param reasons: event id → why.
        """
        for claims in (self.ready, self.unresolved):
            for claim in [claim for claim in claims if claim.event.id in reasons]:
                claims.remove(claim)
                decision = Decision(Action.UNREADABLE, detail=reasons[claim.event.id], newest=claim.decision.newest)
                self.refused.append(replace(claim, decision=decision, is_claimed=False))


@dataclass(slots=True)
class Plan:
    """What is to be written, and what came of the round once that is committed."""

    results: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    outcome: Outcome = field(default_factory=Outcome)
    is_superseded: bool = False
    #: The detail of the claims' rows.
    detail: str = ""


class ClaimProtocol:
    """Decides what a run writes.

    :param destination: where the events go; rows about other destinations mean nothing.
    :param me: who writes.
    :param policy: what the user wants.
    :param since: the database's time when this try started.
    """

    def __init__(self, destination: str, me: Claimant, policy: LedgerPolicy, since: dt.datetime) -> None:
        self._destination = destination
        self._me = me
        self._policy = policy
        self._since = since
        self._earlier_try_grace_is_over = False
        self._withheld: set[str] = set()

    def withhold(self, event_id: str) -> None:
        """Do not send an event, whatever others write about it from now on."""
        self._withheld.add(event_id)

    def plan(self, asked: Round, read: Snapshot, now: dt.datetime, clock: float) -> Plan:
        """Return what is to be written after a reading.

        :param now: the database's time just before the reading, UTC, naive.
        :param clock: seconds at that moment, from any start.
        """
        plan = Plan(is_superseded=read.is_superseded, detail=asked.detail)
        for claim, delivery in asked.results:
            self._record(claim, delivery, read.latest_deliveries, now, plan)
        if not plan.is_superseded:
            try:
                self._verify_and_claim(asked, read, now, clock, plan)
            except SupersededError:
                plan.is_superseded = True
        if plan.is_superseded:
            # The results are still true; who asked ends the events that are not sent.
            plan.claims, plan.outcome = [], Outcome(stale=plan.outcome.stale)
        return plan

    def decide(self, event: UsageplaceEvent, entries: Iterable[LedgerEntry], now: dt.datetime) -> Decision:
        """Return what to do with an event.

        :raises SupersededError: if a later try of the same task instance has written about it.
        """
        counted = of_destination(list(entries), self._destination)
        content = ContentDigest(event, self._destination)
        decision = decide(counted, content, self._me, self._policy, now, self._since)
        return withheld(decision) if event.id in self._withheld else decision

    def claim_row(self, event: UsageplaceEvent, at: dt.datetime, detail: str = "") -> dict[str, Any]:
        """Return a row of *sending*.

        :param detail: the file that the event is in, if any.
        """
        return self._row(event, SENDING, at, detail=detail)

    def closing_row(self, claim: PendingClaim, delivery: Delivery, at: dt.datetime, detail: str = "") -> dict[str, Any]:
        """Return the row of an event's delivery status."""
        return self._row(
            claim.event,
            delivery.status,
            at,
            detail="; ".join(filter(None, (delivery.detail, detail))),
            http_status=delivery.http_status,
            attempts=delivery.attempts,
        )

    def is_known(self, claim: PendingClaim, delivery: Delivery) -> bool:
        """Tell whether the newest row about an event that was not claimed has the same status and content."""
        newest = claim.decision.newest
        return (
            newest is not None
            and newest.delivery_status == delivery.status
            and newest.payload_hash == ContentDigest(claim.event, self._destination).text
        )

    def _verify_and_claim(self, asked: Round, read: Snapshot, now: dt.datetime, clock: float, plan: Plan) -> None:
        decisions = {
            event.id: _in_file(self.decide(event, read.entries.get(event.id, ()), now), plan.detail)
            for event in (*asked.look_ups, *asked.blocked)
        }
        for claim in asked.unresolved:
            self._verify(claim, read.entries.get(claim.event.id, ()), now, clock, plan)
        plan.outcome.refused += [looked_up(event, decisions[event.id], now) for event in asked.blocked]
        claimed: Counter[str] = Counter()
        closed: set[str] = set()
        for event in asked.look_ups:
            place, decision = event.usageplacecode, decisions[event.id]
            claim = looked_up(event, decision, now)
            is_full = claimed.total() >= asked.claim_limit or claimed[place] >= asked.claims_per_place
            if place in closed or (decision.action is Action.SEND and is_full):
                # A place's later events are postponed with it: they keep their order.
                closed.add(place)
                plan.outcome.postponed.append(claim)
            elif decision.action is Action.SEND:
                claimed[place] += 1
                plan.outcome.unresolved.append(self._claim(claim, clock, plan))
            else:
                plan.outcome.refused.append(claim)
                if STATUS_OF_ACTION[decision.action] in BLOCKING:
                    closed.add(place)

    def _claim(self, claim: PendingClaim, clock: float, plan: Plan) -> PendingClaim:
        """Write *sending*, with the time of the reading: another run's rows since then come after it."""
        at = claim.at
        if claim.decision.unconfirmed:
            plan.claims.append(self._row(claim.event, DeliveryStatus.UNCONFIRMED, at, detail=claim.decision.detail))
            at += TICK
        plan.claims.append(self.claim_row(claim.event, at, plan.detail))
        holds_until = clock + self._policy.claim_timeout
        return replace(claim, at=at, is_claimed=True, claimed_at=clock, holds_until=holds_until)

    def _verify(
        self, claim: PendingClaim, entries: Sequence[LedgerEntry], now: dt.datetime, clock: float, plan: Plan
    ) -> None:
        """Decide about a claim by what others have written, now that all can see it."""
        # A claim does not stand in its own way; what this process has found out about a file still counts.
        others = [each for each in entries if each.claimant != self._me or each.delivery_status == UNPUBLISHED]
        counted = of_destination(others, self._destination)
        decision = _in_file(self.decide(claim.event, counted, now), plan.detail)
        unconfirmed = decision.unconfirmed or claim.decision.unconfirmed
        verified = replace(claim, decision=replace(decision, unconfirmed=unconfirmed))
        if self._waits(claim, decision, counted, now, clock):
            plan.outcome.unresolved.append(claim)
        elif decision.action is not Action.SEND:
            self._release(claim, decision, plan)
            plan.outcome.refused.append(replace(verified, is_claimed=False))
        else:
            plan.outcome.ready.append(self._reassert(claim, verified, now, plan))

    def _reassert(self, claim: PendingClaim, verified: PendingClaim, now: dt.datetime, plan: Plan) -> PendingClaim:
        """Claim again if the look-up missed rows that matter; return the claim that may be sent."""
        decision = verified.decision
        may_have_arrived = decision.unconfirmed and not claim.decision.unconfirmed
        newest = decision.newest.recorded_at if decision.newest is not None else claim.at
        if newest <= claim.at and not may_have_arrived:
            return verified
        # The event is sent after what ended elsewhere meanwhile, and after the word that it may have arrived there.
        at = later_timestamp(max(newest, claim.at), now)
        if may_have_arrived:
            plan.claims.append(self._row(claim.event, DeliveryStatus.UNCONFIRMED, at, detail=decision.detail))
            at += TICK
        plan.claims.append(self.claim_row(claim.event, at, plan.detail))
        return replace(verified, at=at)

    def _waits(
        self, claim: PendingClaim, decision: Decision, entries: Sequence[LedgerEntry], now: dt.datetime, clock: float
    ) -> bool:
        """Tell whether what others have written may soon change."""
        waited = clock - claim.claimed_at
        if decision.action is Action.CLAIMED_ELSEWHERE:
            others = competing_claims(entries, self._me, self._policy, now)
            return waited < CLAIM_RACE_GRACE and bool(others) and self._me < min(others)
        if decision.action is not Action.SEND or self._earlier_try_grace_is_over:
            return False
        if not live_earlier_tries(entries, self._me, self._policy, now):
            return False
        self._earlier_try_grace_is_over = waited >= EARLIER_TRY_GRACE
        return not self._earlier_try_grace_is_over

    def _release(self, claim: PendingClaim, decision: Decision, plan: Plan) -> None:
        """Write that this run does not send what it claimed; what may have arrived before still may."""
        is_lost = decision.action is Action.CLAIMED_ELSEWHERE and claim.decision.unconfirmed
        status = DeliveryStatus.UNCONFIRMED if is_lost else STATUS_OF_ACTION[decision.action]
        # Right after the claim: what another run writes about the event is to come after this.
        plan.claims.append(self._row(claim.event, status, claim.at + TICK, detail=decision.detail))

    def _record(
        self,
        claim: PendingClaim,
        delivery: Delivery,
        latest_deliveries: Mapping[str, dt.datetime],
        now: dt.datetime,
        plan: Plan,
    ) -> None:
        stale = _stale_detail(claim.event, latest_deliveries) if _is_delivered(delivery) else ""
        plan.outcome.stale += bool(stale)
        if not claim.is_claimed:
            if self.is_known(claim, delivery):
                return
            # By now it may be another run's: what that one writes is to come after this.
            at = claim.at
        elif delivery.attempts:
            at = later_timestamp(claim.at, now)
        else:
            # Nothing was sent: the claim ends right after itself, whenever that is written.
            at = claim.at + TICK
        plan.results.append(self.closing_row(claim, delivery, at, stale))

    def _row(self, event: UsageplaceEvent, status: str, at: dt.datetime, **more: Any) -> dict[str, Any]:
        return event_row(
            event,
            status,
            at,
            destination=self._destination,
            payload_hash=ContentDigest(event, self._destination).text,
            claimant=self._me,
            **more,
        )


def looked_up(event: UsageplaceEvent, decision: Decision, now: dt.datetime) -> PendingClaim:
    """Return an event after its look-up: its next row comes after all that were read.

    :param now: the database's time just before the reading.
    """
    return PendingClaim(event, decision, later_timestamp(decision.newest.recorded_at if decision.newest else None, now))


def _in_file(decision: Decision, detail: str) -> Decision:
    """Return the decision about an event that is to be sent in a file: not if it may have arrived in another one.

    That file is looked for first, at the destination.

    :param detail: the file; empty: the event is sent alone.
    """
    file = decision.file
    if not detail or decision.action is not Action.SEND or file is None or str(file) == detail:
        return decision
    return replace(decision, action=Action.CLAIMED_ELSEWHERE, detail=f"it may have arrived in the {file}")


def _is_delivered(delivery: Delivery) -> bool:
    return delivery.status is DeliveryStatus.DELIVERED


def _stale_detail(event: UsageplaceEvent, latest_deliveries: Mapping[str, dt.datetime]) -> str:
    """Return a remark if a later event of the usage place has been delivered before; else nothing."""
    latest = latest_deliveries.get(event.usageplacecode)
    if latest is None or latest <= wall_clock(event):
        return ""
    return f"stale: an event of {latest} of this usage place had been delivered before"
