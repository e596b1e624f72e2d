"""When nothing gets through any more."""

from __future__ import annotations

import pytest

from airflow_provider_ropo.dispatch.circuit_breaker import HOPELESS, HOPELESS_AFTER, HOPELESS_ATTEMPTS, Breaker
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConnectError,
    RopoError,
    RopoRateLimitError,
    RopoUnavailableError,
)

AWAY = RopoConnectError("no route to host")


class Clock:
    """Tells the time it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def after(clock: Clock, attempts: int, seconds: float) -> Breaker:
    """Return a breaker that has seen so many attempts in vain, over so many seconds."""
    breaker = Breaker(120, clock)
    for _ in range(attempts):
        breaker.attempted(in_vain=True)
    clock.now += seconds
    return breaker


@pytest.mark.parametrize(
    ("attempts", "seconds", "is_open"),
    [
        pytest.param(HOPELESS_ATTEMPTS, HOPELESS_AFTER, True, id="enough and long"),
        pytest.param(10 * HOPELESS_ATTEMPTS, HOPELESS_AFTER - 1, False, id="many at once"),
        pytest.param(HOPELESS_ATTEMPTS - 1, 10 * HOPELESS_AFTER, False, id="a few slow ones"),
    ],
)
def test_opens_after_many_attempts_over_a_stated_time(attempts: int, seconds: float, is_open: bool) -> None:  # noqa: FBT001
    """A moment's trouble is none, and a few attempts that take long say nothing of all the others."""
    breaker = after(Clock(), attempts, seconds)

    assert is_open == breaker.is_open


def test_one_answer_begins_anew() -> None:
    """What counts is the time since something last got through."""
    clock = Clock()
    breaker = after(clock, HOPELESS, HOPELESS_AFTER)
    breaker.attempted(in_vain=False)
    for _ in range(HOPELESS):
        breaker.attempted(in_vain=True)

    assert not breaker.is_open


def test_says_for_how_long_nothing_got_through() -> None:
    """The run's error names the time and the last trouble, and lets Airflow try again later."""
    clock = Clock()
    breaker = after(clock, HOPELESS, HOPELESS_AFTER)

    error = breaker.ended(AWAY, arrived=False)

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
    breaker = Breaker(120, Clock())
    before = [breaker.ended(AWAY, arrived=False) for _ in range(HOPELESS - 1)]

    error = breaker.ended(result, arrived=False)

    assert [None] * (HOPELESS - 1) == before
    assert isinstance(error, kind)
    assert says in str(error)


def test_an_event_that_arrives_begins_the_row_anew() -> None:
    """Nineteen, one that arrives, and nineteen again are no reason to end."""
    breaker = Breaker(120, Clock())

    ends = [breaker.ended(AWAY, arrived=number == HOPELESS - 1) for number in range(2 * HOPELESS - 1)]

    assert [None] * (2 * HOPELESS - 1) == ends
