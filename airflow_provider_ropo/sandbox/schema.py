"""Strict validation of an event against Ropo's documentation.

The rules are from Ropo developer documentation, guide "Usage place", and of the API reference pages
"Usageplace" and "Models" (``UsageplaceEvent`` and ``UEInvoice``). The documentation marks no property as
required and does not mention unknown ones. Here the sandbox is stricter than the documentation: ``id``,
``usageplacecode``, ``status`` and ``time`` are required, and a property that is not documented is refused,
because in practice it is a spelling mistake.

No message repeats a value: values may be personal data, and messages are logged.
"""

from __future__ import annotations

import json
import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

REQUIRED = ("id", "usageplacecode", "status", "time")
TEXTS = ("id", "usageplacecode", "customernumber", "contract_no", "time", "status", "description")
STATUSES = ("disconnected", "connected", "notdisconnected")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
LONGEST_NAME_SHOWN = 60
KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


class NotJsonError(ValueError):
    """The body is not JSON that every parser reads in the same way."""


def parse_json(body: bytes) -> Any:
    """Parse JSON as strictly as RFC 8259 allows: UTF-8, no repeated names, no infinite numbers."""
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except NotJsonError:
        raise
    except UnicodeDecodeError:
        raise NotJsonError("The body is not UTF-8") from None
    except (ValueError, RecursionError):
        raise NotJsonError("The body is not JSON") from None


def problems(payload: object, *, accept_jobid_string: bool = False) -> list[str]:
    """Return the errors in an event, each starting with the property's name; an empty list if it is valid."""
    if not isinstance(payload, dict):
        return ["the body must be a JSON object"]
    return [
        *_unknown(payload, {*TEXTS, "invoices"}, ""),
        *_required(payload),
        *(problem for name in TEXTS for problem in _text(payload, name)),
        *_values(payload),
        *_invoices(payload, accept_jobid_string=accept_jobid_string),
    ]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise NotJsonError("The body names a property twice in one object")
    return found


def _refuse_constant(name: str) -> NoReturn:
    message = f"The body holds {name}, which is not JSON"
    raise NotJsonError(message)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NotJsonError("The body holds a number too large to be read")
    return number


def _unknown(mapping: Mapping[str, object], known: set[str], where: str) -> Iterator[str]:
    for name in mapping:
        if name not in known:
            yield f"{where}{name[:LONGEST_NAME_SHOWN]}: no such property is documented"


def _required(payload: Mapping[str, object]) -> Iterator[str]:
    for name in REQUIRED:
        value = payload.get(name, "")
        if isinstance(value, str) and not value.strip():
            yield f"{name}: must be given and not blank"


def _text(mapping: Mapping[str, object], name: str, where: str = "") -> Iterator[str]:
    if name in mapping and not isinstance(mapping[name], str):
        yield f"{where}{name}: must be a string, not {_kind(mapping[name])}"


def _values(payload: Mapping[str, object]) -> Iterator[str]:
    status, time = payload.get("status"), payload.get("time")
    if isinstance(status, str) and status.strip() and status not in STATUSES:
        yield f"status: must be one of {', '.join(STATUSES)}"
    if isinstance(time, str) and time.strip() and not _is_time(time):
        yield "time: must be a real time, written YYYY-MM-DD HH:MM:SS"
    if status == "notdisconnected" and _is_blank(payload.get("description", "")):
        # Guide "Usage place": the message must explain why the disconnection could not be completed.
        yield "description: must be given and not blank when status is notdisconnected"


def _is_blank(value: object) -> bool:
    return isinstance(value, str) and not value.strip()


def _is_time(text: str) -> bool:
    if not TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _invoices(payload: Mapping[str, object], *, accept_jobid_string: bool) -> Iterator[str]:
    invoices = payload.get("invoices", [])
    if not isinstance(invoices, list):
        yield f"invoices: must be an array, not {_kind(invoices)}"
        return
    for index, invoice in enumerate(invoices):
        where = f"invoices[{index}]"
        if not isinstance(invoice, dict):
            yield f"{where}: must be an object, not {_kind(invoice)}"
            continue
        yield from _unknown(invoice, {"jobid", "invoicenumber"}, f"{where}.")
        yield from _text(invoice, "invoicenumber", f"{where}.")
        if "jobid" in invoice and not _is_jobid(invoice["jobid"], accept_string=accept_jobid_string):
            yield f"{where}.jobid: must be an integer, not {_kind(invoice['jobid'])}"


def _is_jobid(value: object, *, accept_string: bool) -> bool:
    # The schema has an integer, every example of the guide shows a string of digits.
    if isinstance(value, str):
        return accept_string and re.fullmatch(r"[0-9]+", value) is not None
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    return KINDS[type(value)]
