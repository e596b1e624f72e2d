"""``airflow ropo ledger``, ``settle`` and ``purge``, on real SQLite and PostgreSQL: one story, one process."""

from __future__ import annotations

import datetime as dt
import getpass
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.ledger.entries import Claimant
from airflow_provider_ropo.ledger.table import LedgerTable
from terminal import Answer, plain, run_commands

PRODUCTION, TEST = "https://ropo24.fi 1000011", "https://rc.ropo24.fi 1000011"
#: What a person types to which command, by its name in the story.
TYPED = {"settle, and think again": "n\n", "settle": "y\n", "erase": "yes\n"}
#: The commands, in their order: each finds what those before it have left. Those without a connection are about it.
STORY = {
    "open": ["ledger", "-o", "json"],
    "was the place reported in January": [
        *["ledger", "--place", "RE1", "--since", "2026-01-01", "--until", "2026-01-31", "-o", "json"]
    ],
    "in February": ["ledger", "--place", "RE1", "--since", "2026-02-01", "-o", "json"],
    "until a time in another zone": ["ledger", "--place", "RE1", "--until", "2026-01-14T05:30+02:00", "-o", "json"],
    "two events": ["ledger", "--event", "e1", "--event", "e3", "-o", "json"],
    "history": ["ledger", "--event", "e1", "--history", "-o", "json"],
    "delivered": ["ledger", "--status", "delivered", "-o", "json"],
    "of one destination": ["ledger", "--all", "--destination", TEST, "-o", "json"],
    "nothing": ["ledger", "--event", "e9"],
    "settle, and think again": ["settle", "e2", "--as", "delivered", "--reason", "seen there"],
    "settle, and nobody is there": ["settle", "e2", "--as", "delivered", "--reason", "seen there"],
    "after that": ["ledger", "--event", "e2", "-o", "json"],
    "settle": ["settle", "e2", "--as", "delivered", "--reason", "seen there"],
    "settled": ["ledger", "--event", "e2", "--history", "-o", "json"],
    "settle twice": ["settle", "e2", "--as", "closed", "--reason", "again", "--yes"],
    "close two": ["settle", "e3", "e4", "--as", "closed", "--reason", "test orders", "--yes"],
    "open then": ["ledger", "-o", "json"],
    "count what is old": ["purge", "--older-than", "400d", "--dry-run"],
    "purge, and nobody is there": ["purge", "--older-than", "400d"],
    "purge": ["purge", "--older-than", "400d", "--yes"],
    "erase": ["purge", "--place", "RE1"],
    "all that is left": ["ledger", "--all", "-o", "json"],
    "close the last": ["settle", "e6", "--as", "closed", "--reason", "too old", "--yes"],
    "nothing is open": ["ledger"],
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def conn_id(request: pytest.FixtureRequest) -> str:
    """The connection of a ledger in each database."""
    return str(request.param)


@pytest.fixture(scope="module")
def told(airflow_db: None, postgres: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Answer]]:
    """Run the story in each database, in one process; return the answers."""
    folder = tmp_path_factory.mktemp("ledgers")
    schema = postgres.make_schema()
    addresses = {"sqlite": f"sqlite:///{folder / 'ledger.db'}", "postgresql": postgres.address(schema)}
    for address in addresses.values():
        fill(address)
    options = {"options": f"-csearch_path={schema}"}
    connections: dict[str, dict[str, Any]] = {
        "sqlite": {"conn_type": "sqlite", "host": str(folder / "ledger.db")},
        "postgresql": {
            "conn_type": "postgres",
            "host": postgres.host,
            "port": postgres.port,
            "login": postgres.user,
            "schema": postgres.dbname,
            "extra": options,
        },
    }
    environment = {f"AIRFLOW_CONN_{name.upper()}": json.dumps(each) for name, each in connections.items()}
    told = [(name, command) for name in connections for command in STORY]
    answers = run_commands(
        os.environ | environment,
        [[*STORY[command], "--conn-id", name] for name, command in told],
        {number: TYPED[command] for number, (_, command) in enumerate(told) if command in TYPED},
    )
    found = dict(zip(told, answers, strict=True))
    return {name: {command: found[name, command] for command in STORY} for name in connections}


