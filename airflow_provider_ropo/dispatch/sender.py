"""Takes one event to Ropo One, at the pace of the whole run; called by the workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from airflow_provider_ropo.dispatch.circuit_breaker import Breaker
from airflow_provider_ropo.dispatch.rate_limiter import Pace
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConnectError,
    RopoResponseError,
    RopoTransportError,
)
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import Standing
from airflow_provider_ropo.retry import Backoff, Ending, persist


class Courier:
    """Posts events, each as often as it takes; safe to share between threads.

    :param send: posts one event; raises one of the tree's errors.
    :param pace: says when the next post may go, whichever worker's it is.
    :param breaker: told what becomes of each attempt; says when nothing gets through any more.
    :param stop: once it is set, nothing more is sent.
    """

    def __init__(
        self,
        send: Callable[[UsageplaceEvent], object],
        backoff: Backoff,
        pace: Pace,
        breaker: Breaker,
        stop: threading.Event,
    ) -> None:
        self._send = send
        self._backoff = backoff
        self._pace = pace
        self._breaker = breaker
        self._stop = stop

    def deliver(self, event: UsageplaceEvent, standing: Standing) -> Ending[object] | None:
        """Post one event; return how its attempts ended, or None if none was begun.

        :param standing: how it stood before; its claim may run out, and then it is another run's to send.
        """

        def rest(seconds: float) -> bool:
            hopeless = self._breaker.is_open
            return hopeless or self._stop.wait(seconds) or self._pace.turn(self._stop.wait) or has_run_out()

        def has_run_out() -> bool:
            return time.monotonic() >= standing.holds_until

        if self._pace.turn(self._stop.wait):
            return None
        if has_run_out():
            error = RopoConnectError("not sent: the ledger's claim on it ran out before its turn came (claim_timeout)")
            return Ending(error, 0, standing.unconfirmed)
        ending = persist(
            lambda: self._post(event),
            self._backoff,
            what=f"event {event.id}",
            wait=rest,
            unanswered=standing.unconfirmed,
        )
        if isinstance(ending.result, RopoAuthenticationError):
            # At once, before another worker tries in vain.
            self._stop.set()
        return ending

    def _post(self, event: UsageplaceEvent) -> object:
        try:
            receipt = self._send(event)
        except (RopoTransportError, RopoResponseError) as error:
            self._breaker.attempted(in_vain=error.transient)
            if isinstance(error, RopoResponseError) and error.retry_after:
                # Who asks one to wait asks all; longer than we are patient, the run ends instead.
                self._pace.pause(min(error.retry_after, self._backoff.patience))
            raise
        self._breaker.attempted(in_vain=False)
        return receipt
