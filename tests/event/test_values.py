from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pendulum
import pytest

from airflow_provider_ropo.event.values import (
    MAX_DIGITS,
    InvalidValueError,
    UsageplaceStatus,
    is_blank,
    read_integer,
    read_list,
    read_status,
    read_text,
    read_time,
    status_key,
)

HELSINKI = ZoneInfo("Europe/Helsinki")
NAN = float("nan")
# pandas is no dependency; its NULLs are recognised by the names of their types.
NAT = type("NaTType", (dt.datetime,), {})(2024, 1, 4)
NA = type("NAType", (), {})()


def naive(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


@pytest.mark.parametrize(
    "value",
    [None, "", " \t\n", "\u00a0", NAN, Decimal("NaN"), Decimal("sNaN"), NAT, NA],
    ids=["None", "empty", "blanks", "no-break", "nan", "NaN", "sNaN", "NaT", "NA"],
)
def test_blank(value: object) -> None:
    """NULL counts as blank in every way in which it arrives."""
    assert is_blank(value)


@pytest.mark.parametrize(
    "value", [0, False, 0.0, Decimal(0), "0", "-", [], {}, float("inf"), Decimal("Infinity")], ids=repr
)
def test_not_blank(value: object) -> None:
    """What is empty or zero in another sense is a value."""
    assert not is_blank(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("643007572062443672", "643007572062443672"),
        (643007572062443672, "643007572062443672"),
        (Decimal(643007572062443672), "643007572062443672"),
        (Decimal("643007572062443672.000"), "643007572062443672"),
        (Decimal("6.43007572062443672E+17"), "643007572062443672"),
        (Decimal("1.234567890123456789012345678901234567E+36"), "1234567890123456789012345678901234567"),
        (-7, "-7"),
        (Decimal("-0"), "0"),
        (10 ** (MAX_DIGITS - 1), "1" + "0" * (MAX_DIGITS - 1)),
        (Decimal("1E+99"), "1" + "0" * (MAX_DIGITS - 1)),
        ("  RE12345\n", "RE12345"),
        ("007", "007"),
        ("1.50", "1.50"),
        ("a  b", "a  b"),
        ("käyttöpaikka 🏠", "käyttöpaikka 🏠"),
        (UsageplaceStatus.CONNECTED, "connected"),
        (UUID("12345678-1234-5678-1234-567812345678"), "12345678-1234-5678-1234-567812345678"),
    ],
    ids=str,
)
def test_text_is_exact(value: object, expected: str) -> None:
    """Text is kept without its outer blanks, and a whole number keeps every digit."""
    actual = read_text(value)

    assert expected == actual
    assert str is type(actual) or isinstance(value, str)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (643007572062443672.0, "floating-point number"),
        (1234.0, "floating-point number"),
        (float("inf"), "floating-point number"),
        (True, "boolean"),
        (False, "boolean"),
        (Decimal("1.5"), "decimals"),
        (Decimal("643007572062443672.0000000000000000000000000000000001"), "decimals"),
        (Decimal("1E-999999"), "decimals"),
        (Decimal("Infinity"), "finite"),
        (Decimal("1E+100"), "more than 100 digits"),
        (Decimal("1E+999999"), "more than 100 digits"),
        (10**MAX_DIGITS, "more than 100 digits"),
        (-(10**5000), "more than 100 digits"),
        ("\ud800", "Unicode"),
        (b"RE12345", "bytes"),
        (["RE12345"], "list"),
        ({"a": 1}, "dict"),
        (Fraction(1, 1), "Fraction"),
        (dt.date(2024, 1, 4), "date"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else None,
)
def test_text_refuses(value: object, reason: str) -> None:
    """What may have lost digits, or is no code at all, is refused with a reason."""
    with pytest.raises(InvalidValueError, match=reason):
        read_text(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1234, 1234),
        ("1234", 1234),
        (" 1234 ", 1234),
        (Decimal("1234.0"), 1234),
        ("0", 0),
        ("-5", -5),
        ("643007572062443672", 643007572062443672),
        ("9" * MAX_DIGITS, 10**MAX_DIGITS - 1),
    ],
    ids=repr,
)
def test_integer(value: object, expected: int) -> None:
    """A whole number comes from an integer, an integral decimal, or its digits."""
    actual = read_integer(value)

    assert expected == actual
    assert int is type(actual)


