"""The ledger's table as SQLAlchemy knows it, and how it is made."""

from __future__ import annotations

import re
from collections.abc import Callable

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.elements import quoted_name

from airflow_provider_ropo.errors import RopoConfigurationError

# MySQL indexes no text without a length, and it is not alone in keeping no microseconds unless told.
_CODE = sa.String(255).with_variant(sa.Text(), "postgresql").with_variant(sa.Text(), "sqlite")
_MOMENT = (
    sa.DateTime()
    .with_variant(mysql.DATETIME(fsp=6), "mysql")
    .with_variant(mysql.DATETIME(fsp=6), "mariadb")
    .with_variant(mssql.DATETIME2(6), "mssql")  # type: ignore[no-untyped-call]
    .with_variant(oracle.TIMESTAMP(), "oracle")
)
_PART = re.compile(r'"((?:[^"]|"")+)"|`([^`]+)`|([A-Za-z_][\w$]*)')


def define_table(name: str) -> sa.Table:
    """Return the table of that name.

    :param name: as one would write it in SQL: ``ropo_ledger``, ``ops.ropo_ledger``, ``ops."Ropo Ledger"``.
    :raises RopoConfigurationError: if it is no table's name.
    """
    *schema, table = _parts(name)
    return sa.Table(
        table,
        sa.MetaData(),
        sa.Column("event_id", _CODE, nullable=False),
        sa.Column("usageplacecode", _CODE),
        sa.Column("event_status", sa.String(32)),
        sa.Column("event_time", sa.DateTime()),
        sa.Column("delivery_status", sa.String(32), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("detail", sa.String(1_000)),
        sa.Column("payload_hash", sa.String(128)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("dag_id", sa.String(250)),
        sa.Column("task_id", sa.String(250)),
        sa.Column("run_id", sa.String(250)),
        sa.Column("map_index", sa.Integer()),
        sa.Column("try_number", sa.Integer()),
        sa.Column("recorded_at", _MOMENT, nullable=False),
        schema=_schema(schema),
        # Left to itself, MySQL takes RE1 and re1 for one place, and may have no letters for what Ropo One says.
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


def create_missing(engine: sa.engine.Engine, table: sa.Table, exists: Callable[[], bool]) -> None:
    """Make the table, and indexes where the database has such a thing."""
    try:
        with engine.begin() as connection:
            # Not every database knows IF NOT EXISTS, and where it does, two runs at once may still collide.
            connection.execute(CreateTable(table))
    except SQLAlchemyError:
        if not exists():
            raise
        return
    if engine.dialect.name not in {"sqlite", "postgresql", "mysql", "mariadb", "mssql", "oracle"}:
        return
    plain = re.sub(r"\W+", "_", table.name)[:40]
    for columns in (
        (table.c.event_id,),
        (table.c.usageplacecode,),
        # So that a run need not look at all that it has written itself, to see whether a later try has.
        (table.c.run_id, table.c.map_index, table.c.try_number),
    ):
        index = sa.Index(f"{plain}_{columns[0].name}", *columns)
        try:
            with engine.begin() as connection:
                index.create(connection)
        except SQLAlchemyError:
            # Another run has just made it; or there is a reason, and then look-ups are slower, not wrong.
            continue


def _parts(name: str) -> list[quoted_name]:
    parts = []
    rest = name.strip()
    while match := _PART.match(rest):
        quoted = match.group(1) or match.group(2)
        part = quoted.replace('""', '"') if quoted else match.group(3)
        # A name without quotes is left to the database, which folds its letters as it does elsewhere.
        parts.append(quoted_name(part, quote=quoted is not None))
        rest = rest[match.end() :].lstrip()
        if not rest:
            return parts
        if not rest.startswith("."):
            break
        rest = rest[1:].lstrip()
    raise RopoConfigurationError(
        f'`ledger_table` {name!r} is no table\'s name such as ropo_ledger, ops.ropo_ledger or ops."Ropo Ledger"'
    )


def _schema(parts: list[quoted_name]) -> quoted_name | None:
    """Return the schema, which for some databases is itself in two parts (database and schema)."""
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    shown = ".".join('"{}"'.format(part.replace('"', '""')) if part.quote else str(part) for part in parts)
    return quoted_name(shown, quote=False)
