from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.delivery import BLOCKING, Delivery, DeliveryStatus, delivery_of, end_of
from airflow_provider_ropo.errors import (
    InvalidRowError,
    RopoAuthenticationError,
    RopoConnectError,
    RopoRejectedError,
    RopoServerError,
    RopoTimeoutError,
)
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.retry import RetryResult

OK = Receipt(200)
REJECTED = RopoRejectedError("HTTP 400: unknown code", status_code=400)
UNWELL = RopoServerError("HTTP 503", status_code=503)
SILENT = RopoTimeoutError("no answer in 30 s")
AWAY = RopoConnectError("no route to host")
REFUSED = RopoAuthenticationError("sign-in refused", status_code=401)
SILENCE = " (an earlier attempt went unanswered and may have arrived)"


def test_delivery_of_an_invalid_row() -> None:
    """A row that never became an event ends as one delivery that names it."""
    delivery = Delivery.of_invalid_row(InvalidRowError("row 7 (id e1)", "time", "is missing", event_id="e1"))

    assert (DeliveryStatus.INVALID, "e1") == (delivery.status, delivery.event_id)
    assert "invalid: row 7 (id e1): time: is missing" == str(delivery)


def test_delivery_in_one_line() -> None:
    """A delivery says its status, its event and why."""
    delivery = Delivery(DeliveryStatus.REJECTED, "e1", "RE1", "HTTP 400: unknown code", 400, 1)

    assert "rejected: id e1: HTTP 400: unknown code" == str(delivery)


@pytest.mark.parametrize(
    ("result", "may_have_arrived", "status", "detail", "http_status"),
    [
        (OK, False, "delivered", "", 200),
        (OK, True, "delivered", "", 200),
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
def test_delivery_status_of_an_event(
    result: object,
    status: str,
    detail: str,
    http_status: int | None,
    *,
    may_have_arrived: bool,
    make_event: Callable[..., UsageplaceEvent],
) -> None:
    """How the attempts ended gives the delivery status: an event that may have arrived is unconfirmed."""
    delivery = delivery_of(make_event("a1", "A"), RetryResult(result, 2, may_have_arrived))

    assert Delivery(DeliveryStatus(status), "a1", "A", detail, http_status, 2) == delivery


def test_end_without_an_attempt(make_event: Callable[..., UsageplaceEvent]) -> None:
    """An event that was not tried has an end too."""
    assert Delivery(DeliveryStatus.HELD, "a1", "A", "why", None, 0) == end_of(
        make_event("a1", "A"), DeliveryStatus.HELD, "why"
    )


def test_what_holds_a_place() -> None:
    """A place's next events wait for one that may yet arrive, and for no other."""
    assert {"undelivered", "unconfirmed", "held"} == set(BLOCKING)
