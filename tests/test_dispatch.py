from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_ropo.backoff import Backoff
from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.dispatch import dispatch, persist
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

REJECTED = RopoRejectedError("HTTP 400: unknown code", status_code=400)
UNWELL = RopoServerError("HTTP 503", status_code=503)
SILENT = RopoTimeoutError("no answer in 30 s")
AWAY = RopoConnectError("no route to host")
REFUSED = RopoAuthenticationError("sign-in refused", status_code=401)

OK = object()


class Script:
    """Stands in for the client: answers each event as written, else with success, and remembers who came."""

    def __init__(self, **answers: list[object]) -> None:
        self._answers = answers
        self.sent: list[str] = []

    def __call__(self, event: UsageplaceEvent) -> object:
        self.sent.append(event.id)
        answers = self._answers.get(event.id)
        answer = answers.pop(0) if answers else OK
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Sleep:
    """Stands in for the clock: remembers the waits."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.fixture
def sleep() -> Sleep:
    return Sleep()


@pytest.fixture
def lanes(make_event: Callable[..., UsageplaceEvent]) -> list[list[UsageplaceEvent]]:
    """Return two usage places: one with the events a1, a2, a3, one with b1."""
    return [[make_event(f"a{number}", "A") for number in (1, 2, 3)], [make_event("b1", "B")]]


def ends(deliveries: list[Delivery]) -> dict[str | None, str]:
    return {delivery.event_id: delivery.status.value for delivery in deliveries}


def test_everything_arrives(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """Every event is posted once, those of a place in their order, and each says so."""
    send = Script()

    deliveries = list(dispatch(lanes, send, BACKOFF, sleep=sleep))

    assert ["a1", "a2", "a3", "b1"] == send.sent
    assert Delivery(DeliveryStatus.DELIVERED, "a1", "A", "", None, 1) == deliveries[0]
    assert {"delivered"} == set(ends(deliveries).values())
    assert [] == sleep.waits


@pytest.mark.parametrize("error", [UNWELL, SILENT, AWAY], ids=lambda error: type(error).__name__)
def test_transient_failure_passes(
    error: RopoError, lanes: list[list[UsageplaceEvent]], sleep: Sleep, caplog: pytest.LogCaptureFixture
) -> None:
    """What may pass is tried again after a wait, said in the log, before the place's next event."""
    send = Script(a1=[error, error])

    deliveries = list(dispatch(lanes, send, BACKOFF, sleep=sleep))

    assert ["a1", "a1", "a1", "a2", "a3", "b1"] == send.sent
    assert (DeliveryStatus.DELIVERED, 3, "") == (
        deliveries[0].status,
        deliveries[0].attempts,
        deliveries[0].detail,
    )
    assert [1.0, 2.0] == sleep.waits
    assert [
        f"event a1: attempt 1 of 3: {error}; again in 1.0 s",
        f"event a1: attempt 2 of 3: {error}; again in 2.0 s",
    ] == caplog.messages


