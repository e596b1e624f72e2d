"""What a report says of a run, to the log and to whoever shows it."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_ropo.delivery import REMEMBERED, Delivery, DeliveryStatus, DeliverySummary
from airflow_provider_ropo.errors import RopoUnavailableError
from airflow_provider_ropo.report import LOG_EVERY, SHOW_EVERY, Report

NOTHING = {status.value: 0 for status in DeliveryStatus}


class Clock:
    """Tells the time it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def delivered(number: int) -> Delivery:
    return Delivery(DeliveryStatus.DELIVERED, f"e{number}", "RE1")


def test_says_in_the_log_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A line says what is done, of how many, how fast, what is not good and how long it still takes."""
    caplog.set_level("INFO")
    clock = Clock()
    report = Report(DeliverySummary(), clock=clock)
    report.post(5_000)

    for number in range(1, 1_501):
        clock.now = 1000.0 + number * 0.01
        report.landed(Delivery(DeliveryStatus.DELIVERED if number > 3 else DeliveryStatus.REJECTED))

    assert ["Posted 1,000 of 5,000 events, 100.0 a second, 3 not good, about 40 s left"] == caplog.messages


def test_keeps_the_log_quiet_between(caplog: pytest.LogCaptureFixture) -> None:
    """However many events land, lines come only now and then."""
    caplog.set_level("INFO")
    clock = Clock()
    report = Report(DeliverySummary(), clock=clock)
    report.post(100)

    said = []
    for elapsed in (0.0, LOG_EVERY - 0.1, LOG_EVERY, LOG_EVERY + 0.1, 2 * LOG_EVERY - 0.1, 2 * LOG_EVERY):
        clock.now = 1000.0 + elapsed
        report.landed(delivered(1))
        said.append(len(caplog.messages))

    assert [0, 0, 1, 1, 1, 2] == said


def test_is_shown_at_each_step_and_now_and_then_while_events_are_posted() -> None:
    """Whoever looks sees the run begin, read, post and end, and does not hold up the posting meanwhile."""
    clock, shown = Clock(), list[dict[str, Any]]()
    summary = DeliverySummary()

    with Report(summary, shown.append, clock) as report:
        report.about(server="https://rc.ropo24.fi")
        summary.rows = 4
        report.post(4)
        for number, elapsed in enumerate((0.1, SHOW_EVERY - 0.1, SHOW_EVERY, SHOW_EVERY + 0.1)):
            clock.now = 1000.0 + elapsed
            report.landed(delivered(number))

    steps = [(seen["state"], seen["done"], seen["total"]) for seen in shown]
    assert [("reading", 0, 0)] * 2 + [("posting", 0, 4), ("posting", 3, 4), ("ended", 4, 4)] == steps


def test_says_everything_about_the_run() -> None:
    """Counts, progress, why it was stopped, and what failed: plain data, complete."""
    clock, shown = Clock(), list[dict[str, Any]]()
    summary = DeliverySummary(rows=6)
    summary.add(Delivery(DeliveryStatus.INVALID, None, detail="row 3: time: is missing"))

    with Report(summary, shown.append, clock) as report:
        report.about(server="https://rc.ropo24.fi")
        report.post(4)
        clock.now += 2.0
        report.landed(delivered(1))
        report.landed(Delivery(DeliveryStatus.REJECTED, "e2", "RE2", "HTTP 400 unknown", 400, 1))
        report.stop(RopoUnavailableError("20 events in a row did not arrive"))

    last = shown[-1]
    assert last.pop("updated_at")
    assert {
        "state": "ended",
        "preview": False,
        "server": "https://rc.ropo24.fi",
        "counts": {"rows": 6, "events": 3} | NOTHING | {"delivered": 1, "rejected": 1, "invalid": 1},
        "total": 4,
        "done": 2,
        "not_good": 2,
        "per_second": 1.0,
        "seconds_left": 2,
        "stopped": "20 events in a row did not arrive",
        "failures": [
            {
                "id": None,
                "usageplacecode": None,
                "status": "invalid",
                "detail": "row 3: time: is missing",
                "http_status": None,
            },
            {
                "id": "e2",
                "usageplacecode": "RE2",
                "status": "rejected",
                "detail": "HTTP 400 unknown",
                "http_status": 400,
            },
        ],
    } == last


def test_names_the_first_hundred_failures_only() -> None:
    """A report stays small, whatever went wrong."""
    shown = list[dict[str, Any]]()

    with Report(DeliverySummary(), shown.append) as report:
        report.post(5 * REMEMBERED)
        for number in range(5 * REMEMBERED):
            report.landed(Delivery(DeliveryStatus.REJECTED, f"e{number}"))

    assert REMEMBERED == len(shown[-1]["failures"])
    assert 5 * REMEMBERED == shown[-1]["counts"]["rejected"]


def test_ends_with_the_error_that_ended_the_run() -> None:
    """The provider's own error is told as it is; another's words may quote a row, and stay in the log."""
    shown = list[dict[str, Any]]()

    with pytest.raises(RopoUnavailableError), Report(DeliverySummary(), shown.append):
        raise RopoUnavailableError("nothing gets through")
    with pytest.raises(ValueError, match="A123456"), Report(DeliverySummary(), shown.append):
        raise ValueError("customer A123456 is odd")

    assert ["nothing gets through", "ValueError; the task's log says more"] == [
        seen["stopped"] for seen in shown if seen["state"] == "ended"
    ]
