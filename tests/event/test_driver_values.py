from __future__ import annotations

import datetime as dt
from collections import OrderedDict, UserDict, UserList, deque, namedtuple
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sqlalchemy as sa
from trino.types import NamedRowTuple

from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.driver_values import as_mapping, as_sequence, unwrap

ROW = {"id": "e1", "usageplacecode": "RE1", "status": "connected", "time": "2024-01-04 10:41:40"}
INVOICE = {"invoicenumber": "594294", "jobid": 1234}
OTHER = {"invoicenumber": "594295", "jobid": 643007572062443672}
INVOICES = [INVOICE, OTHER]

Named = namedtuple("Named", ["invoicenumber", "jobid"])  # noqa: PYI024 - as drivers make them


class SnowparkRow(tuple[Any, ...]):  # noqa: SLOT001
    """A tuple that tells its names in a method alone."""

    def as_dict(self) -> dict[str, Any]:
        return {"INVOICENUMBER": self[0], "JOBID": self[1]}


class NamelessRow(tuple[Any, ...]):  # noqa: SLOT001
    """A row of Spark's that was made without names."""

    def asDict(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        raise TypeError


class ClientRow:
    """A row with the methods of a mapping that is none, as Google's client makes it."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def items(self) -> Any:
        return self.values.items()


class Record:
    """An object with names and values that is neither tuple nor mapping."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def asDict(self) -> dict[str, Any]:  # noqa: N802 - Spark's name
        return self.values


def trino_row(values: dict[str, Any]) -> NamedRowTuple:
    return NamedRowTuple(list(values.values()), list(values), ["varchar", "bigint"])


def sqlalchemy_rows() -> list[Any]:
    sql = "SELECT '594294' AS invoicenumber, 1234 AS jobid UNION SELECT '594295', 643007572062443672"
    engine = sa.create_engine("sqlite://", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        return list(connection.execute(sa.text(sql)))


STRUCT = pa.struct([("invoicenumber", pa.string()), ("jobid", pa.int64())])
OBJECTS = np.empty(2, dtype=object)
OBJECTS[:] = INVOICES

LISTS: dict[str, Any] = {
    "list": INVOICES,
    "tuple": tuple(INVOICES),
    "UserList": UserList(INVOICES),
    "deque": deque(INVOICES),
    "numpy array": OBJECTS,
    "pyarrow array": pa.array(INVOICES, STRUCT),
    "pyarrow chunked array": pa.chunked_array([pa.array([each], STRUCT) for each in INVOICES]),
    "pyarrow scalar": pa.scalar(INVOICES, pa.list_(STRUCT)),
    "pyarrow structs": [pa.scalar(each, STRUCT) for each in INVOICES],
    "pyarrow maps": pa.array(
        [list({key: str(value) for key, value in each.items()}.items()) for each in INVOICES],
        pa.map_(pa.string(), pa.string()),
    ),
    "lists of pairs": [list(each.items()) for each in INVOICES],
    "named tuples": [Named(**each) for each in INVOICES],
    "Trino's rows": [trino_row(each) for each in INVOICES],
    "Snowflake's rows": [SnowparkRow(each.values()) for each in INVOICES],
    "SQLAlchemy's rows": sqlalchemy_rows(),
    "Google's rows": [ClientRow(**each) for each in INVOICES],
    "objects": [Record(**each) for each in INVOICES],
    "mappings": [OrderedDict(INVOICE), MappingProxyType(OTHER)],
    "UserDicts": [UserDict(each) for each in INVOICES],
    "JSON texts": [
        '{"invoicenumber": "594294", "jobid": 1234}',
        '{"invoicenumber": "594295", "jobid": "643007572062443672"}',
    ],
    "numpy's numbers": [each | {"jobid": np.int64(int(str(each["jobid"])))} for each in INVOICES],
    "pyarrow's numbers": [each | {"jobid": pa.scalar(each["jobid"])} for each in INVOICES],
}


def refusal_of(**cells: Any) -> str:
    with pytest.raises(InvalidRowError) as caught:
        UsageplaceEvent.from_row(ROW | cells)
    return caught.value.reason


@pytest.mark.parametrize("invoices", LISTS.values(), ids=LISTS)
def test_invoices_in_the_clothes_of_a_driver(invoices: Any) -> None:
    """A list of invoices is understood in whatever types a driver or a data library has for it."""
    event = UsageplaceEvent.from_row(ROW | {"invoices": invoices})

    assert [{"jobid": 1234, "invoicenumber": "594294"}, {"jobid": 643007572062443672, "invoicenumber": "594295"}] == (
        event.to_payload()["invoices"]
    )


@pytest.mark.parametrize(
    "invoices",
    [(), UserList(), np.array([]), pa.array([], STRUCT), pa.scalar(None, pa.list_(STRUCT)), pa.NA],
    ids=["tuple", "UserList", "numpy", "pyarrow", "null list", "null"],
)
def test_no_invoices(invoices: Any) -> None:
    """An empty list or a NULL of any type is no invoices."""
    assert "invoices" not in UsageplaceEvent.from_row(ROW | {"invoices": invoices}).to_payload()


@pytest.mark.parametrize(
    ("invoices", "reason"),
    [
        ([("594294", 1234)], "not an invoice"),
        (np.array([["594294", "1234"]]), "not an invoice"),
        (np.array([594294]), "not an invoice"),
        ([NamedRowTuple(["594294", 1234], ["invoicenumber", None], ["varchar", "bigint"])], "not an invoice"),
        ([NamedRowTuple([1, 1234], ["jobid", "jobid"], ["bigint", "bigint"])], "not an invoice"),
        ([[("jobid", 1), ("jobid", 2)]], "not an invoice"),
        ([NamelessRow(["594294", 1234])], "not an invoice"),
        ([SnowparkRow(["594294", 1234, 1235])], "not an invoice"),
        ([Named("594294", 1234.0)], "floating-point"),
        ([Named("594294", np.float64(1234))], "floating-point"),
        ([Named("594294", np.float32(1234))], "floating-point"),
        ([pa.scalar({"jobid": 1234.0})], "floating-point"),
        ([Named(np.True_, 1)], "boolean"),
        (Named("594294", 1234), "is a Named, where a list"),
        (trino_row(INVOICE), "is a NamedRowTuple, where a list"),
        (pa.scalar(INVOICE, STRUCT), "is a dict, where a list"),
        ({"invoicenumber", "jobid"}, "is a set, where a list"),
        (b"[]", "is a bytes, where"),
        (memoryview(b"[]"), "is a memoryview, where a list of invoices is needed; it is binary"),
        (['{"jobid": 1'], "not valid JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_invoices_that_are_not_exact(invoices: Any, reason: str) -> None:
    """What has no names, a name twice, or a number that may have lost digits is refused in any clothes."""
    assert reason in refusal_of(invoices=invoices)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(643007572062443672), "643007572062443672"),
        (np.uint64(2**64 - 1), str(2**64 - 1)),
        (np.str_("RE1"), "RE1"),
        (np.array("RE1"), "RE1"),
        (pa.scalar("RE1"), "RE1"),
        (pa.scalar("RE1", pa.dictionary(pa.int8(), pa.string())), "RE1"),
        (pa.scalar(643007572062443672), "643007572062443672"),
        (pa.scalar(Decimal("643007572062443672.00")), "643007572062443672"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_codes(value: Any, expected: str) -> None:
    """A code keeps every digit in any clothes."""
    assert expected == UsageplaceEvent.from_row(ROW | {"usageplacecode": value}).usageplacecode


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.float64(12), "floating-point"),
        (np.float32(12), "floating-point"),
        (np.longdouble(12), "is a longdouble"),
        (pa.scalar(12.0), "floating-point"),
        (pa.scalar(12.0, pa.float32()), "floating-point"),
        (np.True_, "boolean"),
        (pa.scalar(value=True), "boolean"),
        (pa.scalar(b"RE1"), "is a bytes, where a code or text is needed; it is binary, so CAST it"),
        (np.bytes_(b"RE1"), "it is binary"),
        (np.array([1, 2]), "is a list"),
        (np.datetime64("2024-01-04T10:41:40"), "is a datetime"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_codes_that_are_not_exact(value: Any, reason: str) -> None:
    """A code that may have lost digits, or is none, is refused in any clothes."""
    assert reason in refusal_of(usageplacecode=value)


@pytest.mark.parametrize(
    "value", [np.float64("nan"), np.float32("nan"), np.datetime64("NaT"), pa.scalar(None, pa.string()), pa.NA], ids=repr
)
def test_nulls(value: Any) -> None:
    """NULL is NULL in any clothes."""
    assert "is missing, and Ropo One needs it" == refusal_of(time=value)


@pytest.mark.parametrize(
    "value",
    [
        np.datetime64("2024-01-04T10:41:40.123456789"),
        np.datetime64("2024-01-04T10:41:40.123456"),
        pa.scalar(dt.datetime(2024, 1, 4, 10, 41, 40, 123456)),  # noqa: DTZ001 - wall clock
        pa.scalar(dt.datetime(2024, 1, 4, 8, 41, 40, 123456, tzinfo=dt.UTC)),
    ],
    ids=["numpy ns", "numpy us", "pyarrow", "pyarrow aware"],
)
def test_times(value: Any) -> None:
    """A time keeps its microseconds in any clothes."""
    event = UsageplaceEvent.from_row(ROW | {"time": value})

    assert "2024-01-04T10:41:40.123456+02:00" == event.time.isoformat()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.datetime64("2024-01-04"), "date without a time of day"),
        (np.datetime64("2024-01"), "is a datetime64"),
        (np.datetime64("12024-01-04T10:41:40"), "is a datetime64"),
        (pa.scalar(dt.date(2024, 1, 4)), "date without a time of day"),
        (pa.scalar(1704357700123456789, pa.timestamp("ns")), "is a"),
    ],
    ids=["day", "month", "calendar", "pyarrow date", "pyarrow ns"],
)
def test_times_that_are_none(value: Any, reason: str) -> None:
    """A time that is not exact, or no time, is refused in any clothes."""
    assert reason in refusal_of(time=value)


@pytest.mark.parametrize("value", [1704357700.5, 1704357700, Decimal(1704357700), np.float64(1704357700)], ids=repr)
def test_time_as_a_number(value: Any) -> None:
    """A time that is a number is refused with the way out that BigQuery has, too."""
    reason = refusal_of(time=value)

    assert "CAST(… AS STRING)" in reason
    assert "DATETIME" in reason
    assert "1704357700" not in reason


class Lob:
    """A large object as Oracle's drivers have it: what is in it is read from the server."""

    def __init__(self, content: object) -> None:
        self.content = content

    def read(self) -> object:
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


def test_large_objects() -> None:
    """A large object of text is the text in it, and one of invoices the invoices."""
    cells = {"id": Lob("e1"), "description": Lob("Gate locked"), "invoices": Lob('[{"jobid": 1234}]')}

    payload = UsageplaceEvent.from_row(ROW | cells).to_payload()

    assert ("e1", "Gate locked", [{"jobid": 1234}]) == (payload["id"], payload["description"], payload["invoices"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"e1", "is a bytes, where"),
        (
            TypeError("closed"),
            "is a Lob, where a code or text is needed; its text cannot be read, so set oracledb.defaults.fetch_lobs",
        ),
        ("x" * 256, "has more than 255 characters"),
    ],
    ids=["binary", "unreadable", "long"],
)
def test_large_objects_that_are_no_text(content: object, reason: str) -> None:
    """A large object without text for the field is refused, with the setting that gives text instead."""
    assert reason in refusal_of(id=Lob(content))


def test_failure_of_the_database_is_no_row() -> None:
    """A database that fails while a large object is read is not a fault of the row."""
    with pytest.raises(ConnectionError):
        UsageplaceEvent.from_row(ROW | {"id": Lob(ConnectionError())})


def test_own_values_stay_as_they_are() -> None:
    """Python's own values, and those that nobody knows, come back as the same object."""
    for value in ["a", 1, 1.5, None, dt.datetime.now(dt.UTC), Decimal(1), [1], {"a": 1}, b"a", memoryview(b"a"), {1}]:
        assert value is unwrap(value)


@pytest.mark.parametrize(
    "value",
    ["ab", b"ab", bytearray(b"ab"), memoryview(b"ab"), {"a": 1}, 1, None],
    ids=lambda value: type(value).__name__,
)
def test_no_sequence(value: object) -> None:
    """Text and bytes are no sequences of characters, and a mapping is none of keys."""
    assert as_sequence(value) is None


@pytest.mark.parametrize("value", ["ab", [], ["ab", "cd"], [["a", 1]], [(1, 2)], ("a", 1), None], ids=repr)
def test_no_mapping(value: object) -> None:
    """What has no names is no mapping."""
    assert as_mapping(value) is None
