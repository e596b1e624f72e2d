"""The page about files: its code runs, and its tables are complete."""

from __future__ import annotations

import datetime as dt
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from airflow_provider_ropo.export.formats import CSV_COLUMNS
from airflow_provider_ropo.operators.base import UsageplaceOperator
from airflow_provider_ropo.operators.usageplace_file import UsageplaceEventFileOperator
from airflow_provider_ropo.sandbox.drop_folder import DropFolder
from documents import block
from doubles import fake_context
from file_runs import rows

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text()
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def names_of_code() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    for code in CODE:
        exec(code, names)  # noqa: S102 - the page's own
    return names


def test_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The format and the destination that the page shows send a file."""
    drop = tmp_path / "share"
    (drop / "in").mkdir(parents=True)
    database = {"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(database))
    names = names_of_code()

    names["ShareOperator"](
        task_id="report",
        events=rows(2),
        ledger_table="ropo_ledger",
        ledger_conn_id="warehouse",
        destination_conn_id=str(drop),
        folder="in",
        timezone="Europe/Helsinki",
        format=names["XmlFormat"](),
    ).execute(fake_context(logical_date=dt.datetime(2026, 1, 14, 3, tzinfo=dt.UTC)))

    (path,) = (drop / "in").iterdir()
    assert ["e0", "e1"] == [event.get("id") for event in ET.parse(path).getroot()]  # noqa: S314 - ours


def test_the_dag_to_try_sends_one_file(
    airflow_db: None, dags_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG sends the events of the first steps as one file to the local drop folder, and no second one."""
    from airflow.dag_processing.dagbag import DagBag

    warehouse = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    with closing(sqlite3.connect(warehouse)) as database:
        database.execute("CREATE TABLE outcomes (id, usageplacecode, status, time, landed_at)")
        database.execute("INSERT INTO outcomes VALUES ('e1', 'P1', 'connected', '2024-01-04 10:00', datetime('now'))")
        database.commit()
    file = dags_folder / "page.py"
    file.write_text(block("files", "import pendulum"))
    dag = DagBag(dag_folder=file).dags["report_as_file"]
    shown = block("files", "export AIRFLOW_CONN_ROPO_SFTP").partition("=")[2].strip().strip("'")

    (tmp_path / "drop" / "in").mkdir(parents=True)
    with DropFolder(tmp_path / "drop") as drop:
        monkeypatch.setenv("AIRFLOW_CONN_ROPO_SFTP", json.dumps(drop.connection))
        states = [str(dag.test().state) for _ in range(2)]

    file.unlink()
    assert ["success", "success"] == states
    assert 1 == len(list((tmp_path / "drop" / "in").iterdir()))
    expected = drop.connection | {"port": 8022, "extra": {"host_key": "…"}}
    assert expected == json.loads(shown)


def test_parameters_are_all_there() -> None:
    """The table of parameters has each one that the operator adds."""
    own = set(UsageplaceEventFileOperator.template_fields) - set(UsageplaceOperator.template_fields)

    described = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))

    assert own | {"ledger_table", "on_empty"} <= described


def test_columns_are_all_there() -> None:
    """The table of CSV columns has each one."""
    table = PAGE.partition("| Column | |")[2].partition("```")[0]

    assert set(CSV_COLUMNS) == set(re.findall(r"`(\w+)`", table)) - {"disconnected", "connected", "notdisconnected"} - {
        "timezone"
    }
