"""Rows and arguments kept out of the Rendered Templates view."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Any

from airflow.providers.common.compat.sdk import Asset

#: What is shown of a task's arguments.
_PLAIN = (str, int, float, dt.date, dt.time, dt.timedelta, Asset, type(None))


class RedactedRows(Sequence[Any]):
    """Rows given to the task, kept out of the Rendered Templates view: they hold customers' data."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = list(rows)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as a list's
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        """Say how many there are, and nothing of them."""
        return f"{len(self):,} rows, not shown: they hold customers' data"


class Redacted:
    """An argument, kept out of the Rendered Templates view: it may hold customers' data."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __repr__(self) -> str:
        """Say what kind of thing it is, and nothing of it."""
        return f"{type(self.value).__name__}, not shown: it may hold customers' data"


def redact(given: object, value: object) -> object:
    """Return an argument as it is shown: as it is if it is plain, and the DAG's author wrote it."""
    is_plain = isinstance(given, _PLAIN) and isinstance(value, _PLAIN)
    return value if is_plain or isinstance(value, Redacted) else Redacted(value)


def unredacted(value: object) -> object:
    """Return an argument as it was given."""
    return value.value if isinstance(value, Redacted) else value
