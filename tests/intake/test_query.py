from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import psycopg
import psycopg.rows
import psycopg2
import psycopg2.extras
import pytest
import redshift_connector.core

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.query import FETCH_SIZE, run_query

SERIES = """
WITH RECURSIVE series (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {count})
SELECT n FROM series WHERE n <= {count}
"""

# The connections that Airflow's two PostgreSQL drivers give, in each way of returning rows.
POSTGRES_CONNECTIONS: dict[str, Callable[[str], Any]] = {
    "psycopg": psycopg.connect,
    "psycopg-dict": lambda uri: psycopg.connect(uri, row_factory=psycopg.rows.dict_row),
    "psycopg-namedtuple": lambda uri: psycopg.connect(uri, row_factory=psycopg.rows.namedtuple_row),
    "psycopg2": psycopg2.connect,
    "psycopg2-dict": lambda uri: psycopg2.connect(uri, cursor_factory=psycopg2.extras.RealDictCursor),
    "psycopg2-namedtuple": lambda uri: psycopg2.connect(uri, cursor_factory=psycopg2.extras.NamedTupleCursor),
    "psycopg2-list": lambda uri: psycopg2.connect(uri, cursor_factory=psycopg2.extras.DictCursor),
}


@pytest.fixture(params=POSTGRES_CONNECTIONS)
def warehouse(request: pytest.FixtureRequest, postgres: Any) -> Iterator[Any]:
    """Connect to PostgreSQL, as each driver and setting does."""
    with closing(POSTGRES_CONNECTIONS[request.param](postgres.uri)) as connection:
        yield connection


@pytest.fixture
def sqlite() -> Iterator[sqlite3.Connection]:
    """Connect to an empty SQLite database."""
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.fixture(params=["sqlite", *POSTGRES_CONNECTIONS])
def database(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Connect to each of the databases."""
    if request.param == "sqlite":
        with closing(sqlite3.connect(":memory:")) as connection:
            yield connection
    else:
        uri = request.getfixturevalue("postgres").uri
        with closing(POSTGRES_CONNECTIONS[request.param](uri)) as connection:
            yield connection


def first_value(row: Any) -> Any:
    return next(iter(row.values())) if isinstance(row, dict) else row[0]


def rows_of(connection: Any, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    with run_query(connection, sql, parameters) as query:
        return [tuple(row) for row in query.rows]


def test_names_and_rows(database: Any) -> None:
    """A query gives its column names, and its rows in the order of the names."""
    sql = "SELECT 1 AS one, 'b' AS two UNION ALL SELECT 2, 'c' ORDER BY 1"

    with run_query(database, sql) as query:
        rows = [tuple(row) for row in query.rows]

    assert ["one", "two"] == query.names
    assert [(1, "b"), (2, "c")] == rows


@pytest.mark.parametrize("count", [0, 1, FETCH_SIZE - 1, FETCH_SIZE, FETCH_SIZE + 1, 2 * FETCH_SIZE])
def test_every_row_comes_once(count: int, database: Any) -> None:
    """No row is lost or doubled at the edges of a fetch."""
    assert [(number,) for number in range(1, count + 1)] == rows_of(database, SERIES.format(count=count))


def test_no_rows_have_names(database: Any) -> None:
    """A query without rows still says which columns it has, so that a wrong one is found on a quiet day."""
    with run_query(database, "SELECT 1 AS one WHERE 1 = 0") as query:
        assert ["one"] == query.names
        assert [] == list(query.rows)


# Named tuples with one name twice are refused by the drivers themselves.
@pytest.mark.parametrize(
    "database", [name for name in ["sqlite", *POSTGRES_CONNECTIONS] if "namedtuple" not in name], indirect=True
)
def test_names_that_stand_twice(database: Any) -> None:
    """Two columns of one name both show, so that they can be refused."""
    with run_query(database, "SELECT 1 AS id, 2 AS id") as query:
        assert ["id", "id"] == query.names


@pytest.mark.parametrize("parameters", [None, (), [], {}], ids=repr)
def test_percent_sign_without_parameters(parameters: Any, database: Any) -> None:
    """Without parameters a percent sign in the SQL is a percent sign."""
    assert [(1,)] == rows_of(database, "SELECT 1 AS one WHERE 'abc' LIKE '%c'", parameters)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT ? AS one, ? AS two", [1, "b"]),
        ("SELECT ? AS one, ? AS two", (1, "b")),
        ("SELECT :one AS one, :two AS two", {"one": 1, "two": "b"}),
    ],
    ids=["list", "tuple", "mapping"],
)
def test_parameters_of_sqlite(sql: str, parameters: Any, sqlite: sqlite3.Connection) -> None:
    """Parameters are given in SQLite's style."""
    assert [(1, "b")] == rows_of(sqlite, sql, parameters)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT %s::int AS one, %s::text AS two", [1, "b"]),
        ("SELECT %s::int AS one, %s::text AS two", (1, "b")),
        ("SELECT %(one)s::int AS one, %(two)s::text AS two", {"one": 1, "two": "b"}),
    ],
    ids=["list", "tuple", "mapping"],
)
def test_parameters_of_postgres(sql: str, parameters: Any, warehouse: Any) -> None:
    """Parameters are given in the PostgreSQL drivers' style."""
    assert [(1, "b")] == rows_of(warehouse, sql, parameters)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [("CREATE TABLE note (text)", "the SQL starts with CREATE"), ("-- nothing at all", "the SQL is empty")],
    ids=["statement", "comment"],
)
def test_sql_that_is_no_query(sql: str, reason: str, database: Any) -> None:
    """A statement that is no query is a mistake in the task, and is not run."""
    with pytest.raises(RopoConfigurationError, match=rf"^{reason}; it must be one SELECT"), run_query(database, sql):
        pass


