"""The report that a run publishes: as an XCom, and its progress in the task's state store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo.reporting.report import REPORT_KEY
from airflow_provider_ropo.sandbox import Sandbox
from airflow_provider_ropo.task.report_publisher import PROGRESS_KEY, report_publisher
from doubles import FakeTaskInstance, fake_context

RunDag = Callable[..., Any]

COUNTS = {"delivered": 1, "already_delivered": 0, "rejected": 0, "invalid": 1, "undelivered": 0}
COUNTS |= {"rows": 2, "events": 2, "unconfirmed": 0, "held": 0, "changed": 0, "closed": 0}
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


class CutOffTaskInstance(FakeTaskInstance):
    """One whose API server is gone."""

    pushes = 0

    def xcom_push(self, key: str, value: object) -> None:
        self.pushes += 1
        raise ConnectionError("the API server is gone")


def xcom(dag_id: str, key: str) -> Any:
    """Return an XCom of the task, as Airflow keeps it."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(XComModel).filter_by(dag_id=dag_id, key=key).one_or_none()
        return None if found is None else XComModel.deserialize_value(found)


def state_store(dag_id: str) -> dict[str, Any]:
    """Return the value in the task's state store, as Airflow stores it."""
    import json

    from airflow.models.task_state_store import TaskStateStoreModel
    from airflow.utils.session import create_session

    with create_session() as session:
        found = session.query(TaskStateStoreModel).filter_by(dag_id=dag_id)
        return {state.key: json.loads(state.value) for state in found}


def test_a_red_run_publishes_its_report(run_dag: RunDag, sandbox: Sandbox) -> None:
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
    """With ``do_xcom_push=False`` there is no XCom; the progress is in the task's state store."""
    finished = run_dag(TASK.format(options="do_xcom_push=False, max_failed=1"))

    assert "success" == finished.state
    assert xcom(finished.dag_id, REPORT_KEY) is None
    assert COUNTS == state_store(finished.dag_id)[PROGRESS_KEY]["counts"]


def test_a_window_without_dates_is_in_the_report(run_dag: RunDag, sandbox: Sandbox) -> None:
    """The report of a run that ended before it read anything has the reason."""
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
    """If Airflow's API server is unavailable, one warning is logged, and the next report is tried again."""
    caplog.set_level(logging.WARNING)
    ti = CutOffTaskInstance()
    show = report_publisher(fake_context(ti), as_xcom=True)

    show({"state": "posting"})
    show({"state": "ended"})

    assert 2 == ti.pushes
    assert [
        "the report cannot be published to Airflow's pages (ConnectionError: the API server is gone)"
    ] == caplog.messages
