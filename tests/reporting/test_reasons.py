from __future__ import annotations

import pytest

from airflow_provider_ropo.delivery import NAMED, Delivery, DeliveryStatus
from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.reporting.reasons import EXAMPLES, MAX_REASONS, FailureReasons

NO_TIME = "is a date without a time of day; select a timestamp"


def lines_of(*deliveries: Delivery) -> list[str]:
    reasons = FailureReasons()
    for delivery in deliveries:
        reasons.add(delivery)
    return reasons.lines()


def invalid(number: int, event_id: str | None, reason: str = NO_TIME) -> Delivery:
    label = f"row {number} (id {event_id})" if event_id else f"row {number}"
    return Delivery.of_invalid_row(InvalidRowError(label, "time", reason, event_id=event_id))


def rejected(number: int, detail: str = "HTTP 400 Unknown code") -> Delivery:
    return Delivery(DeliveryStatus.REJECTED, f"R-{number}", detail=detail)


def held(number: int) -> Delivery:
    return Delivery(DeliveryStatus.HELD, f"H-{number}", detail=f"waits for the earlier event H-{number - 1}")


@pytest.mark.parametrize(
    ("deliveries", "lines"),
    [
        pytest.param([invalid(3, "V-1")], [f"invalid: row 3 (id V-1): time: {NO_TIME}"], id="one is shown whole"),
        pytest.param(
            [invalid(3, "V-1"), invalid(5, "V-2")],
            [f"2 × invalid: time: {NO_TIME} (rows 3, 5; ids V-1, V-2)"],
            id="rows and ids",
        ),
        pytest.param(
            [invalid(3, None), invalid(5, None)], [f"2 × invalid: time: {NO_TIME} (rows 3, 5)"], id="without ids"
        ),
        pytest.param(
            [rejected(number) for number in range(24)],
            [f"24 × rejected: HTTP 400 Unknown code (ids {', '.join(f'R-{n}' for n in range(EXAMPLES))}, …)"],
            id="more than are named",
        ),
        pytest.param(
            [held(2), held(3)],
            ["2 × held: waits for an earlier event of its usage place (ids H-2, H-3)"],
            id="each waits for another event",
        ),
        pytest.param(
            [rejected(1), rejected(2, "HTTP 400 Other"), rejected(3)],
            ["2 × rejected: HTTP 400 Unknown code (ids R-1, R-3)", "rejected: id R-2: HTTP 400 Other"],
            id="the most frequent first",
        ),
        pytest.param(
            [rejected(1, "gone"), Delivery(DeliveryStatus.UNDELIVERED, "R-2", detail="gone")],
            ["rejected: id R-1: gone", "undelivered: id R-2: gone"],
            id="a status of its own is a group of its own",
        ),
    ],
)
def test_lines(deliveries: list[Delivery], lines: list[str]) -> None:
    """Equal reasons are one line with their number and the first rows and ids."""
    assert lines == lines_of(*deliveries)


def test_few_lines() -> None:
    """However many different reasons there are, a message has room for the most frequent, and counts the rest."""
    lines = lines_of(*(rejected(number, f"reason {number}") for number in range(MAX_REASONS + 50)))

    assert NAMED + 1 == len(lines)
    assert lines[0].startswith("50 × rejected: other reasons (ids ")
    assert f"… and {MAX_REASONS + 50 - 50 - (NAMED - 1):,} more" == lines[-1]
