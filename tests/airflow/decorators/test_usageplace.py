"""``@task.ropo_usageplace_events`` in whole DAG runs, through Airflow's own ``dag.test()``."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ropo.decorators.usageplace import UsageplaceEventDecoratedOperator
from airflow_provider_ropo.errors import DeliveriesFailedError, RopoConfigurationError
from airflow_provider_ropo.sandbox import Fault, Sandbox

RunDag = Callable[..., Any]

FRIDAY = datetime(2024, 1, 5, 6, tzinfo=UTC)
NOTHING = {
    "rows": 0,
    "events": 0,
    "delivered": 0,
    "already_delivered": 0,
    "rejected": 0,
    "invalid": 0,
    "changed": 0,
    "undelivered": 0,
    "unconfirmed": 0,
    "held": 0,
    "closed": 0,
}
#: Put in front of a DAG: a shorthand for rows, with a customer's number that must be seen nowhere.
ROW = """
def row(number, **fields):
    return {"id": f"e{number}", "usageplacecode": f"P{number}", "status": "connected",
            "time": f"2024-01-05 12:00:0{number}", "customernumber": f"A123{number}", **fields}
"""


@pytest.fixture
def run_dag(run_dag: RunDag, caplog: pytest.LogCaptureFixture) -> RunDag:
    """Run a DAG; its log is what went through Airflow's loggers and through Python's."""
    caplog.set_level(logging.INFO)

    def run(source: str, **options: Any) -> Any:
        finished = run_dag(source, **options)
        return replace(finished, log=finished.log + caplog.text)

    return run


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SQLite database, behind the connection ``warehouse``."""
    path = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


def sent(sandbox: Sandbox) -> list[str]:
    return sorted(event["id"] for event in sandbox.events)


def kept_by_airflow(dag_id: str) -> str:
    """Return everything in Airflow's database about the task: its XComs, rendered fields and notes."""
    query = "SELECT * FROM {} WHERE dag_id = ? AND task_id = 'report'"
    with closing(sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db")) as connection:
        tables = ("xcom", "rendered_task_instance_fields", "task_instance")
        return "".join(str(connection.execute(query.format(table), (dag_id,)).fetchall()) for table in tables)


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"e{number}",
        "usageplacecode": f"P{number}",
        "status": "connected",
        "time": "2024-01-05 12:00:00",
        **fields,
    }


def make(function: Callable[..., Any], **parameters: Any) -> UsageplaceEventDecoratedOperator:
    return UsageplaceEventDecoratedOperator(task_id="report", python_callable=function, **parameters)


@pytest.mark.parametrize(
    "ending", ["return [row(1), row(2)]", "yield from (row(1), row(2))"], ids=["list", "generator"]
)
def test_what_the_function_gives_arrives(run_dag: RunDag, sandbox: Sandbox, ending: str) -> None:
    """Rows returned or yielded are at Ropo One; the XCom is the counts, and nothing holds a customer's number."""
    finished = run_dag(
        ROW
        + f"""
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    @task.ropo_usageplace_events
    def report():
        {ending}
    report()
"""
    )

    assert "success" == finished.state
    assert {**NOTHING, "rows": 2, "events": 2, "delivered": 2} == finished.xcom
    assert [("e1", "A1231"), ("e2", "A1232")] == sorted((each["id"], each["customernumber"]) for each in sandbox.events)
    assert "A123" not in finished.log + kept_by_airflow(finished.dag_id)


def test_the_arguments_are_templated_and_other_tasks_rows_redacted(run_dag: RunDag, sandbox: Sandbox) -> None:
    """The function gets templates rendered and XComs resolved; only what the author wrote is shown."""
    finished = run_dag(
        ROW
        + """
with DAG(DAG_ID, schedule="@daily", start_date=START) as dag:
    @task(show_return_value_in_logs=False)
    def outcomes():
        return [row(1), row(2)]

    @task(show_return_value_in_logs=False)
    def customer():
        return "A1239"

    @task.ropo_usageplace_events
    def report(rows, day, number, query, *, customer, ds):
        assert type(rows) is list
        assert "late.sql" == query
        assert day == ds
        yield from ({**each, "id": f"{each['id']}-{day}-{number}", "customernumber": customer} for each in rows)

    report(outcomes(), "{{ ds }}", 7, query="late.sql", customer=customer())
""",
        logical_date=FRIDAY,
    )

    assert "success" == finished.state
    assert ["e1-2024-01-05-7", "e2-2024-01-05-7"] == sent(sandbox)
    shown = f"{finished.rendered['op_args']} {finished.rendered['op_kwargs']}"
    there = ("list, not shown: it may contain personal data", "str, not shown", "2024-01-05", "7", "late.sql")
    assert [] == [each for each in there if each not in shown]
    assert "A123" not in finished.log + kept_by_airflow(finished.dag_id)


