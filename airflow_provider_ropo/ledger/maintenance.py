"""What a person does with the ledger: settle events, purge old rows, erase a usage place.

Without Airflow: the commands and the operators call these functions. Every one of them raises a
:class:`RopoConfigurationError` for what makes no sense, before anything is written, and a :class:`RopoLedgerError` if
the database fails.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import sqlalchemy as sa

from airflow_provider_ropo.delivery import NAMED, SUCCESSFUL, DeliveryStatus, first_of, quantity
from airflow_provider_ropo.errors import RopoConfigurationError, RopoLedgerError
from airflow_provider_ropo.ledger.decisions import (
    LedgerPolicy,
    competing_claims,
    last_unresolved,
    latest,
    of_destination,
    unreadable,
)
from airflow_provider_ropo.ledger.digest import invalid_digest, is_of_invalid, without_fields
from airflow_provider_ropo.ledger.entries import (
    KNOWN_STATUSES,
    LONGEST_DETAIL,
    PERSON,
    UNPUBLISHED,
    Claimant,
    LedgerEntry,
    claimant_in,
    later_timestamp,
)
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.states import LookUp, states
from airflow_provider_ropo.ledger.table import LedgerTable, batches

SettleAs = Literal["delivered", "closed", "undelivered"]
SETTLE_AS: tuple[str, ...] = get_args(SettleAs)
#: Events that are settled at a time: their rows are one insert, so that all or none are written.
MAX_SETTLED = 100

#: Days of rows that purging keeps, unless forced: a query may look back, and would find events unknown to the ledger.
MIN_AGE = 90
#: Ids that are read at a time, to be purged in batches.
PAGE = 10_000
_AGE = re.compile(r"([0-9]{1,5})d")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Reviewed:
    """An event that can be settled, and what would be written.

    :param rows: the ledger's rows about it that count for its destination, oldest first.
    :param row: the row that settles it.
    """

    rows: Sequence[Row]
    row: Row

    @property
    def event_id(self) -> str:
        """Return the event's id."""
        return str(self.row["event_id"])


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """A person's decision about some events.

    :param event_ids: the events.
    :param settle_as: ``"delivered"``: Ropo One has it; ``"undelivered"``: Ropo One has it not, the next run that reads
        it sends it; ``"closed"``: it is not sent, and no failure, until its content changes.
    :param reason: why; it is written to the ledger.
    :param who: the person; it is written to the ledger.
    :param destination: where the events went, as the ledger names it; None: where all rows of an event name the same.
    :param claim_timeout: seconds for which a run's *sending* is respected.
    :param task: the try of the task instance that settles, if it is one.
    :raises RopoConfigurationError: naming the parameter that makes no sense.
    """

    event_ids: Sequence[str]
    settle_as: str
    reason: str
    who: str
    destination: str | None = None
    claim_timeout: float = 600.0
    task: Claimant | None = None

    def __post_init__(self) -> None:
        if self.settle_as not in SETTLE_AS:
            raise RopoConfigurationError(f"events are settled as one of {', '.join(SETTLE_AS)}")
        if not self.reason.strip():
            raise RopoConfigurationError("give a reason; it is written to the ledger")
        if not self.event_ids or not all(isinstance(each, str) and each.strip() for each in self.event_ids):
            raise RopoConfigurationError("give the id of one event at least; ids are text")
        if len(set(self.event_ids)) > MAX_SETTLED:
            raise RopoConfigurationError(f"settle {MAX_SETTLED} events at a time, at most")
        # Its message tells what is wrong with the number.
        LedgerPolicy(claim_timeout=self.claim_timeout)


def review(table: LedgerTable, settlement: Settlement) -> list[Reviewed]:
    """Return what would be written for each event; nothing is written.

    :raises RopoConfigurationError: naming every event that cannot be settled like that, and why.
    """
    # The row is written with the time of the reading: what a run writes meanwhile comes after it.
    now = table.database_time()
    # As a row's id is read: without the blanks around it that a form or a paste may leave.
    event_ids = list(dict.fromkeys(each.strip() for each in settlement.event_ids))
    rows_of = _rows_about(table, event_ids)
    reviewed, refused = [], []
    for event_id in event_ids:
        try:
            reviewed.append(_review(event_id, rows_of.get(event_id, []), settlement, now))
        except _RefusedError as reason:
            refused.append(f"{event_id}: {reason}")
    if refused:
        more = [f"… and {len(refused) - NAMED} more"] if len(refused) > NAMED else []
        raise RopoConfigurationError(f"nothing was settled; {'; '.join([*refused[:NAMED], *more])}")
    return reviewed


