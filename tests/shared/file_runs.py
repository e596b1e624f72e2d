"""A whole run that sends its events in a file, without Airflow; imported as ``from file_runs import FileRuns``."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.errors import RopoError
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.export.channel import FileChannel
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.intake.reader import take_mappings
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.maintenance import Settlement, settle
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.timezones import find_timezone

NAME = "usageplace_events_20260114T030000Z"


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    counts: Mapping[str, int]
    stopped: RopoError | None
    summary: DeliverySummary

    def number(self, status: DeliveryStatus) -> int:
        return self.counts[status.value]


class FileRuns:
    """Runs one after another, or side by side, that share a ledger.

    :param address: SQLAlchemy's, of the ledger's database.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def run(
        self,
        rows: Iterable[Mapping[str, Any]],
        store: FileStore,
        *,
        run_id: str = "run",
        try_number: int = 1,
        name: str = NAME,
        stop: threading.Event | None = None,
        policy: Mapping[str, Any] | None = None,
        wrap: Callable[[DeliveryLedger], DeliveryLedger] = lambda ledger: ledger,
        **channel: Any,
    ) -> Ended:
        """Read the rows and send them in a file.

        :param policy: what the ledger is told.
        :param wrap: makes another ledger of the real one.
        :param channel: the other parameters of the channel.
        """
        me = Claimant("dag", "report", run_id, -1, try_number, f"{run_id} {try_number} {threading.get_ident()}")
        engine = self._engine()
        table = LedgerTable(engine, "ropo_ledger")
        policy = policy or {}
        summary = DeliverySummary()
        zone = "Europe/Helsinki"
        with (
            Spool(find_timezone(zone)) as spool,
            Report(summary) as report,
            closing(wrap(DeliveryLedger(table, store.destination, me, LedgerPolicy(**policy)))) as ledger,
        ):
            ledger.prepare()
            summary.rows = take_mappings(
                spool, rows, lambda names, *, check=True: RowReader(names, timezone=zone, check=check)
            )
            hold = policy.get("on_unconfirmed") == "hold"
            sender = FileChannel(store, name, hold=hold, **channel)
            stop = stop or threading.Event()
            stopped = sender.send(spool, ledger, report=report, stop=stop, on_delivery=report.on_delivery)
        return Ended(summary.as_dict(), stopped, summary)

    def _engine(self) -> sa.engine.Engine:
        options: dict[str, Any] = {"connect_args": {"timeout": 60}} if self._address.startswith("sqlite") else {}
        engine = sa.create_engine(self._address, hide_parameters=True, poolclass=NullPool, **options)
        if options:
            # What a killed process has written is there; only a machine that fails would lose it.
            sa.event.listen(engine, "connect", lambda each, _record: each.execute("PRAGMA synchronous = OFF"))
        return engine

    def rows_of(self, event_id: str) -> list[Any]:
        """Return the ledger's rows about an event or a file, oldest first."""
        engine = self._engine()
        table = sa.Table("ropo_ledger", sa.MetaData(), autoload_with=engine)
        with engine.connect() as connection:
            query = sa.select(table).where(table.c.event_id == event_id).order_by(table.c.recorded_at)
            return list(connection.execute(query))

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        """Change the ledger's SQLite file."""
        with closing(sqlite3.connect(self._address.removeprefix("sqlite:///"))) as database, database:
            yield database

    def settle(self, name: str, status: str) -> None:
        """Settle a file by its name, as a person does."""
        engine = self._engine()
        # The run that sent it has ended: its claim is not waited for.
        settlement = Settlement(
            event_ids=[name], settle_as=status, reason="asked Ropo", who="a person", claim_timeout=0.001
        )
        with closing(LedgerTable(engine, "ropo_ledger")) as table:
            settle(table, settlement)

    def statuses(self, event_id: str) -> list[str]:
        """Return the delivery statuses of the ledger's rows about an event or a file, oldest first."""
        return [row.delivery_status for row in self.rows_of(event_id)]


def rows(count: int, places: int = 0, first: int = 0) -> list[dict[str, Any]]:
    """Return rows, by default of a usage place each."""
    return [
        {
            "id": f"e{number}",
            "usageplacecode": f"RE{number % places if places else number}",
            "status": "connected",
            "time": f"2026-01-14 {number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}",
            "invoicenumber": f"{number}",
            "jobid": number,
        }
        for number in range(first, first + count)
    ]


class StoreOf(FileStore):
    """A store around another; subclasses break some of what it does."""

    def __init__(self, store: FileStore) -> None:
        self.inner = store

    @property
    def destination(self) -> str:
        return self.inner.destination

    def put(self, file: BinaryIO, name: str, *, replace: bool) -> None:
        self.inner.put(file, name, replace=replace)

    def publish(self, temporary: str, name: str) -> None:
        self.inner.publish(temporary, name)

    def look(self, name: str) -> int | None:
        return self.inner.look(name)

    def remove(self, name: str) -> None:
        self.inner.remove(name)

    def close(self) -> None:
        self.inner.close()
