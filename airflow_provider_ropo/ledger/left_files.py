"""Queries for files whose run has not said how they ended, and for the events in a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import sqlalchemy as sa

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.ledger.entries import IN_PROGRESS, PERSON, SENDING, Claimant
from airflow_provider_ropo.ledger.files import FileRecord
from airflow_provider_ropo.ledger.table import LedgerTable

#: Events of a file that are read at a time: each page goes through the rows of its run.
PAGE = 10_000


def names_of_left_files(table: LedgerTable, destination: str, me: Claimant) -> list[str]:
    """Return the names of the files of a task that no run has recorded as delivered or closed.

    :param me: a run of that task.
    """
    row, later = table.definition.alias("file").c, table.definition.alias("later").c
    is_ended = sa.exists().where(
        later.event_id == row.event_id,
        later.destination == destination,
        later.recorded_at > row.recorded_at,
        later.delivery_status.in_([DeliveryStatus.DELIVERED.value, DeliveryStatus.CLOSED.value]),
        # A person's decision about a file is still to be recorded of its events.
        later.process != PERSON,
    )
    query = (
        sa.select(row.event_id)
        .where(row.usageplacecode.is_(None), row.destination == destination)
        .where(row.dag_id == me.dag_id, row.task_id == me.task_id)
        .where(row.delivery_status.in_(sorted(IN_PROGRESS)))
        .where(~is_ended)
        .distinct()
    )
    return sorted(found["event_id"] for found in table.fetch(query))


def events_in(
    table: LedgerTable, destination: str, file: FileRecord, senders: Iterable[Claimant]
) -> Iterator[list[dict[str, Any]]]:
    """Yield what the ledger has about the events in a file, some thousand at a time; an event may be there twice.

    :param senders: the runs that claimed the file.
    """
    row = table.definition.c
    # By the run: there is an index on it.
    is_of_sender = [
        sa.and_(row.run_id == run_id, row.map_index == map_index, row.try_number == try_number)
        for run_id, map_index, try_number in sorted({sender[2:5] for sender in senders})
    ]
    page = query = (
        sa.select(row.event_id, row.usageplacecode, row.event_status, row.event_time)
        .where(sa.or_(*is_of_sender), row.destination == destination, row.usageplacecode.is_not(None))
        .where(row.delivery_status.in_([SENDING, DeliveryStatus.UNCONFIRMED.value]))
        .where(row.detail.startswith(str(file), autoescape=True))
        .order_by(row.event_id)
        .limit(PAGE)
    )
    while found := table.fetch(page):
        yield found
        if len(found) < PAGE:
            return
        page = query.where(row.event_id > found[-1]["event_id"])