def test_query_without_columns(postgres: Any) -> None:
    """A query that returns no columns is a mistake in the task."""
    with (
        closing(psycopg.connect(postgres.uri)) as connection,
        pytest.raises(RopoConfigurationError, match=r"^the SQL returns no columns; it must be one SELECT"),
        run_query(connection, "SELECT FROM generate_series(1, 2)"),
    ):
        pass


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT 1 AS one WHERE 'abc' LIKE 'a%' AND %s = 1", [1]),
        ("SELECT 1 AS one WHERE 'abc' LIKE '%c' AND %s = 1", [1]),
        ("SELECT 1 AS one -- 100 % of them\n WHERE %s = 1", [1]),
        ("SELECT 1 AS one WHERE 'abc' LIKE '%(c' AND %(one)s = 1", {"one": 1}),
    ],
    ids=["at the end", "before a letter", "comment", "mapping"],
)
def test_percent_sign_beside_parameters(sql: str, parameters: Any, warehouse: Any) -> None:
    """A percent sign that is no placeholder is a mistake in the task, whose message says how to write it."""
    with (
        pytest.raises(RopoConfigurationError, match="as in LIKE or in a comment, is written %%"),
        run_query(warehouse, sql, parameters),
    ):
        pass


def test_percent_sign_for_redshifts_own_driver() -> None:
    """Amazon's driver, which puts the parameters in itself, has an error of another class; the message is the same."""

    def execute(sql: str, parameters: Any) -> None:
        redshift_connector.core.convert_paramstyle("format", sql)

    cursor = SimpleNamespace(execute=execute, close=lambda: None, description=None)
    made = type("Connection", (), {"__module__": "redshift_connector.core", "cursor": lambda _self: cursor})

    with (
        pytest.raises(RopoConfigurationError, match="as in LIKE or in a comment, is written %%"),
        run_query(made(), "SELECT 1 WHERE 5 % 2 = %s", [1]),
    ):
        pass


def test_missing_parameter_of_sqlite(sqlite: sqlite3.Connection) -> None:
    """Where placeholders are no percent signs, parameters that do not fit are told in the driver's own words."""
    with pytest.raises(RopoConfigurationError, match="binding"), run_query(sqlite, "SELECT ? LIKE '%a', ?", [1]):
        pass


def test_doubled_percent_sign_beside_parameters(warehouse: Any) -> None:
    """As that message says, a percent sign is written twice."""
    assert [(1,)] == rows_of(warehouse, "SELECT 1 AS one WHERE 'abc' LIKE '%%c' AND %s = 1", [1])


@pytest.mark.parametrize("sql", ["\ufeffSELECT 1 AS one;", "SELECT 1 AS one\r\n;\r\n-- the end;\r\n"], ids=repr)
def test_sql_as_editors_leave_it(sql: str, database: Any) -> None:
    """A closing semicolon, comments, Windows line ends and a byte order mark disturb no database."""
    assert [(1,)] == rows_of(database, sql)


