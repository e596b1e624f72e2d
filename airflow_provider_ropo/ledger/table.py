"""The ledger's table in the warehouse: plain inserts and selects, as few round trips as the database allows.

Through SQLAlchemy Core, so that it runs on any SQL connection Airflow has.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.ledger.claims import Snapshot
from airflow_provider_ropo.ledger.entries import LONGEST_DETAIL, Claimant, LedgerEntry, claimant_in
from airflow_provider_ropo.ledger.schema import create_or_upgrade, define_table, has_ids, sqlstate, utc_now

T = TypeVar("T")
Row = dict[str, Any]

log = logging.getLogger(__name__)

#: Ids a select asks for at a time; every database takes as many parameters.
BATCH = 500
#: Rows of one insert: each has 18 parameters, and SQL Server takes 2,100 of them.
INSERT_BATCH, INSERT_BATCH_OF = 1_000, {"mssql": 100}
#: Databases at which a statement alone is a transaction, without round trips to begin and to commit one.
_AUTOCOMMIT = {"postgresql", "redshift", "mysql", "mariadb", "mssql"}
#: Seconds between attempts to reach a database that has gone away; about half a minute in all.
RECONNECT_DELAYS = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)

#: SQLSTATE classes (connection, resources, operator's intervention, serialization) and MySQL's numbers (connections,
#: locks, shutdown) of what passes.
_GONE_AWAY = frozenset({"08", "53", "57", "40", 1040, 1053, 1205, 1213, 1927, 2002, 2003, 2006, 2013, 2055, 4031})
#: The SQLSTATE class of a value that is too long for an index.
_PROGRAM_LIMIT = "54"

_QUOTED = re.compile(r"\n(?:DETAIL|CONTEXT|LINE \d+):")
_ENTRY, _LATEST, _LATER_TRY = "entry", "latest", "later try"


class LedgerTable:
    """Reads and writes the table, over one connection; used by one thread at a time.

    :param engine: the database.
    :param name: the table's name, as one would write it in SQL: ``ropo_ledger``, ``ops."Ropo Ledger"``.
    :param where: how messages name the database, such as ``connection 'warehouse'``.
    :param sleep: waits that many seconds before a database that has gone away is tried again.
    :raises RopoConfigurationError: if that is no table's name.
    :raises RopoLedgerError: from every method, if the database fails.
    """

    def __init__(
        self, engine: sa.engine.Engine, name: str, where: str = "", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._engine = engine
        self._table = define_table(name)
        self._where = f" ({where})" if where else ""
        self._sleep = sleep
        self._connection: sa.engine.Connection | None = None
        # The database has answered once: if it does not later, it has gone away.
        self._was_reached = False

    @property
    def definition(self) -> sa.Table:
        """The table, for queries."""
        return self._table

    def exists(self) -> bool:
        """Tell whether there is such a table, with ids of events.

        :raises RopoConfigurationError: if this role may not read it.
        """
        try:
            return has_ids(self._engine, self._table, self._where)
        except SQLAlchemyError as error:
            raise self._translated(error, "opened") from None

    def create_or_upgrade(self) -> None:
        """Create the table if it is missing, and add the columns that an earlier layout lacks.

        :raises RopoConfigurationError: if this role may not, with the statement to run.
        """
        try:
            create_or_upgrade(self._engine, self._table, self._where)
        except (SQLAlchemyError, ValueError) as error:
            raise self._translated(error, "opened") from None
        self._was_reached = True

    def database_time(self) -> dt.datetime:
        """Return the database's time, UTC, naive; this worker's for a file, and where nothing better is known."""
        function = utc_now(self._engine.dialect.name)
        if function is None:
            return dt.datetime.now(dt.UTC).replace(tzinfo=None)
        value = self._run(lambda connection: connection.execute(sa.select(function)).scalar(), "read")
        moment = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
        assert isinstance(moment, dt.datetime)  # noqa: S101 - each function's type
        return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment

    def entries(self, event_ids: Sequence[str]) -> dict[str, list[LedgerEntry]]:
        """Read all rows about some events, oldest first."""
        return self._read(event_ids, (), "", None)[0]

    def latest_deliveries(self, places: Iterable[str], destination: str) -> dict[str, dt.datetime]:
        """Read the time of the latest delivered event of each usage place."""
        return self._read((), list(places), destination, None)[1]

    def has_later_try(self, me: Claimant, since: dt.datetime) -> bool:
        """Tell whether a later try of the same task instance has written anything since then."""
        return self._read((), (), "", (me, since))[2]

    def read(
        self,
        event_ids: Sequence[str],
        places: Iterable[str],
        destination: str,
        later_try: tuple[Claimant, dt.datetime] | None,
    ) -> Snapshot:
        """Read what a round needs, in one statement unless it is much.

        :param event_ids: events whose rows are read.
        :param places: usage places whose latest delivered event is read.
        :param later_try: whose later tries are looked for, and since when.
        """
        return Snapshot(*self._read(event_ids, list(places), destination, later_try))

    def insert(self, rows: Sequence[Row]) -> dict[str, str]:
        """Append rows, in one transaction where that succeeds.

        A database that goes away meanwhile is tried again for about half a minute; what had been committed is looked
        up and completed. A row that the database does not take stops no other: then all are written one by one.

        :return: the events with a row that the database does not take, and why.
        """
        if not rows:
            return {}
        try:
            self._insert(rows)
        except RopoLedgerError as error:
            if not error.is_about_data:
                raise
            return self._insert_one_by_one(rows)
        return {}

    def fetch(self, query: Any) -> list[Row]:
        """Return the rows of a query, by the names of its columns."""
        rows: Sequence[Any] = self._run(partial(_fetch, query), "read")
        # SQLAlchemy's own kind of text is more than a caller asks for.
        return [{str(name): value for name, value in row._mapping.items()} for row in rows]  # noqa: SLF001 - its name

    def change(self, *statements: Any) -> None:
        """Run statements that delete or update rows, and that may be run again, in one transaction if there is one."""

        def run(connection: sa.engine.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        self._run(run, "changed")

    def release_connection(self) -> None:
        """Close the connection; the next call opens one, on whichever thread makes it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        # Not kept in the pool either: a driver's connection may belong to the thread that opened it.
        self._engine.dispose()

    def close(self) -> None:
        """Let the database go."""
        self.release_connection()

    # Reading

    def _read(
        self,
        event_ids: Sequence[str],
        places: Sequence[str],
        destination: str,
        later_try: tuple[Claimant, dt.datetime] | None,
    ) -> tuple[dict[str, list[LedgerEntry]], dict[str, dt.datetime], bool]:
        entries: dict[str, list[LedgerEntry]] = defaultdict(list)
        latest: dict[str, dt.datetime] = {}
        is_superseded = False
        selects = [
            *(self._select_entries(batch) for batch in batches(event_ids)),
            *(self._select_latest(batch, destination) for batch in batches(places)),
            *([self._select_later_try(*later_try)] if later_try else []),
        ]
        # One statement unless there are many ids: a union's parameters are those of all its parts.
        few = len(event_ids) + len(places) <= BATCH
        statements: list[Any] = [sa.union_all(*selects)] if few and len(selects) > 1 else selects
        for statement in statements:
            rows = self._run(partial(_fetch, statement), "read")
            for marker, name, status, digest, moment, where, detail, *claimant in rows:
                if marker == _LATER_TRY:
                    is_superseded = True
                elif marker == _LATEST:
                    if moment is not None:
                        latest[name] = moment
                else:
                    entry = LedgerEntry(status, digest, moment, claimant_in(*claimant), where, detail)
                    entries[name].append(entry)
        for found in entries.values():
            found.sort(key=lambda entry: entry.recorded_at)
        return entries, latest, is_superseded

    def _select_entries(self, event_ids: list[str]) -> sa.Select[Any]:
        table = self._table.c
        return sa.select(
            _marker(_ENTRY),
            table.event_id.label("name"),
            table.delivery_status,
            table.payload_hash,
            table.recorded_at.label("moment"),
            table.destination,
            table.detail,
            table.dag_id,
            table.task_id,
            table.run_id,
            table.map_index,
            table.try_number,
            table.process,
        ).where(self._is_in(table.event_id, event_ids))

    def _select_latest(self, places: list[str], destination: str) -> sa.Select[Any]:
        table = self._table.c
        return (
            sa.select(
                _marker(_LATEST),
                table.usageplacecode.label("name"),
                *self._nulls("delivery_status", "payload_hash"),
                sa.func.max(table.event_time).label("moment"),
                *self._nulls("destination", "detail"),
                *self._nulls("dag_id", "task_id", "run_id", "map_index", "try_number", "process"),
            )
            .where(self._is_in(table.usageplacecode, places))
            .where(table.delivery_status == DeliveryStatus.DELIVERED.value)
            .where(sa.or_(table.destination == destination, table.destination.is_(None), table.destination == ""))
            .group_by(table.usageplacecode)
        )

    def _select_later_try(self, me: Claimant, since: dt.datetime) -> sa.Select[Any]:
        table = self._table.c
        later_try = (
            sa.select(table.event_id)
            .where(table.run_id == me.run_id, table.dag_id == me.dag_id, table.task_id == me.task_id)
            .where(table.map_index == me.map_index, table.try_number > me.try_number)
            .where(table.recorded_at > since)
        )
        one = sa.select(sa.literal(1).label("one")).subquery("one")
        return (
            sa.select(
                _marker(_LATER_TRY),
                *self._nulls("event_id", "delivery_status", "payload_hash", "recorded_at", "destination", "detail"),
                *self._nulls("dag_id", "task_id", "run_id", "map_index", "try_number", "process"),
            )
            .select_from(one)
            .where(sa.exists(later_try))
        )

    def _nulls(self, *names: str) -> list[Any]:
        return [sa.type_coerce(sa.null(), self._table.c[name].type).label(name) for name in names]

    def _is_in(self, column: sa.ColumnElement[str], values: list[str]) -> sa.ColumnElement[bool]:
        """Return the condition that a column has one of some values."""
        if self._engine.dialect.name == "postgresql":
            # One parameter instead of hundreds, which driver and server would each take apart.
            return column == sa.any_(sa.literal(values, sa.ARRAY(sa.Text())))
        return column.in_(values)

    # Writing

    def _insert(self, rows: Sequence[Row], *, again: bool = False) -> None:
        tried = again

        def write(connection: sa.engine.Connection) -> None:
            nonlocal tried
            # The answer to an earlier attempt may have been lost: what is there is not written again.
            missing = self._missing(connection, rows) if tried else rows
            tried = True
            for batch in batches(missing, INSERT_BATCH_OF.get(self._engine.dialect.name, INSERT_BATCH)):
                self._execute_insert(connection, batch)

        self._run(write, "written")

    def _execute_insert(self, connection: sa.engine.Connection, rows: Sequence[Row]) -> None:
        if self._engine.dialect.name in {"sqlite", "oracle"} or len(rows) == 1:
            # A file has no round trips to save, and Oracle no inserts of several rows.
            connection.execute(self._table.insert(), list(rows))
            return
        parameters = {f"{name}_{number}": row[name] for number, row in enumerate(rows) for name in row}
        connection.execute(_multi_row_insert(self._table, len(rows)), parameters)

    def _missing(self, connection: sa.engine.Connection, rows: Sequence[Row]) -> list[Row]:
        table = self._table.c
        there: set[tuple[Any, ...]] = set()
        for batch in batches({row["event_id"] for row in rows}):
            query = sa.select(table.event_id, table.delivery_status, table.recorded_at, table.process)
            there.update(tuple(row) for row in connection.execute(query.where(self._is_in(table.event_id, batch))))
        keys = ("event_id", "delivery_status", "recorded_at", "process")
        return [row for row in rows if tuple(row[name] for name in keys) not in there]

    def _insert_one_by_one(self, rows: Sequence[Row]) -> dict[str, str]:
        refused: dict[str, str] = {}
        for row in rows:
            # Ropo One's own words may have characters that the table has not.
            plain = row | {"detail": row["detail"] and ascii(row["detail"])[1:-1][:LONGEST_DETAIL]}
            for attempt in (row, plain):
                try:
                    # It may have been committed before the one that is refused.
                    self._insert([attempt], again=True)
                    break
                except RopoLedgerError as error:
                    if not error.is_about_data:
                        raise
                    reason, error_of_row = str(error), error
            else:
                refused[row["event_id"]] = reason
                last = error_of_row
        if refused and len(refused) == len({row["event_id"] for row in rows}) and last.is_constraint:
            # A constraint that every row breaks is the table's.
            raise last
        return refused

    # Connecting

    def _run(self, work: Callable[[sa.engine.Connection], T], what: str) -> T:
        """Do some work in a transaction; again, on a new connection, if the database goes away meanwhile."""
        delays = iter(RECONNECT_DELAYS)
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                with self._connection.begin():
                    result = work(self._connection)
                self._was_reached = True
                return result
            except (SQLAlchemyError, ValueError) as error:
                # Whatever state it is in, it is not used again.
                self._drop_connection()
                delay = next(delays, None) if self._has_gone_away(error) else None
                if delay is None:
                    # The next call does not wait as long again.
                    self._was_reached = False
                    raise self._translated(error, what) from None
                log.warning("%s; trying again in %.1f s", self._translated(error, what), delay)
                self._sleep(delay)

    def _connect(self) -> sa.engine.Connection:
        connection = self._engine.connect()
        if self._engine.dialect.name in _AUTOCOMMIT:
            connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        if self._engine.driver == "psycopg":
            # To prepare a statement takes a round trip of its own.
            connection.connection.driver_connection.prepare_threshold = None  # type: ignore[union-attr]
        return connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except (SQLAlchemyError, ValueError):
                log.debug("a broken connection could not be closed")

    def _has_gone_away(self, error: Exception) -> bool:
        """Tell whether another attempt, on a new connection, may succeed."""
        if not self._was_reached or not isinstance(error, DBAPIError):
            return False
        if error.connection_invalidated:
            return True
        if self._engine.dialect.name == "sqlite":
            # Its operational errors are of all kinds.
            return "locked" in str(error.orig) or "busy" in str(error.orig)
        if not isinstance(error, OperationalError | sa.exc.InterfaceError):
            return False
        code = _code(error)
        return code is None or code in _GONE_AWAY or (isinstance(code, str) and code[:2] in _GONE_AWAY)

    def _translated(self, error: Exception, what: str) -> RopoLedgerError:
        # ValueError: psycopg2 has been given a text that PostgreSQL cannot hold. The error itself is left out, and
        # so is what PostgreSQL quotes of the row: they name usage places.
        reason = " ".join(_QUOTED.split(str(getattr(error, "orig", None) or error))[0].split())
        translated = RopoLedgerError(f"the ledger {self._table.fullname}{self._where} could not be {what}: {reason}")
        # Errors about one row; a bare StatementError is a driver's that could not even ask.
        is_value = isinstance(error, sa.exc.DataError | sa.exc.IntegrityError | ValueError)
        code = _code(error)
        is_limit = isinstance(code, str) and code[:2] == _PROGRAM_LIMIT
        translated.is_constraint = isinstance(error, sa.exc.IntegrityError)
        translated.is_about_data = is_value or is_limit or type(error) is sa.exc.StatementError
        return translated


@lru_cache(maxsize=256)
def _multi_row_insert(table: sa.Table, count: int) -> sa.Insert:
    """Return the insert of that many rows in one statement."""
    types = {column.name: column.type for column in table.c}
    rows = [{name: sa.bindparam(f"{name}_{row}", type_=types[name]) for name in types} for row in range(count)]
    return sa.insert(table).values(rows)


def _fetch(statement: Any, connection: sa.engine.Connection) -> Sequence[Any]:
    return connection.execute(statement).all()


def _code(error: Exception) -> str | int | None:
    """Return the SQLSTATE of an error, or MySQL's number, where the driver has one."""
    original = getattr(error, "orig", None)
    first = original.args[0] if original is not None and original.args else None
    return sqlstate(error) or (first if isinstance(first, int) else None)


def _marker(text: str) -> sa.ColumnElement[str]:
    return sa.literal_column(f"'{text}'", sa.String(32)).label("marker")


def batches(items: Iterable[T], size: int = BATCH) -> Iterator[list[T]]:
    """Yield the items in lists of a bounded length."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
