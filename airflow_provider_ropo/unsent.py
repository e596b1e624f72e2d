"""Count and record the events that a run did not come to."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress

from airflow_provider_ropo.errors import RopoError, RopoLedgerError, SpoolError, SupersededError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import BATCH, batches
from airflow_provider_ropo.reporting.report import Report

log = logging.getLogger(__name__)


def end_sending(
    unsent: Iterable[UsageplaceEvent], ledger: DeliveryLedger | None, report: Report, stopped: RopoError | None
) -> RopoError | None:
    """Count the events that are left, and record them, unless it is the ledger that failed.

    :param unsent: the events that the run did not come to.
    :param stopped: why nothing more could be sent, if that is known.
    :return: why nothing more could be sent, if so.
    """
    left = report.remaining
    if left:
        _count_unsent(unsent, ledger, report, stopped)
    if ledger is not None and ledger.stale:
        log.warning("%s events were stale: a later one of their place was delivered", ledger.stale)
    if stopped is None and left:
        stopped = RopoError(f"the task was told to stop: {left:,} events are not sent")
    if stopped is not None:
        report.stop(stopped)
    return stopped


def _count_unsent(
    unsent: Iterable[UsageplaceEvent], ledger: DeliveryLedger | None, report: Report, stopped: RopoError | None
) -> None:
    if ledger is not None and not isinstance(stopped, SupersededError):
        detail, write = f"not sent: {stopped or 'the run was stopped'}", not isinstance(stopped, RopoLedgerError)
        try:
            parts = batches(unsent, BATCH)
            # A task that is told to stop has a few seconds to record this, and none to publish progress.
            for events in parts if stopped is None else report.follow(parts):
                for delivery in ledger.record_unsent(events, detail, write=write):
                    report.on_unsent(delivery)
        except (RopoLedgerError, SpoolError) as error:
            log.error("the events that were not sent are not recorded: %s", error)  # noqa: TRY400
    elif ledger is None:
        with suppress(SpoolError):
            for event in unsent:
                report.summary.note_open(event.time)
    report.count_undelivered(report.remaining)
