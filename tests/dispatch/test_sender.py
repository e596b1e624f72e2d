from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from airflow_provider_ropo.dispatch.circuit_breaker import FAILURE_LIMIT, FAILURE_WINDOW, CircuitBreaker
from airflow_provider_ropo.dispatch.rate_limiter import RateLimiter
from airflow_provider_ropo.dispatch.sender import Sender
from airflow_provider_ropo.errors import RopoConnectError, RopoRejectedError, RopoServerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.claims import PendingClaim
from airflow_provider_ropo.ledger.decisions import Action, Decision
from airflow_provider_ropo.retry import Backoff
from doubles import FakeClock

EVENT = UsageplaceEvent.from_row({"id": "e1", "usageplacecode": "P", "status": "connected", "time": "2024-01-04 10:00"})
CLAIM = PendingClaim(EVENT, Decision(Action.SEND), is_claimed=True)
MAY_HAVE_ARRIVED = replace(CLAIM, decision=Decision(Action.SEND, unconfirmed=True))
SOON = Backoff(max_attempts=3, initial=0.001)


def test_a_claim_that_has_run_out_is_not_sent() -> None:
    """What another run may have taken over by now is left to it."""
    sent: list[UsageplaceEvent] = []
    sender = Sender(sent.append, SOON, RateLimiter(), CircuitBreaker(120), threading.Event())

    result = sender.send(replace(CLAIM, holds_until=time.monotonic() - 1))

    assert result is not None
    assert isinstance(result.result, RopoConnectError)
    assert [] == sent


def test_a_claim_that_runs_out_ends_the_attempts() -> None:
    """No attempt begins after the claim's end."""
    sent: list[UsageplaceEvent] = []

    def send(event: UsageplaceEvent) -> None:
        sent.append(event)
        raise RopoServerError("HTTP 500", status_code=500)

    sender = Sender(send, Backoff(max_attempts=9, initial=0.2), RateLimiter(), CircuitBreaker(120), threading.Event())

    result = sender.send(replace(CLAIM, holds_until=time.monotonic() + 0.05))

    assert result is not None
    assert 1 == result.attempts == len(sent)


def test_being_asked_to_wait_holds_up_every_post() -> None:
    """What one post was told, the next one heeds, whichever event it is of."""
    answers: list[Callable[[], object]] = [_asks_to_wait, object]
    sender = Sender(
        lambda _event: answers.pop(0)(), Backoff(max_attempts=1), RateLimiter(), CircuitBreaker(120), threading.Event()
    )
    sender.send(CLAIM)
    started = time.monotonic()

    sender.send(replace(CLAIM, event=replace(EVENT, id="e2", usageplacecode="Q")))

    assert time.monotonic() - started >= 0.25


def _asks_to_wait() -> object:
    raise RopoServerError("HTTP 503", status_code=503, retry_after=0.3)


@pytest.mark.parametrize("claim", [CLAIM, MAY_HAVE_ARRIVED], ids=["new", "may have arrived"])
@pytest.mark.parametrize("runs_out_in", [-1.0, math.inf], ids=["run out", "holds"])
def test_what_an_earlier_run_left_unconfirmed_stays_so(claim: PendingClaim, runs_out_in: float) -> None:
    """What may have arrived before this run still may have, unless Ropo One answers now."""

    def send(_event: UsageplaceEvent) -> None:
        raise RopoConnectError("no route to host")

    sender = Sender(send, Backoff(max_attempts=1), RateLimiter(), CircuitBreaker(120), threading.Event())

    result = sender.send(replace(claim, holds_until=time.monotonic() + runs_out_in))

    assert result is not None
    assert claim.decision.unconfirmed == result.may_have_arrived


@pytest.mark.parametrize("paused", [False, True])
def test_nothing_is_begun_after_a_stop(paused: bool) -> None:  # noqa: FBT001
    """An event whose turn has not come when the run is stopped was never begun."""
    stop, rate_limiter = threading.Event(), RateLimiter()
    sent: list[UsageplaceEvent] = []
    sender = Sender(sent.append, SOON, rate_limiter, CircuitBreaker(120), stop)
    if paused:
        rate_limiter.pause(60)
        stop.set()

    result = sender.send(CLAIM)

    assert paused == (result is None)
    assert paused == (sent == [])


def test_ends_the_attempts_when_nothing_has_got_through_for_long() -> None:
    """Other events' attempts failed all the while: another one of this event's is not worth it."""
    clock, sent = FakeClock(), list[UsageplaceEvent]()
    circuit_breaker = CircuitBreaker(120, clock)
    for _ in range(FAILURE_LIMIT):
        circuit_breaker.record_attempt(failed=True)
    clock.now += FAILURE_WINDOW

    def send(event: UsageplaceEvent) -> None:
        sent.append(event)
        raise RopoServerError("HTTP 500", status_code=500)

    sender = Sender(send, Backoff(max_attempts=9, initial=0.001), RateLimiter(), circuit_breaker, threading.Event())

    result = sender.send(CLAIM)

    assert result is not None
    assert 1 == result.attempts == len(sent)


@pytest.mark.parametrize(
    ("error", "is_open"),
    [
        pytest.param(RopoServerError("HTTP 500", status_code=500), True, id="failed"),
        pytest.param(RopoRejectedError("HTTP 400", status_code=400), False, id="rejected"),
        pytest.param(None, False, id="delivered"),
    ],
)
def test_the_breaker_learns_of_every_attempt(error: Exception | None, is_open: bool) -> None:  # noqa: FBT001
    """An answer of any kind shows that something gets through, a rejection as much as a receipt."""
    clock = FakeClock()
    circuit_breaker = CircuitBreaker(120, clock)
    for _ in range(FAILURE_LIMIT):
        circuit_breaker.record_attempt(failed=True)
    clock.now += FAILURE_WINDOW

    def send(_event: UsageplaceEvent) -> None:
        if error is not None:
            raise error

    Sender(send, Backoff(max_attempts=1), RateLimiter(), circuit_breaker, threading.Event()).send(CLAIM)

    assert is_open == circuit_breaker.is_open
