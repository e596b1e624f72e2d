"""Take Python's own values out of what database drivers and data libraries wrap them in.

None of those packages is imported: their types are recognised by the methods that their documentation names, which
are looked up on the type, as an object of Trino's driver has every attribute that it is asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

#: Types of values that come as they are: nearly all, so that reading stays fast where these are asked for first.
PYTHON_TYPES = frozenset({str, int, float, bool, type(None), dt.datetime, dt.date, dt.time, Decimal, list, dict, bytes})
# pyarrow's scalars and arrays; numpy's and pandas'; polars'; the large objects of Oracle's drivers.
_UNWRAP = ("as_py", "to_pylist", "tolist", "to_list", "read")
# Named tuples and SQLAlchemy's rows; Snowflake's; Databricks' and Spark's.
_AS_MAPPING = ("_asdict", "as_dict", "asDict")
_BINARY = bytes | bytearray | memoryview


def unwrap(value: Any) -> Any:
    """Return Python's own value, exactly; what has none, or cannot be converted, is returned as it is.

    What is only to be had from the database, as a large object is, is read from it.
    """
    kind = type(value)
    if kind in PYTHON_TYPES or isinstance(value, _BINARY):
        return value
    convert = _from_datetime64 if kind.__name__ == "datetime64" else _conversion(kind)
    try:
        return convert(value) if convert else value
    except (ValueError, TypeError, ArithmeticError):
        return value


def as_sequence(value: object) -> list[Any] | None:
    """Return the items of a sequence; None for anything else, also for text and for a value that has names."""
    if isinstance(value, Sequence) and not isinstance(value, str | _BINARY) and _named(value) is None:
        return list(value)
    return None


def as_mapping(value: object) -> Mapping[Any, Any] | None:
    """Return a mapping, or one made of an object with names, or of a list of keys and values; None for anything else.

    A name that stands twice, or a value without one, makes it none: something would get lost.
    """
    if isinstance(value, Mapping):
        return value
    named = _named(value)
    if named is None and isinstance(value, list | tuple) and value and all(map(_is_pair, value)):
        named = value
    if named is None:
        return None
    mapping = {name: item for name, item in named if name is not None}
    return mapping if len(mapping) == len(named) else None


def _conversion(kind: type) -> Callable[[Any], Any] | None:
    return next((method for name in _UNWRAP if callable(method := getattr(kind, name, None))), None)


def _from_datetime64(value: Any) -> dt.date | None:
    # numpy's own conversion makes a number of nanoseconds; its text has every digit. NaT is a NULL.
    text = str(value)
    if text == "NaT":
        return None
    return (
        dt.datetime.fromisoformat(text[: len("2024-01-04T10:41:40.123456")])
        if "T" in text
        else dt.date.fromisoformat(text)
    )


def _named(value: object) -> Sequence[tuple[Any, Any]] | None:
    """Return the names and values of an object that has both; of a tuple, one pair each."""
    kind = type(value)
    if kind in PYTHON_TYPES:
        return None
    for name in _AS_MAPPING:
        if callable(method := getattr(kind, name, None)):
            try:
                pairs = list(method(value).items())
            except (AttributeError, TypeError, ValueError):
                # Spark's and Databricks' rows may be without names.
                return None
            return pairs if not isinstance(value, tuple) or len(pairs) == len(value) else None
    # A row of Google's client and a pandas Series have the methods of a mapping and are none.
    if not isinstance(value, Mapping) and callable(method := getattr(kind, "items", None)):
        return list(method(value))
    # Trino's driver keeps the names of a ROW, some of which may be missing, in an annotation of the tuple itself.
    annotations = getattr(value, "__dict__", {}).get("__annotations__")
    if isinstance(value, tuple) and isinstance(annotations, dict):
        return list(zip(annotations["names"], value, strict=True))
    return None


def _is_pair(item: object) -> bool:
    """Tell whether it is a key and a value, as pyarrow gives each of a map."""
    return isinstance(item, tuple) and len(item) == len(("key", "value")) and isinstance(item[0], str)
