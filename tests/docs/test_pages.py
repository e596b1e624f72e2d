"""The pages are correct: what needs no Airflow of their code blocks and tables is run, or compared with what is so."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
import tomllib
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from airflow_provider_ropo.delivery import DeliveryStatus
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.columns import status_map
from airflow_provider_ropo.ledger.schema import create_or_upgrade, define_table
from airflow_provider_ropo.reporting.summary import DeliverySummary
from documents import ROOT, block, blocks, page, pages

#: Pages whose blocks another test file reads on its own, and checks.
ELSEWHERE = {"files": "tests/airflow/test_files_page.py", "recipes/alerts": "tests/airflow/test_notifications.py"}


@cache
def asked_for() -> dict[str, set[str]]:
    """Return the beginnings of blocks that tests ask for, by page."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "block":
                name, beginning = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
                found.setdefault(str(name), set()).add(str(beginning))
    return found


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_other_tests_check_the_other_pages(name: str) -> None:
    """The test file that checks a page on its own reads it."""
    assert f"{name.rpartition('/')[2]}.md" in (ROOT / ELSEWHERE[name]).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in pages() if name not in ELSEWHERE])
def test_every_block_has_a_test(name: str) -> None:
    """Each code block of each page is asked for by a test."""
    beginnings = tuple(asked_for().get(name, ()))

    assert [] == [text for text in blocks(name) if not text.startswith(beginnings)]


def test_the_row_and_the_payload() -> None:
    """The table's row becomes the payload below it."""
    head, _, cells = re.findall(r"^\|(.*)\|$", page("rows").partition("## A row")[2], re.MULTILINE)[:3]
    row = dict(zip(_cells(head), (None if cell == "*NULL*" else cell for cell in _cells(cells)), strict=True))

    payload = UsageplaceEvent.from_row(row).to_payload()

    assert json.loads(block("rows", '{\n  "id":')) == payload


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


