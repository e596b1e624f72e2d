from __future__ import annotations

import datetime as dt
import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.query import run_query

pytest.importorskip("airflow.providers.google.cloud.hooks.bigquery")

from airflow.providers.google.cloud.hooks.bigquery import BigQueryHook
from google.api_core.client_options import ClientOptions

CELLS = {"id": "e1", "usageplacecode": "RE1", "status": "connected"}
SELECT = "SELECT * FROM outcome"


class Server(ThreadingHTTPServer):
    """What BigQuery answers to one query, in the words of its REST API."""

    fields: list[dict[str, Any]]
    rows: list[list[Any]]

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statements: list[str] = []
        self.job: dict[str, Any] = {}

    def answer(self, types: dict[str, str], *rows: list[Any]) -> None:
        self.fields = [{"name": name, "type": kind, "mode": "NULLABLE"} for name, kind in types.items()]
        self.rows = list(rows)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.statements.append(job["configuration"]["query"]["query"])
        self.server.job = job | {"status": {"state": "DONE"}, "statistics": {}, "id": "ropo:US.job"}
        self.say(self.server.job)

    def do_GET(self) -> None:
        if re.search("/queries/", self.path):
            rows = [{"f": [{"v": cell} for cell in row]} for row in self.server.rows]
            reference = self.server.job["jobReference"]
            self.say({
                "jobReference": reference, "jobComplete": True, "schema": {"fields": self.server.fields},
                "rows": rows, "totalRows": str(len(rows)),
            })  # fmt: skip
        else:
            self.say(self.server.job)

    def say(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class LoopbackHook(BigQueryHook):  # type: ignore[misc]
    """Airflow's hook, whose server is on this machine."""

    endpoint: str

    def get_client_options(self, *_arguments: object) -> ClientOptions:
        return ClientOptions(api_endpoint=self.endpoint)


@pytest.fixture
def server() -> Iterator[Server]:
    """Run a server that speaks as BigQuery does."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def warehouse(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Connect to it with Airflow's own hook."""
    extra = {"is_anonymous": True, "project": "ropo"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_BIGQUERY", json.dumps({"conn_type": "google_cloud_platform", "extra": json.dumps(extra)})
    )
    hook = LoopbackHook(gcp_conn_id="bigquery", use_legacy_sql=False, location="US")
    hook.endpoint = f"http://127.0.0.1:{server.server_port}"
    with closing(hook.get_conn()) as connection:
        yield connection


def payloads_of(connection: Any, sql: str = SELECT, parameters: Any = None) -> list[dict[str, Any]]:
    with run_query(connection, sql, parameters) as query:
        reader = RowReader(query.names)
        return [reader.read(row, number).to_payload() for number, row in enumerate(query.rows, 1)]


TYPES = dict.fromkeys(CELLS, "STRING")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.7043577001234560E9", "2024-01-04T08:41:40.123456+00:00"),
        ("1.704357700999999E9", "2024-01-04T08:41:40.999999+00:00"),
        ("1.7043577E9", "2024-01-04T08:41:40+00:00"),
        ("-1.000001E0", "1969-12-31T23:59:58.999999+00:00"),
    ],
)
def test_timestamp(text: str, expected: str, server: Server, warehouse: Any) -> None:
    """A TIMESTAMP is the moment that it is, to the microsecond."""
    server.answer({"time": "TIMESTAMP"}, [text])

    with run_query(warehouse, "SELECT time FROM outcome") as query:
        assert [[dt.datetime.fromisoformat(expected)]] == list(query.rows)


def test_timestamp_in_an_event(server: Server, warehouse: Any) -> None:
    """A TIMESTAMP is told to Ropo One in the zone's wall clock, and a NULL is missing."""
    server.answer(TYPES | {"time": "TIMESTAMP"}, [*CELLS.values(), "1.7043577001234560E9"])

    assert ["2024-01-04 10:41:40"] == [payload["time"] for payload in payloads_of(warehouse)]


def test_datetime(server: Server, warehouse: Any) -> None:
    """A DATETIME is the wall clock that it is."""
    server.answer(TYPES | {"time": "DATETIME"}, [*CELLS.values(), "2024-01-04T10:41:40.123456"])

    assert ["2024-01-04 10:41:40"] == [payload["time"] for payload in payloads_of(warehouse)]


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        ("FLOAT", "1.7043577E9", "is a float, .*CAST"),
        ("INTEGER", "1704357700", "is a int, .*CAST"),
        ("TIMESTAMP", "2.53402300799E11", "is a float, .*CAST"),
        ("TIMESTAMP", None, "is missing"),
    ],
)
def test_time_that_is_not_exact(kind: str, text: str | None, reason: str, server: Server, warehouse: Any) -> None:
    """A number that is no TIMESTAMP, or so late that a float cannot tell microseconds, is refused with the way out."""
    server.answer(TYPES | {"time": kind}, [*CELLS.values(), text])

    with pytest.raises(InvalidRowError, match=reason):
        payloads_of(warehouse)


@pytest.mark.parametrize("sql", [f"{SELECT};", f"#standardSQL\r\n{SELECT};\r\n", f"\ufeff{SELECT}\n"], ids=repr)
def test_sql_as_editors_leave_it(sql: str, server: Server, warehouse: Any) -> None:
    """A closing semicolon and a byte order mark are left out, and comments before the statement are not."""
    server.answer(TYPES | {"time": "STRING"}, [*CELLS.values(), "2024-01-04 10:41:40"])

    assert 1 == len(payloads_of(warehouse, sql))
    assert [sql.strip("\ufeff\r\n;")] == server.statements


def test_percent_sign_beside_parameters(server: Server, warehouse: Any) -> None:
    """A percent sign beside parameters is a mistake in the task, whose message says how to write it."""
    sql = f"{SELECT} WHERE note LIKE 'a%' AND id = %(id)s"

    with pytest.raises(RopoConfigurationError, match="is written %%"):
        payloads_of(warehouse, sql, {"id": "e1"})

    assert [] == server.statements


@pytest.mark.parametrize("sql", ["UPDATE outcome SET a = 1 WHERE true", "SELECT 1; DELETE FROM outcome WHERE true"])
def test_sql_that_writes(sql: str, server: Server, warehouse: Any) -> None:
    """SQL that may write does not reach BigQuery."""
    with pytest.raises(RopoConfigurationError, match="must be one SELECT"):
        payloads_of(warehouse, sql)

    assert [] == server.statements