@pytest.mark.parametrize(
    "value",
    [
        "007",
        "-0",
        "+5",
        "12 34",
        "1_000",
        "1e3",
        "1234.0",
        "12a",
        "١٢٣",
        "9" * (MAX_DIGITS + 1),
        1234.0,
        True,
        Decimal("0.5"),
    ],
    ids=repr,
)
def test_integer_refuses(value: object) -> None:
    """A number that would change on its way to a JSON integer is refused."""
    with pytest.raises(InvalidValueError):
        read_integer(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-01-04 10:41:40", "2024-01-04T10:41:40+02:00"),
        (" 2024-01-04T10:41:40 ", "2024-01-04T10:41:40+02:00"),
        ("2024-01-04 10:41", "2024-01-04T10:41:00+02:00"),
        ("2024-01-04 10:41:40.5", "2024-01-04T10:41:40.500000+02:00"),
        ("2024-01-04 10:41:40,123456789", "2024-01-04T10:41:40.123456+02:00"),
        ("2024-01-04T08:41:40Z", "2024-01-04T10:41:40+02:00"),
        ("2024-01-04t08:41:40z", "2024-01-04T10:41:40+02:00"),
        ("2024-01-04 09:41:40+01", "2024-01-04T10:41:40+02:00"),
        ("2024-01-04 09:41:40 +0100", "2024-01-04T10:41:40+02:00"),
        ("2024-01-04 03:11:40-05:30", "2024-01-04T10:41:40+02:00"),
        ("2024-01-03T23:30:00Z", "2024-01-04T01:30:00+02:00"),
        ("2024-07-04 10:41:40", "2024-07-04T10:41:40+03:00"),
        (naive("2024-01-04T10:41:40"), "2024-01-04T10:41:40+02:00"),
        (naive("2024-01-04T10:41:40.999999"), "2024-01-04T10:41:40.999999+02:00"),
        (dt.datetime(2024, 1, 4, 8, 41, 40, tzinfo=dt.UTC), "2024-01-04T10:41:40+02:00"),
        (dt.datetime(2024, 1, 4, 9, 41, 40, tzinfo=ZoneInfo("Europe/Oslo")), "2024-01-04T10:41:40+02:00"),
        (pendulum.datetime(2024, 1, 4, 8, 41, 40), "2024-01-04T10:41:40+02:00"),
        (pendulum.naive(2024, 1, 4, 10, 41, 40), "2024-01-04T10:41:40+02:00"),
        (pendulum.datetime(2024, 10, 27, 3, 30, tz="Europe/Helsinki", fold=0), "2024-10-27T03:30:00+03:00"),
        (pendulum.datetime(2024, 10, 27, 3, 30, tz="Europe/Helsinki", fold=1), "2024-10-27T03:30:00+02:00"),
    ],
    ids=str,
)
def test_time(value: object, expected: str) -> None:
    """A moment becomes wall clock of the zone; a naive one is taken to be in it already."""
    actual = read_time(value, HELSINKI)

    assert expected == actual.isoformat()
    assert HELSINKI is actual.tzinfo
    assert dt.datetime is type(actual)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (dt.date(2024, 1, 4), "date without a time of day"),
        ("2024-01-04", "date without a time of day"),
        ("20240104", "date without a time of day"),
        (1704357700, "is a int"),
        (1704357700.5, "is a float"),
        (Decimal(1704357700), "is a Decimal"),
        (True, "is a bool"),
        (dt.time(10, 41, 40), "is a time"),
        (b"2024-01-04 10:41:40", "is a bytes"),
        ("1704357700", "is not a time"),
        ("04.01.2024 10:41:40", "is not a time"),
        ("2024-01-04 10", "is not a time"),
        ("2024-01-04 10:41:40 EET", "is not a time"),
        ("2024-01-04 10:41:40\n2024", "is not a time"),
        ("٢٠٢٤-01-04 10:41:40", "is not a time"),
        ("2024-W01-4T10:41:40", "is not a time"),
        ("2023-02-29 10:41:40", "exists in the calendar"),
        ("2024-01-04 10:60:00", "exists in the calendar"),
        ("2024-01-04 10:41:40+24:00", "exists in the calendar"),
        ("0000-00-00 00:00:00", "exists in the calendar"),
    ],
    ids=repr,
)
def test_time_refuses(value: object, reason: str) -> None:
    """A date without time of day, a number, or text that is no time is refused with a reason."""
    with pytest.raises(InvalidValueError, match=reason):
        read_time(value, HELSINKI)


