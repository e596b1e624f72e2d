"""The report of a run: its log lines, and what the publisher gets."""

from __future__ import annotations

import datetime as dt
import json
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    RopoUnavailableError,
    RunRefusedError,
    SupersededError,
)
from airflow_provider_ropo.reporting.report import LOG_EVERY, Report
from airflow_provider_ropo.reporting.summary import REMEMBERED, DeliverySummary
from doubles import FakeClock

NOTHING = {status.value: 0 for status in DeliveryStatus}


def delivered(number: int) -> Delivery:
    return Delivery(DeliveryStatus.DELIVERED, f"e{number}", "RE1")


def test_says_in_the_log_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A line says what is done, of how many, how fast, what is not good and how long it still takes."""
    caplog.set_level("INFO")
    clock = FakeClock()
    report = Report(DeliverySummary(), clock=clock)
    report.start_posting(5_000)

    for number in range(1, 1_501):
        clock.now = 1000.0 + number * 0.01
        report.on_delivery(Delivery(DeliveryStatus.DELIVERED if number > 3 else DeliveryStatus.REJECTED))
        if report.is_due:
            report.publish()

    assert ["Posted 1,000 of 5,000 events, 100.0 a second, 3 not good, about 40 s left"] == caplog.messages


def test_says_in_the_log_that_nothing_has_arrived(caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for the first answer is told so, too."""
    caplog.set_level("INFO")
    clock = FakeClock()
    report = Report(DeliverySummary(), clock=clock)
    report.start_posting(5_000)
    clock.now += LOG_EVERY

    report.publish()

    assert ["Posted 0 of 5,000 events, 0.0 a second, 0 not good"] == caplog.messages


def test_keeps_the_log_quiet_between(caplog: pytest.LogCaptureFixture) -> None:
    """However many events land, lines come only now and then."""
    caplog.set_level("INFO")
    clock = FakeClock()
    report = Report(DeliverySummary(), clock=clock)
    report.start_posting(100)

    said = []
    for elapsed in (0.0, LOG_EVERY - 0.1, LOG_EVERY, LOG_EVERY + 0.1, 2 * LOG_EVERY - 0.1, 2 * LOG_EVERY):
        clock.now = 1000.0 + elapsed
        report.publish()
        said.append(len(caplog.messages))

    assert [0, 0, 1, 1, 1, 2] == said


class FakePublisher:
    """Keeps the reports it is to publish; it may be slow, and it may be broken."""

    def __init__(self, clock: FakeClock, *, takes: float = 0.0, works: bool = True) -> None:
        self.published: list[dict[str, Any]] = []
        self._clock = clock
        self._takes = takes
        self.works = works

    def __call__(self, report: dict[str, Any]) -> bool:
        self.published.append(report)
        self._clock.now += self._takes
        return self.works


def watch(clock: FakeClock, publisher: FakePublisher, seconds: int) -> list[tuple[str, float]]:
    """Follow a run whose events arrive ten a second; return the state of each report that was published, and when."""
    summary, said = DeliverySummary(), list[tuple[str, float]]()
    with Report(summary, publisher, clock) as report:
        report.start_posting(10 * seconds)
        for number in range(10 * seconds):
            clock.now = max(clock.now, 1000.0 + number / 10)
            report.on_delivery(delivered(number))
            if report.is_due:
                report.publish()
            said += [(seen["state"], clock.now - 1000.0) for seen in publisher.published[len(said) :]]
    return said + [(seen["state"], clock.now - 1000.0) for seen in publisher.published[len(said) :]]


def test_is_published_at_each_step_and_now_and_then_while_events_are_posted() -> None:
    """The published reports show the run begin, read, post and end."""
    clock = FakeClock()

    said = watch(clock, FakePublisher(clock), 10)

    assert ["reading", "posting", "posting", "posting", "posting", "ended"] == [state for state, _ in said]
    assert [3.0, 6.0, 9.0] == [when for _, when in said[2:-1]]


def test_a_slow_publisher_takes_a_small_part_of_the_time() -> None:
    """A report that takes long to publish is published less often."""
    clock = FakeClock()

    said = watch(clock, FakePublisher(clock, takes=0.5), 100)

    gaps = [later - earlier for (_, earlier), (_, later) in pairwise(said[2:-1])]
    assert {10.5} == {round(gap, 1) for gap in gaps}


def test_figures_are_never_older_than_fifteen_seconds() -> None:
    """While events are posted, each report follows the one before soon, even if it takes long to publish."""
    clock = FakeClock()

    said = watch(clock, FakePublisher(clock, takes=2.0), 100)

    assert 0 < max(later - earlier for (_, earlier), (_, later) in pairwise(said)) <= 15


def test_figures_are_fresh_while_rows_are_read(caplog: pytest.LogCaptureFixture) -> None:
    """However long reading takes, the report and the log tell how many rows there are so far."""
    caplog.set_level("INFO")
    clock = FakeClock()
    publisher = FakePublisher(clock)
    with Report(DeliverySummary(), publisher, clock) as report:
        for number in range(1, 21):
            clock.now += 2.0
            report.on_rows(100 * number)

    # Two seconds after the third is the first time at which a report is due.
    rows = [0, *range(200, 2_001, 200), 2_000]
    assert rows == [seen["counts"]["rows"] for seen in publisher.published]
    assert {"reading", "ended"} == {seen["state"] for seen in publisher.published}
    assert [f"Read {number:,} rows so far" for number in (500, 1_000, 1_500, 2_000)] == caplog.messages


