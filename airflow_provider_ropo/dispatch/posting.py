"""Post the events of a spool to Ropo One, one request each."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.delivery import Delivery
from airflow_provider_ropo.dispatch.circuit_breaker import asks_for_long
from airflow_provider_ropo.dispatch.dispatcher import IDLE_INTERVAL, Dispatcher
from airflow_provider_ropo.dispatch.workers import Workers
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    RopoUnavailableError,
    SpoolError,
)
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.retry import Backoff, RetryResult, call_with_retries
from airflow_provider_ropo.unsent import end_sending


@dataclass(frozen=True, kw_only=True)
class PostingOptions:
    """How events are posted; checked when it is made.

    :param max_workers: parallel posts.
    :param rate_limit: maximum number of posts a second over all workers; None: no limit.
    :raises RopoConfigurationError: naming the parameter.
    """

    max_workers: int = 8
    rate_limit: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.max_workers, bool) or not isinstance(self.max_workers, int) or self.max_workers < 1:
            raise RopoConfigurationError("`max_workers` must be 1 or more, a whole number")
        limit = self.rate_limit
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
            raise RopoConfigurationError("`rate_limit` must be more than 0 posts a second, or None")


@dataclass(frozen=True)
class RestChannel:
    """Posts each event to Ropo One's REST API.

    :param client: signs in and posts; its connections are closed after the posting.
    :param options: how many posts run in parallel, and how fast.
    :param jobid_as_string: send each ``jobid`` as text.
    """

    client: RopoClient
    options: PostingOptions = field(default_factory=PostingOptions)
    jobid_as_string: bool = False

    def payload(self, event: UsageplaceEvent) -> dict[str, Any]:
        """Return what is posted for an event."""
        return event.to_payload(jobid_as_string=self.jobid_as_string)

    def send(
        self,
        spool: Spool,
        ledger: DeliveryLedger | None,
        *,
        report: Report,
        stop: threading.Event,
        on_delivery: Callable[[Delivery], None],
    ) -> RopoError | None:
        """Post what is in a spool, and count the delivery statuses; return why nothing more could be posted, if so.

        :param ledger: remembers deliveries; the caller closes it.
        :param report: counts what is not sent, and publishes progress.
        :param stop: set, from any thread, to end the posting soon.
        :param on_delivery: takes and counts each event's delivery, on the calling thread.
        """
        report.start_posting(spool.count())
        backoff = Backoff()
        dispatcher = Dispatcher(
            lambda event: self.client.post_usageplace_event(self.payload(event)),
            on_delivery,
            ledger=ledger,
            max_workers=self.options.max_workers,
            rate_limit=self.options.rate_limit,
            stop=stop,
            backoff=backoff,
            report=report,
        )
        # What the dispatcher has not begun with, it leaves where it is.
        unsent: Iterable[UsageplaceEvent] = chain.from_iterable(spool.lanes())
        stopped: RopoError | None = None
        try:
            if ledger is not None:
                ledger.record_invalid(report.follow(spool.invalid()))
            if report.remaining:
                stopped = _sign_in(self.client, backoff, stop, report)
                if stopped is None:
                    unsent = dispatcher.unsent()
                    dispatcher.run(spool.lanes())
        except (RopoAuthenticationError, RopoLedgerError, RopoUnavailableError, SpoolError) as error:
            stopped = error
        finally:
            self.client.close()
            stopped = end_sending(unsent, ledger, report, stopped)
        return stopped


def _sign_in(client: RopoClient, backoff: Backoff, stop: threading.Event, report: Report) -> RopoError | None:
    """Sign in before the first event: a wrong API code or server is one error, not one an event.

    That may take minutes. It is done on a thread of its own, so that this one can publish progress and obey a stop.
    """

    def sign_in(client: RopoClient) -> RetryResult[object]:
        return call_with_retries(client.sign_in, backoff, what="sign-in", wait=stop.wait)

    answers: queue.SimpleQueue[tuple[RopoClient, RetryResult[object] | BaseException | None]] = queue.SimpleQueue()
    worker = Workers(sign_in, 1, stop, answers.put)
    worker.start()
    worker.put(client)
    worker.shutdown()
    while not stop.is_set():
        with suppress(queue.Empty):
            _client, signed_in = answers.get(timeout=IDLE_INTERVAL)
            return _sign_in_error(signed_in, backoff)
        report.publish()
    return None


def _sign_in_error(signed_in: RetryResult[object] | BaseException | None, backoff: Backoff) -> RopoError | None:
    if isinstance(signed_in, BaseException):
        raise signed_in
    if signed_in is not None and isinstance(signed_in.result, RopoError):
        return asks_for_long(signed_in.result, backoff.max_retry_after) or signed_in.result
    return None
