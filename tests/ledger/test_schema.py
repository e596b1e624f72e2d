from __future__ import annotations

import datetime as dt
import logging
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_ropo.errors import RopoConfigurationError, RopoLedgerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.ledger.decisions import Action
from airflow_provider_ropo.ledger.digest import unkeyed
from airflow_provider_ropo.ledger.entries import Claimant, LedgerEntry
from airflow_provider_ropo.ledger.ledger import DeliveryLedger
from airflow_provider_ropo.ledger.schema import define_table
from airflow_provider_ropo.ledger.table import LedgerTable
from ledger_steps import DESTINATION, LedgerTime, actions, claim, send, written

MakeEngine = Callable[[str], sa.engine.Engine]
MakeEvent = Callable[..., UsageplaceEvent]
OpenLedger = Callable[..., DeliveryLedger]
MakeTable = Callable[..., LedgerTable]

COLUMNS = """
destination, event_id, usageplacecode, event_status, event_time, delivery_status, http_status, detail, payload_hash,
attempts, dag_id, task_id, run_id, map_index, try_number, process, recorded_at
"""
ME = Claimant("dag", "report", "run_1", -1, 2, "me")
NOON = dt.datetime(2024, 1, 4, 12, 0, 0, 123456)  # noqa: DTZ001 - as the ledger writes it

#: The table as the layout before made it.
EARLIER_LAYOUT = """
CREATE TABLE {} (
    event_id VARCHAR(255) NOT NULL, usageplacecode VARCHAR(255), event_status VARCHAR(32), event_time TIMESTAMP,
    delivery_status VARCHAR(32) NOT NULL, http_status INTEGER, detail VARCHAR(1000), payload_hash VARCHAR(128),
    attempts INTEGER NOT NULL, dag_id VARCHAR(250), task_id VARCHAR(250), run_id VARCHAR(250), map_index INTEGER,
    try_number INTEGER, recorded_at TIMESTAMP NOT NULL
)
"""
EARLIER_ROW = """
INSERT INTO ropo_ledger (event_id, usageplacecode, event_status, event_time, delivery_status, payload_hash, attempts,
    dag_id, task_id, run_id, map_index, try_number, recorded_at)
VALUES (:event_id, 'RE1', 'connected', '2024-01-04 10:00:00', :status, :digest, 1,
    'dag', 'report', 'before', -1, 1, '2024-01-03 05:00:00.123456')
"""

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


def row(event_id: str = "e1", status: str = "sending") -> dict[str, Any]:
    names = [name.strip() for name in COLUMNS.split(",")]
    values = {"event_id": event_id, "delivery_status": status, "attempts": 0, "recorded_at": NOON}
    return dict.fromkeys(names) | values | ME._asdict()


def run_sql(engine: sa.engine.Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement.replace("%", "%%") if engine.dialect.name != "sqlite" else statement)


def columns_of(engine: sa.engine.Engine, name: str) -> list[str]:
    return [column["name"] for column in sa.inspect(engine).get_columns(name)]


def make_earlier(engine: sa.engine.Engine, *rows: tuple[str, str, str | None]) -> None:
    """Make a table of the earlier layout: rows of an id, a delivery status and a digest."""
    run_sql(engine, EARLIER_LAYOUT.format("ropo_ledger"))
    with engine.begin() as connection:
        for event_id, status, digest in rows:
            values = {"event_id": event_id, "status": status, "digest": digest}
            connection.execute(sa.text(EARLIER_ROW), values)


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
    assert [LedgerEntry("sending", None, NOON, ME)] == LedgerTable(engine, name).entries(["e1"])["e1"]
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
def test_schemas(schema: str, postgres: Any, make_engine: MakeEngine, tables: MakeTable) -> None:
    """A table lives in the schema that its name says, however that is quoted."""
    engine = make_engine(postgres.address("public"))
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE SCHEMA {schema}"))
    table = tables(f'{schema}."Ropo Ledger"', user=engine)

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
    """The table has exactly the columns that are documented, in that order."""
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


# The view.


def states_in(engine: sa.engine.Engine, view: str = "ropo_ledger_state") -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return sorted(
            (row.event_id, row.delivery_status) for row in connection.execute(sa.text(f"SELECT * FROM {view}"))
        )


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "sqlite"])
def test_the_view_has_each_events_state(driver: str, postgres: Any, tmp_path: Path, make_engine: MakeEngine) -> None:
    """The view, made with the table, has the ledger's columns, and one row for each event."""
    server = driver != "sqlite" and postgres.address(postgres.make_schema(), driver=driver)
    engine = make_engine(server or f"sqlite:///{tmp_path / 'ledger.db'}")
    table = LedgerTable(engine, "ropo_ledger")

    table.create_or_upgrade()
    table.insert([row("e1", "delivered"), row("e2", "unconfirmed")])
    table.insert([row("e1", "undelivered") | {"recorded_at": NOON + dt.timedelta(seconds=1)}])

    assert [("e1", "delivered"), ("e2", "unconfirmed")] == states_in(engine)
    assert COLUMNS.split() == ", ".join(columns_of(engine, "ropo_ledger_state")).split()
    table.close()


