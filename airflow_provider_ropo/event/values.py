"""Read one warehouse cell as one exact value; what cannot be exact is refused, never rounded or guessed."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from enum import StrEnum
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any
from uuid import UUID

from airflow_provider_ropo.event.driver_values import as_sequence

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Characters in a code, number or id, and in a description: what the ledger's column and a database's index hold (at
#: most 1,020 bytes in UTF-8), and more than anyone writes.
MAX_CODE_LENGTH = 255
MAX_DESCRIPTION_LENGTH = 10_000
# Longer than any code or number in use; it keeps Decimal("1E+999999") from becoming a megabyte of zeros.
MAX_DIGITS = 100

# ISO 8601 with a time of day, as databases print it. Stricter than datetime.fromisoformat, which also takes
# bare dates, bare hours and week dates.
_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2})(?:(:\d{2})(?:[.,](\d+))?)?[ ]?(Z|[+-]\d{2}(?::?\d{2})?)?",
    re.ASCII | re.IGNORECASE,
)
# As PostgreSQL writes what datetime cannot hold.
_BEYOND = re.compile(r"-?infinity|\d{5,}-\d{2}-\d{2}.*|\d{4,}-\d{2}-\d{2}.* BC", re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}", re.ASCII)
_ENDS = {dt.datetime.min, dt.datetime.max}  # noqa: DTZ901 - wall clocks of any zone
_END_YEARS = {time.year for time in _ENDS}
_TIME_NEEDED = "a timestamp, or text such as 2024-01-04 10:41:40,"
_INTEGER = re.compile(r"0|-?[1-9]\d*", re.ASCII)
# A minus before a digit is a sign: -1 is not 1.
_STATUS_NOISE = re.compile(r"[\s_]+|-(?!\d)")


class InvalidValueError(Exception):
    """A cell cannot be used.

    :param reason: why, never with the value itself.
    :param field: the event's field the cell was for, once that is known.
    """

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field


class UsageplaceStatus(StrEnum):
    """What happened at the usage place (Ropo One API, "Models": ``UsageplaceEvent.status``)."""

    DISCONNECTED = "disconnected"
    CONNECTED = "connected"
    NOTDISCONNECTED = "notdisconnected"


_STATUSES = {status.value: status for status in UsageplaceStatus}


def is_blank(value: object) -> bool:
    """Return whether the cell is NULL, blank text, or NaN, NaT or ``pandas.NA``, as which NULL may come."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, Decimal):
        return value.is_nan()
    if isinstance(value, float):
        return value != value  # noqa: PLR0124 - the definition of NaN
    # pandas is not imported to ask; its NULLs are recognised by name.
    return type(value).__name__ in {"NaTType", "NAType"}


def read_description(value: object) -> str:
    """Return free text as :func:`read_text` does, of at most 10,000 characters."""
    return read_text(value, MAX_DESCRIPTION_LENGTH)


def read_text(value: object, limit: int = MAX_CODE_LENGTH) -> str:
    """Return an id, code or number exactly as it is: text without outer blanks, an integer's every digit.

    :param limit: the most characters that it may have.
    :raises InvalidValueError: for a float (it may already have lost digits), a boolean, another type, or longer text.
    """
    if isinstance(value, str):
        return _checked_text(value.strip(), limit)
    if isinstance(value, bool):
        raise InvalidValueError("is a boolean, where a code or text is needed")
    if isinstance(value, float):
        raise InvalidValueError(
            "is a floating-point number, which may have lost digits; select it as text or as an integer"
        )
    if isinstance(value, Integral):
        return _digits(int(value))
    if isinstance(value, Decimal):
        return _decimal_digits(value)
    if isinstance(value, UUID):
        return str(value)
    raise _wrong_type(value, "a code or text")


def read_integer(value: object) -> int:
    """Return a number Ropo One wants as a JSON integer, from an integer, an integral decimal or its digits.

    :raises InvalidValueError: for anything that would change on the way.
    """
    text = read_text(value)
    if not _INTEGER.fullmatch(text):
        raise InvalidValueError("is not a whole number written in digits alone (no leading zeros)")
    if len(text) > MAX_DIGITS:
        raise InvalidValueError(f"has more than {MAX_DIGITS} digits")
    return int(text)


def read_time(value: object, zone: dt.tzinfo) -> dt.datetime:
    """Return the moment as an aware datetime in ``zone``; naive values are wall clock there already.

    The fraction of a second is kept: it decides which of two events came first.

    :raises InvalidValueError: for a date without time of day, a number, or text that is no time.
    """
    if isinstance(value, str):
        value = _parse_time(value.strip())
    if not isinstance(value, dt.datetime):
        if isinstance(value, dt.date):
            raise InvalidValueError("is a date without a time of day")
        raise _wrong_type(value, _TIME_NEEDED)
    if type(value) is not dt.datetime:
        value = _plain(value)
    # What drivers give for an infinite time. The year is asked first, as every row comes by here.
    if value.year in _END_YEARS and value.replace(tzinfo=None) in _ENDS:
        raise InvalidValueError("is outside the calendar")
    try:
        aware = value.utcoffset() is not None
    except Exception:  # noqa: BLE001 - a time zone is the caller's own code
        raise InvalidValueError("has a time zone that does not work") from None
    try:
        if aware:
            return value.astimezone(zone)
        local = value.replace(tzinfo=zone)
        if _is_in_gap(local):
            raise InvalidValueError(
                f"does not exist in {zone}, where clocks go forward then; is the column in another time zone?"
            )
        # The wall clock may be within the calendar, and the moment outside.
        local.astimezone(dt.UTC)
        return local
    except (OverflowError, ValueError):
        raise InvalidValueError("is outside the calendar") from None


