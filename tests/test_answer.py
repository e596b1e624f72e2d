"""The pure functions from an answer to its meaning: the one table that decides what counts as delivered."""

from __future__ import annotations

import datetime as dt
import json
import pickle

import pytest

from airflow_provider_ropo.answer import Receipt, classify, read_token
from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    InvalidRowError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoConnectError,
    RopoError,
    RopoRateLimitError,
    RopoRejectedError,
    RopoResponseError,
    RopoServerError,
    RopoTimeoutError,
)

NOW = dt.datetime(2024, 1, 4, 10, 41, 40, tzinfo=dt.UTC)
PAGE = b"<!doctype html><html><body>Welcome</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
PROBLEM = {"Content-Type": "application/problem+json"}


def problem(title: object = "Invalid event", detail: object = "time: must be given") -> bytes:
    return json.dumps({"status": 400, "type": "about:blank", "title": title, "detail": detail}).encode()


def refusal(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> RopoResponseError:
    result = classify(status, headers or {}, body, now=NOW)
    assert isinstance(result, RopoResponseError)
    return result


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        pytest.param(200, {}, b"", id="200 with nothing, as documented"),
        pytest.param(201, {}, b"", id="201"),
        pytest.param(204, {}, b"", id="204"),
        pytest.param(200, HTML, b"", id="200 with nothing, called text/html"),
        pytest.param(200, HTML, b"\r\n", id="200 with an empty line, called text/html"),
        pytest.param(200, {"Content-Type": "application/json"}, b'{"new": "field"}', id="200 with JSON"),
        pytest.param(200, {"Content-Type": "text/plain"}, b"OK", id="200 with OK"),
    ],
)
def test_a_plain_success_is_a_receipt(status: int, headers: dict[str, str], body: bytes) -> None:
    """A 2xx answer is Ropo's acceptance, whatever it says beside, as long as it is no web page."""
    result = classify(status, headers, body, now=NOW)

    assert Receipt(status) == result


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        pytest.param(200, HTML, PAGE, RopoServerError, id="200 HTML"),
        pytest.param(200, {}, b"  \n" + PAGE, RopoServerError, id="200 HTML nobody calls so"),
        pytest.param(204, HTML, PAGE, RopoServerError, id="204 HTML"),
        pytest.param(101, {}, b"", RopoServerError, id="101"),
        pytest.param(300, {}, b"", RopoServerError, id="300"),
        pytest.param(301, {"Location": "https://elsewhere.example"}, b"", RopoServerError, id="301"),
        pytest.param(302, {"Location": "https://elsewhere.example"}, PAGE, RopoServerError, id="302"),
        pytest.param(304, {}, b"", RopoServerError, id="304"),
        pytest.param(307, {"Location": "/rest/usageplace/event"}, b"", RopoServerError, id="307"),
        pytest.param(308, {"Location": "/rest/usageplace/event"}, b"", RopoServerError, id="308"),
        pytest.param(400, PROBLEM, problem(), RopoRejectedError, id="400 HttpApiProblem"),
        pytest.param(400, HTML, PAGE, RopoRejectedError, id="400 HTML"),
        pytest.param(400, {}, b"", RopoRejectedError, id="400 nothing"),
        pytest.param(401, {}, b"", RopoAuthenticationError, id="401"),
        pytest.param(403, {}, b"", RopoRejectedError, id="403"),
        pytest.param(404, HTML, PAGE, RopoRejectedError, id="404"),
        pytest.param(405, {}, b"", RopoRejectedError, id="405"),
        pytest.param(409, PROBLEM, problem("Conflict", None), RopoRejectedError, id="409"),
        pytest.param(413, {}, b"", RopoRejectedError, id="413"),
        pytest.param(429, {}, b"", RopoRateLimitError, id="429"),
        pytest.param(499, {}, b"", RopoRejectedError, id="499"),
        pytest.param(500, PROBLEM, problem("Internal", None), RopoServerError, id="500"),
        pytest.param(502, HTML, PAGE, RopoServerError, id="502"),
        pytest.param(503, {}, b"", RopoServerError, id="503"),
        pytest.param(504, {}, b"", RopoServerError, id="504"),
        pytest.param(599, {}, b"", RopoServerError, id="599"),
        pytest.param(700, {}, b"", RopoServerError, id="700"),
        pytest.param(999, {}, b"", RopoServerError, id="999"),
    ],
)
def test_every_other_answer_has_its_class(
    status: int, headers: dict[str, str], body: bytes, expected: type[RopoResponseError]
) -> None:
    """Whatever is not a plain success is exactly one error of the tree, with its HTTP status."""
    error = refusal(status, headers, body)

    assert (expected, status) == (type(error), error.status_code)
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RopoConfigurationError, False),
        (InvalidRowError, False),
        (RopoConnectError, True),
        (RopoTimeoutError, True),
        (RopoAuthenticationError, False),
        (RopoRateLimitError, True),
        (RopoRejectedError, False),
        (RopoServerError, True),
        (DeliveriesFailedError, False),
    ],
)
def test_an_error_knows_whether_another_attempt_is_worth_it(error: type[RopoError], expected: bool) -> None:  # noqa: FBT001
    """What may pass is transient, what somebody has to mend is not."""
    assert expected == error.transient


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param(" 0 ", 0.0, id="none"),
        pytest.param("Thu, 04 Jan 2024 10:42:10 GMT", 30.0, id="a date"),
        pytest.param("Thursday, 04-Jan-24 10:42:10 GMT", 30.0, id="a date of RFC 850"),
        pytest.param("Thu Jan  4 10:42:10 2024", 30.0, id="a date of asctime"),
        pytest.param("Thu, 04 Jan 2024 12:42:10 +0200", 30.0, id="a date with an offset"),
        pytest.param("Thu, 04 Jan 2024 10:41:10 GMT", 0.0, id="a date gone by"),
        pytest.param("9" * 400, 999_999_999.0, id="for ever"),
        pytest.param(None, None, id="absent"),
        pytest.param("", None, id="empty"),
        pytest.param("-5", None, id="negative"),
        pytest.param("1.5", None, id="a fraction"),
        pytest.param("soon", None, id="words"),
        pytest.param("²", None, id="a digit that is none"),
        pytest.param("Thu, 99 Jan 2024 10:41:10 GMT", None, id="no such day"),
        pytest.param("Fri, 04 Jan 999999 10:41:10 GMT", None, id="no such year"),
        pytest.param("Thu, 04 Jan 2024 10:41:10 +9999999999", None, id="no such offset"),
    ],
)
def test_retry_after_in_both_forms(status: int, header: str | None, expected: float | None) -> None:
    """``Retry-After`` is understood as seconds and as a date; nonsense counts as absent."""
    headers = {} if header is None else {"Retry-After": header}

    error = refusal(status, headers)

    assert expected == error.retry_after


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(problem(), "Invalid event: time: must be given", id="title and detail"),
        pytest.param(problem(title=None), "time: must be given", id="detail alone"),
        pytest.param(problem(detail=None), "Invalid event", id="title alone"),
        pytest.param(problem("Two\r\nlines ", "and\t blanks"), "Two lines: and blanks", id="on one line"),
        pytest.param(b'{"errorId": 3, "errorText": "Unknown"}', "Unknown", id="AuthError"),
        pytest.param(problem(7, ["x"]), "", id="of other types"),
        pytest.param(b'["a list"]', "", id="no object"),
        pytest.param(b"{broken", "", id="broken JSON"),
        pytest.param(b"[" * 100_000, "", id="JSON too deep"),
        pytest.param(b"\xff\xfe", "", id="no UTF-8"),
        pytest.param(PAGE, "", id="HTML"),
        pytest.param(b"", "", id="nothing"),
        pytest.param(problem("t" * 500, None), "t" * 300 + "…", id="long"),
    ],
)
def test_the_detail_is_what_the_answer_says_for_itself(body: bytes, expected: str) -> None:
    """The detail is the problem's title and detail on one line, shortened; a page or nonsense gives none."""
    error = refusal(400, {}, body)

    assert expected == error.detail
    assert expected in str(error)


