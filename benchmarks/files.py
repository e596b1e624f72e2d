"""A run that sends its events in a file: speed and memory, as ratios that are measured side by side.

``python benchmarks/files.py`` prints, for CSV and JSON Lines:

- *to file*: events a second out of the spool into a local file, to those of a plain ``csv.writer`` or ``json.dumps``
  loop that reads the same events out of the same spool. To reach: 0.5. This is the reading that shows what a run costs:
  every program that writes a file has to read the events from somewhere.
- *in memory*: the same two, with events that are in memory already, so that only the writing is compared: ours checks
  each character's encoding and each event's row, digests and counts what it writes. To reach: 0.5, too.
- *run*: the time of the whole run, to that of reading, spooling and remembering the same events alone (*sending* and
  *delivered* for each). At most 2.
- *memory*: the peak of a run with all rows, less that of one with a thousand, in MB. At most 150.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from intake import SQLITE, TABLE
from ours import ZONE, open_ledger

from airflow_provider_ropo.delivery import DeliveryStatus, end_of
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.export.channel import FileChannel
from airflow_provider_ropo.export.folder import FolderStore
from airflow_provider_ropo.export.formats import CSV_COLUMNS, format_of
from airflow_provider_ropo.export.local_file import LocalFile
from airflow_provider_ropo.intake.reader import take_query
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.claims import PendingClaim, Round
from airflow_provider_ropo.ledger.decisions import Action, Decision
from airflow_provider_ropo.ledger.entries import NEVER
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import BATCH, batches
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary

FORMATS = ("csv", "jsonl")
#: Events that are held in memory to compare the writing alone.
IN_MEMORY = 100_000


def fill(path: Path, rows: int) -> None:
    """Fill a SQLite warehouse."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(TABLE)
        database.execute(SQLITE.format(rows=rows, places=max(rows // 4, 1)))
        database.commit()


def read(spool: Spool, path: Path) -> int:
    """Read all rows of a warehouse into a spool."""
    with closing(sqlite3.connect(path)) as connection:
        return take_query(
            spool, connection, "SELECT * FROM outcome", None, partial(RowReader, timezone="Europe/Helsinki")
        )


def send(path: Path, folder: Path, format_: str) -> None:
    """Send all rows in a file, as a whole run does."""
    name = f"{time.monotonic_ns()}"
    summary = DeliverySummary()
    drop = folder / name
    drop.mkdir()
    ledger = open_ledger(sa.create_engine(f"sqlite:///{folder / f'{name}.db'}"), name)
    with Spool(ZONE) as spool, closing(ledger), Report(summary) as report:
        summary.rows = read(spool, path)
        channel = FileChannel(FolderStore(drop), "events", format=format_of(format_))
        channel.send(spool, ledger, report=report, stop=threading.Event(), on_delivery=report.on_delivery)
    if summary.count(DeliveryStatus.DELIVERED) != summary.rows or len(list(drop.iterdir())) != 1:
        sys.exit(str(summary))


def remember(path: Path, folder: Path) -> None:
    """Read and spool all rows, and write *sending* and *delivered* for each, as a run does."""
    name = f"{time.monotonic_ns()}"
    ledger: DeliveryLedger = open_ledger(sa.create_engine(f"sqlite:///{folder / f'{name}.db'}"), name)
    with Spool(ZONE) as spool, closing(ledger):
        read(spool, path)
        claims: list[Any] = []
        latest = NEVER
        for events in batches(chain.from_iterable(spool.lanes()), BATCH):
            size = len(events)
            asked = Round(look_ups=events, claim_limit=size, claims_per_place=size, unresolved=claims)
            claims = ledger.exchange(asked).unresolved
            latest = max(claim.at for claim in claims)
        ledger.exchange(Round(unresolved=claims))
        for events in batches(chain.from_iterable(spool.lanes()), BATCH):
            ends = [end_of(event, DeliveryStatus.DELIVERED, attempts=1) for event in events]
            sent = [PendingClaim(event, Decision(Action.SEND), latest, is_claimed=True) for event in events]
            ledger.exchange(Round(results=list(zip(sent, ends, strict=True))))


def to_file(events: Iterable[UsageplaceEvent], format_: str) -> None:
    """Write events to a local file."""
    with LocalFile(format_of(format_)) as local:
        for event in events:
            local.write(event)
        local.finish("events")


def plain(events: Iterable[UsageplaceEvent], format_: str) -> None:
    """Write events as one would without this package's formats."""
    with tempfile.TemporaryFile() as disk, io.TextIOWrapper(disk, "utf-8", newline="") as stream:
        if format_ == "jsonl":
            for event in events:
                stream.write(json.dumps(event.to_payload()) + "\n")
            return
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(CSV_COLUMNS)
        for event in events:
            head = (event.id, event.usageplacecode, event.status, event.time.strftime("%Y-%m-%d %H:%M:%S"))
            cells = (*head, event.customernumber, event.contract_no, event.description)
            for invoice in event.invoices:
                writer.writerow((*cells, invoice.invoicenumber, invoice.jobid))


def seconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def to_plain(spool: Spool, format_: str) -> tuple[float, float]:
    """Return our speed, to that of a plain loop: out of the spool, and over events in memory."""

    def ratio(events: Callable[[], Iterable[UsageplaceEvent]]) -> float:
        ours, theirs = (seconds(partial(work, events(), format_)) for work in (to_file, plain))
        return theirs / ours

    in_memory = list(islice(chain.from_iterable(spool.lanes()), IN_MEMORY))
    return ratio(lambda: chain.from_iterable(spool.lanes())), ratio(lambda: in_memory)


def whole_run(path: Path, folder: Path, format_: str) -> tuple[float, float]:
    """Return the seconds and the peak memory of a run in a process of its own, in MB."""
    command = [sys.executable, __file__, "--measure", str(path), str(folder), format_]
    took, peak = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(took), float(peak)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many, few = folder / "many.db", folder / "few.db"
        fill(many, rows)
        fill(few, 1_000)
        names = f"{'format':<8}{'events':>12}{'to file':>10}{'in memory':>12}{'run':>8}{'memory, MB':>12}"
        print(names, flush=True)
        alone = seconds(lambda: remember(many, folder))
        for format_ in FORMATS:
            with Spool(ZONE) as spool:
                read(spool, many)
                out_of_spool, in_memory = to_plain(spool, format_)
            (took, peak), (_, least) = (whole_run(path, folder, format_) for path in (many, few))
            speeds = f"{out_of_spool:>10.2f}{in_memory:>12.2f}{took / alone:>8.2f}"
            print(f"{format_:<8}{rows:>12,}{speeds}{peak - least:>12.0f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        took = seconds(partial(send, Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]))
        print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        main()
