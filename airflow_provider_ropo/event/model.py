"""The usage place event that is sent to Ropo One, and how a warehouse row is read as one.

Field names and types are those of ``UsageplaceEvent`` and ``UEInvoice`` in the Ropo One API reference, page
"Models" (https://dev.ropo.com/api-reference/usageplace); the rules per status are those of the guide
"Usage place" (https://dev.ropo.com/guides/industry-specific-add-ons/usage-place).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_ropo.errors import InvalidRowError
from airflow_provider_ropo.event.columns import locate_fields, repeated, status_map
from airflow_provider_ropo.event.driver_values import PYTHON_TYPES, as_mapping, unwrap
from airflow_provider_ropo.event.values import (
    InvalidValueError,
    UsageplaceStatus,
    is_blank,
    parsed,
    read_description,
    read_integer,
    read_list,
    read_status,
    read_text,
    read_time,
)
from airflow_provider_ropo.timezones import DEFAULT_TIMEZONE, find_timezone

T = TypeVar("T")

#: Encodes a payload as JSON, for a request and for a file alike.
encode_json: Callable[[Any], str] = json.JSONEncoder(allow_nan=False).encode

__all__ = [
    "Invoice",
    "RowReader",
    "UsageplaceEvent",
    "UsageplaceStatus",
    "encode_json",
    "find_timezone",
    "mask_payload",
]

#: The guide's own wording, for rows without a description. A notdisconnected event has none: it needs the reason.
_WORDING = {
    UsageplaceStatus.DISCONNECTED: "Usage place disconnected",
    UsageplaceStatus.CONNECTED: "Usage place connected",
}


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice behind the request (Ropo One API, "Models": ``UEInvoice``).

    :param invoicenumber: the invoice's number.
    :param jobid: Ropo One's job id.
    """

    invoicenumber: str | None = None
    jobid: int | None = None

    def to_payload(self, *, jobid_as_string: bool = False) -> dict[str, Any]:
        """Return the JSON object; what is not known is left out, as the schema allows no null."""
        payload: dict[str, Any] = {}
        if self.jobid is not None:
            payload["jobid"] = str(self.jobid) if jobid_as_string else self.jobid
        if self.invoicenumber is not None:
            payload["invoicenumber"] = self.invoicenumber
        return payload


@dataclass(frozen=True, slots=True)
class UsageplaceEvent:
    """One event at one usage place (Ropo One API, "Models": ``UsageplaceEvent``).

    Rows give codes, numbers and the id at most 255 characters, and the description at most 10,000.

    :param id: unique id of the event.
    :param usageplacecode: the usage place's code, every digit of it.
    :param status: what happened.
    :param time: when, as an aware datetime in the connection's time zone.
    :param description: further description; for ``notdisconnected`` the reason.
    :param invoices: the invoices behind the request, in reading order.
    """

    id: str
    usageplacecode: str
    status: UsageplaceStatus
    time: dt.datetime
    customernumber: str | None = None
    contract_no: str | None = None
    description: str | None = None
    invoices: tuple[Invoice, ...] = ()

    @classmethod
    def from_row(
        cls,
        row: Mapping[str, Any],
        *,
        columns: Mapping[str, str] | None = None,
        statuses: Mapping[Any, str] | None = None,
        timezone: str | dt.tzinfo = DEFAULT_TIMEZONE,
        row_number: int | None = None,
    ) -> UsageplaceEvent:
        """Return the event of one warehouse row.

        :param row: column name (any letter case) → value, as the database driver gave it.
        :param columns: event field → column name, where they differ.
        :param statuses: the warehouse's status value → one of the three.
        :param timezone: the zone of the wall clock that is sent; naive times are taken to be in it.
        :param row_number: the row's number in reading order, for messages.
        :raises InvalidRowError: if the row cannot become an event without guessing.
        :raises RopoConfigurationError: if ``columns``, ``statuses`` or ``timezone`` make no sense.
        """
        reader = RowReader(list(row), columns=columns, statuses=statuses, timezone=timezone, check=False)
        return reader.read(tuple(row.values()), row_number)

    def to_payload(self, *, jobid_as_string: bool = False) -> dict[str, Any]:
        """Return the JSON body, the same every time; optional properties that are empty are left out.

        :param jobid_as_string: send each ``jobid`` as the text of the guide's examples, instead of the
            integer of the API reference.
        """
        payload: dict[str, Any] = {"id": self.id, "usageplacecode": self.usageplacecode}
        if self.customernumber is not None:
            payload["customernumber"] = self.customernumber
        if self.contract_no is not None:
            payload["contract_no"] = self.contract_no
        if self.invoices:
            payload["invoices"] = [invoice.to_payload(jobid_as_string=jobid_as_string) for invoice in self.invoices]
        payload["time"] = time_text(self.time)
        payload["status"] = self.status.value
        if self.description is not None:
            payload["description"] = self.description
        return payload


