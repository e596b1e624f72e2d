"""Text of a notification about a task instance that failed, for a chat or an e-mail."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from airflow.providers.common.compat.sdk import Context, conf

from airflow_provider_ropo.delivery import ARRIVED, PERMANENT, Delivery, DeliveryStatus
from airflow_provider_ropo.errors import DeliveriesFailedError, RopoError
from airflow_provider_ropo.links.ropo import HAS_TABS, REPORT_ROUTE, task_instance_page
from airflow_provider_ropo.reporting.reasons import FailureReasons
from airflow_provider_ropo.reporting.report import ENDED, POSTING, REPORT_KEY
from airflow_provider_ropo.task.next_step import Situation, next_steps

log = logging.getLogger(__name__)

#: How a detail names its row: ``row 7 (id 1a2b3c4d5): time: …``.
_ROW = re.compile(r"row(?: (\d+))?(?: \(id .*?\))?: ")


def message(context: Context | Mapping[str, Any]) -> str:
    """Return what people need to know of a task instance that failed, or that Airflow will try again.

    It has the counts, the first reasons in groups, what to do, and the address of the report. It is plain text with
    event ids and row numbers. There is no personal data in it, and no usage place code, because a chat has other
    readers than Airflow. Escape it where text is markup (HTML, Slack). It does not raise if Airflow cannot be asked.

    :param context: what Airflow passes to ``on_failure_callback`` or ``on_retry_callback``, of a task or of a DAG.
    """
    task_instance = context.get("ti")
    if task_instance is None:
        return "\n".join(_about_the_run(context))
    report = _report(task_instance)
    retried = _is_retried(task_instance)
    lines = [_title(task_instance, retried=retried)]
    if report is None:
        lines += [_error_text(context), "There is no report of Ropo One; the task's log has the details."]
    else:
        lines += [_counts_line(report), _stop_line(report, context), *_reason_lines(report)]
        lines += _steps(report, context, retried=retried)
    return "\n".join(filter(None, [*lines, _address(task_instance)]))


def _about_the_run(context: Mapping[str, Any]) -> Iterator[str]:
    dag_id = getattr(context.get("dag"), "dag_id", "?")
    yield f"Ropo One: run {context.get('run_id', '?')} of DAG {dag_id} failed"
    yield "Airflow names no task; its page of the run shows which tasks failed."


def _is_retried(task_instance: Any) -> bool:
    if _is_in_dag_processor(task_instance):
        return bool(task_instance.try_number <= (getattr(task_instance, "max_tries", None) or 0))
    return str(task_instance.state).rpartition(".")[2].casefold() == "up_for_retry"


def _is_in_dag_processor(task_instance: Any) -> bool:
    """Return whether Airflow 3 calls back not from the task's own process; the task instance has no state there."""
    return getattr(task_instance, "state", None) is None


def _report(task_instance: Any) -> Mapping[str, Any] | None:
    if not HAS_TABS and _is_in_dag_processor(task_instance):
        # Airflow 3.0's DAG processor never answers a request for an XCom.
        return None
    try:
        report = task_instance.xcom_pull(
            task_ids=task_instance.task_id, key=REPORT_KEY, map_indexes=task_instance.map_index
        )
    except Exception as error:  # noqa: BLE001 - Airflow's API server may answer with anything; the message has to be sent
        log.warning("the report cannot be read for a notification: %s", type(error).__name__)
        return None
    return report if isinstance(report, Mapping) and isinstance(report.get("counts"), Mapping) else None


def _title(task_instance: Any, *, retried: bool) -> str:
    index = _map_index(task_instance)
    mapped = f" [{index}]" if index >= 0 else ""
    end = "failed and will be tried again" if retried else "failed"
    return (
        f"Ropo One: task {task_instance.task_id}{mapped} of DAG {task_instance.dag_id} {end} "
        f"(run {task_instance.run_id}, try {task_instance.try_number})"
    )


