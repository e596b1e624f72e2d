"""Put events in sending order on disk: one per id with all its invoices, by time within a usage place.

A million events need no more memory than ten. The spool is a private temporary SQLite database that the operating
system removes with the process, however that ends: no customer's data stays behind. It is as large as the events, in
the folder that ``SQLITE_TMPDIR`` or ``TMPDIR`` names, else in ``/var/tmp``.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from airflow_provider_ropo.errors import InvalidRowError, SpoolError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.event.model import row_label

BATCH = 2_000
#: Rows between two calls of `on_progress`.
PROGRESS_EVERY = 100
#: Events of a lane that are in memory at a time.
PAGE = 64
#: More invoices than anyone has; it keeps one event from filling the memory.
MAX_INVOICES = 10_000

_TOO_MANY = f"is that of an event with more than {MAX_INVOICES:,} invoices"
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_STATUSES = {status.value: status for status in UsageplaceStatus}

# Nothing is ever rolled back, and nobody else reads it.
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE event (
    number INTEGER PRIMARY KEY, id, usageplacecode, status, time, customernumber, contract_no, description, invoices
);
CREATE TABLE invalid (number INTEGER PRIMARY KEY, id, usageplacecode, row, column_name, reason);
"""
_INSERT_EVENT = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_INVALID = "INSERT INTO invalid VALUES (?, ?, ?, ?, ?, ?)"
_GIVE_UP = """
INSERT INTO invalid SELECT number, id, usageplacecode, row_label(number, id), 'id', ? FROM event WHERE id = ?
"""
_COLUMNS = "id, usageplacecode, status, time, customernumber, contract_no, description, invoices"

# Ids that several rows share, or share with a row that is invalid: merged or rejected one by one.
_SHARED = """
CREATE INDEX event_id ON event (id);
CREATE INDEX lane ON event (usageplacecode, time, number);
CREATE INDEX invalid_id ON invalid (id);
CREATE TABLE shared AS
    SELECT id FROM event GROUP BY id HAVING count(*) > 1
    UNION SELECT id FROM event WHERE id IN (SELECT id FROM invalid);
"""
# The places by their first event, each with a rowid in that order; then the events need not be sorted on the disk.
_PLACES = """
CREATE TABLE IF NOT EXISTS place AS
    SELECT usageplacecode AS code, min(time) AS start FROM event GROUP BY code ORDER BY start, code
"""
_LANES = f"""
SELECT {_COLUMNS}, number FROM place CROSS JOIN event ON usageplacecode = code ORDER BY place.rowid, time, number
"""
_REST_OF_LANE = f"""
SELECT {_COLUMNS}, number FROM event
WHERE usageplacecode = ? AND (time, number) > (?, ?) ORDER BY time, number LIMIT ?
"""


