from __future__ import annotations

import gc
import weakref
from collections import namedtuple
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import pytest

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import RowReader
from airflow_provider_ropo.intake.reader import MAX_KEYS, take_mappings
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.timezones import find_timezone

ROW = {"id": "e1", "usageplacecode": "RE1", "status": "connected", "time": "2024-01-04 10:41:40"}


@pytest.fixture
def spool() -> Iterator[Spool]:
    """Open an empty spool."""
    with Spool(find_timezone("Europe/Helsinki")) as spool:
        yield spool


def take(spool: Spool, rows: object, columns: Mapping[str, str] | None = None) -> int:
    return take_mappings(spool, rows, partial(RowReader, columns=columns), columns=columns)


def events_of(spool: Spool) -> list[UsageplaceEvent]:
    return [event for lane in spool.lanes() for event in lane]


def test_rows_with_different_keys(spool: Spool) -> None:
    """Rows need not all have the same keys, nor in one order or letter case."""
    rows = [ROW, dict(reversed(ROW.items())) | {"id": "e2"}, {key.upper(): value for key, value in ROW.items()}]

    assert 3 == take(spool, rows)
    assert ["e1", "e2"] == [event.id for event in events_of(spool)]
    assert [] == list(spool.invalid())


def test_rows_that_are_objects_with_names(spool: Spool) -> None:
    """A row may be a named tuple or any mapping."""
    make = namedtuple("Row", list(ROW))  # type: ignore[misc]  # noqa: PYI024 - of names that are known only now
    rows = [make(**ROW), MappingProxyType(ROW | {"id": "e2"}), list((ROW | {"id": "e3"}).items())]

    assert 3 == take(spool, rows)
    assert ["e1", "e2", "e3"] == [event.id for event in events_of(spool)]


@pytest.mark.parametrize("row", [("e1", "RE1"), ["e1"], "e1", None, 1], ids=repr)
def test_row_without_names(row: object, spool: Spool) -> None:
    """A row that has no names is a mistake in the task, and the message numbers it."""
    with pytest.raises(RopoConfigurationError, match=rf"item 2 is a {type(row).__name__}"):
        take(spool, [ROW, row])


def test_row_that_is_too_long_stops_no_other(spool: Spool) -> None:
    """A row with an id or a code that no ledger holds is invalid; the rows around it are events."""
    rows = [ROW, ROW | {"id": "x" * 256}, ROW | {"id": "e3", "usageplacecode": "x" * 256}, ROW | {"id": "e4"}]

    assert 4 == take(spool, rows)
    assert ["e1", "e4"] == [event.id for event in events_of(spool)]
    assert [("row 2", "id"), ("row 3 (id e3)", "usageplacecode")] == [
        (error.row, error.column) for error in spool.invalid()
    ]


def test_mapped_key_that_no_row_has(spool: Spool) -> None:
    """A typo in `columns` is found before anything is posted, and names the keys there are."""
    rows = [ROW, ROW | {"id": "e2", "Remark": "Gate locked"}]

    with pytest.raises(
        RopoConfigurationError, match="id, usageplacecode, status, time, Remark, but no row has remarkk; name"
    ):
        take(spool, rows, {"description": "remarkk"})


def test_mapped_key_that_one_row_has(spool: Spool) -> None:
    """A key that some rows lack is an optional field that they do not have."""
    rows = [ROW, ROW | {"id": "e2", "Remark": "Gate locked"}]

    take(spool, rows, {"description": "REMARK"})

    assert ["Usage place connected", "Gate locked"] == [event.description for event in events_of(spool)]


def test_no_rows_have_no_keys(spool: Spool) -> None:
    """A day without rows says nothing about their keys."""
    assert 0 == take(spool, [], {"description": "remarkk"})


def test_keys_in_a_message_are_few(spool: Spool) -> None:
    """A message about keys stays readable, however many there are."""
    with pytest.raises(RopoConfigurationError) as caught:
        take(spool, [ROW | {f"key{number}": 1} for number in range(10 * MAX_KEYS)], {"description": "remarkk"})

    assert MAX_KEYS == str(caught.value).partition(", but")[0].count(",") + 1


def test_rows_with_ever_new_keys_need_no_memory(spool: Spool) -> None:
    """What is worked out for a set of keys is forgotten again, where each row has another."""
    alive: weakref.WeakSet[RowReader] = weakref.WeakSet()
    counts = []

    def make_reader(names: Sequence[str], **options: Any) -> RowReader:
        reader = RowReader(names, **options)
        alive.add(reader)
        return reader

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(3 * MAX_KEYS):
            yield ROW | {"id": f"e{number}", f"key{number}": 1}
        gc.collect()
        counts.append(len(alive))

    assert 3 * MAX_KEYS == take_mappings(spool, rows(), make_reader)
    assert 3 * MAX_KEYS == spool.count()
    assert MAX_KEYS <= counts[0] <= MAX_KEYS + 1


@pytest.mark.parametrize("lists", [True, False])
def test_rows_are_merged_unless_one_lists_invoices(lists: bool, spool: Spool) -> None:  # noqa: FBT001
    """Whether rows of one event may be merged depends on all the rows, however long ago they were read."""
    first: dict[str, Any] = ROW | {"id": "e0"} | ({"invoices": []} if lists else {})
    others = [ROW | {"id": f"o{number}", f"key{number}": 1} for number in range(2 * MAX_KEYS)]
    pair = [ROW | {"invoicenumber": number} for number in ("594294", "594295")]

    take(spool, [first, *others, *pair])

    assert (2 if lists else 0) == len(list(spool.invalid()))
    assert lists == ("e1" not in {event.id for event in events_of(spool)})
