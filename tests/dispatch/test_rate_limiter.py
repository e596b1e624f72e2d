from __future__ import annotations

import threading

import pytest

from airflow_provider_ropo.dispatch.rate_limiter import RateLimiter
from doubles import FakeClock


def turns(rate_limiter: RateLimiter, clock: FakeClock, count: int) -> list[float]:
    """Return when each of some posts may go, from now."""
    start, times = clock.now, []
    for _ in range(count):
        rate_limiter.acquire(clock.wait)
        times.append(round(clock.now - start, 3))
    return times


def test_without_a_limit_nothing_waits() -> None:
    """Posts go as fast as they come."""
    clock = FakeClock()

    assert [0.0, 0.0, 0.0] == turns(RateLimiter(clock=clock), clock, 3)


def test_a_limit_is_kept_evenly() -> None:
    """Four a second are a quarter of a second apart, from the first on."""
    clock = FakeClock()

    assert [0.0, 0.25, 0.5, 0.75, 1.0] == turns(RateLimiter(4, clock), clock, 5)


def test_a_rest_is_not_made_up_for_in_a_burst() -> None:
    """After a minute with nothing to post, the rate is what it was."""
    clock = FakeClock()
    rate_limiter = RateLimiter(4, clock)
    turns(rate_limiter, clock, 2)
    clock.now += 60

    assert [0.0, 0.25, 0.5, 0.75] == turns(rate_limiter, clock, 4)


@pytest.mark.parametrize("rate_limit", [None, 4])
def test_a_pause_holds_up_everybody(rate_limit: float | None) -> None:
    """What one post was asked to wait, all wait."""
    clock = FakeClock()
    rate_limiter = RateLimiter(rate_limit, clock)
    rate_limiter.acquire(clock.wait)
    rate_limiter.pause(5)
    rate_limiter.pause(2)

    assert 5.0 == turns(rate_limiter, clock, 1)[0]


def test_a_wait_can_be_broken_off() -> None:
    """Being told to stop ends the wait at once, and says so."""
    rate_limiter = RateLimiter(clock=FakeClock())
    rate_limiter.pause(3600)
    stop = threading.Event()
    stop.set()

    assert rate_limiter.acquire(stop.wait)
