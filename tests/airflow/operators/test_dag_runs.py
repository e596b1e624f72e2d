"""Whole DAG runs with Airflow's ``dag.test()``: templates, mapping, retries and the guard against empty windows."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.sandbox import Fault, Sandbox

RunDag = Callable[..., Any]

FRIDAY = datetime(2024, 1, 5, 6, tzinfo=UTC)
REMEDIES = ("CronDataIntervalTimetable", "look-back", "parameters")


@pytest.fixture(autouse=True)
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three outcomes, one a day, loaded on their day at noon."""
    path = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE outcome (id, usageplacecode, status, time, loaded)")
        for day in (3, 4, 5):
            time = f"2024-01-0{day} 10:00:00"
            row = (f"e{day}", f"P{day}", "disconnected", time, f"2024-01-0{day} 12:00:00")
            database.execute("INSERT INTO outcome VALUES (?, ?, ?, ?, ?)", row)
        database.commit()
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))


def sent(sandbox: Sandbox) -> list[str]:
    return sorted(event["id"] for event in sandbox.events)


def test_a_real_interval_selects_its_rows(run_dag: RunDag, sandbox: Sandbox) -> None:
    """With CronDataIntervalTimetable, a run reports the rows of its own interval; the counts are its XCom."""
    finished = run_dag(
        """
        with DAG(DAG_ID, schedule=CronDataIntervalTimetable("0 6 * * *", timezone="UTC"), start_date=START) as dag:
            UsageplaceEventOperator(
                task_id="report",
                sql='''SELECT * FROM outcome WHERE loaded >= '{{ data_interval_start.strftime("%Y-%m-%d %H:%M") }}'
                    AND loaded < '{{ data_interval_end.strftime("%Y-%m-%d %H:%M") }}' ''',
                sql_conn_id="warehouse",
            )
        """,
        logical_date=FRIDAY,
    )

    assert "success" == finished.state
    assert ["e4"] == sent(sandbox)
    assert {"rows": 1, "events": 1, "delivered": 1}.items() <= finished.xcom.items()


def test_an_sql_file_is_rendered_and_shown(run_dag: RunDag, sandbox: Sandbox, dags_folder: Path) -> None:
    """A .sql file is templated, and the Rendered Templates view has the SQL as it ran."""
    (dags_folder / "outcomes.sql").write_text("SELECT * FROM outcome WHERE date(time) = '{{ ds }}'\n")

    finished = run_dag(
        """
        with DAG(DAG_ID, schedule="@daily", start_date=START) as dag:
            UsageplaceEventOperator(task_id="report", sql="outcomes.sql", sql_conn_id="warehouse")
        """,
        logical_date=FRIDAY,
    )

    assert "success" == finished.state
    assert ["e5"] == sent(sandbox)
    assert "SELECT * FROM outcome WHERE date(time) = '2024-01-05'" == finished.rendered["sql"].strip()


