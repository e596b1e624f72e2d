"""Read the rows of a query as a stream; the cursor is closed after the last one."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.intake import postgres
from airflow_provider_ropo.intake.read_only import read_only, refused_writes
from airflow_provider_ropo.intake.refused_query import refused_query
from airflow_provider_ropo.intake.statement import REMEDY, one_query

#: Rows that a fetch asks for: the most that every server allows (Amazon Redshift on a single node refuses more), and
#: no slower than more.
FETCH_SIZE = 1_000

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: Up to here, 272 years from 1970 either way, a float has its next neighbour less than a microsecond away.
_EXACT_SECONDS = 2.0**33

# Drivers whose placeholders begin with a percent sign (PEP 249: paramstyle format or pyformat).
_FORMAT_STYLE = {
    *("psycopg", "psycopg2", "redshift_connector", "pymysql", "MySQLdb", "mysql", "pymssql"),
    *("bigquery", "snowflake", "databricks", "clickhouse_connect", "pyhive", "impala"),
}

_CURSOR_NAME = "airflow_provider_ropo"


class Query(NamedTuple):
    """A query's answer.

    :param names: its column names, as the driver gives them.
    :param rows: its rows, each in the order of the names, fetched as they are asked for.
    """

    names: list[str]
    rows: Iterator[Sequence[Any]]


@contextmanager
def run_query(
    connection: Any,
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
) -> Iterator[Query]:
    """Run one query on a DB-API connection (PEP 249), in a read-only transaction where the database has one.

    :param connection: an open connection; the caller closes it.
    :param sql: one statement that reads, as a file has it: a closing semicolon is left out.
    :param parameters: its parameters, in the driver's own style.
    :raises RopoConfigurationError: if the statement may write or lock, returns no columns, or does not fit its
        parameters.
    """
    driver = _driver(connection)
    sql = one_query(sql, driver)
    bytewise = driver in {"psycopg", "psycopg2"} and postgres.set_encoding(connection, driver)
    if bytewise:
        sql, parameters = postgres.to_bytewise(sql), postgres.to_bytewise(parameters)
    cursor = _streaming_cursor(connection, driver, sql, bytewise=bytewise)
    with closing(cursor), read_only(connection, cursor, driver):
        with refused_query(), refused_writes():
            _execute(cursor, sql, parameters, driver)
            # A server-side cursor may know its columns only after the first fetch; one without columns refuses it.
            first = cursor.fetchmany(_fetch_size(cursor)) if _is_named(cursor) or cursor.description else []
        if not cursor.description:
            raise RopoConfigurationError(f"the SQL returns no columns; {REMEDY}")
        names = [str(column[0]) for column in cursor.description]
        rows = _rows(cursor, first, names)
        if bytewise:
            names, rows = postgres.from_bytewise(names), map(postgres.from_bytewise, rows)
        if driver == "bigquery":
            rows = _with_moments(rows, [column[1] == "TIMESTAMP" for column in cursor.description])
        yield Query(names, rows)


def _driver(connection: Any) -> str:
    """Return the name of the driver's package; Airflow brings BigQuery's itself."""
    module = type(connection).__module__
    return "bigquery" if "bigquery" in module else module.partition(".")[0].removeprefix("_")


def _execute(
    cursor: Any,
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None,
    driver: str,
) -> None:
    if not parameters:
        cursor.execute(sql)
        return
    try:
        # psycopg takes a tuple where other drivers take any sequence.
        cursor.execute(sql, tuple(parameters) if isinstance(parameters, list) else parameters)
    except Exception as error:
        if "%" in sql and _is_of_formatting(error, driver):
            raise RopoConfigurationError(
                f"the SQL and its `parameters` do not fit ({error}); beside parameters a percent sign, as in LIKE or "
                "in a comment, is written %%"
            ) from None
        raise


def _is_of_formatting(error: Exception, driver: str) -> bool:
    """Do the parameters not fit the SQL? Drivers that put them in with Python's % let its errors out, or wrap them."""
    first = error.args[0] if error.args else None
    by_server = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or isinstance(first, int)
    # redshift_connector's own class for it is that of a lost connection, too.
    is_redshifts = type(error).__name__ == "InterfaceError" and "%" in str(error)
    wrapped = (type(error).__name__ == "ProgrammingError" or is_redshifts) and not by_server
    return driver in _FORMAT_STYLE and (wrapped or isinstance(error, TypeError | ValueError | LookupError))


def _rows(cursor: Any, batch: Sequence[Any], names: list[str]) -> Iterator[Sequence[Any]]:
    while batch:
        # Some connections are set up to return dictionaries.
        if isinstance(batch[0], Mapping):
            batch = [tuple(row[name] for name in names) for row in batch]
        yield from batch
        with refused_writes():
            batch = cursor.fetchmany(_fetch_size(cursor))


def _fetch_size(cursor: Any) -> int:
    """Return the number of rows to ask for; a cursor that a hook has set up for fewer is obeyed (``arraysize``)."""
    size = getattr(cursor, "arraysize", None)
    # One, PEP 249's default, is what most drivers leave there.
    return min(size, FETCH_SIZE) if isinstance(size, int) and size > 1 else FETCH_SIZE


def _with_moments(rows: Iterator[Sequence[Any]], are_moments: Sequence[bool]) -> Iterator[Sequence[Any]]:
    """Yield BigQuery's rows with its TIMESTAMPs as moments; Airflow's cursor makes floats of the seconds since 1970."""
    for row in rows:
        yield [_moment(cell) if is_moment else cell for cell, is_moment in zip(row, are_moments, strict=True)]


def _moment(seconds: Any) -> Any:
    """Return the moment, to the microsecond that BigQuery keeps; a float too large for that stays a float."""
    if not isinstance(seconds, float) or abs(seconds) >= _EXACT_SECONDS:
        return seconds
    return _EPOCH + dt.timedelta(seconds=seconds)


def _streaming_cursor(connection: Any, driver: str, sql: str, *, bytewise: bool) -> Any:
    """Return a cursor that leaves the rows at the server until they are fetched.

    Most drivers' plain cursors do. PostgreSQL's and MySQL's first bring the whole result into this process's
    memory: there, a server-side cursor is asked for by the drivers' own means.
    """
    if driver in {"psycopg", "psycopg2"}:
        # PostgreSQL has no server-side cursor for a SHOW.
        named = {} if sql[:4].upper() == "SHOW" else {"name": _CURSOR_NAME}
        cursor = connection.cursor(**named)
        postgres.register_text_fallbacks(cursor, driver, json_as_text=bytewise)
        return cursor
    if driver in {"MySQLdb", "pymysql"}:
        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    if isinstance(connection, sqlite3.Connection) and connection.text_factory is str:
        # Bytes that are no UTF-8 become characters that are no Unicode, which no event may have.
        connection.text_factory = lambda data: data.decode(errors="surrogateescape")
    return connection.cursor()


def _is_named(cursor: Any) -> bool:
    return getattr(cursor, "name", None) == _CURSOR_NAME
