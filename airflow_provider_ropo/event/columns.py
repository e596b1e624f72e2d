"""Find the column of each of an event's fields, once for a query and not once a row."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.event.values import UsageplaceStatus, status_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: The fields of a row: the event's, and an invoice's for queries with one row per event and invoice.
FIELDS = (
    "id",
    "usageplacecode",
    "status",
    "time",
    "customernumber",
    "contract_no",
    "description",
    "invoices",
    "invoicenumber",
    "jobid",
)
REQUIRED = ("usageplacecode", "status", "time")


def locate_fields(names: Sequence[str], columns: Mapping[str, str], *, check: bool) -> dict[str, int]:
    """Return each field's position among the columns, as far as it has one.

    :param names: the column names, in order; letter case does not matter.
    :param columns: event field → column name, where they differ.
    :param check: refuse columns that cannot serve, naming those there are.
    :raises RopoConfigurationError: if they cannot, or ``columns`` names a field no event has.
    """
    unknown = sorted(set(columns) - set(FIELDS))
    if unknown:
        raise RopoConfigurationError(
            f"columns names {', '.join(unknown)}, which no event has; the fields are {', '.join(FIELDS)}"
        )
    if check:
        _check(names, columns)
    place = {name.casefold(): index for index, name in enumerate(names)}
    wanted = {field: columns.get(field, field).casefold() for field in FIELDS}
    return {field: place[name] for field, name in wanted.items() if name in place}


def _check(names: Sequence[str], columns: Mapping[str, str]) -> None:
    there = f"the query returns the columns {', '.join(names)}"
    twice = repeated(names)
    if twice:
        raise RopoConfigurationError(f"{there}: {', '.join(twice)} twice; give each column a name of its own")
    present = {name.casefold() for name in names}
    needed = [columns.get(field, field) for field in FIELDS if field in REQUIRED or field in columns]
    absent = [name for name in needed if name.casefold() not in present]
    if absent:
        raise RopoConfigurationError(
            f"{there}, but not {', '.join(absent)}; add it, or name the right column in `columns`"
        )


def repeated(names: Sequence[str]) -> list[str]:
    """Return the names that stand more than once, letter case aside."""
    counts = Counter(name.casefold() for name in names)
    return [name for name, count in counts.items() if count > 1]


def status_map(statuses: Mapping[Any, str]) -> dict[str, UsageplaceStatus]:
    """Return the status of each of the warehouse's own values, keyed as :func:`status_key` compares them.

    :raises RopoConfigurationError: if a value can be no status, or has none of the three, or two of them.
    """
    known = {status.value: status for status in UsageplaceStatus}
    result: dict[str, UsageplaceStatus] = {}
    for value, name in statuses.items():
        key, status = status_key(value), known.get(status_key(name))
        if not key:
            raise RopoConfigurationError(f"statuses maps {value!r}; a value is text, a whole number or a boolean")
        if status is None or result.setdefault(key, status) is not status:
            raise RopoConfigurationError(
                f"statuses maps {value!r} to {name!r}; each value needs exactly one of {', '.join(known)}"
            )
    return result