@pytest.mark.parametrize("name", ['"Ropo Ledger"', '"100% :sure"'])
def test_the_view_of_a_quoted_name(name: str, engine: sa.engine.Engine) -> None:
    """The view of a table with a quoted name has the same name with an ending, quoted as well."""
    table = LedgerTable(engine, name)

    table.create_or_upgrade()

    assert [f"{name[1:-1]}_state"] == sa.inspect(engine).get_view_names()
    table.close()


def test_the_view_of_a_table_in_a_schema(postgres: Any, make_engine: MakeEngine, tables: MakeTable) -> None:
    """The view is in the schema of its table."""
    schema, engine = postgres.make_schema(), make_engine(postgres.address("public"))

    tables(f"{schema}.ropo_ledger", user=engine).create_or_upgrade()

    assert ["ropo_ledger_state"] == sa.inspect(engine).get_view_names(schema)


def test_the_view_is_added_to_a_table_that_is_there(engine: sa.engine.Engine, tables: MakeTable) -> None:
    """A table that is there, even of an earlier layout, gets its view; a second time nothing changes."""
    make_earlier(engine, ("e1", "delivered", None))
    table = tables()

    table.create_or_upgrade()
    table.create_or_upgrade()

    assert [("e1", "delivered")] == states_in(engine)


def test_a_view_that_may_not_be_made(modest: tuple[sa.engine.Engine, sa.engine.Engine], tables: MakeTable) -> None:
    """A role that may not create the view uses the table all the same."""
    owner, user = modest
    tables(user=owner).create_or_upgrade()
    run_sql(owner, "DROP VIEW ropo_ledger_state")
    table = tables(user=user)

    table.create_or_upgrade()
    table.insert([row()])

    assert [] == sa.inspect(owner).get_view_names()
    assert ["e1"] == list(table.entries(["e1"]))


def test_a_name_that_is_taken(engine: sa.engine.Engine, tables: MakeTable) -> None:
    """What has the view's name already is left alone."""
    run_sql(engine, "CREATE TABLE ropo_ledger_state (mine INTEGER)")

    tables().create_or_upgrade()

    assert ["mine"] == columns_of(engine, "ropo_ledger_state")


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


def make_together(database: str) -> list[str]:
    """Let two processes open twenty ledgers at once; return what they complained of."""
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

    return [maker.communicate(timeout=60)[1] for maker in makers]


def test_made_by_two_at_once(database: str, engine: sa.engine.Engine) -> None:
    """Two processes that both find the table missing make one, and neither fails."""
    errors = make_together(database)

    assert ["", ""] == errors
    assert {f"ledger_{number}" for number in range(20)} == set(sa.inspect(engine).get_table_names())


