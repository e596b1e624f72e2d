from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.errors import RopoLedgerError
from airflow_provider_ropo.ledger.entries import Claimant, LedgerEntry
from airflow_provider_ropo.ledger.table import LedgerTable, batches
from ledger_steps import DESTINATION

MakeEngine = Callable[[str], sa.engine.Engine]

ME = Claimant("dag", "report", "run_1", -1, 2, "me")
NOON = dt.datetime(2024, 1, 4, 12, 0, 0, 123456)  # noqa: DTZ001 - as the ledger writes it
LONG_AGO = NOON - dt.timedelta(days=365)


def row(
    event_id: str = "e1", status: str = "sending", recorded_at: dt.datetime = NOON, **values: Any
) -> dict[str, Any]:
    return {
        "destination": DESTINATION,
        "event_id": event_id,
        "usageplacecode": "RE1",
        "event_status": "connected",
        "event_time": NOON.replace(microsecond=0),
        "delivery_status": status,
        "http_status": None,
        "detail": None,
        "payload_hash": "abc",
        "attempts": 0,
        **ME._asdict(),
        "recorded_at": recorded_at,
    } | values


@pytest.fixture(params=["sqlite", "psycopg", "psycopg2"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty SQLite file, and of an empty PostgreSQL schema, by two drivers."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    postgres = request.getfixturevalue("postgres")
    return str(postgres.address(postgres.make_schema(), driver=request.param))


def test_one_odd_row_stops_no_other(engine: sa.engine.Engine) -> None:
    """A row that the database does not take is named with the database's reason, and all others are written once."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    rows = [row("e1"), row("e2", delivery_status=None), row("e3"), row("e4", "delivered")]

    refused = table.insert(rows)

    assert ["e2"] == list(refused)
    assert "could not be written: " in refused["e2"]
    assert {"e1": 1, "e3": 1, "e4": 1} == {
        event_id: len(found) for event_id, found in table.entries(["e1", "e2", "e3", "e4"]).items()
    }


def test_rows_are_written_once_around_an_odd_one(engine: sa.engine.Engine) -> None:
    """Rows of a large insert that had been written before an odd one was met are not written again."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    ids = [f"e{number}" for number in range(1_200)]

    table.insert([row(event_id) for event_id in ids] + [row("odd", delivery_status=None)])

    assert dict.fromkeys(ids, 1) == {event_id: len(found) for event_id, found in table.entries(ids).items()}


def test_refusals_quote_no_row(engine: sa.engine.Engine) -> None:
    """The reason of a refusal is the database's, without the row, the statement or its parameters."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    odd = row("e1", usageplacecode="secret-2", payload_hash="secret-3", delivery_status=None)
    refused = table.insert([odd, row("e2")])

    assert "secret" not in str(refused)
    assert "INSERT" not in str(refused)
    assert "delivery_status" in refused["e1"]


def test_errors_quote_no_row(engine: sa.engine.Engine) -> None:
    """A failure's reason is the database's, without the rows, the statement or its parameters, also further in."""
    table = LedgerTable(engine, "no_such_table")

    with pytest.raises(RopoLedgerError) as caught:
        table.entries(["secret-1"])

    assert "secret" not in repr(caught.value)
    assert "SELECT" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("lost", ["the table", "the right to add to it"])
def test_what_fails_for_every_row_is_an_error(lost: str, postgres: Any, make_engine: MakeEngine) -> None:
    """A table that is gone or may not be written is an error, and no result is given up as an odd row."""
    schema, role = postgres.make_schema(), f"role_{NOON:%f}_{lost.split()[1]}"
    owner, user = make_engine(postgres.address(schema)), make_engine(postgres.address(schema, user=role))
    LedgerTable(owner, "ropo_ledger").create_or_upgrade()
    table = LedgerTable(user, "ropo_ledger")
    with owner.begin() as connection:
        connection.execute(sa.text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(sa.text(f"GRANT USAGE ON SCHEMA {schema} TO {role}"))
        connection.execute(sa.text(f"GRANT SELECT, INSERT ON ropo_ledger TO {role}"))
    table.insert([row("e0")])
    table.release_connection()
    with owner.begin() as connection:
        change = (
            "ALTER TABLE ropo_ledger RENAME TO gone"
            if lost == "the table"
            else f"REVOKE INSERT ON ropo_ledger FROM {role}"
        )
        connection.execute(sa.text(change))

    with pytest.raises(RopoLedgerError, match="could not be written: "):
        table.insert([row("e1", "delivered"), row("e2", "delivered")])

    table.close()


def test_text_that_cannot_be_written(database: str, engine: sa.engine.Engine) -> None:
    """Ropo One's words are kept in a readable form where the database cannot hold a character of them."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    refused = table.insert([row(detail="bad \0 text"), row("e2")])

    [entry] = table.entries(["e1"])["e1"]
    expected = "bad \0 text" if database.startswith("sqlite") else "bad \\x00 text"
    assert ({}, expected, ["e2"]) == (refused, entry.detail, list(table.entries(["e2"])))


def test_an_id_that_cannot_be_written(database: str, engine: sa.engine.Engine) -> None:
    """An event whose id the database cannot hold is refused by name, or written; the others are written."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    refused = table.insert([row("e\0"), row("e2")])

    assert ([] if database.startswith("sqlite") else ["e\0"]) == list(refused)
    assert ["e2"] == list(table.entries(["e2"]))


def test_entries(engine: sa.engine.Engine) -> None:
    """All rows of the events that are asked for are read, oldest first, to the microsecond."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    tick = dt.timedelta(microseconds=1)
    other = ME._replace(run_id="run_2")
    table.insert([row("e1", "delivered", NOON + tick), row("e2"), row("e3", payload_hash=None, **other._asdict())])
    table.insert([row("e1", "sending", NOON)])

    entries = table.entries(["e1", "e3", "e4"])

    assert {
        "e1": [
            LedgerEntry("sending", "abc", NOON, ME, DESTINATION),
            LedgerEntry("delivered", "abc", NOON + tick, ME, DESTINATION),
        ],
        "e3": [LedgerEntry("sending", None, NOON, other, DESTINATION)],
    } == entries


def test_ids_are_exact(engine: sa.engine.Engine) -> None:
    """Ids that differ in letter case, or in a blank, are different events; and none is taken for SQL."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    ids = ["a", "A", "a ", "å", "' OR ''='", "%", "0" * 200, "1"]
    table.insert([row(event_id) for event_id in ids])

    entries = {event_id: table.entries([event_id]) for event_id in ids}

    assert {event_id: [event_id] for event_id in ids} == {key: list(found) for key, found in entries.items()}


def test_many_ids(engine: sa.engine.Engine) -> None:
    """As many events as one likes are asked for, a bounded number at a time."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    ids = [f"e{number}" for number in range(1_201)]
    table.insert([row(event_id) for event_id in ids])
    statements: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *told: statements.append(told[2]))

    entries = table.entries(ids)

    assert set(ids) == set(entries)
    assert 3 == len([statement for statement in statements if statement.startswith("SELECT")])


def test_latest_deliveries(engine: sa.engine.Engine) -> None:
    """Of each usage place, the latest time of a delivered event is known, whenever that was delivered."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    eleven, twelve = (dt.datetime(2024, 1, 4, hour) for hour in (11, 12))  # noqa: DTZ001 - a wall clock's
    table.insert(
        [
            row("e1", "delivered", event_time=twelve),
            row("e2", "delivered", event_time=eleven),
            row("e3", "rejected", usageplacecode="RE2", event_time=twelve),
            row("e4", "delivered", usageplacecode="RE3", event_time=eleven),
            row("e5", "delivered", usageplacecode="RE4", event_time=None),
        ]
    )

    assert {"RE1": twelve} == table.latest_deliveries(["RE1", "RE2", "RE4", "RE5"], DESTINATION)


def test_latest_deliveries_are_a_destinations(engine: sa.engine.Engine) -> None:
    """What was delivered elsewhere makes no event stale here; a row without a destination may."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    table.insert([row("e1", "delivered", usageplacecode="RE1", destination="https://test 1")])
    table.insert([row("e2", "delivered", usageplacecode="RE2", destination=None)])
    table.insert([row("e3", "delivered", usageplacecode="RE3", destination="")])

    assert {"RE2", "RE3"} == set(table.latest_deliveries(["RE1", "RE2", "RE3"], DESTINATION))


@pytest.mark.parametrize(
    ("writer", "found"),
    [
        (ME, False),
        (ME._replace(try_number=1), False),
        (ME._replace(try_number=3), True),
        (ME._replace(try_number=3, run_id="run_2"), False),
        (ME._replace(try_number=3, map_index=0), False),
        (ME._replace(try_number=3, task_id="other"), False),
        (ME._replace(try_number=3, dag_id="other"), False),
    ],
    ids=["itself", "earlier", "later", "other run", "other index", "other task", "other DAG"],
)
def test_later_tries(writer: Claimant, found: bool, engine: sa.engine.Engine) -> None:  # noqa: FBT001
    """A later try is one of the very same task instance that has written anything since this one started."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    table.insert([row(**writer._asdict())])

    assert (found, False) == (table.has_later_try(ME, LONG_AGO), table.has_later_try(ME, NOON))


def test_batches() -> None:
    """Items come in lists of a bounded length, none of them empty."""
    assert [[0, 1], [2, 3], [4]] == list(batches(range(5), 2))
    assert [] == list(batches([]))


def test_closed(database: str, make_engine: MakeEngine) -> None:
    """A table that is let go of keeps no connection."""
    engine = make_engine(database)
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    table.entries(["e1"])
    table.close()

    assert 0 == getattr(engine.pool, "checkedin", lambda: 0)()
