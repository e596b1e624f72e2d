from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_ropo.errors import RopoConfigurationError
from airflow_provider_ropo.event.columns import FIELDS, locate_fields, status_map
from airflow_provider_ropo.event.values import UsageplaceStatus
from airflow_provider_ropo.timezones import find_timezone

NEEDED = ["usageplacecode", "status", "time"]


def test_fields_are_found_in_any_letter_case() -> None:
    """A column is its field whatever its letter case, and other columns are no matter."""
    located = locate_fields(["Note", "TIME", "Status", "usagePlaceCode"], {}, check=True)

    assert {"usageplacecode": 3, "status": 2, "time": 1} == located


def test_fields_under_other_names() -> None:
    """Where `columns` names a column, that one is the field, and the field's own name is no more."""
    names = ["PLACE", "status", "time", "usageplacecode"]

    located = locate_fields(names, {"usageplacecode": "place"}, check=True)

    assert {"usageplacecode": 0, "status": 1, "time": 2} == located


@pytest.mark.parametrize("missing", NEEDED)
def test_required_column_absent(missing: str) -> None:
    """A query without a required column is refused, naming it and the columns there are."""
    names = ["id", *(name for name in NEEDED if name != missing)]

    with pytest.raises(RopoConfigurationError, match=f"columns {', '.join(names)}, but not {missing};"):
        locate_fields(names, {}, check=True)


def test_named_column_absent() -> None:
    """A column named in `columns` has to be there, even for an optional field."""
    with pytest.raises(RopoConfigurationError, match="usageplacecode, status, time, but not crew_note;"):
        locate_fields(NEEDED, {"description": "crew_note"}, check=True)


def test_two_columns_of_one_name() -> None:
    """Two columns of one name are refused, letter case aside, even where no field needs them."""
    with pytest.raises(RopoConfigurationError, match=r"columns .*Note.*: note twice"):
        locate_fields([*NEEDED, "Note", "NOTE"], {}, check=True)


def test_unknown_field_in_columns() -> None:
    """A field that no event has is a mistake in the task, whatever the rows are."""
    with pytest.raises(RopoConfigurationError, match=r"usage_place_code.*the fields are id, usageplacecode"):
        locate_fields(NEEDED, {"usage_place_code": "status"}, check=False)


def test_unchecked_columns() -> None:
    """A single mapping may lack what it likes: its row will say so."""
    assert {"id": 0} == locate_fields(["id"], {}, check=False)


def test_fields() -> None:
    """The fields of a row are those of the API, and an invoice's for flat rows."""
    event = "id usageplacecode status time customernumber contract_no description invoices"

    assert (*event.split(), "invoicenumber", "jobid") == FIELDS


def test_status_map() -> None:
    """The warehouse's values, text or numbers, lead to the three statuses."""
    mapped = status_map({"Cut Off": "disconnected", 1: "Connected", Decimal(-1): "not_disconnected"})

    assert {
        "cutoff": UsageplaceStatus.DISCONNECTED,
        "1": UsageplaceStatus.CONNECTED,
        "-1": UsageplaceStatus.NOTDISCONNECTED,
    } == mapped


@pytest.mark.parametrize(
    ("statuses", "reason"),
    [
        ({"cut": "off"}, "maps 'cut' to 'off'; each value needs exactly one of disconnected, connected"),
        ({"cut": None}, "maps 'cut' to None"),
        ({"cut": "disconnected", "CUT": "connected"}, "maps 'CUT' to 'connected'; each value needs exactly one"),
        ({1: "disconnected", "1": "connected"}, "maps '1' to 'connected'"),
        ({None: "connected"}, "maps None; a value is text, a whole number or a boolean"),
        ({1.5: "connected"}, r"maps 1\.5; a value is"),
        ({"-": "connected"}, "maps '-'; a value is"),
    ],
    ids=["unknown", "no status", "letter case", "number and text", "NULL", "float", "nothing left"],
)
def test_status_map_refuses(statuses: dict[Any, Any], reason: str) -> None:
    """A value with none of the three statuses, with two of them, or that is no value is a mistake in the task."""
    with pytest.raises(RopoConfigurationError, match=reason):
        status_map(statuses)


def test_status_map_may_repeat_itself() -> None:
    """Two spellings of one value may both be listed where they mean the same."""
    assert {"cut": UsageplaceStatus.DISCONNECTED} == status_map({"cut": "disconnected", "CUT": "disconnected"})


@pytest.mark.parametrize(
    ("name", "offset"), [("Europe/Helsinki", 2), ("Europe/Stockholm", 1), ("Europe/Oslo", 1), ("UTC", 0)]
)
def test_timezone(name: str, offset: int) -> None:
    """A zone is found by its name, with its rules."""
    zone = find_timezone(name)

    assert dt.timedelta(hours=offset) == dt.datetime(2024, 1, 4, tzinfo=zone).utcoffset()
    assert name == str(zone)


def test_timezone_as_an_object() -> None:
    """A zone that is one already is taken as it is."""
    zone = dt.timezone(dt.timedelta(hours=5))

    assert zone is find_timezone(zone)


@pytest.mark.parametrize("name", ["", "Europe", "Mars/Phobos", "../../etc/passwd", "\0"], ids=repr)
def test_unknown_timezone(name: str) -> None:
    """A name that is no zone is a mistake in the connection."""
    with pytest.raises(RopoConfigurationError, match="is not known; give a name such as Europe/Helsinki"):
        find_timezone(name)
