"""What the pages tell of a run, without an Airflow: each sentence follows from the report and the task's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from next_step_cases import CASES, Case, facts_in

Script = Callable[[str, Any], Any]

NEXT_STEPS = """
async ([report, task]) => {
  const { nextSteps } = await import("./next_steps.js");
  return nextSteps(report, task).join(" ");
}
"""
STATUS_STEP = """
async ([key, report]) => (await import("./next_steps.js")).statusStep(key, report)
"""
INTERRUPTION = """
async ([report, task, age]) => (await import("./next_steps.js")).interruption(report, task, age)
"""
OPEN_EVENTS = """
async (runs) => {
  const { openEvents } = await import("./open_events.js");
  return runs.map((run) => openEvents(run, runs));
}
"""
TIMES = """
async (report) => (await import("./words.js")).timeSentences(report)
"""
STATUSES = ("delivered", "already_delivered", "rejected", "invalid", "changed", "undelivered", "unconfirmed", "held")
WITH_LEDGER = {"conn_id": "warehouse", "table": "ropo_ledger"}
NOT_AGAIN = "Airflow does not try this task instance again."
NOTHING_SENDS = (
    "Nothing sends the events that did not arrive until this task instance is cleared, or a later run reads the same "
    "rows."
)
REMEMBERED = "With the ledger, nothing that is known to be delivered is posted again."


def report(state: str = "ended", **others: Any) -> dict[str, Any]:
    """Return a report; a number is the count of a status."""
    counts = {status: others.pop(status, 0) for status in (*STATUSES, "closed")}
    return {
        "state": state,
        "preview": False,
        "counts": {"rows": 0, "events": sum(counts.values()), **counts},
        "stopped": None,
        "stopped_by": None,
        "retry_after": None,
        "retry_delay": 300.0,
        "uses_retry_after": True,
        "ledger": WITH_LEDGER,
        "on_unconfirmed": "resend",
        "redeliver": "never",
        "ropo_conn_id": "ropo_default",
        "destination": "https://rc.ropo24.fi 1000011",
        "failures": [],
        "updated_at": "2026-01-14T03:00:00+00:00",
        **others,
    }


def task(state: str | None, **others: Any) -> dict[str, Any]:
    """Return a task instance after its first try of three."""
    return {"state": state, "try_number": 1, "max_tries": 2, "end_date": "2026-01-14T03:00:00Z"} | others


@pytest.mark.parametrize(
    ("shown", "instance", "expected"),
    [
        pytest.param(report(delivered=9), task("success"), "", id="all there"),
        pytest.param(report(delivered=8, closed=1), task("success"), "", id="all there or closed"),
        pytest.param(report(undelivered=9, preview=True), task("success"), "", id="preview"),
        pytest.param(
            report(undelivered=23),
            task("up_for_retry"),
            f"Try 2 of 3 is due at 14 Jan 2026, 05:05:00. {REMEMBERED}",
            id="up for retry",
        ),
        pytest.param(
            report(undelivered=23, stopped="503", stopped_by="unavailable", retry_after=3600.0),
            task("up_for_retry"),
            f"Try 2 of 3 is due at 14 Jan 2026, 06:00:00, as Ropo One asked. {REMEMBERED}",
            id="up for retry when Ropo One asked for it",
        ),
        pytest.param(
            report(undelivered=23, retry_after=3600.0, uses_retry_after=False),
            task("up_for_retry"),
            f"Try 2 of 3 is due at 14 Jan 2026, 05:05:00. {REMEMBERED}",
            id="an Airflow without retry policies",
        ),
        pytest.param(
            report(undelivered=23, retry_delay=None),
            task("up_for_retry"),
            f"Try 2 of 3 follows, after a delay that Airflow computes. {REMEMBERED}",
            id="up for retry at an unknown time",
        ),
        pytest.param(
            report(undelivered=23, delivered=3, ledger=None),
            task("up_for_retry"),
            "Try 2 of 3 is due at 14 Jan 2026, 05:05:00. There is no ledger: the next try sends every row that it "
            "reads, also those that have arrived.",
            id="up for retry without a ledger",
        ),
        pytest.param(
            report(undelivered=23), task("failed"), f"{NOT_AGAIN} {NOTHING_SENDS} {REMEMBERED}", id="failed for good"
        ),
        pytest.param(
            report(undelivered=23, delivered=3, ledger=None),
            task("failed"),
            f"{NOT_AGAIN} {NOTHING_SENDS} There is no ledger: a cleared task instance sends every row that it reads, "
            "also those that have arrived.",
            id="failed for good without a ledger",
        ),
        pytest.param(
            report(undelivered=23, redeliver="always"),
            task("failed"),
            f"{NOT_AGAIN} {NOTHING_SENDS} With redeliver='always', also what is known to be delivered is posted again.",
            id="failed with redeliver",
        ),
        pytest.param(
            report(undelivered=23),
            task("success"),
            f"For Airflow the task has ended without a failure. {NOT_AGAIN} {NOTHING_SENDS} {REMEMBERED}",
            id="marked as a success",
        ),
        pytest.param(
            report(rejected=1, invalid=1, delivered=9),
            task("failed"),
            f"{NOT_AGAIN} When the rows are fixed, clear this task instance, or let a later run read the same rows. "
            f"{REMEMBERED}",
            id="only rows to fix",
        ),
        pytest.param(
            report(rejected=1, unconfirmed=1, on_unconfirmed="hold"),
            task("failed"),
            f"{NOT_AGAIN} When the rows are fixed and the unconfirmed events are settled, clear this task instance, "
            f"or let a later run read the same rows. {REMEMBERED}",
            id="held by on_unconfirmed",
        ),
        pytest.param(
            report(undelivered=23, stopped="no", stopped_by="sign_in"),
            task("failed"),
            "Ropo One refused the sign-in. Correct the customer number and the API code in the connection "
            f'"ropo_default". {NOT_AGAIN} {NOTHING_SENDS} {REMEMBERED}',
            id="sign-in refused",
        ),
        pytest.param(
            report(undelivered=23, stopped="too many", stopped_by="refused"),
            task("failed"),
            "The run was refused before its first post; the message above tells what to correct. "
            f"{NOT_AGAIN} {NOTHING_SENDS} {REMEMBERED}",
            id="refused run",
        ),
        pytest.param(
            report("posting", delivered=23), task("failed"), f"{NOT_AGAIN} {NOTHING_SENDS} {REMEMBERED}", id="killed"
        ),
        pytest.param(
            report(undelivered=23),
            task(None),
            f"Airflow is about to run this task instance again. {REMEMBERED}",
            id="cleared",
        ),
        pytest.param(
            report(delivered=9),
            task("failed"),
            "The task failed for another reason, or a person marked it as failed.",
            id="failed with everything there",
        ),
    ],
)
def test_what_happens_next(script: Script, shown: dict[str, Any], instance: dict[str, Any], expected: str) -> None:
    """Whether, when and by what an event is sent follows from the task's state and settings."""
    assert expected == script(NEXT_STEPS, [shown, instance])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_tab_tells_the_same_as_the_log(script: Script, case: Case) -> None:
    """The tab tells the facts of each case, and no other; the log's test has the same cases."""
    counts: dict[str, Any] = dict(case.counts)
    shown = report(
        **counts,
        stopped=case.stopped_by,
        stopped_by=case.stopped_by,
        retry_after=case.retry_after,
        retry_delay=case.retry_delay,
        uses_retry_after=case.uses_retry_after,
        ledger=WITH_LEDGER if case.has_ledger else None,
        on_unconfirmed=case.on_unconfirmed,
        redeliver=case.redeliver,
    )

    said = [script(NEXT_STEPS, [shown, task(case.state)])]
    said += [script(STATUS_STEP, [status, shown]) for status, count in case.counts.items() if count]

    assert case.facts == facts_in(" ".join(said), of_tab=True)


