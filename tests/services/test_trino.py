from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.query import FETCH_SIZE, run_query

trino = pytest.importorskip("trino.dbapi")

CELLS = {"id": "e1", "usageplacecode": "RE1", "status": "connected", "time": "2024-01-04 10:41:40.123"}


def scalar(name: str) -> dict[str, Any]:
    length = [{"kind": "LONG", "value": 2**31 - 1}] if name == "varchar" else []
    return {"rawType": name, "arguments": length}


def row_type(*fields: tuple[str | None, str]) -> dict[str, Any]:
    """Return how Trino's protocol describes a ROW with these fields, each with a name or without one."""
    arguments = [
        {
            "kind": "NAMED_TYPE",
            "value": {"typeSignature": scalar(kind)} | ({} if name is None else {"fieldName": {"name": name}}),
        }
        for name, kind in fields
    ]
    return {"rawType": "row", "arguments": arguments}


def array_of(signature: dict[str, Any]) -> dict[str, Any]:
    return {"rawType": "array", "arguments": [{"kind": "TYPE", "value": signature}]}


class Server(ThreadingHTTPServer):
    """What a Trino coordinator answers to one query, in the words of its HTTP protocol."""

    columns: list[dict[str, Any]]
    rows: list[list[Any]]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statements: list[str] = []

    def answer(self, types: dict[str, dict[str, Any]], *rows: list[Any]) -> None:
        self.columns = [
            {"name": name, "type": signature["rawType"], "typeSignature": signature}
            for name, signature in types.items()
        ]
        self.rows = list(rows)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def do_POST(self) -> None:
        sql = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.statements.append(sql)
        if ";" in sql:
            message = "line 1:9: mismatched input ';'. Expecting: ',', 'EXCEPT', 'FETCH', 'FROM', 'GROUP', <EOF>"
            self.say({"error": {"message": message, "errorCode": 1, "errorName": "SYNTAX_ERROR"}}, "FAILED")
        else:
            self.say({"columns": self.server.columns, "data": self.server.rows}, "FINISHED")

    def say(self, answer: dict[str, Any], state: str) -> None:
        stats = {"state": state, "queued": False, "scheduled": True}
        body = json.dumps({"id": "q1", "infoUri": "http://127.0.0.1/", "stats": stats} | answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server that speaks as Trino does."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def warehouse(server: Server) -> Iterator[Any]:
    """Connect to it with Trino's own driver."""
    with closing(trino.connect(host="127.0.0.1", port=server.server_port, user="ropo")) as connection:
        yield connection


def payloads_of(connection: Any, sql: str = "SELECT * FROM outcome") -> list[dict[str, Any]]:
    with run_query(connection, sql) as query:
        reader = RowReader(query.names)
        return [reader.read(row, number).to_payload() for number, row in enumerate(query.rows, 1)]


INVOICE = row_type(("invoicenumber", "varchar"), ("jobid", "bigint"))
TYPES = {name: scalar("varchar") for name in CELLS}


def test_invoices_as_an_array_of_rows(server: Server, warehouse: Any) -> None:
    """An ARRAY of ROWs is a list of invoices, every digit of them."""
    server.answer(
        TYPES | {"invoices": array_of(INVOICE)},
        [*CELLS.values(), [["594294", 1234], ["594295", 643007572062443672]]],
        [*(CELLS | {"id": "e2"}).values(), [["594294", None]]],
        [*(CELLS | {"id": "e3"}).values(), None],
    )

    first, second, third = payloads_of(warehouse)

    assert [
        {"jobid": 1234, "invoicenumber": "594294"},
        {"jobid": 643007572062443672, "invoicenumber": "594295"},
    ] == first["invoices"]
    assert [{"invoicenumber": "594294"}] == second["invoices"]
    assert "invoices" not in third


@pytest.mark.parametrize(
    "signature",
    [row_type((None, "varchar"), (None, "bigint")), row_type(("jobid", "bigint"), ("jobid", "bigint"))],
    ids=["without names", "one name twice"],
)
def test_rows_that_do_not_name_their_fields(signature: dict[str, Any], server: Server, warehouse: Any) -> None:
    """A ROW that does not name each field is no invoice: which is which would be a guess."""
    server.answer(TYPES | {"invoices": array_of(signature)}, [*CELLS.values(), [[1, 2]]])

    with pytest.raises(InvalidRowError, match="not an invoice"):
        payloads_of(warehouse)


@pytest.mark.parametrize(
    "sql", ["SELECT * FROM outcome;", "\ufeffSELECT * FROM outcome\r\n;\r\n", "SELECT * FROM outcome; -- the end;"]
)
def test_sql_as_editors_leave_it(sql: str, server: Server, warehouse: Any) -> None:
    """A closing semicolon, which Trino refuses, does not reach it."""
    server.answer(TYPES, list(CELLS.values()))

    assert ["e1"] == [payload["id"] for payload in payloads_of(warehouse, sql)]
    assert ["SELECT * FROM outcome"] == [each.strip() for each in server.statements]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM outcome",
        "MERGE INTO outcome USING b ON true WHEN MATCHED THEN DELETE",
        "CALL system.sync_partition_metadata('a', 'b', 'ADD')",
        "WITH a AS (SELECT 1) INSERT INTO outcome SELECT * FROM a",
        "SELECT 1; DELETE FROM outcome",
    ],
)
def test_sql_that_writes(sql: str, server: Server, warehouse: Any) -> None:
    """SQL that may write does not reach Trino."""
    with pytest.raises(RopoConfigurationError, match="must be one SELECT"):
        payloads_of(warehouse, sql)

    assert [] == server.statements


def test_every_row_comes_once(server: Server, warehouse: Any) -> None:
    """Every row comes once, however the fetches fall."""
    numbers = range(2 * FETCH_SIZE + 1)
    server.answer(TYPES, *([*(CELLS | {"id": f"e{number}"}).values()] for number in numbers))

    assert [f"e{number}" for number in numbers] == [payload["id"] for payload in payloads_of(warehouse)]
