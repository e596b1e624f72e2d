from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent, UsageplaceStatus
from airflow_provider_ropo.event.model import RowReader, mask_payload, row_label

NAN = float("nan")

ROW = {"id": "e1", "usageplacecode": "RE12345", "status": "connected", "time": "2024-01-04 10:41:40"}

# The guide "Usage place"; but for jobid, which the API reference has as an integer.
GUIDE = {
    "contract_no": "555555b",
    "customernumber": "A123456",
    "description": "Usage place disconnected",
    "id": "1a2b3c4d5",
    "invoices": [{"invoicenumber": "594294", "jobid": 1234}],
    "status": "disconnected",
    "time": "2024-01-04 10:41:40",
    "usageplacecode": "643007572062443672",
}
GUIDE_MESSAGES = {
    "disconnected": GUIDE,
    "connected": GUIDE | {"status": "connected", "description": "Usage place connected"},
    "notdisconnected": GUIDE | {"status": "notdisconnected", "description": "Usage place could not be reached"},
}


def payload_of(**cells: Any) -> dict[str, Any]:
    return UsageplaceEvent.from_row(ROW | cells).to_payload()


def refusal_of(row: dict[str, Any], **options: Any) -> InvalidRowError:
    with pytest.raises(InvalidRowError) as caught:
        UsageplaceEvent.from_row(row, **options)
    return caught.value


@pytest.mark.parametrize("message", GUIDE_MESSAGES.values(), ids=GUIDE_MESSAGES)
def test_guide(message: dict[str, Any]) -> None:
    """Each of the three documented events comes out as the guide has it, its jobid an integer."""
    flat = {key: value for key, value in message.items() if key != "invoices"}

    event = UsageplaceEvent.from_row(flat | {"invoicenumber": "594294", "jobid": "1234"})

    assert message == event.to_payload()


@pytest.mark.parametrize("message", GUIDE_MESSAGES.values(), ids=GUIDE_MESSAGES)
def test_guide_to_the_letter(message: dict[str, Any]) -> None:
    """With `jobid_as_string` the events are the guide's to the letter."""
    expected = message | {"invoices": [{"invoicenumber": "594294", "jobid": "1234"}]}

    event = UsageplaceEvent.from_row(message)

    assert expected == event.to_payload(jobid_as_string=True)


def test_smallest_payload(make_event: Callable[..., UsageplaceEvent]) -> None:
    """An event that has nothing optional sends nothing optional."""
    event = make_event("e1", "RE1", "10:41:40", description=None)

    assert {"id": "e1", "usageplacecode": "RE1", "time": "2024-01-04 10:41:40", "status": "connected"} == (
        event.to_payload()
    )
    assert event.to_payload() == mask_payload(event.to_payload())


def test_payload_is_deterministic() -> None:
    """The same row is the same bytes, in the order of the API reference, whatever order its columns have."""
    backwards = dict(reversed(GUIDE.items()))

    encoded = [json.dumps(UsageplaceEvent.from_row(row).to_payload()) for row in (GUIDE, backwards)]

    assert encoded[0] == encoded[1]
    assert ["id", "usageplacecode", "customernumber", "contract_no", "invoices", "time", "status", "description"] == [
        *json.loads(encoded[0])
    ]


@pytest.mark.parametrize("blank", [None, "", "  ", NAN, Decimal("NaN")], ids=repr)
@pytest.mark.parametrize("field", ["usageplacecode", "status", "time"])
def test_required_cell_is_blank(field: str, blank: object) -> None:
    """A row without place, status or time is invalid, named by its id, column and reason."""
    error = refusal_of(ROW | {field: blank}, row_number=7)

    assert ("row 7 (id e1)", field, "is missing, and Ropo One needs it") == (error.row, error.column, error.reason)
    assert "e1" == error.event_id


