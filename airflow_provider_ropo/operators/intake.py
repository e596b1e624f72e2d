"""Rows come in: read, understood, put in order. Nothing is posted before the last one is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event import RowReader
from airflow_provider_ropo.source import run_query
from airflow_provider_ropo.spool import Spool

log = logging.getLogger(__name__)

#: Makes a reader of rows with these column names: a :class:`RowReader` with the task's settings.
MakeReader = Callable[..., RowReader]

PROGRESS_EVERY = 100_000


def take_query(
    spool: Spool,
    connection: Any,  # noqa: ANN401 - PEP 249 has no type
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None,
    make_reader: MakeReader,
) -> int:
    """Take every row of a query into the spool, and settle it.

    :param connection: an open DB-API connection; the caller closes it.
    :return: the number of rows.
    :raises RopoConfigurationError: if the query's columns cannot make events, rows or no rows.
    """
    with run_query(connection, sql, parameters) as query:
        reader = make_reader(query.names)
        number = _take(spool, ((reader, values) for values in query.rows))
    spool.settle(gathers=reader.gathers)
    return number


def take_mappings(spool: Spool, rows: object, make_reader: MakeReader) -> int:
    """Take a list of row mappings into the spool, and settle it. Not every row needs to have the same keys.

    :return: the number of rows.
    :raises RopoConfigurationError: if it is no list of mappings.
    """
    readers: dict[tuple[Any, ...], RowReader] = {}

    def understood() -> Iterator[tuple[RowReader, Sequence[Any]]]:
        for row in _checked(rows):
            names = tuple(row)
            if names not in readers:
                readers[names] = make_reader(names, check=False)
            yield readers[names], tuple(row.values())

    number = _take(spool, understood())
    spool.settle(gathers=all(reader.gathers for reader in readers.values()))
    return number


def _take(spool: Spool, rows: Iterable[tuple[RowReader, Sequence[Any]]]) -> int:
    number = 0
    for number, (reader, values) in enumerate(rows, 1):
        try:
            spool.add(number, reader.read(values, number))
        except InvalidRowError as error:
            spool.reject(number, error)
        if number % PROGRESS_EVERY == 0:
            log.info("Read %s rows so far", f"{number:,}")
    return number


def _checked(rows: object) -> Iterator[Mapping[str, Any]]:
    remedy = "`events` takes a list of row mappings, or the output of a task that returns one"
    if rows is None or isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        hint = "; a template gives text: use the task's .output instead" if isinstance(rows, str) else ""
        raise RopoConfigurationError(f"{remedy}; this is a {type(rows).__name__}{hint}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise RopoConfigurationError(f"{remedy}; item {number} is a {type(row).__name__}")
        yield row
