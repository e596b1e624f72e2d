"""Check that SQL is one statement that only reads, and leave out what editors add to a file and drivers refuse.

The text alone is judged here, so that every database is covered; :mod:`airflow_provider_ropo.intake.read_only` asks
the database itself where it can refuse to write. Airflow's ``DbApiHook.split_sql_string`` does not do: it removes
optimizer hints with the comments, and knows one dialect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from airflow_provider_ropo.errors import RopoConfigurationError

#: What to do instead, for the end of a message.
REMEDY = "it must be one SELECT that changes nothing: the ledger (`ledger_table`) remembers which events were sent"

_READS = {"SELECT", "SEL", "WITH", "VALUES", "TABLE", "FROM", "SHOW", "DESCRIBE", "DESC", "PIVOT", "UNPIVOT", "LOCKING"}
_WRITES = {"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "UPSERT", "TRUNCATE"}
# Reserved in Transact-SQL, where a statement may end without a semicolon and the next one begin.
_STARTS_OF_T_SQL = {"INSERT", "UPDATE", "DELETE", "MERGE", "TRUNCATE", "EXEC", "EXECUTE", "CREATE", "ALTER", "DROP"}
# Before a parenthesis with a statement in it: a common table expression's, and Db2's FINAL TABLE (UPDATE …).
_BEFORE_STATEMENT = {"AS", "MATERIALIZED", "TABLE"}

_T_SQL = {"pymssql", "pyodbc", "mssql_python"}
_BACKSLASH_ESCAPES = {
    *("pymysql", "MySQLdb", "mysql", "bigquery", "databricks", "snowflake"),
    *("clickhouse_connect", "clickhouse_driver", "pyhive", "impala"),
}
_HASH_COMMENTS = {"pymysql", "MySQLdb", "mysql", "bigquery", "clickhouse_connect", "clickhouse_driver"}
_NESTED_COMMENTS = {"psycopg", "psycopg2", "redshift_connector", "duckdb", *_T_SQL}
_BRACKETED_NAMES = {"sqlite3", *_T_SQL}

_BLANK = r"[\s\ufeff\u200b]+"
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_SHOWN = 40


class _Token(NamedTuple):
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def word(self) -> str:
        """The keyword that this may be; empty for a quoted name, a literal or a sign."""
        return self.text.upper() if self.kind == "word" else ""


def one_query(sql: str, driver: str) -> str:
    """Return the statement without byte order mark, closing semicolon and what else stands around it.

    :param sql: one statement, as a file has it.
    :param driver: the name of the database driver's package, which implies the SQL dialect.
    :raises RopoConfigurationError: if it is no statement, several, or one that may write.
    """
    tokens = _trim([token for token in _tokens(sql, driver) if token.kind != "aside"], sql, driver)
    if not tokens:
        raise RopoConfigurationError(f"the SQL is empty; {REMEDY}")
    first = next((token for token in tokens if token.text != "("), tokens[0])
    if first.word not in _READS:
        shown = "a literal" if first.kind == "literal" else first.text[:_SHOWN]
        raise RopoConfigurationError(f"the SQL starts with {shown}; {REMEDY}")
    # A function that a statement brings along has semicolons of its own (Oracle, Trino).
    has_function = [token.word for token in tokens[:2]] == ["WITH", "FUNCTION"]
    if not has_function and any(token.text == ";" for token in tokens):
        raise RopoConfigurationError(f"the SQL holds several statements; {REMEDY}")
    verb = next(_write_verbs(tokens, driver), None)
    if verb is not None:
        raise RopoConfigurationError(f"the SQL holds {verb.word}, which writes; {REMEDY}")
    # A comment at the head may be a hint to the database; those after the statement are left out with its semicolon.
    return re.sub(rf"\A(?:{_BLANK}|;)*", "", sql[: tokens[-1].end])


def _trim(tokens: list[_Token], sql: str, driver: str) -> list[_Token]:
    """Leave out semicolons around the statement, and the lines that end one for sqlcmd (GO) or SQL*Plus (/)."""
    while tokens and tokens[0].text == ";":
        tokens = tokens[1:]
    terminators = {"/", "GO"} if driver in _T_SQL else {"/"}
    while tokens and (
        tokens[-1].text == ";" or (tokens[-1].text.upper() in terminators and _is_alone_on_line(tokens[-1], sql))
    ):
        tokens = tokens[:-1]
    return tokens


def _is_alone_on_line(token: _Token, sql: str) -> bool:
    return not sql[: token.start].rpartition("\n")[2].strip() and not sql[token.end :].partition("\n")[0].strip()


def _write_verbs(tokens: Sequence[_Token], driver: str) -> Iterator[_Token]:
    """Yield the verbs that write inside a statement that starts as one that reads."""
    depth = 0
    #: The depths at which a WITH still awaits its main statement.
    open_with: set[int] = set()
    nothing = _Token("", "", 0)
    for before, token, after in zip([nothing, *tokens], tokens, [*tokens[1:], nothing], strict=False):
        depth += (token.text == "(") - (before.text == ")")
        word = token.word
        if word == "WITH" and before.text in {"", "("}:
            open_with.add(depth)
        elif depth in open_with and before.text == ")" and word in _READS | _WRITES:
            open_with.discard(depth)
            if word in _WRITES:
                yield token
        elif (
            (word in _WRITES and before.text == "(" and _before(tokens, before) in _BEFORE_STATEMENT)
            or (word == "INTO" and _is_target(before, after))
            or (word == "INSERT" and after.word in {"INTO", "OVERWRITE"})
            or (driver in _T_SQL and depth == 0 and _starts_t_sql(before, token, after))
        ):
            yield token


def _before(tokens: Sequence[_Token], token: _Token) -> str:
    index = tokens.index(token)
    return tokens[index - 1].word if index else ""


def _is_target(before: _Token, after: _Token) -> bool:
    """Tell whether INTO names a table or a file, and is no name of a column, and no part of DuckDB's UNPIVOT."""
    return before.text != "." and before.word != "AS" and after.word != "NAME"


