"""What the sharded example says its line is elsewhere, on the databases that are at hand."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

SQL = Path(__file__).parents[2] / "example_dags" / "sql" / "usageplace_events_shard.sql"
CODES = [f"643007572062{number:06}" for number in range(1000)] + [f"RE{number}" for number in range(1000)] + ["Mökki"]


@pytest.fixture(params=["PostgreSQL", "MariaDB, MySQL"])
def connection(request: pytest.FixtureRequest) -> Any:
    """Return an open connection, and the database's name in the example."""
    if request.param == "PostgreSQL":
        return request.getfixturevalue("postgres").connect(), request.param
    return request.getfixturevalue("mariadb").connect(request.getfixturevalue("database")), request.param


@pytest.mark.parametrize("shards", [1, 4, 7])
def test_every_code_has_a_shard(connection: Any, shards: int) -> None:
    """Each code is in one shard, with or without blanks around it; the shards are about as big as each other."""
    database, name = connection
    (expression,) = re.findall(rf"-- +{name} +(.*) AS shard", SQL.read_text())
    expression = expression.replace("{{ params.shards }}", str(shards))
    with closing(database), closing(database.cursor()) as cursor:
        cursor.execute("CREATE TEMPORARY TABLE work (place_code VARCHAR(50))")
        cursor.executemany("INSERT INTO work VALUES (%s)", [[code] for code in CODES])
        cursor.executemany("INSERT INTO work VALUES (%s)", [[f"  {code} "] for code in CODES])
        cursor.execute(f"SELECT DISTINCT trim(place_code), {expression} FROM work")
        found = cursor.fetchall()
        cursor.execute(f"SELECT {expression} FROM (SELECT CAST(NULL AS CHAR(9)) AS place_code) AS nothing")
        nothing = cursor.fetchall()

    sizes = Counter(int(shard) for _code, shard in found)
    assert sorted(CODES) == sorted(code for code, _shard in found)
    assert list(range(shards)) == sorted(sizes)
    assert max(sizes.values()) < 1.3 * min(sizes.values())
    # Which the example counts with the first shard.
    assert [(None,)] == [tuple(row) for row in nothing]
