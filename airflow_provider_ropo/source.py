"""Read rows from the warehouse as a stream; what is open is closed when the last row is in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from airflow_provider_ropo.errors import RopoConfigurationError

#: Rows a fetch asks for.
FETCH_SIZE = 2_000


class Query(NamedTuple):
    """A query's answer.

    :param names: its column names, as the driver gives them.
    :param rows: its rows, each in the order of the names, fetched as they are asked for.
    """

    names: list[str]
    rows: Iterator[Sequence[Any]]


@contextmanager
def run_query(
    connection: Any,  # noqa: ANN401 - PEP 249 has no type
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None = None,
) -> Iterator[Query]:
    """Run one query on a DB-API connection (PEP 249).

    :param connection: an open connection; the caller closes it.
    :param sql: one statement that returns rows.
    :param parameters: its parameters, in the driver's own style.
    :raises RopoConfigurationError: if the statement returns no columns.
    """
    with closing(_streaming_cursor(connection)) as cursor:
        if parameters:
            # psycopg takes a tuple where other drivers take any sequence.
            cursor.execute(sql, tuple(parameters) if isinstance(parameters, list) else parameters)
        else:
            cursor.execute(sql)
        # A server-side cursor may know its columns only after the first fetch, and one without columns refuses it.
        first = cursor.fetchmany(FETCH_SIZE) if _is_named(cursor) or cursor.description else []
        if not cursor.description:
            raise RopoConfigurationError("the SQL returns no columns; it must be one SELECT")
        names = [str(column[0]) for column in cursor.description]
        yield Query(names, _rows(cursor, first, names))


def _rows(cursor: Any, batch: Sequence[Any], names: list[str]) -> Iterator[Sequence[Any]]:  # noqa: ANN401
    while batch:
        # Some connections are set up to return dictionaries.
        if isinstance(batch[0], Mapping):
            batch = [tuple(row[name] for name in names) for row in batch]
        yield from batch
        batch = cursor.fetchmany(FETCH_SIZE)


def _streaming_cursor(connection: Any) -> Any:  # noqa: ANN401
    """Return a cursor that leaves the rows at the server until they are fetched.

    Most drivers' plain cursors do. PostgreSQL's and MySQL's first bring the whole result into this process's
    memory: there, a server-side cursor is asked for by the drivers' own means.
    """
    driver = type(connection).__module__.partition(".")[0]
    if driver in {"psycopg", "psycopg2"}:
        return connection.cursor(name="airflow_provider_ropo")
    if driver in {"MySQLdb", "pymysql"}:
        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()


def _is_named(cursor: Any) -> bool:  # noqa: ANN401
    return getattr(cursor, "name", None) == "airflow_provider_ropo"
