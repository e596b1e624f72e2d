from __future__ import annotations

import datetime as dt
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.errors import RopoConfigurationError, RopoLedgerError
from airflow_provider_ropo.ledger.entries import Claimant, LedgerEntry
from airflow_provider_ropo.ledger.schema import define_table
from airflow_provider_ropo.ledger.table import LedgerTable, batches

MakeEngine = Callable[[str], sa.engine.Engine]

COLUMNS = """
event_id, usageplacecode, event_status, event_time, delivery_status, http_status, detail, payload_hash, attempts,
dag_id, task_id, run_id, map_index, try_number, recorded_at
"""
ME = Claimant("dag", "report", "run_1", -1, 2)
NOON = dt.datetime(2024, 1, 4, 12, 0, 0, 123456)  # noqa: DTZ001 - as the ledger writes it
LONG_AGO = NOON - dt.timedelta(days=365)

NAMES = [
    "ropo_ledger",
    "  ropo_ledger  ",
    "Ropo_Ledger$1",
    "_ledger",
    "päiväkirja",
    '"Ropo Ledger"',
    '"ropo.ledger"',
    '"the ""ledger"" itself"',
    '"o\'ledger"',
    '"order"',
    '"100% :sure"',
    '"ledger; DROP TABLE x; --"',
    "`Ropo Ledger`",
    'main."Ropo Ledger"',
    'main . "Ropo Ledger"',
]
NO_NAMES = [
    "",
    " ",
    ".",
    '""',
    "``",
    "ledger; DROP TABLE outcome",
    "ledger --",
    "ledger x",
    "ledger, outcome",
    "ledger'",
    "(SELECT 1)",
    "ops.",
    ".ledger",
    "ops..ledger",
    "1ledger",
    "ledger-1",
    '"ledger',
    'ledger"',
    '"a""',
    '"a"b',
    "{{ ds }}",
    "ledger\0",
]


def row(
    event_id: str = "e1", status: str = "sending", recorded_at: dt.datetime = NOON, **values: Any
) -> dict[str, Any]:
    return {
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


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str, engine: sa.engine.Engine) -> None:
    """A table's name is taken as one would write it in SQL: plain or quoted, with its schema or without."""
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            name = name.replace("main", connection.execute(sa.text("SELECT current_schema()")).scalar_one())
    table = LedgerTable(engine, name)

    before = table.exists()
    table.create_or_upgrade()
    table.insert([row()])

    assert (False, True) == (before, LedgerTable(engine, name).exists())
    assert [LedgerEntry("sending", "abc", NOON, ME)] == LedgerTable(engine, name).entries(["e1"])["e1"]
    assert [define_table(name).name.casefold()] == [found.casefold() for found in sa.inspect(engine).get_table_names()]


@pytest.mark.parametrize("name", NO_NAMES)
def test_no_names(name: str) -> None:
    """What is no table's name is refused before any database sees it, and quoted back."""
    with pytest.raises(RopoConfigurationError) as caught:
        define_table(name)

    assert f"`ledger_table` {name!r} is no table's name" in str(caught.value)


def test_plain_names_fold_as_elsewhere(engine: sa.engine.Engine) -> None:
    """A plain name means the same table as in the user's own SQL, in whatever letter case it is written."""
    with engine.begin() as connection:
        LedgerTable(engine, "ropo_ledger").create_or_upgrade()
        connection.execute(sa.text("SELECT * FROM Ropo_LEDGER"))

    assert LedgerTable(engine, "ROPO_Ledger").exists()


@pytest.mark.parametrize("schema", ["ops", '"Ropo Ops"', '"ropo.ops"', '"ro""po"'])
def test_schemas(schema: str, postgres: Any, make_engine: MakeEngine) -> None:
    """A table lives in the schema that its name says, however that is quoted."""
    engine = make_engine(postgres.address("public"))
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    table = LedgerTable(engine, f'{schema}."Ropo Ledger"')

    table.create_or_upgrade()
    table.insert([row()])

    with engine.begin() as connection:
        assert [1] == list(connection.execute(sa.text(f'SELECT count(*) FROM {schema}."Ropo Ledger"')).scalars())
        connection.execute(sa.text(f"DROP SCHEMA {schema} CASCADE"))


@pytest.mark.parametrize("parts", ["lake.ops.ropo_ledger", 'lake."Ropo Ops"."Ropo Ledger"'])
def test_databases_and_schemas(parts: str) -> None:
    """A name in three parts, as warehouses have them, comes out as it went in."""
    query = str(sa.select(define_table(parts).c.event_id))

    assert f"FROM {parts}" in query.replace("\n", " ")


def test_columns(engine: sa.engine.Engine) -> None:
    """The table has exactly the columns that the design lists, in that order."""
    LedgerTable(engine, "ropo_ledger").create_or_upgrade()

    names = [column["name"] for column in sa.inspect(engine).get_columns("ropo_ledger")]
    assert COLUMNS.split() == ", ".join(names).split()


def test_indexes(engine: sa.engine.Engine) -> None:
    """What is looked up by has an index, however long the table's name is."""
    name = '"' + "a very long name, " * 3 + '"'
    LedgerTable(engine, name).create_or_upgrade()

    indexes = sa.inspect(engine).get_indexes(define_table(name).name)

    assert {("event_id",), ("usageplacecode",), ("run_id", "map_index", "try_number")} == {
        tuple(index["column_names"]) for index in indexes
    }