def test_sqlite_is_read_as_a_stream(sqlite: sqlite3.Connection) -> None:
    """SQLite is asked for a batch at a time: a million rows need no memory."""
    touched: list[int] = []
    sqlite.create_function("touch", 1, touched.append)

    with run_query(
        sqlite, SERIES.format(count=5 * FETCH_SIZE).replace("SELECT n FROM", "SELECT touch(n) FROM")
    ) as query:
        next(query.rows)

        assert FETCH_SIZE <= len(touched) <= FETCH_SIZE + 1


def test_postgres_is_read_as_a_stream(warehouse: Any) -> None:
    """PostgreSQL keeps the rows until they are fetched: those it has not made yet cannot fail yet."""
    late = 3 * FETCH_SIZE
    sql = f"SELECT 1 / ({late} - n) FROM generate_series(1, {2 * late}) AS n"

    with run_query(warehouse, sql) as query:
        early = [next(query.rows) for _ in range(2 * FETCH_SIZE)]
        with pytest.raises((psycopg.Error, psycopg2.Error), match="division by zero"):
            list(query.rows)

    assert 2 * FETCH_SIZE == len(early)


def test_no_fetch_asks_for_more_than_a_thousand_rows(warehouse: Any) -> None:
    """A fetch asks for no more than the 1,000 rows that Redshift on a single node allows."""
    sql = "SELECT 1 / (1001 - n) FROM generate_series(1, 1001) AS n"

    with run_query(warehouse, sql) as query:
        thousand = [next(query.rows) for _ in range(1_000)]
        with pytest.raises((psycopg.Error, psycopg2.Error), match="division by zero"):
            next(query.rows)

    assert 1_000 == len(thousand)


@pytest.mark.parametrize(("arraysize", "most"), [(1, FETCH_SIZE), (7, 7), (5 * FETCH_SIZE, FETCH_SIZE)])
def test_a_cursor_that_says_what_it_allows_is_obeyed(sqlite: sqlite3.Connection, arraysize: int, most: int) -> None:
    """A hook may set its cursors up for smaller fetches; a larger number is no reason to ask for more."""
    touched: list[int] = []
    sqlite.create_function("touch", 1, touched.append)

    class Hooked(sqlite3.Connection):
        def cursor(self, *_factory: Any) -> Any:
            made = sqlite.cursor()
            made.arraysize = arraysize
            return made

    with (
        closing(Hooked(":memory:")) as connection,
        run_query(
            connection, SERIES.format(count=2 * FETCH_SIZE).replace("SELECT n FROM", "SELECT touch(n) FROM")
        ) as query,
    ):
        next(query.rows)
        asked = len(touched)
        rest = list(query.rows)

    assert most <= asked <= most + 1
    assert 2 * FETCH_SIZE == 1 + len(rest)


def test_failure_of_the_warehouse_comes_out_as_it_is(warehouse: Any) -> None:
    """The driver's own error is not buried under one from tidying up."""
    with (
        pytest.raises((psycopg.Error, psycopg2.Error), match="division by zero"),
        run_query(warehouse, "SELECT 1 / 0"),
    ):
        pass


@pytest.mark.parametrize("read", [0, 1, 10 * FETCH_SIZE], ids=["none", "one", "all"])
def test_cursor_is_closed_at_the_end(read: int, warehouse: Any) -> None:
    """However far the rows were read, the server holds nothing open afterwards."""
    with run_query(warehouse, SERIES.format(count=3 * FETCH_SIZE)) as query:
        for _, _row in zip(range(read), query.rows, strict=False):
            pass

    with closing(warehouse.cursor()) as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert 0 == first_value(cursor.fetchone())


def test_cursor_is_closed_after_a_failure(warehouse: Any) -> None:
    """A bug between the rows leaves nothing open, and comes out as it is."""

    def stumble(_row: object) -> None:
        raise KeyError

    with pytest.raises(KeyError), run_query(warehouse, SERIES.format(count=10)) as query:
        list(map(stumble, query.rows))

    with closing(warehouse.cursor()) as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors")
        assert 0 == first_value(cursor.fetchone())


CELLS = {
    "id": "'e1'",
    "usageplacecode": "'643007572062443672'",
    "status": "'connected'",
    "time": "timestamp '2024-01-04 10:41:40.9'",
}
PAYLOAD = {
    "id": "e1",
    "usageplacecode": "643007572062443672",
    "time": "2024-01-04 10:41:40",
    "status": "connected",
    "description": "Usage place connected",
}
INVOICE = {"invoicenumber": "594294", "jobid": 1234}
OTHER = {"invoicenumber": "594295", "jobid": 1235}
INVOICES = json.dumps([INVOICE, OTHER])
BOTH = {"invoices": [INVOICE, OTHER]}

