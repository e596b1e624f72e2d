"""Have psycopg and psycopg2 give each cell, if not as the Python value of its type, then as text.

A driver left to itself fails the whole fetch at a cell that it has no value for, and the rows around it with it; as
text, the cell makes its own row invalid.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

# PostgreSQL's types with values that Python's own cannot hold: date, timestamp, timestamptz, time, timetz, interval,
# json and jsonb, by their object identifiers, each beside that of its array.
_FALLIBLE_OIDS = {1082: 1182, 1114: 1115, 1184: 1185, 1083: 1183, 1266: 1270, 1186: 1187, 114: 199, 3802: 3807}
# What Python raises for the year 12024, for an interval of a million years, and for JSON that nests too deep.
_CANNOT_HOLD = (ValueError, ArithmeticError, RecursionError)
_JSON_OIDS = {114: 199, 3802: 3807}
_TEXT_OID = 25
# Amazon Redshift uses the old name.
_UTF8 = {"UTF8", "UNICODE"}


def set_encoding(connection: Any, driver: str) -> bool:
    """Have text come as UTF-8, which holds whatever the database does; return whether it comes byte for byte.

    In another encoding, the server fails the whole fetch at the first character that it lacks. A database that knows
    no encoding (``SQL_ASCII``) converts nothing, and with UTF-8 asked for it fails at the first cell that is not.
    There, bytes go both ways as the characters of Latin-1, which any byte is one of: what is sent goes through
    :func:`to_bytewise`, what comes through :func:`from_bytewise`. Where such a connection is set to a third encoding,
    that is the one of its text, and stays.
    """
    status = connection.info.parameter_status
    # Servers that only resemble PostgreSQL may report neither.
    client = (status("client_encoding") or "UTF8").upper().replace("-", "")
    knows_encoding = status("server_encoding") != "SQL_ASCII"
    if client in _UTF8 if knows_encoding else client not in {"SQL_ASCII", *_UTF8}:
        return False
    encoding = "UTF8" if knows_encoding else "LATIN1"
    if driver == "psycopg2":
        connection.set_client_encoding(encoding)
    else:
        with connection.cursor() as cursor:
            cursor.execute(f"SET client_encoding TO '{encoding}'")
    return not knows_encoding


def to_bytewise(value: Any) -> Any:
    """Return text, or parameters with text in them, whose characters are its bytes in UTF-8."""
    return _each_text(value, lambda text: text.encode().decode("latin-1"))


def from_bytewise(row: Sequence[Any]) -> list[Any]:
    """Return a row with the text that its bytes are in UTF-8; bytes that are none become no Unicode either."""
    return [_each_text(cell, lambda text: text.encode("latin-1").decode(errors="surrogateescape")) for cell in row]


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else change(value)
    if isinstance(value, list | tuple):
        # A named tuple's own constructor needs one argument a value.
        return getattr(value, "_make", type(value))([_each_text(item, change) for item in value])
    if isinstance(value, Mapping):
        return {_each_text(key, change): _each_text(item, change) for key, item in value.items()}
    return value


def register_text_fallbacks(cursor: Any, driver: str, *, json_as_text: bool = False) -> None:
    """Let what the cursor fetches be text where the driver has no value for it.

    :param json_as_text: leave JSON unparsed: what is escaped in it is no byte of the database.
    """
    module = import_module(driver)
    (_fall_back_psycopg if driver == "psycopg" else _fall_back_psycopg2)(cursor, module)
    if not json_as_text:
        return
    if driver == "psycopg":
        text = cursor.adapters.get_loader(_TEXT_OID, module.pq.Format.TEXT)
        for oid in _JSON_OIDS:
            cursor.adapters.register_loader(oid, text)
    else:
        for oid, array in _JSON_OIDS.items():
            _register_psycopg2(cursor, module.extensions, oid, array, lambda value, _cursor: value)


def _fall_back_psycopg(cursor: Any, psycopg: Any) -> None:
    for oid in _FALLIBLE_OIDS:
        own = cursor.adapters.get_loader(oid, psycopg.pq.Format.TEXT)
        cursor.adapters.register_loader(oid, _text_fallback_loader(own, (psycopg.DataError, *_CANNOT_HOLD)))


def _text_fallback_loader(own: Any, cannot_hold: tuple[type[Exception], ...]) -> type:
    """Return a loader (psycopg's word) that tries the driver's own first; those written in C have no subclasses."""

    class TextFallbackLoader:
        format = own.format

        def __init__(self, oid: int, context: Any = None) -> None:
            self._load = own(oid, context).load

        def load(self, data: Any) -> Any:
            try:
                return self._load(data)
            except cannot_hold:
                return bytes(data).decode(errors="surrogateescape")

    return TextFallbackLoader


def _fall_back_psycopg2(cursor: Any, psycopg2: Any) -> None:
    extensions = psycopg2.extensions
    known = ChainMap(cursor.connection.string_types, extensions.string_types)
    for oid, array in _FALLIBLE_OIDS.items():
        cast = _text_fallback_cast(known[oid], (psycopg2.DataError, *_CANNOT_HOLD))
        _register_psycopg2(cursor, extensions, oid, array, cast)


def _register_psycopg2(
    cursor: Any,
    extensions: Any,
    oid: int,
    array: int,
    cast: Callable[[str | None, Any], Any],
) -> None:
    soft = extensions.new_type((oid,), "SOFT", cast)
    extensions.register_type(soft, cursor)
    extensions.register_type(extensions.new_array_type((array,), "SOFT[]", soft), cursor)


def _text_fallback_cast(
    own: Callable[[str, Any], Any], cannot_hold: tuple[type[Exception], ...]
) -> Callable[[str | None, Any], Any]:
    def cast(text: str | None, cursor: Any) -> Any:
        # The driver makes the end of the year 9999 of infinity: a time that nobody wrote.
        if text is None or text.endswith("infinity"):
            return text
        try:
            return own(text, cursor)
        except cannot_hold:
            return text

    return cast
