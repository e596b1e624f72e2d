"""The example DAGs and the demo."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_ropo.sandbox import Sandbox
from airflow_provider_ropo.sandbox.drop_folder import DropFolder
from documents import block

ROOT = Path(__file__).parents[2]
REPORT = "report_usageplace_events"


EXAMPLES = {
    "ropo_outcomes_check": ("CronTriggerTimetable", ["every_outcome_is_delivered"]),
    "ropo_purge": ("CronTriggerTimetable", ["purge"]),
    "ropo_settle": ("NullTimetable", ["settle"]),
    "ropo_usageplace_events_after_load": ("AssetTriggeredTimetable", [REPORT]),
    "ropo_usageplace_events_approved": ("CronDataIntervalTimetable", ["preview", "approve", REPORT]),
    "ropo_usageplace_events_daily": ("CronDataIntervalTimetable", [REPORT]),
    "ropo_usageplace_events_file": ("CronDataIntervalTimetable", [REPORT]),
    "ropo_usageplace_events_sharded": ("CronDataIntervalTimetable", [REPORT]),
}


def test_example_dags_parse(airflow_db: None) -> None:
    """Every example parses, and has the expected schedule and tasks."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=ROOT / "example_dags")

    assert {} == bag.import_errors
    assert {dag_id: (type(dag.timetable).__name__, dag.task_ids) for dag_id, dag in bag.dags.items()} == EXAMPLES


def test_after_a_load_what_is_at_ropo_is_not_sent_again(
    airflow_db: None, dags_folder: Path, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example that looks back three days sends the rows of these days, and a second run sends none of them."""
    from airflow.dag_processing.dagbag import DagBag

    warehouse = five_loads(tmp_path / "warehouse.db", monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    file = dags_folder / "ropo_usageplace_events_after_load.py"
    file.symlink_to(ROOT / "example_dags" / file.name)
    dag = DagBag(dag_folder=file).dags[file.stem]

    states = [str(dag.test(logical_date=None).state) for _ in range(2)]

    file.unlink()
    assert ["success", "success"] == states
    assert {f"WO-01{day}" for day in (12, 13, 14)} == {payload["id"][:7] for payload in sandbox.events}
    assert (27, 27) == (len(sandbox.arrivals), len({payload["id"] for payload in sandbox.events}))


def test_the_file_example_leaves_a_file_in_the_drop_folder(
    airflow_db: None, dags_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example that sends a file leaves the rows of its interval at the sandbox's SFTP server."""
    from airflow.dag_processing.dagbag import DagBag

    warehouse = five_loads(tmp_path / "warehouse.db", monkeypatch)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    (tmp_path / "drop" / "in").mkdir(parents=True)
    links = [dags_folder / name for name in ("ropo_usageplace_events_file.py", "sql")]
    for link in links:
        link.symlink_to(ROOT / "example_dags" / link.name)
    dag = DagBag(dag_folder=links[0]).dags[links[0].stem]
    with DropFolder(tmp_path / "drop") as drop:
        connection = {"conn_type": "sftp", "host": "127.0.0.1", "port": drop.port, "login": drop.login}
        connection |= {"password": drop.password, "extra": {"host_key": drop.host_key}}
        monkeypatch.setenv("AIRFLOW_CONN_ROPO_SFTP", json.dumps(connection))

        day = dt.datetime.now(dt.UTC).replace(hour=3, minute=0, second=0, microsecond=0)
        states = [str(dag.test(logical_date=day - dt.timedelta(days=age)).state) for age in range(3)]

        for link in links:
            link.unlink()
        assert ["success"] * 3 == states
        assert drop.files
        assert all(file.name.startswith("in/usageplace_events_2") for file in drop.files)
        sent = "".join((drop.root / file.name).read_text() for file in drop.files)
        assert "WO-01" in sent


def five_loads(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the demo's warehouse, good rows only, of five loads: the last an hour ago, the others a day apart."""
    monkeypatch.syspath_prepend(ROOT / "demo")
    from warehouse import make_warehouse

    make_warehouse(path, last_day=dt.date(2026, 1, 14), days=5)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM field_work_outcome WHERE work_order_no LIKE '%-07' OR work_order_no LIKE '%-09'")
        database.execute(
            "UPDATE field_work_outcome SET recorded_at = datetime('now', '-1 hour', (load_no - 5) || ' days')"
        )
        database.commit()
    return path


def test_an_outcome_that_no_run_reported_is_found(
    airflow_db: None, dags_folder: Path, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is green while every outcome is delivered, closed, recent or from before the start; then it is red."""
    from airflow.dag_processing.dagbag import DagBag

    warehouse = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    five_loads(warehouse, monkeypatch)
    file = dags_folder / "ropo_outcomes_check.py"
    file.symlink_to(ROOT / "example_dags" / file.name)
    dag = DagBag(dag_folder=file).dags[file.stem]
    change(
        warehouse,
        "CREATE TABLE ropo_ledger (event_id TEXT, delivery_status TEXT)",
        "INSERT INTO ropo_ledger SELECT work_order_no, 'delivered' FROM field_work_outcome WHERE load_no < 5",
        "INSERT INTO ropo_ledger SELECT work_order_no, 'rejected' FROM field_work_outcome WHERE load_no < 5",
        "DELETE FROM ropo_ledger WHERE event_id LIKE '%-01'",
        "INSERT INTO ropo_ledger SELECT work_order_no, 'closed' FROM field_work_outcome WHERE load_no < 4",
        "UPDATE field_work_outcome SET recorded_at = '2025-12-31 21:59:59'"
        " WHERE work_order_no LIKE '%-01' AND load_no = 4",
    )

    first = dag.test(logical_date=None)
    change(
        warehouse, "UPDATE field_work_outcome SET recorded_at = '2025-12-31 22:00:00' WHERE recorded_at LIKE '2025%'"
    )
    second = dag.test(logical_date=None)

    file.unlink()
    assert ("success", "failed") == (str(first.state), str(second.state))


def change(warehouse: Path, *statements: str) -> None:
    with closing(sqlite3.connect(warehouse)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_the_demo_shows_what_arrived_and_what_did_not() -> None:
    """``make demo`` runs the daily example through a real Airflow, and prints what "First steps" shows of it."""
    finished = subprocess.run(
        [sys.executable, ROOT / "demo" / "demo.py"], capture_output=True, text=True, timeout=120, check=False
    )

    shown = block("first-steps", "Arrived at Ropo One:")
    assert 0 == finished.returncode, finished.stdout + finished.stderr
    assert [] == [line for line in shown.splitlines() if line.strip(" …") and line not in finished.stdout]
    assert "9 of 11 events are at Ropo One: 9 delivered, 1 rejected, 1 invalid" in finished.stdout
