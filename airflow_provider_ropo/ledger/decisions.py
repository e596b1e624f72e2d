"""What to do with an event, by the ledger's rows about it: pure decisions, no database.

Every run writes *sending* before an event's first attempt and its delivery status after. A run is told from others by
its :class:`Claimant`; of each claimant, only the newest row about an event counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import RopoConfigurationError, SupersededError
from airflow_provider_ropo.ledger.digest import ContentDigest
from airflow_provider_ropo.ledger.entries import (
    IN_PROGRESS,
    KNOWN_STATUSES,
    NEVER,
    SENDING,
    UNPUBLISHED,
    Claimant,
    LedgerEntry,
)
from airflow_provider_ropo.ledger.files import FileRecord

Redeliver = Literal["never", "changed", "always"]
OnUnconfirmed = Literal["resend", "hold"]


class Action(StrEnum):
    """What to do with an event."""

    SEND = "send"
    #: Ropo One has it, with this content.
    ALREADY_DELIVERED = "already_delivered"
    #: Ropo One has it, with another content.
    CONTENT_CHANGED = "content_changed"
    #: Another run is sending it.
    CLAIMED_ELSEWHERE = "claimed_elsewhere"
    #: It may have arrived, and the user wants it held then.
    UNCONFIRMED = "unconfirmed"
    #: It was not to be sent when the run was checked, before its first post.
    WITHHELD = "withheld"
    #: A person has closed it.
    CLOSED = "closed"
    #: A row about it makes no sense.
    UNREADABLE = "unreadable"


#: The delivery status of an event that is not sent.
STATUS_OF_ACTION = {
    Action.ALREADY_DELIVERED: DeliveryStatus.ALREADY_DELIVERED,
    Action.CONTENT_CHANGED: DeliveryStatus.CHANGED,
    Action.CLAIMED_ELSEWHERE: DeliveryStatus.HELD,
    Action.WITHHELD: DeliveryStatus.HELD,
    Action.UNCONFIRMED: DeliveryStatus.UNCONFIRMED,
    Action.CLOSED: DeliveryStatus.CLOSED,
    Action.UNREADABLE: DeliveryStatus.INVALID,
}


#: Ropo One's answers, a person's, and what a later run found out about a file. A person's *undelivered* is one, too; a
#: run's is not.
_ANSWERS = frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.REJECTED, DeliveryStatus.CLOSED, UNPUBLISHED})


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with an event, and why.

    :param unconfirmed: an earlier attempt may have arrived.
    :param detail: why, fit for a log.
    :param newest: the newest row about it, if any.
    :param file: the file in which it may have arrived, if it was sent in one.
    :param sent_hash: the digest of its content there.
    """

    action: Action
    unconfirmed: bool = False
    detail: str = ""
    newest: LedgerEntry | None = None
    file: FileRecord | None = None
    sent_hash: str | None = None


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """What the user wants of the ledger.

    :param redeliver: which delivered events are sent again.
    :param on_unconfirmed: whether an event that may have arrived is sent again.
    :param claim_timeout: seconds for which another run's *sending* is respected.
    :raises RopoConfigurationError: naming the parameter that makes no sense.
    """

    redeliver: Redeliver = "never"
    on_unconfirmed: OnUnconfirmed = "resend"
    claim_timeout: float = 600.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name, choices in (("redeliver", ("never", "changed", "always")), ("on_unconfirmed", ("resend", "hold"))):
            if getattr(self, name) not in choices:
                raise RopoConfigurationError(f"`{name}` must be one of {', '.join(choices)}")
        timeout = self.claim_timeout
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0:
            raise RopoConfigurationError("`claim_timeout` must be more than 0 seconds")


