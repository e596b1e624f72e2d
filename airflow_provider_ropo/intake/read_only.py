"""Have the database itself refuse to write while a query runs, where it can."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.intake.statement import REMEDY

log = logging.getLogger(__name__)

_BEGIN = {
    "MySQLdb": "START TRANSACTION READ ONLY",
    "mysql": "START TRANSACTION READ ONLY",
    "pymysql": "START TRANSACTION READ ONLY",
    "duckdb": "BEGIN TRANSACTION READ ONLY",
    "oracledb": "SET TRANSACTION READ ONLY",
    "cx_Oracle": "SET TRANSACTION READ ONLY",
}
#: SQLSTATE read_only_sql_transaction, MySQL's error number for it, Oracle's (and that of a standby database).
_SQLSTATE = "25006"
_MYSQL_ERROR = 1792
_ORACLE_ERRORS = ("ORA-01456", "ORA-16000")


@contextmanager
def read_only(connection: Any, cursor: Any, driver: str) -> Iterator[None]:
    """Let what the cursor runs read only; a database that knows no such thing is left as it is.

    PostgreSQL, MySQL, MariaDB, Oracle and DuckDB stay so until the transaction ends, and psycopg's connections until
    they are closed; SQLite until this ends, as a connection may be the ledger's, too.
    """
    if isinstance(connection, sqlite3.Connection):
        with _query_only(connection):
            yield
        return
    if driver in {"psycopg", "psycopg2"}:
        _begin_psycopg(connection, driver)
    elif driver in _BEGIN:
        _begin(cursor, _BEGIN[driver])
    yield


@contextmanager
def refused_writes() -> Iterator[None]:
    """Translate a database's refusal to write or to lock.

    :raises RopoConfigurationError: in its place.
    """
    try:
        yield
    except Exception as error:
        if not _is_refused_write(error):
            raise
        reason = str(error).partition("\n")[0]
        raise RopoConfigurationError(f"the SQL writes, or locks rows as FOR UPDATE does ({reason}); {REMEDY}") from None


@contextmanager
def _query_only(connection: sqlite3.Connection) -> Iterator[None]:
    with closing(connection.cursor()) as cursor:
        # The connection may be set up to return rows of another kind.
        cursor.row_factory = None
        before = cursor.execute("PRAGMA query_only").fetchone()[0]
        cursor.execute("PRAGMA query_only = ON")
        try:
            yield
        finally:
            cursor.execute(f"PRAGMA query_only = {before}")


def _begin_psycopg(connection: Any, driver: str) -> None:
    if connection.info.transaction_status:
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
    elif driver == "psycopg":
        # Both make it part of BEGIN, which Amazon Redshift supports, too.
        connection.read_only = True
    else:
        connection.set_session(readonly=True)


def _begin(cursor: Any, statement: str) -> None:
    try:
        cursor.execute(statement)
    except Exception as error:  # noqa: BLE001 - drivers share no class; a broken connection fails again at once
        log.info("The database supports no read-only transaction (%s): only the SQL's text was checked", error)


def _is_refused_write(error: Exception) -> bool:
    first = error.args[0] if error.args else None
    return (
        _SQLSTATE in {getattr(error, "sqlstate", None), getattr(error, "pgcode", None)}
        or first == _MYSQL_ERROR
        or getattr(error, "errno", None) == _MYSQL_ERROR
        or getattr(first, "full_code", None) in _ORACLE_ERRORS
        or getattr(error, "sqlite_errorname", None) == "SQLITE_READONLY"
        or (type(error).__module__.endswith("duckdb") and "read-only mode" in str(error))
    )