def test_without_a_detail_the_status_is_named() -> None:
    """An answer without words is told by HTTP's own."""
    error = refusal(404, HTML, PAGE)

    assert str(error) == "HTTP 404 Not Found"


def test_a_redirect_says_what_to_mend() -> None:
    """A redirect points to the field that leads to it."""
    error = refusal(302, {"Location": "https://elsewhere.example"})

    assert "Server (host)" in str(error)


@pytest.mark.parametrize(
    ("quoted", "secrets"),
    [
        pytest.param("Bearer abc.def.ghi is bad", ["abc.def.ghi"], id="a token"),
        pytest.param("A123456 and 594294", ["A123456", "594294"], id="two numbers"),
        pytest.param("A1234567", ["A123456", "A1234567"], id="one that begins like another"),
        pytest.param("customer Anna \n Ek", ["Anna  Ek"], id="blanks made one"),
        pytest.param("x" * 290 + "abcdefghijklmnop", ["abcdefghijklmnop"], id="at the end of what is kept"),
    ],
)
def test_a_quoted_secret_is_left_out(quoted: str, secrets: list[str]) -> None:
    """What must not be in a log is not in the error, not even its beginning, though the answer quotes it."""
    result = classify(400, PROBLEM, problem("Bad", quoted), now=NOW, secrets=secrets)

    assert isinstance(result, RopoResponseError)
    for text in (str(result), result.detail, repr(result)):
        assert [secret for secret in secrets if secret[:7] in text] == []
    assert "***" in result.detail