@pytest.fixture
def answers(told: dict[str, dict[str, Answer]], conn_id: str) -> dict[str, Answer]:
    """Return what the commands printed, in one of the databases."""
    return told[conn_id]


def fill(address: str) -> None:
    """Write five events: delivered, unconfirmed, rejected at two destinations, invalid, and delivered long ago."""
    engine = sa.create_engine(address)
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    morning = dt.datetime(2026, 1, 14, 3)  # noqa: DTZ001 - as the ledger writes it
    rows = [
        ("e1", "RE1", PRODUCTION, "undelivered", morning - dt.timedelta(days=1), 500, "HTTP 500 Out of order"),
        ("e1", "RE1", PRODUCTION, "delivered", morning, 200, None),
        ("e2", "RE1", PRODUCTION, "unconfirmed", morning, None, "no answer within 30 s"),
        ("e3", "RE3", PRODUCTION, "rejected", morning, 400, "HTTP 400 Unknown usage place"),
        ("e4", "RE4", PRODUCTION, "invalid", morning, None, "row 8 (id e4): description: is missing"),
        ("e5", "RE5", TEST, "delivered", dt.datetime(2020, 1, 1), 200, None),  # noqa: DTZ001 - as above
        ("e6", "RE6", TEST, "rejected", dt.datetime(2020, 1, 1), 400, "HTTP 400"),  # noqa: DTZ001 - as above
    ]
    names = ("event_id", "usageplacecode", "destination", "delivery_status", "recorded_at", "http_status", "detail")
    empty = dict.fromkeys(table.definition.c.keys()) | {"attempts": 1, "payload_hash": "0" * 39}
    who = Claimant("reporting", "report", "scheduled", -1, 1, "p")._asdict()
    told = {"event_status": "disconnected", "event_time": dt.datetime(2026, 1, 13, 12)}  # noqa: DTZ001 - as above
    written = [empty | who | told | dict(zip(names, row, strict=True)) for row in rows]
    table.insert([row | ({"payload_hash": None} if row["event_id"] == "e4" else {}) for row in written])
    table.close()


NOT_FOUND = (
    "Nothing in the ledger ropo_ledger (connection '{conn_id}') matches. {times}"
    "Ids and codes have to be given exactly.\n"
)
TIMES = "--since and --until are about recorded_at, in UTC. "


def shown(answer: Answer) -> list[str]:
    """Return the events that a command has printed as JSON, each with its delivery status."""
    assert (0, "") == (answer.code, plain(answer.err))
    return [f"{row['event_id']} {row['delivery_status']}" for row in json.loads(answer.out)]


def test_open_events(answers: dict[str, Answer]) -> None:
    """Without a choice, the events that are not at Ropo One are listed."""
    assert ["e6 rejected", "e2 unconfirmed", "e3 rejected", "e4 invalid"] == shown(answers["open"])


def test_was_a_place_reported(answers: dict[str, Answer]) -> None:
    """One command tells whether a place was reported in some month, and what Ropo One said."""
    answer = answers["was the place reported in January"]

    assert ["e1 delivered", "e2 unconfirmed"] == shown(answer)
    row = json.loads(answer.out)[0]
    assert ("200", "2026-01-14 03:00:00", PRODUCTION) == (row["http_status"], row["recorded_at"], row["destination"])


def test_times_are_utc(answers: dict[str, Answer]) -> None:
    """A time with a zone is converted: 5:30 in Helsinki is 3:30 UTC, so what was recorded at 3:00 is before it."""
    assert ["e1 delivered", "e2 unconfirmed"] == shown(answers["until a time in another zone"])


def test_choices(answers: dict[str, Answer]) -> None:
    """Events are chosen by id, by status and by destination, open or not."""
    assert ["e1 delivered", "e3 rejected"] == shown(answers["two events"])
    assert ["e5 delivered", "e1 delivered"] == shown(answers["delivered"])
    assert ["e5 delivered", "e6 rejected"] == shown(answers["of one destination"])


