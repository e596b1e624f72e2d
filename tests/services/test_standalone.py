"""A whole Airflow, as `airflow standalone` starts it, over the daily example: three days, and their backfills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_ropo.sandbox import Sandbox

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

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

PATIENCE = 90


@dataclass(frozen=True)
class Airflow:
    """A running Airflow, spoken to as its UI does."""

    url: str
    log: Path

    def ask(self, path: str, method: str = "GET", **body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.url}/api/v2/{path}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token()}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)

    def token(self) -> str:
        """Sign in, where everybody is an admin."""
        with urllib.request.urlopen(f"{self.url}/auth/token", timeout=30) as answer:  # noqa: S310
            return str(json.load(answer)["access_token"])

    def backfill(self) -> list[dict[str, int]]:
        """Backfill the three days, ran or not, wait for the end, and return each day's counts."""
        order = {"dag_id": DAG_ID, "from_date": FROM, "to_date": TO, "reprocess_behavior": "completed"}
        # While something else writes to its SQLite, Airflow answers with 503, and would be asked again.
        ordered = self.wait_for(lambda: self.ask("backfills", "POST", **order, max_active_runs=10), "a backfill")
        self.wait_for(lambda: self.ask(f"backfills/{ordered['id']}")["completed_at"], "the backfill's end")
        return [self.counts(run) for run in self.runs()]

    def runs(self) -> list[str]:
        """Return the runs of the three days, by day."""
        query = f"logical_date_gte={FROM}&logical_date_lte={TO}&order_by=logical_date".replace("+", "%2B")
        runs = self.ask(f"dags/{DAG_ID}/dagRuns?{query}")["dag_runs"]
        assert ["success"] * DAYS == [run["state"] for run in runs], self.log.read_text()[-20_000:]
        return [run["dag_run_id"].replace("+", "%2B") for run in runs]

    def counts(self, run_id: str) -> dict[str, int]:
        path = f"dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/report_usageplace_events/xcomEntries/return_value"
        counts = self.ask(path)["value"]
        return {name: count for name, count in counts.items() if count}

    def wait_for(self, come: Callable[[], Any], what: str) -> Any:
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            with suppress(urllib.error.URLError, ConnectionError):
                if found := come():
                    return found
            time.sleep(0.5)
        pytest.fail(f"{what} was not there after {PATIENCE} s:\n{self.log.read_text()[-20_000:]}", pytrace=False)


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a folder for an Airflow."""
    path = Path(tempfile.mkdtemp(prefix="ropo-standalone-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Run a local Ropo One."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def warehouse(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the demo's warehouse, with three days' work and without the rows that somebody has to mend."""
    monkeypatch.syspath_prepend(ROOT / "demo")
    from warehouse import make_warehouse

    path = home / "warehouse.db"
    make_warehouse(path, last_day=LAST_DAY, days=DAYS)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM field_work_outcome WHERE work_order_no LIKE '%-07' OR work_order_no LIKE '%-09'")
        database.commit()
    return path


@pytest.fixture
def airflow(home: Path, warehouse: Path, sandbox: Sandbox) -> Iterator[Airflow]:
    """Run a whole Airflow that knows the examples, and end all of it."""
    command = [BIN / "airflow", "standalone"]
    port, environment = _environment(home, warehouse, sandbox)
    log = home / "standalone.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True) as process,
    ):
        try:
            running = Airflow(f"http://127.0.0.1:{port}", log)
            running.wait_for(lambda: running.ask(f"dags/{DAG_ID}"), "the DAG")
            running.ask(f"dags/{DAG_ID}", "PATCH", is_paused=False)
            yield running
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            _end_all_of(home)


def _environment(home: Path, warehouse: Path, sandbox: Sandbox) -> tuple[int, dict[str, str]]:
    port, *log_ports = _free_ports(3)
    connections = {
        "ROPO_DEFAULT": {
            "conn_type": "ropo",
            "host": sandbox.url,
            "login": sandbox.cid,
            "password": sandbox.apicode,
        },
        "WAREHOUSE": {"conn_type": "sqlite", "host": str(warehouse)},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    return port, inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(log_ports[0]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(log_ports[1]),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
        # Nothing but this machine is contacted.
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # `airflow standalone` starts `airflow` by name.
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        **{f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in connections.items()},
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in sockets]
    for listening in sockets:
        listening.close()
    return ports


def _end_all_of(home: Path) -> None:
    """End what has made itself a session of its own: every process whose Airflow lives there."""
    mark = f"AIRFLOW_HOME={home}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)


def ledger(warehouse: Path) -> dict[str, str]:
    """Return the newest state of every event."""
    with closing(sqlite3.connect(warehouse)) as database:
        return dict(database.execute(NEWEST).fetchall())


def forget(warehouse: Path, ids: str) -> int:
    with closing(sqlite3.connect(warehouse)) as database:
        forgotten = database.execute("DELETE FROM ropo_ledger WHERE event_id LIKE ?", [ids]).rowcount
        database.commit()
    return forgotten


def test_backfills_post_nothing_twice(airflow: Airflow, warehouse: Path, sandbox: Sandbox) -> None:
    """Three days run through a real Airflow; a backfill over them posts nothing, but for what the ledger forgot."""
    first = airflow.backfill()

    arrived = Counter(payload["id"] for payload in sandbox.events)
    assert [{"rows": 10, "events": EVENTS_A_DAY, "delivered": EVENTS_A_DAY}] * DAYS == first
    assert (EVENTS_A_DAY * DAYS, {1}) == (len(arrived), set(arrived.values()))
    assert dict.fromkeys(arrived, "delivered") == ledger(warehouse)

    second = airflow.backfill()

    assert [{"rows": 10, "events": EVENTS_A_DAY, "already_delivered": EVENTS_A_DAY}] * DAYS == second
    assert EVENTS_A_DAY * DAYS == len(sandbox.arrivals)

    forget(warehouse, SECOND_DAY)
    third = airflow.backfill()

    again = {event_id for event_id, times in Counter(payload["id"] for payload in sandbox.events).items() if times == 2}
    assert ["already_delivered", "delivered", "already_delivered"] == [list(counts)[-1] for counts in third]
    assert {event_id for event_id in arrived if event_id.startswith("WO-0113-")} == again
    assert EVENTS_A_DAY * (DAYS + 1) == len(sandbox.arrivals)
    assert dict.fromkeys(arrived, "delivered") == ledger(warehouse)
