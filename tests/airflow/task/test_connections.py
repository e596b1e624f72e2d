"""The warehouse and the ledger behind Airflow's own connections."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from airflow_provider_ropo.errors import RopoConfigurationError, RopoLedgerError
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator
from airflow_provider_ropo.sandbox import Sandbox
from doubles import FakeTaskInstance, fake_context

AddConnection = Callable[..., None]

ROWS = "SELECT 'e1' AS id, 'RE1' AS usageplacecode, 'connected' AS status, '2024-01-04 10:00' AS time"


@pytest.fixture
def add_connection(monkeypatch: pytest.MonkeyPatch) -> AddConnection:
    """Return a shorthand that defines the connection ``warehouse``."""

    def add(**fields: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(fields))

    return add


def run(run_id: str = "first", sql: str = ROWS, **parameters: Any) -> dict[str, int]:
    operator = UsageplaceEventOperator(
        task_id="report", sql=sql, sql_conn_id="warehouse", ledger_table="ledger", **parameters
    )
    return operator.execute(fake_context(FakeTaskInstance(run_id)))


def settings(postgres: Any) -> dict[str, Any]:
    return {
        "conn_type": "postgres",
        "host": postgres.host,
        "port": postgres.port,
        "login": postgres.user,
        "schema": postgres.dbname,
    }


# The ledger connects as the hook does.


@pytest.mark.parametrize("way", ["extra", "sql_hook_params"])
def test_the_ledger_is_in_the_schema_of_the_connection(
    way: str, postgres: Any, sandbox: Sandbox, add_connection: AddConnection
) -> None:
    """With a search path, in the connection or in ``sql_hook_params``, rows are read there and the ledger is there."""
    schema = postgres.make_schema()
    options = {"options": f"-csearch_path={schema}"}
    add_connection(**settings(postgres), extra=options if way == "extra" else {})
    with postgres.connect(autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {schema}.outbox AS {ROWS}")

    run(sql="SELECT * FROM outbox", sql_hook_params=None if way == "extra" else options)

    with postgres.connect() as connection:
        rows = connection.execute(f"SELECT delivery_status FROM {schema}.ledger ORDER BY recorded_at").fetchall()
    assert [("sending",), ("delivered",)] == rows


def test_the_ledgers_role_is_the_connections(postgres: Any, sandbox: Sandbox, add_connection: AddConnection) -> None:
    """A setting of the connection that SQLAlchemy's address would lose holds for the ledger: here, a read-only role."""
    schema = postgres.make_schema()
    options = f"-csearch_path={schema} -cdefault_transaction_read_only=on"
    add_connection(**settings(postgres), extra={"options": options})

    with pytest.raises(RopoLedgerError, match="cannot execute CREATE TABLE in a read-only transaction"):
        run()

    assert [] == sandbox.events


# DuckDB.


@pytest.fixture
def duck(tmp_path: Path, add_connection: AddConnection) -> str:
    """A DuckDB file with some rows, behind the connection ``warehouse``; its session is in another time zone."""
    path = str(tmp_path / "warehouse.duckdb")
    with closing(duckdb.connect(path)) as connection:
        connection.execute(
            """
            CREATE TABLE outbox AS
            SELECT 'e' || i AS id, 'RE' || (i % 7) AS usageplacecode, 'connected' AS status,
                TIMESTAMP '2024-01-04 10:00:00' + INTERVAL (i) SECOND AS time
            FROM range(50) AS rows (i)
            """
        )
    add_connection(conn_type="duckdb", host=path, extra={"settings": {"TimeZone": "Asia/Tokyo"}})
    return path


@pytest.fixture
def in_another_process(duck: str) -> Iterator[None]:
    """Let another process have the file open."""
    hold = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, duck]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
        holder.communicate()


def ask(path: str, sql: str) -> list[tuple[Any, ...]]:
    with closing(duckdb.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_rows_and_ledger_in_one_duckdb_file(duck: str, sandbox: Sandbox) -> None:
    """DuckDB holds the rows and the ledger in one file: a second run and a preview know what is delivered."""
    first = run("first", "FROM outbox")
    second = run("second", "FROM outbox")
    preview = run("third", "FROM outbox", preview=True)

    assert (50, 50, 50) == (first["delivered"], second["already_delivered"], preview["already_delivered"])
    assert 50 == len(sandbox.events)
    assert [("delivered", 50), ("sending", 50)] == ask(
        duck, "SELECT delivery_status, count(*) FROM ledger GROUP BY ALL ORDER BY ALL"
    )
    assert [("delivered", 50)] == ask(duck, "SELECT delivery_status, count(*) FROM ledger_state GROUP BY ALL")


def test_a_row_by_hand_in_duckdb(duck: str, sandbox: Sandbox) -> None:
    """A row written by hand has the time of now in UTC, whatever the session's time zone, as those of runs have."""
    run("first", "FROM outbox WHERE id = 'e1'")
    now = "timezone('UTC', now())"
    ask(duck, "SET TimeZone = 'Asia/Tokyo'; INSERT INTO ledger (event_id, delivery_status) VALUES ('e2', 'closed')")

    [(apart,)] = ask(duck, f"SELECT max(abs(epoch({now}) - epoch(recorded_at))) FROM ledger")
    counts = run("second", "FROM outbox WHERE id = 'e2'")

    assert apart < 60
    assert 1 == counts["closed"]


@pytest.mark.usefixtures("in_another_process")
def test_a_duckdb_file_that_is_in_use(sandbox: Sandbox) -> None:
    """A file that another process has open is an error that Airflow tries again, before anything is posted."""
    with pytest.raises(RopoLedgerError, match=r"ledger .*could not be opened: IO Error: Could not set lock on file"):
        run("first", "FROM outbox")

    assert [] == sandbox.events


def test_a_duckdb_connection_that_only_reads(duck: str, sandbox: Sandbox, add_connection: AddConnection) -> None:
    """The ledger opens the file as the connection says: read-only, it cannot be written."""
    add_connection(conn_type="duckdb", host=duck, extra={"read_only": True})

    with pytest.raises(RopoConfigurationError, match=r"this role may not create it .* attached in read-only mode"):
        run("first", "FROM outbox")

    assert [] == sandbox.events


def test_a_database_without_dialect(
    duck: str, sandbox: Sandbox, add_connection: AddConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that SQLAlchemy does not know cannot hold the ledger: the error says what to install."""

    def load(name: str) -> None:
        raise sa.exc.NoSuchModuleError(f"Can't load plugin: sqlalchemy.dialects:{name}")

    monkeypatch.setattr("sqlalchemy.dialects.registry.load", load)

    with pytest.raises(RopoConfigurationError) as caught:
        run("first", "FROM outbox")

    assert (
        "connection 'warehouse' cannot hold the ledger: SQLAlchemy has no dialect for it (Can't load plugin: "
        "sqlalchemy.dialects:duckdb); install the one of this database (for DuckDB, duckdb-engine), or name another "
        "database in `ledger_conn_id`"
    ) == str(caught.value)
    assert [] == sandbox.events