def test_rows_come_from_an_xcom_and_are_redacted(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Rows handed over by another task arrive; the Rendered Templates view says only how many they are."""
    finished = run_dag(
        """
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            @task
            def outcomes():
                return [
                    {"id": "x1", "usageplacecode": "P1", "status": "connected", "customernumber": "A123456",
                     "time": datetime(2024, 1, 5, 10, tzinfo=timezone.utc)},
                    {"id": "x2", "usageplacecode": "P2", "status": "connected", "time": "2024-01-05 12:00:00"},
                ]
            UsageplaceEventOperator(task_id="report", events=outcomes())
        """
    )

    assert "success" == finished.state
    assert ["x1", "x2"] == sent(sandbox)
    assert ["2024-01-05 12:00:00"] * 2 == [event["time"] for event in sandbox.events]
    assert "2 rows, not shown: they contain personal data" == finished.rendered["events"]


def test_mapping_over_parameters(run_dag: RunDag, sandbox: Sandbox) -> None:
    """One mapped task for each set of query parameters."""
    finished = run_dag(
        """
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator.partial(
                task_id="report", sql="SELECT * FROM outcome WHERE id = ?", sql_conn_id="warehouse"
            ).expand(parameters=[["e3"], ["e5"]])
        """
    )

    assert "success" == finished.state
    assert {"e3", "e5"} == set(sent(sandbox))
    assert [1, 1] == [counts["delivered"] for counts in finished.xcom]


def test_mapping_over_events(run_dag: RunDag, sandbox: Sandbox) -> None:
    """One mapped task for each list of rows an upstream task returns."""
    finished = run_dag(
        """
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            @task
            def shards():
                row = {"status": "connected", "time": "2024-01-05 12:00:00"}
                return [[{**row, "id": f"x{n}", "usageplacecode": f"P{n}"}] for n in range(3)]
            UsageplaceEventOperator.partial(task_id="report").expand(events=shards())
        """
    )

    assert "success" == finished.state
    assert {"x0", "x1", "x2"} == set(sent(sandbox))
    assert "1 rows, not shown: they contain personal data" == finished.rendered["events"]


def test_another_tasks_outputs_as_parameters(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Mapped or not, a task takes its numbers and choices from other tasks and DAG params, and shows them rendered."""
    source = """
        with DAG(DAG_ID, schedule=None, start_date=START, params={{"tolerated": "1"}}) as dag:
            @task(multiple_outputs=True)
            def limits():
                return {{"rate": 50, "workers": 2}}
            given = limits()
            UsageplaceEventOperator{partial}(
                task_id="report",
                sql="SELECT * FROM outcome UNION ALL SELECT 'e9', 'P9', 'gone', '2024-01-04 10:00:00', NULL",
                sql_conn_id="warehouse", ledger_table="ledger", max_workers=given["workers"], rate_limit=given["rate"],
                max_failed="{{{{ params.tolerated }}}}", columns={{"usageplacecode": "{{{{ 'usageplacecode' }}}}"}},
                statuses={{"disconnected": "disconnected", 7: "connected"}},
            ){expand}
        """

    plain = run_dag(source.format(partial="", expand=""))
    mapped = run_dag(source.format(partial=".partial", expand='.expand(redeliver=["always", "never"])'))

    assert ("success", "success") == (plain.state, mapped.state)
    assert {"e3", "e4", "e5"} == set(sent(sandbox))
    assert {"delivered": 3, "invalid": 1}.items() <= plain.xcom.items()
    again = [(counts["delivered"], counts["already_delivered"]) for counts in mapped.xcom]
    assert [(0, 3), (3, 0)] == sorted(again)
    for finished in (plain, mapped):
        names = ("max_workers", "rate_limit", "max_failed", "columns")
        shown = tuple(finished.rendered[name] for name in names)
        assert (2, 50, "1", {"usageplacecode": "usageplacecode"}) == shown


def test_bad_rows_alone_are_not_retried(run_dag: RunDag, sandbox: Sandbox) -> None:
    """A retry by Airflow cannot fix a row: the task fails at once, with its counts in XCom."""
    finished = run_dag(
        """
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(
                task_id="report",
                events=[
                    {"id": "x1", "usageplacecode": "P1", "status": "connected", "time": "2024-01-05 12:00:00"},
                    {"id": "x2", "usageplacecode": "P2", "status": "connected", "time": "2024-01-05"},
                ],
                retries=2,
                retry_delay=timedelta(0),
            )
        """
    )

    assert "failed" == finished.state
    assert ["x1"] == sent(sandbox)
    assert 1 == finished.tries
    assert {"rows": 2, "events": 2, "delivered": 1, "invalid": 1}.items() <= finished.xcom.items()


def test_transient_failures_are_retried_by_airflow(run_dag: RunDag, sandbox: Sandbox) -> None:
    """After a transient failure Airflow retries the task, and the retry succeeds."""
    sandbox.script([Fault(status=500)] * 5)

    finished = run_dag(
        """
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(
                task_id="report",
                events=[{"id": "x1", "usageplacecode": "P", "status": "connected", "time": "2024-01-05 12:00"}],
                retries=1,
                retry_delay=timedelta(0),
            )
        """
    )

    assert "success" == finished.state
    assert 2 == finished.tries
    assert ["x1"] == sent(sandbox)


WINDOW = """
with DAG(DAG_ID, schedule={schedule}, start_date=START) as dag:
    UsageplaceEventOperator{make}(
        task_id="report", sql_conn_id="warehouse", retries=2, retry_delay=timedelta(0), sql="{sql}",
        parameters={parameters}
    )
"""


def window(sql: str, parameters: object = None, schedule: str = '"@daily"') -> str:
    return WINDOW.format(schedule=schedule, sql=sql, parameters=parameters, make="")


START_TO_END = "SELECT * FROM outcome WHERE time >= '{{ data_interval_start }}' AND time < '{{ data_interval_end }}'"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(window(START_TO_END), id="SQL"),
        pytest.param(
            window(
                "SELECT * FROM outcome WHERE time >= :start AND time < :stop",
                {"start": "{{ data_interval_start | ds }}", "stop": "{{ data_interval_end | ds }}"},
            ),
            id="parameters",
        ),
        pytest.param(
            window(
                "SELECT * FROM outcome WHERE time >= '{{ dag_run.data_interval_start }}' AND time < :stop",
                {"stop": "{{ data_interval_end }}"},
            ),
            id="both, through dag_run",
        ),
        pytest.param(
            window("SELECT * FROM outcome WHERE time >= '{{ logical_date }}' AND time < '{{ data_interval_end }}'"),
            id="the logical date is the start",
        ),
    ],
)
def test_a_window_of_no_width_is_refused(run_dag: RunDag, sandbox: Sandbox, source: str) -> None:
    """Airflow 3's @daily gives an empty interval: the task fails before it reads, and the log tells what to use."""
    finished = run_dag(source, logical_date=FRIDAY)

    assert "failed" == finished.state
    assert 1 == finished.tries
    assert [] == [remedy for remedy in REMEDIES if remedy not in finished.log]
    assert " rows in " not in finished.log
    assert [] == sent(sandbox)


