"""The README is correct: what it shows runs."""

from __future__ import annotations

import json
import sqlite3
import tomllib
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_ropo.sandbox import Sandbox
from documents import ROOT, block


def test_the_first_dag_runs(
    airflow_db: None, dags_folder: Path, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The DAG on the first screen reports what landed in the last seven days, and nothing twice."""
    from airflow.dag_processing.dagbag import DagBag

    warehouse = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    file = dags_folder / "readme.py"
    file.write_text(block("README", "from datetime import timedelta"))
    with closing(sqlite3.connect(warehouse)) as database:
        database.execute("CREATE TABLE outcomes (id, usageplacecode, status, time, landed_at)")
        database.execute("INSERT INTO outcomes VALUES ('e1', 'P1', 'connected', '2024-01-04 10:00', datetime('now'))")
        database.execute("INSERT INTO outcomes VALUES ('e2', 'P2', 'connected', '2024-01-04 10:00', '2024-01-05')")
        database.commit()
    dag = DagBag(dag_folder=file).dags["report_usageplace_events"]

    states = [str(dag.test(logical_date=datetime(2026, 1, 14, day, tzinfo=UTC)).state) for day in (3, 4)]

    file.unlink()
    assert ["success", "success"] == states
    assert ["e1"] == [payload["id"] for payload in sandbox.events]
    assert 1 == len(sandbox.arrivals)


def test_the_package_has_that_name() -> None:
    """The command installs this package."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    assert f"pip install {pyproject['project']['name']}" == block("README", "pip install").strip()
