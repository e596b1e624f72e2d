"""Send events and persist through failure, one usage place's events in their order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from airflow_provider_ropo.backoff import Backoff
from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoError,
    RopoRejectedError,
    RopoResponseError,
    RopoTimeoutError,
    RopoTransportError,
)
from airflow_provider_ropo.event import UsageplaceEvent

log = logging.getLogger(__name__)

R = TypeVar("R")

#: After one of these an event may yet arrive later, so its place's next events have to wait.
_BLOCKING = frozenset({DeliveryStatus.UNDELIVERED, DeliveryStatus.UNCONFIRMED})


class Ending(NamedTuple, Generic[R]):
    """How a row of attempts ended.

    :param result: what the request returned, or the error of its last attempt.
    :param attempts: how many there were.
    :param unanswered: one of them may have arrived without our knowing.
    """

    result: R | RopoError
    attempts: int
    unanswered: bool


def persist(
    request: Callable[[], R],
    backoff: Backoff,
    *,
    what: str,
    sleep: Callable[[float], None] = time.sleep,
) -> Ending[R]:
    """Try a request until it succeeds, fails for good, or the attempts are used up.

    Only an answer, or the lack of one, is caught: a bug passes through.

    :param what: what to call the request in the log, as in ``event 1a2b3c4d5``.
    :param sleep: waits that many seconds.
    """
    attempt, unanswered = 0, False
    while True:
        attempt += 1
        try:
            return Ending(request(), attempt, unanswered)
        except (RopoTransportError, RopoResponseError) as error:
            unanswered = unanswered or isinstance(error, RopoTimeoutError)
            retry_after = getattr(error, "retry_after", None)
            delay = backoff.delay(attempt, retry_after) if error.transient else None
            if delay is None:
                return Ending(error, attempt, unanswered)
            log.warning("%s: attempt %d of %d: %s; again in %.1f s", what, attempt, backoff.max_attempts, error, delay)
            sleep(delay)


def dispatch(
    lanes: Iterable[Iterable[UsageplaceEvent]],
    send: Callable[[UsageplaceEvent], object],
    backoff: Backoff,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Delivery]:
    """Send every event; yield what became of each as it lands.

    :param lanes: one usage place's events each, in the order of their time.
    :param send: posts one event; raises one of the tree's errors.
    :raises RopoAuthenticationError: after the last delivery, if nothing more could be sent.
    """
    refused: RopoAuthenticationError | None = None
    for lane in lanes:
        waits_for: str | None = None
        for event in lane:
            if refused is not None:
                yield _ended(event, DeliveryStatus.UNDELIVERED, "not tried: signing in was refused")
                continue
            if waits_for is not None:
                yield _ended(event, DeliveryStatus.HELD, f"waits for the earlier event {waits_for}")
                continue
            ending = persist(partial(send, event), backoff, what=f"event {event.id}", sleep=sleep)
            if isinstance(ending.result, RopoAuthenticationError):
                refused = ending.result
            delivery = _delivery(event, ending)
            if delivery.status in _BLOCKING:
                waits_for = event.id
            yield delivery
    if refused is not None:
        raise refused


def _delivery(event: UsageplaceEvent, ending: Ending[object]) -> Delivery:
    error = ending.result
    if not isinstance(error, RopoError):
        return _ended(event, DeliveryStatus.DELIVERED, attempts=ending.attempts)
    detail = str(error)
    if isinstance(error, RopoRejectedError):
        status = DeliveryStatus.REJECTED
        if ending.unanswered:
            detail += " (an earlier attempt went unanswered and may have arrived)"
    else:
        status = DeliveryStatus.UNCONFIRMED if ending.unanswered else DeliveryStatus.UNDELIVERED
    http_status = error.status_code if isinstance(error, RopoResponseError) else None
    return _ended(event, status, detail, http_status, ending.attempts)


def _ended(
    event: UsageplaceEvent,
    status: DeliveryStatus,
    detail: str = "",
    http_status: int | None = None,
    attempts: int = 0,
) -> Delivery:
    return Delivery(status, event.id, event.usageplacecode, detail, http_status, attempts)