def test_a_mapped_task_is_guarded_too(run_dag: RunDag, sandbox: Sandbox) -> None:
    """The guard also works for mapped tasks."""
    finished = run_dag(
        f"""
        with DAG(DAG_ID, schedule="@daily", start_date=START) as dag:
            UsageplaceEventOperator.partial(task_id="report", sql_conn_id="warehouse", sql="{START_TO_END}").expand(
                max_failed=[0]
            )
        """,
        logical_date=FRIDAY,
    )

    assert "failed" == finished.state
    assert "CronDataIntervalTimetable" in finished.log


@pytest.mark.parametrize(
    "template",
    [
        "{{ ds }}",
        "{{ data_interval_start }}",
        "{{ ts_nodash }}",
        "{{ dag_run.logical_date }}",
        "{{ logical_date | ds }}",
    ],
)
@pytest.mark.parametrize("where", ["sql", "parameters"])
def test_a_run_without_dates_is_refused(run_dag: RunDag, sandbox: Sandbox, template: str, where: str) -> None:
    """A manual or asset-triggered run has no dates: using one fails the task, and the log tells what to use instead."""
    condition = f"'{template}'" if where == "sql" else ":since"
    parameters = None if where == "sql" else {"since": template}

    finished = run_dag(window(f"SELECT * FROM outcome WHERE time < {condition}", parameters, schedule="None"))

    assert "failed" == finished.state
    assert 1 == finished.tries
    assert [] == [remedy for remedy in (*REMEDIES, "no dates") if remedy not in finished.log]
    assert [] == sent(sandbox)


@pytest.mark.parametrize(
    ("template", "found"),
    [
        pytest.param("{{ ds }}", ["e3", "e4"], id="ds"),
        pytest.param("{{ data_interval_end | ds }}", ["e3", "e4"], id="one end alone"),
        pytest.param("{{ macros.ds_add(ds, -1) }}", ["e3"], id="a look-back"),
    ],
)
def test_one_date_alone_is_allowed(run_dag: RunDag, sandbox: Sandbox, template: str, found: list[str]) -> None:
    """If the run has dates, using only one of them is not an empty window."""
    finished = run_dag(window(f"SELECT * FROM outcome WHERE time < '{template}'"), logical_date=FRIDAY)

    assert "success" == finished.state
    assert found == sent(sandbox)


def test_an_earlier_runs_date_that_there_is_not_is_refused(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Before the first successful run, a window that starts at the last success is refused."""
    finished = run_dag(
        window("SELECT * FROM outcome WHERE time >= '{{ prev_data_interval_end_success }}'"), logical_date=FRIDAY
    )

    assert "failed" == finished.state
    assert "uses prev_data_interval_end_success, and there is none for this run" in finished.log


def test_a_missing_date_is_refused_where_templates_are_native(run_dag: RunDag, sandbox: Sandbox) -> None:
    """With render_template_as_native_obj, too, a missing date is reported before the database is used."""
    source = window("SELECT * FROM outcome WHERE time < :since", {"since": "{{ ds }}"}, schedule="None")

    finished = run_dag(source.replace("start_date=START", "start_date=START, render_template_as_native_obj=True"))

    assert "failed" == finished.state
    assert "uses ds, and this run has no dates" in finished.log


def test_a_macro_of_the_users_own_is_left_alone(run_dag: RunDag, sandbox: Sandbox) -> None:
    """A user's macro can have the name of a date that this Airflow version does not have."""
    source = window("SELECT * FROM outcome WHERE date(time) < '{{ yesterday_ds }}'", schedule="None")

    finished = run_dag(
        source.replace("start_date=START", "start_date=START, user_defined_macros={'yesterday_ds': '2024-01-05'}")
    )

    assert "success" == finished.state
    assert ["e3", "e4"] == sent(sandbox)


def test_a_template_with_its_own_answer_is_allowed(run_dag: RunDag, sandbox: Sandbox) -> None:
    """A template that handles missing dates is not refused."""
    sql = "SELECT * FROM outcome WHERE time < '{{ data_interval_end | default(dag_run.run_after) }}'"

    finished = run_dag(window(sql, schedule="None"))

    assert "success" == finished.state
    assert ["e3", "e4", "e5"] == sent(sandbox)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param(
            'sql="SELECT * FORM outcome", sql_conn_id="warehouse"', "the database cannot run the query", id="SQL"
        ),
        pytest.param(
            'sql="missing.sql", sql_conn_id="warehouse"', "there is no template file 'missing.sql'", id="no file"
        ),
        pytest.param(
            'sql="SELECT 1", sql_conn_id="warehose"', "connection 'warehose' is not defined", id="no connection"
        ),
        pytest.param(
            'sql="SELECT * FROM outcome", sql_conn_id="warehouse", max_events=2',
            "3 events, at most 2 are allowed by `max_events`",
            id="too many events",
        ),
    ],
)
def test_what_no_retry_can_cure_fails_at_once(run_dag: RunDag, sandbox: Sandbox, given: str, named: str) -> None:
    """A mistake in the task uses up no retries, and its reason is in the log."""
    finished = run_dag(
        f"""
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(task_id="report", retries=2, retry_delay=timedelta(0), {given})
        """
    )

    assert ("failed", 1) == (finished.state, finished.tries)
    assert named in finished.log
    assert [] == sent(sandbox)
