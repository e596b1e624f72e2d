from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo.errors import (
    InvalidRowError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoConnectError,
    RopoError,
    RopoRateLimitError,
    RopoRejectedError,
    RopoServerError,
    RopoTimeoutError,
)
from airflow_provider_ropo.retry import Backoff, RetryLog, RetryResult, call_with_retries, sleep
from doubles import FakeClock

BACKOFF = Backoff(max_attempts=3, initial=1.0, jitter=lambda: 1.0)
OK = object()
REJECTED = RopoRejectedError("HTTP 400: unknown code", status_code=400)
UNWELL = RopoServerError("HTTP 503", status_code=503)
SILENT = RopoTimeoutError("no answer in 30 s")
AWAY = RopoConnectError("no route to host")
REFUSED = RopoAuthenticationError("sign-in refused", status_code=401)
GATEWAY = RopoServerError("HTTP 504", status_code=504)
GATEWAY.may_have_arrived = True


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def answered(*answers: Any) -> Callable[[], object]:
    """Return a request that is answered so, one answer an attempt."""
    remaining = iter(answers)

    def request() -> object:
        answer = next(remaining)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return request


@pytest.mark.parametrize(
    ("answers", "result", "attempts", "may_have_arrived"),
    [
        ([OK], OK, 1, False),
        ([UNWELL, OK], OK, 2, False),
        ([SILENT, OK], OK, 2, True),
        ([UNWELL, AWAY, UNWELL], UNWELL, 3, False),
        ([SILENT, UNWELL, AWAY], AWAY, 3, True),
        ([GATEWAY, UNWELL, AWAY], AWAY, 3, True),
        ([UNWELL, UNWELL, GATEWAY], GATEWAY, 3, True),
        ([REJECTED], REJECTED, 1, False),
        ([SILENT, REJECTED], REJECTED, 2, True),
        ([REFUSED], REFUSED, 1, False),
    ],
    ids=[
        "at once",
        "second",
        "after silence",
        "used up",
        "used up, silent",
        "a gateway's silence",
        "a gateway's silence at last",
        "rejected",
        "rejected after silence",
        "refused",
    ],
)
def test_call_with_retries(
    answers: list[Any], result: object, attempts: int, *, may_have_arrived: bool, clock: FakeClock
) -> None:
    """A request is tried until it succeeds, fails for good, or the attempts are used up; the last end counts."""
    ended = call_with_retries(answered(*answers), BACKOFF, what="it", wait=clock.wait)

    assert result is ended.result
    assert (attempts, may_have_arrived) == (ended.attempts, ended.may_have_arrived)
    assert [1.0, 2.0][: attempts - 1] == clock.waits


def test_every_wait_is_said(caplog: pytest.LogCaptureFixture, clock: FakeClock) -> None:
    """Before each wait the log says what failed, why, and when it is tried again."""
    call_with_retries(answered(UNWELL, AWAY, OK), BACKOFF, what="event a1", wait=clock.wait)

    assert [
        "event a1: attempt 1 of 3: HTTP 503; again in 1.0 s",
        "event a1: attempt 2 of 3: no route to host; again in 2.0 s",
    ] == caplog.messages


def test_many_waits_are_few_lines(caplog: pytest.LogCaptureFixture, clock: FakeClock) -> None:
    """The first failed attempt has its line at once; those of the next seconds share one, with their number."""
    retry_log = RetryLog(5.0, clock)

    for number in range(13):
        retry_log.on_retry(f"event {number} failed")
        clock.now += 1.0

    assert [
        "event 0 failed",
        "5 attempts failed and are tried again; the last: event 5 failed",
        "5 attempts failed and are tried again; the last: event 10 failed",
    ] == caplog.messages


@pytest.mark.parametrize("error", [UNWELL, SILENT], ids=["unwell", "silent"])
def test_told_to_stop(error: RopoError) -> None:
    """Told to stop while it waits, it makes no more attempts, and the last error is the end."""
    clock = FakeClock(stop_at=1)

    result = call_with_retries(answered(error, OK), BACKOFF, what="it", wait=clock.wait)

    assert RetryResult(error, 1, error is SILENT) == result._replace(seconds=())
    assert [1.0] == clock.waits


