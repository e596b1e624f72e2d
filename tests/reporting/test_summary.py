from __future__ import annotations

import datetime as dt

import pytest

from airflow_provider_ropo.delivery import ARRIVED, NAMED, SUCCESSFUL, Delivery, DeliveryStatus
from airflow_provider_ropo.errors import DeliveriesFailedError
from airflow_provider_ropo.reporting.summary import REMEMBERED, DeliverySummary

DELIVERED = DeliveryStatus.DELIVERED
REJECTED = DeliveryStatus.REJECTED
INVALID = DeliveryStatus.INVALID
UNDELIVERED = DeliveryStatus.UNDELIVERED
NOTHING = dict.fromkeys(
    [
        "rows",
        "events",
        "delivered",
        "already_delivered",
        "rejected",
        "invalid",
        "changed",
        "undelivered",
        "unconfirmed",
        "held",
        "closed",
    ],
    0,
)


def summary_of(rows: int = 0, **counts: int) -> DeliverySummary:
    summary = DeliverySummary(rows)
    for status, count in counts.items():
        for number in range(count):
            summary.add(Delivery(DeliveryStatus(status), f"{status}-{number}", detail=f"reason {number}"))
    return summary


def test_counts_of_nothing() -> None:
    """What goes to XCom has every count, even where there is nothing to count."""
    assert NOTHING == DeliverySummary().as_dict()


def test_counts_add_up() -> None:
    """Each delivery counts once, under its status, and the counts add up to the events."""
    counts = summary_of(rows=40, **{status: number for number, status in enumerate(DeliveryStatus, 1)}).as_dict()

    assert list(NOTHING) == list(counts)
    assert (40, 45) == (counts["rows"], counts["events"])
    assert [1, 2, 3, 4, 5, 6, 7, 8, 9] == list(counts.values())[2:]
    assert {int} == {type(value) for value in counts.values()}
    assert {str} == {type(key) for key in counts}


def test_left_events_count() -> None:
    """Events that a preview leaves count as undelivered, and are no failure of it."""
    summary = summary_of(rows=5, invalid=1)

    summary.count_undelivered(4)

    assert NOTHING | {"rows": 5, "events": 5, "invalid": 1, "undelivered": 4} == summary.as_dict()
    assert 1 == len(summary.failures)
    assert not summary.retryable


@pytest.mark.parametrize("status", sorted(ARRIVED))
def test_all_is_well(status: str) -> None:
    """Events that are at Ropo One are no failure."""
    assert summary_of(rows=3, **{status: 3}).failure() is None


@pytest.mark.parametrize("status", sorted(set(DeliveryStatus) - SUCCESSFUL))
def test_one_is_not_well(status: str) -> None:
    """One event that is not at Ropo One fails the task, with the counts."""
    failure = summary_of(rows=3, delivered=2, **{status: 1}).failure()

    assert isinstance(failure, DeliveriesFailedError)
    assert NOTHING | {"rows": 3, "events": 3, "delivered": 2, status: 1} == failure.summary
    assert f"2 of 3 events are at Ropo One: 2 delivered, 1 {status}" in str(failure)
    assert f"{status}-0" in str(failure) or status == "invalid"


@pytest.mark.parametrize(
    ("max_failed", "rejected", "invalid", "fails"),
    [
        (0, 0, 1, True),
        (1, 1, 0, False),
        (2, 1, 1, False),
        (2, 2, 1, True),
        (2.5, 2, 1, True),
        (0.29, 29, 0, False),
        (0.29, 29, 1, True),
        (0.07, 3, 4, False),
        (0.999, 100, 0, True),
        (1, 2, 0, True),
        (100, 60, 40, False),
    ],
)
def test_tolerance(max_failed: float, rejected: int, invalid: int, fails: bool) -> None:  # noqa: FBT001
    """Rejected plus invalid events are tolerated up to a count, or to a fraction of all events, inclusive."""
    summary = summary_of(rows=100, delivered=100 - rejected - invalid, rejected=rejected, invalid=invalid)

    assert fails is (summary.failure(max_failed) is not None)


@pytest.mark.parametrize("status", ["undelivered", "unconfirmed", "held"])
@pytest.mark.parametrize("max_failed", [0.99, 1000])
def test_tolerance_is_for_what_is_final(status: str, max_failed: float) -> None:
    """What another run may deliver is never tolerated away."""
    assert summary_of(delivered=99, **{status: 1}).failure(max_failed) is not None


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"delivered": 3}, False),
        ({"rejected": 1, "invalid": 2}, False),
        ({"rejected": 1, "undelivered": 1}, True),
        ({"unconfirmed": 1}, True),
        ({"held": 1}, True),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_retryable(counts: dict[str, int], expected: bool) -> None:  # noqa: FBT001
    """Another run can help unless everything that failed is final."""
    assert expected is summary_of(**counts).retryable


def test_retryable_beyond_the_named() -> None:
    """A transient failure counts even where the message has no room to name it."""
    assert summary_of(rejected=NAMED + 5, undelivered=1).retryable


def test_message_names_the_first() -> None:
    """The message names the first failures, and says how many more there are."""
    lines = str(summary_of(rows=2000, delivered=1234, rejected=NAMED + 5)).splitlines()

    assert "1,234 of 1,249 events are at Ropo One: 1,234 delivered, 15 rejected" == lines[0]
    assert [f"  rejected: id rejected-{number}: reason {number}" for number in range(NAMED)] == lines[1:-1]
    assert "  … and 5 more" == lines[-1]


def test_message_of_few() -> None:
    """Where all failures are named, no more are spoken of."""
    assert 1 + NAMED == len(str(summary_of(invalid=NAMED)).splitlines())


def test_failures_kept_are_few() -> None:
    """However many fail, the summary keeps a handful: memory stays flat."""
    assert REMEMBERED == len(summary_of(undelivered=500).failures)


def test_closed_is_no_failure() -> None:
    """What a person has closed is not at Ropo One, and makes no task red."""
    summary = summary_of(rows=3, delivered=2, closed=1)

    assert summary.failure() is None
    assert str(summary).startswith("2 of 3 events are at Ropo One: 2 delivered, 1 closed")


def test_changed_is_permanent() -> None:
    """Another try does not help where Ropo One has an earlier version; it counts among the tolerated."""
    summary = summary_of(delivered=9, changed=1)

    assert not summary.retryable
    assert summary.failure() is not None
    assert summary.failure(1) is None


NOON = dt.datetime(2024, 1, 4, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("statuses", "oldest"),
    [
        ([], None),
        (["delivered", "already_delivered", "closed"], None),
        (["delivered", "rejected", "held"], NOON + dt.timedelta(hours=1)),
        (["undelivered", "delivered", "unconfirmed"], NOON),
    ],
)
def test_the_oldest_open_event(statuses: list[str], oldest: dt.datetime | None) -> None:
    """Of the events that are not at Ropo One, the summary knows when the oldest happened."""
    summary = DeliverySummary()
    for hour, status in enumerate(statuses):
        summary.add(Delivery(DeliveryStatus(status), "e", event_time=NOON + dt.timedelta(hours=hour)))

    assert oldest == summary.oldest_open


def test_the_longest_lag() -> None:
    """Of what this run delivered, the summary knows the longest time from an event to its delivery."""
    summary = DeliverySummary()
    for status, days in (("already_delivered", 9), ("delivered", 1), ("delivered", 3), ("rejected", 5)):
        happened = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
        summary.add(Delivery(DeliveryStatus(status), "e", event_time=happened))

    assert summary.longest_lag is not None
    assert 3 == summary.longest_lag.days