def test_made_once(engine: sa.engine.Engine) -> None:
    """A table that is there stays as it is."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()
    table.insert([row()])

    LedgerTable(engine, "ropo_ledger").create_or_upgrade()

    assert 1 == len(table.entries(["e1"])["e1"])


MAKE = """
import sys, time
import sqlalchemy as sa
from airflow_provider_ropo.ledger.table import LedgerTable
options = {"connect_args": {"timeout": 60}} if sys.argv[1].startswith("sqlite") else {}
engine = sa.create_engine(sys.argv[1], **options)
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    LedgerTable(engine, f"ledger_{number}").create_or_upgrade()
"""


def test_made_by_two_at_once(database: str, engine: sa.engine.Engine) -> None:
    """Two processes that both find the table missing make one, and neither fails."""
    command = [sys.executable, "-c", MAKE, database]
    pipe = subprocess.PIPE
    makers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    for maker in makers:
        assert maker.stdout is not None
        maker.stdout.readline()
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()

    errors = [maker.communicate(timeout=60)[1] for maker in makers]

    assert ["", ""] == errors
    assert {f"ledger_{number}" for number in range(20)} == set(sa.inspect(engine).get_table_names())


@pytest.fixture
def modest(postgres: Any, make_engine: MakeEngine) -> tuple[sa.engine.Engine, sa.engine.Engine]:
    """An empty schema: as its owner, and as a role that may create nothing in it."""
    schema, role = postgres.make_schema(), f"role_{uuid.uuid4().hex}"
    with postgres.connect(autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        connection.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT ON TABLES TO {role}")
    owner, user = (postgres.address(schema, driver="psycopg2", user=who) for who in (postgres.user, role))
    return make_engine(owner), make_engine(user)


def test_without_create_rights(modest: tuple[sa.engine.Engine, sa.engine.Engine]) -> None:
    """A table that somebody else made is used with no more than the right to read it and to add to it."""
    owner, user = modest
    LedgerTable(owner, "ropo_ledger").create_or_upgrade()
    table = LedgerTable(user, "ropo_ledger")

    table.create_or_upgrade()
    table.insert([row()])

    assert [LedgerEntry("sending", "abc", NOON, ME)] == table.entries(["e1"])["e1"]


def test_may_not_be_made(modest: tuple[sa.engine.Engine, sa.engine.Engine]) -> None:
    """A table that is missing and may not be made is an error with the database's own reason."""
    with pytest.raises(RopoLedgerError) as caught:
        LedgerTable(modest[1], "ropo_ledger").create_or_upgrade()

    reason = str(caught.value).split("schema_")[0]
    assert "the ledger ropo_ledger could not be made: permission denied for schema " == reason


def test_may_not_be_read(modest: tuple[sa.engine.Engine, sa.engine.Engine]) -> None:
    """A table that is there and may not be read is an error, not a second table."""
    owner, user = modest
    LedgerTable(owner, "ropo_ledger").create_or_upgrade()
    with owner.begin() as connection:
        connection.execute(sa.text(f"REVOKE ALL ON ropo_ledger FROM {user.url.username}"))

    with pytest.raises(RopoLedgerError, match=r"permission denied|already exists"):
        LedgerTable(user, "ropo_ledger").create_or_upgrade()


def test_database_is_away(tmp_path: Path, make_engine: MakeEngine) -> None:
    """A database that cannot be reached is an error with its own reason."""
    engine = make_engine(f"sqlite:///{tmp_path / 'nowhere' / 'ledger.db'}")

    with pytest.raises(RopoLedgerError, match="could not be made: unable to open database file"):
        LedgerTable(engine, "ropo_ledger").create_or_upgrade()


def test_all_rows_or_none(engine: sa.engine.Engine) -> None:
    """Rows that are written together are all there or none is."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    with pytest.raises(RopoLedgerError, match="could not be written: "):
        table.insert([row(), row(delivery_status=None)])

    assert {} == table.entries(["e1"])


def test_errors_quote_no_row(engine: sa.engine.Engine) -> None:
    """A failure's reason is the database's, without the row, the statement or its parameters, also further in."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    with pytest.raises(RopoLedgerError) as caught:
        table.insert([row("secret-1", usageplacecode="secret-2", delivery_status=None)])

    assert "secret" not in repr(caught.value)
    assert "INSERT" not in str(caught.value)
    assert "delivery_status" in str(caught.value)
    assert caught.value.__suppress_context__


def test_text_that_cannot_be_written(database: str, engine: sa.engine.Engine) -> None:
    """A text that the database cannot hold is a failure of the ledger like any other, or none."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    if database.startswith("sqlite"):
        table.insert([row(detail="\0")])
    else:
        with pytest.raises(RopoLedgerError, match="NUL"):
            table.insert([row(detail="\0")])


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
        "e1": [LedgerEntry("sending", "abc", NOON, ME), LedgerEntry("delivered", "abc", NOON + tick, ME)],
        "e3": [LedgerEntry("sending", "", NOON, other)],
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

    assert {"RE1": twelve} == table.latest_deliveries(["RE1", "RE2", "RE4", "RE5"])


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


def test_closed(engine: sa.engine.Engine) -> None:
    """A table that is let go of keeps no connection."""
    table = LedgerTable(engine, "ropo_ledger")
    table.create_or_upgrade()

    table.close()

    assert 0 == getattr(engine.pool, "checkedin", lambda: 0)()
