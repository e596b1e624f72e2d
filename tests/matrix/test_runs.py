"""DAG runs with the installed package: over a SQLite warehouse and real HTTP, with a ledger."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from installed import AIRFLOW, Airflow

from airflow_provider_ropo.sandbox import Sandbox

MakeWarehouse = Callable[[list[tuple[str, str, str]]], Path]

#: The morning on which the daily examples report what was done on the 14th.
MORNING = "2026-01-15T05:00:00+02:00"
DAY_AFTER = "2026-01-16T08:00:00+02:00"
GOOD = [("e1", "P1", "cut off"), ("e2", "P1", "reconnected"), ("e3", "P2", "cut off"), ("e4", "P3", "cut off")]


def sent(sandbox: Sandbox) -> list[str]:
    return sorted(event["id"] for event in sandbox.events)


@pytest.mark.parametrize(
    ("dag_id", "tasks"),
    [
        pytest.param("ropo_usageplace_events_daily", 1, id="daily"),
        pytest.param("ropo_usageplace_events_sharded", 4, id="sharded"),
        pytest.param("matrix_mapped", 3, id="mapped"),
    ],
)
def test_every_event_arrives_once(
    airflow: Airflow, sandbox: Sandbox, make_warehouse: MakeWarehouse, dag_id: str, tasks: int
) -> None:
    """A run delivers every row; the same run again recognises all of them, and posts nothing."""
    make_warehouse(GOOD)

    first_state, first = airflow.test_dag(dag_id, MORNING)
    again_state, again = airflow.test_dag(dag_id, MORNING)

    assert ("success", "success") == (first_state, again_state)
    assert (tasks, tasks) == (len(first), len(again))
    assert (4, 4) == (total(first, "rows"), total(first, "delivered"))
    assert (4, 4) == (total(again, "rows"), total(again, "already_delivered"))
    assert ["e1", "e2", "e3", "e4"] == sent(sandbox)
    assert 4 == len(sandbox.arrivals)


def total(counts: list[dict[str, int]], name: str) -> int:
    return sum(each.get(name, 0) for each in counts)


def test_bad_rows_are_red_after_everything_else_was_sent(
    airflow: Airflow, sandbox: Sandbox, make_warehouse: MakeWarehouse
) -> None:
    """Bad rows stop no other; the counts are in XCom although the task is red."""
    # Ropo One needs the reason why a place was not disconnected.
    make_warehouse([*GOOD, ("bad", "P9", "not cut off"), ("no", "UNKNOWN-1", "cut off")])

    state, counts = airflow.test_dag("ropo_usageplace_events_daily", MORNING)

    assert "failed" == state
    assert [{"rows": 6, "events": 6, "delivered": 4, "invalid": 1, "rejected": 1}] == counts
    assert ["e1", "e2", "e3", "e4"] == sent(sandbox)


def test_the_decorator_reports_what_the_function_yields(
    airflow: Airflow, sandbox: Sandbox, make_warehouse: MakeWarehouse
) -> None:
    """``@task.ropo_usageplace_events`` delivers rows, and with a ledger none of them twice."""
    make_warehouse([])

    first = airflow.test_dag("matrix_decorated", MORNING)
    again = airflow.test_dag("matrix_decorated", MORNING)

    assert ("success", [{"rows": 2, "events": 2, "delivered": 2}]) == first
    assert ("success", [{"rows": 2, "events": 2, "already_delivered": 2}]) == again
    assert ["d1", "d2"] == sent(sandbox)


def test_a_failed_task_sends_its_message(
    airflow: Airflow, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The callback of a failed task gets what happened, and an address of this Airflow's own pages."""
    monkeypatch.setenv("ALERT", str(tmp_path / "message.txt"))

    airflow.test_dag("matrix_alert", MORNING)

    text = (tmp_path / "message.txt").read_text(encoding="utf-8")
    assert "0 of 1 events are at Ropo One: 1 rejected" in text
    assert "\nrejected: id e1: HTTP 400 Unknown usage place" in text
    page = r"/runs/\S+/tasks/report" if AIRFLOW >= (3, 0) else r"/matrix_alert/grid\?\S*task_id=report\S*"
    tab = "/plugin/ropo-report" if AIRFLOW >= (3, 1) else ""
    assert re.search(rf"\nhttp://localhost:8080/dags\S*{page}{tab}$", text), text


def test_an_outcome_that_no_run_reported_is_found(
    airflow: Airflow, sandbox: Sandbox, make_warehouse: MakeWarehouse
) -> None:
    """The check is green if every outcome is delivered, and red after a row that no run has read."""
    warehouse = make_warehouse(GOOD)
    airflow.test_dag("ropo_usageplace_events_daily", MORNING)

    complete, _ = airflow.test_dag("ropo_outcomes_check", DAY_AFTER)
    with closing(sqlite3.connect(warehouse)) as database:
        database.execute("UPDATE field_work_outcome SET work_order_no = 'e5' WHERE rowid = 4")
        database.commit()
    missing, _ = airflow.test_dag("ropo_outcomes_check", DAY_AFTER)

    assert ("success", "failed") == (complete, missing)


def test_events_arrive_as_a_file(
    airflow: Airflow, make_warehouse: MakeWarehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run sends one whole file; the same run again recognises every event, and sends none."""
    drop = tmp_path / "in"
    drop.mkdir()
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_SFTP", json.dumps({"conn_type": "fs", "extra": {"path": str(tmp_path)}}))
    make_warehouse(GOOD)

    first = airflow.test_dag("ropo_usageplace_events_file", MORNING)
    again = airflow.test_dag("ropo_usageplace_events_file", MORNING)

    assert ("success", [{"rows": 4, "events": 4, "delivered": 4}]) == first
    assert ("success", [{"rows": 4, "events": 4, "already_delivered": 4}]) == again
    (path,) = drop.iterdir()
    assert re.fullmatch(r"usageplace_events_20260115T030000Z_[0-9a-f]{12}\.csv", path.name)
    events = [line.partition(";")[0] for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    assert ["e1", "e2", "e3", "e4"] == sorted(events)