def test_attempts_are_used_up(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """An event whose attempts are used up is undelivered; its place's later ones are held, other places go on."""
    send = Script(a1=[UNWELL] * 3)

    deliveries = list(dispatch(lanes, send, BACKOFF, sleep=sleep))

    assert ["a1", "a1", "a1", "b1"] == send.sent
    assert Delivery(DeliveryStatus.UNDELIVERED, "a1", "A", "HTTP 503", 503, 3) == deliveries[0]
    assert {"a1": "undelivered", "a2": "held", "a3": "held", "b1": "delivered"} == ends(deliveries)


def test_held_events_name_what_they_wait_for(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """A held event was not tried, and names the one that did not arrive."""
    deliveries = list(dispatch(lanes, Script(a2=[UNWELL] * 3), BACKOFF, sleep=sleep))

    assert Delivery(DeliveryStatus.HELD, "a3", "A", "waits for the earlier event a2", None, 0) == deliveries[2]


@pytest.mark.parametrize(
    ("answers", "status", "http_status"),
    [
        ([AWAY, AWAY, AWAY], "undelivered", None),
        ([SILENT, SILENT, SILENT], "unconfirmed", None),
        ([SILENT, UNWELL, UNWELL], "unconfirmed", 503),
        ([UNWELL, SILENT, AWAY], "unconfirmed", None),
        ([UNWELL, UNWELL, UNWELL], "undelivered", 503),
        ([UNWELL, SILENT, OK], "delivered", None),
    ],
    ids=["never left", "silent", "silent once", "silent in between", "unwell", "in the end"],
)
def test_what_may_have_arrived(
    answers: list[object],
    status: str,
    http_status: int | None,
    lanes: list[list[UsageplaceEvent]],
    sleep: Sleep,
) -> None:
    """One attempt without an answer makes an event unconfirmed, unless a later one arrives."""
    deliveries = list(dispatch(lanes, Script(a1=answers), BACKOFF, sleep=sleep))

    assert (status, http_status) == (deliveries[0].status, deliveries[0].http_status)
    assert ("delivered" if status == "delivered" else "held") == deliveries[1].status


def test_rejection_is_final(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """What Ropo One says no to is not tried again, and does not hold its place's later events."""
    send = Script(a1=[REJECTED])

    deliveries = list(dispatch(lanes, send, BACKOFF, sleep=sleep))

    assert ["a1", "a2", "a3", "b1"] == send.sent
    assert Delivery(DeliveryStatus.REJECTED, "a1", "A", "HTTP 400: unknown code", 400, 1) == deliveries[0]
    assert [] == sleep.waits


def test_rejection_after_silence(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """A rejection after an unanswered attempt says that the event may be there all the same."""
    delivery = next(dispatch(lanes, Script(a1=[SILENT, REJECTED]), BACKOFF, sleep=sleep))

    assert (DeliveryStatus.REJECTED, 2) == (delivery.status, delivery.attempts)
    assert "HTTP 400: unknown code (an earlier attempt went unanswered and may have arrived)" == delivery.detail


def drain(deliveries: Iterator[Delivery]) -> tuple[list[Delivery], BaseException | None]:
    """Return what landed, and the error after it, if there was one."""
    landed: list[Delivery] = []
    try:
        for delivery in deliveries:
            landed.append(delivery)  # noqa: PERF402 - what landed before an error counts
    except Exception as error:  # noqa: BLE001 - it is handed back
        return landed, error
    return landed, None


@pytest.mark.parametrize(
    ("answers", "status"), [([REFUSED], "undelivered"), ([SILENT, REFUSED], "unconfirmed")], ids=["first", "later"]
)
def test_refused_sign_in_stops_the_run(
    answers: list[object], status: str, lanes: list[list[UsageplaceEvent]], sleep: Sleep
) -> None:
    """A refused sign-in ends the posting: later events are undelivered and untried, then the error is raised."""
    send = Script(a2=list(answers))

    landed, error = drain(dispatch(lanes, send, BACKOFF, sleep=sleep))

    assert REFUSED is error
    assert ["a1", *["a2"] * len(answers)] == send.sent
    assert {"a1": "delivered", "a2": status, "a3": "undelivered", "b1": "undelivered"} == ends(landed)
    assert [("not tried: signing in was refused", 0)] * 2 == [(each.detail, each.attempts) for each in landed[2:]]


@pytest.mark.parametrize(
    "bug",
    [KeyError("jobid"), TypeError("no"), RopoConfigurationError("no password"), InvalidRowError("row 1", "id", "no")],
    ids=lambda bug: type(bug).__name__,
)
def test_bug_is_no_delivery(bug: Exception, lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """Only an answer, or the lack of one, is an event's end: anything else comes out as it is."""
    send = Script(a2=[bug])

    landed, error = drain(dispatch(lanes, send, BACKOFF, sleep=sleep))

    assert bug is error
    assert ["a1"] == [delivery.event_id for delivery in landed]
    assert ["a1", "a2"] == send.sent


def test_interruption_passes(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """A kill is not waited out."""
    with pytest.raises(KeyboardInterrupt):
        list(dispatch(lanes, Script(a1=[KeyboardInterrupt()]), BACKOFF, sleep=sleep))


def test_deliveries_land_one_by_one(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """Each delivery is told before the next event is posted, so that it can be remembered."""
    send = Script()
    deliveries = dispatch(lanes, send, BACKOFF, sleep=sleep)

    seen = [(delivery.event_id, tuple(send.sent)) for delivery in itertools.islice(deliveries, 2)]

    assert [("a1", ("a1",)), ("a2", ("a1", "a2"))] == seen


def test_events_are_drawn_as_they_are_sent(make_event: Callable[..., UsageplaceEvent], sleep: Sleep) -> None:
    """Events are taken from their lanes one by one: a million of them need no memory."""
    drawn: list[str] = []

    def lane(place: str) -> Iterator[UsageplaceEvent]:
        for number in range(3):
            drawn.append(f"{place}{number}")
            yield make_event(f"{place}{number}", place)

    deliveries = dispatch((lane(place) for place in "ABC"), Script(), BACKOFF, sleep=sleep)
    list(itertools.islice(deliveries, 4))

    assert ["A0", "A1", "A2", "B0"] == drawn


def test_no_events(sleep: Sleep) -> None:
    """Where there is nothing to send, nothing happens."""
    assert [] == list(dispatch([], Script(), BACKOFF, sleep=sleep))


@pytest.mark.parametrize(
    ("asked", "waits"), [(20.0, [20.1]), (120.0, [120.1]), (None, [1.0])], ids=["seconds", "patience", "nothing"]
)
def test_retry_after(asked: float | None, waits: list[float], lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """The wait is at least what the answer asks for."""
    busy = RopoRateLimitError("HTTP 429", status_code=429, retry_after=asked)

    list(dispatch(lanes, Script(a1=[busy]), BACKOFF, sleep=sleep))

    assert waits == sleep.waits


def test_retry_after_beyond_patience(lanes: list[list[UsageplaceEvent]], sleep: Sleep) -> None:
    """An answer that asks for more patience than we have ends the attempts at once, without a wait."""
    closed = RopoServerError("HTTP 503", status_code=503, retry_after=3600.0)
    send = Script(a1=[closed])

    deliveries = list(dispatch(lanes, send, BACKOFF, sleep=sleep))

    assert (DeliveryStatus.UNDELIVERED, 1) == (deliveries[0].status, deliveries[0].attempts)
    assert [] == sleep.waits


def persisted(*answers: Any) -> Callable[[], object]:
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
        ([REJECTED], REJECTED, 1, False),
        ([REFUSED], REFUSED, 1, False),
    ],
    ids=["at once", "second", "after silence", "used up", "used up, silent", "rejected", "refused"],
)
def test_persist(
    answers: list[Any],
    result: object,
    attempts: int,
    unanswered: bool,  # noqa: FBT001
    sleep: Sleep,
) -> None:
    """A request is tried until it succeeds, fails for good, or the attempts are used up; the last end counts."""
    ending = persist(persisted(*answers), BACKOFF, what="it", sleep=sleep)

    assert result is ending.result
    assert (attempts, unanswered) == (ending.attempts, ending.unanswered)
    assert attempts - 1 == len(sleep.waits)
