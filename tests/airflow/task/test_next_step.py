from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    RopoAuthenticationError,
    RopoConnectError,
    RopoError,
    RopoUnavailableError,
    RunRefusedError,
    SupersededError,
)
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.task.next_step import Situation, next_steps
from airflow_provider_ropo.task.retry_policy import MAX_DELAY, RetryTiming
from doubles import FakeTaskInstance, fake_context
from next_step_cases import CASES, Case, facts_in

LEDGER = Situation(has_ledger=True)
EVERY_FIVE_MINUTES = RetryTiming(timedelta(minutes=5), uses_retry_after=True)
SECOND_OF_FOUR = Situation(next_try=2, tries=4, timing=EVERY_FIVE_MINUTES, has_ledger=True)
FAILED = DeliveriesFailedError("2 of 3")
KEPT = "With the ledger, nothing that has arrived is sent again."
AGAIN = "Without a ledger, that sends again also what has arrived."
UP_TO_A_PERSON = "Airflow does not try this again. After the correction, clear this task instance."
NOBODY = (
    "No retry is left: nothing sends these events until this task instance is cleared, or a later run reads their rows."
)

RETRYABLE = ("undelivered", "unconfirmed", "held")
ROWS = "Fix the rejected, invalid and changed rows in the source table: no retry can help them."
HELD = (
    "2 of them may have arrived, and on_unconfirmed='hold' keeps them from being sent again: find out whether Ropo One "
    "has them, then settle each with `airflow ropo settle`."
)


@pytest.mark.parametrize(
    ("error", "counts", "situation", "steps"),
    [
        pytest.param(
            FAILED,
            {"undelivered": 23},
            SECOND_OF_FOUR,
            [f"Airflow starts try 2 of 4 after the task's retry_delay (5 min). {KEPT}"],
            id="a retry is left",
        ),
        pytest.param(FAILED, {"undelivered": 23}, LEDGER, [f"{NOBODY} {KEPT}"], id="no retry is left"),
        pytest.param(FAILED, {"undelivered": 23}, Situation(), [f"{NOBODY} {AGAIN}"], id="no ledger"),
        pytest.param(
            FAILED,
            {"rejected": 1, "undelivered": 1},
            LEDGER,
            [
                ROWS,
                f"{NOBODY} {KEPT}",
            ],
            id="some rows are wrong",
        ),
        pytest.param(
            FAILED,
            {"invalid": 1},
            LEDGER,
            [ROWS, UP_TO_A_PERSON],
            id="only wrong rows",
        ),
        pytest.param(
            FAILED,
            {"unconfirmed": 2, "held": 1},
            Situation(has_ledger=True, holds_unconfirmed=True),
            [
                HELD,
                f"{NOBODY} {KEPT}",
            ],
            id="held by on_unconfirmed",
        ),
        pytest.param(RopoAuthenticationError("no"), {}, SECOND_OF_FOUR, [UP_TO_A_PERSON], id="sign-in refused"),
        pytest.param(RunRefusedError("no"), {"undelivered": 9}, SECOND_OF_FOUR, [UP_TO_A_PERSON], id="refused"),
        pytest.param(
            SupersededError("no"), {"undelivered": 9}, LEDGER, ["The later try sends what is left."], id="superseded"
        ),
        pytest.param(
            RopoUnavailableError("busy", retry_after=7200.0),
            {"undelivered": 9},
            SECOND_OF_FOUR,
            ["Airflow starts try 2 of 4 after the 2.0 h that Ropo One asks for. "],
            id="a long Retry-After",
        ),
        pytest.param(
            RopoUnavailableError("busy", retry_after=2 * MAX_DELAY),
            {"undelivered": 9},
            SECOND_OF_FOUR,
            ["Airflow starts try 2 of 4 after the 24.0 h that Ropo One asks for. "],
            id="a Retry-After of days",
        ),
        pytest.param(
            FAILED,
            {"invalid": 1, "undelivered": 3},
            Situation(is_preview=True),
            [ROWS, UP_TO_A_PERSON],
            id="a preview",
        ),
        pytest.param(
            RopoConnectError("away"),
            {"undelivered": 9},
            Situation(next_try=2, tries=2, timing=RetryTiming(timedelta(seconds=30))),
            [f"Airflow starts try 2 of 2 after the task's retry_delay (30 s). {AGAIN}"],
            id="a retry without a ledger",
        ),
    ],
)
def test_what_happens_next(error: RopoError, counts: dict[str, int], situation: Situation, steps: list[str]) -> None:
    """The sentences follow from the task's retries, its ledger, and why the run ended."""
    retryable = not situation.is_preview and any(counts.get(status) for status in RETRYABLE)

    said = next_steps(error, counts, retryable=retryable, situation=situation)

    assert len(steps) == len(said)
    assert all(line.startswith(step) for line, step in zip(said, steps, strict=True))


ERRORS: dict[str | None, RopoError] = {
    None: FAILED,
    "sign_in": RopoAuthenticationError("no"),
    "refused": RunRefusedError("no"),
    "superseded": SupersededError("no"),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_log_tells_the_same_as_the_tab(case: Case) -> None:
    """The log and the alert tell the facts of each case, and no other; the tab's test has the same cases."""
    delay = None if case.retry_delay is None else timedelta(seconds=case.retry_delay)
    situation = Situation(
        next_try=2 if case.state == "up_for_retry" else None,
        tries=3,
        timing=RetryTiming(delay, case.uses_retry_after),
        has_ledger=case.has_ledger,
        holds_unconfirmed=case.on_unconfirmed == "hold",
        redelivers=case.redeliver == "always",
    )
    error = ERRORS.get(case.stopped_by) or RopoUnavailableError("busy", retry_after=case.retry_after)

    said = next_steps(
        error, case.counts, retryable=any(case.counts.get(status) for status in RETRYABLE), situation=situation
    )

    assert case.facts == facts_in(" ".join(said), of_tab=False)


@pytest.mark.parametrize(
    ("try_number", "max_tries", "next_try"), [(1, 3, 2), (3, 3, 4), (4, 3, None), (1, 0, None), (1, None, None)]
)
def test_the_next_try(try_number: int, max_tries: int | None, next_try: int | None) -> None:
    """Airflow starts another try as long as the task's retries last."""
    ti: Any = FakeTaskInstance(try_number=try_number)
    if max_tries is not None:
        ti.max_tries = max_tries
    task = UsageplaceEventOperator(
        task_id="report", events=[], ledger_table="ledger", ledger_conn_id="warehouse", retry_delay=timedelta(seconds=9)
    )

    situation = Situation.of(task, fake_context(ti))

    timing = RetryTiming.of(task)
    assert timedelta(seconds=9) == timing.delay
    assert Situation(next_try, (max_tries or 0) + 1, timing, has_ledger=True) == situation