def _error_text(context: Mapping[str, Any]) -> str:
    """Return an error's text if it is our own; another's may quote what a chat should not show."""
    error = context.get("exception")
    if isinstance(error, RopoError):
        return str(error)
    return type(error).__name__ if isinstance(error, BaseException) else ""


def _counts_line(report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    events = report.get("total", 0) if report.get("state") == POSTING else counts.get("events", 0)
    shown = [f"{number:,} {status}" for status in DeliveryStatus if (number := counts.get(status, 0))]
    if report.get("preview"):
        return f"Preview, nothing was posted: {', '.join(shown) or 'no events'}"
    if not events:
        return "Nothing was posted."
    return (
        f"{sum(counts.get(status, 0) for status in ARRIVED):,} of {events:,} events are at Ropo One: {', '.join(shown)}"
    )


def _stop_line(report: Mapping[str, Any], context: Mapping[str, Any]) -> str:
    """Return why the run ended before all events were posted; empty if it did not."""
    if report.get("state") != ENDED:
        done = f" after {report.get('done', 0):,} of {report.get('total', 0):,} events"
        return (
            f"The task stopped without a final report{done if report.get('state') == POSTING else ''}. "
            f"These are the figures of {report.get('updated_at')}; more events may have arrived."
        )
    if report.get("stopped"):
        return f"Stopped: {report['stopped']}"
    return "" if report.get("failures") else _error_text(context)


def _reason_lines(report: Mapping[str, Any]) -> Iterator[str]:
    failures = report.get("failures") or []
    reasons = FailureReasons()
    for failure in failures:
        reasons.add(_delivery(failure))
    yield from reasons.lines()
    if len(failures) < report.get("not_good", 0):
        yield f"(These are the first {len(failures):,} of {report['not_good']:,} events.)"


def _delivery(failure: Mapping[str, Any]) -> Delivery:
    """Return a delivery of the report, with no usage place in its reason."""
    detail, place = failure.get("detail") or "", failure.get("usageplacecode")
    row = _ROW.match(detail)
    label, reason = (detail[: row.end()], detail[row.end() :]) if row else ("", detail)
    if place:
        reason = re.sub(rf"(?<!\w){re.escape(place)}(?!\w)", "***", reason)
    status = DeliveryStatus(failure["status"])
    return Delivery(status, failure.get("id"), detail=label + reason, row=label.removesuffix(": "))


def _steps(report: Mapping[str, Any], context: Mapping[str, Any], *, retried: bool) -> list[str]:
    """Return what happens next and what to do, as the task's own error has it."""
    task = context.get("task") or getattr(context["ti"], "task", None)
    # A task of another kind; or one that Airflow has not expanded yet, which does not know its settings.
    is_preview = bool(report.get("preview"))
    situation = Situation(is_preview=is_preview)
    if hasattr(task, "on_unconfirmed"):
        situation = Situation.of(task, context, is_preview=is_preview)  # type: ignore[arg-type]
    if not retried:
        # No other case is left: a person may have marked the task instance as failed.
        situation = replace(situation, next_try=None)
    error, counts = context.get("exception"), report["counts"]
    permanent = sum(counts.get(status, 0) for status in PERMANENT)
    return next_steps(
        error if isinstance(error, RopoError) else DeliveriesFailedError(),
        counts,
        retryable=retried
        or report.get("state") != ENDED
        or report.get("stopped") is not None
        or report.get("not_good", 0) > permanent,
        situation=situation,
    )


def _address(task_instance: Any) -> str:
    """Return the address of the report's tab; before Airflow 3.1, which has no tabs, of the task instance."""
    if not HAS_TABS and (log_url := getattr(task_instance, "log_url", None)):
        return str(log_url)
    base = conf.get("api", "base_url", fallback="") or "http://localhost:8080"
    path = task_instance_page(
        task_instance.dag_id, task_instance.run_id, task_instance.task_id, _map_index(task_instance)
    )
    return f"{base.rstrip('/')}/{path}" + (f"/plugin/{REPORT_ROUTE}" if HAS_TABS else "")


def _map_index(task_instance: Any) -> int:
    return -1 if task_instance.map_index is None else int(task_instance.map_index)
