from __future__ import annotations

import dataclasses

import pytest

from airflow_provider_ropo.backoff import Backoff


def steady(**options: float) -> Backoff:
    """Return a backoff whose waits are as long as they may be."""
    return Backoff(spread=lambda: 1.0, **options)  # type: ignore[arg-type]


def test_waits_double() -> None:
    """Each wait is twice the one before, until the attempts are used up."""
    backoff = steady(max_attempts=5, first=0.5)

    assert [0.5, 1.0, 2.0, 4.0, None] == [backoff.delay(attempt) for attempt in range(1, 6)]


def test_waits_are_bounded() -> None:
    """No wait of our own choosing is longer than the longest."""
    backoff = steady(max_attempts=1000, first=0.5, longest=30.0)

    assert [16.0, 30.0, 30.0, 30.0] == [backoff.delay(attempt) for attempt in (6, 7, 8, 999)]


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 15.0), (0.5, 22.5), (1.0, 30.0)], ids=str)
def test_waits_are_spread_at_the_bound_too(chance: float, expected: float) -> None:
    """A wait is spread over its upper half, so that at the bound, too, no two workers come back in step."""
    backoff = Backoff(max_attempts=50, spread=lambda: chance)

    assert expected == backoff.delay(20)


def test_waits_differ_by_themselves() -> None:
    """Unless told otherwise, waits are spread by chance."""
    backoff = Backoff()

    waits = {backoff.delay(4) for _ in range(50)}

    assert len(waits) > 1
    assert all(wait is not None and 2.0 <= wait <= 4.0 for wait in waits)


def test_one_attempt() -> None:
    """Where one attempt is all there is, there is no wait, whatever the answer asks."""
    assert steady(max_attempts=1).delay(1) is None
    assert steady(max_attempts=1).delay(1, retry_after=1.0) is None


@pytest.mark.parametrize("asked", [0.0, 1.0, 45.0, 120.0], ids=str)
def test_retry_after_is_honoured(asked: float) -> None:
    """The wait is as long as the answer asks, and a little longer, so that not all come back at once."""
    wait = steady(max_attempts=5, first=0.5, patience=120.0).delay(1, retry_after=asked)

    assert wait is not None
    assert asked < wait <= asked + 0.1


def test_retry_after_beyond_patience() -> None:
    """Longer than our patience is left to the next run."""
    assert steady(patience=120.0).delay(1, retry_after=120.5) is None


def test_retry_after_may_be_longer_than_our_longest() -> None:
    """Our own bound does not shorten what Ropo One asks for."""
    wait = steady(longest=1.0).delay(1, retry_after=60.0)

    assert wait is not None
    assert wait > 60.0


def test_backoff_is_frozen() -> None:
    """A rule of waiting is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Backoff().first = 0.0  # type: ignore[misc]
