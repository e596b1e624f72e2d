"""The pure functions from an answer to its meaning: the one table that decides what counts as delivered."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from airflow_provider_ropo.api.responses import Receipt, interpret_response, personal_data, read_token
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
    result = interpret_response(status, headers or {}, body, now=NOW)
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
        pytest.param(200, HTML, b"\xef\xbb\xbf", id="200 with nothing but a byte order mark, called text/html"),
        pytest.param(200, {}, b'{"status": 200}', id="200 that says so again"),
        pytest.param(200, {}, b'{"status": "received", "id": 4}', id="200 with a status in words"),
        pytest.param(200, {}, b'{"status": true, "errorId": null}', id="200 with a status of yes and no error"),
        pytest.param(200, {}, b'[{"status": 400}]', id="200 with a list"),
        pytest.param(200, {}, b"500", id="200 with a number"),
    ],
)
def test_a_plain_success_is_a_receipt(status: int, headers: dict[str, str], body: bytes) -> None:
    """A 2xx answer is Ropo's acceptance, whatever it says beside, as long as it is no web page."""
    result = interpret_response(status, headers, body, now=NOW)

    assert Receipt(status) == result


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        pytest.param(200, HTML, PAGE, RopoServerError, id="200 HTML"),
        pytest.param(200, {}, b"  \n" + PAGE, RopoServerError, id="200 HTML nobody calls so"),
        pytest.param(204, HTML, PAGE, RopoServerError, id="204 HTML"),
        pytest.param(200, {}, b"\xef\xbb\xbf \n" + PAGE, RopoServerError, id="200 HTML after a byte order mark"),
        pytest.param(200, {}, PAGE.decode().encode("utf-16"), RopoServerError, id="200 HTML in UTF-16"),
        pytest.param(200, {}, b"\xfe\xff" + PAGE.decode().encode("utf-16-be"), RopoServerError, id="200 HTML, big end"),
        pytest.param(200, PROBLEM, problem(), RopoServerError, id="200 HttpApiProblem"),
        pytest.param(200, {}, b"\xef\xbb\xbf" + problem(), RopoServerError, id="200 HttpApiProblem after a mark"),
        pytest.param(202, {}, b'{"status": 500}', RopoServerError, id="202 of a status alone"),
        pytest.param(200, {}, b'{"errorId": 3, "errorText": "Unknown"}', RopoServerError, id="200 AuthError"),
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
def test_an_error_knows_whether_it_is_transient(error: type[RopoError], expected: bool) -> None:  # noqa: FBT001
    """An error that may pass is transient; one that a person has to fix is permanent."""
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
        pytest.param(f"Thu, {'9' * 21} Jan 2024 10:41:10 GMT", None, id="a day beyond the machine's numbers"),
        pytest.param(f"Thu, 04 Jan {'9' * 21} 10:41:10 GMT", None, id="a year beyond them"),
        pytest.param(f"Thu, 04 Jan 2024 10:41:10 +{'9' * 21}", None, id="an offset beyond them"),
        pytest.param("Fri, 31 Dec 9999 23:59:59 -2359", 251_698_022_239.0, id="past the end of the calendar"),
        pytest.param("Mon, 01 Jan 0001 00:00:00 +2359", 0.0, id="before its beginning"),
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


def test_a_problem_that_calls_itself_a_success_is_told() -> None:
    """What a 2xx says of a problem is in the error, without what must not be in a log."""
    result = interpret_response(200, PROBLEM, problem("Bad", "customer A123456"), now=NOW, secrets=["A123456"])

    assert isinstance(result, RopoServerError)
    assert result.detail == "Bad: customer ***"
    assert str(result) == "HTTP 200 with a problem instead of Ropo One's empty response: Bad: customer ***"


@pytest.mark.parametrize("status", [200, 302, 400, 401, 408, 429, 499, 500, 501, 502, 503, 504, 505, 599])
def test_a_gateways_word_leaves_an_event_open(status: int) -> None:
    """Of all answers that are no success, only a gateway's 502 and 504 say nothing about what is behind it."""
    error = refusal(status, HTML, PAGE)

    assert (status in {502, 504}) == error.may_have_arrived


@pytest.mark.parametrize("status", [400, 500, 502, 504])
def test_a_sign_in_leaves_no_event_open(status: int) -> None:
    """With a sign-in no event leaves, so none can have arrived."""
    error = read_token(status, {}, b"", now=NOW)

    assert isinstance(error, RopoResponseError)
    assert not error.may_have_arrived


def test_what_a_payload_says_about_a_customer() -> None:
    """Numbers, invoices and free text are a customer's; the place, the time and the guide's wording are not."""
    payload = {
        "id": "e1",
        "usageplacecode": "RE1",
        "customernumber": "A123456",
        "contract_no": "555555b",
        "invoices": [{"jobid": 123456, "invoicenumber": "594294"}],
        "time": "2024-01-04 10:41:40",
        "status": "notdisconnected",
        "description": "Anna Ek was not at home",
    }

    told = list(personal_data(payload))

    assert sorted(told) == ["123456", "555555b", "594294", "A123456", "Anna Ek was not at home"]
    assert list(personal_data({**payload, "description": None}))[2:] == ["123456", "594294"]


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
    result = interpret_response(400, PROBLEM, problem("Bad", quoted), now=NOW, secrets=secrets)

    assert isinstance(result, RopoResponseError)
    for text in (str(result), result.detail, repr(result)):
        assert [secret for secret in secrets if secret[:7] in text] == []
    assert "***" in result.detail


def test_an_empty_secret_hides_nothing() -> None:
    """A field that is empty is no secret."""
    result = interpret_response(400, PROBLEM, problem("Bad", "time"), now=NOW, secrets=["", " "])

    assert str(result) == "HTTP 400 Bad: time"


def test_a_short_secret_leaves_the_status_alone() -> None:
    """Only the answer's own words are searched for secrets, not ours."""
    result = interpret_response(400, {}, problem("Bad", "jobid 4"), now=NOW, secrets=["4"])

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


def test_what_cannot_be_printed_is_left_out() -> None:
    """A NUL or half a surrogate pair in an answer does not reach a log or a ledger."""
    body = rb'{"title": "No\u0000pe", "detail": "\ud800 why"}'

    error = interpret_response(400, {}, body, now=NOW)

    assert isinstance(error, RopoResponseError)
    assert "No pe: why" == error.detail