@pytest.mark.parametrize("field", ["usageplacecode", "status", "time"])
def test_required_cell_is_absent(field: str) -> None:
    """A mapping that lacks a required column is an invalid row."""
    error = refusal_of({key: value for key, value in ROW.items() if key != field})

    assert f"row (id e1): {field}: is missing, and Ropo One needs it" == str(error)


@pytest.mark.parametrize("blank", [None, "", "  ", NAN, Decimal("NaN")], ids=repr)
def test_optional_cell_is_blank(blank: object) -> None:
    """Optional properties that are empty are left out: Ropo One's types know no null."""
    optional = dict.fromkeys(
        ["customernumber", "contract_no", "description", "invoices", "invoicenumber", "jobid"], blank
    )

    assert ROW | {"description": "Usage place connected"} == payload_of(**optional)


@pytest.mark.parametrize("blank", [None, "", "  ", NAN], ids=repr)
def test_notdisconnected_without_a_reason(blank: object) -> None:
    """Ropo One needs to know why a place was not disconnected."""
    error = refusal_of(ROW | {"status": "notdisconnected", "description": blank})

    assert "row (id e1): description: is missing, and Ropo One needs the reason why the place was not disconnected" == (
        str(error)
    )


@pytest.mark.parametrize(
    ("status", "wording"),
    [("disconnected", "Usage place disconnected"), ("connected", "Usage place connected")],
)
def test_wording_of_the_guide(status: str, wording: str) -> None:
    """Without a description the guide's own wording is sent."""
    assert wording == payload_of(status=status)["description"]


def test_description_of_the_row() -> None:
    """A description is sent as it is, without its outer blanks."""
    assert "Kytketty  klo 10" == payload_of(description=" Kytketty  klo 10\n")["description"]


CODE_FIELDS = ["id", "usageplacecode", "customernumber", "contract_no"]


@pytest.mark.parametrize("field", CODE_FIELDS)
@pytest.mark.parametrize(
    "value",
    [643007572062443672, Decimal(643007572062443672), Decimal("643007572062443672.0"), " 643007572062443672 "],
    ids=lambda value: type(value).__name__,
)
def test_code_keeps_every_digit(field: str, value: object) -> None:
    """A code is its exact digits, from an integer, an integral decimal or text."""
    assert "643007572062443672" == payload_of(**{field: value})[field]


@pytest.mark.parametrize("value", [643007572062443672.0, 12.0, True, False], ids=repr)
@pytest.mark.parametrize("field", [*CODE_FIELDS, "invoicenumber", "jobid"])
def test_code_as_a_float_or_boolean(field: str, value: object) -> None:
    """A code as a float is another place, and as a boolean none: invalid, never rounded."""
    error = refusal_of(ROW | {field: value})

    assert field == error.column
    assert str(value) not in str(error)


LONG_FIELDS = [(field, 255) for field in [*CODE_FIELDS, "invoicenumber"]] + [("description", 10_000)]


@pytest.mark.parametrize(("field", "limit"), LONG_FIELDS)
@pytest.mark.parametrize("letter", ["x", "Ä", "🔒"])
def test_longest_text(field: str, limit: int, letter: str) -> None:
    """A text may have as many characters as its field takes, however many bytes they are; outer blanks are none."""
    payload = payload_of(**{field: f" {limit * letter} "})

    cells = payload["invoices"][0] if field == "invoicenumber" else payload
    assert limit * letter == cells[field]


@pytest.mark.parametrize(("field", "limit"), LONG_FIELDS)
def test_text_that_is_too_long(field: str, limit: int) -> None:
    """A longer text makes its row invalid, and is not in the message."""
    error = refusal_of(ROW | {field: "x" * (limit + 1)}, row_number=7)

    assert (field, f"has more than {limit:,} characters") == (error.column, error.reason)
    assert ("row 7" if field == "id" else "row 7 (id e1)") == error.row
    assert "xxx" not in str(error)


def test_listed_invoice_number_that_is_too_long() -> None:
    """The limit is the same for an invoice in a list."""
    error = refusal_of(ROW | {"invoices": [{"invoicenumber": "x" * 256}]})

    assert ("invoices", "holds an invoice whose number has more than 255 characters") == (error.column, error.reason)


