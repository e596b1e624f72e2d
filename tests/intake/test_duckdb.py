from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import duckdb
import pytest

from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.query import FETCH_SIZE, run_query

CELLS = {
    "id": "'e1'",
    "usageplacecode": "'643007572062443672'",
    "status": "'connected'",
    "time": "TIMESTAMP '2024-01-04 10:41:40.9'",
}
PAYLOAD = {
    "id": "e1",
    "usageplacecode": "643007572062443672",
    "time": "2024-01-04 10:41:40",
    "status": "connected",
    "description": "Usage place connected",
}
INVOICE = {"jobid": 1234, "invoicenumber": "594294"}
STRUCT = "{'invoicenumber': '594294', 'jobid': 1234}"


@pytest.fixture
def warehouse() -> Iterator[duckdb.DuckDBPyConnection]:
    """Connect to an empty DuckDB database."""
    with closing(duckdb.connect()) as connection:
        yield connection


def understand(warehouse: Any, field: str, cell: str) -> dict[str, Any]:
    select = ", ".join(f"{cell} AS {name}" for name, cell in (CELLS | {field: cell}).items())
    with run_query(warehouse, f"SELECT {select};") as query:
        return RowReader(query.names).read(next(query.rows), 1).to_payload()


# Column, its cell in DuckDB, and what it makes of the payload.
TYPES: list[tuple[str, str, dict[str, Any]]] = [
    ("id", "UUID '12345678-1234-5678-1234-567812345678'", {"id": "12345678-1234-5678-1234-567812345678"}),
    ("usageplacecode", "643007572062443672::BIGINT", {}),
    ("usageplacecode", "643007572062443672::HUGEINT", {}),
    ("usageplacecode", "643007572062443672::DECIMAL(20, 2)", {}),
    ("time", "'2024-01-04 10:41:40'::TIMESTAMP_NS", {}),
    ("time", "'2024-01-04 10:41:40'::TIMESTAMP_S", {}),
    ("time", "'2024-01-04 10:41:40'", {}),
    ("invoices", f"[{STRUCT}]", {"invoices": [INVOICE]}),
    ("invoices", f"[{STRUCT}, {STRUCT}]::STRUCT(invoicenumber VARCHAR, jobid BIGINT)[2]", {"invoices": [INVOICE]}),
    ("invoices", f"[{STRUCT}]::JSON", {"invoices": [INVOICE]}),
    ("invoices", f"[{STRUCT}::JSON]", {"invoices": [INVOICE]}),
    ("invoices", "[MAP {'invoicenumber': '594294', 'jobid': '1234'}]", {"invoices": [INVOICE]}),
    ("invoices", "[]", {}),
    ("invoices", "NULL", {}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "cell", "change"), TYPES, ids=[f"{field}={cell[:40]}" for field, cell, _ in TYPES])
def test_types_of_duckdb(field: str, cell: str, change: dict[str, Any], warehouse: Any) -> None:
    """Columns are understood as they come from DuckDB."""
    assert PAYLOAD | change == understand(warehouse, field, cell)


# Column, its cell in DuckDB, and why it cannot be used.
REFUSED: list[tuple[str, str, str]] = [
    ("usageplacecode", "643007572062443672::DOUBLE", "floating-point"),
    ("usageplacecode", "12::FLOAT", "floating-point"),
    ("usageplacecode", "'abc'::BLOB", "is a bytes, where a code or text is needed; it is binary"),
    ("usageplacecode", "repeat('x', 256)", "has more than 255 characters"),
    ("time", "DATE '2024-01-04'", "date without a time of day"),
    ("time", "'infinity'::TIMESTAMP", "outside the calendar"),
    ("time", "epoch(TIMESTAMP '2024-01-04 10:41:40')", "is a float, where a timestamp"),
    ("invoices", STRUCT, "is a dict, where a list of invoices is needed"),
    ("invoices", "[{'jobid': 1234.0::DOUBLE}]", "floating-point"),
    ("invoices", "['594294']", "not an invoice"),
]


@pytest.mark.parametrize(
    ("field", "cell", "reason"), REFUSED, ids=[f"{field}={cell[:40]}" for field, cell, _ in REFUSED]
)
def test_types_of_duckdb_refused(field: str, cell: str, reason: str, warehouse: Any) -> None:
    """Columns that cannot be exact are refused as they come from DuckDB."""
    with pytest.raises(InvalidRowError, match=reason) as caught:
        understand(warehouse, field, cell)

    assert field == caught.value.column


def test_every_row_comes_once(warehouse: Any) -> None:
    """Every row comes once, however the fetches fall."""
    with run_query(warehouse, f"FROM range({2 * FETCH_SIZE + 1})") as query:
        assert list(range(2 * FETCH_SIZE + 1)) == [row[0] for row in query.rows]
