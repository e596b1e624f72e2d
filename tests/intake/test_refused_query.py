from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import duckdb
import psycopg
import psycopg2
import pymysql
import pytest
from trino.exceptions import TrinoQueryError, TrinoUserError

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.intake.query import run_query
from airflow_provider_ropo.intake.refused_query import is_refused

WRONG = {
    "syntax": "SELECT FROM WHERE",
    "no table": "SELECT id FROM nowhere",
    "no column": "SELECT nothing FROM outcome",
    "no function": "SELECT no_such_function(id) FROM outcome",
}


@pytest.fixture(params=["sqlite3", "psycopg", "psycopg2", "duckdb"])
def connection(request: pytest.FixtureRequest, tmp_path: Any, postgres: Any) -> Iterator[Any]:
    """Connect to a warehouse with one table, with each driver."""
    options = f"-csearch_path={postgres.make_schema()}"
    connect: dict[str, Callable[[], Any]] = {
        "sqlite3": lambda: sqlite3.connect(tmp_path / "warehouse.db"),
        "psycopg": lambda: psycopg.connect(postgres.uri, options=options),
        "psycopg2": lambda: psycopg2.connect(postgres.uri, options=options),
        "duckdb": duckdb.connect,
    }
    with closing(connect[request.param]()) as opened:
        opened.cursor().execute("CREATE TABLE outcome (id INT)")
        opened.commit()
        yield opened


@pytest.mark.parametrize("sql", WRONG.values(), ids=WRONG)
def test_wrong_sql(connection: Any, sql: str) -> None:
    """SQL that can never run is a mistake in the configuration, in one line with the database's reason."""
    with pytest.raises(RopoConfigurationError) as caught, run_query(connection, sql):
        pass

    assert str(caught.value).startswith("the database cannot run the query (")
    assert str(caught.value).endswith("); correct `sql`")
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        pytest.param(pymysql.err.ProgrammingError(1064, "error in your SQL syntax"), True, id="MySQL syntax"),
        pytest.param(pymysql.err.OperationalError(1054, "Unknown column 'x'"), True, id="MySQL column"),
        pytest.param(pymysql.err.OperationalError(2013, "Lost connection"), False, id="MySQL connection"),
        pytest.param(pymysql.err.OperationalError(1205, "Lock wait timeout"), False, id="MySQL lock"),
        pytest.param(TrinoUserError({"errorType": "USER_ERROR"}), True, id="Trino user"),
        pytest.param(TrinoQueryError({"errorType": "INSUFFICIENT_RESOURCES"}), False, id="Trino resources"),
        pytest.param(psycopg.errors.QueryCanceled("statement timeout"), False, id="PostgreSQL timeout"),
        pytest.param(psycopg.errors.AdminShutdown("shutting down"), False, id="PostgreSQL shutdown"),
        pytest.param(psycopg.errors.InsufficientPrivilege("denied"), True, id="PostgreSQL privilege"),
        pytest.param(psycopg.OperationalError("connection refused"), False, id="PostgreSQL away"),
        pytest.param(sqlite3.OperationalError("database is locked"), False, id="SQLite locked"),
        pytest.param(duckdb.IOException("disk"), False, id="DuckDB disk"),
        pytest.param(OSError(110, "timed out"), False, id="no database's"),
    ],
)
def test_refused_or_failed(error: Exception, refused: bool) -> None:  # noqa: FBT001
    """What may pass stays the driver's own error, which Airflow retries."""
    assert refused is is_refused(error)
