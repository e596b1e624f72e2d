"""The ledger's table as SQLAlchemy knows it, and how it is made."""

from __future__ import annotations

import logging
import re
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable, DDLElement
from sqlalchemy.sql.elements import ColumnElement, quoted_name

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.ledger.states import states

log = logging.getLogger(__name__)

_NO_PRIVILEGE = re.compile(r"denied|privilege|permission|readonly|read-only|not authorized", re.IGNORECASE)

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
        sa.Column("destination", sa.String(255)),
        sa.Column("event_id", _CODE, nullable=False),
        sa.Column("usageplacecode", _CODE),
        sa.Column("event_status", sa.String(32)),
        sa.Column("event_time", sa.DateTime()),
        sa.Column("delivery_status", sa.String(32), nullable=False),
        sa.Column("http_status", sa.Integer()),
        sa.Column("detail", sa.String(1_000)),
        sa.Column("payload_hash", sa.String(128)),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("dag_id", sa.String(250)),
        sa.Column("task_id", sa.String(250)),
        sa.Column("run_id", sa.String(250)),
        sa.Column("map_index", sa.Integer()),
        sa.Column("try_number", sa.Integer()),
        sa.Column("process", sa.String(32)),
        sa.Column("recorded_at", _MOMENT, server_default=_UtcNow(), nullable=False),
        schema=_schema(schema),
        # Left to itself, MySQL takes RE1 and re1 for one place, and may have no letters for Ropo One's answers.
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


#: Columns that a table of an earlier layout may lack: they can be added without touching its rows.
ADDED = ("destination", "process")


def create_or_upgrade(engine: sa.engine.Engine, table: sa.Table, where: str) -> None:
    """Create the table if it is missing, with indexes where the database has such a thing; else add what it lacks.

    Also create the view of the events' states if it is missing, where this role may.

    :param where: how messages name the database.
    :raises RopoConfigurationError: if this role may not, with the statement that the table's owner has to run.
    """
    _create_or_upgrade_table(engine, table, where)
    _create_view(engine, table)


def view_of(table: sa.Table) -> sa.Table:
    """Return the view ``<ledger>_state``: one row for each event and destination, which is its state."""
    name = quoted_name(f"{table.name}_state", quote=getattr(table.name, "quote", None))
    columns = [sa.Column(column.name, column.type) for column in table.c]
    return sa.Table(name, sa.MetaData(), *columns, schema=table.schema)


def has_ids(engine: sa.engine.Engine, table: sa.Table, where: str) -> bool:
    """Tell whether there is such a table, with ids of events.

    :param where: how messages name the database.
    :raises RopoConfigurationError: if this role may not read it.
    :raises SQLAlchemyError: if the database cannot be asked.
    """
    with engine.connect() as connection:
        try:
            connection.execute(sa.select(table.c.event_id).where(sa.false()))
        except SQLAlchemyError as error:
            if _is_refused(error, table):
                raise _unreadable(error, table, where) from None
            if not _is_missing(error):
                raise
            return False
    return True


def _create_or_upgrade_table(engine: sa.engine.Engine, table: sa.Table, where: str) -> None:
    try:
        there = _columns(engine, table)
    except SQLAlchemyError as error:
        if _is_refused(error, table):
            raise _unreadable(error, table, where) from None
        _create(engine, table, where)
        return
    absent = [name for name in table.c.keys() if name not in there and name not in ADDED]  # noqa: SIM118
    if absent:
        raise RopoConfigurationError(
            f"the table {table.fullname}{where} is no ledger: it has no column {', '.join(absent)}; name another table "
            "in `ledger_table`"
        )
    for name in ADDED:
        if name not in there:
            _add(engine, table, name, where)


def utc_now(dialect: str) -> sa.ColumnElement[Any] | None:
    """Return the SQL expression of a database's time in UTC; None where there is none that is known.

    SQLite's is the worker's own.
    """
    text = _UTC_NOW.get(dialect)
    return None if text is None else sa.literal_column(text, sa.DateTime())


_UTC_NOW = {
    "postgresql": "timezone('utc', clock_timestamp())",
    "redshift": "SYSDATE",
    "mysql": "UTC_TIMESTAMP(6)",
    "mariadb": "UTC_TIMESTAMP(6)",
    "mssql": "SYSUTCDATETIME()",
    "oracle": "SYS_EXTRACT_UTC(SYSTIMESTAMP)",
    "snowflake": "SYSDATE()",
    "bigquery": "CURRENT_DATETIME('UTC')",
    "duckdb": "timezone('UTC', now())",
}


# Not ColumnElement[…]: SQLAlchemy 1.4 has no types.
_Expression: Any = ColumnElement


class _UtcNow(_Expression):  # type: ignore[misc]
    """The default of ``recorded_at``, for rows written by hand."""

    inherit_cache = True


