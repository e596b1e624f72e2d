"""One whole run, without Airflow: rows are read, set in order, posted or previewed, counted and reported."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from airflow_provider_ropo.delivery import Delivery, end_of, first_of
from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    InvalidRowError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    RunRefusedError,
)
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import RowReader, mask_payload
from airflow_provider_ropo.intake.approval import ApprovalDigest, ApprovalDigestBuilder
from airflow_provider_ropo.intake.reader import take_mappings, take_query
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.intake.volume import VolumeLimit, counts_text
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action, Decision
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import BATCH, batches
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.timezones import DEFAULT_TIMEZONE, find_timezone

log = logging.getLogger(__name__)

#: Number of payloads that a preview shows.
SAMPLE_SIZE = 5


@dataclass(frozen=True, kw_only=True)
class DeliveryOptions:
    """How one run reads and judges; checked when it is made.

    :param columns: event field → column name, where they differ.
    :param statuses: the warehouse's status value → ``disconnected``, ``connected`` or ``notdisconnected``.
    :param timezone: the zone of times that name none, and of those that Ropo One is told.
    :param max_failed: rejected, invalid and changed events tolerated: a count, or a fraction below 1.
    :param max_events: refuse before the first post if more would be posted: a count, or a count for each status.
    :param approved: the digest that a preview left; refuse before the first post if anything else would be posted.
    :param event_ids: only these events; empty: all.
    :param preview: read, check and count everything, and post and write nothing.
    :raises RopoConfigurationError: naming the parameter.
    """

    columns: Mapping[str, str] | None = None
    statuses: Mapping[Any, str] | None = None
    timezone: str = DEFAULT_TIMEZONE
    max_failed: float = 0
    max_events: int | Mapping[str, int] | None = None
    approved: str | None = None
    event_ids: Sequence[str] = ()
    preview: bool = False

    def __post_init__(self) -> None:
        for name in ("columns", "statuses"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise RopoConfigurationError(f"`{name}` must be a mapping, or None")
        if not (is_number(self.max_failed) and self.max_failed >= 0):
            raise RopoConfigurationError("`max_failed` must be a count, or a fraction below 1")
        VolumeLimit(self.max_events)
        if self.approved is not None:
            ApprovalDigest.parse(self.approved)
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


class Channel(Protocol):
    """How a run's events leave."""

    def payload(self, event: UsageplaceEvent) -> dict[str, Any]:
        """Return what is sent for an event."""

    def send(
        self,
        spool: Spool,
        ledger: DeliveryLedger | None,
        *,
        report: Report,
        stop: threading.Event,
        on_delivery: Callable[[Delivery], None],
    ) -> RopoError | None:
        """Send what is in a spool, count and record the delivery statuses; return why it had to stop, if so.

        :param on_delivery: takes and counts each event's delivery, on the calling thread.

        The other parameters are those of :func:`deliver`.
        """


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    :param summary: the counts, the first failures, and a preview's sample of payloads.
    :param stopped: why nothing more could be posted, if so.
    :param failure: more events failed than are tolerated.
    :param digest: of what a preview's run would post, for ``approved``.
    """

    summary: DeliverySummary
    stopped: RopoError | None = None
    failure: DeliveriesFailedError | None = None
    digest: str | None = None

    @property
    def error(self) -> RopoError | None:
        """The error that the run ends with, if any."""
        return self.stopped or self.failure


def deliver(
    rows: RowSource,
    channel: Channel,
    ledger: DeliveryLedger | None,
    options: DeliveryOptions,
    *,
    destination: str,
    report: Report,
    stop: threading.Event,
    on_delivery: Callable[[Delivery], None] = lambda _delivery: None,
) -> RunResult:
    """Run once: read all rows, set their events in order, send or preview them, and count.

    :param channel: how the events leave.
    :param ledger: remembers deliveries, its table made if it is missing; the caller closes it.
    :param destination: where the events go, by the name that the ledger has for it.
    :param report: counts and publishes progress. It is the caller's, so that the counts survive an exception, and an
        error before or in this run is in the last report.
    :param stop: set, from any thread, to end the posting soon.
    :param on_delivery: called with the delivery of each event that was looked up or posted, on the calling thread.
    :raises RopoConfigurationError: if the rows can make no events, or no row has an id of ``event_ids``; nothing is
        posted then.
    :raises RopoLedgerError: if the ledger's table cannot be made; nothing is posted then.
    """

    def count(delivery: Delivery) -> None:
        report.on_delivery(delivery)
        on_delivery(delivery)

    summary = report.summary
    with Spool(find_timezone(options.timezone), report.on_rows) as spool:
        if ledger is not None and not options.preview:
            ledger.prepare()
        summary.rows = _read(rows, spool, options)
        _count_invalid(report.follow(spool.invalid()), ledger, summary)
        plan = Plan(spool, ledger, channel, destination, report)
        if options.preview:
            digest = plan.preview()
            return RunResult(summary, None, summary.failure(options.max_failed), str(digest))
        stopped: RopoError | None = plan.refusal(options)
        if stopped is None:
            stopped = channel.send(spool, ledger, report=report, stop=stop, on_delivery=count)
        else:
            report.stop(stopped)
    return RunResult(summary, stopped, summary.failure(options.max_failed))


def _read(rows: RowSource, spool: Spool, options: DeliveryOptions) -> int:
    started = time.monotonic()
    count = rows.read_into(spool, options)
    log.info("Read %s rows in %.1f s", f"{count:,}", time.monotonic() - started)
    if options.event_ids and (missing := spool.keep_only(options.event_ids)):
        raise RopoConfigurationError(
            f"`event_ids`: no row has the id {first_of(missing)}; correct the id, or let the query select its row"
        )
    return count


def _count_invalid(invalid: Iterable[InvalidRowError], ledger: DeliveryLedger | None, summary: DeliverySummary) -> None:
    """Count the rows that are no event: invalid, or closed by a person."""
    for errors in batches(invalid, BATCH):
        deliveries = [Delivery.of_invalid_row(error) for error in errors]
        try:
            if ledger is not None and ledger.exists():
                deliveries = ledger.deliveries_of_invalid(errors)
        except RopoLedgerError as error:
            # Posting asks the ledger again, and stops then.
            log.error("it is not known which invalid rows are closed: %s", error)  # noqa: TRY400
        for delivery in deliveries:
            summary.add(delivery)


class Plan:
    """What a run would do with each event in a spool, as far as it is known before the first post.

    :param ledger: None: nothing is remembered.
    :param report: counts what is not sent, and publishes progress.
    """

    def __init__(
        self, spool: Spool, ledger: DeliveryLedger | None, channel: Channel, destination: str, report: Report
    ) -> None:
        self._spool = spool
        self._ledger = ledger
        self._channel = channel
        self._destination = destination
        self._report = report

    def preview(self) -> ApprovalDigest:
        """Count what a run would do, keep and log the first payloads; return the digest of what it would post."""
        digest, summary = ApprovalDigestBuilder(self._destination), self._report.summary
        if self._ledger is not None and not self._ledger.exists():
            self._ledger = None
        for event, decision in self._decisions():
            self._count(event, decision)
            if decision.action is Action.SEND:
                payload = self._channel.payload(event)
                digest.add(event.id, payload)
                if len(summary.sample) < SAMPLE_SIZE:
                    summary.sample.append(mask_payload(payload))
                    log.info("Preview: would post %s", json.dumps(summary.sample[-1], ensure_ascii=False))
        return digest.build()

    def refusal(self, options: DeliveryOptions) -> RunRefusedError | None:
        """Return why nothing may be posted, if more would be than is allowed, or anything else than was approved.

        Then every event is counted as it is; otherwise, the sending counts them. It sends only what was to be sent
        here: what another run let go of since was neither counted nor approved.
        """
        if options.max_events is None and options.approved is None:
            return None
        digest, counts = ApprovalDigestBuilder(self._destination), Counter[str]()
        for event, decision in self._decisions():
            if decision.action is Action.SEND:
                counts[event.status.value] += 1
            if decision.action is Action.SEND or self._is_of_this_run(decision):
                # What an earlier try of this task instance has sent belongs to what was approved.
                digest.add(event.id, self._channel.payload(event))
            if self._ledger is not None and decision.action not in {Action.SEND, Action.ALREADY_DELIVERED}:
                self._ledger.withhold(event.id)
        reason = _excess(options, counts) or _difference(options, digest.build())
        if reason is None:
            return None
        for event, decision in self._decisions():
            self._count(event, decision)
        return RunRefusedError(f"refused before the first post, nothing was posted: {reason}", counts=counts)

    def _decisions(self) -> Iterator[tuple[UsageplaceEvent, Decision]]:
        for events in self._report.follow(batches(chain.from_iterable(self._spool.lanes()), BATCH)):
            decisions = self._ledger.decide(events) if self._ledger else [Decision(Action.SEND)] * len(events)
            yield from zip(events, decisions, strict=True)

    def _is_of_this_run(self, decision: Decision) -> bool:
        return self._ledger is not None and decision.newest is not None and self._ledger.is_own(decision.newest)

    def _count(self, event: UsageplaceEvent, decision: Decision) -> None:
        summary = self._report.summary
        if decision.action is Action.SEND:
            summary.note_open(event.time)
            summary.count_undelivered(1)
        else:
            summary.add(end_of(event, STATUS_OF_ACTION[decision.action], decision.detail))


def _excess(options: DeliveryOptions, counts: Mapping[str, int]) -> str | None:
    excess = VolumeLimit(options.max_events).excess(counts)
    return excess and (
        f"{excess} by `max_events` (in all, this run would post {counts_text(counts)}); if that is right, raise "
        "`max_events` and clear the task, otherwise correct the query"
    )


def _difference(options: DeliveryOptions, digest: ApprovalDigest) -> str | None:
    if options.approved is None:
        return None
    difference = digest.differences(ApprovalDigest.parse(options.approved))
    return difference and (
        f"this is not what was approved: {difference}; run the preview again, and let its result be approved"
    )