@pytest.mark.parametrize(
    ("settings", "held"),
    [
        pytest.param({"on_unconfirmed": "hold"}, True, id="hold"),
        pytest.param({"on_unconfirmed": "resend"}, False, id="resend"),
        pytest.param({"on_unconfirmed": "hold", "ledger": None}, False, id="hold without a ledger"),
    ],
)
def test_an_unconfirmed_event_is_held_only_if_the_task_does_so(
    script: Script, settings: dict[str, Any], *, held: bool
) -> None:
    """What is held is not sent until a person settles it; anything else is sent again."""
    text = script(STATUS_STEP, ["unconfirmed", report(unconfirmed=1, **settings)])

    assert held == ("no run sends it until a person settles it" in text)
    assert held != ("sends it again, with the same id" in text)


@pytest.mark.parametrize(
    ("state", "running", "age", "expected"),
    [
        pytest.param("ended", False, 9000, None, id="ended"),
        pytest.param("posting", True, 12, None, id="running"),
        pytest.param("reading", True, 12, None, id="reading"),
        pytest.param("reading", True, 31, "The warehouse may still be working on the query", id="no rows come"),
        pytest.param("posting", True, 31, "there is no newer report", id="no news"),
        pytest.param("posting", True, None, None, id="age unknown"),
        pytest.param("posting", False, 12, "The task was killed, or its worker was lost.", id="killed"),
    ],
)
def test_old_figures_are_called_old(
    script: Script, state: str, age: int | None, expected: str | None, *, running: bool
) -> None:
    """The page tells from when its figures are, and that more may have arrived, where no newer ones come."""
    note = script(INTERRUPTION, [report(state, delivered=23), task("running" if running else "failed"), age])

    if expected is None:
        assert note is None
    else:
        assert expected in note
        assert "14 Jan 2026, 05:00:00" in note
        assert (state == "posting") == ("more events may have arrived" in note.lower())


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        pytest.param(report(delivered=9, oldest_open=None, longest_lag=None), [], id="nothing new"),
        pytest.param(
            report(delivered=9, oldest_open=None, longest_lag=5400),
            ["Longest time from an event to its delivery: 1.5 h"],
            id="all there",
        ),
        pytest.param(
            report(delivered=9, rejected=1, oldest_open="2026-01-10T15:00:00+00:00", longest_lag=259_200),
            [
                "Oldest event not at Ropo One: 3.5 days old (10 Jan 2026, 17:00:00)",
                "Longest time from an event to its delivery: 3 days",
            ],
            id="one open",
        ),
        pytest.param(
            report("posting", delivered=9, oldest_open="2026-01-10T15:00:00+00:00", longest_lag=60),
            ["Longest time from an event to its delivery: 60 s"],
            id="not at its end",
        ),
        pytest.param(report(delivered=9), [], id="a report of an earlier version"),
    ],
)
def test_how_old_and_how_late_events_are(script: Script, shown: dict[str, Any], expected: list[str]) -> None:
    """The page tells the age of the oldest event that is not at Ropo One, and how long delivery took."""
    assert expected == script(TIMES, shown)


