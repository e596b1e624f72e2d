"""The sharded example's query with its expressions for other databases, on the databases that are available."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jinja2
import pytest

SQL = Path(__file__).parents[2] / "example_dags" / "sql" / "usageplace_events_shard.sql"
SHARDS = 4
CODES = [f"643007572062{number:06}" for number in range(1000)] + [f"RE{number}" for number in range(1000)] + ["Mökki"]
#: Whatever the provider takes off a code's ends.
BLANKS = [char for char in map(chr, range(0x110000)) if char.isspace()]
EVENING = dt.datetime(2026, 1, 13, 20, 15)  # noqa: DTZ001 - as a warehouse has it

TABLE = """
CREATE TEMPORARY TABLE field_work_outcome (
    work_order_no VARCHAR(50), place_code VARCHAR(50), result VARCHAR(50), done_at TIMESTAMP, customer_no VARCHAR(50),
    contract_no VARCHAR(50), remark VARCHAR(50), invoice_no VARCHAR(50), ropo_jobid INTEGER, recorded_at TIMESTAMP
)
"""
INSERT = """
INSERT INTO field_work_outcome (work_order_no, place_code, invoice_no, done_at, recorded_at)
VALUES (%s, %s, %s, '2026-01-13 08:00:00', %s)
"""

Row = tuple[str | None, str | None, str]


class Warehouse:
    """An empty table in a database, and the example's query as that database needs it."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._execute("execute", TABLE)
        sql = SQL.read_text()
        (expression,) = re.findall(rf"(?m)-- +{name} +(.*)$", sql)
        sql, changed = re.subn(r"(?m)^ +abs\(.*:shards\)$", lambda _found: expression, sql)
        sql, compared = re.subn(r"(?m)= :shard$", "= %(shard)s", sql)
        assert (1, 1) == (changed, compared)
        if name.startswith("MariaDB"):
            sql = sql.replace("PARTITION BY coalesce", "PARTITION BY BINARY coalesce")
        # What Airflow gives a template, as far as the query uses it.
        evening = {"data_interval_end": EVENING + dt.timedelta(hours=1), "macros": dt}
        self._sql = jinja2.Template(sql).render(evening)

    def add(self, rows: Sequence[Row], recorded_at: dt.datetime = EVENING) -> None:
        """Load rows: id, code and invoice."""
        self._execute("executemany", INSERT, [[*row, recorded_at] for row in rows])

    def shards(self, shards: int = SHARDS) -> list[list[Row]]:
        """Return the rows of each shard."""
        found = [self._execute("execute", self._sql, {"shard": n, "shards": shards}) for n in range(shards)]
        return [[(row[0], row[1], row[7]) for row in rows] for rows in found]

    def _execute(self, how: str, *statement: Any) -> list[tuple[Any, ...]]:
        with closing(self._connection.cursor()) as cursor:
            getattr(cursor, how)(*statement)
            return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture(params=["PostgreSQL", "MariaDB, MySQL"])
def warehouse(request: pytest.FixtureRequest) -> Iterator[Warehouse]:
    """Return the warehouse in one of the databases."""
    if request.param == "PostgreSQL":
        connection = request.getfixturevalue("postgres").connect()
    else:
        connection = request.getfixturevalue("mariadb").connect(request.getfixturevalue("database"))
    with closing(connection):
        yield Warehouse(connection, request.param)


def shards_of(shards: list[list[Row]], column: int) -> dict[str | None, set[int]]:
    """Return in which shards each of a column's values is, blanks aside."""
    found = defaultdict(set)
    for shard, rows in enumerate(shards):
        for row in rows:
            value = row[column]
            found[value and value.strip()].add(shard)
    return found


@pytest.mark.parametrize("shards", [1, 4, 7])
def test_every_place_has_a_shard(warehouse: Warehouse, shards: int) -> None:
    """Every row is in one shard, and so is each place; the shards are about as big as each other."""
    rows = [(f"WO-{number}", code, "1") for number, code in enumerate(CODES)]
    warehouse.add(rows)
    warehouse.add([(f"{order}-again", f"  {code} ", "1") for order, code, _invoice in rows])
    warehouse.add([("WO-too-late", "RE1", "1")], EVENING + dt.timedelta(hours=1))

    found = warehouse.shards(shards)

    places = shards_of(found, 1)
    sizes = Counter(shard for (shard,) in places.values())
    assert 2 * len(CODES) == sum(map(len, found))
    assert set(CODES) == set(places)
    assert list(range(shards)) == sorted(sizes)
    assert max(sizes.values()) < 1.3 * min(sizes.values())


def test_blanks_of_any_kind_do_not_count(warehouse: Warehouse) -> None:
    """Each code is in one shard, whatever blanks are around it."""
    codes = ["643007572062443672", "RE12345", "RE 77-A", "Mökki"]
    written = [pattern.format(blank, code) for code in codes for blank in BLANKS for pattern in ("{0}{1}", "{1}{0}{0}")]
    warehouse.add([(f"WO-{number}", code, "1") for number, code in enumerate(written)])

    found = warehouse.shards()

    assert sorted(written) == sorted(code for rows in found for _order, code, _invoice in rows if code)
    assert dict.fromkeys(codes, 1) == {code: len(shards) for code, shards in shards_of(found, 1).items()}


def test_rows_of_an_event_stay_together(warehouse: Warehouse) -> None:
    """Rows of one id are in one shard, though one lacks its code, or has another."""
    rows: list[Row] = []
    for number in range(40):
        rows += [(f"no-code-{number}", f"RE{number}", "1"), (f"no-code-{number}", None, "2")]
        rows += [(f"blank-{number}", f"RE{number}", "1"), (f"blank-{number} ", " ", "2")]
        rows += [(f"two-{number}", f"RE{number}", "1"), (f"two-{number}", f"RE{number + 1}", "2")]
    warehouse.add(rows)

    found = warehouse.shards()

    events = shards_of(found, 0)
    assert sorted(rows, key=repr) == sorted((row for rows in found for row in rows), key=repr)
    assert {1} == {len(shards) for shards in events.values()}
    assert set(range(SHARDS)) == set.union(*events.values())


@pytest.mark.parametrize("order", [None, "", " "])
def test_rows_without_an_id_stay_with_their_place(warehouse: Warehouse, order: str | None) -> None:
    """Rows without an id are one event for each different content, each in its place's shard."""
    codes = CODES[:20]
    warehouse.add([(order, code, "1") for code in codes] + [(code, code, "2") for code in codes])

    found = warehouse.shards()

    places = shards_of(found, 1)
    assert 2 * len(codes) == sum(map(len, found))
    assert {1} == {len(shards) for shards in places.values()}
    assert set(range(SHARDS)) == set.union(*places.values())


def test_ids_that_differ_in_letter_case_are_two_events(warehouse: Warehouse) -> None:
    """Each place's rows are in one shard, though its events' ids are elsewhere in capital letters."""
    warehouse.add([(f"wo-{number}", f"RE{number}", "1") for number in range(40)])
    warehouse.add([(f"WO-{number}", f"RE{number + 1}", "1") for number in range(40)])

    found = warehouse.shards()

    assert 80 == sum(map(len, found))
    assert {1} == {len(shards) for shards in shards_of(found, 1).values()}


def test_an_event_without_any_code_is_in_the_first_shard(warehouse: Warehouse) -> None:
    """Where there is no code at all, the first shard has the row, once."""
    warehouse.add([("WO-1", None, "1")])

    found = warehouse.shards()

    assert [[("WO-1", None, "1")], [], [], []] == found
