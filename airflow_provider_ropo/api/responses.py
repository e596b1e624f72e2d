"""Interpretation of Ropo One's responses: pure functions from status, headers and body to a value or an error.

The responses are those of the API reference, pages "Auth", "Usageplace" and "Models"; what the documentation
leaves open is decided on the safe side: only a plain success counts as delivered.
"""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoRateLimitError,
    RopoRejectedError,
    RopoResponseError,
    RopoServerError,
)

_LONGEST_DETAIL = 300
#: These hold no personal data.
_GUIDES_DESCRIPTIONS = {"Usage place disconnected", "Usage place connected"}
#: To mask a shorter one would spoil the response's own words.
_SHORTEST_DESCRIPTION = 4
#: A gateway got no response from the server behind it, but may have forwarded the request.
_GATEWAY_UNANSWERED = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)
#: What may precede a body's text: blanks, and the byte order marks of UTF-8 and UTF-16.
_BEFORE_WORDS = b" \t\r\n\v\f\x00\xef\xbb\xbf\xfe\xff"


@dataclass(frozen=True, slots=True)
class Receipt:
    """Ropo One's acceptance of one request.

    :param status_code: the HTTP status, 2xx.
    """

    status_code: int


def interpret_response(
    status_code: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: dt.datetime,
    secrets: Iterable[str] = (),
) -> Receipt | RopoResponseError:
    """Return the receipt or the error that the response to a posted event means.

    :param headers: the response's headers, letter case aside.
    :param now: the time of the response, for a ``Retry-After`` that is a date.
    :param secrets: what must not be in a log, should the response quote it.
    """
    if not 200 <= status_code < 300:
        error = _refusal(status_code, headers, body, now, secrets)
        if status_code in _GATEWAY_UNANSWERED:
            error.may_have_arrived = True
        return error
    if not body:
        return Receipt(status_code)
    if _is_page(headers, body):
        return RopoServerError(
            f"HTTP {status_code} with a web page instead of Ropo One's empty response; check Server (host)",
            status_code=status_code,
        )
    if _is_problem(body):
        detail = _detail(headers, body, secrets)
        return RopoServerError(
            f"HTTP {status_code} with a problem instead of Ropo One's empty response: {detail or 'no detail'}",
            status_code=status_code,
            detail=detail,
        )
    return Receipt(status_code)


def read_token(
    status_code: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: dt.datetime,
    secrets: Iterable[str] = (),
) -> str | RopoResponseError:
    """Return the token or the error that the response to a sign-in means; a rejection is about the credentials."""
    if 200 <= status_code < 300:
        token = _json_object(body).get("token")
        if isinstance(token, str) and token.isascii() and token.isprintable() and token.strip():
            return token
        return RopoServerError(
            f"HTTP {status_code} without a token; is this a Ropo One server?", status_code=status_code
        )
    error = _refusal(status_code, headers, body, now, secrets)
    if isinstance(error, RopoRejectedError):
        return RopoAuthenticationError(str(error), status_code=status_code, detail=error.detail)
    return error


def _refusal(
    status_code: int, headers: Mapping[str, str], body: bytes, now: dt.datetime, secrets: Iterable[str]
) -> RopoResponseError:
    detail = _detail(headers, body, secrets)
    return _error_class(status_code)(
        f"HTTP {status_code} {detail or _phrase(status_code)}",
        status_code=status_code,
        detail=detail,
        retry_after=_retry_after(headers.get("Retry-After"), now),
    )


def personal_data(payload: Mapping[str, Any]) -> Iterator[str]:
    """Yield the personal data of a payload, which a response may quote."""
    yield from (str(payload[key]) for key in ("customernumber", "contract_no") if key in payload)
    description = payload.get("description") or ""
    if len(description) >= _SHORTEST_DESCRIPTION and description not in _GUIDES_DESCRIPTIONS:
        yield description
    for invoice in payload.get("invoices", ()):
        yield from map(str, invoice.values())


def _error_class(status_code: int) -> type[RopoResponseError]:
    if status_code == HTTPStatus.UNAUTHORIZED:
        return RopoAuthenticationError
    if status_code == HTTPStatus.TOO_MANY_REQUESTS:
        return RopoRateLimitError
    if 400 <= status_code < 500:
        return RopoRejectedError
    return RopoServerError


def _phrase(status_code: int) -> str:
    if 300 <= status_code < 400:
        return "a redirect, which is never followed; check Server (host)"
    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return "an unknown status"


def _detail(headers: Mapping[str, str], body: bytes, secrets: Iterable[str]) -> str:
    """Return the text of an ``HttpApiProblem`` or an ``AuthError``, on one line."""
    if _is_page(headers, body):
        return ""
    problem = _json_object(body)
    texts = [problem.get(key) for key in ("title", "detail", "errorText")]
    text = ": ".join(_one_line(part) for part in texts if isinstance(part, str) and part.strip())
    # Before it is shortened: the first half of a token would not be recognised any more.
    for secret in sorted(map(_one_line, secrets), key=len, reverse=True):
        if secret:
            text = re.sub(re.escape(secret), "***", text, flags=re.IGNORECASE)
    return text if len(text) <= _LONGEST_DETAIL else f"{text[:_LONGEST_DETAIL]}…"


def _one_line(text: str) -> str:
    # What cannot be printed, a ledger's database may not take.
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_page(headers: Mapping[str, str], body: bytes) -> bool:
    # Some servers call an empty body text/html: that is no page.
    text = body.lstrip(_BEFORE_WORDS)
    return bool(text) and ("html" in headers.get("Content-Type", "").casefold() or text[:1] == b"<")


def _is_problem(body: bytes) -> bool:
    """Return whether a body is an ``HttpApiProblem`` or an ``AuthError``, whatever its status."""
    problem = _json_object(body)
    status = problem.get("status")
    return problem.get("errorId") is not None or (isinstance(status, int) and status >= HTTPStatus.BAD_REQUEST)


def _retry_after(value: str | None, now: dt.datetime) -> float | None:
    """Return the seconds to wait, from either form of the header (RFC 9110, 10.2.3)."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=dt.UTC)
        return max(0.0, (date - now).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