def settle(table: LedgerTable, settlement: Settlement, confirmed: Sequence[Reviewed] | None = None) -> list[Reviewed]:
    """Write one row for each event, or none at all.

    :param confirmed: what a person has seen and agreed to, if anybody was asked.
    :return: what was written.
    :raises RopoConfigurationError: if an event cannot be settled like that, or not any more.
    """
    reviewed = review(table, settlement)
    if confirmed is not None:
        changed = [new.event_id for old, new in zip(confirmed, reviewed, strict=True) if len(old.rows) != len(new.rows)]
        if changed:
            raise RopoConfigurationError(
                f"nothing was settled; a run has written about {', '.join(changed[:NAMED])} meanwhile: look again"
            )
    refused = table.insert([dict(each.row) for each in reviewed])
    if refused:
        raise RopoLedgerError(
            f"the ledger does not take the rows of {', '.join(refused)}: {next(iter(refused.values()))}"
        )
    return reviewed


class _RefusedError(Exception):
    """An event cannot be settled; the text is the reason."""


def _review(event_id: str, rows: Sequence[Row], settlement: Settlement, now: dt.datetime) -> Reviewed:
    if not rows:
        raise _RefusedError("no row of the ledger is about it; check the id, and whether this is its task's ledger")
    destination = _destination_of(rows, settlement.destination)
    counted = _that_count(rows, destination)
    if not counted:
        raise _RefusedError(f"no row counts for destination {destination!r}")
    entries = [_entry(row) for row in counted]
    me = settlement.task or Claimant("", "", "", -1, 0)
    _refuse_what_is_clear_or_live(entries, me, settlement, now)
    digest = _digest_to_settle(event_id, entries, settlement.settle_as)
    newest = counted[-1]
    detail = f"settled as {settlement.settle_as} by {settlement.who}: {' '.join(settlement.reason.split())}"
    return Reviewed(
        counted,
        {
            **{name: newest[name] for name in ("event_id", "usageplacecode", "event_status", "event_time")},
            "destination": destination,
            "delivery_status": settlement.settle_as,
            "http_status": None,
            "detail": detail[:LONGEST_DETAIL],
            "payload_hash": digest,
            "attempts": 0,
            **me._asdict(),
            "process": PERSON,
            "recorded_at": later_timestamp(newest["recorded_at"], now),
        },
    )


def _destination_of(rows: Sequence[Row], asked: str | None) -> str | None:
    named = sorted({row["destination"] for row in rows if row["destination"]})
    if asked is not None:
        # A row without a destination counts for any.
        if asked not in named and all(row["destination"] for row in rows):
            raise _RefusedError(f"no row is about destination {asked!r}; there are: {', '.join(named)}")
        return asked
    if len(named) > 1:
        raise _RefusedError(f"it has several destinations; choose one of: {', '.join(named)}")
    return named[0] if named else None


def _that_count(rows: Sequence[Row], destination: str | None) -> list[Row]:
    """Return the rows that count for a destination, oldest first."""
    counted = of_destination([_entry(row) for row in rows], destination or "")
    return [row for row in rows if _entry(row) in counted]


def _refuse_what_is_clear_or_live(
    entries: Sequence[LedgerEntry], me: Claimant, settlement: Settlement, now: dt.datetime
) -> None:
    for entry in entries:
        if entry.delivery_status not in KNOWN_STATUSES:
            raise _RefusedError(unreadable(entry))
    live = competing_claims(entries, me, LedgerPolicy(claim_timeout=settlement.claim_timeout), now)
    if live:
        raise _RefusedError(
            f"run {live[0].run_id} is sending it; wait until that run has ended, or if it was killed, until its claim "
            f"is {settlement.claim_timeout:,.0f} s old (claim_timeout)"
        )
    if _is_delivered(entries):
        raise _RefusedError("it is delivered; to send it again, run its task with redeliver='always' for this event")


def _is_delivered(entries: Sequence[LedgerEntry]) -> bool:
    """Tell whether an event is delivered with the content of its newest row."""
    delivered = latest(entries, DeliveryStatus.DELIVERED)
    if delivered is None:
        return False
    content = entries[-1].payload_hash
    return not content or content.startswith(delivered.payload_hash or "")


