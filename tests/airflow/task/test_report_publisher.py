"""The report that a run publishes: as an XCom, and its progress in the task's state store."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.bases.xcom import BaseXCom

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
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

#: An operator on an Airflow before 3.3.
WITHOUT_STATE_STORE = """
class WithoutStateStore(UsageplaceEventOperator):
    def execute(self, context):
        return super().execute({**context, "task_state_store": None})
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
    assert {PROGRESS_KEY: {key: report[key] for key in report if key not in ("failures", "sample")}} == state_store(
        finished.dag_id
    )


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


def test_the_report_tells_what_its_reader_needs(run_dag: RunDag, sandbox: Sandbox, tmp_path: Path) -> None:
    """The report has the destination, the ledger, and what the task would do with events that may have arrived."""
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    options = "ledger_table='ropo_ledger', ledger_conn_id='ledger', on_unconfirmed='hold', redeliver='changed',"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))
        finished = run_dag(TASK.format(options=f"{options} max_failed=1, retry_delay=timedelta(seconds=90)"))

    report = xcom(finished.dag_id, REPORT_KEY)
    assert {
        "destination": f"{sandbox.url} {sandbox.cid}",
        "ropo_conn_id": "ropo_default",
        "ledger": {"conn_id": "ledger", "table": "ropo_ledger"},
        "on_unconfirmed": "hold",
        "redeliver": "changed",
        "retry_delay": 90.0,
    }.items() <= report.items()


@pytest.mark.parametrize(
    ("options", "delay"),
    [
        pytest.param({"retry_delay": timedelta(minutes=5)}, 300.0, id="always the same"),
        pytest.param({"retry_delay": timedelta(minutes=5), "retry_exponential_backoff": True}, None, id="growing"),
    ],
)
def test_the_time_of_the_next_try_is_told_where_it_is_known(options: dict[str, Any], delay: float | None) -> None:
    """A delay that Airflow computes from the number of the try is not told."""
    ti, task = FakeTaskInstance(), UsageplaceEventOperator(task_id="report", events=[], **options)

    report_publisher(fake_context(ti, task=task), as_xcom=True)({"state": "posting"})

    assert delay == ti.pushed[REPORT_KEY]["retry_delay"]


def test_without_a_ledger_the_report_says_so(run_dag: RunDag, sandbox: Sandbox) -> None:
    """No ledger is not the same as an unknown one."""
    finished = run_dag(TASK.format(options="max_failed=1"))

    assert xcom(finished.dag_id, REPORT_KEY)["ledger"] is None


def test_an_xcom_backend_gets_the_report_and_airflow_the_figures(
    run_dag: RunDag, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a state store, the figures are an XCom that no backend keeps elsewhere; no event is named in it."""

    class Elsewhere(BaseXCom):
        @staticmethod
        def serialize_value(value: Any, **_ids: Any) -> Any:
            return BaseXCom.serialize_value(f"elsewhere: {type(value).__name__}")

    monkeypatch.setattr("airflow.sdk.execution_time.task_runner.XCom", Elsewhere)
    monkeypatch.setattr("airflow_provider_ropo.task.report_publisher.XCom", Elsewhere)
    task = TASK.format(options="max_failed=1").replace("UsageplaceEventOperator(", "WithoutStateStore(")
    finished = run_dag(WITHOUT_STATE_STORE + task)

    assert "elsewhere: dict" == xcom(finished.dag_id, REPORT_KEY)
    progress = xcom(finished.dag_id, PROGRESS_KEY)
    assert ("ended", COUNTS) == (progress["state"], progress["counts"])
    assert not {"failures", "sample"} & progress.keys()


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
