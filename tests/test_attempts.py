from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo.attempts import BLOCKING, Ending, delivery_of, end_of, patiently, persist
from airflow_provider_ropo.backoff import Backoff
from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
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
from airflow_provider_ropo.event import UsageplaceEvent

BACKOFF = Backoff(max_attempts=3, first=1.0, spread=lambda: 1.0)

OK = object()
REJECTED = RopoRejectedError("HTTP 400: unknown code", status_code=400)
UNWELL = RopoServerError("HTTP 503", status_code=503)
SILENT = RopoTimeoutError("no answer in 30 s")
AWAY = RopoConnectError("no route to host")
REFUSED = RopoAuthenticationError("sign-in refused", status_code=401)
GATEWAY = RopoServerError("HTTP 504", status_code=504)
GATEWAY.may_have_arrived = True


class Wait:
    """Stands in for the clock: remembers the waits, and asks to stop at one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.waits: list[float] = []
        self._stop_at = stop_at

    def __call__(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return len(self.waits) == self._stop_at


@pytest.fixture
def wait() -> Wait:
    return Wait()


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
    ("answers", "result", "attempts", "unanswered"),
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
def test_persist(answers: list[Any], result: object, attempts: int, *, unanswered: bool, wait: Wait) -> None:
    """A request is tried until it succeeds, fails for good, or the attempts are used up; the last end counts."""
    ending = persist(answered(*answers), BACKOFF, what="it", wait=wait)

    assert result is ending.result
    assert (attempts, unanswered) == (ending.attempts, ending.unanswered)
    assert [1.0, 2.0][: attempts - 1] == wait.waits


def test_every_wait_is_said(caplog: pytest.LogCaptureFixture, wait: Wait) -> None:
    """Before each wait the log says what failed, why, and when it is tried again."""
    persist(answered(UNWELL, AWAY, OK), BACKOFF, what="event a1", wait=wait)

    assert [
        "event a1: attempt 1 of 3: HTTP 503; again in 1.0 s",
        "event a1: attempt 2 of 3: no route to host; again in 2.0 s",
    ] == caplog.messages


@pytest.mark.parametrize("error", [UNWELL, SILENT], ids=["unwell", "silent"])
def test_told_to_stop(error: RopoError) -> None:
    """Told to stop while it waits, it makes no more attempts, and the last error is the end."""
    wait = Wait(stop_at=1)

    ending = persist(answered(error, OK), BACKOFF, what="it", wait=wait)

    assert Ending(error, 1, error is SILENT) == ending._replace(seconds=())
    assert [1.0] == wait.waits


@pytest.mark.parametrize("answers", [[OK], [UNWELL] * 3, [REJECTED]], ids=["success", "used up", "rejected"])
def test_what_went_unanswered_before(answers: list[Any], wait: Wait) -> None:
    """What may have arrived before these attempts still may after them."""
    assert persist(answered(*answers), BACKOFF, what="it", wait=wait, unanswered=True).unanswered


@pytest.mark.parametrize(
    ("asked", "waits"), [(20.0, [20.1]), (120.0, [120.1]), (None, [1.0])], ids=["seconds", "patience", "nothing"]
)
def test_retry_after(asked: float | None, waits: list[float], wait: Wait) -> None:
    """The wait is at least what the answer asks for."""
    busy = RopoRateLimitError("HTTP 429", status_code=429, retry_after=asked)

    persist(answered(busy, OK), BACKOFF, what="it", wait=wait)

    assert waits == wait.waits


def test_retry_after_beyond_patience(wait: Wait) -> None:
    """An answer that asks for more patience than we have ends the attempts at once, without a wait."""
    closed = RopoServerError("HTTP 503", status_code=503, retry_after=3600.0)

    ending = persist(answered(closed), BACKOFF, what="it", wait=wait)

    assert Ending(closed, 1, unanswered=False) == ending._replace(seconds=())
    assert [] == wait.waits


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
def test_bug_passes_through(bug: BaseException, wait: Wait) -> None:
    """Only an answer, or the lack of one, is an end: anything else comes out as it is."""
    with pytest.raises(type(bug)) as raised:
        persist(answered(UNWELL, bug), BACKOFF, what="it", wait=wait)

    assert bug is raised.value
    assert [1.0] == wait.waits


def test_patience_sleeps() -> None:
    """Unless told otherwise, a wait is a sleep after which it goes on."""
    started = time.monotonic()

    assert not patiently(0.02)

    assert time.monotonic() - started >= 0.02


SILENCE = " (an earlier attempt went unanswered and may have arrived)"


@pytest.mark.parametrize(
    ("result", "unanswered", "status", "detail", "http_status"),
    [
        (OK, False, "delivered", "", None),
        (OK, True, "delivered", "", None),
        (REJECTED, False, "rejected", "HTTP 400: unknown code", 400),
        (REJECTED, True, "rejected", "HTTP 400: unknown code" + SILENCE, 400),
        (UNWELL, False, "undelivered", "HTTP 503", 503),
        (UNWELL, True, "unconfirmed", "HTTP 503", 503),
        (AWAY, False, "undelivered", "no route to host", None),
        (SILENT, True, "unconfirmed", "no answer in 30 s", None),
        (REFUSED, False, "undelivered", "sign-in refused", 401),
        (REFUSED, True, "unconfirmed", "sign-in refused", 401),
    ],
    ids=[
        "success",
        "success after silence",
        "rejected",
        "rejected after silence",
        "unwell",
        "unwell and silent",
        "never left",
        "silent",
        "refused",
        "refused after silence",
    ],
)
def test_what_becomes_of_an_event(
    result: object,
    status: str,
    detail: str,
    http_status: int | None,
    *,
    unanswered: bool,
    make_event: Callable[..., UsageplaceEvent],
) -> None:
    """How the attempts ended says what became of the event: one that may have arrived is unconfirmed."""
    delivery = delivery_of(make_event("a1", "A"), Ending(result, 2, unanswered))

    assert Delivery(DeliveryStatus(status), "a1", "A", detail, http_status, 2) == delivery


def test_end_without_an_attempt(make_event: Callable[..., UsageplaceEvent]) -> None:
    """An event that was not tried has an end too."""
    assert Delivery(DeliveryStatus.HELD, "a1", "A", "why", None, 0) == end_of(
        make_event("a1", "A"), DeliveryStatus.HELD, "why"
    )


def test_what_holds_a_place() -> None:
    """A place's next events wait for one that may yet arrive, and for no other."""
    assert {"undelivered", "unconfirmed", "held"} == set(BLOCKING)


def test_says_how_long_each_attempt_took() -> None:
    """Attempts are timed one by one, without the waits between them."""
    naps = iter([0.05, 0.01])

    def request() -> str:
        time.sleep(nap := next(naps))
        if nap > 0.01:
            raise UNWELL
        return "here"

    began = time.monotonic()
    ending = persist(request, Backoff(max_attempts=3, first=0.2, spread=lambda: 1.0), what="a request")
    all_in_all = time.monotonic() - began

    first, second = ending.seconds
    assert 0.05 <= first
    assert 0.01 <= second
    assert 0.2 <= all_in_all - first - second
