"""The pages are correct: what needs Airflow of their code blocks and tables is run, or compared with what is so."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import sqlite3
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from airflow_provider_ropo.errors import DeliveriesFailedError
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.provider_info import CONNECTION_TYPE
from airflow_provider_ropo.sandbox import Sandbox
from documents import ROOT, block, page

Parse = Callable[..., Any]


@pytest.fixture
def parse(airflow_db: None, dags_folder: Path) -> Iterator[Parse]:
    """Return a function that parses a DAG file with this text and returns its one DAG."""
    from airflow.dag_processing.dagbag import DagBag

    file = dags_folder / "page.py"

    def parse(text: str) -> Any:
        file.write_text(text)
        bag = DagBag(dag_folder=file)
        assert {} == bag.import_errors
        (dag,) = bag.dags.values()
        return dag

    yield parse
    file.unlink()


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of the SQLite database of the connection ``warehouse``."""
    path = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


def settings_of(text: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the settings of each line that sets a connection."""
    settings = []
    for line in text.splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value.strip("'").replace("…", "sandbox"))
        settings.append(RopoHook().settings)
    return settings


def test_the_connection_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to write the connection are valid, and give the same settings."""
    text = block("connection", "AIRFLOW_CONN_ROPO_DEFAULT='{")

    one, other = settings_of(text, monkeypatch)

    assert one == other
    assert ("https://rc.ropo24.fi", "1000011", "sandbox", 60) == (one.server, one.cid, one.apicode, one.timeout)


def test_special_characters_in_the_api_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both lines with special characters give the API code of the text above them."""
    text = block("connection", "AIRFLOW_CONN_ROPO_DEFAULT='ropo://")

    assert ["p@ss/word:1"] * 2 == [settings.apicode for settings in settings_of(text, monkeypatch)]


def test_every_field_of_the_connection_is_in_the_table() -> None:
    """The table has the form's labels, and every extra."""
    rows = re.findall(r"^\| ([^|]+) \| (?:extra )?`?(\w+)`? \|", page("connection"), re.MULTILINE)

    table = {in_code: label for label, in_code in rows}
    extras = {name: field["label"] for name, field in CONNECTION_TYPE["conn-fields"].items()}
    assert extras | CONNECTION_TYPE["ui-field-behaviour"]["relabeling"] | {"port": "Port"} == {
        name: label for name, label in table.items() if name != "code"
    }


def test_every_parameter_is_in_the_table() -> None:
    """The table of the operator's parameters is complete, with their defaults."""
    from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

    classes = (cls for cls in UsageplaceEventOperator.__mro__ if cls.__module__.startswith("airflow_provider_ropo"))
    parameters = [each for cls in classes for each in inspect.signature(vars(cls)["__init__"]).parameters.values()]
    named = (each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY)
    defaults = {each.name: f"`{json.dumps(each.default)}`" for each in named}
    words = {"`null`": "`None`", "`false`": "`False`"}
    # Either `sql` or `events` is required, so they have no default; the default of `ledger_conn_id` is a parameter.
    special = {"sql": "", "sql_conn_id": "", "events": "", "ledger_conn_id": "`sql_conn_id`"}
    section = page("operator").partition("## Parameters")[2].partition("\n## ")[0]
    table = re.findall(r"^\| `(\w+)` \|(.*?)\|", section, re.MULTILINE)

    assert {name: words.get(default, default) for name, default in defaults.items()} | special == {
        name: default.strip() for name, default in table
    }


def test_the_volume_guard_can_be_set() -> None:
    """The example of ``max_events`` is accepted when a DAG is parsed."""
    from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

    names: dict[str, Any] = {}
    exec(block("operator", "max_events = "), names)  # noqa: S102 - the page's own

    task = UsageplaceEventOperator(
        task_id="report", sql="SELECT 1", sql_conn_id="warehouse", max_events=names["max_events"]
    )

    assert {"disconnected": 200, "connected": 500} == task.max_events


def test_the_rows_of_a_function(run_dag: Callable[..., Any], sandbox: Sandbox, warehouse: Path) -> None:
    """The decorated function gets the dates of the run's interval, and its rows arrive."""
    function = textwrap.indent(block("decorator", "@task.ropo_usageplace_events"), " " * 4)

    finished = run_dag(
        f"{FIELD_SERVICE}{function}\n    report()\n",
        logical_date=datetime(2024, 1, 5, 6, tzinfo=UTC),
    )

    assert "success" == finished.state
    assert ["2024-01-04 08:00:00"] == [payload["time"] for payload in sandbox.events]


FIELD_SERVICE = """
from types import SimpleNamespace

def outcomes(start, end):
    return [SimpleNamespace(place="P1", result="connected", at=start)]

field_service = SimpleNamespace(outcomes=outcomes)

with DAG(DAG_ID, schedule=CronDataIntervalTimetable("0 6 * * *", timezone="UTC"), start_date=START) as dag:
"""


def test_one_event_with_the_hook(sandbox: Sandbox) -> None:
    """The hook posts the event of the example."""
    exec(block("hook", "from airflow_provider_ropo.event import"), {})  # noqa: S102 - the page's own

    assert ["643007572062443672"] == [payload["usageplacecode"] for payload in sandbox.events]


def test_what_is_not_delivered(sandbox: Sandbox, warehouse: Path) -> None:
    """The query on the ledger finds the events that are not at Ropo One, and why."""
    from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

    row = {"usageplacecode": "P1", "status": "connected", "time": "2024-01-04 10:00"}
    events = [{"id": "e1"} | row, {"id": "e2"} | row | {"usageplacecode": "UNKNOWN-1"}]
    options: dict[str, Any] = {"ledger_table": "ropo_ledger", "ledger_conn_id": "warehouse", "events": events}
    with pytest.raises(DeliveriesFailedError):
        UsageplaceEventOperator(task_id="report", **options).execute({})

    with closing(sqlite3.connect(warehouse)) as database:
        found = database.execute(block("ledger", "SELECT destination")).fetchall()

    assert [("e2", "UNKNOWN-1", "connected", "rejected")] == [(*row[1:4], row[5]) for row in found]


def test_dbt_before_the_report(parse: Parse) -> None:
    """The report runs after dbt, in one DAG."""
    dag = parse(block("recipes/dbt", "from datetime import timedelta"))

    assert {"dbt"} == dag.get_task("report").upstream_task_ids


def test_cosmos_before_the_report(parse: Parse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report runs after the tasks that Cosmos makes; here, a group with one task stands for them."""
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import TaskGroup

    class DbtTaskGroup(TaskGroup):
        def __init__(self, group_id: str, **_configuration: object) -> None:
            super().__init__(group_id)
            with self:
                EmptyOperator(task_id="usageplace_outcomes")

    cosmos = ModuleType("cosmos")
    vars(cosmos).update(DbtTaskGroup=DbtTaskGroup, ProfileConfig=dict, ProjectConfig=str)
    monkeypatch.setitem(sys.modules, "cosmos", cosmos)
    imports = block("recipes/dbt", "from datetime import timedelta").partition("with DAG")[0]

    dag = parse(imports + block("recipes/dbt", "from cosmos import"))

    assert {"models.usageplace_outcomes"} == dag.get_task("report").upstream_task_ids


def test_a_table_with_other_names(parse: Parse, sandbox: Sandbox, warehouse: Path) -> None:
    """The table of work orders, with its own names and values, is reported by the DAG of the example."""
    dag = parse(block("rows", "from datetime import timedelta"))
    with closing(sqlite3.connect(warehouse)) as database:
        database.executescript(block("rows", "CREATE TABLE work_orders"))

    dag.test()

    assert [("9001", "disconnected"), ("9002", "notdisconnected"), ("9003", "connected")] == sorted(
        (payload["id"], payload["status"]) for payload in sandbox.events
    )


def test_several_customers(parse: Parse) -> None:
    """The report is mapped over two customers, each with its connection."""
    dag = parse(block("recipes/customers", "import pendulum"))

    mapped = dag.get_task("report").expand_input.value
    assert [("north", "ropo_north"), ("south", "ropo_south")] == [
        (each["parameters"]["company"], each["ropo_conn_id"]) for each in mapped
    ]


def test_the_look_back_is_that_of_the_readme() -> None:
    """The page about late rows has the query of the README, whose test runs it."""
    query = " ".join(block("recipes/late-rows", "SELECT").split())

    assert f'sql="{query}"' in block("README", "from datetime import timedelta")


def test_a_param_says_how_far_back(parse: Parse, sandbox: Sandbox, warehouse: Path) -> None:
    """With a larger number of days, the DAG reports what landed earlier."""
    dag = parse(block("recipes/backfills", "import pendulum"))
    with closing(sqlite3.connect(warehouse)) as database:
        database.execute("CREATE TABLE outcomes (id, usageplacecode, status, time, landed_at)")
        database.execute(
            "INSERT INTO outcomes VALUES ('e1', 'P1', 'connected', '2024-01-04 10:00', datetime('now', '-20 days'))"
        )
        database.commit()

    arrived = []
    for days in (7, 30):
        dag.test(run_conf={"days": days})
        arrived.append(len(sandbox.events))

    assert [0, 1] == arrived


def test_the_command_for_a_backfill() -> None:
    """Airflow's command line takes the command, and the DAG is one of the examples."""
    from airflow.cli import cli_parser

    command = shlex.split(block("recipes/backfills", "$ airflow backfill"))[2:]

    arguments = cli_parser.get_parser().parse_args(command)

    assert (1, "failed") == (
        arguments.max_active_runs,
        str(getattr(arguments.reprocess_behavior, "value", arguments.reprocess_behavior)),
    )
    assert (ROOT / "example_dags" / f"{arguments.dag_id}.py").exists()


def test_a_dag_after_the_report(parse: Parse) -> None:
    """The DAG is scheduled by the asset of the reported events."""
    dag = parse(block("observability", "from airflow.sdk import DAG, Asset, task"))

    assert ["ropo://rc.ropo24.fi/usageplace/event"] == [asset.uri for asset in dag.timetable.asset_condition.objects]


def test_the_report_in_the_rest_api() -> None:
    """The address of the report is one of Airflow's REST API, with the XCom's key."""
    from airflow.api_fastapi.core_api.app import init_views
    from fastapi import FastAPI

    from airflow_provider_ropo.reporting.report import REPORT_KEY

    (path,) = re.findall(r'"\$AIRFLOW(/\S+)"', block("observability", "$ curl"))
    app = FastAPI()
    init_views(app)

    templates = {"DAG_ID": "dag_id", "RUN_ID": "dag_run_id", "TASK_ID": "task_id"}
    route = re.sub(r"\$(\w+)", lambda name: f"{{{templates[name[1]]}}}", path)
    assert path.endswith(REPORT_KEY)
    assert route.replace(REPORT_KEY, "{xcom_key}") in app.openapi()["paths"]