def test_one_task_for_each_shard(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Mapped over another task's output, each instance reports its own rows, and shows none."""
    finished = run_dag(
        ROW
        + """
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    @task(show_return_value_in_logs=False)
    def shards():
        return [[row(1), row(2)], [row(3)]]

    @task.ropo_usageplace_events(max_workers=2)
    def report(rows, prefix):
        return [{**each, "id": prefix + each["id"]} for each in rows]

    report.partial(prefix="x-").expand(rows=shards())
"""
    )

    assert "success" == finished.state
    assert ["x-e1", "x-e2", "x-e3"] == sent(sandbox)
    assert [1, 2] == sorted(counts["delivered"] for counts in finished.xcom)
    assert "A123" not in finished.log + kept_by_airflow(finished.dag_id)


def test_a_template_that_fails_logs_no_rows(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Airflow logs the arguments if one cannot be rendered; the output of another task is not among them."""
    finished = run_dag(
        ROW
        + """
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    @task(show_return_value_in_logs=False)
    def shards():
        return [[row(1)]]

    @task.ropo_usageplace_events
    def report(rows, day):
        return rows

    report.partial(day="{{ no_such_thing }}").expand(rows=shards())
"""
    )

    assert "failed" == finished.state
    assert "no_such_thing" in finished.log
    assert "A123" not in finished.log + kept_by_airflow(finished.dag_id)
    assert [] == sandbox.arrivals


def test_bad_rows_are_red_once_and_name_no_customer(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Everything that can be sent is sent, then the task fails without a retry, with its counts in XCom."""
    finished = run_dag(
        ROW
        + """
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    @task.ropo_usageplace_events(retries=2, retry_delay=timedelta(0))
    def report():
        yield row(1)
        yield row(2, status="notdisconnected")
        yield row(3, usageplacecode="UNKNOWN-3")
        yield row(4)
    report()
"""
    )

    assert "failed" == finished.state
    assert 1 == finished.tries
    assert {**NOTHING, "rows": 4, "events": 4, "delivered": 2, "rejected": 1, "invalid": 1} == finished.xcom
    assert ["e1", "e4"] == sent(sandbox)
    assert "row 2 (id e2): description: is missing" in finished.log
    assert "A123" not in finished.log + kept_by_airflow(finished.dag_id)


def test_a_function_that_fails_posts_nothing(run_dag: RunDag, sandbox: Sandbox) -> None:
    """An exception of the function ends the task, with its own traceback, although rows had been read."""
    finished = run_dag(
        ROW
        + """
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    @task.ropo_usageplace_events
    def report():
        yield row(1)
        raise LookupError("the list is not finished")
    report()
"""
    )

    assert "failed" == finished.state
    assert "the list is not finished" in finished.log
    assert "A123" not in finished.log
    assert [] == sandbox.arrivals


def test_a_retry_with_a_ledger_posts_only_the_rest(run_dag: RunDag, sandbox: Sandbox, database: Path) -> None:
    """With a ledger, the second try calls the function again, and sends nothing twice."""
    sandbox.script([Fault(status=500, usageplacecode="P2")] * 5)

    finished = run_dag(
        ROW
        + """
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    @task.ropo_usageplace_events(
        ledger_table="ledger_{{ dag.dag_id }}", ledger_conn_id="warehouse", retries=1, retry_delay=timedelta(0)
    )
    def report():
        return [row(1), row(2)]
    report()
"""
    )

    assert "success" == finished.state
    assert 2 == finished.tries
    assert {**NOTHING, "rows": 2, "events": 2, "delivered": 1, "already_delivered": 1} == finished.xcom
    assert ["e1", "e2"] == sent(sandbox)
    with closing(sqlite3.connect(database)) as connection:
        statuses = connection.execute(f"SELECT event_id, delivery_status FROM ledger_{finished.dag_id}").fetchall()
    assert {("e1", "delivered"), ("e2", "delivered")} <= set(statuses)


def test_parameters_are_those_of_the_operator(run_dag: RunDag, sandbox: Sandbox) -> None:
    """Columns, statuses, tolerance and a templated preview work as they do for the operator."""
    finished = run_dag(
        """
with DAG(DAG_ID, schedule=None, start_date=START, params={"preview": Param(True)}) as dag:
    @task.ropo_usageplace_events(
        columns={"usageplacecode": "place"}, statuses={"OFF": "disconnected"}, max_failed=1,
        preview="{{ params.preview }}",
    )
    def report():
        yield {"place": "P1", "status": "OFF", "time": "2024-01-05 12:00:00", "customernumber": "A1231"}
        yield {"place": "P2", "status": "???", "time": "2024-01-05 12:00:00", "customernumber": "A1232"}
    report()
"""
    )

    assert "success" == finished.state
    assert {**NOTHING, "rows": 2, "events": 2, "undelivered": 1, "invalid": 1} == finished.xcom
    assert '"usageplacecode": "P1", "customernumber": "***"' in finished.log
    assert "A123" not in finished.log
    assert [] == sandbox.arrivals


def test_no_rows_may_skip(run_dag: RunDag, sandbox: Sandbox) -> None:
    """A function without rows skips the task if ``on_empty`` is ``skip``, and the log names the function."""
    finished = run_dag(
        """
with DAG(DAG_ID, schedule=None, start_date=START) as dag:
    @task.ropo_usageplace_events(on_empty="skip")
    def report():
        return []
    report()
"""
    )

    assert NOTHING == finished.xcom
    assert "no rows came from the function report" in finished.log
    assert 0 == sandbox.sign_ins


@pytest.mark.parametrize(
    ("signature", "argument", "logged"),
    [
        pytest.param("data_interval_start, data_interval_end", "", "both are", id="by name"),
        pytest.param("window", '"{{ data_interval_start }} {{ data_interval_end }}"', "both are", id="by template"),
    ],
)
def test_an_empty_window_fails_before_the_function_runs(
    run_dag: RunDag, sandbox: Sandbox, signature: str, argument: str, logged: str
) -> None:
    """A function that uses both ends of an empty interval is refused, in every form of its signature."""
    finished = run_dag(
        ROW
        + f"""
from airflow.timetables.trigger import CronTriggerTimetable

with DAG(DAG_ID, schedule=CronTriggerTimetable("0 6 * * *", timezone="UTC"), start_date=START) as dag:
    @task.ropo_usageplace_events
    def report({signature}):
        print("the function ran")
        yield row(1)
    report({argument})
""",
        logical_date=FRIDAY,
    )

    assert "failed" == finished.state
    assert logged in finished.log
    assert "CronDataIntervalTimetable" in finished.log
    assert "the function ran" not in finished.log
    assert [] == sandbox.arrivals


def test_a_date_that_the_run_does_not_have(sandbox: Sandbox) -> None:
    """In a run without dates, a required date is a clear error; a date with a default value is not."""

    def needs(ds: str) -> list[dict[str, Any]]:
        return [row(1, id=ds)]

    def asks(ds: str | None = None) -> list[dict[str, Any]]:
        return [row(1, id=ds or "none")]

    with pytest.raises(RopoConfigurationError, match="uses ds, and this run has no dates"):
        make(needs).execute({})
    make(asks).execute({})

    assert ["none"] == sent(sandbox)


def test_a_generator_is_read_as_a_stream(sandbox: Sandbox) -> None:
    """Rows are not kept in memory, and the first post comes after the last row."""

    class Row(dict[str, Any]):
        __hash__ = object.__hash__  # type: ignore[assignment]  # for the set below

    alive: WeakSet[Row] = WeakSet()
    most = 0

    def rows() -> Iterator[Row]:
        nonlocal most
        for number in range(1_000):
            each = Row(row(number % 10))
            alive.add(each)
            most = max(most, len(alive))
            yield each
        assert 0 == sandbox.sign_ins

    counts = make(rows).execute({})

    assert {**NOTHING, "rows": 1_000, "events": 10, "delivered": 10} == counts
    assert most <= 3


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param(None, "it returned a NoneType", id="nothing"),
        pytest.param({"id": "e1"}, "it returned a dict", id="one mapping"),
        pytest.param("A1231", "it returned a str", id="text"),
        pytest.param([row(1), ["e2"]], "item 2 is a list", id="list of lists"),
        pytest.param([{"id": "e1", "place": "P1"}], None, id="keys that lead nowhere"),
    ],
)
def test_what_is_no_row_is_refused(sandbox: Sandbox, given: Any, named: str | None) -> None:
    """A mistake in what the function returns is reported with its name and none of the data, and not retried."""
    error = RopoConfigurationError if named else DeliveriesFailedError

    def report() -> Any:
        return given

    with pytest.raises(error, match=named or "usageplacecode") as caught:
        make(report).execute({})

    assert isinstance(caught.value, AirflowFailException)
    assert "A123" not in str(caught.value)
    assert [] == sandbox.arrivals
    if named:
        assert "the function report must return or yield row mappings" in str(caught.value)