def _digest_to_settle(event_id: str, entries: Sequence[LedgerEntry], settle_as: str) -> str | None:
    """Return the digest of the content that is settled; None: whatever it is."""
    newest, unresolved = entries[-1], last_unresolved(entries)
    is_invalid = newest.delivery_status == DeliveryStatus.INVALID or is_of_invalid(newest.payload_hash)
    digests = (entry.payload_hash for entry in reversed(entries))
    known = next((digest for digest in digests if digest and not is_of_invalid(digest)), None)
    if settle_as == DeliveryStatus.CLOSED:
        if newest.delivery_status == DeliveryStatus.CLOSED:
            raise _RefusedError("it is closed")
        return newest.payload_hash or invalid_digest(newest.detail or "", event_id) if is_invalid else known
    if unresolved is not None:
        # What may have arrived is what was sent then, whatever the row has become since.
        return unresolved.payload_hash
    if settle_as == DeliveryStatus.DELIVERED:
        if is_invalid:
            raise _RefusedError("its row never became an event, so nothing was sent; it can be closed")
        return known
    if newest.delivery_status != DeliveryStatus.CLOSED:
        raise _RefusedError(_NOT_UNCLEAR.get(newest.delivery_status, _IS_TAKEN_AGAIN).format(newest.delivery_status))
    return known


_IS_TAKEN_AGAIN = "it is {}; the next run that reads it sends it anyway"
_NOT_UNCLEAR = {
    DeliveryStatus.INVALID.value: "its row never became an event, so nothing was sent; correct it in the source table",
    DeliveryStatus.CHANGED.value: (
        "Ropo One has an earlier version of it; to send this one, run its task with redeliver='changed'"
    ),
}


def _rows_about(table: LedgerTable, event_ids: Sequence[str]) -> dict[str, list[Row]]:
    ledger = table.definition
    rows_of: dict[str, list[Row]] = {}
    for batch in batches(event_ids):
        query = sa.select(ledger).where(ledger.c.event_id.in_(batch)).order_by(ledger.c.recorded_at)
        for row in table.fetch(query):
            rows_of.setdefault(row["event_id"], []).append(row)
    return rows_of


def _entry(row: Row) -> LedgerEntry:
    return LedgerEntry(
        row["delivery_status"],
        row["payload_hash"],
        row["recorded_at"],
        claimant_in(*(row[name] for name in Claimant._fields)),
        row["destination"],
        row["detail"],
    )


@dataclass(frozen=True)
class Purged:
    """What purging deletes.

    :param events: finished events whose newest row is old enough.
    :param rows: the rows about them.
    :param kept: events of the same age that are open at a destination: their rows stay.
    """

    events: int = 0
    rows: int = 0
    kept: int = 0

    def __str__(self) -> str:
        """Return what is deleted as text."""
        return f"{quantity(self.events, 'finished event')} with {quantity(self.rows, 'row')}"


def parse_age(text: str) -> dt.timedelta:
    """Return an age such as ``400d``.

    :raises RopoConfigurationError: if it is none.
    """
    match = _AGE.fullmatch(text.strip())
    if match is None:
        raise RopoConfigurationError(f"{text!r} is no age in days such as 400d")
    return dt.timedelta(days=int(match[1]))


def purge(table: LedgerTable, older_than: dt.timedelta, *, force: bool = False, dry_run: bool = False) -> Purged:
    """Delete the rows of finished events whose newest row is older, some hundred events a statement.

    Finished is what is delivered or closed at every destination that its rows name. Everything else is open and stays,
    whatever its age.

    :param force: accept an age below :data:`MIN_AGE` days.
    :param dry_run: count only.
    :raises RopoConfigurationError: if the age is below that.
    """
    if older_than < dt.timedelta(days=MIN_AGE) and not force:
        raise RopoConfigurationError(
            f"an age below {MIN_AGE}d is refused: a query that looks back, a backfill or a cleared run could still "
            "read these events in the warehouse, and without their rows they would be sent again. If no query does, "
            "force it (--force, or `force` of the task)"
        )
    before = table.database_time() - older_than
    ledger, purged = table.definition, Purged()
    for event_ids in batches(_ids_not_written_since(table, before)):
        entries_of = table.entries(event_ids)
        finished = {event_id: entries for event_id, entries in entries_of.items() if _is_finished(event_id, entries)}
        if finished and not dry_run:
            # Not what a run has written since.
            is_old = sa.and_(ledger.c.event_id.in_(list(finished)), ledger.c.recorded_at < before)
            table.change(ledger.delete().where(is_old))
        purged = Purged(
            purged.events + len(finished),
            purged.rows + sum(map(len, finished.values())),
            purged.kept + len(entries_of) - len(finished),
        )
    return purged


