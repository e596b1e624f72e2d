"""The warehouse and the ledger, behind Airflow's connections."""

from __future__ import annotations

import os
import socket
from typing import Any

from airflow.providers.common.compat.sdk import BaseHook, Context
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

    :raises RopoConfigurationError: if it is something else.
    """
    connection = BaseHook.get_connection(conn_id)
    hook = connection.get_hook(hook_params=hook_params)  # type: ignore[no-untyped-call]
    if not isinstance(hook, DbApiHook):
        raise RopoConfigurationError(
            f"connection {conn_id!r} is no SQL database: {type(hook).__name__} is no DbApiHook"
        )
    return hook


def open_ledger(hook: DbApiHook, table: str, me: Claimant, policy: LedgerPolicy) -> DeliveryLedger:
    """Return the ledger in that table.

    :param me: who will write.
    """
    # An error must not quote a statement's parameters: they name usage places.
    options: dict[str, Any] = {"hide_parameters": True}
    if getattr(hook, "conn_type", "") == "sqlite":
        options["connect_args"] = {"timeout": SQLITE_BUSY_TIMEOUT}
    return DeliveryLedger(LedgerTable(hook.get_sqlalchemy_engine(engine_kwargs=options), table), me, policy)


def claimant_of(context: Context, task_id: str) -> Claimant:
    """Return who writes to the ledger: this try of this task instance."""
    ti = context.get("ti")
    if ti is None:
        # Not run by Airflow: nobody else is this process.
        return Claimant("", task_id, f"{socket.gethostname()} {os.getpid()} {os.urandom(4).hex()}", -1, 1)
    map_index = getattr(ti, "map_index", -1)
    return Claimant(
        ti.dag_id, ti.task_id, ti.run_id, -1 if map_index is None else map_index, getattr(ti, "try_number", None) or 1
    )
