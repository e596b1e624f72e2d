from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import psycopg
import psycopg.rows
import psycopg2
import psycopg2.extras
import pytest

from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.query import run_query

#: Ä in Latin-1, as a literal of a database without encoding.
LATIN1 = "E'\\304'"
TABLE = (
    "CREATE TYPE grade AS ENUM ('Ä')",
    """CREATE TABLE outcome (
        id int, usageplacecode varchar, status text, time timestamp, description text, note grade, invoices json
    )""",
    """INSERT INTO outcome SELECT n, 'REÄ' || n, 'connected', '2024-01-04 10:41:40', 'Ä', 'Ä',
        '[{"invoicenumber": "Ä", "jobid": 1}]' FROM generate_series(1, 3) AS n""",
)
CONNECT: dict[str, Callable[..., Any]] = {
    "psycopg": psycopg.connect,
    "psycopg-dict": lambda **to: psycopg.connect(row_factory=psycopg.rows.dict_row, **to),
    "psycopg2": psycopg2.connect,
    "psycopg2-namedtuple": lambda **to: psycopg2.connect(cursor_factory=psycopg2.extras.NamedTupleCursor, **to),
    "psycopg2-list": lambda **to: psycopg2.connect(cursor_factory=psycopg2.extras.DictCursor, **to),
}