# Column, its cell in PostgreSQL, and what it makes of the payload.
TYPES: list[tuple[str, str, dict[str, Any]]] = [
    ("id", "uuid '12345678-1234-5678-1234-567812345678'", {"id": "12345678-1234-5678-1234-567812345678"}),
    ("id", "42::smallint", {"id": "42"}),
    ("usageplacecode", "643007572062443672::bigint", {}),
    ("usageplacecode", "643007572062443672::numeric", {}),
    ("usageplacecode", "643007572062443672::numeric(20, 2)", {}),
    ("usageplacecode", "'643007572062443672'::char(20)", {}),
    ("usageplacecode", "'643007572062443672'::varchar", {}),
    ("status", "true", {}),
    ("status", "1::numeric(3, 2)", {}),
    ("status", "'Connected'::char(20)", {}),
    ("time", "timestamptz '2024-01-04 08:41:40.9+00'", {}),
    ("time", "'2024-01-04 10:41:40'::text", {}),
    ("time", "(timestamptz '2024-01-04 08:41:40+00')::text", {}),
    ("time", "timestamptz '2024-07-04 08:41:40+00'", {"time": "2024-07-04 11:41:40"}),
    ("customernumber", "NULL::text", {}),
    ("customernumber", "'NaN'::numeric", {}),
    ("customernumber", "'NaN'::float8", {}),
    ("contract_no", "12345678901234567890123456789012345678901234567890::numeric", {
        "contract_no": "12345678901234567890123456789012345678901234567890",
    }),
    ("invoices", f"'{INVOICES}'::text", BOTH),
    ("invoices", f"'{INVOICES}'::json", BOTH),
    ("invoices", f"'{INVOICES}'::jsonb", BOTH),
    ("invoices", f"ARRAY['{json.dumps(INVOICE)}'::jsonb, '{json.dumps(OTHER)}'::jsonb]", BOTH),
    ("invoices", f"ARRAY['{json.dumps(INVOICE)}'::json, '{json.dumps(OTHER)}'::json]", BOTH),
    ("invoices", "(SELECT json_agg(x) FROM (VALUES ('594294', 1234)) AS x (invoicenumber, jobid))", {
        "invoices": [INVOICE],
    }),
    ("invoices", "'{}'::jsonb[]", {}),
    ("invoices", "'[]'::jsonb", {}),
    ("invoices", "'null'::jsonb", {}),
    ("invoices", "NULL::jsonb", {}),
    ("jobid", "1234::bigint", {"invoices": [{"jobid": 1234}]}),
    ("jobid", "643007572062443672::numeric", {"invoices": [{"jobid": 643007572062443672}]}),
]  # fmt: skip

# Column, its cell in PostgreSQL, and why it cannot be used.
REFUSED: list[tuple[str, str, str]] = [
    ("id", "1.5::numeric", "decimals"),
    ("usageplacecode", "643007572062443672::float8", "floating-point"),
    ("usageplacecode", "12::float4", "floating-point"),
    ("usageplacecode", "true", "boolean"),
    ("usageplacecode", "'Infinity'::numeric", "finite"),
    ("usageplacecode", "'abc'::bytea", "where a code or text is needed"),
    ("usageplacecode", "ARRAY['a']", "is a list"),
    ("status", "0", "not one of"),
    ("status", "false", "not one of"),
    ("time", "date '2024-01-04'", "date without a time of day"),
    ("time", "time '10:41:40'", "is a time"),
    ("time", "1704357700::bigint", "is a int"),
    ("time", "1704357700::numeric", "is a Decimal"),
    ("time", "timestamp '2024-03-31 03:30:00'", "does not exist in Europe/Helsinki"),
    ("time", "timestamp '0001-01-01 00:00:00'", "outside the calendar"),
    ("time", "timestamp 'infinity'", "outside the calendar"),
    ("time", "timestamp '-infinity'", "outside the calendar"),
    ("time", "timestamp '12024-01-04 10:41:40'", "outside the calendar"),
    ("time", "timestamp '0044-03-15 10:00:00 BC'", "outside the calendar"),
    ("time", "timestamptz 'infinity'", "outside the calendar"),
    ("time", "timestamptz '-infinity'", "outside the calendar"),
    ("time", "timestamptz '12024-01-04 08:41:40+00'", "outside the calendar"),
    ("time", "timestamptz '0044-03-15 10:00:00+00 BC'", "outside the calendar"),
    ("time", "timestamptz '9999-12-31 23:59:59.999999-05'", "outside the calendar"),
    ("time", "date 'infinity'", "outside the calendar"),
    ("time", "date '12024-01-04'", "outside the calendar"),
    ("time", "date '0044-03-15 BC'", "outside the calendar"),
    ("time", "time '24:00:00'", "is"),
    ("invoices", "'{\"jobid\": 1}'::jsonb", "is a dict"),
    ("invoices", "(repeat('[', 12000) || repeat(']', 12000))::jsonb", "not valid JSON"),
    ("invoices", "('[{\"jobid\": 1' || repeat('0', 5000) || '}]')::json", "not valid JSON"),
    ("invoices", "'[{\"jobid\": 1.5}]'::jsonb", "floating-point"),
    ("invoices", '\'[{"jobid": "A1"}]\'::jsonb', "whole number"),
    ("invoices", "ARRAY[594294, 594295]", "not an invoice"),
    ("jobid", "1234.5::numeric", "decimals"),
    ("jobid", "'1e3'::text", "whole number"),
]


