"""The warehouse and the ledger, behind Airflow's connections."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import sqlalchemy as sa
from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, Context
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import LedgerTable

#: Seconds a SQLite ledger that another process is writing to is waited for.
SQLITE_BUSY_TIMEOUT = 60


def database_hook(conn_id: str, hook_params: dict[str, Any] | None = None) -> DbApiHook:
    """Return the hook of a connection that is a database.

    :raises RopoConfigurationError: if there is no such connection, or it is something else.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise RopoConfigurationError(
            f"connection {conn_id!r} is not defined, or Airflow cannot read it; add it under Admin, Connections, or "
            "correct its id"
        ) from None
    hook = connection.get_hook(hook_params=hook_params)  # type: ignore[no-untyped-call]
    if not isinstance(hook, DbApiHook):
        raise RopoConfigurationError(
            f"connection {conn_id!r} is no SQL database: {type(hook).__name__} is no DbApiHook; name the connection of "
            "a database"
        )
    # Whatever opens a connection later, on another thread too, asks Airflow no more.
    hook.get_connection = lambda *_args, **_kwargs: connection
    return hook


def open_warehouse(conn_id: str, hook_params: dict[str, Any] | None = None) -> Any:
    """Return an open DB-API connection that a query can be streamed from; the caller closes it.

    :raises RopoConfigurationError: if it is no database.
    """
    hook = database_hook(conn_id, hook_params)
    session = hook.get_conn()
    if hook.supports_autocommit:
        # A server-side cursor lives in a transaction.
        hook.set_autocommit(session, False)  # noqa: FBT003 - Airflow's signature
    return session


def open_ledger(
    conn_id: str,
    hook_params: dict[str, Any] | None,
    table: str,
    destination: str,
    me: Claimant,
    policy: LedgerPolicy,
) -> DeliveryLedger:
    """Return the ledger in that table.

    :param destination: where the events go.
    :param me: who will write.
    :raises RopoConfigurationError: if the connection is no database.
    """
    engine = ledger_engine(database_hook(conn_id, hook_params))
    return DeliveryLedger(LedgerTable(engine, table, where=f"connection {conn_id!r}"), destination, me, policy)


@contextmanager
def existing_ledger(conn_id: str, table: str) -> Iterator[LedgerTable]:
    """Open the table of a ledger that is there, to look at it or to maintain it.

    :param table: the table's name, as one would write it in SQL.
    :raises RopoConfigurationError: if the connection is no database, or has no such table.
    """
    with closing(LedgerTable(ledger_engine(database_hook(conn_id)), table, f"connection {conn_id!r}")) as ledger:
        if not ledger.exists():
            raise RopoConfigurationError(
                f"there is no ledger {table} in the database of connection {conn_id!r}; check the connection, and the "
                "table's name, which may need its schema (ops.ropo_ledger)"
            )
        yield ledger


def ledger_engine(hook: DbApiHook) -> sa.engine.Engine:
    """Return an engine whose connections are the hook's own.

    An address for SQLAlchemy has not all that the hook makes of a connection: ``search_path``, ``sslmode``, key files,
    session parameters. So the hook connects, wherever its driver is the one that SQLAlchemy would use.

    :raises RopoConfigurationError: if SQLAlchemy does not know that kind of database.
    """
    # An error must not quote a statement's parameters: they name usage places.
    options: dict[str, Any] = {"hide_parameters": True}
    if getattr(hook, "conn_type", "") == "sqlite":
        options["connect_args"] = {"timeout": SQLITE_BUSY_TIMEOUT}
    try:
        engine: sa.engine.Engine = hook.get_sqlalchemy_engine(engine_kwargs=options)
    except (sa.exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise RopoConfigurationError(
            f"connection {getattr(hook, hook.conn_name_attr)!r} cannot hold the ledger: SQLAlchemy has no dialect for "
            f"it ({error}); install the one of this database (for DuckDB, duckdb-engine), or name another database in "
            "`ledger_conn_id`"
        ) from None
    driver = getattr(engine.dialect, "dbapi", None)

    def connect() -> Any:
        connection = hook.get_conn()
        if engine.dialect.name == "sqlite":
            connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT * 1000}")
        return connection

    @sa.event.listens_for(engine, "do_connect")
    def connect_as_the_hook(*_args: object) -> Any:
        connection = connect()
        if engine.dialect.name == "duckdb":
            # SQLAlchemy's dialect of DuckDB knows connections by this class alone.
            from duckdb_engine import ConnectionWrapper  # noqa: PLC0415 - there only with that database

            return ConnectionWrapper(connection)
        if driver is not None and type(connection).__module__.partition(".")[0] == driver.__name__.partition(".")[0]:
            return connection
        # Another driver's: SQLAlchemy's own way, by the hook's address.
        connection.close()
        return None

    return engine


def claimant_of(context: Context, task_id: str) -> Claimant:
    """Return who writes to the ledger: this process, with its try of a task instance."""
    process = os.urandom(8).hex()
    ti = context.get("ti")
    if ti is None:
        # Not run by Airflow.
        return Claimant("", task_id, f"{socket.gethostname()} {os.getpid()} {process}", -1, 1, process)
    map_index = getattr(ti, "map_index", -1)
    try_number = getattr(ti, "try_number", None) or 1
    return Claimant(ti.dag_id, ti.task_id, ti.run_id, -1 if map_index is None else map_index, try_number, process)
