"""A whole Airflow, as `airflow standalone` starts it, over the daily example: three days, and their backfills."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.sandbox import Sandbox

ROOT = Path(__file__).parents[2]

DAG_ID = "ropo_usageplace_events_daily"
LAST_DAY, DAYS = date(2026, 1, 14), 3
FROM, TO = "2026-01-12T00:00:00+02:00", "2026-01-14T23:59:59+02:00"
EVENTS_A_DAY = 9
SECOND_DAY = "WO-0113-%"
NEWEST = """
SELECT event_id, delivery_status FROM (
    SELECT event_id, delivery_status, row_number() OVER (PARTITION BY event_id ORDER BY recorded_at DESC) AS age
    FROM ropo_ledger
) WHERE age = 1
"""


@pytest.fixture
def warehouse(airflow: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the demo's warehouse, with three days' work and without the rows that are invalid or rejected."""
    monkeypatch.syspath_prepend(ROOT / "demo")
    from warehouse import make_warehouse

    path: Path = airflow.home / "warehouse.db"
    make_warehouse(path, last_day=LAST_DAY, days=DAYS)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM field_work_outcome WHERE work_order_no LIKE '%-07' OR work_order_no LIKE '%-09'")
        database.commit()
    return path


@pytest.fixture
def running(airflow: Any, warehouse: Path) -> Any:
    """Return the Airflow, running, with the daily example unpaused."""
    airflow.connect("warehouse", conn_type="sqlite", host=str(warehouse))
    airflow.start("standalone")
    airflow.wait_for(lambda: airflow.ask(f"dags/{DAG_ID}"), "the DAG")
    airflow.ask(f"dags/{DAG_ID}", "PATCH", is_paused=False)
    return airflow


def backfill(airflow: Any) -> list[dict[str, int]]:
    """Backfill the three days, one after another, wait for the end, and return each day's counts.

    Their look-backs overlap: side by side, a run would find events that another one is sending, and try again later.
    """
    order = {"dag_id": DAG_ID, "from_date": FROM, "to_date": TO, "reprocess_behavior": "completed"}
    # While something else writes to its SQLite, Airflow answers with 503, and would be asked again.
    ordered = airflow.wait_for(lambda: airflow.ask("backfills", "POST", **order, max_active_runs=1), "a backfill")
    airflow.wait_for(lambda: airflow.ask(f"backfills/{ordered['id']}")["completed_at"], "the backfill's end")
    return [counts(airflow, run) for run in runs(airflow)]


def runs(airflow: Any) -> list[str]:
    """Return the runs of the three days, by day."""
    query = f"logical_date_gte={FROM}&logical_date_lte={TO}&order_by=logical_date".replace("+", "%2B")
    found = airflow.ask(f"dags/{DAG_ID}/dagRuns?{query}")["dag_runs"]
    assert ["success"] * DAYS == [run["state"] for run in found], airflow.output()
    return [run["dag_run_id"].replace("+", "%2B") for run in found]


def counts(airflow: Any, run_id: str) -> dict[str, int]:
    path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/report_usageplace_events/xcomEntries/return_value"
    found = airflow.ask(path)["value"]
    return {name: count for name, count in found.items() if count}


def ledger(warehouse: Path) -> dict[str, str]:
    """Return the newest state of every event."""
    with closing(sqlite3.connect(warehouse)) as database:
        return dict(database.execute(NEWEST).fetchall())


def forget(warehouse: Path, ids: str) -> int:
    with closing(sqlite3.connect(warehouse)) as database:
        forgotten = database.execute("DELETE FROM ropo_ledger WHERE event_id LIKE ?", [ids]).rowcount
        database.commit()
    return forgotten


def seen(days: int) -> dict[str, int]:
    """Return what a run reads whose look-back has the work of that many days."""
    return {"rows": 10 * days, "events": EVENTS_A_DAY * days}


def read(found: list[dict[str, int]]) -> list[dict[str, int]]:
    """Return what each run has read."""
    return [{name: counts[name] for name in ("rows", "events")} for counts in found]


def delivered(found: list[dict[str, int]]) -> int:
    """Return what the runs have delivered together: the first whose look-back has a day sends its events.

    That need not be the day's own: Airflow begins the runs of a backfill in any order.
    """
    return sum(counts.get("delivered", 0) for counts in found)


def known(days: int) -> dict[str, int]:
    return {"already_delivered": EVENTS_A_DAY * days} if days else {}


def test_backfills_post_nothing_twice(running: Any, warehouse: Path, sandbox: Sandbox) -> None:
    """Three days run through a real Airflow; a backfill over them posts nothing, but for what the ledger forgot."""
    first = backfill(running)

    arrived = Counter(payload["id"] for payload in sandbox.events)
    assert [seen(day) for day in (1, 2, 3)] == read(first)
    assert EVENTS_A_DAY * DAYS == delivered(first)
    assert (EVENTS_A_DAY * DAYS, {1}) == (len(arrived), set(arrived.values()))
    assert dict.fromkeys(arrived, "delivered") == ledger(warehouse)

    second = backfill(running)

    assert [seen(day) | known(day) for day in (1, 2, 3)] == second
    assert EVENTS_A_DAY * DAYS == len(sandbox.arrivals)

    forget(warehouse, SECOND_DAY)
    third = backfill(running)

    again = {event_id for event_id, times in Counter(payload["id"] for payload in sandbox.events).items() if times == 2}
    assert [seen(day) for day in (1, 2, 3)] == read(third)
    assert EVENTS_A_DAY == delivered(third)
    assert {event_id for event_id in arrived if event_id.startswith("WO-0113-")} == again
    assert EVENTS_A_DAY * (DAYS + 1) == len(sandbox.arrivals)
    assert dict.fromkeys(arrived, "delivered") == ledger(warehouse)
