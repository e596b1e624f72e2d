"""The state of each event by the ledger: the same rule as that of a run's decisions, as queries.

An event with a *delivered* row for its destination and content is delivered, whatever is newer; otherwise its state is
its newest row. A row without a destination counts for all destinations of its event, until a later *delivered* or
*closed* row has one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_provider_ropo.delivery import SUCCESSFUL, DeliveryStatus
from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.entries import KNOWN_STATUSES, UNPUBLISHED
from airflow_provider_ropo.ledger.files import AFTER_NAME, BEFORE_NAME

_SETTLED = (DeliveryStatus.DELIVERED.value, DeliveryStatus.CLOSED.value)
#: The content of a *delivered* row without a digest.
_ANY = "any"


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """Which events to list; every condition that is given has to be met.

    :param event_ids: these events.
    :param place: the events with a row about this usage place.
    :param destination: the events of this destination, as the ledger names it.
    :param status: the events in this state.
    :param since: rows recorded at this time or later, UTC, naive.
    :param until: rows recorded before this time, UTC, naive.
    :param only_open: the events that are not at their destination, and that nobody has closed.
    :raises RopoConfigurationError: for what no event can meet.
    """

    event_ids: Sequence[str] = ()
    place: str | None = None
    destination: str | None = None
    status: str | None = None
    since: dt.datetime | None = None
    until: dt.datetime | None = None
    only_open: bool = False

    def __post_init__(self) -> None:
        """Check the conditions that a person may have mistyped."""
        if self.status is not None and self.status not in KNOWN_STATUSES:
            raise RopoConfigurationError(
                f"no event is ever {self.status!r}; a status is one of {', '.join(sorted(KNOWN_STATUSES))}"
            )
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise RopoConfigurationError(f"no row is recorded from {self.since} on and before {self.until}")


def open_events(ledger: sa.Table) -> sa.Select[Any]:
    """Return the query of the newest row of each event that is not at its destination, with all columns."""
    return states(ledger, LookUp(only_open=True))


def states(ledger: sa.Table, asked: LookUp | None = None) -> sa.Select[Any]:
    """Return the query of one row for each event and destination, which is its state, with the ledger's columns.

    The row of a delivered event is its newest *delivered* row, that of others their newest row.

    :param asked: which events; by default all.
    """
    asked = asked or LookUp()
    state = _states(_rows_of_each_destination(ledger, asked)).c
    return (
        sa.select(*_columns_of(ledger, state))
        .where(*_is_asked_for(state, asked))
        .where(*_is_recorded_within(state, asked))
    )


def history(ledger: sa.Table, asked: LookUp) -> sa.Select[Any]:
    """Return the query of all rows that count for some events, with the ledger's columns.

    :param asked: which events; their state has to meet the conditions, and each row those on its time.
    """
    rows = _rows_of_each_destination(ledger, asked)
    row, state = rows.c, _states(rows).c
    # Not IN: a destination may be NULL.
    is_of_event = sa.and_(
        state.event_id == row.event_id,
        sa.or_(state.target == row.target, sa.and_(state.target.is_(None), row.target.is_(None))),
    )
    return (
        sa.select(*_columns_of(ledger, row))
        .where(sa.exists().where(is_of_event, *_is_asked_for(state, asked)))
        .where(*_is_recorded_within(row, asked))
    )


def destinations(ledger: sa.Table) -> sa.Select[Any]:
    """Return the query of the destinations that the ledger names."""
    name = ledger.c.destination
    return sa.select(name).where(name.is_not(None)).distinct().order_by(name)


def _columns_of(ledger: sa.Table, row: Any) -> list[Any]:
    """Return the ledger's columns, of which the destination is the one that the row counts for."""
    return [(row.target if name == "destination" else row[name]).label(name) for name in ledger.c.keys()]  # noqa: SIM118


def _is_asked_for(state: Any, asked: LookUp) -> list[Any]:
    conditions: list[Any] = []
    if asked.only_open:
        conditions.append(state.delivery_status.not_in(sorted(SUCCESSFUL)))
        conditions.append(sa.not_(_is_unpublished_file(state)))
    if asked.status is not None:
        conditions.append(state.delivery_status == asked.status)
    if asked.destination is not None:
        conditions.append(state.target == asked.destination)
    return conditions