@pytest.fixture(scope="module")
def encodings(postgres: Any) -> dict[str, str]:
    """Make a database of each encoding, with rows of UTF-8 in it; return its name."""
    names = {}
    for encoding in ("SQL_ASCII", "UTF8", "LATIN1"):
        names[encoding] = f"db_{uuid.uuid4().hex}"
        with postgres.connect(autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {names[encoding]} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
        where = {"host": postgres.host, "port": postgres.port, "user": postgres.user, "dbname": names[encoding]}
        with psycopg.connect(**where) as connection:
            connection.execute("SET client_encoding TO 'UTF8'")
            for sql in TABLE:
                connection.execute(sql)
    return names


@pytest.fixture(params=CONNECT)
def connect(request: pytest.FixtureRequest, postgres: Any, encodings: dict[str, str]) -> Iterator[Callable[..., Any]]:
    """Return a shorthand for connections to the database of an encoding, with each driver."""
    where = {"host": postgres.host, "port": postgres.port, "user": postgres.user}
    with ExitStack() as stack:
        yield lambda encoding, **options: stack.enter_context(
            closing(CONNECT[request.param](dbname=encodings[encoding], **where, **options))
        )


def read(connection: Any, sql: str, parameters: Any = None) -> tuple[list[dict[str, Any]], list[InvalidRowError]]:
    """Return the payloads of the rows that can be events, and the errors of the others."""
    payloads, errors = [], []
    with run_query(connection, sql, parameters) as query:
        reader = RowReader(query.names)
        for number, row in enumerate(query.rows, 1):
            try:
                payloads.append(reader.read(row, number).to_payload())
            except InvalidRowError as error:
                errors.append(error)
    return payloads, errors


ENCODINGS = [
    ("SQL_ASCII", {}),
    ("SQL_ASCII", {"client_encoding": "UTF8"}),
    ("UTF8", {}),
    ("UTF8", {"client_encoding": "SQL_ASCII"}),
    ("UTF8", {"client_encoding": "LATIN1"}),
    ("LATIN1", {"client_encoding": "SQL_ASCII"}),
]


@pytest.mark.parametrize(("encoding", "options"), ENCODINGS, ids=[f"{name}-{also}" for name, also in ENCODINGS])
def test_text_is_text(encoding: str, options: dict[str, str], connect: Callable[..., Any]) -> None:
    """Text comes as it was written, in each encoding of the database and of the connection, in every type."""
    payloads, errors = read(connect(encoding, **options), "SELECT * FROM outcome ORDER BY id")

    assert [] == errors
    assert ["REÄ1", "REÄ2", "REÄ3"] == [payload["usageplacecode"] for payload in payloads]
    assert ["Ä"] * 3 == [payload["description"] for payload in payloads]
    assert [[{"jobid": 1, "invoicenumber": "Ä"}]] * 3 == [payload["invoices"] for payload in payloads]


@pytest.mark.parametrize("options", [{}, {"client_encoding": "UTF8"}], ids=["default", "UTF8"])
@pytest.mark.parametrize("field", ["usageplacecode", "description"])
def test_text_that_is_no_utf8(field: str, options: dict[str, str], connect: Callable[..., Any]) -> None:
    """A cell in another encoding makes its own row invalid and no other, and the reason names the setting."""
    fields = {"id": "id", "usageplacecode": "usageplacecode", "description": "description"}
    broken = fields | {field: f"CASE id WHEN 2 THEN {LATIN1} ELSE {field} END"}
    select = ", ".join(f"{cell} AS {name}" for name, cell in broken.items())

    payloads, errors = read(connect("SQL_ASCII", **options), f"SELECT {select}, status, time FROM outcome ORDER BY id")

    assert ["1", "3"] == [payload["id"] for payload in payloads]
    assert [("row 2 (id 2)", field)] == [(error.row, error.column) for error in errors]
    assert "client_encoding" in errors[0].reason


def test_latin1_where_the_connection_says_so(connect: Callable[..., Any]) -> None:
    """As that reason says, with the right encoding on the connection the same cell is text."""
    sql = f"SELECT id, {LATIN1} AS usageplacecode, status, time FROM outcome WHERE id = 1"

    payloads, errors = read(connect("SQL_ASCII", client_encoding="LATIN1"), sql)

    assert ([], ["Ä"]) == (errors, [payload["usageplacecode"] for payload in payloads])


@pytest.mark.parametrize(("encoding", "options"), ENCODINGS, ids=[f"{name}-{also}" for name, also in ENCODINGS])
def test_text_that_is_sent(encoding: str, options: dict[str, str], connect: Callable[..., Any]) -> None:
    """Text in the SQL and in its parameters is what the database has, too."""
    sql = "SELECT id FROM outcome WHERE description = 'Ä' AND usageplacecode = %s"

    with run_query(connect(encoding, **options), sql, ["REÄ2"]) as query:
        assert [[2]] == [list(row) for row in query.rows]


@pytest.mark.parametrize("connect", ["psycopg", "psycopg-dict", "psycopg2", "psycopg2-list"], indirect=True)
def test_name_of_a_column(connect: Callable[..., Any]) -> None:
    """A column's name is text, too."""
    with run_query(connect("SQL_ASCII"), 'SELECT 1 AS "Ä", 2 AS b') as query:
        assert ["Ä", "b"] == query.names
        assert [[1, 2]] == [list(row) for row in query.rows]


def test_character_that_the_connection_lacks(connect: Callable[..., Any]) -> None:
    """A character that the connection's encoding does not have stops no row."""
    with run_query(connect("UTF8", client_encoding="LATIN1"), "SELECT '€' AS a UNION ALL SELECT 'b'") as query:
        assert ["€", "b"] == [row[0] for row in query.rows]


def test_other_types_of_a_database_without_encoding(connect: Callable[..., Any]) -> None:
    """Enumerations, arrays, and what is escaped in JSON come right as well."""
    sql = """SELECT note AS a, ARRAY['Ä', NULL] AS b, '[{"invoicenumber": "\\u20ac\\u00c4"}]'::json AS c,
        ARRAY['{"invoicenumber": "Ä"}'::json] AS d, 1 AS e, NULL AS f FROM outcome"""

    with run_query(connect("SQL_ASCII"), sql) as query:
        row = list(next(query.rows))
        cells = {"id": "e1", "usageplacecode": "R", "status": "connected", "time": "2024-01-04 10:41:40"}
        invoices = [
            RowReader([*cells, "invoices"]).read([*cells.values(), value]).to_payload()["invoices"]
            for value in (row[2], row[3])
        ]

    assert ["Ä", ["Ä", None], 1, None] == [row[0], row[1], row[4], row[5]]
    assert [[{"invoicenumber": "€Ä"}], [{"invoicenumber": "Ä"}]] == invoices