def test_the_derived_id(capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe for an id gives the id of a row without one."""
    exec(block("rows", "import hashlib"), {})  # noqa: S102 - the page's own

    row = {
        "usageplacecode": "643007572062443672",
        "status": "disconnected",
        "time": "2024-01-04 10:41:40",
        "customernumber": "A123456",
        "contract_no": "555555b",
    }
    assert UsageplaceEvent.from_row(row).id == capsys.readouterr().out.strip()


def test_the_map_of_statuses() -> None:
    """The example of ``statuses`` can be used."""
    names: dict[str, Any] = {}
    exec(block("rows", "statuses = "), names)  # noqa: S102 - the page's own

    assert 3 == len(status_map(names["statuses"]))


def test_the_counts_in_xcom() -> None:
    """The example of the counts has all of them, in the order in which they come, and they add up."""
    counts = ast.literal_eval(block("operator", '{\n    "rows"'))

    assert [*DeliverySummary().as_dict()] == [*counts]
    assert counts["events"] == sum(counts[status] for status in DeliveryStatus)


def test_the_tables_of_statuses_are_complete() -> None:
    """The operator's page and the runbook have every delivery status."""
    in_operator = re.findall(r"^\| `(\w+)` \|", page("operator").partition("## Delivery statuses")[2], re.MULTILINE)
    in_runbook = re.findall(r"^\| \*\*.*?\(`(\w+)`\)", page("runbook"), re.MULTILINE)

    statuses = {status.value for status in DeliveryStatus}
    assert statuses == statuses & set(in_operator)
    assert statuses == set(in_runbook)


def test_the_ledger_table_is_the_one_that_is_made() -> None:
    """The statement that creates the ledger by hand is the one that the operator runs on PostgreSQL."""
    made = str(CreateTable(define_table("ropo_ledger")).compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]

    shown = block("ledger", "CREATE TABLE ropo_ledger").partition(";")[0]

    assert made.split() == shown.replace("(\n", "(\n ").split()


def test_the_ledger_by_hand_can_be_used(make_engine: Any, postgres: Any) -> None:
    """On PostgreSQL, the statements and the grant run, and the operator takes the table as it is."""
    engine = make_engine(postgres.address(postgres.make_schema()))
    with engine.begin() as connection:
        connection.exec_driver_sql("DO $$ BEGIN CREATE ROLE ropo_reporter; EXCEPTION WHEN duplicate_object THEN END $$")
        connection.exec_driver_sql(block("ledger", "CREATE TABLE ropo_ledger"))
        connection.exec_driver_sql(block("ledger", "GRANT SELECT, INSERT"))

    create_or_upgrade(engine, define_table("ropo_ledger"), "")

    indexes = {index["name"] for index in sa.inspect(engine).get_indexes("ropo_ledger")}
    assert {f"ropo_ledger_{name}" for name in ("event_id", "usageplacecode", "run_id")} == indexes


def test_what_another_system_reported_is_known(tmp_path: Path) -> None:
    """The statement that writes the past to the ledger runs, and leaves out what landed later."""
    with closing(sqlite3.connect(tmp_path / "warehouse.db")) as database:
        database.execute(str(CreateTable(define_table("ropo_ledger"))))
        database.execute("CREATE TABLE outcomes (id, landed_at)")
        database.executemany("INSERT INTO outcomes VALUES (?, ?)", [("e1", "2026-01-31"), ("e2", "2026-02-01")])
        database.execute(block("recipes/backfills", "INSERT INTO ropo_ledger"))
        found = database.execute("SELECT event_id, delivery_status, attempts FROM ropo_ledger").fetchall()

    assert [("e1", "delivered", 0)] == found


def test_the_picture_of_the_layers_is_the_checked_one() -> None:
    """The picture has the layers that the import contract holds, in its order, with every file and folder."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    checked = [set(layer.split(" | ")) for layer in pyproject["tool"]["importlinter"]["contracts"][0]["layers"]]
    package = ROOT / "airflow_provider_ropo"

    lines = block("architecture", "cli/").splitlines()
    drawn = [set(re.findall(r"(\w+)(?:/|\.py)(?=\s|$)", line)) for line in lines]

    assert checked == [layer for layer in drawn if layer]
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} == set().union(*checked)


def test_the_picture_of_the_protocol_uses_its_words() -> None:
    """The statuses in the picture of the protocol are statuses of the ledger."""
    picture = block("architecture", "            look up")

    for status in ("sending", "unconfirmed", "held", "already_delivered", "changed", "closed"):
        assert status in picture
        assert status == "sending" or DeliveryStatus(status)


def test_every_metric_is_in_the_table() -> None:
    """The table of metrics has the name of each metric that is sent, and no other."""
    source = (ROOT / "airflow_provider_ropo" / "task" / "metrics.py").read_text(encoding="utf-8")
    sent = set(re.findall(r'send\("\w+", f?"(ropo\.\w+)', source))

    assert sent == set(re.findall(r"^\| `(ropo\.\w+)", page("observability"), re.MULTILINE))


def test_the_pod_is_one_for_airflow() -> None:
    """The pod's container has the name that Airflow needs, and its spool is on the volume."""
    pod = yaml.safe_load(block("recipes/shards", "apiVersion"))

    (container,) = pod["spec"]["containers"]
    assert "base" == container["name"]
    (variable,) = container["env"]
    assert {"name": "SQLITE_TMPDIR", "value": container["volumeMounts"][0]["mountPath"]} == variable


def test_the_shards_of_the_page_are_those_of_the_example() -> None:
    """The expressions of a shard are those in the example's query, with a number for its parameter."""
    query = (ROOT / "example_dags" / "sql" / "usageplace_events_shard.sql").read_text(encoding="utf-8")
    expressions = re.findall(r"^\| [\w, ]+ \| `(.*)` \|$", page("recipes/shards"), re.MULTILINE)

    assert 4 == len(expressions)
    assert [] == [each for each in expressions if each.replace(" 4)", " %(shards)s)") not in query]


@pytest.mark.parametrize(
    "driver", ["psycopg", "psycopg2-binary", "duckdb", "duckdb-engine", "pymysql", "trino", "numpy", "pyarrow"]
)
def test_the_drivers_that_were_tried(driver: str) -> None:
    """The versions of drivers on the page are those that the tests use."""
    (version,) = re.findall(
        rf"^{re.escape(driver)}==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    shown = version.removesuffix(".0") if driver == "trino" else version

    assert f"{driver.removesuffix('-binary')} {shown}" in page("warehouses")


def test_snowflakes_driver_is_the_one_that_was_tried() -> None:
    """The version of Snowflake's driver on the page is the one that the tests use."""
    requirements = (ROOT / "tests" / "services" / "snowflake" / "requirements.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^snowflake-connector-python==(\S+)$", requirements, re.MULTILINE)

    assert f"snowflake-connector-python {version}" in page("warehouses")


def test_the_supported_versions() -> None:
    """The versions on the page are those that the matrix tests, and those between them."""
    source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    supported = dict(re.findall(r'^    "([\d.]+)": \(\["3.11", .*?"(3\.\d+)"\]', source, re.MULTILINE))
    table = dict(re.findall(r"^\| (\d\.\d+) \| 3\.11(?: to|,) (3\.\d+) \|", page("versions"), re.MULTILINE))

    assert supported == {airflow: python for airflow, python in table.items() if airflow in supported}
    assert {"3.1": supported["3.3"], "3.2": supported["3.3"]} == {
        airflow: python for airflow, python in table.items() if airflow not in supported
    }
