"""Redaction of rows and arguments in the Rendered Templates view."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import Asset

#: Types of arguments that are shown.
_PLAIN = (str, int, float, dt.date, dt.time, dt.timedelta, Asset, type(None))


class RedactedRows(Sequence[Any]):
    """Rows given to the task; hidden in the Rendered Templates view, because they contain personal data."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = list(rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        """Return the number of rows, without their content."""
        return f"{len(self):,} rows, not shown: they contain personal data"


class Redacted:
    """An argument; hidden in the Rendered Templates view, because it may contain personal data."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        """Return the type of the argument, without its value."""
        return f"{type(self.value).__name__}, not shown: it may contain personal data"


def redact(given: object, value: object) -> object:
    """Return an argument for display: the value if it is plain and the DAG's author wrote it, otherwise redacted."""
    is_plain = isinstance(given, _PLAIN) and isinstance(value, _PLAIN)
    return value if is_plain or isinstance(value, Redacted) else Redacted(value)


def unredacted(value: object) -> object:
    """Return the original argument."""
    return value.value if isinstance(value, Redacted) else value
