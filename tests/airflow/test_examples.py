"""What people copy and what they try first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("dag_id", "schedule"),
    [
        ("ropo_usageplace_events_daily", "CronDataIntervalTimetable"),
        ("ropo_usageplace_events_after_load", "AssetTriggeredTimetable"),
    ],
)
def test_example_dags_parse(airflow_db: None, dag_id: str, schedule: str) -> None:
    """Every example parses, with the schedule it is there to show."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(dag_folder=ROOT / "example_dags")

    assert {} == bag.import_errors
    assert schedule == type(bag.dags[dag_id].timetable).__name__
    assert ["report_usageplace_events"] == bag.dags[dag_id].task_ids


def test_the_demo_shows_what_arrived_and_what_did_not() -> None:
    """``make demo`` runs the daily example through a real Airflow and ends with the two lists."""
    finished = subprocess.run(
        [sys.executable, ROOT / "demo" / "demo.py"], capture_output=True, text=True, timeout=120, check=False
    )

    assert 0 == finished.returncode, finished.stdout + finished.stderr
    assert "Arrived at Ropo One: 9 events" in finished.stdout
    assert "9 of 11 events are at Ropo One: 9 delivered, 1 rejected, 1 invalid" in finished.stdout
    assert "(id WO-0114-07): description: is missing" in finished.stdout
    assert "id WO-0114-09: HTTP 400 Unknown usage place" in finished.stdout
