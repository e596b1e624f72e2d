"""Tell a query that a database can never run from a database that fails now and may not fail later."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_ropo.errors import RopoConfigurationError

#: SQLSTATE classes: syntax error or access rule violation, invalid schema name, invalid catalog name
#: (https://www.postgresql.org/docs/current/errcodes-appendix.html).
_SQLSTATE_CLASSES = {"42", "3F", "3D"}
#: MySQL's and MariaDB's numbers: unknown database, unknown column, ambiguous column, syntax, unknown table, no
#: privilege, unknown function.
_MYSQL_ERRORS = {1049, 1052, 1054, 1064, 1142, 1143, 1146, 1305}
#: Snowflake's: the object does not exist, or this role may not see it. Its SQLSTATE is 02000.
_SNOWFLAKE_ERRORS = {2003, 2043}
_ORACLE_SYNTAX = range(900, 1000)


@contextmanager
def refused_query() -> Iterator[None]:
    """Translate a database's refusal of a query: a syntax error, an unknown table or column, a missing privilege.

    :raises RopoConfigurationError: in its place; another try cannot succeed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, RopoConfigurationError) or not is_refused(error):
            raise
        reason = " ".join(str(error).partition("\n")[0].split())
        raise RopoConfigurationError(f"the database cannot run the query ({reason}); correct `sql`") from None


def is_refused(error: Exception) -> bool:
    """Return whether a database's error means that the query itself cannot work (PEP 249 has one class for both)."""
    first = error.args[0] if error.args else None
    # redshift_connector has the server's fields in a dictionary.
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    state = first.get("C") if isinstance(first, dict) else state
    number = getattr(error, "errno", None) or first
    if isinstance(number, int) and number in _SNOWFLAKE_ERRORS | _MYSQL_ERRORS:
        return True
    if isinstance(error, sqlite3.OperationalError):
        return getattr(error, "sqlite_errorname", None) == "SQLITE_ERROR"
    if state is not None:
        return str(state)[:2] in _SQLSTATE_CLASSES
    if (code := getattr(first, "full_code", None)) is not None:
        return str(code).startswith("ORA-") and int(str(code)[4:]) in _ORACLE_SYNTAX
    # Trino's division of errors; Google's API has HTTP's.
    if getattr(error, "error_type", None) == "USER_ERROR" or type(error).__name__ in {"BadRequest", "NotFound"}:
        return True
    return any(cls.__name__ == "ProgrammingError" for cls in type(error).__mro__)