def run(run_id: str, hour: int, state: str = "failed", **others: Any) -> dict[str, Any]:
    """Return a run whose last report is from that hour; `failed` are the ids of its failed events."""
    ids = {"dagId": others.pop("dag_id", "daily"), "taskId": "report", "mapIndex": -1, "runId": run_id}
    failures = [{"id": name} for name in others.pop("failed", "")]
    shown = report(**others, failures=failures, updated_at=f"2026-01-14T{hour:02}:00:00+00:00")
    return {"ids": ids, "task": task(state), "report": shown}


OLD: dict[str, Any] = {"delivered": 9, "rejected": 2, "failed": "ab"}


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        pytest.param([], "2", id="no later run"),
        pytest.param([run("new", 6, "success", delivered=9)], "2 or fewer", id="a good later run"),
        pytest.param([run("new", 6, rejected=2, failed="ab")], "2", id="the same fail again"),
        pytest.param([run("new", 6, delivered=9, rejected=2, failed="bc")], "1 to 2", id="one fails again"),
        pytest.param([run("new", 6, undelivered=9)], "2", id="nothing arrived"),
        pytest.param([run("new", 6, "success", undelivered=9, preview=True)], "2", id="a preview"),
        pytest.param([run("new", 6, "success", delivered=9, dag_id="another")], "2", id="another DAG"),
        pytest.param([run("new", 6, "success", delivered=9, destination="test")], "2", id="another destination"),
        pytest.param([run("new", 4, "success", delivered=9)], "2", id="an earlier run"),
        pytest.param([run("new", 6, "running", delivered=9) | {"report": None}], "2", id="an unreadable report"),
    ],
)
def test_what_is_still_open_now(script: Script, later: list[dict[str, Any]], expected: str) -> None:
    """A later run of the same task may have sent what a run left, but only where its report allows it."""
    assert expected == script(OPEN_EVENTS, [run("old", 5, **OLD), *later])[0]["text"]


@pytest.mark.parametrize(
    ("shown", "text", "is_open"),
    [
        pytest.param(run("r", 5, "success", delivered=9, closed=1), "0", False, id="all there or closed"),
        pytest.param(run("r", 5, "success", undelivered=9, preview=True), "–", False, id="preview"),
        pytest.param(run("r", 5, "running") | {"report": report("posting", delivered=1)}, "–", False, id="running"),
        pytest.param(run("r", 5, "failed") | {"report": report("posting", delivered=1)}, "?", True, id="killed"),
        pytest.param(run("r", 5, "failed", stopped="bad SQL"), "?", True, id="ended before it read"),
        pytest.param(run("r", 5, "failed") | {"report": None}, "?", True, id="unreadable"),
    ],
)
def test_whether_a_run_has_open_events(script: Script, shown: dict[str, Any], text: str, *, is_open: bool) -> None:
    """What cannot be known is not called closed."""
    (found,) = script(OPEN_EVENTS, [shown])

    assert (text, is_open) == (found["text"], found["isOpen"])
