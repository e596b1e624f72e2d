"""DAGs beside the examples: the decorator, a mapped task, a message, and a warning that our own code seems to give."""

from __future__ import annotations

import os
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_ropo.event import model
from airflow_provider_ropo.notifications import message
from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

START = datetime(2026, 1, 1, tzinfo=UTC)


def warn() -> None:
    warnings.warn_explicit("a canary", DeprecationWarning, model.__file__, 1, registry={})


if os.environ.get("CANARY") == "parse":
    warn()

with DAG("matrix_decorated", schedule=None, start_date=START):

    @task.ropo_usageplace_events(ledger_table="ropo_ledger", ledger_conn_id="warehouse")
    def report(day: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - as people write them
        yield {"id": "d1", "usageplacecode": "P1", "status": "connected", "time": f"{day} 10:00:00"}
        yield {"id": "d2", "usageplacecode": "P2", "status": "connected", "time": f"{day} 10:00:00"}

    report("2026-01-14")

with DAG("matrix_mapped", schedule=None, start_date=START):
    UsageplaceEventOperator.partial(
        task_id="report",
        sql="""
            SELECT work_order_no AS id, place_code AS usageplacecode, 'connected' AS status, done_at AS time
            FROM field_work_outcome WHERE place_code = ?
        """,
        sql_conn_id="warehouse",
        ledger_table="ropo_ledger",
    ).expand(parameters=[["P1"], ["P2"], ["P3"]])


def alert(context: Any) -> None:
    Path(os.environ["ALERT"]).write_text(message(context), encoding="utf-8")


with DAG("matrix_alert", schedule=None, start_date=START, default_args={"on_failure_callback": alert}):
    UsageplaceEventOperator(
        task_id="report",
        events=[{"id": "e1", "usageplacecode": "UNKNOWN-1", "status": "connected", "time": "2026-01-14 10:00:00"}],
    )

with DAG("matrix_canary", schedule=None, start_date=START):

    @task
    def sing() -> None:
        warn()

    sing()