@pytest.fixture
def modest(postgres: Any, make_engine: MakeEngine) -> tuple[sa.engine.Engine, sa.engine.Engine]:
    """Return an empty schema: as its owner, and as a role that may create nothing in it."""
    schema, role = postgres.make_schema(), f"role_{uuid.uuid4().hex}"
    with postgres.connect(autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        connection.execute(f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT ON TABLES TO {role}")
    owner, user = (postgres.address(schema, driver="psycopg2", user=who) for who in (postgres.user, role))
    return make_engine(owner), make_engine(user)


def test_without_create_rights(modest: tuple[sa.engine.Engine, sa.engine.Engine], tables: MakeTable) -> None:
    """A table of another owner is used with no more than the right to read it and to add to it."""
    owner, user = modest
    tables(user=owner).create_or_upgrade()
    table = tables(user=user)

    table.create_or_upgrade()
    table.insert([row()])

    assert [LedgerEntry("sending", None, NOON, ME)] == table.entries(["e1"])["e1"]


def test_may_not_be_made(modest: tuple[sa.engine.Engine, sa.engine.Engine], tables: MakeTable) -> None:
    """A table that is missing and may not be made is an error that names the right that is lacking."""
    table = tables(user=modest[1])

    with pytest.raises(RopoConfigurationError) as caught:
        table.create_or_upgrade()

    message = str(caught.value)
    assert message.startswith(
        "the ledger ropo_ledger (connection 'warehouse') does not exist, and this role may not create it "
        "(permission denied for schema "
    )
    assert "grant it CREATE for the first run" in message


def test_may_not_be_read(modest: tuple[sa.engine.Engine, sa.engine.Engine], tables: MakeTable) -> None:
    """A table that is there and may not be read is an error that names the rights needed, not a second table."""
    owner, user = modest
    tables(user=owner).create_or_upgrade()
    run_sql(owner, f"REVOKE ALL ON ropo_ledger FROM {user.url.username}")

    with pytest.raises(RopoConfigurationError) as caught:
        tables(user=user).create_or_upgrade()

    assert (
        "the ledger ropo_ledger (connection 'warehouse') may not be read (permission denied for table ropo_ledger); "
        "this role needs SELECT and INSERT on it"
    ) == str(caught.value)


def test_may_not_be_upgraded(modest: tuple[sa.engine.Engine, sa.engine.Engine], tables: MakeTable) -> None:
    """A table of the earlier layout that this role may not alter is an error with the statement for its owner.

    That statement, run as it stands, is all that is needed.
    """
    owner, user = modest
    make_earlier(owner, ("e1", "delivered", None))
    table = tables(user=user)

    statements = []
    for _ in range(2):
        with pytest.raises(RopoConfigurationError, match="of an earlier version and lacks the column") as caught:
            table.create_or_upgrade()
        message = str(caught.value)
        assert "must be owner of table ropo_ledger" in message
        statements.append(message.split("let its owner run: ")[1])
        run_sql(owner, statements[-1])
    table.create_or_upgrade()

    assert [
        "ALTER TABLE ropo_ledger ADD COLUMN destination VARCHAR(255)",
        "ALTER TABLE ropo_ledger ADD COLUMN process VARCHAR(32)",
    ] == statements
    assert ["e1"] == list(table.entries(["e1"]))


def test_database_is_away(tmp_path: Path, make_engine: MakeEngine) -> None:
    """A database that cannot be reached is an error with its own reason."""
    engine = make_engine(f"sqlite:///{tmp_path / 'nowhere' / 'ledger.db'}")

    with pytest.raises(RopoLedgerError, match="could not be opened: unable to open database file"):
        LedgerTable(engine, "ropo_ledger").create_or_upgrade()


# A table of the earlier layout.


def test_an_earlier_layout_is_upgraded(
    engine: sa.engine.Engine, tables: MakeTable, caplog: pytest.LogCaptureFixture
) -> None:
    """The columns that a table of the earlier layout lacks are added and named in the log; its rows stay."""
    caplog.set_level(logging.INFO)
    make_earlier(engine, ("e1", "delivered", "0" * 112))
    table = tables()

    table.create_or_upgrade()
    table.create_or_upgrade()

    before = LedgerEntry(
        "delivered",
        "0" * 112,
        dt.datetime(2024, 1, 3, 5, 0, 0, 123456),  # noqa: DTZ001 - as the ledger writes it
        Claimant("dag", "report", "before", -1, 1, ""),
    )
    assert {name.strip() for name in COLUMNS.split(",")} == set(columns_of(engine, "ropo_ledger"))
    assert {"e1": [before]} == table.entries(["e1"])
    assert [
        f"The ledger ropo_ledger was of an earlier version: the column {name} was added"
        for name in ("destination", "process")
    ] == caplog.messages


def test_what_the_earlier_layout_knew_is_known(
    engine: sa.engine.Engine, open_ledger: OpenLedger, make_event: MakeEvent
) -> None:
    """What was delivered by the earlier layout is not sent again, to whatever destination; the rest goes on."""
    same, changed, lost = make_event("e1"), make_event("e2"), make_event("e3")
    make_earlier(
        engine,
        ("e1", "delivered", unkeyed(same)),
        ("e2", "delivered", unkeyed(make_event("e2", customernumber="A1"))),
        ("e3", "sending", unkeyed(lost)),
    )

    found = claim(open_ledger(ME), same, changed, lost, make_event("e4"))

    assert [Action.ALREADY_DELIVERED, Action.CONTENT_CHANGED, Action.SEND, Action.SEND] == actions(found)
    assert "its customernumber differ" in found[1].decision.detail
    assert [False, True] == [each.decision.unconfirmed for each in found[:1:-1]]


def test_an_upgraded_table_goes_on(
    engine: sa.engine.Engine, open_ledger: OpenLedger, clock: LedgerTime, make_event: MakeEvent
) -> None:
    """An upgraded table takes new rows, which say where an event went."""
    make_earlier(engine, ("e1", "undelivered", None))

    send(open_ledger(ME), make_event("e1"))

    assert [None, DESTINATION, DESTINATION] == [row.destination for row in written(engine)]


def test_two_upgrade_at_once(database: str, engine: sa.engine.Engine) -> None:
    """Two processes that both find a table of the earlier layout upgrade it once, and neither fails."""
    for number in range(20):
        run_sql(engine, EARLIER_LAYOUT.format(f"ledger_{number}"))

    errors = make_together(database)

    assert ["", ""] == errors
    assert [17] * 20 == [len(columns_of(engine, f"ledger_{number}")) for number in range(20)]


@pytest.mark.parametrize(
    "name", ['"Ropo Ledger"', '"100% :sure"', '"the ""ledger"" itself"', '"order"', '"permission denied"']
)
def test_any_name_is_upgraded(name: str, engine: sa.engine.Engine, tables: MakeTable) -> None:
    """A table of the earlier layout is upgraded whatever its name is."""
    run_sql(engine, EARLIER_LAYOUT.format(name))

    tables(name).create_or_upgrade()

    assert {"destination", "process"} <= set(columns_of(engine, define_table(name).name))


@pytest.mark.parametrize("name", ['"permission denied"', "privileges", "access_denied_ledger"])
def test_a_name_is_not_taken_for_an_error(name: str, engine: sa.engine.Engine, tables: MakeTable) -> None:
    """A missing table is created whatever its name says."""
    tables(name).create_or_upgrade()

    assert tables(name).exists()


def test_whether_a_table_is_a_ledger(engine: sa.engine.Engine, tables: MakeTable) -> None:
    """No table, and a table without ids of events, are told apart from a ledger."""
    run_sql(engine, "CREATE TABLE outcome (work_order_no VARCHAR(20))")
    tables("ropo_ledger").create_or_upgrade()

    assert [False, False, True] == [tables(name).exists() for name in ("nowhere", "outcome", "ropo_ledger")]


@pytest.mark.parametrize("address", ["postgresql+psycopg://nobody@127.0.0.1:1/none", "sqlite:///{folder}/x.db"])
def test_a_database_that_fails_is_not_one_without_a_ledger(
    address: str, tmp_path: Path, make_engine: MakeEngine
) -> None:
    """A server that is away, and a file that is no database, are errors: nobody knows what the ledger has."""
    (tmp_path / "x.db").write_text("this is no database")
    table = LedgerTable(make_engine(address.format(folder=tmp_path)), "ropo_ledger")

    with pytest.raises(RopoLedgerError, match="the ledger ropo_ledger could not be opened: "):
        table.exists()


def test_a_ledger_that_may_not_be_read_is_there(
    modest: tuple[sa.engine.Engine, sa.engine.Engine], tables: MakeTable
) -> None:
    """Where a role may not read the ledger, a preview cannot say what is known: it is an error."""
    owner, user = modest
    tables(user=owner).create_or_upgrade()
    run_sql(owner, f"REVOKE ALL ON ropo_ledger FROM {user.url.username}")

    with pytest.raises(RopoConfigurationError, match=r"may not be read .*; this role needs SELECT and INSERT on it"):
        tables(user=user).exists()


def test_no_ledger(engine: sa.engine.Engine, tables: MakeTable) -> None:
    """A table that is no ledger is refused by what it lacks, and is left as it is."""
    run_sql(engine, "CREATE TABLE outcome (event_id VARCHAR(20), detail VARCHAR(20))")

    with pytest.raises(RopoConfigurationError) as caught:
        tables("outcome").create_or_upgrade()

    assert "the table outcome (connection 'warehouse') is no ledger: it has no column usageplacecode," in str(
        caught.value
    )
    assert ["event_id", "detail"] == columns_of(engine, "outcome")


@pytest.mark.parametrize(
    ("status", "action"),
    [
        ("delivered", Action.ALREADY_DELIVERED),
        ("closed", Action.CLOSED),
        ("undelivered", Action.SEND),
        ("unconfirmed", Action.SEND),
        ("done", Action.UNREADABLE),
    ],
)
def test_a_row_written_by_hand(
    status: str, action: Action, engine: sa.engine.Engine, open_ledger: OpenLedger, make_event: MakeEvent
) -> None:
    """A row of an id and a delivery status is a valid row, of now, for any destination and content."""
    ledger = open_ledger(ME)
    run_sql(engine, f"INSERT INTO ropo_ledger (event_id, delivery_status) VALUES ('e1', '{status}')")

    [decision] = ledger.decide([make_event()])

    [row] = written(engine)
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    assert action is decision.action
    assert (0, None) == (row.attempts, row.destination)
    assert abs(now - row.recorded_at) < dt.timedelta(seconds=30)
