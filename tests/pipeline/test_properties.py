"""What holds for any row and any load of rows, whatever they are."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, cast

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.event.columns import FIELDS
from airflow_provider_ropo.intake.spool import Spool
from airflow_provider_ropo.timezones import find_timezone

# The API reference, page "Models". It marks no property as required.
UE_INVOICE = {
    "type": "object",
    "properties": {"jobid": {"type": "integer"}, "invoicenumber": {"type": "string"}},
    "additionalProperties": False,
}
USAGEPLACE_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "usageplacecode": {"type": "string"},
        "customernumber": {"type": "string"},
        "contract_no": {"type": "string"},
        "invoices": {"type": "array", "items": UE_INVOICE},
        "time": {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}\Z"},
        "status": {"type": "string", "enum": ["disconnected", "connected", "notdisconnected"]},
        "description": {"type": "string"},
    },
    "additionalProperties": False,
}
# What the guide asks for beyond it, and what this provider promises: nothing empty, ever.
PROMISED = {
    "required": ["id", "usageplacecode", "status", "time", "description"],
    "properties": {
        **{
            name: {"pattern": r"\S"}
            for name in ("id", "usageplacecode", "customernumber", "contract_no", "description")
        },
        "invoices": {"minItems": 1, "uniqueItems": True, "items": {"minProperties": 1}},
    },
}
VALIDATOR = Draft202012Validator({"allOf": [USAGEPLACE_EVENT, PROMISED]})

ZONES = ["Europe/Helsinki", "Europe/Stockholm", "Europe/Oslo", "America/New_York", "UTC"]
HELSINKI = find_timezone("Europe/Helsinki")


class Undecided(dt.tzinfo):
    """A zone that knows no offset."""

    def utcoffset(self, _when: dt.datetime | None) -> None:
        return None


any_text = st.text(st.characters(), max_size=30)  # surrogates and NULs among them
any_timezone = st.one_of(
    st.none(),
    st.timezones(),
    st.builds(Undecided),
    st.builds(dt.timezone, st.timedeltas(dt.timedelta(days=-1, microseconds=1), dt.timedelta(days=1, microseconds=-1))),
)
any_time = st.datetimes(timezones=any_timezone, allow_imaginary=True)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**99, 10**100, 643007572062443672]),
    st.floats(),
    st.decimals(),
    st.builds(
        lambda digits, exponent: Decimal((0, (digits,), exponent)), st.integers(0, 9), st.integers(-(10**6), 10**6)
    ),
    any_text,
    st.binary(max_size=10),
    st.uuids(),
    st.dates(),
    st.times(),
    st.timedeltas(),
    any_time,
    any_time.map(str),
    st.complex_numbers(),
)
any_value = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(any_text, inner, max_size=3),
        st.frozensets(st.integers(), max_size=2),
    ),
    max_leaves=6,
)

code = st.one_of(
    st.sampled_from(["643007572062443672", 643007572062443672, Decimal("643007572062443672.0"), "RE12345"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(" A{}\n".format),
    st.integers(),
)
jobid = st.one_of(st.integers(0, 10**6), st.integers(0, 10**6).map(str), st.none())
number = st.fixed_dictionaries({"invoicenumber": code}, optional={"JobId": jobid})
job = st.fixed_dictionaries({"jobid": st.integers()}, optional={"invoicenumber": code})
invoice_list = st.lists(st.one_of(number, job), max_size=3)
some_time = st.datetimes(
    dt.datetime.fromisoformat("1990-01-01"),
    dt.datetime.fromisoformat("2060-01-01"),
    timezones=cast("Any", any_timezone),
)
# Cells as warehouses have them: mostly sound, so that many rows become payloads.
sound: dict[str, st.SearchStrategy[Any]] = {
    "id": code,
    "usageplacecode": code,
    "status": st.sampled_from(["connected", "DISCONNECTED", "Not Disconnected", "cut", 1]),
    "time": st.one_of(some_time, some_time.map(str), some_time.map(dt.datetime.isoformat)),
    "customernumber": code,
    "contract_no": code,
    "description": st.text(max_size=20),
    "invoices": st.one_of(invoice_list, invoice_list.map(lambda value: json.dumps(value, default=int))),
    "invoicenumber": code,
    "jobid": jobid,
}
assert tuple(sound) == FIELDS


# Columns of no field, or of one that stands there already.
odd_columns = st.dictionaries(
    st.one_of(any_text, st.none(), st.integers(), st.tuples(any_text), st.just("Status")), any_value, max_size=1
)


@st.composite
def rows(draw: st.DrawFn) -> dict[Any, Any]:
    """Draw any row: some fields left out, some spoiled, the others sound, in any letter case, odd ones beside."""
    fields = st.sets(st.sampled_from(FIELDS), max_size=3)
    absent, spoiled = draw(fields) - draw(fields), draw(fields) - draw(fields)
    # One way of giving invoices is enough.
    absent |= draw(st.sampled_from([{"invoices"}, {"invoicenumber", "jobid"}, set()]))
    row = {
        draw(st.sampled_from([name, name.upper(), name.title()])): draw(any_value if name in spoiled else cells)
        for name, cells in sound.items()
        if name not in absent
    }
    odd: dict[Any, Any] = draw(st.one_of(st.just({}), st.just({}), odd_columns))
    return row | odd


def shown(value: object) -> str | None:
    """Return a cell as a message would show it, or None if that is too little to look for."""
    try:
        text = str(value)
    except ValueError:  # more digits than Python likes to print
        return None
    return text if len(text) > 5 else None


def end_of(row: dict[Any, Any], **options: Any) -> UsageplaceEvent | InvalidRowError:
    """Return what a row comes to: nothing but these two may happen."""
    try:
        return UsageplaceEvent.from_row(row, **options)
    except InvalidRowError as error:
        return error


@settings(max_examples=600)
@given(row=rows(), zone=st.sampled_from(ZONES), jobid_as_string=st.booleans())
def test_any_row(row: dict[Any, Any], zone: str, jobid_as_string: bool) -> None:  # noqa: FBT001
    """Any row becomes a payload that the documented schema accepts, or is invalid with a reason; nothing else."""
    statuses = {"cut": "disconnected", 1: "connected"}

    end = end_of(row, timezone=zone, statuses=statuses, row_number=3)

    if isinstance(end, InvalidRowError):
        note(f"invalid: {end.column.lower() if end.column.lower() in FIELDS else 'odd'}")
        cell = shown(row.get(end.column))
        assert end.row.startswith("row 3")
        assert end.column
        assert end.reason
        assert cell is None or cell not in end.reason
    else:
        note(f"payload, invoices: {len(end.invoices)}")
        payload = end.to_payload(jobid_as_string=jobid_as_string)
        jobids = [each["jobid"] for each in payload.get("invoices", []) if "jobid" in each]
        assert payload == json.loads(json.dumps(payload, allow_nan=False, ensure_ascii=False).encode())
        assert {str if jobid_as_string else int} >= {type(each) for each in jobids}
        VALIDATOR.validate(end.to_payload())


@settings(max_examples=300)
@given(row=rows(), zone=st.sampled_from(ZONES))
def test_any_event_comes_back_from_the_spool(row: dict[Any, Any], zone: str) -> None:
    """Whatever a row was, the spool takes it, and gives its event back as it was."""
    end = end_of(row, timezone=zone)
    expected = [end] if isinstance(end, UsageplaceEvent) else []

    with Spool(find_timezone(zone)) as spool:
        put(spool, [end])
        spool.merge_rows(merges_invoices=True)
        actual = [each for lane in spool.lanes() for each in lane]
        invalid = list(spool.invalid())

    assert expected == actual
    assert [each.to_payload() for each in expected] == [each.to_payload() for each in actual]
    assert 1 - len(expected) == len(invalid)


@given(row=rows(), zone=st.sampled_from(ZONES))
def test_any_row_is_read_alike_twice(row: dict[Any, Any], zone: str) -> None:
    """The same row comes to the same end, id and all, whatever the order of its columns."""
    ends = [end_of(cells, timezone=zone) for cells in (row, dict(reversed(row.items())))]

    # Of several names that stand twice, the first is named.
    one, other = (end if isinstance(end, UsageplaceEvent) else end.reason for end in ends)
    assert one == other


@given(moment=some_time, zone=st.sampled_from(ZONES))
def test_any_payload_read_again(moment: dt.datetime, zone: str) -> None:
    """A payload read as a row is the same payload: nothing drifts, the repeated hour of autumn included."""
    end = end_of({"usageplacecode": "RE1", "status": "connected", "time": moment}, timezone=zone)

    if isinstance(end, InvalidRowError):
        assert "does not exist" in end.reason
    else:
        again = end_of(end.to_payload(), timezone=zone)
        assert isinstance(again, UsageplaceEvent)
        assert end.to_payload() == again.to_payload()


# A simple spool in memory, to compare the real one with.


@dataclass
class Model:
    """What the rows of a load should come to."""

    lanes: list[list[UsageplaceEvent]] = field(default_factory=list)
    invalid: list[int] = field(default_factory=list)


Row = UsageplaceEvent | InvalidRowError


def content(each: UsageplaceEvent, *, merges_invoices: bool) -> UsageplaceEvent:
    """Return what has to be the same in all rows of one event."""
    whole = replace(each, time=each.time.astimezone(dt.UTC).replace(microsecond=0))
    return replace(whole, invoices=()) if merges_invoices else whole


def model(load: list[Row], *, merges_invoices: bool) -> Model:
    result = Model()
    broken = {row.event_id for row in load if isinstance(row, InvalidRowError)} - {None}
    by_id: dict[str, list[UsageplaceEvent]] = {}
    for row in load:
        if isinstance(row, UsageplaceEvent):
            by_id.setdefault(row.id, []).append(row)
    sound_ids = {
        event_id
        for event_id, same in by_id.items()
        if event_id not in broken and 1 == len({content(row, merges_invoices=merges_invoices) for row in same})
    }
    events: dict[str, UsageplaceEvent] = {}
    for number, row in enumerate(load, 1):
        if isinstance(row, InvalidRowError) or row.id not in sound_ids:
            result.invalid.append(number)
        elif row.id not in events:
            invoices = dict.fromkeys(invoice for same in by_id[row.id] for invoice in same.invoices)
            events[row.id] = replace(row, invoices=tuple(invoices))
    places: dict[str, list[UsageplaceEvent]] = {}
    # Sorting is stable: reading order stays where times are equal.
    for each in sorted(events.values(), key=lambda each: each.time.timestamp()):
        places.setdefault(each.usageplacecode, []).append(each)
    result.lanes = sorted(places.values(), key=lambda lane: (lane[0].time.timestamp(), lane[0].usageplacecode))
    return result


few_invoices = st.lists(
    st.builds(Invoice, st.sampled_from(["1", "2"]), st.sampled_from([1, 2, None])), max_size=2, unique=True
).map(tuple)
AUTUMN = dt.datetime(2024, 10, 27, tzinfo=dt.UTC)


def alike(event_id: str, half: int, contract_no: str | None, invoices: tuple[Invoice, ...]) -> UsageplaceEvent:
    """Return an event of which nearly everything follows from its id, so that rows of one id mostly agree."""
    seconds = ord(event_id) % 3 + half / 2
    return UsageplaceEvent(
        event_id,
        "1" if event_id < "e" else "01",
        UsageplaceStatus.CONNECTED,
        (AUTUMN + dt.timedelta(seconds=seconds)).astimezone(HELSINKI),
        contract_no=contract_no,
        invoices=invoices,
    )


some_event = st.builds(
    alike, st.sampled_from("abcdefgh"), st.integers(0, 1), st.sampled_from([None] * 19 + ["c"]), few_invoices
)
some_error = st.builds(
    lambda event_id: InvalidRowError("row", "jobid", "is wrong", event_id=event_id),
    st.sampled_from([None, None, None, "a", "b"]),
)


loads = st.lists(st.one_of([some_event] * 9 + [some_error]), max_size=30)


@settings(max_examples=400)
@given(load=loads, merges_invoices=st.booleans())
def test_any_load(load: list[Row], merges_invoices: bool) -> None:  # noqa: FBT001
    """Every row ends in one event or as invalid, a place's events in order, as in the simplest of models."""
    expected = model(load, merges_invoices=merges_invoices)

    with Spool(HELSINKI) as spool:
        put(spool, load)
        spool.merge_rows(merges_invoices=merges_invoices)
        lanes = [list(lane) for lane in spool.lanes()]
        invalid = list(spool.invalid())
        count = spool.count()

    note(f"{len(expected.lanes)} places, {min(len(expected.invalid), 3)} invalid")
    assert expected.lanes == lanes
    assert len(expected.invalid) == len(invalid)
    assert sum(map(len, expected.lanes)) == count
    assert [error.event_id for error in invalid] == [event_id_of(load[number - 1]) for number in expected.invalid]
    assert {id_ for lane in lanes for id_ in (each.id for each in lane)}.isdisjoint(error.event_id for error in invalid)


def put(spool: Spool, load: list[Row]) -> None:
    for number, row in enumerate(load, 1):
        if isinstance(row, InvalidRowError):
            spool.reject(number, row)
        else:
            spool.add(number, row)


def event_id_of(row: Row) -> str | None:
    return row.event_id if isinstance(row, InvalidRowError) else row.id