def understand(warehouse: Any, field: str, cell: str) -> dict[str, Any]:
    cells = CELLS | {field: cell}
    select = ", ".join(f"{cell} AS {name}" for name, cell in cells.items())
    with run_query(warehouse, f"SELECT {select}") as query:
        reader = RowReader(query.names, statuses={1: "connected", "true": "connected"})
        return reader.read(next(query.rows), 1).to_payload()


@pytest.mark.parametrize(("field", "cell", "change"), TYPES, ids=[f"{field}={cell[:40]}" for field, cell, _ in TYPES])
def test_types_of_postgres(field: str, cell: str, change: dict[str, Any], warehouse: Any) -> None:
    """Columns are understood as they come from PostgreSQL's drivers."""
    assert PAYLOAD | change == understand(warehouse, field, cell)


@pytest.mark.parametrize(
    ("field", "cell", "reason"), REFUSED, ids=[f"{field}={cell[:40]}" for field, cell, _ in REFUSED]
)
def test_types_of_postgres_refused(field: str, cell: str, reason: str, warehouse: Any) -> None:
    """Columns that cannot be exact are refused as they come from PostgreSQL's drivers."""
    with pytest.raises(InvalidRowError, match=reason) as caught:
        understand(warehouse, field, cell)

    assert field == caught.value.column


# Column, its type in PostgreSQL, and a value of it that no Python can hold (3.13 still reads 8000 brackets).
UNREADABLE = [
    ("time", "timestamp", "'infinity'"),
    ("time", "timestamptz", "'-infinity'"),
    ("time", "timestamp", "'12024-01-04 10:41:40'"),
    ("time", "date", "'0044-03-15 BC'"),
    ("invoices", "jsonb", "repeat('[', 12000) || repeat(']', 12000)"),
]


@pytest.mark.parametrize(("field", "kind", "value"), UNREADABLE)
def test_unreadable_cell_takes_no_other_row_with_it(field: str, kind: str, value: str, warehouse: Any) -> None:
    """A cell that the driver has no value for makes its own row invalid; those before and after it are read."""
    cells = CELLS | {"time": "timestamp '2024-01-04 10:41:40'"}
    select = "SELECT " + ", ".join(f"{cell} AS {name}" for name, cell in cells.items() if name != field)
    other = f"{select}, NULL::{kind} AS {field}"

    with run_query(warehouse, f"{other} UNION ALL {select}, ({value})::{kind} UNION ALL {other}") as query:
        rows = [tuple(row) for row in query.rows]

    last = query.names.index(field)
    assert [False, True, False] == [isinstance(row[last], str) for row in rows]
    with pytest.raises(InvalidRowError):
        RowReader(query.names).read(rows[1], 2)


def test_unreadable_cells_of_other_columns(warehouse: Any) -> None:
    """What Python cannot hold in a column that no event has disturbs nobody."""
    others = [
        "timestamp 'infinity'",
        "interval '178000000 years'",
        "time '24:00:00'",
        "timetz '24:00:00+02'",
        "ARRAY[timestamp 'infinity', timestamp '12024-01-04']",
        "ARRAY[date '2024-01-04', date '0044-03-15 BC', NULL]",
        "tsrange('2024-01-04', '12024-01-04')",
        "(repeat('[', 12000) || repeat(']', 12000))::json",
    ]
    cells = CELLS | {f"other_{number}": cell for number, cell in enumerate(others)}

    with run_query(warehouse, "SELECT " + ", ".join(f"{cell} AS {name}" for name, cell in cells.items())) as query:
        payload = RowReader(query.names).read(next(query.rows), 1).to_payload()

    assert PAYLOAD == payload