def test_derived_id_of_the_longest_row() -> None:
    """A row without id whose texts are all as long as they may be has an id of the usual length."""
    row = {key: value for key, value in ROW.items() if key != "id"}

    event = UsageplaceEvent.from_row(row | {"usageplacecode": "x" * 255, "description": "x" * 10_000})

    assert 32 == len(event.id)


def test_invoice_numbers_keep_every_digit() -> None:
    """An invoice's numbers are exact, too: its number is text, its job an integer."""
    actual = payload_of(invoicenumber=Decimal(643007572062443672), jobid="643007572062443672")["invoices"]

    assert [{"invoicenumber": "643007572062443672", "jobid": 643007572062443672}] == actual


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2024-01-04 08:41:40.999+00:00", "2024-01-04 10:41:40"),
        ("2024-07-04 07:41:40Z", "2024-07-04 10:41:40"),
        ("2024-01-04T10:41:40.999", "2024-01-04 10:41:40"),
        (dt.datetime(2024, 1, 4, 8, 41, 40, 999_999, tzinfo=dt.UTC), "2024-01-04 10:41:40"),
        ("0987-01-04 10:41:40", "0987-01-04 10:41:40"),
    ],
    ids=["offset", "summer", "naive", "datetime", "year"],
)
def test_time_is_wall_clock(time: object, expected: str) -> None:
    """The time is the zone's wall clock, its fraction of a second dropped, not rounded."""
    assert expected == payload_of(time=time)["time"]


@pytest.mark.parametrize(
    ("timezone", "expected"),
    [
        ("Europe/Stockholm", "2024-01-04 09:41:40"),
        (dt.timezone(dt.timedelta(hours=-5)), "2024-01-04 03:41:40"),
    ],
    ids=["name", "tzinfo"],
)
def test_time_in_another_zone(timezone: str | dt.tzinfo, expected: str) -> None:
    """The zone is the connection's."""
    event = UsageplaceEvent.from_row(ROW | {"time": "2024-01-04 08:41:40Z"}, timezone=timezone)

    assert expected == event.to_payload()["time"]


@pytest.mark.parametrize("time", [dt.date(2024, 1, 4), "2024-01-04", 1704357700, 1704357700.5], ids=repr)
def test_time_that_is_none(time: object) -> None:
    """A date without time of day, or a number, is no time."""
    assert "time" == refusal_of(ROW | {"time": time}).column


def test_time_that_clocks_skip() -> None:
    """A naive time in the spring gap is invalid, not moved by an hour."""
    error = refusal_of(ROW | {"time": "2024-03-31 03:30:00"})

    assert "does not exist in Europe/Helsinki" in error.reason


def test_status_that_is_none() -> None:
    """A status that is not one of the three is invalid, naming the three, not what stands there."""
    error = refusal_of(ROW | {"status": "sahkot poikki"})

    assert "status" == error.column
    assert "disconnected, connected, notdisconnected" in error.reason
    assert "sahkot" not in str(error)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("CUT-OFF", "disconnected"), (1, "connected"), (True, "connected"), (Decimal("2.0"), "notdisconnected")],
    ids=repr,
)
def test_statuses_of_the_warehouse(value: object, expected: str) -> None:
    """The warehouse's own values go through `statuses`."""
    statuses = {"cut off": "disconnected", 1: "connected", "TRUE": "connected", 2: "NOT DISCONNECTED"}

    event = UsageplaceEvent.from_row(ROW | {"status": value, "description": "gate locked"}, statuses=statuses)

    assert UsageplaceStatus(expected) is event.status


def test_statuses_guess_nothing() -> None:
    """A value beside the mapped ones is invalid, however near: -1 is not 1."""
    assert "status" == refusal_of(ROW | {"status": -1}, statuses={1: "connected"}).column


