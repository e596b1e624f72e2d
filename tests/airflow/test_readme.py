"""The README is correct: every code block in it is run, or compared with the real output."""

from __future__ import annotations

import inspect
import json
import os
import re
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE)

#: How each block begins; each has a test below.
BEGINNINGS = (
    "from datetime import datetime",
    "pip install airflow-provider-ropo",
    "AIRFLOW_CONN_ROPO_DEFAULT=",
    '{\n  "id":',
    "SELECT destination",
    "@task.ropo_usageplace_events",
    "from airflow_provider_ropo.event import",
    "$ airflow ropo check",
    "Arrived at Ropo One:",
    "pip install 'airflow-provider-ropo[sandbox]'",
    "cli/",
)


def block(beginning: str) -> str:
    """Return the one block with this beginning."""
    (found,) = (text for text in BLOCKS if text.startswith(beginning))
    return str(found)


def test_every_block_is_known() -> None:
    """Every block is known to this file, and every known block exists."""
    assert sorted(BEGINNINGS) == sorted(
        next((known for known in BEGINNINGS if text.startswith(known)), text) for text in BLOCKS
    )


def test_the_first_dag_runs(
    airflow_db: None, dags_folder: Path, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG on the first screen reports what its query returns, and nothing twice."""
    from airflow.dag_processing.dagbag import DagBag

    warehouse = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))
    file, query = dags_folder / "readme.py", dags_folder / "outcomes.sql"
    file.write_text(block("from datetime import datetime"))
    query.write_text(
        "SELECT 'e1' AS id, '643007572062443672' AS usageplacecode, 'connected' AS status, '2024-01-04 10:00' AS time"
    )
    dag = DagBag(dag_folder=file).dags["report_usageplace_events"]

    states = [str(dag.test(logical_date=datetime(2026, 1, 14, 3, tzinfo=UTC)).state) for _ in range(2)]

    file.unlink()
    query.unlink()
    assert ["success", "success"] == states
    assert ["e1"] == [payload["id"] for payload in sandbox.events]


def test_the_connection_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to write the connection are valid, and give the same settings."""
    understood = []
    for line in block("AIRFLOW_CONN_ROPO_DEFAULT=").splitlines():
        name, _, value = line.partition("=")
        monkeypatch.setenv(name, value.strip("'").replace("…", "sandbox"))
        understood.append(RopoHook().settings)

    one, other = understood
    assert one == other
    assert ("https://rc.ropo24.fi", "1000011", "sandbox", 60) == (one.server, one.cid, one.apicode, one.timeout)


def test_the_row_and_the_message() -> None:
    """The table's row becomes the message below it."""
    head, _, cells = re.findall(r"^\|(.*)\|$", README.partition("## A row")[2], re.MULTILINE)[:3]
    row = dict(zip(_cells(head), (None if cell == "*NULL*" else cell for cell in _cells(cells)), strict=True))

    payload = UsageplaceEvent.from_row(row).to_payload()

    assert json.loads(block('{\n  "id":')) == payload


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


def test_what_is_not_delivered(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query on the ledger finds the events that are not at Ropo One, and why."""
    from airflow_provider_ropo.errors import DeliveriesFailedError
    from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

    path = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    row = {"usageplacecode": "P1", "status": "connected", "time": "2024-01-04 10:00"}
    events = [{"id": "e1"} | row, {"id": "e2"} | row | {"usageplacecode": "UNKNOWN-1"}]
    options: dict[str, Any] = {"ledger_table": "ropo_ledger", "ledger_conn_id": "warehouse", "events": events}
    with pytest.raises(DeliveriesFailedError):
        UsageplaceEventOperator(task_id="report", **options).execute({})

    with closing(sqlite3.connect(path)) as database:
        found = database.execute(block("SELECT destination")).fetchall()

    assert [("e2", "UNKNOWN-1", "connected", "rejected")] == [(*row[1:4], row[5]) for row in found]


def test_the_rows_of_a_function(
    run_dag: Callable[..., Any], sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decorated function gets the dates of the run's interval, and its rows arrive."""
    warehouse = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse))

    finished = run_dag(
        FIELD_SERVICE + textwrap.indent(block("@task.ropo_usageplace_events"), " " * 4) + "\n    report()\n",
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


def test_the_command_line(airflow_db: None, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands print what the README shows, with the demo's warehouse."""
    monkeypatch.syspath_prepend(ROOT / "demo")
    from warehouse import make_warehouse

    path = tmp_path / "warehouse.db"
    make_warehouse(path, last_day=date(2026, 1, 14))
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(ROOT / "example_dags"))
    airflow = Path(sys.executable).parent / "airflow"
    examples = dict(re.findall(r"^\$ airflow (ropo .*)\n((?:(?!\$).*\n)*)", block("$ airflow ropo"), re.MULTILINE))

    outputs = {}
    for command in examples:
        if " ledger " in command:
            run = ["dags", "test", "ropo_usageplace_events_daily", "2026-01-15T05:00:00+02:00"]
            subprocess.run([airflow, *run], capture_output=True, check=False)
        done = subprocess.run([airflow, *command.split()], capture_output=True, text=True, check=False)
        outputs[command] = " ".join(done.stdout.replace(sandbox.url, "https://rc.ropo24.fi").split())

    assert ["check", "preview", "ledger"] == [command.split()[1] for command in examples]
    for command, shown in examples.items():
        # Values that differ each time, or are left out for their length.
        for piece in re.split(r"…|20\d\d-\d\d-\d\d \d\d:\d\d:\d\d \(Europe/Helsinki\)|\n", shown):
            assert " ".join(piece.split()) in outputs[command]


def test_one_event_with_the_hook(sandbox: Sandbox) -> None:
    """The hook posts the event of the example."""
    exec(block("from airflow_provider_ropo.event import"), {})  # noqa: S102 - the README's own

    assert ["643007572062443672"] == [payload["usageplacecode"] for payload in sandbox.events]


def test_the_sandbox_starts_with_the_command() -> None:
    """The command for the local Ropo One runs it."""
    (command,) = (line for line in block("pip install 'airflow-provider-ropo[sandbox]'").splitlines() if "-m" in line)
    arguments = command.replace("8099", "0").split()[1:]

    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.terminate()

    assert "http://127.0.0.1:" in line


def test_the_picture_of_the_layers_is_the_checked_one() -> None:
    """The picture has the layers that the import contract holds, in its order, with every file and folder."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    checked = [set(layer.split(" | ")) for layer in pyproject["tool"]["importlinter"]["contracts"][0]["layers"]]
    package = ROOT / "airflow_provider_ropo"

    drawn = [set(re.findall(r"(\w+)(?:/|\.py)(?=\s|$)", line)) for line in block("cli/").splitlines()]

    assert checked == [layer for layer in drawn if layer]
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} == set().union(*checked)


def test_every_parameter_is_in_the_readme() -> None:
    """The table of the operator's parameters is complete, with their defaults."""
    from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

    inits = [cls.__dict__["__init__"] for cls in UsageplaceEventOperator.__mro__[:2]]
    parameters = {name: each for init in inits for name, each in inspect.signature(init).parameters.items()}
    keywords = {name: each for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}
    defaults = {name: f"`{json.dumps(each.default)}`" for name, each in keywords.items()}
    words = {"`null`": "`None`", "`false`": "`False`"}
    # Either `sql` or `events` is required, so they have no default; the default of `ledger_conn_id` is a parameter.
    special = {"sql": "", "sql_conn_id": "", "events": "", "ledger_conn_id": "`sql_conn_id`"}
    table = re.findall(r"^\| `(\w+)` \|(.*?)\|", README.partition("## The operator")[2], re.MULTILINE)

    assert {name: words.get(default, default) for name, default in defaults.items()} | special == {
        name: default.strip() for name, default in table
    }
