"""One whole run, without Airflow: rows are read, set in order, posted or previewed, counted and reported."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.delivery import Delivery, end_of
from airflow_provider_ropo.dispatch.circuit_breaker import asks_for_long
from airflow_provider_ropo.dispatch.dispatcher import LOOK_UP_SIZE, Dispatcher
from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    RopoUnavailableError,
    SpoolError,
    SupersededError,
)
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import RowReader, mask_payload
from airflow_provider_ropo.intake.reader import take_mappings, take_query
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action, Decision
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import batches
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.retry import Backoff, call_with_retries
from airflow_provider_ropo.timezones import DEFAULT_TIMEZONE, find_timezone

log = logging.getLogger(__name__)

#: Number of payloads that a preview shows.
SAMPLE_SIZE = 5


@dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
    """How one run reads, posts and judges; checked when it is made.

    :param columns: event field → column name, where they differ.
    :param statuses: the warehouse's status value → ``disconnected``, ``connected`` or ``notdisconnected``.
    :param timezone: the zone of times that name none, and of those that Ropo One is told.
    :param jobid_as_string: send each ``jobid`` as text.
    :param max_workers: parallel posts.
    :param rate_limit: posts a second over all workers, at most; None: no limit.
    :param max_failed: rejected, invalid and changed events tolerated: a count, or a fraction below 1.
    :param preview: read, check and count everything, and post and write nothing.
    :raises RopoConfigurationError: naming the parameter.
    """

    columns: Mapping[str, str] | None = None
    statuses: Mapping[Any, str] | None = None
    timezone: str = DEFAULT_TIMEZONE
    jobid_as_string: bool = False
    max_workers: int = 8
    rate_limit: float | None = None
    max_failed: float = 0
    preview: bool = False

    def __post_init__(self) -> None:
        for name in ("columns", "statuses"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise RopoConfigurationError(f"`{name}` must be a mapping, or None")
        if not is_number(self.max_workers) or not isinstance(self.max_workers, int) or self.max_workers < 1:
            raise RopoConfigurationError("`max_workers` must be 1 or more, a whole number")
        if self.rate_limit is not None and not (is_number(self.rate_limit) and self.rate_limit > 0):
            raise RopoConfigurationError("`rate_limit` must be more than 0 posts a second, or None")
        if not (is_number(self.max_failed) and self.max_failed >= 0):
            raise RopoConfigurationError("`max_failed` must be a count, or a fraction below 1")
        find_timezone(self.timezone)

    def make_reader(self, names: Sequence[str], *, check: bool = True) -> RowReader:
        """Return the reader of rows with these column names; the parameters are those of :class:`RowReader`."""
        return RowReader(names, columns=self.columns, statuses=self.statuses, timezone=self.timezone, check=check)


def is_number(value: object) -> bool:
    """Return whether the value is a number; Python counts true and false among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)


class RowSource(Protocol):
    """Where a run's rows come from."""

    def read_into(self, spool: Spool, options: DeliveryOptions) -> int:
        """Read every row into the spool, let the source go, and return the number of rows.

        :raises RopoConfigurationError: if what comes can make no events at all.
        """


@dataclass(frozen=True)
class QueryRows:
    """The rows of one query.

    :param connect: opens a DB-API connection, which is closed when the last row is read.
    :param sql: one statement that returns rows.
    :param parameters: its parameters, in the driver's own style.
    """

    connect: Callable[[], Any]
    sql: str
    parameters: Sequence[Any] | Mapping[str, Any] | None = None

    def read_into(self, spool: Spool, options: DeliveryOptions) -> int:
        """Run the query and read its rows into the spool."""
        with closing(self.connect()) as connection:
            return take_query(spool, connection, self.sql, self.parameters, options.make_reader)


