"""The report that a run leaves for Airflow's pages: as an XCom, and how far it is in the task's state store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo.sandbox import Sandbox
from airflow_provider_ropo.task.report_publisher import PROGRESS_KEY, REPORT_KEY, report_publisher

RunDag = Callable[..., Any]

COUNTS = {"delivered": 1, "already_delivered": 0, "rejected": 0, "invalid": 1, "undelivered": 0}
COUNTS |= {"rows": 2, "events": 2, "unconfirmed": 0, "held": 0}
INVALID = {
    "id": "e2",
    "usageplacecode": "P2",
    "status": "invalid",
    "detail": "row 2 (id e2): time: is missing, and Ropo One needs it",
    "http_status": None,
}
TASK = """
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    UsageplaceEventOperator(
        task_id="report",
        events=[
            {{"id": "e1", "usageplacecode": "P1", "status": "connected", "time": "2024-01-04 10:00:00"}},
            {{"id": "e2", "usageplacecode": "P2", "status": "connected", "time": None}},
        ],
        {options}
    )
"""


class Broken:
    """A task instance and a state store whose API server is gone."""

    def __init__(self) -> None:
        self.asked = 0

    def xcom_push(self, **_entry: object) -> None:
        self.asked += 1
        raise ConnectionError("the API server is gone")


def xcom(dag_id: str, key: str) -> Any:
    """Return an XCom of the task, as Airflow keeps it."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(XComModel).filter_by(dag_id=dag_id, key=key).one_or_none()
        return None if found is None else XComModel.deserialize_value(found)


def state_store(dag_id: str) -> dict[str, Any]:
    """Return what the task left in its state store, as Airflow keeps it."""
    import json

    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(TaskStateStoreModel).filter_by(dag_id=dag_id)
        return {state.key: json.loads(state.value) for state in found}


def test_a_red_run_leaves_its_report(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Counts, progress and the rows that failed are an XCom; the same without the rows is the task's state."""
    finished = run_dag(TASK.format(options=""))

    report = xcom(finished.dag_id, REPORT_KEY)
    assert "failed" == finished.state
    assert ("ended", sandbox.url, COUNTS, [INVALID]) == tuple(
        report[key] for key in ("state", "server", "counts", "failures")
    )
    assert (1, 1, None, False) == tuple(report[key] for key in ("done", "total", "stopped", "preview"))
    assert {PROGRESS_KEY: {key: report[key] for key in report if key != "failures"}} == state_store(finished.dag_id)


def test_a_task_that_pushes_no_xcoms_pushes_no_report(run_dag: RunDag, sandbox: Sandbox) -> None:
    """``do_xcom_push=False`` is obeyed; how far the run is stays in its state store."""
    finished = run_dag(TASK.format(options="do_xcom_push=False, max_failed=1"))

    assert "success" == finished.state
    assert xcom(finished.dag_id, REPORT_KEY) is None
    assert COUNTS == state_store(finished.dag_id)[PROGRESS_KEY]["counts"]


def test_a_window_without_dates_is_in_the_report(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Why a run ended before it read anything is said where the counts would be."""
    window = 'parameters={"since": "{{ data_interval_start }}", "until": "{{ data_interval_end }}"}'
    finished = run_dag(
        f"""
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(task_id="report", sql="SELECT 1", sql_conn_id="nowhere", {window})
        """
    )

    report = xcom(finished.dag_id, REPORT_KEY)
    assert "failed" == finished.state
    assert "CronDataIntervalTimetable" in report["stopped"]


def test_a_report_that_cannot_be_shown_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Airflow's API server may be away for a moment: that is said once, and tried again the next time."""
    caplog.set_level(logging.WARNING)
    broken = Broken()
    show = report_publisher({"ti": broken}, as_xcom=True)  # type: ignore[typeddict-item]

    show({"state": "posting"})
    show({"state": "ended"})

    assert 2 == broken.asked
    assert [
        "the report cannot be shown in Airflow's pages (ConnectionError: the API server is gone)"
    ] == caplog.messages
