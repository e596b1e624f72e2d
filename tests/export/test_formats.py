from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import BinaryIO

import pytest

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event import Invoice, UsageplaceEvent
from airflow_provider_ropo.event.model import encode_json
from airflow_provider_ropo.export.formats import (
    CSV_COLUMNS,
    CsvFormat,
    FileFormat,
    JsonFormat,
    JsonLinesFormat,
    format_of,
)

MakeEvent = Callable[..., UsageplaceEvent]


def written(format_: FileFormat, *events: UsageplaceEvent) -> bytes:
    stream = io.BytesIO()
    format_.open(stream)
    for event in events:
        format_.write(event)
    format_.close()
    return stream.getvalue()


def test_json_lines(make_event: MakeEvent) -> None:
    """A JSON Lines file has a payload a line, each with its line feed."""
    events = [make_event("e1", description="Mittari päällä"), make_event("e2", invoices=(Invoice("1", 2),))]

    content = written(JsonLinesFormat(), *events)

    assert b"".join(encode_json(event.to_payload()).encode() + b"\n" for event in events) == content


@pytest.mark.parametrize("count", [0, 1, 3])
def test_json_array(make_event: MakeEvent, count: int) -> None:
    """A JSON file is one array of the payloads, also of none."""
    events = [make_event(f"e{number}") for number in range(count)]

    content = written(JsonFormat(), *events)

    assert [event.to_payload() for event in events] == json.loads(content)
    assert content.endswith(b"\n")


def test_csv_row_an_invoice(make_event: MakeEvent) -> None:
    """A CSV file has a row an event and invoice, and one of an event that has none."""
    two = make_event("e1", invoices=(Invoice("594294", 1234), Invoice("594295")), customernumber="A1", contract_no="5b")

    content = written(CsvFormat(), two, make_event("e2"))

    assert content == (
        b"id;usageplacecode;status;time;customernumber;contract_no;description;invoicenumber;jobid\r\n"
        b"e1;RE1;connected;2024-01-04 10:00:00;A1;5b;Usage place connected;594294;1234\r\n"
        b"e1;RE1;connected;2024-01-04 10:00:00;A1;5b;Usage place connected;594295;\r\n"
        b"e2;RE1;connected;2024-01-04 10:00:00;;;Usage place connected;;\r\n"
    )


def test_csv_quotes(make_event: MakeEvent) -> None:
    """Delimiters, quotes and line breaks in a cell come back as they were, and formulas are left as they are."""
    text = '=1+1; "ovi"\r\nkiinni'

    content = written(CsvFormat(), make_event(description=text))

    (row,) = csv.DictReader(io.StringIO(content.decode(), newline=""), delimiter=";")
    assert text == row["description"]


@pytest.mark.parametrize(
    ("format_", "begins"),
    [
        (CsvFormat(header=False), b"e1;RE1;"),
        (CsvFormat(delimiter=",", header=False), b"e1,RE1,"),
        (CsvFormat(bom=True), b"\xef\xbb\xbfid;"),
        (CsvFormat(encoding="utf-16"), "id;".encode("utf-16")),
        (CsvFormat(encoding="utf-16-le", bom=True), b"\xff\xfei\0d\0;\0"),
        (CsvFormat(encoding="cp1252", header=False, delimiter="\t"), b"e1\tRE1\t"),
    ],
    ids=["no header", "comma", "mark", "utf-16", "utf-16 with a mark", "tab"],
)
def test_csv_settings(make_event: MakeEvent, format_: CsvFormat, begins: bytes) -> None:
    """Delimiter, encoding, mark and header are as they were set, and the mark stands once."""
    content = written(format_, make_event(), make_event("e2"))

    assert content.startswith(begins)
    assert len(content.decode(format_.encoding).splitlines()) == 2 + format_.header
    assert "\ufeff" not in content.decode(format_.encoding)[1:]


@pytest.mark.parametrize("column", ["id", "usageplacecode", "customernumber", "contract_no", "description"])
def test_character_that_the_encoding_lacks(make_event: MakeEvent, column: str) -> None:
    """An event with a character that the encoding lacks is an invalid row; nothing of it is written."""
    named = {"id": "event_id", "usageplacecode": "place"}
    format_ = CsvFormat(encoding="latin-1", header=False)

    with pytest.raises(InvalidRowError, match=f"{column}: has a character that the file's encoding latin-1 lacks"):
        written(format_, make_event(**{named.get(column, column): "5 €"}))

    stream = io.BytesIO()
    format_.open(stream)
    with pytest.raises(InvalidRowError):
        format_.write(make_event(description="5 €"))
    format_.write(make_event(description="5 å"))
    assert stream.getvalue() == written(format_, make_event(description="5 å"))


def test_invoice_that_the_encoding_lacks(make_event: MakeEvent) -> None:
    """An invoice's number is checked as every other cell."""
    with pytest.raises(InvalidRowError, match="invoicenumber: has a character"):
        written(CsvFormat(encoding="ascii"), make_event(invoices=(Invoice("1"), Invoice("ä"))))


@pytest.mark.parametrize(
    "settings",
    [
        {"delimiter": ""},
        {"delimiter": ";;"},
        {"delimiter": '"'},
        {"delimiter": "€", "encoding": "latin-1"},
        {"encoding": "utf-9"},
        {"encoding": "latin-1", "bom": True},
    ],
    ids=str,
)
def test_settings_that_make_no_file(settings: dict[str, object]) -> None:
    """Settings that cannot work are refused when the format is made."""
    with pytest.raises(RopoConfigurationError, match=r"`(delimiter|encoding|bom)`"):
        CsvFormat(**settings)  # type: ignore[arg-type]


def test_same_events_same_bytes(make_event: MakeEvent) -> None:
    """A format that is used again makes the same bytes."""
    for format_ in (JsonLinesFormat(), JsonFormat(), CsvFormat()):
        assert written(format_, make_event()) == written(format_, make_event())


class Own:
    """A user's format."""

    extension = "txt"

    def open(self, stream: BinaryIO) -> None:
        self.stream = stream

    def write(self, event: UsageplaceEvent) -> None:
        self.stream.write(event.id.encode())

    def close(self) -> None:
        self.stream.write(b".")


@pytest.mark.parametrize(
    ("given", "kind"),
    [("jsonl", JsonLinesFormat), ("json", JsonFormat), ("csv", CsvFormat), (CsvFormat(), CsvFormat), (Own(), Own)],
    ids=["jsonl", "json", "csv", "set", "own"],
)
def test_format_of(given: object, kind: type) -> None:
    """A format is named, or given as an object."""
    assert isinstance(format_of(given), kind)


@pytest.mark.parametrize("given", ["xml", None, 5, CsvFormat, object()], ids=["text", "none", "int", "class", "object"])
def test_no_format(given: object) -> None:
    """What is no format is refused."""
    with pytest.raises(RopoConfigurationError, match="`format` must be one of jsonl, json, csv"):
        format_of(given)


@pytest.mark.parametrize("extension", ["", "a b", "a/../b", "a\0", "\u202etxt", "x" * 21, None], ids=repr)
def test_extension_that_no_name_may_have(extension: object) -> None:
    """A format whose extension would make another path, or a name that the ledger cannot read again, is refused."""
    given = Own()
    given.extension = extension  # type: ignore[assignment]

    with pytest.raises(RopoConfigurationError, match="`extension` of `format`"):
        format_of(given)


def test_columns() -> None:
    """The columns are all fields of an event and of an invoice."""
    assert {*UsageplaceEvent.__dataclass_fields__, *Invoice.__dataclass_fields__} - {"invoices"} == set(CSV_COLUMNS)