def _is_unpublished_file(row: Any) -> Any:
    """Tell whether a row is about a file that was given up: the events in it have rows of their own."""
    is_of_file = sa.func.coalesce(row.detail, "").like(BEFORE_NAME + row.event_id + f"{AFTER_NAME}%")
    return sa.and_(row.delivery_status == UNPUBLISHED, is_of_file)


def _is_recorded_within(row: Any, asked: LookUp) -> list[Any]:
    since = [] if asked.since is None else [row.recorded_at >= asked.since]
    return since if asked.until is None else [*since, row.recorded_at < asked.until]


def _states(rows: sa.Subquery) -> sa.Subquery:
    """Return the one row that is the state of each event at each destination.

    :param rows: the rows that count for each destination.
    """
    row = rows.c
    is_delivered = row.delivery_status == DeliveryStatus.DELIVERED.value
    event = (row.target, row.event_id)
    by_time = row.recorded_at.desc()
    delivered_first = (sa.case((is_delivered, 0), else_=1), by_time)
    delivered_content = sa.case((is_delivered, sa.func.coalesce(row.payload_hash, _ANY)))
    ranked = sa.select(
        rows,
        sa.func.row_number().over(partition_by=event, order_by=by_time).label("newest"),
        sa.func.row_number().over(partition_by=event, order_by=delivered_first).label("delivery"),
        sa.func.first_value(row.payload_hash).over(partition_by=event, order_by=by_time).label("content"),
        sa.func.first_value(delivered_content)
        .over(partition_by=event, order_by=delivered_first)
        .label("delivered_content"),
    ).subquery("ranked")
    each = ranked.c
    is_known = sa.and_(
        each.delivered_content.is_not(None),
        sa.or_(
            each.delivered_content == _ANY,
            each.content.is_(None),
            # Purging leaves the beginning of a digest, which is that of the whole content.
            each.content.like(each.delivered_content + sa.literal("%")),
        ),
    )
    rank = sa.case((is_known, each.delivery), else_=each.newest)
    return sa.select(ranked).where(rank == 1).subquery("states")


def _rows_of_each_destination(ledger: sa.Table, asked: LookUp) -> sa.Subquery:
    """Return the rows that count for each destination of each event, with that destination as ``target``."""
    row, named = ledger.c, ledger.alias("named").c
    targets = (
        sa.select(named.event_id, _destination_of(named).label("target"))
        .where(*_is_of_events(ledger, named, asked))
        .distinct()
        .subquery("targets")
    )
    is_settled = sa.and_(_destination_of(named).is_not(None), named.delivery_status.in_(_SETTLED))
    settled_at = (
        sa.select(
            named.event_id,
            sa.func.max(sa.case((is_settled, named.recorded_at))).label("settled_at"),
            sa.func.count(_destination_of(named)).label("named_rows"),
        )
        .where(*_is_of_events(ledger, named, asked))
        .group_by(named.event_id)
        .subquery("settled")
    )
    counts = sa.or_(
        row.destination == targets.c.target,
        sa.and_(
            _destination_of(row).is_(None),
            sa.or_(settled_at.c.settled_at.is_(None), row.recorded_at >= settled_at.c.settled_at),
            # On its own only where no row of the event has a destination.
            sa.or_(targets.c.target.is_not(None), settled_at.c.named_rows == 0),
        ),
    )
    return (
        sa.select(ledger, targets.c.target)
        .join(targets, targets.c.event_id == row.event_id)
        .join(settled_at, settled_at.c.event_id == row.event_id)
        .where(counts)
        .where(*_is_of_events(ledger, row, asked))
        .subquery("counted")
    )


def _destination_of(row: Any) -> Any:
    """Return the destination that a row names; an empty text, as tools write it for an empty cell, names none."""
    return sa.func.nullif(row.destination, "", type_=row.destination.type)


def _is_of_events(ledger: sa.Table, row: Any, asked: LookUp) -> list[Any]:
    """Return the conditions on ids and places: for each part of the query, so that the database uses its indexes."""
    conditions: list[Any] = []
    if asked.event_ids:
        conditions.append(row.event_id.in_(list(asked.event_ids)))
    if asked.place is not None:
        of_place = ledger.alias("of_place").c
        conditions.append(row.event_id.in_(sa.select(of_place.event_id).where(of_place.usageplacecode == asked.place)))
    return conditions
