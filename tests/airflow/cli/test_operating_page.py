"""The page "Operating" is correct: its commands print what it shows, and its other blocks work."""

from __future__ import annotations

import datetime as dt
import json
import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.ledger.schema import create_or_upgrade, define_table
from documents import block
from terminal import plain, run_commands

#: An event that is delivered, and one that may have arrived, as the page has them.
EVENT = {
    "destination": "https://ropo24.fi 1000011",
    "event_status": "disconnected",
    "event_time": dt.datetime(2026, 1, 14, 12, 44, 9),  # noqa: DTZ001 - as the ledger writes it
    "run_id": "scheduled__2026-01-15",
    "try_number": 1,
    "recorded_at": dt.datetime(2026, 1, 15, 3, 0, 11),  # noqa: DTZ001 - as above
}
DELIVERED = EVENT | {"event_id": "WO-0114-01", "usageplacecode": "643007572062443672", "http_status": 200}
DELIVERED["delivery_status"] = "delivered"
OPEN = EVENT | {"event_id": "WO-0114-03", "usageplacecode": "643007572062443696", "delivery_status": "sending"}
UNCONFIRMED = OPEN | {
    "delivery_status": "unconfirmed",
    "detail": "no answer within 30 s",
    "recorded_at": dt.datetime(2026, 1, 15, 3, 0, 45),  # noqa: DTZ001 - as above
}
#: The state in which each command finds the ledger.
SHOWN: dict[str, list[dict[str, Any]]] = {
    block("operating", "$ airflow ropo ledger --conn-id warehouse --place"): [DELIVERED, OPEN],
    block("operating", "$ airflow ropo ledger --conn-id warehouse --event"): [DELIVERED, OPEN, UNCONFIRMED],
    block("operating", "$ airflow ropo settle"): [DELIVERED, OPEN, UNCONFIRMED],
    block("operating", "$ airflow ropo purge --older-than"): [DELIVERED],
    block("operating", "$ airflow ropo purge --place"): [DELIVERED],
}


def make_ledger(path: Path, rows: list[dict[str, Any]]) -> None:
    engine, table = sa.create_engine(f"sqlite:///{path}"), define_table("ropo_ledger")
    create_or_upgrade(engine, table, "")
    with engine.begin() as connection:
        for row in rows:
            connection.execute(sa.insert(table).values(row))
    engine.dispose()


def test_the_commands_print_what_the_page_shows(airflow_db: None, tmp_path: Path) -> None:
    """Each command prints its example, with a ledger in the state that the page is about."""
    commands, connections = [], {}
    for number, (text, rows) in enumerate(SHOWN.items()):
        path = tmp_path / f"{number}.db"
        aged = [row | {"recorded_at": dt.datetime(2020, 1, 1)} for row in rows] if "--older-than" in text else rows  # noqa: DTZ001
        make_ledger(path, aged)
        connections[f"AIRFLOW_CONN_LEDGER_{number}"] = json.dumps({"conn_type": "sqlite", "host": str(path)})
        command = text.partition("\n")[0].replace("--conn-id warehouse", f"--conn-id ledger_{number}")
        commands.append(shlex.split(command)[3:])

    answers = run_commands(os.environ | connections, commands, dict.fromkeys(range(len(commands)), "y\n"))

    for text, answer in zip(SHOWN, answers, strict=True):
        assert 0 == answer.code
        printed = " ".join(plain(answer.out).split())
        for line in text.replace("[y/N] y", "[y/N]").splitlines()[1:]:
            assert " ".join(line.split()) in printed


def test_the_view_can_be_asked(tmp_path: Path) -> None:
    """The query on the view counts the events by state."""
    make_ledger(tmp_path / "ledger.db", [DELIVERED, OPEN, UNCONFIRMED])

    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        found = database.execute(block("operating", "SELECT delivery_status")).fetchall()

    assert [("delivered", 1), ("unconfirmed", 1)] == sorted(found)


def test_an_event_is_closed_by_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of the example closes its event."""
    make_ledger(tmp_path / "ledger.db", [UNCONFIRMED | {"event_id": "WO-0114-07"}])
    monkeypatch.setenv(
        "AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")})
    )
    names: dict[str, Any] = {}
    text = block("operating", "from airflow_provider_ropo.operators.ledger").replace(
        "\nRopoSettle", "\ntask = RopoSettle"
    )
    exec(text, names)  # noqa: S102 - the page's own

    names["task"].execute({})

    with closing(sqlite3.connect(tmp_path / "ledger.db")) as database:
        (state,) = database.execute("SELECT delivery_status FROM ropo_ledger_state").fetchall()
    assert ("closed",) == state