class Spool:
    """Store events in reading order, and return them in sending order.

    Every method, and every event that is read back, may raise a :class:`SpoolError`.

    :param zone: the time zone of the events' times.
    :param on_progress: called with the number of rows taken so far, now and then while rows are taken and merged.
    """

    def __init__(self, zone: dt.tzinfo, on_progress: Callable[[int], None] = lambda _rows: None) -> None:
        self._zone = zone
        self._on_progress = on_progress
        self._rows_taken = 0
        self._merges_invoices = False
        self._events: list[tuple[Any, ...]] = []
        self._invalid: list[tuple[Any, ...]] = []
        # An empty name: SQLite's own temporary database, on disk, private, gone with the connection.
        with _disk_errors():
            self._database = sqlite3.connect("", isolation_level=None)
            self._database.create_function("row_label", 2, row_label)
            self._database.executescript(_SCHEMA)
            self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        """Return the spool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the spool."""
        self._database.close()

    def add(self, number: int, event: UsageplaceEvent) -> None:
        """Take the event of a row.

        :param number: the row's number in reading order.
        """
        self._count(number)
        invoices = event.invoices
        if len(invoices) > MAX_INVOICES:
            label, place = row_label(number, event.id), event.usageplacecode
            self.reject(number, InvalidRowError(label, "id", _TOO_MANY, event_id=event.id, usageplacecode=place))
            return
        self._events.append(
            (
                number,
                event.id,
                event.usageplacecode,
                event.status.value,
                (event.time - _EPOCH) // _MICROSECOND,
                event.customernumber,
                event.contract_no,
                event.description,
                json.dumps([(invoice.invoicenumber, invoice.jobid) for invoice in invoices]) if invoices else None,
            )
        )
        if len(self._events) >= BATCH:
            self._flush()

    def reject(self, number: int, error: InvalidRowError) -> None:
        """Take a row that cannot become an event."""
        self._count(number)
        self._invalid.append((number, error.event_id, error.usageplacecode, error.row, error.column, error.reason))
        if len(self._invalid) >= BATCH:
            self._flush()

    def merge_rows(self, *, merges_invoices: bool) -> None:
        """Merge the rows of one id to one event, and reject those that contradict each other, after the last row.

        :param merges_invoices: rows of one id that differ in their invoices alone are one event.
        """
        self._merges_invoices = merges_invoices
        self._flush()
        with _disk_errors():
            self._database.executescript(_SHARED)
            self._database.execute("BEGIN")
        last = 0
        while batch := self._all("SELECT rowid, id FROM shared WHERE rowid > ? LIMIT ?", last, BATCH):
            for _rowid, event_id in batch:
                self._merge_rows_of(event_id)
                self._on_progress(self._rows_taken)
            last = batch[-1][0]

    def keep_only(self, event_ids: Iterable[str]) -> list[str]:
        """Remove every event and invalid row but those with these ids, after :meth:`merge_rows`.

        :return: the ids that no row has.
        """
        with _disk_errors():
            self._database.execute("CREATE TABLE wanted (id PRIMARY KEY)")
            self._database.executemany("INSERT OR IGNORE INTO wanted VALUES (?)", ((each,) for each in event_ids))
        self._all("DELETE FROM event WHERE id NOT IN (SELECT id FROM wanted)")
        self._all("DROP TABLE IF EXISTS place")
        self._all("DELETE FROM invalid WHERE id IS NULL OR id NOT IN (SELECT id FROM wanted)")
        missing = "SELECT id FROM wanted EXCEPT SELECT id FROM event EXCEPT SELECT id FROM invalid ORDER BY id"
        return [event_id for (event_id,) in self._all(missing)]

    def invalid(self) -> Iterator[InvalidRowError]:
        """Yield the errors of the rows that are no event, in reading order."""
        query = "SELECT row, column_name, reason, id, usageplacecode FROM invalid ORDER BY number"
        for row, column, reason, event_id, place in self._rows(query):
            yield InvalidRowError(row, column, reason, event_id=event_id, usageplacecode=place)

    def count(self) -> int:
        """Return the number of events to send."""
        return int(self._all("SELECT count(*) FROM event")[0][0])

    def lanes(self) -> Iterator[Iterator[UsageplaceEvent]]:
        """Yield each usage place's events by time, then reading order; the place whose first is oldest first.

        Lanes may be read side by side. Of each, only a few events are in memory.
        """
        self._all(_PLACES)
        for _place, rows in groupby(self._rows(_LANES), key=itemgetter(1)):
            yield self._lane(list(islice(rows, PAGE)))

    def _lane(self, page: list[tuple[Any, ...]]) -> Iterator[UsageplaceEvent]:
        while page:
            yield from map(self._event, page)
            last = page[-1]
            page = self._all(_REST_OF_LANE, *last[1:2], *last[3:4], *last[-1:], PAGE) if len(page) == PAGE else []

    def _event(self, row: tuple[Any, ...]) -> UsageplaceEvent:
        event_id, code, status, time, customernumber, contract_no, description, invoices, *_ = row
        return UsageplaceEvent(
            event_id,
            code,
            _STATUSES[status],
            (_EPOCH + time * _MICROSECOND).astimezone(self._zone),
            customernumber,
            contract_no,
            description,
            tuple(Invoice(*invoice) for invoice in json.loads(invoices)) if invoices else (),
        )

    def _merge_rows_of(self, event_id: str) -> None:
        """Make one event of the rows that share an id, or reject all of them."""
        culprit = self._all(
            "SELECT row, column_name, reason FROM invalid WHERE id = ? ORDER BY number LIMIT 1", event_id
        )
        if culprit:
            row, column, reason = culprit[0]
            self._reject_all(event_id, f"belongs to an event with an invalid row ({row}: {column}: {reason})")
            return
        query = f"SELECT number, {_COLUMNS} FROM event WHERE id = ? ORDER BY number"
        rows = self._rows(query, event_id)
        number, *first = next(rows)
        invoices = dict.fromkeys(_invoices(first))
        reason = ""
        for _number, *other in rows:
            invoices.update(dict.fromkeys(_invoices(other)))
            reason = _contradiction(first, other, ignore_invoices=self._merges_invoices)
            if not reason and len(invoices) > MAX_INVOICES:
                reason = _TOO_MANY
            if reason:
                break
        # The query is over before its rows change.
        del rows
        if reason:
            self._reject_all(event_id, reason)
        else:
            self._merge(event_id, number, json.dumps(list(invoices)) if invoices else None)

    def _merge(self, event_id: str, number: int, invoices: str | None) -> None:
        self._all("UPDATE event SET invoices = ? WHERE number = ?", invoices, number)
        self._all("DELETE FROM event WHERE id = ? AND number <> ?", event_id, number)

    def _reject_all(self, event_id: str, reason: str) -> None:
        self._all(_GIVE_UP, reason, event_id)
        self._all("DELETE FROM event WHERE id = ?", event_id)

    def _count(self, number: int) -> None:
        self._rows_taken = number
        if number % PROGRESS_EVERY == 0:
            self._on_progress(number)

    def _flush(self) -> None:
        with _disk_errors():
            self._database.executemany(_INSERT_EVENT, self._events)
            self._database.executemany(_INSERT_INVALID, self._invalid)
        self._events.clear()
        self._invalid.clear()

    def _all(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        with _disk_errors():
            return self._database.execute(query, parameters).fetchall()

    def _rows(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query, of which a page is in memory at a time."""
        return chain.from_iterable(self._pages(query, *parameters))

    def _pages(self, query: str, *parameters: object) -> Iterator[list[tuple[Any, ...]]]:
        with _disk_errors():
            cursor = self._database.execute(query, parameters)
            while page := cursor.fetchmany(PAGE):
                yield page


@contextmanager
def _disk_errors() -> Iterator[None]:
    """Translate SQLite's failures: all that can fail here is the disk.

    :raises SpoolError: naming the folder, and the setting that moves it.
    """
    try:
        yield
    except sqlite3.OperationalError as error:
        raise SpoolError(
            f"the events that were read do not fit on the disk, or it failed ({error}): they are kept in "
            f"{temporary_folder()}; make room there, or set the worker's environment variable SQLITE_TMPDIR "
            "(or TMPDIR) to another folder"
        ) from error


def temporary_folder() -> str:
    """Return the folder in which SQLite puts its temporary databases (https://sqlite.org/tempfiles.html, section 5)."""
    named = [os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR")]
    folders = [*filter(None, named), "/var/tmp", "/usr/tmp", "/tmp"]  # noqa: S108 - SQLite's own
    return next((each for each in folders if Path(each).is_dir() and os.access(each, os.W_OK | os.X_OK)), ".")


def _invoices(row: list[Any]) -> list[tuple[str | None, int | None]]:
    return [tuple(invoice) for invoice in json.loads(row[-1])] if row[-1] else []


def _contradiction(first: list[Any], other: list[Any], *, ignore_invoices: bool) -> str:
    """Return the reason why two rows are not one event, naming the fields that differ; empty if none does."""
    names = _COLUMNS.split(", ")
    pairs = dict(zip(names, zip(first, other, strict=True), strict=True))
    # Ropo One receives whole seconds.
    pairs["time"] = (first[3] // 1_000_000, other[3] // 1_000_000)
    if ignore_invoices:
        del pairs["invoices"]
    names = sorted(name for name, (one, another) in pairs.items() if one != another)
    return f"stands on another row with a different {', '.join(names)}" if names else ""
