"""How flat memory stays: rows of a SQLite warehouse, read, checked, set in order and posted, the transport a stub.

``python benchmarks/memory.py ROWS [--ledger]`` prints this process's peak memory, in MB.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

import requests
from intake import SQLITE, TABLE
from ours import serving
from urllib3 import HTTPResponse

from airflow_provider_ropo.operators.usageplace import UsageplaceEventOperator

send: Any = requests.adapters.HTTPAdapter.send


def answer(adapter: object, request: requests.PreparedRequest, **options: Any) -> requests.Response:
    """Answer an event in the network's place; the sign-in, and everything above, is real."""
    if str(request.url).endswith("/token"):
        return send(adapter, request, **options)
    assert request.body
    response = requests.Response()
    response.status_code = 200
    response.raw = HTTPResponse(io.BytesIO(), headers={"Content-Length": "0"}, preload_content=False)
    return response


def main(rows: int, ledger_table: str | None) -> None:
    """Report so many rows."""
    requests.adapters.HTTPAdapter.send = answer  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        path = Path(folder) / "warehouse.db"
        with sqlite3.connect(path) as database:
            database.execute(TABLE)
            database.execute(SQLITE.format(rows=rows, places=max(rows // 4, 1)))
        database.close()
        os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps({"conn_type": "sqlite", "host": str(path)})
        ropo = {"conn_type": "ropo", "host": server, "login": "1", "password": "stub"}
        os.environ["AIRFLOW_CONN_ROPO_DEFAULT"] = json.dumps(ropo)
        operator = UsageplaceEventOperator(
            task_id="report", sql="SELECT * FROM outcome", sql_conn_id="warehouse", ledger_table=ledger_table
        )
        counts = operator.execute({})
    if counts["delivered"] != rows:
        sys.exit(f"{counts}, not {rows} delivered")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(int(sys.argv[1]), "ropo_ledger" if "--ledger" in sys.argv else None)
