from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymysql
import pytest

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.intake.query import FETCH_SIZE, run_query

# MariaDB's sequences are tables that make themselves up.
SERIES = "SELECT seq AS id, repeat('x', 100) AS filler FROM seq_1_to_{count}"


@pytest.fixture
def warehouse(mariadb: Any, database: str) -> Iterator[Any]:
    """Return a connection to an empty database, with the plain, buffering cursor that drivers give."""
    with closing(mariadb.connect(database)) as connection:
        yield connection


def test_names_and_rows(warehouse: Any) -> None:
    """A query gives its column names as MariaDB has them, and its rows in order."""
    with run_query(warehouse, "SELECT 1 AS id, 'Ä' AS `Usage Place` UNION SELECT 2, NULL ORDER BY id") as query:
        rows = list(query.rows)

    assert ["id", "Usage Place"] == query.names
    assert [(1, "Ä"), (2, None)] == rows


def test_parameters(warehouse: Any) -> None:
    """Parameters are those of the driver; a percent sign without parameters is not changed."""
    with run_query(warehouse, "SELECT seq FROM seq_1_to_9 WHERE seq > %s AND 'a' LIKE 'a%%'", [7]) as query:
        with_parameters = list(query.rows)
    with run_query(warehouse, "SELECT 'a' LIKE 'a%'") as query:
        without = list(query.rows)

    assert ([(8,), (9,)], [(1,)]) == (with_parameters, without)


@pytest.mark.parametrize("count", [1, FETCH_SIZE, FETCH_SIZE + 1])
def test_every_row_comes_once(count: int, warehouse: Any) -> None:
    """Every row comes once, however the fetches fall."""
    with run_query(warehouse, SERIES.format(count=count)) as query:
        rows = [row[0] for row in query.rows]

    assert list(range(1, count + 1)) == rows


def test_rows_that_are_dictionaries(mariadb: Any, database: str) -> None:
    """A connection that is set up to return dictionaries gives the same rows."""
    options = {"cursorclass": pymysql.cursors.DictCursor}

    with (
        closing(mariadb.connect(database, **options)) as connection,
        run_query(connection, "SELECT 1 AS id, 'a' AS name") as query,
    ):
        rows = list(query.rows)

    assert [(1, "a")] == rows


def test_rows_are_read_as_a_stream(warehouse: Any) -> None:
    """Rows stay at the server until they are fetched: two hundred thousand take no more memory than a few."""
    count = 200_000
    tracemalloc.start()

    with run_query(warehouse, SERIES.format(count=count)) as query:
        rows = sum(1 for _ in query.rows)

    (_, peak) = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == rows
    assert 5_000_000 > peak


def test_the_connection_is_good_after_a_query_broken_off(warehouse: Any) -> None:
    """After a query that was not read to its end, the connection takes the next one."""
    with run_query(warehouse, SERIES.format(count=3 * FETCH_SIZE)) as query:
        next(query.rows)

    with run_query(warehouse, "SELECT 7") as query:
        assert [(7,)] == list(query.rows)


def test_sql_that_is_no_query(warehouse: Any) -> None:
    """A statement that is no query is refused by name, and one that returns nothing is, too."""
    with pytest.raises(RopoConfigurationError, match="starts with SET"), run_query(warehouse, "SET @a = 1"):
        pass
    with pytest.raises(RopoConfigurationError, match="holds INTO"), run_query(warehouse, "SELECT 1 INTO @a"):
        pass


WRITING = {
    "DELETE": "DELETE FROM outbox RETURNING id",
    "INSERT": "INSERT INTO outbox VALUES (3) RETURNING id",
    "REPLACE": "REPLACE INTO outbox VALUES (3) RETURNING id",
    "CALL": "CALL pick()",
    "several": "SELECT 1; DELETE FROM outbox; COMMIT",
    "function": "SELECT pick_one()",
    "sequence": "SELECT NEXTVAL(number)",
}


@pytest.mark.parametrize("sql", WRITING.values(), ids=WRITING)
def test_sql_that_writes(sql: str, mariadb: Any, database: str) -> None:
    """SQL that writes is refused, by MariaDB itself where the text does not tell, and has written nothing."""
    mariadb.execute(
        f"USE {database}",
        f"CREATE TABLE {database}.outbox (id INT)",
        f"INSERT INTO {database}.outbox VALUES (1), (2)",
        f"CREATE SEQUENCE {database}.number",
        f"CREATE PROCEDURE {database}.pick() DELETE FROM outbox RETURNING id",
        f"CREATE FUNCTION {database}.pick_one() RETURNS INT BEGIN DELETE FROM outbox; RETURN 1; END",
    )

    with closing(mariadb.connect(database)) as connection:
        with pytest.raises(RopoConfigurationError, match="ledger"), run_query(connection, sql):
            pass
        with run_query(connection, "SELECT count(*) FROM outbox") as query:
            assert [(2,)] == list(query.rows)


@pytest.mark.parametrize(
    "sql",
    ["SELECT seq FROM seq_1_to_2 WHERE 'a%' LIKE 'a%' AND seq > %s", "SELECT 1 -- 100 % of\n+ %s", "SELECT %s, '5%s'"],
)
def test_percent_sign_beside_parameters(sql: str, warehouse: Any) -> None:
    """A percent sign that is no placeholder is a mistake in the task, whose message says how to write it."""
    with pytest.raises(RopoConfigurationError, match="is written %%"), run_query(warehouse, sql, [0]):
        pass


@pytest.mark.parametrize(
    "sql", ["SELECT 7;", "\ufeffSELECT 7\r\n;\r\n# the end; don't\n", "SELECT 7 -- it's;\n"], ids=repr
)
def test_sql_as_editors_leave_it(sql: str, warehouse: Any) -> None:
    """A closing semicolon, comments, Windows line ends and a byte order mark do not disturb."""
    with run_query(warehouse, sql) as query:
        assert [(7,)] == list(query.rows)


def test_failure_of_the_warehouse_comes_out_as_it_is(warehouse: Any) -> None:
    """An error of MariaDB is reported with its own message."""
    with (
        pytest.raises(RopoConfigurationError, match="no_such_table"),
        run_query(warehouse, "SELECT * FROM no_such_table"),
    ):
        pass


def test_failure_on_the_way_is_no_end(warehouse: Any) -> None:
    """A query that fails after its first rows is a failure, not a shorter answer."""
    sql = f"SELECT seq, IF(seq < {2 * FETCH_SIZE}, 1, (SELECT 1 UNION SELECT 2)) FROM seq_1_to_{3 * FETCH_SIZE}"

    with pytest.raises(pymysql.err.MySQLError, match="more than 1 row"), run_query(warehouse, sql) as query:
        list(query.rows)
