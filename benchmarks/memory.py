"""Memory of a whole run: rows of a SQLite warehouse are read, checked, sorted and posted, with a stub for the network.

``python benchmarks/memory.py ROWS [--ledger]`` prints this process's peak memory, in MB.
"""

from __future__ import annotations

import io
import resource
import sqlite3
import sys
import tempfile
import threading
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import requests
import sqlalchemy as sa
from intake import SQLITE, TABLE
from ours import open_ledger, serving
from urllib3 import HTTPResponse

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.dispatch.posting import RestChannel
from airflow_provider_ropo.pipeline import DeliveryOptions, QueryRows, deliver
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary

send: Any = requests.adapters.HTTPAdapter.send


def answer(adapter: object, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Stub for the network: answer an event at once. The sign-in and all other code is real."""
    if str(request.url).endswith("/token"):
        signed_in: requests.Response = send(adapter, request, **options)
        return signed_in
    assert request.body
    response = requests.Response()
    response.status_code = 200
    response.raw = HTTPResponse(io.BytesIO(), headers={"Content-Length": "0"}, preload_content=False)
    return response


def report(server: str, path: Path, *, with_ledger: bool) -> DeliverySummary:
    """Report every outcome in that SQLite file, in which the ledger is, too."""
    with (
        Report(DeliverySummary()) as progress,
        closing(open_ledger(sa.create_engine(f"sqlite:///{path}"), "run")) if with_ledger else nullcontext() as opened,
    ):
        settings = RopoSettings("benchmark", server, "1", "stub")
        result = deliver(
            QueryRows(partial(sqlite3.connect, path), "SELECT * FROM outcome"),
            RestChannel(RopoClient(settings)),
            opened,
            DeliveryOptions(),
            destination=settings.destination,
            report=progress,
            stop=threading.Event(),
        )
    return result.summary


def main(rows: int, *, with_ledger: bool) -> None:
    """Report this number of rows, and print the peak memory."""
    requests.adapters.HTTPAdapter.send = answer  # type: ignore[assignment,method-assign]
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        path = Path(folder) / "warehouse.db"
        with sqlite3.connect(path) as database:
            database.execute(TABLE)
            database.execute(SQLITE.format(rows=rows, places=max(rows // 4, 1)))
        database.close()
        summary = report(server, path, with_ledger=with_ledger)
    if summary.count(DeliveryStatus.DELIVERED) != rows:
        sys.exit(f"{summary}, not {rows} delivered")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(int(sys.argv[1]), with_ledger="--ledger" in sys.argv)
