"""The ledger's table in the warehouse: plain inserts and selects, a batch each.

Through SQLAlchemy Core, so that it runs on any SQL connection Airflow has.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import quoted_name

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import RopoConfigurationError, RopoLedgerError
from airflow_provider_ropo.standing import Claimant, Entry

T = TypeVar("T")

#: Ids a select asks for at a time; every database takes as many parameters.
BATCH = 500

# MySQL indexes no text without a length, and it is not alone in keeping no microseconds unless told.
_CODE = sa.String(255).with_variant(sa.Text(), "postgresql").with_variant(sa.Text(), "sqlite")
_MOMENT = (
    sa.DateTime()
    .with_variant(mysql.DATETIME(fsp=6), "mysql")
    .with_variant(mysql.DATETIME(fsp=6), "mariadb")
    .with_variant(mssql.DATETIME2(6), "mssql")  # type: ignore[no-untyped-call]
    .with_variant(oracle.TIMESTAMP(), "oracle")
)
_QUOTED = re.compile(r"\n(?:DETAIL|CONTEXT|LINE \d+):")
_PART = re.compile(r'"((?:[^"]|"")+)"|`([^`]+)`|([A-Za-z_][\w$]*)')


class LedgerTable:
    """Reads and writes the table.

    :param engine: the database.
    :param name: the table's name, as one would write it in SQL: ``ropo_ledger``, ``ops."Ropo Ledger"``.
    :raises RopoConfigurationError: if that is no table's name.
    :raises RopoLedgerError: from every method, if the database fails.
    """

    def __init__(self, engine: sa.engine.Engine, name: str) -> None:
        self._engine = engine
        self._table = define(name)

    def exists(self) -> bool:
        """Is the table there, and may it be read?"""
        try:
            self._probe()
        except SQLAlchemyError:
            return False
        return True

    def ensure(self) -> None:
        """Make the table if it is missing."""
        if not self.exists():
            with self._failing("made"):
                create_missing(self._engine, self._table, self.exists)

    def _probe(self) -> None:
        with self._engine.connect() as connection:
            connection.execute(sa.select(self._table.c.event_id).where(sa.false()))

    def entries(self, event_ids: Sequence[str]) -> dict[str, list[Entry]]:
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
        found: dict[str, list[Entry]] = defaultdict(list)
        for batch in batches(event_ids):
            with self._failing("read"), self._engine.connect() as connection:
                rows = connection.execute(sa.select(*columns).where(self._among(table.event_id, batch))).all()
            for event_id, status, digest, recorded_at, *claimant in rows:
                found[event_id].append(Entry(status, digest or "", recorded_at, Claimant(*claimant)))
        for entries in found.values():
            entries.sort(key=lambda entry: entry.recorded_at)
        return found

    def _among(self, column: sa.ColumnElement[str], values: list[str]) -> sa.ColumnElement[bool]:
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
                    self._among(table.usageplacecode, batch), table.delivery_status == DeliveryStatus.DELIVERED.value
                )
                .group_by(table.usageplacecode)
            )
            with self._failing("read"), self._engine.connect() as connection:
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
        with self._failing("read"), self._engine.connect() as connection:
            return connection.execute(later_try).first() is not None

    def insert(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows, all or none."""
        if rows:
            with self._failing("written"), self._engine.begin() as connection:
                connection.execute(self._table.insert(), rows)

    def close(self) -> None:
        """Let the database go."""
        self._engine.dispose()

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
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


def define(name: str) -> sa.Table:
    """Return the table of that name.

    :param name: as one would write it in SQL: ``ropo_ledger``, ``ops.ropo_ledger``, ``ops."Ropo Ledger"``.
    :raises RopoConfigurationError: if it is no table's name.
    """
    *schema, table = _parts(name)
    return sa.Table(
        table,
        sa.MetaData(),
        sa.Column("event_id", _CODE, nullable=False),
        sa.Column("usageplacecode", _CODE),
        sa.Column("event_status", sa.String(32)),
        sa.Column("event_time", sa.DateTime()),
        sa.Column("delivery_status", sa.String(32), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("detail", sa.String(1_000)),
        sa.Column("payload_hash", sa.String(128)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("dag_id", sa.String(250)),
        sa.Column("task_id", sa.String(250)),
        sa.Column("run_id", sa.String(250)),
        sa.Column("map_index", sa.Integer()),
        sa.Column("try_number", sa.Integer()),
        sa.Column("recorded_at", _MOMENT, nullable=False),
        schema=_schema(schema),
        # Left to itself, MySQL takes RE1 and re1 for one place, and may have no letters for what Ropo One says.
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


def create_missing(engine: sa.engine.Engine, table: sa.Table, exists: Callable[[], bool]) -> None:
    """Make the table, and indexes where the database has such a thing."""
    try:
        with engine.begin() as connection:
            # Not every database knows IF NOT EXISTS, and where it does, two runs at once may still collide.
            connection.execute(CreateTable(table))
    except SQLAlchemyError:
        if not exists():
            raise
        return
    if engine.dialect.name not in {"sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle"}:
        return
    plain = re.sub(r"\W+", "_", table.name)[:40]
    for columns in (
        (table.c.event_id,),
        (table.c.usageplacecode,),
        # So that a run need not look at all that it has written itself, to see whether a later try has.
        (table.c.run_id, table.c.map_index, table.c.try_number),
    ):
        index = sa.Index(f"{plain}_{columns[0].name}", *columns)
        try:
            with engine.begin() as connection:
                index.create(connection)
        except SQLAlchemyError:
            # Another run has just made it; or there is a reason, and then look-ups are slower, not wrong.
            continue


def _parts(name: str) -> list[quoted_name]:
    parts = []
    rest = name.strip()
    while match := _PART.match(rest):
        quoted = match.group(1) or match.group(2)
        part = quoted.replace('""', '"') if quoted else match.group(3)
        # A name without quotes is left to the database, which folds its letters as it does elsewhere.
        parts.append(quoted_name(part, quote=quoted is not None))
        rest = rest[match.end() :].lstrip()
        if not rest:
            return parts
        if not rest.startswith("."):
            break
        rest = rest[1:].lstrip()
    raise RopoConfigurationError(
        f'`ledger_table` {name!r} is no table\'s name such as ropo_ledger, ops.ropo_ledger or ops."Ropo Ledger"'
    )


def _schema(parts: list[quoted_name]) -> quoted_name | None:
    """Return the schema, which for some databases is itself in two parts (database and schema)."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    shown = ".".join('"{}"'.format(part.replace('"', '""')) if part.quote else str(part) for part in parts)
    return quoted_name(shown, quote=False)