def _starts_t_sql(before: _Token, token: _Token, after: _Token) -> bool:
    """Tell whether the word begins a statement, and is no part of FOR UPDATE or MERGE JOIN."""
    return token.word in _STARTS_OF_T_SQL and before.word != "FOR" and after.word != "JOIN"


def _tokens(sql: str, driver: str) -> Iterator[_Token]:
    """Yield words, literals and signs, and as ``aside`` the blanks and comments between them."""
    pattern = _pattern(driver)
    at = 0
    while match := pattern.match(sql, at):
        at = match.end()
        if match[0] == "/*":
            at = _comment_end(sql, match.start(), nested=driver in _NESTED_COMMENTS)
        yield _Token(str(match.lastgroup), sql[match.start() : at], match.start())


def _pattern(driver: str) -> re.Pattern[str]:
    inside = r"\\.|[^{0}\\]" if driver in _BACKSLASH_ESCAPES else "[^{0}]"
    comments = ["--", *(["#"] if driver in _HASH_COMMENTS else []), *(["//"] if driver == "snowflake" else [])]
    literals = [
        # PostgreSQL's escapes and dollar quotes, Oracle's own quotes.
        r"[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)",
        r"\$(?P<tag>\w*)\$.*?\$(?P=tag)\$",
        r"[qQ]'(?:\[.*?\]|\{.*?\}|\(.*?\)|<.*?>|(?P<quote>[^\s\w]).*?(?P=quote))'",
        *([r"'''.*?'''", r'""".*?"""'] if driver == "bigquery" else []),
        *([r"\[[^\]]*\]"] if driver in _BRACKETED_NAMES else []),
        *(rf"{quote}(?:{inside.format(quote)})*(?:{quote}|\Z)" for quote in "'\"`"),
    ]
    aside = rf"{_BLANK}|(?:{'|'.join(comments)})[^\n]*|/\*"
    return re.compile(
        rf"(?P<aside>{aside})|(?P<literal>{'|'.join(literals)})|(?P<word>[^\W\d][\w$#@]*)|(?P<sign>.)", re.DOTALL
    )


def _comment_end(sql: str, start: int, *, nested: bool) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        if edge[0] == "*/":
            depth -= 1
        elif nested or not depth:
            depth += 1
        if not depth:
            return edge.end()
    return len(sql)
