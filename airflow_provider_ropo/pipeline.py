"""Events go out: signed in once, posted, remembered, counted."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from itertools import chain

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.delivery import Delivery, end_of
from airflow_provider_ropo.dispatch.circuit_breaker import asks_for_long
from airflow_provider_ropo.dispatch.dispatcher import LOOK_UP_SIZE, Dispatcher
from airflow_provider_ropo.errors import RopoAuthenticationError, RopoError, RopoLedgerError, RopoUnavailableError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import mask_payload
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.decisions import STATUS_OF_ACTION, Action
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.protocol import NullLedger
from airflow_provider_ropo.ledger.table import batches
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.retry import Backoff, call_with_retries

log = logging.getLogger(__name__)

#: Payloads a preview shows.
SHOWN = 5


def preview_posts(
    spool: Spool, ledger: DeliveryLedger | None, summary: DeliverySummary, *, jobid_as_string: bool
) -> None:
    """Count what a run would do, show the first payloads, and leave every event where it is."""
    for events in batches(chain.from_iterable(spool.lanes()), LOOK_UP_SIZE):
        decisions = ledger.peek(events) if ledger is not None else NullLedger().look_up(events)
        for event, decision in zip(events, decisions, strict=True):
            if decision.action is not Action.SEND:
                summary.add(end_of(event, STATUS_OF_ACTION[decision.action], decision.detail))
                continue
            summary.count_undelivered(1)
            if len(summary.sample) < SHOWN:
                payload = mask_payload(event.to_payload(jobid_as_string=jobid_as_string))
                summary.sample.append(payload)
                log.info("Preview: would post %s", json.dumps(payload, ensure_ascii=False))


class Posting:
    """Posts what is in a spool, and counts what becomes of it.

    :param client: signs in and posts; closed at the end.
    :param report: takes what became of each event; what was not even tried is counted undelivered.
    :param ledger: the memory, if there is one.
    :param max_workers: posts side by side.
    :param rate_limit: posts a second over all of them, at most.
    :param stop: set, from any thread, to end the posting soon.
    :param on_delivery: told, too, what became of each event.
    """

    def __init__(
        self,
        client: RopoClient,
        report: Report,
        ledger: DeliveryLedger | None,
        *,
        jobid_as_string: bool,
        max_workers: int,
        rate_limit: float | None,
        stop: threading.Event,
        on_delivery: Callable[[Delivery], None],
    ) -> None:
        self._client = client
        self._jobid_as_string = jobid_as_string
        self._on_delivery = on_delivery
        self._report = report
        self._ledger = ledger
        self._max_workers = max_workers
        self._rate_limit = rate_limit
        self._stop = stop

    def run(self, spool: Spool) -> RopoError | None:
        """Post every event; return why nothing more could be posted, if so."""
        report, total = self._report, spool.count()
        report.start_posting(total)
        try:
            if self._ledger is not None:
                self._ledger.record_invalid(spool.invalid())
            stopped = self._post(spool) if total else None
        except (RopoAuthenticationError, RopoLedgerError, RopoUnavailableError) as error:
            stopped = error
        finally:
            left = report.remaining
            report.summary.count_undelivered(left)
            if self._ledger is not None and self._ledger.stale:
                log.warning("%s events were stale: a later one of their place was delivered", self._ledger.stale)
        if stopped is None and left:
            stopped = RopoError(f"told to stop: {left:,} events are left for the next try")
        if stopped is not None:
            report.stop(stopped)
        return stopped

    def _post(self, spool: Spool) -> RopoError | None:
        client, backoff = self._client, Backoff()

        def send(event: UsageplaceEvent) -> Receipt:
            return client.post_usageplace_event(event.to_payload(jobid_as_string=self._jobid_as_string))

        try:
            # Before the first event: a wrong API code or server is one error, not one an event.
            sign_in = call_with_retries(client.sign_in, backoff, what="sign-in", wait=self._stop.wait)
            if isinstance(sign_in.result, RopoError):
                return asks_for_long(sign_in.result, backoff.max_retry_after) or sign_in.result
            Dispatcher(
                send,
                self._take,
                ledger=self._ledger or NullLedger(),
                max_workers=self._max_workers,
                rate_limit=self._rate_limit,
                stop=self._stop,
                backoff=backoff,
                report=self._report,
            ).run(spool.lanes())
        finally:
            client.close()
        return None

    def _take(self, delivery: Delivery) -> None:
        self._report.on_delivery(delivery)
        self._on_delivery(delivery)
