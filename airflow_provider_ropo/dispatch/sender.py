"""Post one event with retries, under the run's rate limit; called by the workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from airflow_provider_ropo.dispatch.circuit_breaker import CircuitBreaker
from airflow_provider_ropo.dispatch.rate_limiter import RateLimiter
from airflow_provider_ropo.errors import RopoConnectError, RopoResponseError, RopoTransportError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import PendingClaim
from airflow_provider_ropo.retry import Backoff, RetryLog, RetryResult, call_with_retries

#: Seconds between two lines in the log about attempts that are tried again.
LOG_EVERY = 5.0


class Sender:
    """Posts events, each with retries; safe to share between threads.

    :param send: posts one event; raises one of the tree's errors.
    :param rate_limiter: returns when the next post of any worker is allowed.
    :param circuit_breaker: records the result of each attempt; open when posts keep failing.
    :param stop: once it is set, nothing more is sent.
    """

    def __init__(
        self,
        send: Callable[[UsageplaceEvent], object],
        backoff: Backoff,
        rate_limiter: RateLimiter,
        circuit_breaker: CircuitBreaker,
        stop: threading.Event,
    ) -> None:
        self._send = send
        self._backoff = backoff
        self._rate_limiter = rate_limiter
        self._circuit_breaker = circuit_breaker
        self._stop = stop
        self._retry_log = RetryLog(LOG_EVERY)

    def send(self, claim: PendingClaim) -> RetryResult[object] | None:
        """Post one event; return how its attempts ended, or None if none was begun.

        :param claim: the event, and the claim on it: that may run out, and then another run sends it.
        """

        def rest(seconds: float) -> bool:
            is_open = self._circuit_breaker.is_open
            return is_open or self._stop.wait(seconds) or self._rate_limiter.acquire(self._stop.wait) or has_run_out()

        def has_run_out() -> bool:
            return time.monotonic() >= claim.holds_until

        if self._rate_limiter.acquire(self._stop.wait):
            return None
        if has_run_out():
            error = RopoConnectError("not sent: the ledger's claim on it ran out before its turn came (claim_timeout)")
            return RetryResult(error, 0, claim.decision.unconfirmed)
        return call_with_retries(
            lambda: self._post(claim.event),
            self._backoff,
            what=f"event {claim.event.id}",
            wait=rest,
            may_have_arrived=claim.decision.unconfirmed,
            retry_log=self._retry_log,
        )

    def _post(self, event: UsageplaceEvent) -> object:
        try:
            receipt = self._send(event)
        except (RopoTransportError, RopoResponseError) as error:
            self._circuit_breaker.record_attempt(failed=error.transient)
            if isinstance(error, RopoResponseError) and error.retry_after:
                # A wait that one answer asks for is for all workers; a longer one than `max_retry_after` ends the run.
                self._rate_limiter.pause(min(error.retry_after, self._backoff.max_retry_after))
            raise
        self._circuit_breaker.record_attempt(failed=False)
        return receipt
