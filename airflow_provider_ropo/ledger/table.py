"""The ledger's table in the warehouse: plain inserts and selects, a batch each.

Through SQLAlchemy Core, so that it runs on any SQL connection Airflow has.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.ledger.entries import Claimant, LedgerEntry
from airflow_provider_ropo.ledger.schema import create_missing, define_table

T = TypeVar("T")

#: Ids a select asks for at a time; every database takes as many parameters.
BATCH = 500

_QUOTED = re.compile(r"\n(?:DETAIL|CONTEXT|LINE \d+):")


class LedgerTable:
    """Reads and writes the table.

    :param engine: the database.
    :param name: the table's name, as one would write it in SQL: ``ropo_ledger``, ``ops."Ropo Ledger"``.
    :raises RopoConfigurationError: if that is no table's name.
    :raises RopoLedgerError: from every method, if the database fails.
    """

    def __init__(self, engine: sa.engine.Engine, name: str) -> None:
        self._engine = engine
        self._table = define_table(name)

    def exists(self) -> bool:
        """Is the table there, and may it be read?"""
        try:
            self._probe()
        except SQLAlchemyError:
            return False
        return True

    def create_or_upgrade(self) -> None:
        """Make the table if it is missing."""
        if not self.exists():
            with self._translate_errors("made"):
                create_missing(self._engine, self._table, self.exists)

    def _probe(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(sa.select(self._table.c.event_id).where(sa.false()))

    def entries(self, event_ids: Sequence[str]) -> dict[str, list[LedgerEntry]]:
        """Read all rows about some events, oldest first."""
        table = self._table.c
        columns = (
            table.event_id,
            table.delivery_status,
            table.payload_hash,
            table.recorded_at,
            table.dag_id,
            table.task_id,
            table.run_id,
            table.map_index,
            table.try_number,
        )
        found: dict[str, list[LedgerEntry]] = defaultdict(list)
        for batch in batches(event_ids):
            with self._translate_errors("read"), self._engine.connect() as connection:
                rows = connection.execute(sa.select(*columns).where(self._is_in(table.event_id, batch))).all()
            for event_id, status, digest, recorded_at, *claimant in rows:
                found[event_id].append(LedgerEntry(status, digest or "", recorded_at, Claimant(*claimant)))
        for entries in found.values():
            entries.sort(key=lambda entry: entry.recorded_at)
        return found

    def _is_in(self, column: sa.ColumnElement[str], values: list[str]) -> sa.ColumnElement[bool]:
        """Return the condition that a column has one of some values."""
        if self._engine.dialect.name == "postgresql":
            # One parameter instead of hundreds, which driver and server would each take apart.
            return column == sa.any_(sa.literal(values, sa.ARRAY(sa.Text())))
        return column.in_(values)

    def latest_deliveries(self, places: Iterable[str]) -> dict[str, dt.datetime]:
        """Return the time of the latest delivered event of each usage place."""
        table = self._table.c
        latest: dict[str, dt.datetime] = {}
        for batch in batches(places):
            query = (
                sa.select(table.usageplacecode, sa.func.max(table.event_time))
                .where(
                    self._is_in(table.usageplacecode, batch), table.delivery_status == DeliveryStatus.DELIVERED.value
                )
                .group_by(table.usageplacecode)
            )
            with self._translate_errors("read"), self._engine.connect() as connection:
                latest.update((place, time) for place, time in connection.execute(query) if time is not None)
        return latest

    def has_later_try(self, me: Claimant, since: dt.datetime) -> bool:
        """Has a later try of the same task instance written anything since then?"""
        table = self._table.c
        later_try = (
            sa.select(table.event_id)
            .where(table.run_id == me.run_id, table.dag_id == me.dag_id, table.task_id == me.task_id)
            .where(table.map_index == me.map_index, table.try_number > me.try_number)
            .where(table.recorded_at > since)
            .limit(1)
        )
        with self._translate_errors("read"), self._engine.connect() as connection:
            return connection.execute(later_try).first() is not None

    def insert(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, all or none."""
        if rows:
            with self._translate_errors("written"), self._engine.begin() as connection:
                connection.execute(self._table.insert(), rows)

    def close(self) -> None:
        """Let the database go."""
        self._engine.dispose()

    @contextmanager
    def _translate_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, ValueError) as error:
            # ValueError: psycopg2 has been given a text that PostgreSQL cannot hold. The error itself is left out, and
            # so is what PostgreSQL quotes of the row: they name usage places.
            reason = " ".join(_QUOTED.split(str(getattr(error, "orig", None) or error))[0].split())
            raise RopoLedgerError(f"the ledger {self._table.fullname} could not be {what}: {reason}") from None


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield the items in lists of a bounded length."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
