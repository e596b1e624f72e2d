"""How an event stands, by what the ledger knows of it: pure decisions, no database.

Every run writes *sending* before an event's first attempt and what became of it after. A run is told from others by
its :class:`Claimant`; of each claimant, only the newest row about an event counts.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import SupersededError
from airflow_provider_ropo.ledger.entries import SENDING, Claimant, LedgerEntry, changed_fields

Redeliver = Literal["never", "changed", "always"]
OnUnconfirmed = Literal["resend", "hold"]

NEVER = dt.datetime(1, 1, 1)  # noqa: DTZ001 - the ledger's times are naive


class Action(StrEnum):
    """What to do with an event."""

    SEND = "send"
    #: Ropo One has it, with this content.
    ALREADY_DELIVERED = "already_delivered"
    #: Ropo One has it, with another content.
    CONTENT_CHANGED = "changed"
    #: Another run is sending it.
    CLAIMED_ELSEWHERE = "elsewhere"
    #: It may have arrived, and the user wants it held then.
    UNCONFIRMED = "unconfirmed"


#: What an event that is not sent is counted as.
STATUS_OF_ACTION = {
    Action.ALREADY_DELIVERED: DeliveryStatus.ALREADY_DELIVERED,
    Action.CONTENT_CHANGED: DeliveryStatus.INVALID,
    Action.CLAIMED_ELSEWHERE: DeliveryStatus.HELD,
    Action.UNCONFIRMED: DeliveryStatus.UNCONFIRMED,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """How an event stands.

    :param action: what to do with it.
    :param unconfirmed: an earlier attempt may have arrived.
    :param detail: why, fit for a log.
    :param newest: the time of the newest row about it, if any.
    :param holds_until: the reading of ``time.monotonic`` until which this run's claim on it is respected.
    """

    action: Action
    unconfirmed: bool = False
    detail: str = ""
    newest: dt.datetime | None = None
    holds_until: float = math.inf


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """What the user wants.

    :param claim_timeout: seconds for which another run's *sending* is respected.
    """

    redeliver: Redeliver = "never"
    on_unconfirmed: OnUnconfirmed = "resend"
    claim_timeout: float = 600.0


def decide(  # noqa: PLR0911 - a decision table, read top down
    entries: Sequence[LedgerEntry],
    payload_hash: str,
    me: Claimant,
    policy: LedgerPolicy,
    now: dt.datetime,
    since: dt.datetime = NEVER,
) -> Decision:
    """Say how an event stands.

    :param entries: the ledger's rows about it.
    :param payload_hash: the digest of what would be sent now.
    :param now: UTC, naive.
    :param since: when this try started. A later try that wrote before that belongs to a DAG run that was deleted.
    :raises SupersededError: if a later try of the same task instance has written about it.
    """
    if not entries:
        return Decision(Action.SEND)
    entries = sorted(entries, key=lambda entry: entry.recorded_at)
    newest = entries[-1].recorded_at
    if any(_supersedes(entry, me, since) for entry in entries):
        raise SupersededError("a later try of this task instance is at work; this one stops")
    delivered = next((entry for entry in reversed(entries) if entry.delivery_status == DeliveryStatus.DELIVERED), None)
    if delivered is not None and policy.redeliver != "always":
        if delivered.payload_hash == payload_hash:
            return Decision(Action.ALREADY_DELIVERED, newest=newest)
        if policy.redeliver == "never":
            return _changed(delivered, payload_hash, newest)
    others = competing_claims(entries, me, policy, now)
    if others:
        return Decision(Action.CLAIMED_ELSEWHERE, detail=f"run {others[0].run_id} is sending it", newest=newest)
    lost = last_unresolved(entries)
    if lost is None:
        return Decision(Action.SEND, newest=newest)
    if lost.payload_hash != payload_hash and policy.redeliver == "never":
        return _changed(lost, payload_hash, newest)
    detail = f"may have arrived already, from run {lost.claimant.run_id}, try {lost.claimant.try_number}"
    action = Action.UNCONFIRMED if policy.on_unconfirmed == "hold" else Action.SEND
    return Decision(action, unconfirmed=True, detail=detail, newest=newest)


def competing_claims(
    entries: Sequence[LedgerEntry], me: Claimant, policy: LedgerPolicy, now: dt.datetime
) -> list[Claimant]:
    """Return the other task instances that may be sending the event right now: by their newest rows, oldest first."""
    newest = {entry.claimant[:4]: entry for entry in entries if not entry.claimant.is_same_task(me)}
    return [entry.claimant for entry in newest.values() if _is_live(entry, policy, now)]


def live_earlier_tries(
    entries: Sequence[LedgerEntry], me: Claimant, policy: LedgerPolicy, now: dt.datetime
) -> list[Claimant]:
    """Return the other tries of this task instance that may be sending the event right now."""
    newest = {entry.claimant: entry for entry in entries if entry.claimant.is_same_task(me)}
    return [claimant for claimant, entry in newest.items() if claimant != me and _is_live(entry, policy, now)]


def _is_live(entry: LedgerEntry, policy: LedgerPolicy, now: dt.datetime) -> bool:
    return entry.delivery_status == SENDING and (now - entry.recorded_at).total_seconds() < policy.claim_timeout


def last_unresolved(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the newest row after which the event may have arrived, unless Ropo One has answered since.

    A *sending* is ended by its claimant's next row; an *unconfirmed* by nothing but an answer.
    """
    answers = {DeliveryStatus.DELIVERED.value, DeliveryStatus.REJECTED.value}
    answered = max((entry.recorded_at for entry in entries if entry.delivery_status in answers), default=NEVER)
    open_ends = [entry for entry in entries if entry.delivery_status == DeliveryStatus.UNCONFIRMED]
    latest = {entry.claimant: entry for entry in sorted(entries, key=lambda entry: entry.recorded_at)}
    open_ends += [entry for entry in latest.values() if entry.delivery_status == SENDING]
    lost = [entry for entry in open_ends if entry.recorded_at > answered]
    return max(lost, key=lambda entry: entry.recorded_at, default=None)


def _supersedes(entry: LedgerEntry, me: Claimant, since: dt.datetime) -> bool:
    other = entry.claimant
    return other.is_same_task(me) and other.try_number > me.try_number and entry.recorded_at > since


def _changed(sent: LedgerEntry, payload_hash: str, newest: dt.datetime) -> Decision:
    names = ", ".join(changed_fields(sent.payload_hash, payload_hash)) or "its content"
    return Decision(
        Action.CONTENT_CHANGED,
        detail=f"differs from what was sent with this id before: {names}; redeliver='changed' would send it again",
        newest=newest,
    )