@pytest.mark.parametrize(
    "value",
    [
        naive("2024-03-31T03:30:00"),
        "2024-03-31 03:00:00",
        "2024-03-31 03:59:59.999",
        pendulum.naive(2024, 3, 31, 3, 30),
    ],
    ids=["naive", "first", "last", "pendulum"],
)
def test_time_in_the_spring_gap(value: object) -> None:
    """A naive time that clocks skip when they go forward is refused, not moved."""
    with pytest.raises(InvalidValueError, match="does not exist in Europe/Helsinki"):
        read_time(value, HELSINKI)


@pytest.mark.parametrize("value", ["2024-03-31 02:59:59", "2024-03-31 04:00:00", "2024-10-27 03:30:00"])
def test_time_beside_the_gap(value: str) -> None:
    """Just before and after the gap, and in the hour that autumn repeats, a naive time stays what it is."""
    assert value == read_time(value, HELSINKI).strftime("%Y-%m-%d %H:%M:%S")


def test_time_in_the_repeated_hour() -> None:
    """Aware times in the hour that autumn repeats keep their order, though wall clocks go back."""
    before = read_time("2024-10-27T03:30:00+03:00", HELSINKI)
    after = read_time("2024-10-27T03:10:00+02:00", HELSINKI)

    assert ("03:30", "03:10") == (f"{before:%H:%M}", f"{after:%H:%M}")
    assert before.timestamp() < after.timestamp()


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01 00:00:00",
        naive("0001-01-01T00:00:00"),
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        dt.datetime.max.replace(tzinfo=dt.UTC),
        "infinity",
        "-infinity",
        "12024-01-04 10:41:40",
        "12024-01-04",
        "0044-03-15 10:00:00 BC",
        "0044-03-15 BC",
    ],
    ids=str,
)
def test_time_outside_the_calendar(value: object) -> None:
    """A placeholder whose moment no calendar holds is refused, though its wall clock looks sound."""
    with pytest.raises(InvalidValueError, match="outside the calendar"):
        read_time(value, HELSINKI)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Helsinki", "America/New_York"])
@pytest.mark.parametrize("tz", [None, dt.UTC], ids=["naive", "aware"])
@pytest.mark.parametrize(
    "end", [naive("0001-01-01T00:00:00"), naive("9999-12-31T23:59:59.999999")], ids=["first", "last"]
)
def test_time_that_stands_for_infinity(end: dt.datetime, tz: dt.tzinfo | None, zone: str) -> None:
    """The first and the last moment of Python's calendar are what drivers make of infinity, in any zone."""
    with pytest.raises(InvalidValueError, match="outside the calendar"):
        read_time(end.replace(tzinfo=tz), ZoneInfo(zone))


def test_time_with_an_undecided_zone() -> None:
    """A datetime whose zone knows no offset is naive, as Python has it."""

    class Undecided(dt.tzinfo):
        def utcoffset(self, _when: dt.datetime | None) -> None:
            return None

        dst = tzname = utcoffset

    actual = read_time(dt.datetime(2024, 1, 4, 10, 41, 40, tzinfo=Undecided()), HELSINKI)

    assert "2024-01-04T10:41:40+02:00" == actual.isoformat()


