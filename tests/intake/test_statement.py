from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.intake.statement import one_query

DRIVERS = [
    "sqlite3",
    "psycopg",
    "psycopg2",
    "pymysql",
    "oracledb",
    "pymssql",
    "duckdb",
    "trino",
    "snowflake",
    "bigquery",
]

READS = {
    "select": "SELECT 1",
    "letter case": "select 1",
    "with": "WITH a AS (SELECT 1), b (n) AS (SELECT 2) SELECT * FROM a, b",
    "recursive": "WITH RECURSIVE a (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT n FROM a",
    "materialized": "WITH a AS NOT MATERIALIZED (SELECT 1) (SELECT * FROM a)",
    "values": "VALUES (1), (2)",
    "table": "TABLE outcome",
    "show": "SHOW server_version",
    "from": "FROM outcome",
    "parentheses": "((SELECT 1) UNION (SELECT 2))",
    "line comment": "-- UPDATE outbox; DELETE it\nSELECT 1",
    "block comment": "/* UPDATE outbox; */ SELECT /*+ PARALLEL(4) */ 1",
    "literal": "SELECT 'it''s; UPDATE' AS a, \"delete;\" FROM t WHERE b = '; DROP TABLE t'",
    "column": 'SELECT "update", x."delete" AS "insert" FROM t AS x',
    "column in a CTE": 'WITH "update" AS (SELECT 1 AS "merge") SELECT "merge" FROM "update"',
    "words": "SELECT updated, deleted_at, replace(a, 'x', 'y'), last_update, insert_time FROM outcome_update",
    "replace": "WITH a AS (SELECT 1) SELECT replace('a', 'b', 'c') FROM a",
    "for update": "SELECT 1 FROM t FOR UPDATE",
    "window": "SELECT sum(a) OVER w FROM t WINDOW w AS (PARTITION BY b ORDER BY c)",
    "call": "SELECT call, calling FROM calls",
    "into": 'SELECT t.into, "into" AS into FROM t',
    "unpivot": "SELECT * FROM (UNPIVOT t ON a, b INTO NAME n VALUE v) AS u",
    "nested": "SELECT * FROM (WITH a AS (SELECT 1) SELECT * FROM a) AS b",
}

WRITES = {
    "update": "UPDATE outbox SET picked_at = CURRENT_TIMESTAMP WHERE picked_at IS NULL RETURNING id",
    "insert": "INSERT INTO sent SELECT * FROM outbox RETURNING id",
    "delete": "DELETE FROM outbox RETURNING id",
    "merge": "MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN UPDATE SET x = 1",
    "replace": "REPLACE INTO a VALUES (1) RETURNING id",
    "call": "CALL pick_outbox()",
    "exec": "EXEC pick_outbox",
    "odbc": "{call pick_outbox}",
    "create": "CREATE TABLE a AS SELECT 1",
    "truncate": "TRUNCATE outbox",
    "block": "BEGIN UPDATE outbox SET a = 1; END",
    "comment first": "/* SELECT */ -- SELECT\nUPDATE outbox SET a = 1 RETURNING id",
    "byte order mark": "\ufeffUPDATE outbox SET a = 1 RETURNING id",
    "in a CTE": "WITH picked AS (UPDATE outbox SET a = 1 RETURNING *) SELECT * FROM picked",
    "in a later CTE": "WITH a AS (SELECT 1), b (id) AS MATERIALIZED (DELETE FROM outbox RETURNING id) SELECT * FROM b",
    "in a nested CTE": "SELECT * FROM (WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a) AS b",
    "update after WITH": "WITH a AS (SELECT 1) UPDATE outbox SET x = 1 RETURNING id",
    "insert after WITH": "with a as (select 1) insert into outbox select * from a returning id",
    "delete after WITH": "WITH a AS (SELECT 1), b AS (SELECT 2) DELETE FROM outbox RETURNING id",
    "merge after WITH": "WITH a AS (SELECT 1) MERGE INTO t USING a ON 1 = 1 WHEN MATCHED THEN DELETE",
    "final table": "SELECT id FROM FINAL TABLE (UPDATE outbox SET a = 1)",
    "insert after FROM": "FROM outbox INSERT OVERWRITE TABLE sent SELECT *",
    "select into": "SELECT id INTO sent FROM outbox",
    "select into a file": "SELECT id FROM outbox INTO OUTFILE '/tmp/sent'",
    "select into after WITH": "WITH a AS (SELECT 1 AS n) SELECT n INTO sent FROM a",
    "two": "SELECT 1; SELECT 2",
    "second one writes": "SELECT 1; UPDATE outbox SET a = 1",
    "transaction ended": "SELECT 1; COMMIT; UPDATE outbox SET a = 1",
    "after a literal": "SELECT 'a'';'; UPDATE outbox SET a = 1",
    "set": "SET x = 1; SELECT 1",
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("sql", READS.values(), ids=READS)
def test_sql_that_reads(sql: str, driver: str) -> None:
    """SQL that only reads is left as it is, whatever words stand in its names, literals and comments."""
    assert sql == one_query(sql, driver)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("sql", WRITES.values(), ids=WRITES)
def test_sql_that_may_write(sql: str, driver: str) -> None:
    """SQL that may write is refused, with the remedy."""
    with pytest.raises(RopoConfigurationError, match=r"must be one SELECT that changes nothing: the ledger"):
        one_query(sql, driver)


@pytest.mark.parametrize("sql", ["", " \n", ";", "-- nothing at all", "/* nothing", "\ufeff"], ids=repr)
def test_sql_that_is_empty(sql: str) -> None:
    """SQL without a statement is refused."""
    with pytest.raises(RopoConfigurationError, match="the SQL is empty"):
        one_query(sql, "psycopg")


def test_refusal_names_the_word_and_no_literal() -> None:
    """A refusal names the verb, or what the SQL starts with, and no value in it."""
    with pytest.raises(RopoConfigurationError, match=r"^the SQL starts with queries;"):
        one_query("queries/outcomes.sql", "psycopg")
    with pytest.raises(RopoConfigurationError, match=r"^the SQL holds UPDATE, which writes;"):
        one_query("WITH a AS (update t SET b = 1 RETURNING *) SELECT * FROM a".upper(), "psycopg")
    with pytest.raises(RopoConfigurationError, match=r"^the SQL starts with a literal;"):
        one_query("'secret'", "psycopg")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1;",
        "SELECT 1 ;;\n",
        "SELECT 1; -- done",
        "SELECT 1;\n/* done; */\n",
        "SELECT 1 -- done;",
        "\ufeffSELECT 1;\r\n",
        "\r\n\r\nSELECT 1\r\n;\r\n",
        "\u00a0SELECT 1\u200b",
        "SELECT 1\n/\n",
        "SELECT 1;\r\n/\r\n",
    ],
    ids=repr,
)
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_editors_leave(sql: str, driver: str) -> None:
    """A closing semicolon, comments after it, line ends and a byte order mark do not reach the database."""
    assert "SELECT 1" == one_query(sql, driver).rstrip()


