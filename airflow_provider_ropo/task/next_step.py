"""What happens next to the events of a red run: by the task's retries, its ledger, and why the run ended.

The tab shows the same, by the state that Airflow has for the task instance (plugins/static/next_steps.js); a table of
cases in the tests holds both to the same facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import Context

from airflow_provider_ropo.errors import (
    FileConflictError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoError,
    RopoUnavailableError,
    RunRefusedError,
    SupersededError,
)
from airflow_provider_ropo.task.retry_policy import MAX_DELAY, RetryTiming


@dataclass(frozen=True)
class Situation:
    """The settings of a task, and the try, that decide what comes next.

    :param next_try: the number of the try that Airflow starts next; None if no retry is left.
    :param tries: the number of tries in all.
    :param timing: when Airflow starts it.
    :param has_ledger: deliveries are remembered.
    :param holds_unconfirmed: events that may have arrived are not sent again.
    :param redelivers: what is known to be delivered is sent again.
    :param is_preview: nothing is sent.
    """

    next_try: int | None = None
    tries: int = 1
    timing: RetryTiming = field(default_factory=RetryTiming)
    has_ledger: bool = False
    holds_unconfirmed: bool = False
    redelivers: bool = False
    is_preview: bool = False

    @classmethod
    def of(cls, task: Any, context: Context, *, is_preview: bool = False) -> Situation:
        """Return the situation of a task in its current try."""
        ti = context.get("ti")
        try_number = getattr(ti, "try_number", None) or 1
        last = getattr(ti, "max_tries", None) or 0
        return cls(
            next_try=try_number + 1 if try_number <= last else None,
            tries=last + 1,
            timing=RetryTiming.of(task),
            has_ledger=bool(task.ledger_table),
            holds_unconfirmed=task.on_unconfirmed == "hold",
            redelivers=task.redeliver == "always",
            is_preview=is_preview,
        )


def next_steps(error: RopoError, counts: Mapping[str, int], *, retryable: bool, situation: Situation) -> list[str]:
    """Return sentences that tell a person what happens next, and what to do.

    :param error: the error that the task ends with.
    :param counts: the run's counts.
    :param retryable: another try may deliver something that this one did not.
    """
    if isinstance(error, SupersededError):
        return ["The later try sends what is left."]
    if isinstance(error, RunRefusedError | RopoConfigurationError | RopoAuthenticationError | FileConflictError):
        return ["Airflow does not try this again. After the correction, clear this task instance."]
    steps = []
    unconfirmed = counts.get("unconfirmed", 0)
    if unconfirmed and situation.has_ledger and situation.holds_unconfirmed:
        steps.append(
            f"{unconfirmed:,} of them may have arrived, and on_unconfirmed='hold' keeps them from being sent again: "
            "find out whether Ropo One has them, then settle each with `airflow ropo settle`."
        )
    if any(counts.get(status, 0) for status in ("rejected", "invalid", "changed")):
        steps.append("Fix the rejected, invalid and changed rows in the source table: no retry can help them.")
    return [*steps, _next_try(error, situation) if retryable else _no_retry(situation)]


def _next_try(error: RopoError, situation: Situation) -> str:
    again = _sent_again(situation)
    if situation.next_try is None:
        return (
            "No retry is left: nothing sends these events until this task instance is cleared, or a later run reads "
            f"their rows.{again}"
        )
    return f"Airflow starts try {situation.next_try} of {situation.tries}{_delay(error, situation)}.{again}"


def _sent_again(situation: Situation) -> str:
    """Return whether the next try sends also what has arrived, as a sentence after another."""
    if situation.is_preview:
        return ""
    if not situation.has_ledger:
        return " Without a ledger, that sends again also what has arrived."
    if situation.redelivers:
        return " With redeliver='always', that sends again also what has arrived."
    return " With the ledger, nothing that has arrived is sent again."


def _delay(error: RopoError, situation: Situation) -> str:
    delay, uses_retry_after = situation.timing
    if uses_retry_after and isinstance(error, RopoUnavailableError) and error.retry_after:
        return f" after the {_duration(timedelta(seconds=min(error.retry_after, MAX_DELAY)))} that Ropo One asks for"
    return (
        " after a delay that Airflow computes"
        if delay is None
        else f" after the task's retry_delay ({_duration(delay)})"
    )


def _no_retry(situation: Situation) -> str:
    again = ""
    if not situation.is_preview and (situation.redelivers or not situation.has_ledger):
        why = "with redeliver='always'" if situation.has_ledger else "without a ledger"
        again = f", which {why} sends again also what has arrived"
    return f"Airflow does not try this again. After the correction, clear this task instance{again}."


def _duration(delay: timedelta) -> str:
    seconds = round(delay.total_seconds())
    if seconds < 120:  # noqa: PLR2004 - two minutes
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"  # noqa: PLR2004 - two hours
