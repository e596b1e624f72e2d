"""An Airflow home, a local Ropo One and a warehouse."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from installed import AIRFLOW, EXAMPLES, HERE, Airflow

from airflow_provider_ropo.sandbox import Sandbox


@pytest.fixture(scope="session")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    """Make an Airflow with the example DAGs and those beside this file."""
    home = tmp_path_factory.mktemp("airflow")
    # Before Airflow 3.1 nobody can be asked for an approval.
    too_new = () if AIRFLOW >= (3, 1) else ("ropo_usageplace_events_approved.py",)
    shutil.copytree(EXAMPLES, home / "dags", ignore=shutil.ignore_patterns("__pycache__", *too_new))
    shutil.copytree(HERE / "dags", home / "dags", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    made = Airflow(
        home,
        {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "COLUMNS": "500",
        },
    )
    made.run("db", "migrate")
    if AIRFLOW == (3, 0):
        # Its `dags test` refuses a task with an outlet that no scheduler or this command has registered.
        made.run("dags", "reserialize")
    return made


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """A local Ropo One for the whole session."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def sandbox(running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """An empty local Ropo One, which the connection ``ropo_default`` leads to; ``ropo_wrong`` has another API code."""
    running_sandbox.clear()
    connection = {"conn_type": "ropo", "host": running_sandbox.url, "login": running_sandbox.cid}
    right, wrong = ({**connection, "password": code} for code in (running_sandbox.apicode, "wrong"))
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", json.dumps(right))
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_WRONG", json.dumps(wrong))
    return running_sandbox


@pytest.fixture
def make_warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[tuple[str, str, str]]], Path]:
    """Return what makes the examples' warehouse, of orders with a place and a result, all of one morning."""

    def make(rows: list[tuple[str, str, str]]) -> Path:
        path = tmp_path / "warehouse.db"
        with closing(sqlite3.connect(path)) as database:
            database.execute(
                "CREATE TABLE field_work_outcome (work_order_no TEXT, place_code TEXT, result TEXT, done_at TEXT,"
                " customer_no TEXT, contract_no TEXT, remark TEXT, invoice_no TEXT, ropo_jobid INTEGER,"
                " recorded_at TEXT)"
            )
            database.executemany(
                "INSERT INTO field_work_outcome VALUES (?, ?, ?, '2026-01-14 10:00:00', 'A1', 'c', NULL, NULL, NULL,"
                " '2026-01-14 20:15:00')",
                rows,
            )
            database.commit()
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
        return path

    return make