class RowReader:
    """Read rows that have the same columns as events; what depends on the columns alone is computed once.

    :param names: the column names, in order.
    :param check: refuse columns that lack a required field (a query); else each row is refused by itself (a mapping).
    :raises RopoConfigurationError: if the columns, ``columns``, ``statuses`` or ``timezone`` make no sense.

    The other parameters are those of :meth:`UsageplaceEvent.from_row`.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        columns: Mapping[str, str] | None = None,
        statuses: Mapping[Any, str] | None = None,
        timezone: str | dt.tzinfo = DEFAULT_TIMEZONE,
        check: bool = True,
    ) -> None:
        names = [str(name) for name in names]
        self._at = locate_fields(names, columns or {}, check=check)
        self._twice = repeated(names)
        self._names = {field: names[index] for field, index in self._at.items()}
        self._statuses = status_map(statuses or {})
        self._zone = find_timezone(timezone)
        #: Several rows of one event, an invoice each, are one event.
        self.merges_invoices = "invoices" not in self._at

    def read(self, values: Sequence[Any], number: int | None = None) -> UsageplaceEvent:
        """Return the event of one row.

        :param values: the cells, in the order of the columns.
        :param number: the row's number in reading order, for messages.
        :raises InvalidRowError: with the event's id, as soon as that is known.
        """
        if self._twice:
            raise InvalidRowError(row_label(number), self._twice[0], "stands in the row twice")
        event_id = code = None
        try:
            event_id = self._cell(values, "id", read_text)
            code = self._required(values, "usageplacecode", read_text)
            status = self._required(values, "status", lambda value: read_status(value, self._statuses))
            time = self._required(values, "time", lambda value: read_time(value, self._zone))
            customernumber = self._cell(values, "customernumber", read_text)
            contract_no = self._cell(values, "contract_no", read_text)
            description = self._cell(values, "description", read_description) or _default_description(status)
            event_id = event_id or _derive_id(code, status, time, customernumber, contract_no, description)
            invoices = self._invoices(values)
        except InvalidValueError as error:
            column = self._names.get(error.field, error.field)
            label = row_label(number, event_id)
            raise InvalidRowError(label, column, error.reason, event_id=event_id, usageplacecode=code) from None
        return UsageplaceEvent(event_id, code, status, time, customernumber, contract_no, description, invoices)

    def _cell(self, values: Sequence[Any], field: str, read: Callable[[Any], T]) -> T | None:
        index = self._at.get(field)
        if index is None:
            return None
        value = values[index]
        if type(value) not in PYTHON_TYPES:
            value = unwrap(value)
        if is_blank(value):
            return None
        try:
            return read(value)
        except InvalidValueError as error:
            raise InvalidValueError(error.reason, field) from None

    def _required(self, values: Sequence[Any], field: str, read: Callable[[Any], T]) -> T:
        value = self._cell(values, field, read)
        if value is None:
            raise InvalidValueError("is missing, and Ropo One needs it", field)
        return value

    def _invoices(self, values: Sequence[Any]) -> tuple[Invoice, ...]:
        listed = self._cell(values, "invoices", _read_invoices)
        number = self._cell(values, "invoicenumber", read_text)
        jobid = self._cell(values, "jobid", read_integer)
        if number is None and jobid is None:
            return listed or ()
        if listed:
            raise InvalidValueError("stands beside invoicenumber or jobid; a row gives one or the other", "invoices")
        return (Invoice(number, jobid),)


def row_label(number: int | None, event_id: str | None = None) -> str:
    """Return what a row is called in messages: ``row 7 (id 1a2b3c4d5)``, as far as it is known."""
    name = "row" if number is None else f"row {number}"
    if event_id is None:
        return name
    # A line break in an id would make a line of its own in the log.
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in event_id)
    return f"{name} (id {shown})"


def mask_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a payload that is fit for a log: what identifies the customer is ``***``."""
    open_fields = {"id", "usageplacecode", "time", "status"}
    copy = {key: value if key in open_fields else "***" for key, value in payload.items()}
    if payload.get("description") in _WORDING.values():
        copy["description"] = payload["description"]
    if "invoices" in payload:
        copy["invoices"] = [dict.fromkeys(invoice, "***") for invoice in payload["invoices"]]
    return copy


def time_text(time: dt.datetime) -> str:
    """Return a time as Ropo One is told it.

    :param time: in the zone that is sent.
    """
    # Not strftime: its %Y does not pad years alike everywhere.
    return f"{time.year:04}-{time.month:02}-{time.day:02} {time.hour:02}:{time.minute:02}:{time.second:02}"


def _default_description(status: UsageplaceStatus) -> str:
    if status not in _WORDING:
        raise InvalidValueError(
            "is missing, and Ropo One needs the reason why the place was not disconnected", "description"
        )
    return _WORDING[status]


def _derive_id(
    code: str,
    status: UsageplaceStatus,
    time: dt.datetime,
    customernumber: str | None,
    contract_no: str | None,
    description: str,
) -> str:
    """Return an id derived from the content: the same on every machine and every Python, as docs/rows.md describes it.

    Invoices are left out, so that the rows of one event, an invoice each, have one id.
    """
    content = [code, status.value, time_text(time), customernumber, contract_no, description]
    text = json.dumps(content, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


def _read_invoices(value: object) -> tuple[Invoice, ...]:
    return tuple(dict.fromkeys(_read_invoice(item) for item in read_list(value)))


def _read_invoice(item: object) -> Invoice:
    # A list of JSON texts is one way in which an array of JSON comes.
    invoice = as_mapping(parsed(unwrap(item)))
    if invoice is None:
        raise InvalidValueError("holds something that is not an invoice (an object); as JSON text any driver gives it")
    filled = {key: value for key, cell in invoice.items() if not is_blank(value := unwrap(cell))}
    fields = {key.casefold(): value for key, value in filled.items() if isinstance(key, str)}
    if not fields or len(fields) < len(filled) or fields.keys() - {"invoicenumber", "jobid"}:
        raise InvalidValueError("holds an invoice that is not made of one invoicenumber and one jobid")
    try:
        number = read_text(fields["invoicenumber"]) if "invoicenumber" in fields else None
        jobid = read_integer(fields["jobid"]) if "jobid" in fields else None
    except InvalidValueError as error:
        raise InvalidValueError(f"holds an invoice whose number {error.reason}") from None
    return Invoice(number, jobid)
