"""Tries of a task, each in a process of its own that may be killed at any moment.

Reads what to do from standard input, one line of JSON a try; forks, so that what takes a second to import is imported
once; and writes to standard output which process it is, and how that ended. A try is the whole run of a task, but for
Airflow.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "shared"))

import psycopg  # noqa: F401 - once, not in every process
import sqlalchemy as sa

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.dispatch.posting import PostingOptions, RestChannel
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.pipeline import DeliveryOptions, MappingRows, deliver
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from forked_tries import make_tries


def try_once(job: dict[str, Any]) -> dict[str, Any]:
    """Report the rows in a run of their own; return how it ended."""
    settings = RopoSettings("ropo_test", job["server"], "1000011", "sandbox", timeout=5)
    table = LedgerTable(engine_of(job), "ropo_ledger")
    me, policy = Claimant(*job["me"][:5])._replace(process=os.urandom(8).hex()), LedgerPolicy(**job["policy"])
    with (
        Report(DeliverySummary()) as report,
        closing(DeliveryLedger(table, settings.destination, me, policy)) as ledger,
    ):
        result = deliver(
            MappingRows(job["rows"]),
            RestChannel(RopoClient(settings), PostingOptions(max_workers=job["workers"])),
            ledger,
            DeliveryOptions(),
            destination=settings.destination,
            report=report,
            stop=threading.Event(),
        )
    stopped, summary = result.stopped, result.summary
    return {
        "said": str(stopped),
        "well": stopped is None and not summary.retryable,
        "stopped": None if stopped is None else type(stopped).__name__,
        "counts": summary.as_dict(),
    }


def engine_of(job: dict[str, Any]) -> sa.engine.Engine:
    """Return the ledger's engine, as the operator makes it; each connection begins with the job's own statement."""
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if job["database"].startswith("sqlite") else {}
    engine = sa.create_engine(job["database"], hide_parameters=True, **options)
    if job["first"]:
        sa.event.listen(engine, "connect", lambda connection, _record: connection.execute(job["first"]))
    return engine


if __name__ == "__main__":
    make_tries(try_once)