def test_statuses_leave_the_three() -> None:
    """The three words keep their meaning beside `statuses`."""
    event = UsageplaceEvent.from_row(ROW, statuses={"cut": "disconnected"})

    assert UsageplaceStatus.CONNECTED is event.status


def test_columns() -> None:
    """Columns of other names are read through `columns`, and named so in messages."""
    row = {"PLACE": "RE12345", "state": "connected", "happened": None}
    columns = {"usageplacecode": "place", "status": "state", "time": "happened"}

    error = refusal_of(row, columns=columns)

    assert "row: happened: is missing, and Ropo One needs it" == str(error)


def test_letter_case_of_columns() -> None:
    """Column names count in any letter case, as in warehouses that shout."""
    shouted = {key.upper(): value for key, value in GUIDE.items()}

    assert GUIDE == UsageplaceEvent.from_row(shouted).to_payload()


def test_column_that_stands_twice() -> None:
    """A mapping with one name in two letter cases is invalid: which one is right would be a guess."""
    error = refusal_of(ROW | {"STATUS": "disconnected"}, row_number=3)

    assert "row 3: status: stands in the row twice" == str(error)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"place": "PLACE"}}, "columns names place"),
        ({"statuses": {"cut": "off"}}, "statuses maps 'cut'"),
        ({"timezone": "Mars/Phobos"}, "timezone 'Mars/Phobos'"),
    ],
    ids=["columns", "statuses", "timezone"],
)
def test_mistaken_options(options: dict[str, Any], words: str) -> None:
    """A mistake in the task is not a row's."""
    with pytest.raises(RopoConfigurationError, match=words):
        UsageplaceEvent.from_row(ROW, **options)


TWO_INVOICES = [{"invoicenumber": "594294", "jobid": 1234}, {"invoicenumber": "594295", "jobid": 1235}]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (json.dumps(TWO_INVOICES), TWO_INVOICES),
        (TWO_INVOICES, TWO_INVOICES),
        (tuple(reversed(TWO_INVOICES)), [*reversed(TWO_INVOICES)]),
        (TWO_INVOICES + TWO_INVOICES, TWO_INVOICES),
        ([{"INVOICENUMBER": 594294, "JobId": "1234"}], TWO_INVOICES[:1]),
        ([{"jobid": 1234}], [{"jobid": 1234}]),
        ([{"invoicenumber": "594294", "jobid": None}], [{"invoicenumber": "594294"}]),
        ('[{"jobid": 643007572062443672}]', [{"jobid": 643007572062443672}]),
    ],
    ids=["JSON", "list", "tuple", "repeated", "letter case", "job alone", "number alone", "many digits"],
)
def test_invoices(cell: object, expected: list[dict[str, Any]]) -> None:
    """Invoices come as JSON text or as a list of mappings, and are sent in reading order, each once."""
    assert expected == payload_of(invoices=cell)["invoices"]


@pytest.mark.parametrize("cell", [None, "", "  ", "[]", "null", [], ()], ids=repr)
def test_no_invoices(cell: object) -> None:
    """Where there are no invoices, the property is left out."""
    assert "invoices" not in payload_of(invoices=cell)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("[{", "is not valid JSON"),
        ("594294", "is a int"),
        ({"jobid": 1}, "is a dict"),
        (["594294"], "holds something that is not an invoice"),
        ([None], "holds something that is not an invoice"),
        ([[]], "holds something that is not an invoice"),
        ([{}], "is not made of one invoicenumber and one jobid"),
        ([{"jobid": None}], "is not made of"),
        ([{"jobid": 1, "amount": 5}], "is not made of"),
        ([{"jobid": 1, "JobId": 2}], "is not made of"),
        ([{"jobid": 1, 5: 2}], "is not made of"),
        ([{"jobid": 1234.0}], "floating-point"),
        ('[{"jobid": 1234.5}]', "floating-point"),
        ('[{"jobid": Infinity}]', "floating-point"),
        ([{"jobid": "A1"}], "not a whole number"),
        ([{"jobid": True}], "boolean"),
        ([{"invoicenumber": ["594294"]}], "is a list"),
        (b"[]", "is a bytes"),
    ],
    ids=repr,
)
def test_malformed_invoices(cell: object, reason: str) -> None:
    """Invoices that are not exactly that make the row invalid."""
    error = refusal_of(ROW | {"invoices": cell})

    assert "invoices" == error.column
    assert reason in error.reason


