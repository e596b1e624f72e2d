"""When nothing gets through any more."""

from __future__ import annotations

import pytest

from airflow_provider_ropo.dispatch.circuit_breaker import FAILURE_LIMIT, FAILURE_WINDOW, MIN_ATTEMPTS, CircuitBreaker
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConnectError,
    RopoError,
    RopoRateLimitError,
    RopoUnavailableError,
)
from doubles import FakeClock

AWAY = RopoConnectError("no route to host")


def after(clock: FakeClock, attempts: int, seconds: float) -> CircuitBreaker:
    """Return a circuit breaker that has seen that many failed attempts, over that many seconds."""
    circuit_breaker = CircuitBreaker(120, clock)
    for _ in range(attempts):
        circuit_breaker.record_attempt(failed=True)
    clock.now += seconds
    return circuit_breaker


@pytest.mark.parametrize(
    ("attempts", "seconds", "is_open"),
    [
        pytest.param(MIN_ATTEMPTS, FAILURE_WINDOW, True, id="enough and long"),
        pytest.param(10 * MIN_ATTEMPTS, FAILURE_WINDOW - 1, False, id="many at once"),
        pytest.param(MIN_ATTEMPTS - 1, 10 * FAILURE_WINDOW, False, id="a few slow ones"),
    ],
)
def test_opens_after_many_attempts_over_a_stated_time(attempts: int, seconds: float, is_open: bool) -> None:  # noqa: FBT001
    """A short failure does not open it, and neither do a few attempts that take long."""
    circuit_breaker = after(FakeClock(), attempts, seconds)

    assert is_open == circuit_breaker.is_open


def test_one_answer_begins_anew() -> None:
    """What counts is the time since something last got through."""
    clock = FakeClock()
    circuit_breaker = after(clock, FAILURE_LIMIT, FAILURE_WINDOW)
    circuit_breaker.record_attempt(failed=False)
    for _ in range(FAILURE_LIMIT):
        circuit_breaker.record_attempt(failed=True)

    assert not circuit_breaker.is_open


def test_says_for_how_long_nothing_got_through() -> None:
    """The run's error names the time and the last error, and lets Airflow try again later."""
    clock = FakeClock()
    circuit_breaker = after(clock, FAILURE_LIMIT, FAILURE_WINDOW)

    error = circuit_breaker.record_event(AWAY, arrived=False)

    assert isinstance(error, RopoUnavailableError)
    assert "nothing got through for 120 s, so the run ends early; the last: no route to host" == str(error)


@pytest.mark.parametrize(
    ("result", "kind", "says"),
    [
        pytest.param(AWAY, RopoUnavailableError, "20 events in a row did not arrive", id="the twentieth"),
        pytest.param(RopoAuthenticationError("no"), RopoAuthenticationError, "no", id="signed out"),
        pytest.param(RopoRateLimitError("later", retry_after=600), RopoUnavailableError, "wait 600 s", id="long wait"),
    ],
)
def test_one_event_may_end_the_run(result: RopoError, kind: type[RopoError], says: str) -> None:
    """The twentieth event in a row that did not arrive, a refusal to let us in, and a request to wait for long."""
    circuit_breaker = CircuitBreaker(120, FakeClock())
    before = [circuit_breaker.record_event(AWAY, arrived=False) for _ in range(FAILURE_LIMIT - 1)]

    error = circuit_breaker.record_event(result, arrived=False)

    assert [None] * (FAILURE_LIMIT - 1) == before
    assert isinstance(error, kind)
    assert says in str(error)


def test_an_event_that_arrives_begins_the_row_anew() -> None:
    """Nineteen, one that arrives, and nineteen again are no reason to end."""
    circuit_breaker = CircuitBreaker(120, FakeClock())

    ends = [
        circuit_breaker.record_event(AWAY, arrived=number == FAILURE_LIMIT - 1)
        for number in range(2 * FAILURE_LIMIT - 1)
    ]

    assert [None] * (2 * FAILURE_LIMIT - 1) == ends
