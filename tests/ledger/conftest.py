"""What the ledger's tests share: its time, and the ledger as one process sees it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.ledger.decisions import LedgerPolicy
from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.table import LedgerTable
from ledger_steps import DESTINATION, LedgerTime

ME = Claimant("dag", "report", "run_5", -1, 1, "process 5")


@pytest.fixture
def engine(database: str) -> sa.engine.Engine:
    """Return an engine that several ledgers may share: each closes the connections of its engine when it has done."""
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if database.startswith("sqlite") else {}
    return sa.create_engine(database, hide_parameters=True, poolclass=sa.NullPool, **options)


@pytest.fixture
def clock() -> LedgerTime:
    """Return noon."""
    return LedgerTime()


@pytest.fixture
def open_ledger(engine: sa.engine.Engine, clock: LedgerTime) -> Iterator[Callable[..., DeliveryLedger]]:
    """Return a shorthand for the ledger, as one process sees it; all are closed at the end."""
    ledgers: list[DeliveryLedger] = []

    def open_one(
        me: Claimant = ME,
        now: LedgerTime = clock,
        destination: str = DESTINATION,
        **policy: Any,
    ) -> DeliveryLedger:
        table = LedgerTable(engine, "ropo_ledger")
        ledger = DeliveryLedger(table, destination, me, LedgerPolicy(**policy), now=now, clock=now.monotonic)
        ledgers.append(ledger)
        ledger.prepare()
        return ledger

    yield open_one
    for ledger in ledgers:
        ledger.close()


@pytest.fixture
def tables(engine: sa.engine.Engine) -> Iterator[Callable[..., LedgerTable]]:
    """Return a shorthand for the ledger's table, by name and user; all are closed at the end."""
    made: list[LedgerTable] = []

    def make(name: str = "ropo_ledger", user: sa.engine.Engine = engine) -> LedgerTable:
        made.append(LedgerTable(user, name, "connection 'warehouse'"))
        return made[-1]

    yield make
    for table in made:
        table.close()


class Postgres(Protocol):
    """The running PostgreSQL server: the directory of its socket, and its port."""

    host: str
    port: int


class Proxy:
    """Stands between a ledger and PostgreSQL, and cuts connections as a network does.

    :param socket_path: the server's socket.
    """

    def __init__(self, socket_path: str) -> None:
        self._server = socket_path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.port: int = self._listener.getsockname()[1]
        #: Takes no connections, and cuts those that are there.
        self.is_away = False
        #: Cut the connection once the server has answered a message with this text in it, instead of passing it on.
        self.loses_answer_to: bytes | None = None
        #: The number of answers lost.
        self.lost = 0
        #: The number of times that the server was ready for more: round trips.
        self.round_trips = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Cut every connection."""
        for pair in self._pairs:
            _shut(*pair)

    def go_away(self) -> None:
        """Cut every connection, and take no more of them."""
        self.is_away = True
        self.cut()

    def close(self) -> None:
        self.go_away()
        _shut(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_away:
                _shut(client)
                continue
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._server)
            self._pairs.append((client, server))
            losing = threading.Event()
            for source, target, look in (
                (client, server, partial(self._look_at_question, losing)),
                (server, client, partial(self._look_at_answer, losing)),
            ):
                threading.Thread(target=_pump, args=(source, target, look), daemon=True).start()

    def _look_at_question(self, losing: threading.Event, data: bytes) -> bool:
        if self.loses_answer_to is not None and self.loses_answer_to in data:
            self.loses_answer_to = None
            losing.set()
        return True

    def _look_at_answer(self, losing: threading.Event, data: bytes) -> bool:
        """Return whether to pass it on."""
        is_ready = READY in data
        self.round_trips += is_ready
        if losing.is_set() and is_ready:
            self.lost += 1
        return not losing.is_set()


#: PostgreSQL's message that a statement has ended.
READY = b"Z\x00\x00\x00\x05"


def _pump(source: socket.socket, target: socket.socket, look: Callable[[bytes], bool]) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if look(data):
                target.sendall(data)
            elif READY in data:
                break
    _shut(source, target)


def _shut(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[Proxy]:
    """Return a proxy of the PostgreSQL server."""
    proxy = Proxy(f"{postgres.host}/.s.PGSQL.{postgres.port}")
    yield proxy
    proxy.close()