def test_an_empty_secret_hides_nothing() -> None:
    """A field that is empty is no secret."""
    result = classify(400, PROBLEM, problem("Bad", "time"), now=NOW, secrets=["", " "])

    assert str(result) == "HTTP 400 Bad: time"


def test_a_short_secret_leaves_the_status_alone() -> None:
    """Only the answer's own words are searched for secrets, not ours."""
    result = classify(400, {}, problem("Bad", "jobid 4"), now=NOW, secrets=["4"])

    assert str(result) == "HTTP 400 Bad: jobid ***"


@pytest.mark.parametrize("status", [200, 201])
def test_a_sign_in_gives_the_token(status: int) -> None:
    """The token is taken from the answer, and fields nobody announced are ignored."""
    result = read_token(status, {}, b'{"token": "abc.def.ghi", "new": {}}', now=NOW)

    assert result == "abc.def.ghi"


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        pytest.param(201, {}, b"", RopoServerError, id="201 nothing"),
        pytest.param(200, HTML, PAGE, RopoServerError, id="200 HTML"),
        pytest.param(201, {}, b'"abc"', RopoServerError, id="201 text"),
        pytest.param(201, {}, b'{"token": null}', RopoServerError, id="201 null"),
        pytest.param(201, {}, b'{"token": " "}', RopoServerError, id="201 blank"),
        pytest.param(201, {}, b'{"token": "a\\r\\nX: y"}', RopoServerError, id="201 a second header"),
        pytest.param(201, {}, '{"token": "ä"}'.encode(), RopoServerError, id="201 no header value"),
        pytest.param(302, {}, b"", RopoServerError, id="302"),
        pytest.param(400, {}, b'{"errorId": 3, "errorText": "Unknown"}', RopoAuthenticationError, id="400 AuthError"),
        pytest.param(401, {}, b"", RopoAuthenticationError, id="401"),
        pytest.param(403, HTML, PAGE, RopoAuthenticationError, id="403"),
        pytest.param(404, {}, b"", RopoAuthenticationError, id="404"),
        pytest.param(429, {"Retry-After": "3"}, b"", RopoRateLimitError, id="429"),
        pytest.param(500, {}, b"", RopoServerError, id="500"),
        pytest.param(503, {"Retry-After": "3"}, b"", RopoServerError, id="503"),
    ],
)
def test_a_sign_in_without_a_token_has_its_class(
    status: int, headers: dict[str, str], body: bytes, expected: type[RopoResponseError]
) -> None:
    """Where no token comes, a 4xx is about the credentials, anything else about the server."""
    result = read_token(status, headers, body, now=NOW)

    assert isinstance(result, RopoResponseError)
    assert (expected, status) == (type(result), result.status_code)
    assert (3.0 if "Retry-After" in headers else None) == result.retry_after


def test_a_refused_sign_in_does_not_quote_the_api_code() -> None:
    """An ``AuthError`` that quotes the API code comes through without it."""
    body = b'{"errorId": 3, "errorText": "wrong apicode hunter2-hunter2"}'

    result = read_token(400, {}, body, now=NOW, secrets=["hunter2-hunter2"])

    assert str(result) == "HTTP 400 wrong apicode ***"


@pytest.mark.parametrize(
    "error",
    [
        RopoConfigurationError("connection 'x': Server (host) is empty"),
        InvalidRowError("row 7", "time", "is empty", event_id="e1"),
        RopoConnectError("cannot be reached", event_id="e1"),
        RopoTimeoutError("gave no whole answer"),
        RopoAuthenticationError("HTTP 401", status_code=401),
        RopoRateLimitError("HTTP 429", status_code=429, detail="slow down", retry_after=3.0, event_id="e1"),
        RopoRejectedError("HTTP 400 Bad", status_code=400, detail="Bad", event_id="e1"),
        RopoServerError("HTTP 503", status_code=503, retry_after=1.5),
        DeliveriesFailedError("2 of 3", summary={"events": 3, "delivered": 1}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_pickle(error: RopoError) -> None:
    """Every error comes back from pickling as it went in, words and fields."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own

    assert (type(error), str(error), vars(error)) == (type(again), str(again), vars(again))