def test_nothing_is_found(answers: dict[str, Answer], conn_id: str) -> None:
    """Beside an empty answer, a sentence says what that may mean."""
    nothing, february, closed = (answers[name] for name in ("nothing", "in February", "nothing is open"))

    assert (0, "No data found\n") == (nothing.code, nothing.out)
    assert NOT_FOUND.format(conn_id=conn_id, times="") == plain(nothing.err)
    assert (0, []) == (february.code, json.loads(february.out))
    assert NOT_FOUND.format(conn_id=conn_id, times=TIMES) == plain(february.err)
    assert f"No event in the ledger ropo_ledger (connection '{conn_id}') is open.\n" == plain(closed.err)


def test_history(answers: dict[str, Answer]) -> None:
    """All rows about an event are listed, the oldest first."""
    assert ["e1 undelivered", "e1 delivered"] == shown(answers["history"])


@pytest.mark.parametrize("command", ["settle, and think again", "settle, and nobody is there"])
def test_settling_asks(answers: dict[str, Answer], command: str) -> None:
    """The history is shown before the question; without a yes, nothing is written."""
    answer = answers[command]

    assert f"e2 RE1 disconnected 2026-01-13 12:00:00, to {PRODUCTION}\n" in answer.out
    assert "no answer within 30 s" in answer.out
    assert answer.out.endswith("Settle 1 event as delivered? [y/N] ")
    assert "nothing was changed, because nobody confirmed it (--yes confirms it)" == answer.code
    assert ["e2 unconfirmed"] == shown(answers["after that"])


def test_settling(answers: dict[str, Answer]) -> None:
    """A confirmed settlement is written, with the user and the reason."""
    assert 0 == answers["settle"].code
    assert answers["settle"].out.endswith("[y/N] Settled 1 event as delivered. No run sends it again.\n")
    assert ["e2 unconfirmed", "e2 delivered"] == shown(answers["settled"])
    last = json.loads(answers["settled"].out)[-1]
    assert f"settled as delivered by {getpass.getuser()}: seen there" == last["detail"]


def test_settling_refuses(answers: dict[str, Answer]) -> None:
    """What makes no sense is refused in one sentence."""
    assert str(answers["settle twice"].code).startswith("nothing was settled; e2: it is delivered;")


def test_closing(answers: dict[str, Answer]) -> None:
    """Rows that will never be right are closed, and then not open any more."""
    told = "Settled 2 events as closed. No run sends them, or fails because of them, until the content changes.\n"
    assert answers["close two"].out.endswith(told)
    assert ["e6 rejected"] == shown(answers["open then"])


def test_purging(answers: dict[str, Answer]) -> None:
    """What is old and finished is counted, and deleted once that is confirmed; what is open stays."""
    counted = "Older than 400d: 1 finished event with 1 row.\nOpen events of that age, which are kept: 1.\n"

    assert (0, counted) == (answers["count what is old"].code, answers["count what is old"].out)
    refused = answers["purge, and nobody is there"]
    assert f"{counted}Delete the rows of 1 finished event? [y/N] " == refused.out
    assert "nothing was changed, because nobody confirmed it (--yes confirms it)" == refused.code
    assert (0, f"{counted}Deleted: 1 finished event with 1 row.\n") == (answers["purge"].code, answers["purge"].out)


def test_erasing(answers: dict[str, Answer]) -> None:
    """A usage place is erased from all rows, and its events are known as before."""
    assert (
        "About this usage place: 2 events with 4 rows.\n"
        "Erase the usage place from 4 rows? [y/N] Erased: 2 events with 4 rows.\n"
    ) == answers["erase"].out
    left = json.loads(answers["all that is left"].out)
    assert {("e1", None, "delivered"), ("e2", None, "delivered"), ("e3", "RE3", "closed"), ("e4", "RE4", "closed")} == {
        (row["event_id"], row["usageplacecode"], row["delivery_status"]) for row in left if row["event_id"] != "e6"
    }


def test_an_erased_place_is_not_in_airflows_log(told: dict[str, dict[str, Answer]]) -> None:
    """Airflow logs the command that erases a place, without the place."""
    with closing(sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db")) as database:
        logged = [extra for (extra,) in database.execute("SELECT extra FROM log WHERE extra LIKE '%purge%'")]

    erasures = [extra for extra in logged if "--place" in extra]
    assert erasures
    assert [] == [extra for extra in erasures if "RE1" in extra or "***" not in extra]