def test_own_settings_of_the_connection_count(postgres: Any) -> None:
    """What a connection was told to make of a type, it still makes of it."""
    upper = psycopg2.extensions.new_type((1114,), "OWN", lambda text, _cursor: text and f"own {text}")

    with closing(psycopg2.connect(postgres.uri)) as connection:
        psycopg2.extensions.register_type(upper, connection)

        assert [("own 2024-01-04 00:00:00",)] == rows_of(connection, "SELECT timestamp '2024-01-04' AS time")


def test_other_cursors_stay_as_they_are(postgres: Any) -> None:
    """A connection's other cursors go on as their driver has it."""
    with closing(psycopg2.connect(postgres.uri)) as connection:
        rows_of(connection, "SELECT 1 AS one")
        with closing(connection.cursor()) as cursor:
            cursor.execute("SELECT timestamp 'infinity'")

            assert not isinstance(first_value(cursor.fetchone()), str)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Helsinki", "America/New_York"])
def test_time_zone_of_the_session(zone: str, warehouse: Any) -> None:
    """A timestamptz is the same moment in whatever zone the session shows it."""
    with closing(warehouse.cursor()) as cursor:
        cursor.execute(f"SET TIME ZONE '{zone}'")

    assert PAYLOAD == understand(warehouse, "time", "timestamptz '2024-01-04 08:41:40+00'")


def test_types_of_sqlite(sqlite: sqlite3.Connection) -> None:
    """SQLite's few types are understood: text, whole numbers and NULL."""
    sqlite.execute("CREATE TABLE outcome (UsagePlaceCode INTEGER, status TEXT, time TEXT, invoices TEXT, id TEXT)")
    sqlite.execute(
        "INSERT INTO outcome VALUES (643007572062443672, 'CONNECTED', '2024-01-04 08:41:40+00:00', ?, 'e1')",
        (INVOICES,),
    )

    with run_query(sqlite, "SELECT * FROM outcome") as query:
        payload = RowReader(query.names).read(next(query.rows), 1).to_payload()

    assert PAYLOAD | BOTH == payload


def test_real_numbers_of_sqlite(sqlite: sqlite3.Connection) -> None:
    """A code in a REAL column has lost its digits already: invalid."""
    sqlite.execute("CREATE TABLE outcome (usageplacecode REAL, status, time)")
    sqlite.execute("INSERT INTO outcome VALUES (643007572062443672, 'connected', '2024-01-04 10:41:40')")

    with run_query(sqlite, "SELECT * FROM outcome") as query, pytest.raises(InvalidRowError, match="floating-point"):
        RowReader(query.names).read(next(query.rows), 1)


@pytest.mark.parametrize("field", ["id", "usageplacecode", "status", "time", "description", "invoicenumber"])
def test_text_of_sqlite_that_is_no_unicode(field: str, sqlite: sqlite3.Connection) -> None:
    """Text in another encoding makes its own row invalid and is not shown; the rows around it are read."""
    cells = CELLS | {"time": "'2024-01-04 10:41:40'", "description": "'Usage place connected'", "invoicenumber": "'1'"}
    good = ", ".join(f"{cell} AS {name}" for name, cell in cells.items())
    broken = ", ".join(f"{cell} AS {name}" for name, cell in (cells | {field: "CAST(x'51E45158' AS TEXT)"}).items())
    errors, read = [], []

    with run_query(sqlite, f"SELECT {good} UNION ALL SELECT {broken} UNION ALL SELECT {good}") as query:
        reader = RowReader(query.names)
        for number, row in enumerate(query.rows, 1):
            try:
                read.append((number, reader.read(row, number).to_payload()))
            except InvalidRowError as error:
                errors.append(error)

    payload = PAYLOAD | {"invoices": [{"invoicenumber": "1"}]}
    assert [(1, payload), (3, payload)] == read
    assert [field] == [error.column for error in errors]
    assert "QX" not in str(errors[0])


def test_own_text_of_sqlite_counts(sqlite: sqlite3.Connection) -> None:
    """A connection that was told what to make of text still makes that of it."""
    sqlite.text_factory = bytes

    assert [(b"a",)] == rows_of(sqlite, "SELECT 'a' AS one")
