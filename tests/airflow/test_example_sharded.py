"""The example that distributes a large table over mapped tasks: every event once, each place's in order."""

from __future__ import annotations

import json
import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from airflow_provider_ropo.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
DAG_ID = "ropo_usageplace_events_sharded"
#: The example that sends the same rows with one task.
ONE_TASK = "ropo_usageplace_events_daily"
MORNING = datetime(2026, 1, 14, 3, tzinfo=UTC)
SHARDS = 4
# Digits, digits behind letters, letters alone, and a code that some row has with blanks around it.
CODES = [f"6430075720624{number:05}" for number in range(30)]
CODES += [f"RE{number}" for number in range(30)] + ["Mökki", "C", "RE 77-A", "-9", "0"]

RunExample = Callable[..., tuple[str, list[Any]]]


@pytest.fixture
def run_example(
    airflow_db: None, dags_folder: Path, sandbox: Sandbox, warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunExample]:
    """Run an example for the day before that morning; return how it ended, and its task instances, by shard."""
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(warehouse)}))
    links = [dags_folder / name for name in ("sql", f"{DAG_ID}.py", f"{ONE_TASK}.py")]
    for link in links:
        link.symlink_to(ROOT / "example_dags" / link.name)

    def run(dag_id: str = DAG_ID, **options: Any) -> tuple[str, list[Any]]:
        dag = DagBag(dag_folder=dags_folder / f"{dag_id}.py").dags[dag_id]
        finished = dag.test(logical_date=MORNING, **options)
        return str(finished.state), sorted(finished.get_task_instances(), key=lambda ti: ti.map_index)

    yield run
    for link in links:
        link.unlink()


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a warehouse without any outcome."""
    monkeypatch.syspath_prepend(ROOT / "demo")
    from warehouse import TABLE

    path = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(TABLE)
    return path


@pytest.fixture
def eight_of_each(warehouse: Path) -> None:
    """Load eight events of every place, in no order."""
    rows = [
        Row(f"{place}/{number}", f"  {place} " if number % 2 else place, hour=number)
        for place in CODES
        for number in range(8)
    ]
    random.Random(14).shuffle(rows)  # noqa: S311 - the same mess every time
    load(warehouse, rows)


class Row(NamedTuple):
    """What matters here of an outcome; the hour is that in which the work was done."""

    order: str | None
    place: str | None
    invoice: str | None = None
    hour: int = 0


def load(warehouse: Path, rows: list[Row]) -> None:
    columns = "work_order_no, place_code, invoice_no, done_at, result, recorded_at"
    insert = f"INSERT INTO field_work_outcome ({columns}) VALUES (?, ?, ?, ?, 'cut off', '2026-01-13 20:15:00')"
    with closing(sqlite3.connect(warehouse)) as database:
        for row in rows:
            database.execute(insert, [*row[:3], f"2026-01-13 {row.hour:02}:00:00"])
        database.commit()


def counts(task_instances: list[Any]) -> list[dict[str, int]]:
    """Return each task's counts, those that are not null."""
    map_indexes = [ti.map_index for ti in task_instances]
    pulled = task_instances[0].xcom_pull(task_ids="report_usageplace_events", map_indexes=map_indexes)
    return [{name: count for name, count in counts.items() if count} for counts in pulled]


def arrived(sandbox: Sandbox) -> dict[str, list[dict[str, Any]]]:
    """Return what arrived of each place, in order."""
    payloads = defaultdict(list)
    for arrival in sandbox.arrivals:
        payloads[arrival.payload["usageplacecode"]].append(arrival.payload)
    return payloads


def shards_of_places(warehouse: Path) -> dict[str, set[int]]:
    """Return from which shards each place's events were delivered."""
    with closing(sqlite3.connect(warehouse)) as database:
        shards: dict[str, set[int]] = defaultdict(set)
        query = "SELECT usageplacecode, map_index FROM ropo_ledger WHERE delivery_status = 'delivered'"
        for place, shard in database.execute(query):
            shards[place].add(shard)
        return shards