def of_destination(entries: Sequence[LedgerEntry], destination: str) -> list[LedgerEntry]:
    """Return the rows about an event that count for a destination, oldest first.

    A row without a destination (of an earlier version, or written by hand) counts for any, until a later *delivered* or
    *closed* row has one: never to send twice is the safe side.
    """
    entries = sorted(entries, key=lambda entry: entry.recorded_at)
    settled = {DeliveryStatus.DELIVERED, DeliveryStatus.CLOSED}
    named = [entry.recorded_at for entry in entries if entry.destination and entry.delivery_status in settled]
    since = max(named, default=NEVER)
    return [
        entry
        for entry in entries
        if entry.destination == destination or (not entry.destination and entry.recorded_at >= since)
    ]


def decide(  # noqa: C901, PLR0911 - a decision table, read top down
    entries: Sequence[LedgerEntry],
    content: ContentDigest,
    me: Claimant,
    policy: LedgerPolicy,
    now: dt.datetime,
    since: dt.datetime = NEVER,
) -> Decision:
    """Return what to do with an event.

    :param entries: the ledger's rows about it for one destination, oldest first.
    :param content: what would be sent now.
    :param now: the database's time, UTC, naive.
    :param since: when this try started. A later try that wrote before that belongs to a DAG run that was deleted.
    :raises SupersededError: if a later try of the same task instance has written about it.
    """
    if not entries:
        return Decision(Action.SEND)
    newest = entries[-1]
    if any(me.is_earlier_try_of(entry.claimant) and entry.recorded_at > since for entry in entries):
        raise SupersededError("a later try of this task instance is running; this one stops")
    for entry in entries:
        if entry.delivery_status not in KNOWN_STATUSES:
            return Decision(Action.UNREADABLE, detail=unreadable(entry), newest=newest)
    if policy.redeliver != "always":
        delivered = latest(entries, DeliveryStatus.DELIVERED)
        if delivered is not None and content.matches(delivered.payload_hash):
            return Decision(Action.ALREADY_DELIVERED, newest=newest)
        # Before what has changed: that, too, can be closed.
        if newest.delivery_status == DeliveryStatus.CLOSED and content.matches(newest.payload_hash):
            return Decision(Action.CLOSED, detail=newest.detail or "", newest=newest)
        if delivered is not None and policy.redeliver == "never":
            return _changed(content, delivered, newest)
    others = competing_claims(entries, me, policy, now)
    if others:
        return Decision(Action.CLAIMED_ELSEWHERE, detail=f"run {others[0].run_id} is sending it", newest=newest)
    unresolved = last_unresolved(entries)
    if unresolved is None:
        return Decision(Action.SEND, newest=newest)
    file = file_of(entries)
    sent_hash = unresolved.payload_hash if file is not None else None
    if policy.redeliver == "never" and not content.matches(unresolved.payload_hash):
        return replace(_changed(content, unresolved, newest), file=file, sent_hash=sent_hash)
    who = unresolved.claimant
    detail = f"may have arrived already, from run {who.run_id}, try {who.try_number}"
    action = Action.UNCONFIRMED if policy.on_unconfirmed == "hold" else Action.SEND
    return Decision(action, unconfirmed=True, detail=detail, newest=newest, file=file, sent_hash=sent_hash)


def withheld(decision: Decision) -> Decision:
    """Return what to do with an event that is not to be sent by this run, whatever the ledger has about it by now."""
    if decision.action is not Action.SEND:
        return decision
    detail = "it was not to be sent when `max_events` and `approved` were checked; a later try or run sends it"
    # What may have arrived before still may.
    action = Action.UNCONFIRMED if decision.unconfirmed else Action.WITHHELD
    return replace(decision, action=action, detail="; ".join(filter(None, (decision.detail, detail))))


def competing_claims(
    entries: Sequence[LedgerEntry], me: Claimant, policy: LedgerPolicy, now: dt.datetime
) -> list[Claimant]:
    """Return the others that may be sending the event right now, by their newest rows, the oldest first.

    Earlier tries of this task instance are not among them: this try takes over from them.
    """
    newest = {entry.claimant: entry for entry in entries}
    return [
        claimant
        for claimant, entry in newest.items()
        if claimant != me
        and not claimant.is_earlier_try_of(me)
        and _is_live(entry, policy, now)
        # A later try of its task instance has taken over from it.
        and not any(
            claimant.is_earlier_try_of(other) and later.recorded_at > entry.recorded_at
            for other, later in newest.items()
        )
    ]