def test_comments_and_line_ends_inside_stay() -> None:
    """What stands inside the statement, or before it as a hint, stays as it is."""
    sql = "-- outcomes\r\nSELECT /*+ INDEX(t) */ 1, -- one\r\n  ';' AS a\r\nFROM t"

    assert sql == one_query(f"{sql}\r\n;\r\n-- end", "oracledb")


@pytest.mark.parametrize("driver", ["pymssql", "pyodbc"])
@pytest.mark.parametrize(
    "sql", [";WITH a AS (SELECT 1 AS n) SELECT n FROM a", "SELECT 1\nGO", "SELECT 1;\r\ngo\r\n"], ids=repr
)
def test_what_sql_server_editors_leave(sql: str, driver: str) -> None:
    """The semicolon before WITH and the batch separator GO are left out for SQL Server."""
    assert sql.strip().strip(";").split("\n")[0].rstrip(";\r") == one_query(sql, driver)


def test_go_is_a_name_elsewhere() -> None:
    """For other databases GO is a name like any other."""
    assert "SELECT 1 AS\nGO" == one_query("SELECT 1 AS\nGO", "psycopg")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM outbox UPDATE outbox SET picked = 1",
        "SELECT 1 EXEC pick_outbox",
        "SELECT id FROM outbox DELETE outbox",
        "WITH a AS (SELECT 1 AS n) SELECT n FROM a MERGE t USING a ON 1 = 1 WHEN MATCHED THEN DELETE",
    ],
)
def test_sql_server_needs_no_semicolon(sql: str) -> None:
    """In Transact-SQL a second statement is told by its first word alone."""
    with pytest.raises(RopoConfigurationError, match="which writes"):
        one_query(sql, "pymssql")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT [update], [it's; delete] FROM a INNER MERGE JOIN b ON a.n = b.n WITH (UPDLOCK)",
        "SELECT n FROM a WHERE n IN (SELECT n FROM b) OPTION (MERGE JOIN)",
    ],
)
def test_sql_server_reads(sql: str) -> None:
    """Bracketed names and join hints are no statements."""
    assert sql == one_query(sql, "pymssql")


@pytest.mark.parametrize(
    ("driver", "sql"),
    [
        ("psycopg", "SELECT $$; UPDATE$$, $a$ $$; $a$, E'it\\'s; ', 'C:\\', a #> '{b}' FROM t /* a /* ; */ UPDATE */"),
        ("psycopg2", "/* a /* b */ UPDATE; */ SELECT update, delete FROM outbox WHERE (update IS NULL)"),
        ("pymysql", "SELECT 'it\\'s; UPDATE', `delete;` # the end; don't\nFROM t"),
        ("bigquery", "#standardSQL; don't\nSELECT r'\\'; ', '''it's; ''', `a;b` FROM t"),
        ("oracledb", "SELECT q'[it's; ]', Q'!it's; !', a#b FROM v$session"),
        ("oracledb", "WITH FUNCTION f RETURN NUMBER IS BEGIN RETURN 1; END; SELECT f FROM dual"),
        ("trino", "WITH FUNCTION f() RETURNS int BEGIN DECLARE a int; RETURN a; END SELECT f()"),
        ("snowflake", "SELECT 'it\\'s; ' // don't; \nFROM t"),
        ("databricks", "SELECT 'it\\'s; ', `a;b` FROM t"),
        ("sqlite3", "SELECT [it's; UPDATE], 'C:\\' FROM t"),
    ],
)
def test_dialects(driver: str, sql: str) -> None:
    """Literals, names and comments are told as each database writes them."""
    expected = sql.removesuffix(" /* a /* ; */ UPDATE */")

    assert expected == one_query(sql, driver)


@given(st.text("SELECTWIHASUPD'\"`$;/*-#\\\n()[]eEqQ ", max_size=60), st.sampled_from(DRIVERS))
def test_any_text_is_answered(sql: str, driver: str) -> None:
    """Whatever the text, it is one statement or refused, and a second look changes nothing."""
    try:
        query = one_query(sql, driver)
    except RopoConfigurationError:
        return

    assert query in sql
    assert query == one_query(query, driver)
