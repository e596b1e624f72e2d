"""Read rows from a query or a list into the spool; nothing is posted before the last row is in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event.driver_values import as_mapping
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.query import run_query
from airflow_provider_ropo.intake.spool import Spool

#: Makes a reader of rows with these column names: a :class:`RowReader` with the task's settings.
MakeReader = Callable[..., RowReader]

#: Readers that are kept at a time, one for each different list of keys; and keys that a message names.
MAX_KEYS = 100


def take_query(
    spool: Spool,
    connection: Any,
    sql: str,
    parameters: Sequence[Any] | Mapping[str, Any] | None,
    make_reader: MakeReader,
) -> int:
    """Read every row of a query into the spool, and merge the rows of one event there.

    :param connection: an open DB-API connection; the caller closes it.
    :return: the number of rows.
    :raises RopoConfigurationError: if the query's columns cannot make events, rows or no rows.
    """
    with run_query(connection, sql, parameters) as query:
        reader = make_reader(query.names)
        number = _take(spool, ((reader, values) for values in query.rows))
    spool.merge_rows(merges_invoices=reader.merges_invoices)
    return number


def take_mappings(
    spool: Spool,
    rows: object,
    make_reader: MakeReader,
    *,
    columns: Mapping[str, str] | None = None,
    source: str = "`events`",
) -> int:
    """Read a list of row mappings into the spool, and merge the rows of one event there.

    Not every row needs to have the same keys; a named tuple or another object with names is a mapping, too.

    :param columns: event field → key, where they differ; those that the reader knows.
    :param source: where the rows come from, for messages.
    :return: the number of rows.
    :raises RopoConfigurationError: if it is no list of mappings, or no row at all has a key of ``columns``.
    """
    keys = _Keys(make_reader, columns or {}, source)
    number = _take(spool, ((keys.reader(tuple(row)), tuple(row.values())) for row in _checked(rows)))
    if number:
        keys.check()
    spool.merge_rows(merges_invoices=keys.merges_invoices)
    return number


class _Keys:
    """The keys of row mappings: a reader for each list of them, and a check of all of them at the end."""

    def __init__(self, make_reader: MakeReader, columns: Mapping[str, str], source: str) -> None:
        #: Rows of one event may be merged: none of them has a list of invoices.
        self.merges_invoices = True
        self._make_reader = make_reader
        self._source = source
        self._absent = {name.casefold(): name for name in columns.values()}
        self._there: dict[str, None] = {}
        # Rows that each have other keys are unusual, but they must not fill the memory.
        self.reader = lru_cache(maxsize=MAX_KEYS)(self._new_reader)

    def check(self) -> None:
        """Refuse a key of ``columns`` that no row has: its field would be missing from every event, unnoticed."""
        if self._absent:
            raise RopoConfigurationError(
                f"the rows of {self._source} have the keys {', '.join(self._there)}, but no row has "
                f"{', '.join(self._absent.values())}; name the right key in `columns`"
            )

    def _new_reader(self, names: tuple[Any, ...]) -> RowReader:
        reader = self._make_reader(names, check=False)
        self.merges_invoices = self.merges_invoices and reader.merges_invoices
        for name in map(str, names):
            self._absent.pop(name.casefold(), None)
            if len(self._there) < MAX_KEYS:
                self._there[name] = None
        return reader


def _take(spool: Spool, rows: Iterable[tuple[RowReader, Sequence[Any]]]) -> int:
    number = 0
    for number, (reader, values) in enumerate(rows, 1):
        try:
            spool.add(number, reader.read(values, number))
        except InvalidRowError as error:
            spool.reject(number, error)
    return number


def _checked(rows: object) -> Iterator[Mapping[str, Any]]:
    remedy = "`events` takes a list of row mappings, or the output of a task that returns one"
    if rows is None or isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        hint = "; a template gives text: use the task's .output instead" if isinstance(rows, str) else ""
        raise RopoConfigurationError(f"{remedy}; this is a {type(rows).__name__}{hint}")
    for number, item in enumerate(rows, 1):
        row = as_mapping(item)
        if row is None:
            raise RopoConfigurationError(f"{remedy}; item {number} is a {type(item).__name__}")
        yield row
