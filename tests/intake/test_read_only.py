from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import duckdb
import psycopg
import psycopg2
import pytest

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.intake.query import run_query
from airflow_provider_ropo.intake.read_only import read_only, refused_writes

OUTBOX = ("CREATE TABLE outbox (id INT, picked_at TEXT)", "INSERT INTO outbox VALUES (1, NULL), (2, NULL)")
PICK = "UPDATE outbox SET picked_at = 'now' RETURNING id"
FUNCTIONS = (
    "CREATE SEQUENCE number",
    f"CREATE FUNCTION pick() RETURNS SETOF int LANGUAGE sql AS $$ {PICK} $$",
    "CREATE FUNCTION look() RETURNS bigint LANGUAGE sql AS $$ SELECT count(*) FROM outbox $$",
)
NOT_PICKED = "SELECT count(*) FROM outbox WHERE picked_at IS NULL"


@pytest.fixture
def connect_postgres(postgres: Any) -> Iterator[Callable[[str], Any]]:
    """Return a shorthand to connect to PostgreSQL with a driver, in a schema with an outbox."""
    with ExitStack() as stack:

        def connect(name: str) -> Any:
            options = f"-csearch_path={postgres.make_schema()}"
            driver = {"psycopg": psycopg, "psycopg2": psycopg2}[name]
            connection = stack.enter_context(closing(driver.connect(postgres.uri, options=options)))
            with connection.cursor() as cursor:
                for sql in (*OUTBOX, *FUNCTIONS):
                    cursor.execute(sql)
            connection.commit()
            return connection

        yield connect


@pytest.fixture(params=["psycopg", "psycopg2"])
def postgres_connection(request: pytest.FixtureRequest, connect_postgres: Callable[[str], Any]) -> Any:
    """Connect to PostgreSQL with each driver."""
    return connect_postgres(request.param)


@pytest.fixture
def sqlite(tmp_path: Any) -> Iterator[sqlite3.Connection]:
    """Connect to a SQLite file with an outbox."""
    with closing(sqlite3.connect(tmp_path / "outbox.db")) as connection:
        for sql in OUTBOX:
            connection.execute(sql)
        connection.commit()
        yield connection


@pytest.fixture
def duck(tmp_path: Any) -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to a DuckDB file with an outbox."""
    with closing(duckdb.connect(str(tmp_path / "outbox.duckdb"))) as connection:
        for sql in (*OUTBOX, "CREATE SEQUENCE number"):
            connection.execute(sql)
        yield connection


def rows_of(connection: Any, sql: str) -> list[Any]:
    with run_query(connection, sql) as query:
        return [row[0] for row in query.rows]


WRITING = {
    "UPDATE": PICK,
    "DELETE": "DELETE FROM outbox RETURNING id",
    "INSERT": "INSERT INTO outbox VALUES (3, NULL) RETURNING id",
    "CTE": f"WITH picked AS ({PICK}) SELECT id FROM picked",
    "several": "SELECT 1; COMMIT; DELETE FROM outbox; COMMIT",
}


@pytest.fixture(params=["sqlite", "duck", "psycopg", "psycopg2"])
def connection(request: pytest.FixtureRequest) -> Any:
    """Connect to each of the databases."""
    if request.param.startswith("psycopg"):
        return request.getfixturevalue("connect_postgres")(request.param)
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("sql", WRITING.values(), ids=WRITING)
def test_sql_that_writes(sql: str, connection: Any) -> None:
    """SQL that writes is refused before a row of it is read, and has written nothing."""
    with pytest.raises(RopoConfigurationError, match="ledger"):
        rows_of(connection, sql)

    assert [2] == rows_of(connection, NOT_PICKED)


@pytest.mark.parametrize("sql", ["SELECT pick() AS id", "SELECT nextval('number')"], ids=["function", "sequence"])
def test_function_of_postgres_that_writes(sql: str, postgres_connection: Any) -> None:
    """A function that writes is refused by PostgreSQL itself."""
    with pytest.raises(RopoConfigurationError, match=r"writes, or locks .*read-only transaction\); it must be"):
        rows_of(postgres_connection, sql)


def test_function_of_postgres_that_writes_late(postgres_connection: Any) -> None:
    """A row that is the first to write is refused like the first row."""
    sql = (
        "SELECT CASE WHEN n < 2500 THEN n ELSE (SELECT min(p) FROM pick() AS p) END FROM generate_series(1, 3000) AS n"
    )

    with pytest.raises(RopoConfigurationError, match="read-only transaction"):
        rows_of(postgres_connection, sql)


def test_rows_that_are_locked(postgres_connection: Any) -> None:
    """FOR UPDATE is refused with words that name it."""
    with pytest.raises(RopoConfigurationError, match=r"FOR UPDATE"):
        rows_of(postgres_connection, "SELECT id FROM outbox FOR UPDATE")


@pytest.mark.parametrize(
    "sql", ["SELECT look()", "TABLE outbox", "VALUES (1)", "SHOW server_version_num", "(SELECT 1)"]
)
def test_sql_of_postgres_that_reads(sql: str, postgres_connection: Any) -> None:
    """All that only reads is read."""
    assert rows_of(postgres_connection, sql)


def test_transaction_under_way(postgres_connection: Any) -> None:
    """A connection that has spoken before cannot write either."""
    with postgres_connection.cursor() as cursor:
        cursor.execute("SELECT 1")

    with pytest.raises(RopoConfigurationError, match="read-only transaction"):
        rows_of(postgres_connection, "SELECT pick()")


def test_sequence_of_duckdb(duck: duckdb.DuckDBPyConnection) -> None:
    """DuckDB, too, refuses by itself what a word does not tell."""
    with pytest.raises(RopoConfigurationError, match="read-only mode"):
        rows_of(duck, "SELECT nextval('number')")


@pytest.mark.parametrize("before", [0, 1])
def test_sqlite_is_itself_again(before: int, sqlite: sqlite3.Connection) -> None:
    """A SQLite connection may write after the query just as before it, also where the query failed."""
    sqlite.execute(f"PRAGMA query_only = {before}")

    rows_of(sqlite, NOT_PICKED)
    with pytest.raises(RopoConfigurationError, match="no_such_table"):
        rows_of(sqlite, "SELECT * FROM no_such_table")

    assert (before,) == sqlite.execute("PRAGMA query_only").fetchone()


def test_sqlite_refuses_by_itself(sqlite: sqlite3.Connection) -> None:
    """While a query of SQLite runs, its connection cannot write."""
    with (
        closing(sqlite.cursor()) as cursor,
        read_only(sqlite, cursor, "sqlite3"),
        pytest.raises(RopoConfigurationError, match="attempt to write a readonly database"),
        refused_writes(),
    ):
        cursor.execute(PICK)