def read_status(value: object, statuses: Mapping[str, UsageplaceStatus]) -> UsageplaceStatus:
    """Return one of the three statuses, first through ``statuses`` (keys as :func:`status_key` makes them).

    :raises InvalidValueError: if it is none of them.
    """
    key = status_key(value)
    status = statuses.get(key) or _STATUSES.get(key)
    if status is None:
        raise InvalidValueError(f"is not one of {', '.join(_STATUSES)}; map the warehouse's own values with `statuses`")
    return status


def status_key(value: object) -> str:
    """Return a status value in the form in which it is compared: letter case, blanks, ``_`` and ``-`` aside.

    It is empty for what cannot be a status.
    """
    if isinstance(value, bool):
        return str(value).casefold()
    try:
        return _STATUS_NOISE.sub("", read_text(value)).casefold()
    except InvalidValueError:
        return ""


def read_list(value: object) -> list[Any]:
    """Return the items of a cell that holds a sequence, or JSON text of a list.

    :raises InvalidValueError: for malformed JSON, a repeated key (one of two would get lost), or no list.
    """
    value = parsed(value)
    if value is None:
        return []
    items = as_sequence(value)
    if items is None:
        raise _wrong_type(value, "a list of invoices")
    return items


def parsed(value: object) -> object:
    """Return the value of JSON text, and anything but text as it is.

    :raises InvalidValueError: for malformed JSON or a repeated key.
    """
    return _parse_json(value) if isinstance(value, str) else value


def _wrong_type(value: object, needed: str) -> InvalidValueError:
    """Return the error for a value of the wrong type, with a way to select the right one where there is one."""
    kind = type(value)
    remedy = ""
    if isinstance(value, bytes | bytearray | memoryview):
        remedy = "; it is binary, so CAST it to text in the SQL"
    elif callable(getattr(kind, "read", None)):
        remedy = "; its text cannot be read, so set oracledb.defaults.fetch_lobs = False, or CAST it in the SQL"
    elif needed == _TIME_NEEDED and isinstance(value, Real | Decimal) and not isinstance(value, bool):
        remedy = "; a number has no unit, so CAST(… AS STRING) it in the SQL, or in BigQuery AS DATETIME"
    return InvalidValueError(f"is a {kind.__name__}, where {needed} is needed{remedy}")


def _plain(time: dt.datetime) -> dt.datetime:
    """Return a subclass's value (pendulum's, pandas') without its arithmetic, which skips gaps in silence."""
    clock = dt.time(time.hour, time.minute, time.second, time.microsecond, time.tzinfo, fold=time.fold)
    return dt.datetime.combine(dt.date(time.year, time.month, time.day), clock)


def _is_in_gap(local: dt.datetime) -> bool:
    """Is this wall clock skipped when clocks go forward? (PEP 495: then the later fold is further from UTC.)"""
    before, after = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    return before is not None and after is not None and after > before


def _parse_json(text: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError):
        raise InvalidValueError("is not valid JSON") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise InvalidValueError("has a JSON object with the same key twice")
    return result


def _parse_time(text: str) -> dt.datetime:
    match = _TIME.fullmatch(text)
    if match is None:
        if _DATE.fullmatch(text):
            raise InvalidValueError("is a date without a time of day")
        if _BEYOND.fullmatch(text):
            raise InvalidValueError("is outside the calendar")
        raise InvalidValueError("is not a time such as 2024-01-04 10:41:40 or 2024-01-04T10:41:40+02:00")
    date, minutes, seconds, fraction, offset = match.groups()
    fraction = f".{fraction[:6]}" if fraction else ""
    try:
        return dt.datetime.fromisoformat(f"{date} {minutes}{seconds or ':00'}{fraction}{(offset or '').upper()}")
    except ValueError:
        raise InvalidValueError("is not a time that exists in the calendar") from None


def _checked_text(text: str, limit: int) -> str:
    if len(text) > limit:
        raise InvalidValueError(f"has more than {limit:,} characters")
    if "\0" in text:
        raise InvalidValueError("holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidValueError(
                "holds characters that are not valid Unicode: the connection's encoding (PostgreSQL: client_encoding) "
                "is not that of the text"
            ) from None
    return text


def _digits(number: int) -> str:
    if abs(number) >= 10**MAX_DIGITS:
        raise InvalidValueError(f"has more than {MAX_DIGITS} digits")
    return str(number)


def _decimal_digits(number: Decimal) -> str:
    if not number.is_finite():
        raise InvalidValueError("is not a finite number")
    if number.adjusted() >= MAX_DIGITS:
        raise InvalidValueError(f"has more than {MAX_DIGITS} digits")
    # to_integral_value never rounds to the context's precision, so the comparison is exact.
    if number != number.to_integral_value():
        raise InvalidValueError("is a number with decimals, where a code or text is needed")
    return str(int(number))
