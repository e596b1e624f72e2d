from __future__ import annotations

import pytest

from airflow_provider_ropo.delivery import Delivery, DeliveryStatus, DeliverySummary
from airflow_provider_ropo.progress import EVERY, Progress


class Clock:
    """Tells the time it is set to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_says_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A line says what is done, of how many, how fast, what is not good and how long it still takes."""
    caplog.set_level("INFO")
    clock, summary = Clock(), DeliverySummary()
    progress = Progress(5_000, clock)

    for number in range(1, 1_501):
        clock.now = 1000.0 + number * 0.01
        status = DeliveryStatus.DELIVERED if number > 3 else DeliveryStatus.REJECTED
        summary.add(Delivery(status))
        progress.landed(summary)

    assert ["Posted 1,000 of 5,000 events, 100.0 a second, 3 not good, about 40 s left"] == caplog.messages


def test_keeps_quiet_between(caplog: pytest.LogCaptureFixture) -> None:
    """However many events land, lines come only now and then."""
    caplog.set_level("INFO")
    clock, summary = Clock(), DeliverySummary()
    progress = Progress(100, clock)

    said = []
    for elapsed in (0.0, EVERY - 0.1, EVERY, EVERY + 0.1, 2 * EVERY - 0.1, 2 * EVERY):
        clock.now = 1000.0 + elapsed
        progress.landed(summary)
        said.append(len(caplog.messages))

    assert [0, 0, 1, 1, 1, 2] == said