@pytest.mark.parametrize(
    ("flat", "expected"),
    [
        ({"invoicenumber": 594294, "jobid": "1234"}, {"invoicenumber": "594294", "jobid": 1234}),
        ({"invoicenumber": "594294", "jobid": None}, {"invoicenumber": "594294"}),
        ({"invoicenumber": NAN, "jobid": Decimal(1234)}, {"jobid": 1234}),
    ],
    ids=["both", "number alone", "job alone"],
)
def test_flat_invoice(flat: dict[str, Any], expected: dict[str, Any]) -> None:
    """An invoice may stand in the row's own columns."""
    assert [expected] == payload_of(**flat)["invoices"]


def test_invoices_in_both_ways() -> None:
    """Invoices in a list and beside it are one way too many; an empty list is no way."""
    assert "invoices" == refusal_of(ROW | {"invoices": TWO_INVOICES, "jobid": 5}).column
    assert [{"jobid": 5}] == payload_of(invoices=[], jobid=5)["invoices"]


# docs/rows.md documents how an id is derived: these values must never change, or events would be sent twice.
DERIVED = [
    ({}, "2afc1de73870497162bd5bea82492ab7"),
    ({"status": "disconnected"}, "3f0afb4fa097ab44cdbf83883ac3747b"),
    ({"status": "notdisconnected", "description": "Portti lukossa, käyty 2×"}, "b7978ed34723d21389e8269c8b582896"),
    ({"customernumber": "A123456", "contract_no": "555555b"}, "04180cdba963422dc8012396bb484d54"),
    ({"usageplacecode": 643007572062443672}, "5622f8023c17ce723d815d03c4a3cea0"),
]


@pytest.mark.parametrize(("cells", "expected"), DERIVED, ids=["bare", "status", "Unicode", "customer", "code"])
def test_derived_id(cells: dict[str, Any], expected: str) -> None:
    """Without an id one is derived from the content: the same on every machine and every Python."""
    row = {key: value for key, value in ROW.items() if key != "id"}

    assert expected == UsageplaceEvent.from_row(row | cells).id


@pytest.mark.parametrize(
    "cells",
    [
        {"id": "  "},
        {"usageplacecode": " RE12345 "},
        {"status": "CONNECTED"},
        {"time": "2024-01-04T08:41:40.7Z"},
        {"description": "Usage place connected"},
        {"customernumber": ""},
        {"jobid": 1234},
        {"invoices": TWO_INVOICES},
        {"note": "a column no event knows"},
    ],
    ids=lambda cells: next(iter(cells)),
)
def test_derived_id_is_of_the_content(cells: dict[str, Any]) -> None:
    """Rows that tell Ropo One the same, but for their invoices, derive the same id."""
    assert DERIVED[0][1] == UsageplaceEvent.from_row(ROW | {"id": None} | cells).id


@pytest.mark.parametrize(
    "cells",
    [
        {"usageplacecode": "RE12346"},
        {"status": "disconnected", "description": "Usage place connected"},
        {"time": "2024-01-04 10:41:41"},
        {"customernumber": "A1"},
        {"contract_no": "A1"},
        {"description": "A1"},
    ],
    ids=lambda cells: next(iter(cells)),
)
def test_derived_ids_differ(cells: dict[str, Any]) -> None:
    """Rows that tell Ropo One something different derive different ids."""
    assert DERIVED[0][1] != UsageplaceEvent.from_row(ROW | {"id": None} | cells).id