def _ids_not_written_since(table: LedgerTable, before: dt.datetime) -> Iterator[str]:
    ledger = table.definition.c
    old = sa.select(ledger.event_id).group_by(ledger.event_id).having(sa.func.max(ledger.recorded_at) < before)
    page = query = old.order_by(ledger.event_id).limit(PAGE)
    while True:
        event_ids = [row["event_id"] for row in table.fetch(page)]
        yield from event_ids
        if len(event_ids) < PAGE:
            return
        page = query.where(ledger.event_id > event_ids[-1])


def _is_finished(event_id: str, entries: Sequence[LedgerEntry]) -> bool:
    """Tell whether nothing is left to be done about an event, at any destination, or about a file."""
    destinations = {entry.destination for entry in entries if entry.destination} or {""}
    return all(
        counted[-1].delivery_status in SUCCESSFUL or _is_delivered(counted) or _is_given_up(event_id, counted[-1])
        for destination in destinations
        if (counted := of_destination(entries, destination))
    )


def _is_given_up(name: str, entry: LedgerEntry) -> bool:
    """Tell whether a row is about a file that was never published: the events in it have rows of their own."""
    file = FileRecord.parse(entry.detail or "")
    return entry.delivery_status == UNPUBLISHED and file is not None and file.name == name


@dataclass(frozen=True)
class Erased:
    """What erasing a usage place changes.

    :param events: the place's events.
    :param rows: the rows about them.
    :param open: of these events, those that are not at Ropo One: a run that reads one writes the place again.
    """

    events: int
    rows: int
    open: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return what is erased as text."""
        return f"{quantity(self.events, 'event')} with {quantity(self.rows, 'row')}"

    @property
    def warning(self) -> str | None:
        """What to do about the open events; None if there are none."""
        if not self.open:
            return None
        return (
            f"Open: {first_of(self.open)}. A run that reads one of these writes the place again: remove them from the "
            "source table, or settle them, first."
        )


def erase(table: LedgerTable, place: str, *, dry_run: bool = False) -> Erased:
    """Remove a usage place from the ledger; that its events are delivered stays known, so none is sent again.

    Of every row about one of its events, the place's code, what happened there and when, and the detail are set to
    NULL. The event's id, destination and delivery status stay. Of the content's digest, only the beginning stays, which
    tells whether a content is the same.

    :param dry_run: count only.
    :raises RopoConfigurationError: if no row is about this place.
    """
    ledger = table.definition
    row, of_place = ledger.c, ledger.alias("of_place").c
    is_of_event = row.event_id.in_(sa.select(of_place.event_id).where(of_place.usageplacecode == place))
    # A row of an event without its place (an invalid one) belongs to it, too; one with another place does not.
    is_of_place = sa.or_(row.usageplacecode == place, row.usageplacecode.is_(None))
    found = table.fetch(sa.select(row.event_id, row.payload_hash).where(is_of_event, is_of_place))
    if not found:
        raise RopoConfigurationError(f"no row of the ledger {ledger.fullname} is about this usage place")
    event_ids = sorted({each["event_id"] for each in found})
    still_open = table.fetch(states(ledger, LookUp(place=place, only_open=True)))
    erased = Erased(len(event_ids), len(found), tuple(sorted({each["event_id"] for each in still_open})))
    if not dry_run:
        # The place comes last: until then, another attempt finds the same rows.
        table.change(*_without_fields(ledger, found))
        for batch in batches(event_ids):
            blank = dict.fromkeys(("usageplacecode", "event_status", "event_time", "detail"))
            table.change(ledger.update().where(row.event_id.in_(batch), is_of_place).values(**blank))
    return erased


def _without_fields(ledger: sa.Table, rows: Sequence[Row]) -> Iterator[Any]:
    """Yield the updates that shorten the digests of rows."""
    for event_id, digest in sorted({(row["event_id"], row["payload_hash"] or "") for row in rows}):
        shortened = without_fields(digest or None)
        if (shortened or "") != digest:
            is_row = sa.and_(ledger.c.event_id == event_id, ledger.c.payload_hash == digest)
            yield ledger.update().where(is_row).values(payload_hash=shortened)
