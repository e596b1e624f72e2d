"""File formats: events in, bytes out. The same events make the same bytes."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar, Protocol, runtime_checkable

from airflow_provider_ropo.errors import InvalidRowError, RopoConfigurationError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.event.model import encode_json, row_label, time_text

#: The columns of a CSV file, in order.
CSV_COLUMNS = (
    "id",
    "usageplacecode",
    "status",
    "time",
    "customernumber",
    "contract_no",
    "description",
    "invoicenumber",
    "jobid",
)
#: Characters of a format's extension; the whole name is in the ledger.
LONGEST_EXTENSION = 20
#: The last two cells of an event that has none.
_NO_INVOICE = [(None, None)]


@runtime_checkable
class FileFormat(Protocol):
    """Writes events to a file; used for one file after another.

    Nothing in the file may depend on when or where it is made: after a kill it is made again, and has to be the same.
    """

    @property
    def extension(self) -> str:
        """What the file's name ends with, without the dot; an attribute will do."""

    def open(self, stream: BinaryIO) -> None:
        """Begin a file."""

    def write(self, event: UsageplaceEvent) -> None:
        """Write an event.

        :raises InvalidRowError: if the format cannot hold it; then nothing of it is written.
        """

    def close(self) -> None:
        """End the file; the stream stays open."""


class JsonLinesFormat:
    """A line of JSON an event: byte for byte the payload of the REST interface, and a line feed."""

    extension: ClassVar[str] = "jsonl"

    def open(self, stream: BinaryIO) -> None:
        """Begin a file."""
        self._write = stream.write

    def write(self, event: UsageplaceEvent) -> None:
        """Write an event's line."""
        self._write(encode_json(event.to_payload()).encode("ascii") + b"\n")

    def close(self) -> None:
        """End the file."""


class JsonFormat:
    """One JSON array of the payloads, a line each."""

    extension: ClassVar[str] = "json"

    def open(self, stream: BinaryIO) -> None:
        """Begin a file."""
        self._write = stream.write
        self._before = b"[\n"

    def write(self, event: UsageplaceEvent) -> None:
        """Write an event's object."""
        self._write(self._before + encode_json(event.to_payload()).encode("ascii"))
        self._before = b",\n"

    def close(self) -> None:
        """End the array."""
        self._write(b"[]\n" if self._before == b"[\n" else b"\n]\n")


class _Echo:
    """Gives back what ``csv`` writes: its ``writerow`` returns what ``write`` does."""

    write = str


@dataclass
class CsvFormat:
    """A row an event and invoice, with the columns ``CSV_COLUMNS``; an event without invoices has one row.

    Cells are quoted where they have to be; lines end with CR LF (RFC 4180). Cells that a spreadsheet would take for a
    formula are not altered.

    :param delimiter: one character between cells.
    :param encoding: a codec of Python's. An event with a character that it lacks is an invalid row.
    :param bom: begin with the mark by which some programs recognise Unicode; for ``utf-8``, ``utf-16-le`` and
        ``utf-16-be``.
    :param header: begin with the names of the columns.
    :raises RopoConfigurationError: naming the parameter.
    """

    delimiter: str = ";"
    encoding: str = "utf-8"
    bom: bool = False
    header: bool = True
    extension: ClassVar[str] = "csv"
    _file: _CsvFile = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise RopoConfigurationError("`delimiter` must be one character, and no quote or line break")
        try:
            name = codecs.lookup(self.encoding).name
            self.delimiter.encode(name)
        except (LookupError, UnicodeError, ValueError):
            raise RopoConfigurationError(f"`encoding` {self.encoding!r} is no encoding for this file") from None
        if self.bom and name not in {"utf-8", "utf-16-le", "utf-16-be"}:
            raise RopoConfigurationError("`bom` is for the encodings utf-8, utf-16-le and utf-16-be")

    def open(self, stream: BinaryIO) -> None:
        """Begin a file."""
        self._file = _CsvFile(self, stream)

    def write(self, event: UsageplaceEvent) -> None:
        """Write an event's rows.

        :raises InvalidRowError: if the encoding lacks one of its characters.
        """
        self._file.write(event)

    def close(self) -> None:
        """End the file."""


class _CsvFile:
    """One file that is being written."""

    def __init__(self, settings: CsvFormat, stream: BinaryIO) -> None:
        self._settings = settings
        self._stream = stream
        self._row: Callable[[Iterable[object]], str] = csv.writer(_Echo(), delimiter=settings.delimiter).writerow
        # It writes the mark of utf-16 once, not before each row.
        self._encode = codecs.getincrementalencoder(settings.encoding)().encode
        if settings.bom:
            self._stream.write(self._encode("\N{ZERO WIDTH NO-BREAK SPACE}"))
        if settings.header:
            self._stream.write(self._encode(self._row(CSV_COLUMNS)))

    def write(self, event: UsageplaceEvent) -> None:
        cells = (
            event.id,
            event.usageplacecode,
            event.status.value,
            time_text(event.time),
            event.customernumber,
            event.contract_no,
            event.description,
        )
        invoices = [(invoice.invoicenumber, invoice.jobid) for invoice in event.invoices] or _NO_INVOICE
        try:
            data = self._encode("".join([self._row(cells + invoice) for invoice in invoices]))
        except UnicodeEncodeError:
            raise self._invalid(event, cells) from None
        self._stream.write(data)

    def _invalid(self, event: UsageplaceEvent, cells: Sequence[str | None]) -> InvalidRowError:
        named = dict(zip(CSV_COLUMNS, cells, strict=False))
        column = next((name for name, cell in named.items() if cell and not self._can_hold(cell)), "invoicenumber")
        return InvalidRowError(
            row_label(None, event.id),
            column,
            f"has a character that the file's encoding {self._settings.encoding} lacks",
            event_id=event.id,
            usageplacecode=event.usageplacecode,
        )

    def _can_hold(self, text: str) -> bool:
        try:
            text.encode(self._settings.encoding)
        except UnicodeEncodeError:
            return False
        return True


def format_of(given: object) -> FileFormat:
    """Return the format that a name or an object stands for.

    :raises RopoConfigurationError: if it stands for none.
    """
    named: dict[str, Callable[[], FileFormat]] = {"jsonl": JsonLinesFormat, "json": JsonFormat, "csv": CsvFormat}
    if isinstance(given, str) and given in named:
        return named[given]()
    if not isinstance(given, type) and isinstance(given, FileFormat):
        if not is_part_of_a_name(given.extension) or len(given.extension) > LONGEST_EXTENSION:
            raise RopoConfigurationError(
                f"the `extension` of `format` must be the ending of a file's name, of at most {LONGEST_EXTENSION} "
                "characters, without the dot, blanks and /"
            )
        return given
    raise RopoConfigurationError(
        f"`format` must be one of {', '.join(named)}, a CsvFormat, or an object with `extension`, `open`, `write` and "
        "`close`"
    )


def is_part_of_a_name(text: object) -> bool:
    """Tell whether a file's name may have this text: the ledger's rows end a name at a blank."""
    return isinstance(text, str) and bool(text) and text.isprintable() and not set(text) & {" ", "/"}
