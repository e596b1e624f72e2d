"""Publishes a run's report as XCom and task state, where Airflow's pages and its REST API can read it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from airflow.providers.common.compat.sdk import Context, XCom

from airflow_provider_ropo.reporting.report import REPORT_KEY
from airflow_provider_ropo.task.retry_policy import RetryTiming

try:
    from airflow.sdk.bases.xcom import BaseXCom
except ImportError:
    # Airflow 2, whose UI shows no reports.
    BaseXCom = XCom  # type: ignore[misc]

log = logging.getLogger(__name__)

#: The key of the progress in the task's state store (Airflow 3.3). Before Airflow 3.3, it is the key of an XCom, where
#: an XCom backend may keep the report away from Airflow's API.
PROGRESS_KEY = "ropo_progress"
#: What of a report is no part of the progress, which has to stay small and names no event.
NAMES_EVENTS = ("failures", "sample")


def report_publisher(context: Context, *, as_xcom: bool) -> Callable[[dict[str, Any]], bool]:
    """Return a function that publishes the report of this task instance, and returns whether it succeeded.

    If a report cannot be published, the run continues, and one warning is logged.

    :param as_xcom: True if the task pushes XComs.
    """
    task_instance = context.get("ti") if as_xcom else None
    state_store = context.get("task_state_store")
    has_backend = XCom is not BaseXCom
    retries = _retries_of(context.get("task"))
    working = True

    def publish(report: dict[str, Any]) -> bool:
        nonlocal working
        report = report | retries
        try:
            if task_instance is not None:
                task_instance.xcom_push(key=REPORT_KEY, value=report)
            progress = {key: value for key, value in report.items() if key not in NAMES_EVENTS}
            if state_store is not None:
                state_store.set(PROGRESS_KEY, progress)
            elif task_instance is not None and has_backend:
                _push_without_backend(task_instance, progress)
        except Exception as error:  # noqa: BLE001 - Airflow's API server may answer with anything
            if working:
                log.warning("the report cannot be published to Airflow's pages (%s: %s)", type(error).__name__, error)
            working = False
            return False
        return True

    return publish


def _push_without_backend(task_instance: Any, progress: dict[str, Any]) -> None:
    """Push the progress as an XCom that stays in Airflow's database; it names no event."""
    ids = {name: getattr(task_instance, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    BaseXCom.set(PROGRESS_KEY, progress, **ids)


def about_run(task: Any, *, server: str, destination: str) -> dict[str, Any]:
    """Return what a reader of the report has to know of the task's settings, once they are rendered.

    :param server: the address that the events go to.
    :param destination: its name in the ledger.
    """
    ledger = {"conn_id": task.ledger_conn_id or task.sql_conn_id, "table": task.ledger_table}
    return {
        "server": server,
        "destination": destination,
        # Only where the events go by Ropo One's API.
        "ropo_conn_id": getattr(task, "ropo_conn_id", None),
        "ledger": ledger if task.ledger_table else None,
        "on_unconfirmed": task.on_unconfirmed,
        "redeliver": task.redeliver,
    }


def _retries_of(task: Any) -> dict[str, Any]:
    """Return the task's :class:`~airflow_provider_ropo.task.retry_policy.RetryTiming` as plain data, in seconds."""
    if task is None:
        return {}
    timing = RetryTiming.of(task)
    return {
        "retry_delay": None if timing.delay is None else timing.delay.total_seconds(),
        "uses_retry_after": timing.uses_retry_after,
    }