@compiles(_UtcNow)
def _compile_utc_now(_element: _UtcNow, compiler: Any, **_options: Any) -> str:
    # SQLite's CURRENT_TIMESTAMP is UTC; so is a server's whose time zone is, where nothing better is known.
    text = _UTC_NOW.get(compiler.dialect.name, "CURRENT_TIMESTAMP")
    return text if text == "CURRENT_TIMESTAMP" else f"({text})"


def _columns(engine: sa.engine.Engine, table: sa.Table) -> set[str]:
    """Return the names of the columns that are there, in small letters."""
    everything = sa.select(sa.text("*")).select_from(table).where(sa.false())
    with engine.connect() as connection:
        return {str(name).casefold() for name in connection.execute(everything).keys()}  # noqa: SIM118


def _add(engine: sa.engine.Engine, table: sa.Table, name: str, where: str) -> None:
    compiler = engine.dialect.ddl_compiler(engine.dialect, None)  # type: ignore[arg-type]
    column = compiler.get_column_specification(table.c[name])
    keyword = "ADD" if engine.dialect.name in {"mssql", "oracle"} else "ADD COLUMN"
    statement = f"ALTER TABLE {compiler.preparer.format_table(table)} {keyword} {column}"
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)
    except SQLAlchemyError as error:
        if name in _columns(engine, table):
            # Another run has just added it.
            return
        raise RopoConfigurationError(
            f"the ledger {table.fullname}{where} is of an earlier version and lacks the column {name}, which this role "
            f"may not add ({_reason(error)}); let its owner run: {statement.replace('%%', '%')}"
        ) from None
    log.info("The ledger %s was of an earlier version: the column %s was added", table.fullname, name)


def _create(engine: sa.engine.Engine, table: sa.Table, where: str) -> None:
    try:
        with engine.begin() as connection:
            # Not every database knows IF NOT EXISTS, and where it does, two runs at once may still collide.
            connection.execute(CreateTable(table))
    except SQLAlchemyError as error:
        try:
            _columns(engine, table)
        except SQLAlchemyError:
            if not _is_refused(error, table):
                raise error from None
            raise RopoConfigurationError(
                f"the ledger {table.fullname}{where} does not exist, and this role may not create it "
                f"({_reason(error)}); grant it CREATE for the first run, or let the database's team create the table "
                "(the statement is on the documentation's page about the ledger)"
            ) from None
        return
    _create_indexes(engine, table)


def _create_indexes(engine: sa.engine.Engine, table: sa.Table) -> None:
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


# Not DDLElement: SQLAlchemy 1.4 has no types.
_Statement: Any = DDLElement


class _CreateView(_Statement):  # type: ignore[misc]
    """``CREATE VIEW … AS SELECT …``, which SQLAlchemy has from 2.1 only."""

    inherit_cache = False

    def __init__(self, view: sa.Table, query: sa.Select[Any]) -> None:
        self.view = view
        self.query = query


@compiles(_CreateView)
def _compile_create_view(element: _CreateView, compiler: Any, **_options: Any) -> str:
    # A view's query has no parameters.
    query = compiler.sql_compiler.process(element.query, literal_binds=True)
    return f"CREATE VIEW {compiler.preparer.format_table(element.view)} AS {query}"


def _create_view(engine: sa.engine.Engine, table: sa.Table) -> None:
    """Create the view of the events' states, unless it is there; the ledger does without it where that fails."""
    view = view_of(table)
    try:
        _columns(engine, view)
    except SQLAlchemyError:
        try:
            with engine.begin() as connection:
                connection.execute(_CreateView(view, states(table)))
        except SQLAlchemyError as error:
            log.debug("The view %s was not created: %s", view.fullname, _reason(error))


def _unreadable(error: SQLAlchemyError, table: sa.Table, where: str) -> RopoConfigurationError:
    return RopoConfigurationError(
        f"the ledger {table.fullname}{where} may not be read ({_reason(error)}); this role needs SELECT and INSERT on "
        "it"
    )


def _is_missing(error: SQLAlchemyError) -> bool:
    """Tell whether a database has answered that there is no such table or column, not that it fails."""
    if getattr(error, "connection_invalidated", False):
        return False
    if (state := sqlstate(error)) is not None:
        return state[:2] in {"42", "3F", "3D"}
    # SQLite has one class for a missing table, a locked file and a file that is no database.
    name = getattr(getattr(error, "orig", None), "sqlite_errorname", "SQLITE_ERROR")
    return bool(name == "SQLITE_ERROR")


def _is_refused(error: SQLAlchemyError, table: sa.Table) -> bool:
    """Tell whether a database's error means that this role may not."""
    # The text may quote the table's name, and with it any word.
    state = sqlstate(error)
    return (
        _NO_PRIVILEGE.search(_reason(error).replace(table.name, "")) is not None if state is None else state == "42501"
    )


def sqlstate(error: Exception) -> str | None:
    """Return the SQLSTATE of a database's error, where its driver (psycopg, psycopg2) has one."""
    original = getattr(error, "orig", None)
    return getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)


def _reason(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


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
