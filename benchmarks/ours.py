"""Our own way of posting, measured: events out of a spool, through the dispatcher, to a server."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.delivery import Delivery, DeliveryStatus
from airflow_provider_ropo.dispatch.dispatcher import Dispatcher
from airflow_provider_ropo.dispatch.posting import PostingOptions, RestChannel
from airflow_provider_ropo.event import UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import LedgerTable
from airflow_provider_ropo.reporting.report import Report
from airflow_provider_ropo.reporting.summary import DeliverySummary
from airflow_provider_ropo.timezones import find_timezone

ZONE = find_timezone("Europe/Helsinki")
START = dt.datetime(2024, 1, 4, 10, tzinfo=ZONE)


@dataclass(frozen=True)
class Took:
    """What a piece of work cost: seconds on the clock, and of this process's CPU."""

    seconds: float
    cpu: float


class Stopwatch:
    """Measures what is done inside its ``with``."""

    def __enter__(self) -> Self:
        """Start."""
        self._cpu, self._clock = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop."""
        self.took = Took(time.perf_counter() - self._clock, time.process_time() - self._cpu)


@contextmanager
def serving(latency: float = 0.0) -> Iterator[str]:
    """Run the smallest Ropo One in a process of its own, and give its address."""
    command = [sys.executable, str(Path(__file__).with_name("server.py")), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def make_event(number: int, prefix: str = "") -> UsageplaceEvent:
    """Make an event of a usage place of its own."""
    return UsageplaceEvent(
        f"{prefix}e{number}",
        f"643007572{number:09}",
        UsageplaceStatus.DISCONNECTED,
        START + dt.timedelta(seconds=number % 3600),
        f"A{number}",
        f"{number}b",
        "Usage place disconnected",
    )


def payloads(count: int) -> list[dict[str, Any]]:
    """Return the payloads of that many events."""
    return [make_event(number).to_payload() for number in range(count)]


def post(
    server: str,
    count: int,
    workers: int,
    ledger: DeliveryLedger | None = None,
    *,
    prefix: str = "",
    from_first_post: bool = False,
) -> Took:
    """Post that many events, as a run does; reading and filling the spool are not measured.

    :param ledger: None: without one.
    :param prefix: of the events' ids.
    :param from_first_post: measure from the first answer to the last.
    """
    answers: list[float] = []
    settings = RopoSettings("benchmark", server, "1000011", "sandbox")
    client = RopoClient(settings)
    client.sign_in()
    report = Report(DeliverySummary(rows=count))

    def on_delivery(delivery: Delivery) -> None:
        report.on_delivery(delivery)
        answers.append(time.perf_counter())

    with spool_of(count, prefix) as spool, Stopwatch() as watch:
        RestChannel(client, PostingOptions(max_workers=workers)).send(
            spool,
            ledger,
            report=report,
            stop=threading.Event(),
            on_delivery=on_delivery,
        )
    if ledger is not None:
        ledger.close()
    if report.summary.count(DeliveryStatus.DELIVERED) != count:
        raise RuntimeError(str(report.summary))
    return Took(answers[-1] - answers[0], watch.took.cpu) if from_first_post else watch.took


@contextmanager
def spool_of(count: int, prefix: str = "") -> Iterator[Spool]:
    """Return a spool with that many events."""
    with Spool(ZONE) as spool:
        for number in range(count):
            spool.add(number, make_event(number, prefix))
        spool.merge_rows(merges_invoices=True)
        yield spool


def dispatch(send: Any, count: int, workers: int, ledger: DeliveryLedger) -> tuple[Took, DeliverySummary]:
    """Let the dispatcher send that many events."""
    summary = DeliverySummary(rows=count)
    with spool_of(count) as spool:
        dispatcher = Dispatcher(send, summary.add, ledger=ledger, max_workers=workers, stop=threading.Event())
        with Stopwatch() as watch:
            dispatcher.run(spool.lanes())
    ledger.close()
    return watch.took, summary


def open_ledger(engine: sa.engine.Engine, run: str) -> DeliveryLedger:
    """Return the ledger in that database, as one run sees it."""
    me = Claimant("dag", "task", run, -1, 1, os.urandom(8).hex())
    opened = DeliveryLedger(LedgerTable(engine, "ropo_ledger"), "benchmark", me, LedgerPolicy())
    opened.prepare()
    return opened


def new_ledger(folder: Path) -> DeliveryLedger:
    """Return an empty ledger in a SQLite file of its own."""
    return open_ledger(sa.create_engine(f"sqlite:///{folder / f'{time.monotonic_ns()}.db'}"), "run")


def recognise(engine: sa.engine.Engine, count: int) -> tuple[Took, int]:
    """Meet events that a run before has delivered; return what that cost, and how many were recognised."""
    dispatch(lambda _event: None, count, 8, open_ledger(engine, "before"))
    took, summary = dispatch(lambda _event: None, count, 8, open_ledger(engine, "again"))
    return took, summary.count(DeliveryStatus.ALREADY_DELIVERED)
