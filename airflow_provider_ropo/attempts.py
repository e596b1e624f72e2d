"""One request, persisted with until it succeeds, fails for good, or the attempts are used up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from airflow_provider_ropo.backoff import Backoff
from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.errors import (
    RopoError,
    RopoRejectedError,
    RopoResponseError,
    RopoTransportError,
)
from airflow_provider_ropo.event import UsageplaceEvent

log = logging.getLogger(__name__)

R = TypeVar("R")

#: After one of these an event may yet arrive later, so its place's next events have to wait.
BLOCKING = frozenset({DeliveryStatus.UNDELIVERED, DeliveryStatus.UNCONFIRMED, DeliveryStatus.HELD})


class Ending(NamedTuple, Generic[R]):
    """How a row of attempts ended.

    :param result: what the request returned, or the error of its last attempt.
    :param attempts: how many there were.
    :param unanswered: one of them may have arrived without our knowing.
    :param seconds: how long each attempt took, without the waits between.
    """

    result: R | RopoError
    attempts: int
    unanswered: bool
    seconds: tuple[float, ...] = ()


def patiently(seconds: float) -> bool:
    """Wait, and never ask to stop."""
    time.sleep(seconds)
    return False


def persist(
    request: Callable[[], R],
    backoff: Backoff,
    *,
    what: str,
    wait: Callable[[float], bool] = patiently,
    unanswered: bool = False,
) -> Ending[R]:
    """Try a request until it succeeds, fails for good, or the attempts are used up.

    Only an answer, or the lack of one, is caught: a bug passes through.

    :param what: what to call the request in the log, as in ``event 1a2b3c4d5``.
    :param wait: waits that many seconds; true if there are to be no more attempts.
    :param unanswered: an attempt before these may have arrived.
    """
    took: tuple[float, ...] = ()
    while True:
        attempt, began = len(took) + 1, time.monotonic()
        try:
            result = request()
            return Ending(result, attempt, unanswered, (*took, time.monotonic() - began))
        except (RopoTransportError, RopoResponseError) as error:
            took = (*took, time.monotonic() - began)
            unanswered = unanswered or error.may_have_arrived
            retry_after = getattr(error, "retry_after", None)
            delay = backoff.delay(attempt, retry_after) if error.transient else None
            if delay is None:
                return Ending(error, attempt, unanswered, took)
            log.warning("%s: attempt %d of %d: %s; again in %.1f s", what, attempt, backoff.max_attempts, error, delay)
            last = error
        if wait(delay):
            return Ending(last, attempt, unanswered, took)


def delivery_of(event: UsageplaceEvent, ending: Ending[object]) -> Delivery:
    """Return what became of an event, by how its attempts ended."""
    error = ending.result
    if not isinstance(error, RopoError):
        return end_of(event, DeliveryStatus.DELIVERED, attempts=ending.attempts, seconds=ending.seconds)
    detail = str(error)
    if isinstance(error, RopoRejectedError):
        status = DeliveryStatus.REJECTED
        if ending.unanswered:
            detail += " (an earlier attempt went unanswered and may have arrived)"
    else:
        status = DeliveryStatus.UNCONFIRMED if ending.unanswered else DeliveryStatus.UNDELIVERED
    http_status = error.status_code if isinstance(error, RopoResponseError) else None
    return end_of(event, status, detail, http_status, ending.attempts, ending.seconds)


def end_of(
    event: UsageplaceEvent,
    status: DeliveryStatus,
    detail: str = "",
    http_status: int | None = None,
    attempts: int = 0,
    seconds: tuple[float, ...] = (),
) -> Delivery:
    """Return one event's end."""
    return Delivery(status, event.id, event.usageplacecode, detail, http_status, attempts, seconds)
