"""The state of each event by the ledger: the same rule as that of a run's decisions, as one query."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_provider_ropo.delivery import SUCCESSFUL, DeliveryStatus

_SETTLED = (DeliveryStatus.DELIVERED.value, DeliveryStatus.CLOSED.value)


def open_events(ledger: sa.Table) -> sa.Select[Any]:
    """Return the query of the newest row of each event that is not at its destination, with all columns.

    An event with a *delivered* row for its destination and content is delivered, whatever is newer; otherwise its
    state is its newest row. A row without a destination counts for all destinations of its event, until a later
    *delivered* or *closed* row has one.
    """
    rows = _rows_of_each_destination(ledger)
    row = rows.c
    is_delivered = row.delivery_status == DeliveryStatus.DELIVERED.value
    event = (row.target, row.event_id)
    newest = sa.func.row_number().over(partition_by=event, order_by=row.recorded_at.desc())
    delivered = sa.func.first_value(sa.case((is_delivered, sa.func.coalesce(row.payload_hash, "any")))).over(
        partition_by=event, order_by=(sa.case((is_delivered, 0), else_=1), row.recorded_at.desc())
    )
    states = sa.select(rows, newest.label("newest"), delivered.label("delivered_content")).subquery("states")
    state = states.c
    return (
        sa.select(*(state[column.name] for column in ledger.c))
        .where(state.newest == 1, state.delivery_status.not_in(sorted(SUCCESSFUL)))
        .where(
            sa.or_(
                state.delivered_content.is_(None),
                sa.and_(state.delivered_content != "any", state.delivered_content != state.payload_hash),
            )
        )
    )


def _rows_of_each_destination(ledger: sa.Table) -> sa.Subquery:
    """Return the rows that count for each destination of each event, with that destination as ``target``."""
    row, named = ledger.c, ledger.alias("named").c
    targets = sa.select(named.event_id, named.destination.label("target")).distinct().subquery("targets")
    is_settled = sa.and_(named.destination.is_not(None), named.delivery_status.in_(_SETTLED))
    settled_at = (
        sa.select(
            named.event_id,
            sa.func.max(sa.case((is_settled, named.recorded_at))).label("settled_at"),
            sa.func.count(named.destination).label("named_rows"),
        )
        .group_by(named.event_id)
        .subquery("settled")
    )
    counts = sa.or_(
        row.destination == targets.c.target,
        sa.and_(
            row.destination.is_(None),
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
        .subquery("counted")
    )