def live_earlier_tries(
    entries: Sequence[LedgerEntry], me: Claimant, policy: LedgerPolicy, now: dt.datetime
) -> list[Claimant]:
    """Return the earlier tries of this task instance that may be sending the event right now."""
    newest = {entry.claimant: entry for entry in entries if entry.claimant.is_earlier_try_of(me)}
    return [claimant for claimant, entry in newest.items() if _is_live(entry, policy, now)]


def _is_live(entry: LedgerEntry, policy: LedgerPolicy, now: dt.datetime) -> bool:
    return entry.delivery_status in IN_PROGRESS and (now - entry.recorded_at).total_seconds() < policy.claim_timeout


def last_unresolved(entries: Sequence[LedgerEntry]) -> LedgerEntry | None:
    """Return the newest row after which the event may have arrived, unless Ropo One or a person has answered since.

    A *sending* is ended by its claimant's next row; an *unconfirmed* by nothing but an answer. A person's
    *undelivered* is an answer: it did not arrive. A run's *undelivered* is none: it means only that this run has not
    sent the event. The two are told apart by the claimant (:attr:`Claimant.is_person`).

    :param entries: oldest first.
    """
    latest_of = {entry.claimant: entry for entry in entries}
    unresolved = None
    for entry in entries:
        is_open = entry.delivery_status == DeliveryStatus.UNCONFIRMED or (
            entry.delivery_status in IN_PROGRESS and latest_of[entry.claimant] is entry
        )
        if is_open and not _is_answered(entry, entries):
            unresolved = entry
    return unresolved


def file_of(entries: Sequence[LedgerEntry]) -> FileRecord | None:
    """Return the file of the newest attempt in a file that is not answered; None: there is none.

    :param entries: oldest first.
    """
    for entry in reversed(entries):
        if entry.delivery_status in {SENDING, DeliveryStatus.UNCONFIRMED} and not _is_answered(entry, entries):
            file = FileRecord.parse(entry.detail or "")
            if file is not None:
                return file
    return None


def _is_answered(unresolved: LedgerEntry, entries: Sequence[LedgerEntry]) -> bool:
    """Tell whether an answer has come to what was sent then, or to what was sent again after it.

    The answer to an attempt that is older than the one in question, and was recorded later, means nothing for it.
    """
    asked: dict[Claimant, dt.datetime] = {}
    for entry in entries:
        if entry.delivery_status == SENDING:
            asked[entry.claimant] = entry.recorded_at
        elif _is_answer(entry) and entry.recorded_at > unresolved.recorded_at:
            is_own = entry.claimant == unresolved.claimant
            if is_own or asked.get(entry.claimant, entry.recorded_at) > unresolved.recorded_at:
                return True
    return False


def _is_answer(entry: LedgerEntry) -> bool:
    return entry.delivery_status in _ANSWERS or (
        entry.delivery_status == DeliveryStatus.UNDELIVERED and entry.claimant.is_person
    )


def latest(entries: Sequence[LedgerEntry], status: str) -> LedgerEntry | None:
    """Return the newest row with a delivery status.

    :param entries: oldest first.
    """
    return next((entry for entry in reversed(entries) if entry.delivery_status == status), None)


def _changed(content: ContentDigest, sent: LedgerEntry, newest: LedgerEntry) -> Decision:
    names = ", ".join(content.differing_fields(sent.payload_hash or "")) or "content"
    detail = f"its {names} differ from what was sent with this id before; redeliver='changed' would send it again"
    return Decision(Action.CONTENT_CHANGED, detail=detail, newest=newest)


def unreadable(entry: LedgerEntry) -> str:
    """Return what is wrong with a row whose delivery status makes no sense, and what to do."""
    return (
        f"its ledger row of {entry.recorded_at} has the delivery_status {entry.delivery_status!r}, which is none of "
        f"{', '.join(sorted(KNOWN_STATUSES))}; correct that row"
    )