class Broken(dt.tzinfo):
    """A time zone whose offset is whatever comes out of a call."""

    def __init__(self, offset: Callable[[], Any]) -> None:
        self.offset = offset

    def utcoffset(self, _when: dt.datetime | None) -> Any:
        return self.offset()

    def dst(self, _when: dt.datetime | None) -> None:
        raise NotImplementedError

    def tzname(self, _when: dt.datetime | None) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    "zone",
    [
        dt.tzinfo(),  # type: ignore[abstract]  # that it is abstract is the case
        Broken(lambda: dict[str, int]()["offset"]),
        Broken(lambda: 7200),
        Broken(lambda: dt.timedelta(hours=24)),
    ],
    ids=["abstract", "raises", "number", "a day"],
)
def test_time_with_a_broken_zone(zone: dt.tzinfo) -> None:
    """A time zone that raises an error makes the row invalid, and does not fail the task."""
    with pytest.raises(InvalidValueError, match="has a time zone that does not work"):
        read_time(dt.datetime(2024, 1, 4, 10, 41, 40, tzinfo=zone), HELSINKI)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("disconnected", "disconnected"),
        ("DISCONNECTED", "disconnected"),
        (" Connected ", "connected"),
        ("not disconnected", "notdisconnected"),
        ("NOT_DISCONNECTED", "notdisconnected"),
        ("Not-Disconnected", "notdisconnected"),
        ("not - _ disconnected", "notdisconnected"),
        (UsageplaceStatus.NOTDISCONNECTED, "notdisconnected"),
    ],
    ids=str,
)
def test_status(value: object, expected: str) -> None:
    """The three statuses are known in any letter case, with blanks, underscores and hyphens."""
    assert UsageplaceStatus(expected) is read_status(value, {})


@pytest.mark.parametrize(
    "value",
    ["cut", "disconnecte", "dis.connected", 1, -1, True, 1.0, b"connected", ["connected"], 10**5000, "\ud800"],
    ids=lambda value: type(value).__name__,
)
def test_status_refuses(value: object) -> None:
    """Anything else is refused, naming the three."""
    with pytest.raises(InvalidValueError, match="not one of disconnected, connected, notdisconnected"):
        read_status(value, {})


def test_status_of_the_warehouse_comes_first() -> None:
    """A warehouse may even use one of the three words for another."""
    statuses = {"connected": UsageplaceStatus.NOTDISCONNECTED}

    assert UsageplaceStatus.NOTDISCONNECTED is read_status("Connected", statuses)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Cut Off", "cutoff"),
        (1, "1"),
        ("1", "1"),
        (Decimal("1.00"), "1"),
        (-1, "-1"),
        ("-1", "-1"),
        (True, "true"),
        ("t", "t"),
        (1.0, ""),
        (None, ""),
        (b"1", ""),
        (10**5000, ""),
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, int) or abs(value) < 10 else "huge",
)
def test_status_key(value: object, expected: str) -> None:
    """Status values compare alike however the driver gives them, and a minus is a sign, not a hyphen."""
    assert expected == status_key(value)


INVOICES = [{"invoicenumber": "594294", "jobid": 1234}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (json.dumps(INVOICES), INVOICES),
        (INVOICES, INVOICES),
        (tuple(INVOICES), INVOICES),
        ("[]", []),
        ([], []),
        ("null", []),
    ],
    ids=["JSON", "list", "tuple", "empty JSON", "empty", "null"],
)
def test_json_list(value: object, expected: list[Any]) -> None:
    """A list comes as itself or as JSON text; null is an empty one."""
    assert expected == read_list(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("[{", "not valid JSON"),
        ("594294;1234", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[" + "9" * 5000 + "]", "not valid JSON"),
        ('{"jobid": 1}', "is a dict"),
        ("1234", "is a int"),
        ('"594294"', "is a str"),
        ({"jobid": 1}, "is a dict"),
        (1234, "is a int"),
        (b"[]", "is a bytes"),
        ('[{"jobid": 1, "jobid": 2}]', "same key twice"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_json_list_refuses(value: object, reason: str) -> None:
    """Malformed JSON, a repeated key, or something other than a list is refused with a reason."""
    with pytest.raises(InvalidValueError, match=reason):
        read_list(value)


def test_a_nul_character_is_refused() -> None:
    """What some databases cannot hold is refused with a reason, not left to fail in the ledger."""
    with pytest.raises(InvalidValueError, match="NUL"):
        read_text("64300\x007572")
