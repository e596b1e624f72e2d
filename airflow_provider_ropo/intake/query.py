"""Read rows from the warehouse as a stream; what is open is closed when the last row is in."""

from __future__ import annotations

import sqlite3
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from typing import Any, NamedTuple

from airflow_provider_ropo.errors import RopoConfigurationError

#: Rows a fetch asks for.
FETCH_SIZE = 2_000

# PostgreSQL's types with values that Python's own cannot hold: date, timestamp, timestamptz, time, timetz, interval,
# json and jsonb, by their object identifiers, each beside that of its array.
_FALLIBLE_OIDS = {1082: 1182, 1114: 1115, 1184: 1185, 1083: 1183, 1266: 1270, 1186: 1187, 114: 199, 3802: 3807}
# What Python says to the year 12024, to an interval of a million years, and to JSON that nests too deep.
_CANNOT_HOLD = (ValueError, ArithmeticError, RecursionError)


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

    A cell that the driver cannot turn into a Python value comes as text, so that its row alone is refused: a driver
    left to itself fails the whole fetch.
    """
    driver = type(connection).__module__.partition(".")[0]
    if driver in {"psycopg", "psycopg2"}:
        cursor = connection.cursor(name="airflow_provider_ropo")
        (_text_fallback_psycopg if driver == "psycopg" else _text_fallback_psycopg2)(cursor, import_module(driver))
        return cursor
    if driver in {"MySQLdb", "pymysql"}:
        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    if isinstance(connection, sqlite3.Connection) and connection.text_factory is str:
        # Bytes that are no UTF-8 become characters that are no Unicode, which no event takes.
        connection.text_factory = lambda data: data.decode(errors="surrogateescape")
    return connection.cursor()


def _text_fallback_psycopg(cursor: Any, psycopg: Any) -> None:  # noqa: ANN401
    for oid in _FALLIBLE_OIDS:
        own = cursor.adapters.get_loader(oid, psycopg.pq.Format.TEXT)
        cursor.adapters.register_loader(oid, _text_fallback_loader(own, (psycopg.DataError, *_CANNOT_HOLD)))


def _text_fallback_loader(own: Any, cannot_hold: tuple[type[Exception], ...]) -> type:  # noqa: ANN401
    """Return a loader (psycopg's word) that tries the driver's own first; those written in C have no subclasses."""

    class TextFallbackLoader:
        format = own.format

        def __init__(self, oid: int, context: Any = None) -> None:  # noqa: ANN401
            self._load = own(oid, context).load

        def load(self, data: Any) -> Any:  # noqa: ANN401
            try:
                return self._load(data)
            except cannot_hold:
                return bytes(data).decode(errors="surrogateescape")

    return TextFallbackLoader


def _text_fallback_psycopg2(cursor: Any, psycopg2: Any) -> None:  # noqa: ANN401
    extensions = psycopg2.extensions
    known = ChainMap(cursor.connection.string_types, extensions.string_types)
    for oid, array in _FALLIBLE_OIDS.items():
        soft = extensions.new_type((oid,), "SOFT", _text_fallback_cast(known[oid], (psycopg2.DataError, *_CANNOT_HOLD)))
        extensions.register_type(soft, cursor)
        extensions.register_type(extensions.new_array_type((array,), "SOFT[]", soft), cursor)


def _text_fallback_cast(
    own: Callable[[str, Any], Any], cannot_hold: tuple[type[Exception], ...]
) -> Callable[[str | None, Any], Any]:
    def cast(text: str | None, cursor: Any) -> Any:  # noqa: ANN401
        # The driver makes the end of the year 9999 of infinity: a time that nobody wrote.
        if text is None or text.endswith("infinity"):
            return text
        try:
            return own(text, cursor)
        except cannot_hold:
            return text

    return cast


def _is_named(cursor: Any) -> bool:  # noqa: ANN401
    return getattr(cursor, "name", None) == "airflow_provider_ropo"