def test_a_column_that_no_row_has_is_refused(sandbox: Sandbox) -> None:
    """A key of ``columns`` that no row has is named, with the function it should have come from."""

    def report() -> Any:
        return [row(1)]

    with pytest.raises(RopoConfigurationError, match="rows of the function report have the keys"):
        make(report, columns={"usageplacecode": "place"}).execute({})


async def asynchronous() -> list[dict[str, Any]]:
    return []


@pytest.mark.parametrize(
    ("function", "parameters", "named"),
    [
        *[
            pytest.param(list, {name: "x"}, f"`{name}` cannot be used here", id=name)
            for name in ("sql", "sql_conn_id", "parameters", "sql_hook_params", "events")
        ],
        pytest.param(list, {"ledger_table": "ledger"}, "`ledger_conn_id`", id="ledger without connection"),
        pytest.param(list, {"max_workers": 0}, "`max_workers`", id="max_workers"),
        pytest.param(asynchronous, {}, "must not be async", id="async"),
    ],
)
def test_mistakes_are_found_when_the_dag_is_parsed(
    function: Callable[..., Any], parameters: dict[str, Any], named: str
) -> None:
    """What can be checked without a run is checked when the task is made."""
    with pytest.raises(RopoConfigurationError, match=named):
        make(function, **parameters)
