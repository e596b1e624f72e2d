"""Send the events of a spool as one file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from airflow_provider_ropo.delivery import Delivery
from airflow_provider_ropo.errors import (
    FileStoreError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    SpoolError,
)
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.export.exporter import Exporter
from airflow_provider_ropo.export.formats import FileFormat, JsonLinesFormat
from airflow_provider_ropo.export.marker import Marker
from airflow_provider_ropo.export.publisher import FilePaths, FilePublisher
from airflow_provider_ropo.export.store import FileStore
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.unsent import end_sending


@dataclass(frozen=True)
class FileChannel:
    """Sends all events of a run as one file.

    :param store: where the file goes; closed after the sending.
    :param name: what the file's name begins with: the same for every try of a run.
    :param paths: the folder, and the name while the file is uploaded.
    :param format: how events are written.
    :param marker: the file that follows it; None: none does.
    :param hold: hold the events of a file that may have arrived, instead of sending the same file again.
    :param sends_empty: send a file without events if no rows were read.
    """

    store: FileStore
    name: str
    paths: FilePaths = field(default_factory=FilePaths)
    format: FileFormat = field(default_factory=JsonLinesFormat)
    marker: Marker | None = None
    hold: bool = False
    sends_empty: bool = False

    def payload(self, event: UsageplaceEvent) -> dict[str, Any]:
        """Return what is sent for an event, in the words of the REST interface."""
        return event.to_payload()

    def send(
        self,
        spool: Spool,
        ledger: DeliveryLedger | None,
        *,
        report: Report,
        stop: threading.Event,
        on_delivery: Callable[[Delivery], None],
    ) -> RopoError | None:
        """Send what is in a spool, and count the delivery statuses; return why it could not be sent, if so.

        :param ledger: remembers deliveries and how far the file came; the caller closes it.
        :param report: counts what is not sent, and publishes progress.
        :param stop: set, from any thread, to end soon.
        :param on_delivery: takes and counts each event's delivery, on the calling thread.
        :raises RopoConfigurationError: if there is no ledger, or the destination refuses the connection.
        """
        if ledger is None:
            raise RopoConfigurationError("`ledger_table` is missing: a file is sent only with a ledger")
        report.start_posting(spool.count())
        exporter = Exporter(
            spool,
            FilePublisher(self.store, self.paths, ledger, self.marker),
            on_delivery,
            ledger=ledger,
            format_=self.format,
            name=self.name,
            hold=self.hold,
            stop=stop,
            report=report,
        )
        unsent: Iterable[UsageplaceEvent] = chain.from_iterable(spool.lanes())
        stopped: RopoError | None = None
        with closing(self.store):
            try:
                ledger.record_invalid(report.follow(spool.invalid()))
                unsent = exporter.unsent()
                if report.summary.rows:
                    exporter.run()
                elif self.sends_empty:
                    exporter.send_empty()
                exporter.finish_left_files()
            except (FileStoreError, RopoLedgerError, SpoolError) as error:
                stopped = error
            finally:
                stopped = end_sending(unsent, ledger, report, stopped)
        return stopped
