"""One warehouse cell → one exact value. What cannot be exact is refused, never rounded or guessed."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from enum import StrEnum
from numbers import Integral
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Is the cell NULL, blank text, or one of the ways in which NULL arrives (NaN, NaT, ``pandas.NA``)?"""
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


def read_text(value: object) -> str:
    """Return a code, number or text exactly as it is: text without outer blanks, an integer's every digit.

    :raises InvalidValueError: for a float (it may already have lost digits), a boolean, or another type.
    """
    if isinstance(value, str):
        return _checked_text(value.strip())
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
    raise InvalidValueError(f"is a {type(value).__name__}, where a code or text is needed")


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

    The fraction of a second stays: it is what tells which of two events came first.

    :raises InvalidValueError: for a date without time of day, a number, or text that is no time.
    """
    if isinstance(value, str):
        value = _parse_time(value.strip())
    if not isinstance(value, dt.datetime):
        if isinstance(value, dt.date):
            raise InvalidValueError("is a date without a time of day")
        raise InvalidValueError(
            f"is a {type(value).__name__}; a timestamp, or text such as 2024-01-04 10:41:40, is needed"
        )
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


def read_json_list(value: object) -> list[Any]:
    """Return the list in a cell that holds one, or JSON text of one.

    :raises InvalidValueError: for malformed JSON, a repeated key (one of two would get lost), or no list.
    """
    if isinstance(value, str):
        value = _parse_json(value)
    if value is None:
        return []
    if isinstance(value, list | tuple):
        return list(value)
    raise InvalidValueError(f"is a {type(value).__name__}, where a list of invoices is needed")


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


def _checked_text(text: str) -> str:
    if "\0" in text:
        raise InvalidValueError("holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidValueError("holds characters that are not valid Unicode") from None
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