def test_figures_are_fresh_between_items_that_take_long() -> None:
    """Whatever else is gone through, item by item, the reports do not cease."""
    clock = FakeClock()
    publisher = FakePublisher(clock)
    with Report(DeliverySummary(), publisher, clock) as report:
        for _item in report.follow(range(5)):
            clock.now += 10.0

    assert 1 + 4 + 1 == len(publisher.published)


def test_a_broken_publisher_is_left_alone_for_long() -> None:
    """If it takes long to find out that nothing can be published, it is not tried again soon, but at the end."""
    clock = FakeClock()

    said = watch(clock, FakePublisher(clock, takes=30.0, works=False), 100)

    assert ["reading", "ended"] == [state for state, _ in said]


def test_a_publisher_that_works_again_is_used_again() -> None:
    """After one report that could not be published, the figures are fresh again within fifteen seconds."""
    clock = FakeClock()
    publisher = FakePublisher(clock, works=False)
    with Report(DeliverySummary(), publisher, clock) as report:
        report.start_posting(100)
        publisher.works = True
        states = []
        for _ in range(30):
            clock.now += 0.5
            report.publish()
            states.append(len(publisher.published))

    assert 1 == states[0]
    assert "posting" == publisher.published[1]["state"]
    assert states[-1] >= 2


NOON = dt.datetime(2024, 1, 4, 12, tzinfo=dt.UTC)


def test_says_everything_about_the_run() -> None:
    """Counts, progress, why it was stopped, and what failed: plain data, complete."""
    clock, summary = FakeClock(), DeliverySummary(rows=6)
    publisher = FakePublisher(clock)
    summary.add(Delivery(DeliveryStatus.INVALID, None, detail="row 3: time: is missing"))

    with Report(summary, publisher, clock) as report:
        report.set_about(server="https://rc.ropo24.fi", ledger=None)
        report.start_posting(4)
        clock.now += 2.0
        report.on_delivery(delivered(1))
        rejected = Delivery(DeliveryStatus.REJECTED, "e2", "RE2", "HTTP 400 unknown", 400, 1, event_time=NOON)
        report.on_delivery(rejected)
        report.stop(RopoUnavailableError("20 events in a row did not arrive", retry_after=300.0))

    last = publisher.published[-1]
    assert last.pop("updated_at")
    assert {
        "state": "ended",
        "preview": False,
        "server": "https://rc.ropo24.fi",
        "ledger": None,
        "counts": {"rows": 6, "events": 3} | NOTHING | {"delivered": 1, "rejected": 1, "invalid": 1},
        "total": 4,
        "done": 2,
        "not_good": 2,
        "per_second": 1.0,
        "seconds_left": 2,
        "stopped": "20 events in a row did not arrive",
        "stopped_by": "unavailable",
        "retry_after": 300.0,
        "sample": [],
        "oldest_open": "2024-01-04T12:00:00+00:00",
        "longest_lag": None,
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
    publisher = FakePublisher(FakeClock())

    with Report(DeliverySummary(), publisher) as report:
        report.start_posting(5 * REMEMBERED)
        for number in range(5 * REMEMBERED):
            report.on_delivery(Delivery(DeliveryStatus.REJECTED, f"{number}" * 20_000, "P" * 20_000, "why" * 20_000))

    last = publisher.published[-1]
    assert REMEMBERED == len(last["failures"])
    assert 5 * REMEMBERED == last["counts"]["rejected"]
    assert len(json.dumps(last)) < 150_000


def test_ends_with_the_error_that_ended_the_run() -> None:
    """The provider's own error is told as it is; another's words may quote a row, and stay in the log."""
    publisher = FakePublisher(FakeClock())

    with pytest.raises(RopoUnavailableError), Report(DeliverySummary(), publisher):
        raise RopoUnavailableError("nothing gets through")
    with pytest.raises(ValueError, match="A123456"), Report(DeliverySummary(), publisher):
        raise ValueError("customer A123456 is odd")

    assert ["nothing gets through", "ValueError; the task's log has more"] == [
        seen["stopped"] for seen in publisher.published if seen["state"] == "ended"
    ]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        pytest.param(RopoAuthenticationError("no"), "sign_in", id="sign-in"),
        pytest.param(RopoConfigurationError("no"), "configuration", id="configuration"),
        pytest.param(RopoLedgerError("no"), "ledger", id="ledger"),
        pytest.param(SupersededError("no"), "superseded", id="superseded"),
        pytest.param(RunRefusedError("no"), "refused", id="refused"),
        pytest.param(RopoUnavailableError("no"), "unavailable", id="unavailable"),
        pytest.param(RopoError("told to stop"), "other", id="another"),
        pytest.param(KeyboardInterrupt(), "other", id="not ours"),
        pytest.param(None, None, id="none"),
    ],
)
def test_tells_in_one_word_why_it_ended_early(error: BaseException | None, kind: str | None) -> None:
    """A page needs no error text to tell what to do."""
    report = Report(DeliverySummary())
    if error is not None:
        report.stop(error)

    assert kind == report.as_dict()["stopped_by"]
