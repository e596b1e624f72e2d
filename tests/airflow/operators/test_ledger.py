"""The operator with a ledger: retries, kills and previews."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    RopoConfigurationError,
    RopoError,
    RopoLedgerError,
    RopoUnavailableError,
)
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.sandbox import Fault, Sandbox
from doubles import FakeTaskInstance, fake_context

RunDag = Callable[..., Any]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SQLite database, behind the connection ``warehouse``."""
    path = tmp_path / "warehouse.db"
    path.touch()
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


def events(count: int, places: int = 10, first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "id": f"e{number}",
            "usageplacecode": f"place-{number % places}",
            "status": "disconnected",
            "time": f"2024-01-04 10:{number // 60:02}:{number % 60:02}",
            "customernumber": f"A{number}",
        }
        for number in range(first, first + count)
    ]


def make(rows: list[dict[str, Any]], **parameters: Any) -> UsageplaceEventOperator:
    return UsageplaceEventOperator(
        task_id="report", **{"events": rows, "ledger_table": "ledger", "ledger_conn_id": "warehouse", **parameters}
    )


def run(rows: list[dict[str, Any]], ti: FakeTaskInstance | None = None, **parameters: Any) -> dict[str, int]:
    return make(rows, **parameters).execute(fake_context(ti))


def states(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute("SELECT event_id, delivery_status FROM ledger ORDER BY recorded_at").fetchall()
    return dict(rows)


def sent(sandbox: Sandbox) -> list[str]:
    return [event["id"] for event in sandbox.events]


def test_a_second_run_recognises_what_is_delivered(database: Path, sandbox: Sandbox) -> None:
    """An event that the ledger has as delivered is counted, and not posted again."""
    run(events(30))

    counts = run(events(40), FakeTaskInstance("second"))

    assert {"events": 40, "delivered": 10, "already_delivered": 30}.items() <= counts.items()
    assert sorted(f"e{number}" for number in range(40)) == sorted(sent(sandbox))
    assert {"delivered"} == set(states(database).values())


def test_the_ledger_lives_where_the_rows_come_from(database: Path, sandbox: Sandbox) -> None:
    """Without ledger_conn_id, the ledger is created in the warehouse."""
    sql = "SELECT 'e1' AS id, 'P' AS usageplacecode, 'connected' AS status, '2024-01-04 10:00' AS time"

    UsageplaceEventOperator(task_id="report", sql=sql, sql_conn_id="warehouse", ledger_table="ledger").execute({})

    assert {"e1": "delivered"} == states(database)


def test_a_retry_sends_only_what_did_not_arrive(database: Path, sandbox: Sandbox) -> None:
    """The next try takes the undelivered and the held, and does not send the delivered again."""
    rows = events(12, places=3)
    sandbox.script([Fault(status=500, usageplacecode="place-1")] * 5)

    with pytest.raises(DeliveriesFailedError) as first:
        run(rows)
    second = run(rows, FakeTaskInstance(try_number=2))

    assert {"delivered": 8, "undelivered": 1, "held": 3}.items() <= first.value.summary.items()
    assert {"delivered": 4, "already_delivered": 8}.items() <= second.items()
    assert 12 == len(set(sent(sandbox))) == len(sent(sandbox))
    assert ["e1", "e4", "e7", "e10"] == [name for name in sent(sandbox) if int(name[1:]) % 3 == 1]


def test_other_content_with_the_same_id_is_changed(
    database: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that is at Ropo One with another content is not sent; the message names the event and the fields."""
    # The ledger has four bits of each field, keyed with the destination: by the server's port, one field in sixteen
    # would look the same.
    connection = {"conn_type": "ropo", "host": sandbox.url, "login": "1000011", "password": "sandbox"}
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", json.dumps(connection | {"extra": {"destination": "test"}}))
    run(events(2))
    changed = [{**row, "description": "other", "time": "2024-01-05 10:00:00"} for row in events(2)]

    with pytest.raises(
        DeliveriesFailedError, match=r"2 × changed: its time, description differ .*\(ids e0, e1\)"
    ) as caught:
        run(changed, FakeTaskInstance("second"))

    assert isinstance(caught.value, AirflowFailException)
    assert 2 == caught.value.summary["changed"]
    assert 2 == len(sandbox.events)
    assert {"changed"} == set(states(database).values())


def test_another_ropo_one_knows_nothing(database: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a ledger knows of one Ropo One says nothing about another; a destination's name outlives its address."""
    run(events(3))
    with Sandbox() as production:
        connection = {"conn_type": "ropo", "host": production.url, "login": "1000011", "password": "sandbox"}
        monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", json.dumps(connection))
        run(events(3), FakeTaskInstance("second"))
        assert ["e0", "e1", "e2"] == sorted(event["id"] for event in production.events)

        moved = connection | {"extra": {"destination": f"{sandbox.url} 1000011"}}
        monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", json.dumps(moved))
        counts = run(events(4), FakeTaskInstance("third"))

        assert (1, 3) == (counts["delivered"], counts["already_delivered"])


@pytest.mark.parametrize(("redeliver", "posted"), [("never", 1), ("changed", 2), ("always", 3)])
def test_redeliver(database: Path, sandbox: Sandbox, redeliver: Any, posted: int) -> None:
    """``always`` sends unchanged and changed events again, ``changed`` only changed ones, and ``never`` none."""
    run(events(2))
    sandbox.clear()
    rows = [events(1)[0], {**events(2)[1], "description": "other"}, events(1, first=2)[0]]

    if redeliver == "never":
        with pytest.raises(DeliveriesFailedError):
            run(rows, FakeTaskInstance("second"), redeliver=redeliver)
    else:
        run(rows, FakeTaskInstance("second"), redeliver=redeliver)

    assert posted == len(sandbox.events)


def test_what_is_not_at_ropo_is_in_the_ledger_with_its_reason(database: Path, sandbox: Sandbox) -> None:
    """Rejected and invalid rows are recorded, too, with the reason and without customer numbers."""
    rows = [*events(1), {**events(2)[1], "usageplacecode": "UNKNOWN"}, {**events(3)[2], "status": "gone"}]

    with pytest.raises(DeliveriesFailedError):
        run(rows)

    assert {"e0": "delivered", "e1": "rejected", "e2": "invalid"} == states(database)
    with closing(sqlite3.connect(database)) as connection:
        table = connection.execute("SELECT * FROM ledger").fetchall()
    assert "Unknown usage place" in str(table)
    assert "status: is not one of" in str(table)
    assert not [number for number in ("A0", "A1", "A2") if f"'{number}'" in str(table)]


def test_a_preview_knows_the_ledger_and_writes_nothing(database: Path, sandbox: Sandbox) -> None:
    """A preview counts the events known as delivered, and writes nothing to the ledger."""
    run(events(3))
    before = database.read_bytes()

    counts = run(events(5), FakeTaskInstance("second"), preview=True)

    assert {"already_delivered": 3, "undelivered": 2}.items() <= counts.items()
    assert before == database.read_bytes()
    assert 3 == len(sandbox.events)


def test_a_preview_makes_no_table(database: Path, sandbox: Sandbox) -> None:
    """If there is no ledger yet, a preview does not create one."""
    run(events(2), preview=True)

    assert b"" == database.read_bytes()


@pytest.fixture
def slow_sandbox(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A local Ropo One that takes a tenth of a second for an answer."""
    with Sandbox(latency=0.1) as running:
        connection = {"conn_type": "ropo", "host": running.url, "login": running.cid, "password": running.apicode}
        monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", json.dumps(connection))
        yield running


def test_on_kill_ends_the_posting_and_remembers(database: Path, slow_sandbox: Sandbox) -> None:
    """A stopped task ends within Airflow's five seconds; the next try continues where it stopped."""
    rows = events(300, places=300)
    operator = make(rows)
    killed: list[float] = []

    def kill() -> None:
        while len(slow_sandbox.events) < 20:
            time.sleep(0.01)
        killed.append(time.monotonic())
        operator.on_kill()

    # A task's execute() runs in the main thread; Airflow 2 insists on it.
    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(RopoError, match="told to stop"):
        operator.execute(fake_context())
    took = time.monotonic() - killed[0]
    arrived = sorted(sent(slow_sandbox))
    known = sorted(name for name, state in states(database).items() if state == "delivered")
    counts = run(rows, FakeTaskInstance(try_number=2))

    assert took < 5
    assert arrived == known
    assert {"delivered": 300 - len(known), "already_delivered": len(known)}.items() <= counts.items()
    assert 300 == len(sent(slow_sandbox))


def test_an_execution_timeout_pushes_the_counts_and_remembers(
    run_dag: RunDag, database: Path, slow_sandbox: Sandbox
) -> None:
    """A task that runs into its execution_timeout has its counts in XCom and a correct ledger."""
    finished = run_dag(
        """
        rows = [
            {"id": f"e{n}", "usageplacecode": f"p{n}", "status": "connected", "time": "2024-01-04 10:00:00"}
            for n in range(400)
        ]
        with DAG(DAG_ID, schedule=None, start_date=START) as dag:
            UsageplaceEventOperator(
                task_id="report", events=rows, ledger_table="ledger", ledger_conn_id="warehouse",
                execution_timeout=timedelta(seconds=2),
            )
        """
    )

    known = sorted(name for name, state in states(database).items() if state == "delivered")
    assert "failed" == finished.state
    assert 400 == finished.xcom["events"]
    # The timeout strikes anywhere, also between an event's being written down and its being counted.
    assert finished.xcom["delivered"] in {len(known), len(known) - 1}
    assert 0 < len(known) < 400
    assert sorted(sent(slow_sandbox)) == known


def test_no_post_without_the_ledger(database: Path, sandbox: Sandbox) -> None:
    """If the ledger cannot be written, nothing is posted, and the database's reason is said."""
    run(events(1))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON ledger BEGIN SELECT RAISE(FAIL, 'disk is full'); END")
        connection.commit()
    ti = FakeTaskInstance("second")

    with pytest.raises(RopoLedgerError, match="disk is full") as caught:
        run(events(5), ti)

    assert not isinstance(caught.value, AirflowFailException)
    assert 1 == len(sandbox.events)
    assert {"events": 5, "already_delivered": 1, "undelivered": 4}.items() <= ti.pushed["return_value"].items()


def test_nothing_gets_through_ends_the_run_early(database: Path, sandbox: Sandbox) -> None:
    """When every event fails, the run stops instead of trying ten thousand times."""
    sandbox.script([Fault(status=503, headers={"Retry-After": "9999"})] * 500)
    ti = FakeTaskInstance()

    with pytest.raises(RopoUnavailableError, match="HTTP 503") as caught:
        run(events(500, places=500), ti)

    assert not isinstance(caught.value, AirflowFailException)
    assert 500 == ti.pushed["return_value"]["undelivered"]
    assert len(sandbox.arrivals) < 150


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        pytest.param({"redeliver": "sometimes"}, "redeliver", id="redeliver"),
        pytest.param({"on_unconfirmed": "guess"}, "on_unconfirmed", id="on_unconfirmed"),
        pytest.param({"claim_timeout": 0}, "claim_timeout", id="claim_timeout"),
        pytest.param({"max_workers": 0}, "max_workers", id="max_workers"),
        pytest.param({"ledger_conn_id": None}, "ledger_conn_id", id="no connection"),
    ],
)
def test_mistakes_are_found_when_the_dag_is_parsed(parameters: dict[str, Any], named: str) -> None:
    """What can be checked without a connection is checked in the constructor."""
    with pytest.raises(RopoConfigurationError, match=named):
        make([], **parameters)


def test_a_name_that_is_no_table_is_refused(database: Path, sandbox: Sandbox) -> None:
    """A ledger table that is not a plain name is refused before it reaches the database."""
    with pytest.raises(RopoConfigurationError, match="no table's name"):
        run(events(1), ledger_table="ledger; DROP TABLE outcome")