@pytest.mark.parametrize("answers", [[OK], [UNWELL] * 3, [REJECTED]], ids=["success", "used up", "rejected"])
def test_what_went_unanswered_before(answers: list[Any], clock: FakeClock) -> None:
    """What may have arrived before these attempts still may after them."""
    assert call_with_retries(
        answered(*answers), BACKOFF, what="it", wait=clock.wait, may_have_arrived=True
    ).may_have_arrived


@pytest.mark.parametrize(
    ("asked", "waits"), [(20.0, [20.1]), (120.0, [120.1]), (None, [1.0])], ids=["seconds", "max_retry_after", "nothing"]
)
def test_retry_after(asked: float | None, waits: list[float], clock: FakeClock) -> None:
    """The wait is at least what the answer asks for."""
    busy = RopoRateLimitError("HTTP 429", status_code=429, retry_after=asked)

    call_with_retries(answered(busy, OK), BACKOFF, what="it", wait=clock.wait)

    assert waits == clock.waits


def test_retry_after_beyond_the_maximum(clock: FakeClock) -> None:
    """An answer that asks for a longer wait than the maximum ends the attempts at once, without a wait."""
    closed = RopoServerError("HTTP 503", status_code=503, retry_after=3600.0)

    result = call_with_retries(answered(closed), BACKOFF, what="it", wait=clock.wait)

    assert RetryResult(closed, 1, may_have_arrived=False) == result._replace(seconds=())
    assert [] == clock.waits


@pytest.mark.parametrize(
    "bug",
    [
        KeyError("jobid"),
        TypeError("no"),
        RopoConfigurationError("no password"),
        InvalidRowError("row 1", "id", "no"),
        KeyboardInterrupt(),
    ],
    ids=lambda bug: type(bug).__name__,
)
def test_bug_passes_through(bug: BaseException, clock: FakeClock) -> None:
    """Only an answer, or the lack of one, is an end: anything else comes out as it is."""
    with pytest.raises(type(bug)) as raised:
        call_with_retries(answered(UNWELL, bug), BACKOFF, what="it", wait=clock.wait)

    assert bug is raised.value
    assert [1.0] == clock.waits


def test_sleep_waits() -> None:
    """Unless told otherwise, a wait is a sleep after which it goes on."""
    started = time.monotonic()

    assert not sleep(0.02)

    assert time.monotonic() - started >= 0.02


def test_says_how_long_each_attempt_took() -> None:
    """Attempts are timed one by one, without the waits between them."""
    pauses = iter([0.05, 0.01])

    def request() -> str:
        time.sleep(pause := next(pauses))
        if pause > 0.01:
            raise UNWELL
        return "here"

    began = time.monotonic()
    result = call_with_retries(request, Backoff(max_attempts=3, initial=0.2, jitter=lambda: 1.0), what="a request")
    all_in_all = time.monotonic() - began

    first, second = result.seconds
    assert 0.05 <= first
    assert 0.01 <= second
    assert 0.2 <= all_in_all - first - second


def steady(**options: float) -> Backoff:
    """Return a backoff whose waits are as long as they may be."""
    return Backoff(jitter=lambda: 1.0, **options)  # type: ignore[arg-type]


def test_waits_double() -> None:
    """Each wait is twice the one before, until the attempts are used up."""
    backoff = steady(max_attempts=5, initial=0.5)

    assert [0.5, 1.0, 2.0, 4.0, None] == [backoff.delay(attempt) for attempt in range(1, 6)]


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 2.0), (0.5, 3.0), (1.0, 4.0)], ids=str)
def test_waits_are_spread(chance: float, expected: float) -> None:
    """A wait is spread over its upper half, so that no two workers come back in step."""
    backoff = Backoff(max_attempts=5, jitter=lambda: chance)

    assert expected == backoff.delay(4)


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
    wait = steady(max_attempts=5, initial=0.5, max_retry_after=120.0).delay(1, retry_after=asked)

    assert wait is not None
    assert asked < wait <= asked + 0.1


def test_no_delay_beyond_the_maximum() -> None:
    """A wait longer than max_retry_after is left to the next run."""
    assert steady(max_retry_after=120.0).delay(1, retry_after=120.5) is None


def test_backoff_is_frozen() -> None:
    """A rule of waiting is a value."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Backoff().initial = 0.0  # type: ignore[misc]