@pytest.mark.usefixtures("eight_of_each")
def test_every_event_once_in_order(run_example: RunExample, sandbox: Sandbox, warehouse: Path) -> None:
    """The shards together send every row once; a place is in one shard, whose events arrive in their order."""
    state, task_instances = run_example()

    sent, shards = counts(task_instances), shards_of_places(warehouse)
    sizes = Counter(shard for (shard,) in shards.values())
    assert "success" == state
    assert {place: [f"{place}/{number}" for number in range(8)] for place in CODES} == {
        place: [payload["id"] for payload in payloads] for place, payloads in arrived(sandbox).items()
    }
    assert set(CODES) == set(shards)
    assert [dict.fromkeys(("rows", "events", "delivered"), 8 * sizes[shard]) for shard in range(SHARDS)] == sent
    assert [f"shard {shard}" for shard in range(SHARDS)] == [ti.rendered_map_index for ti in task_instances]

    # All shards use the same ledger: another run over the same window posts nothing. That one is triggered with a
    # shard's number, which does not make all of its shards that one.
    state, task_instances = run_example(run_conf={"shard": 2, "shards": 8})

    assert "success" == state
    assert [f"shard {shard}" for shard in range(SHARDS)] == [ti.rendered_map_index for ti in task_instances]
    assert [each["delivered"] for each in sent] == [each["already_delivered"] for each in counts(task_instances)]
    assert len(CODES) * 8 == len(sandbox.arrivals)


#: A code in each shard; with blanks at its end, its last four characters would make it another.
PLACES = ["72062443608", "72062443617", "72062443630", "72062443659"]
TOGETHER = {
    "a row lacks the code": [
        Row(f"{place}/{number}", code, f"{number}")
        for place in PLACES
        for number, codes in enumerate([(place, None), ("", place), (place, " "), (place, place)])
        for code in codes
    ],
    "one id at two places": [
        Row(order, place, hour=number)
        for number, place in enumerate(PLACES)
        for order in (f"{place}/1", f"{place}/2", f"{PLACES[number - 1]}/2", "everywhere")
    ],
    "blanks around the code": [
        Row(f"{place}/{hour}", pattern.format(place), f"{invoice}", hour)
        for place in PLACES
        for hour, written in enumerate(["{}\t", "\n{}", "{}\r\n", "\u00a0{}\u00a0", "\t {} \n\r\n"])
        for invoice, pattern in enumerate(["{}", written])
    ],
    "blanks around the id": [
        Row(order, code)
        for place in PLACES
        for order, code in ((f"{place}/1", place), (f" {place}/1 ", None), (f"{place}/2", place))
    ],
    "no id": [
        Row(order, place, hour=hour) for place in PLACES for hour, order in enumerate([None, "", "  ", f"{place}/3"])
    ],
    "no code at all": [Row(f"{number}", code) for number, code in enumerate([*PLACES, None, "", "  ", "\t"])],
}


@pytest.mark.parametrize("rows", TOGETHER.values(), ids=TOGETHER.keys())
def test_shards_add_up_to_one_task(run_example: RunExample, sandbox: Sandbox, warehouse: Path, rows: list[Row]) -> None:
    """Whatever the rows are, the shards count and send what one task does, each place's events in one shard."""
    load(warehouse, rows)

    state, shards = run_example()
    sent, shards_of = arrived(sandbox), shards_of_places(warehouse)
    forget(warehouse, sandbox)
    expected_state, one_task = run_example(ONE_TASK)

    (expected,) = counts(one_task)
    assert expected == sum(map(Counter, counts(shards)), Counter())
    assert expected_state == state
    assert arrived(sandbox) == sent
    assert {1} == set(map(len, shards_of.values()))


def forget(warehouse: Path, sandbox: Sandbox) -> None:
    """Let nothing have been sent yet."""
    sandbox.clear()
    with closing(sqlite3.connect(warehouse)) as database:
        database.execute("DROP TABLE ropo_ledger")
        database.commit()
