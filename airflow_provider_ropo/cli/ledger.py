"""What the ledger says is not at Ropo One."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_provider_ropo.delivery import ARRIVED
from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.schema import define_table
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.task.connections import database_hook

_SHOWN = (
    "event_id",
    "usageplacecode",
    "event_status",
    "event_time",
    "delivery_status",
    "detail",
    "run_id",
    "recorded_at",
)


def not_delivered(conn_id: str, table: str, limit: int) -> list[dict[str, Any]]:
    """Return the newest row of each event that is not delivered, the earliest event first.

    :param conn_id: the database.
    :param table: the ledger's table, as one would write it in SQL.
    :raises RopoConfigurationError: if there is no such table.
    """
    engine = database_hook(conn_id).get_sqlalchemy_engine(engine_kwargs={"hide_parameters": True})
    try:
        if not LedgerTable(engine, table).exists():
            raise RopoConfigurationError(f"there is no ledger {table} in the database of connection {conn_id!r}")
        with engine.connect() as connection:
            rows = connection.execute(_statement(define_table(table)).limit(limit))
            return [dict(zip(_SHOWN, row, strict=True)) for row in rows]
    finally:
        engine.dispose()


def _statement(ledger: sa.Table) -> sa.Select[Any]:
    newest = sa.func.row_number().over(partition_by=ledger.c.event_id, order_by=ledger.c.recorded_at.desc())
    states = sa.select(ledger, newest.label("newest")).subquery("states")
    return (
        sa.select(*(states.c[name] for name in _SHOWN))
        .where(states.c.newest == 1, states.c.delivery_status.not_in(sorted(ARRIVED)))
        # An event that never was one has no time.
        .order_by(states.c.event_time, states.c.recorded_at, states.c.event_id)
    )
