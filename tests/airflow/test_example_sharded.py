"""The example that spreads a big table over mapped tasks: every event once, and each place's in their order."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
DAG_ID = "ropo_usageplace_events_sharded"
MORNING = datetime(2026, 1, 14, 3, tzinfo=UTC)
SHARDS = 4
# Digits, digits behind letters, letters alone, and a code that some row has with blanks around it.
CODES = [f"6430075720624{number:05}" for number in range(30)]
CODES += [f"RE{number}" for number in range(30)] + ["Mökki", "C", "RE 77-A", "-9", "0"]

RunExample = Callable[[], tuple[str, list[Any]]]


@pytest.fixture
def run_example(
    airflow_db: None, dags_folder: Path, sandbox: Sandbox, warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunExample]:
    """Run the example for the day before that morning; return how it ended, and its task instances, by shard."""
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    links = [dags_folder / name for name in ("sql", f"{DAG_ID}.py")]
    for link in links:
        link.symlink_to(ROOT / "example_dags" / link.name)
    dag = DagBag(dag_folder=links[-1]).dags[DAG_ID]

    def run() -> tuple[str, list[Any]]:
        finished = dag.test(logical_date=MORNING)
        return str(finished.state), sorted(finished.get_task_instances(), key=lambda ti: ti.map_index)

    yield run
    for link in links:
        link.unlink()


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a warehouse with eight events of every place, in no order."""
    monkeypatch.syspath_prepend(ROOT / "demo")
    from warehouse import TABLE

    rows = [(place, number) for place in CODES for number in range(8)]
    random.Random(14).shuffle(rows)  # noqa: S311 - the same mess every time
    path = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(TABLE)
        for place, number in rows:
            written = f"  {place} " if number % 2 else place
            add(database, f"{place}/{number}", written, MORNING - timedelta(hours=9 - number))
        database.commit()
    return path


def add(database: sqlite3.Connection, order: str, place: str | None, done_at: datetime) -> None:
    columns = "work_order_no, place_code, result, done_at, recorded_at"
    values = [order, place, "cut off", f"{done_at:%Y-%m-%d %H:%M:%S}", "2026-01-13 20:15:00"]
    database.execute(f"INSERT INTO field_work_outcome ({columns}) VALUES (?, ?, ?, ?, ?)", values)


def counts(task_instances: list[Any]) -> list[dict[str, int]]:
    pulled = task_instances[0].xcom_pull(task_ids="report_usageplace_events", map_indexes=range(SHARDS))
    return [{name: count for name, count in counts.items() if count} for counts in pulled]


def shards_of_places(warehouse: Path) -> dict[str, set[int]]:
    with closing(sqlite3.connect(warehouse)) as database:
        shards: dict[str, set[int]] = defaultdict(set)
        for place, shard in database.execute("SELECT usageplacecode, map_index FROM ropo_ledger"):
            shards[place].add(shard)
        return shards


def test_every_event_once_in_order(run_example: RunExample, sandbox: Sandbox, warehouse: Path) -> None:
    """The shards together send every row once; a place is in one shard, whose events arrive in their order."""
    state, task_instances = run_example()

    arrived = defaultdict(list)
    for payload in sandbox.events:
        arrived[payload["usageplacecode"]].append(payload["id"])
    shards = shards_of_places(warehouse)
    rows_of_shards = Counter(shard for (shard,) in shards.values())
    assert "success" == state
    assert {place: [f"{place}/{number}" for number in range(8)] for place in CODES} == arrived
    assert len(CODES) * 8 == len(sandbox.arrivals)
    assert set(CODES) == set(shards)
    assert [
        {"rows": 8 * rows_of_shards[shard], "events": 8 * rows_of_shards[shard], "delivered": 8 * rows_of_shards[shard]}
        for shard in range(SHARDS)
    ] == counts(task_instances)
    assert [f"shard {shard}" for shard in range(SHARDS)] == [ti.rendered_map_index for ti in task_instances]


def test_another_run_posts_nothing(run_example: RunExample, sandbox: Sandbox) -> None:
    """One ledger remembers for all shards: the same window once more posts nothing."""
    run_example()

    state, task_instances = run_example()

    assert "success" == state
    assert len(CODES) * 8 == sum(counts["already_delivered"] for counts in counts(task_instances))
    assert len(CODES) * 8 == len(sandbox.arrivals)


@pytest.mark.parametrize("code", [None, "", "  "])
def test_a_row_without_a_code_is_not_lost(
    run_example: RunExample, sandbox: Sandbox, warehouse: Path, code: str | None
) -> None:
    """A row without a code is in no place's shard; one of them counts it all the same, and its task is red."""
    with closing(sqlite3.connect(warehouse)) as database:
        add(database, "codeless", code, MORNING)
        database.commit()

    state, task_instances = run_example()

    assert "failed" == state
    assert [1] == [counts["invalid"] for counts in counts(task_instances) if "invalid" in counts]
    assert len(CODES) * 8 == len(sandbox.arrivals)