def test_derived_id_tells_fields_apart() -> None:
    """The same text in another field is another content."""
    row = ROW | {"id": None}

    ids = {UsageplaceEvent.from_row(row | {field: "A1"}).id for field in ("customernumber", "contract_no")}

    assert 2 == len(ids)


def test_invalid_row_without_an_id() -> None:
    """A row too broken to derive an id goes by its number."""
    error = refusal_of({"usageplacecode": "RE12345", "status": "connected"}, row_number=12)

    assert ("row 12", None) == (error.row, error.event_id)


def test_invalid_invoice_of_a_derived_id() -> None:
    """A row broken in its invoices alone carries its event's id, so that the event's other rows can be found."""
    error = refusal_of(ROW | {"id": None, "jobid": "A1"}, row_number=12)

    assert DERIVED[0][1] == error.event_id
    assert f"row 12 (id {DERIVED[0][1]})" == error.row


def test_broken_id() -> None:
    """An id that cannot be used is not repeated in the message."""
    error = refusal_of(ROW | {"id": 12.5}, row_number=2)

    assert ("row 2", "id", None) == (error.row, error.column, error.event_id)


def test_values_are_frozen(make_event: Callable[..., UsageplaceEvent]) -> None:
    """An event and its invoices do not change between being read and being sent."""
    event = make_event(invoices=(Invoice("594294", 1234),))

    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = "e2"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.invoices[0].jobid = 1  # type: ignore[misc]


def test_row_reader_reads_many() -> None:
    """A reader understands rows of one set of columns, each for itself."""
    reader = RowReader(["usageplacecode", "status", "time"])

    codes = [reader.read((place, "connected", "2024-01-04 10:41"), 1).usageplacecode for place in (1, "RE2")]

    assert ["1", "RE2"] == codes


def test_row_reader_checks_a_query() -> None:
    """A reader of a query refuses columns that cannot make events, before the first row."""
    with pytest.raises(RopoConfigurationError, match="but not usageplacecode, time"):
        RowReader(["id", "status"])


@pytest.mark.parametrize(
    ("names", "merges_invoices"),
    [(["invoicenumber", "jobid"], True), ([], True), (["INVOICES"], False), (["invoices", "jobid"], False)],
    ids=["flat", "none", "list", "both"],
)
def test_row_reader_merges_invoices(names: list[str], merges_invoices: bool) -> None:  # noqa: FBT001
    """Several rows may be one event only where a row has room for one invoice."""
    assert merges_invoices is RowReader(["usageplacecode", "status", "time", *names]).merges_invoices


def test_masked() -> None:
    """What tells who the customer is does not reach a log, and the guide's own wording does."""
    shown = mask_payload(GUIDE)

    assert {
        "id": "1a2b3c4d5",
        "usageplacecode": "643007572062443672",
        "time": "2024-01-04 10:41:40",
        "status": "disconnected",
        "description": "Usage place disconnected",
        "customernumber": "***",
        "contract_no": "***",
        "invoices": [{"invoicenumber": "***", "jobid": "***"}],
    } == shown
    assert "A123456" == GUIDE["customernumber"]


def test_masked_description() -> None:
    """A description of the crew's own may name people: it is masked."""
    assert "***" == mask_payload(GUIDE | {"description": "Matti Meikäläinen was not at home"})["description"]


@pytest.mark.parametrize(
    ("event_id", "shown"),
    [
        ("WO-1 ä 🔒", "WO-1 ä 🔒"),
        ("a\nb\r\n", "a\\nb\\r\\n"),
        ("a\x1b[31mb\x7f\x85", "a\\x1b[31mb\\x7f\\x85"),
        ("a\u2028b\u202ec", "a\\u2028b\\u202ec"),
    ],
    ids=["plain", "line breaks", "terminal", "unicode"],
)
def test_label_of_a_row_is_one_line(event_id: str, shown: str) -> None:
    """What would break a log's line or paint it in the terminal is shown, not done."""
    assert f"row 7 (id {shown})" == row_label(7, event_id)
