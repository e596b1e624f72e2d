"""Query for the events that are not at Ropo One according to the ledger."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.schema import define_table
from airflow_provider_ropo.ledger.states import open_events
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.task.connections import database_hook, ledger_engine

_SHOWN = (
    "destination",
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

    :param conn_id: the connection of the ledger's database.
    :param table: the ledger's table, written as in SQL.
    :param limit: the maximum number of events.
    :raises RopoConfigurationError: if there is no such table.
    """
    engine = ledger_engine(database_hook(conn_id))
    try:
        if not LedgerTable(engine, table).exists():
            raise RopoConfigurationError(f"there is no ledger {table} in the database of connection {conn_id!r}")
        events = open_events(define_table(table)).subquery("events").c
        # An event that never was one has no time.
        order = (events.event_time, events.recorded_at, events.event_id)
        query = sa.select(*(events[name] for name in _SHOWN)).order_by(*order).limit(limit)
        with engine.connect() as connection:
            return [dict(zip(_SHOWN, row, strict=True)) for row in connection.execute(query)]
    finally:
        engine.dispose()
