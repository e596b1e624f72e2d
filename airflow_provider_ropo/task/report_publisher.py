"""Publishes a run's report as XCom and task state, where Airflow's pages and its REST API can read it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from airflow.providers.common.compat.sdk import Context

from airflow_provider_ropo.reporting.report import REPORT_KEY

log = logging.getLogger(__name__)

#: The key of the progress in the task's state store (Airflow 3.3).
PROGRESS_KEY = "ropo_progress"


def report_publisher(context: Context, *, as_xcom: bool) -> Callable[[dict[str, Any]], bool]:
    """Return a function that publishes the report of this task instance, and returns whether it succeeded.

    If a report cannot be published, the run continues, and one warning is logged.

    :param as_xcom: True if the task pushes XComs.
    """
    task_instance = context.get("ti") if as_xcom else None
    state_store = context.get("task_state_store")
    working = True

    def publish(report: dict[str, Any]) -> bool:
        nonlocal working
        try:
            if task_instance is not None:
                task_instance.xcom_push(key=REPORT_KEY, value=report)
            if state_store is not None:
                state_store.set(PROGRESS_KEY, {key: value for key, value in report.items() if key != "failures"})
        except Exception as error:  # noqa: BLE001 - Airflow's API server may answer with anything
            if working:
                log.warning("the report cannot be published to Airflow's pages (%s: %s)", type(error).__name__, error)
            working = False
            return False
        return True

    return publish