@dataclass(frozen=True)
class MappingRows:
    """Row mappings, which need not all have the same keys.

    :param rows: an iterable of mappings; read once.
    :param name: what the rows come from, in messages.
    """

    rows: object
    name: str = "`events`"

    def read_into(self, spool: Spool, options: DeliveryOptions) -> int:
        """Read the mappings into the spool."""
        return take_mappings(spool, self.rows, options.make_reader, columns=options.columns, source=self.name)


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    :param summary: the counts, the first failures, and a preview's sample of payloads.
    :param stopped: why nothing more could be posted, if so.
    :param failure: more events failed than are tolerated.
    """

    summary: DeliverySummary
    stopped: RopoError | None = None
    failure: DeliveriesFailedError | None = None

    @property
    def error(self) -> RopoError | None:
        """The error that the run ends with, if any."""
        return self.stopped or self.failure


def deliver(
    rows: RowSource,
    client: RopoClient,
    ledger: DeliveryLedger | None,
    options: DeliveryOptions,
    *,
    report: Report,
    stop: threading.Event,
    on_delivery: Callable[[Delivery], None] = lambda _delivery: None,
) -> RunResult:
    """Run once: read all rows, set their events in order, post or preview them, and count.

    :param client: signs in and posts; its connections are closed after the posting.
    :param ledger: remembers deliveries, its table made if it is missing; the caller closes it.
    :param report: counts and publishes progress. It is the caller's, so that the counts survive an exception, and an
        error before or in this run is in the last report.
    :param stop: set, from any thread, to end the posting soon.
    :param on_delivery: called with the delivery of each event that was looked up or posted, on the calling thread.
    :raises RopoConfigurationError: if the rows can make no events; nothing is posted then.
    :raises RopoLedgerError: if the ledger's table cannot be made; nothing is posted then.
    """
    summary = report.summary
    with Spool(find_timezone(options.timezone)) as spool:
        if ledger is not None and not options.preview:
            ledger.prepare()
        summary.rows = _read(rows, spool, options)
        for error in spool.invalid():
            summary.add(Delivery.of_invalid_row(error))
        stopped = None
        if options.preview:
            preview_spool(spool, ledger, options, summary)
        else:
            stopped = post_spool(spool, client, ledger, options, report=report, stop=stop, on_delivery=on_delivery)
    return RunResult(summary, stopped, summary.failure(options.max_failed))


def _read(rows: RowSource, spool: Spool, options: DeliveryOptions) -> int:
    started = time.monotonic()
    count = rows.read_into(spool, options)
    log.info("Read %s rows in %.1f s", f"{count:,}", time.monotonic() - started)
    return count


def preview_spool(
    spool: Spool, ledger: DeliveryLedger | None, options: DeliveryOptions, summary: DeliverySummary
) -> None:
    """Count what a run would do, keep and log the first payloads, and leave every event where it is."""
    known = ledger if ledger is not None and ledger.exists() else None
    for events in batches(chain.from_iterable(spool.lanes()), LOOK_UP_SIZE):
        decisions = known.decide(events) if known is not None else [Decision(Action.SEND)] * len(events)
        for event, decision in zip(events, decisions, strict=True):
            if decision.action is not Action.SEND:
                summary.add(end_of(event, STATUS_OF_ACTION[decision.action], decision.detail))
                continue
            summary.count_undelivered(1)
            if len(summary.sample) < SAMPLE_SIZE:
                payload = mask_payload(event.to_payload(jobid_as_string=options.jobid_as_string))
                summary.sample.append(payload)
                log.info("Preview: would post %s", json.dumps(payload, ensure_ascii=False))


def post_spool(
    spool: Spool,
    client: RopoClient,
    ledger: DeliveryLedger | None,
    options: DeliveryOptions,
    *,
    report: Report,
    stop: threading.Event,
    on_delivery: Callable[[Delivery], None] = lambda _delivery: None,
) -> RopoError | None:
    """Post what is in a spool, and count the delivery statuses; return why nothing more could be posted, if so.

    The parameters are those of :func:`deliver`.
    """

    def count(delivery: Delivery) -> None:
        report.on_delivery(delivery)
        on_delivery(delivery)

    report.start_posting(spool.count())
    backoff = Backoff()
    dispatcher = Dispatcher(
        lambda event: client.post_usageplace_event(event.to_payload(jobid_as_string=options.jobid_as_string)),
        count,
        ledger=ledger,
        max_workers=options.max_workers,
        rate_limit=options.rate_limit,
        stop=stop,
        backoff=backoff,
        report=report,
    )
    # What the dispatcher has not begun with, it leaves where it is.
    unsent: Iterable[UsageplaceEvent] = chain.from_iterable(spool.lanes())
    stopped: RopoError | None = None
    try:
        if ledger is not None:
            ledger.record_invalid(spool.invalid())
        if report.remaining:
            stopped = _sign_in(client, backoff, stop)
            if stopped is None:
                unsent = dispatcher.unsent()
                dispatcher.run(spool.lanes())
    except (RopoAuthenticationError, RopoLedgerError, RopoUnavailableError, SpoolError) as error:
        stopped = error
    finally:
        client.close()
        left = report.remaining
        if left:
            _count_unsent(unsent, ledger, report, stopped)
        if ledger is not None and ledger.stale:
            log.warning("%s events were stale: a later one of their place was delivered", ledger.stale)
    if stopped is None and left:
        stopped = RopoError(f"told to stop: {left:,} events are left for the next try")
    if stopped is not None:
        report.stop(stopped)
    return stopped


def _sign_in(client: RopoClient, backoff: Backoff, stop: threading.Event) -> RopoError | None:
    """Sign in before the first event: a wrong API code or server is one error, not one an event."""
    signed_in = call_with_retries(client.sign_in, backoff, what="sign-in", wait=stop.wait)
    if isinstance(signed_in.result, RopoError):
        return asks_for_long(signed_in.result, backoff.max_retry_after) or signed_in.result
    return None


def _count_unsent(
    unsent: Iterable[UsageplaceEvent], ledger: DeliveryLedger | None, report: Report, stopped: RopoError | None
) -> None:
    """Count the events that the run did not come to, and record them, unless it is the ledger that failed."""
    if ledger is not None and not isinstance(stopped, SupersededError):
        detail, write = f"not sent: {stopped or 'the run was stopped'}", not isinstance(stopped, RopoLedgerError)
        try:
            for events in batches(unsent, LOOK_UP_SIZE):
                for delivery in ledger.record_unsent(events, detail, write=write):
                    report.on_unsent(delivery)
        except (RopoLedgerError, SpoolError) as error:
            log.error("the events that were not sent are not recorded: %s", error)  # noqa: TRY400
    report.count_undelivered(report.remaining)
