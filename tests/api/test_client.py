"""The client over real connections: what each answer becomes, signing in, and what no error tells."""

from __future__ import annotations

import base64
import datetime as dt
import json
import pickle
import traceback
from functools import partial
from typing import Any

import pytest

from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoError,
    RopoRateLimitError,
    RopoRejectedError,
    RopoResponseError,
    RopoServerError,
    RopoTimeoutError,
)
from airflow_provider_ropo.sandbox import Fault, Sandbox
from tests.api.calls import CUSTOMERS_DATA, EVENT, Connect, event, results
from tests.api.raw_server import (
    APICODE,
    TOKEN,
    RawServer,
    Reply,
    http,
)

THREADS = 16
PAGE = b"<!doctype html><html><body>Maintenance</body></html>"
HTML = {"Content-Type": "text/html"}


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        """Tell the time."""
        return self.now


def spoken(error: BaseException) -> str:
    """Return all that a log may show of an error: itself, its fields, its traceback."""
    trace = "".join(traceback.format_exception(error))
    return "\n".join([trace, str(error), repr(error), repr(vars(error)), pickle.dumps(error).decode("latin-1")])


# --- answers -------------------------------------------------------------------------------------


def test_an_event_arrives_as_it_is(sandbox: Sandbox, connect: Connect) -> None:
    """What is posted is what Ropo One gets, digit for digit."""
    client = connect(sandbox)

    receipt = client.post_usageplace_event(EVENT)

    assert Receipt(200) == receipt
    assert [EVENT] == sandbox.events


def test_the_two_calls_look_as_documented(connect: Connect) -> None:
    """Signing in sends the pair without a token; an event goes with the bearer token, both as JSON."""
    with RawServer() as server:
        connect(server).post_usageplace_event(EVENT)

    (sign_in, sign_in_headers, credentials), (post, post_headers, payload) = server.requests
    assert "POST /rest/token HTTP/1.1" == sign_in
    assert "POST /rest/usageplace/event HTTP/1.1" == post
    assert {"cid": "1000011", "apicode": APICODE} == json.loads(credentials)
    assert EVENT == json.loads(payload)
    assert "Authorization" not in sign_in_headers
    assert f"Bearer {TOKEN}" == post_headers["Authorization"]
    for headers in (sign_in_headers, post_headers):
        assert "application/json" == headers["Content-Type"]
        assert headers["User-Agent"].startswith("airflow-provider-ropo/")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        pytest.param(Fault(status=200, headers=HTML, body=PAGE), RopoServerError, id="200 HTML"),
        pytest.param(Fault(status=400, body=b'{"title": "Bad"}'), RopoRejectedError, id="400 problem"),
        pytest.param(Fault(status=400, headers=HTML, body=PAGE), RopoRejectedError, id="400 HTML"),
        pytest.param(Fault(status=400), RopoRejectedError, id="400 nothing"),
        pytest.param(Fault(status=403), RopoRejectedError, id="403"),
        pytest.param(Fault(status=404, headers=HTML, body=PAGE), RopoRejectedError, id="404"),
        pytest.param(Fault(status=429, headers={"Retry-After": "3"}), RopoRateLimitError, id="429"),
        pytest.param(Fault(status=500), RopoServerError, id="500"),
        pytest.param(Fault(status=502, headers=HTML, body=PAGE), RopoServerError, id="502"),
        pytest.param(Fault(status=503, headers={"Retry-After": "3"}), RopoServerError, id="503"),
        pytest.param(Fault(status=299), Receipt, id="299"),
        pytest.param(Fault(status=418), RopoRejectedError, id="418"),
        pytest.param(Fault(status=306), RopoServerError, id="306"),
        pytest.param(Fault(cut=True), RopoTimeoutError, id="reset before it was taken in"),
        pytest.param(Fault(cut=True, remember=True), RopoTimeoutError, id="reset after it was taken in"),
    ],
)
def test_every_answer_is_told_apart(
    sandbox: Sandbox, connect: Connect, fault: Fault, expected: type[RopoError]
) -> None:
    """Each answer comes out as its one class, once: the client itself never tries again."""
    sandbox.script([fault])
    client = connect(sandbox)

    (result,) = results([lambda: client.post_usageplace_event(EVENT)])

    assert expected is type(result)
    assert fault.status == getattr(result, "status_code", None)
    assert 1 == len(sandbox.arrivals)
    if fault.headers.get("Retry-After"):
        assert 3.0 == getattr(result, "retry_after", None)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, False), (429, False), (500, False), (502, True), (503, False), (504, True)],
)
def test_an_event_a_gateway_lost_sight_of_may_have_arrived(
    sandbox: Sandbox,
    connect: Connect,
    status: int,
    expected: bool,  # noqa: FBT001 - a table
) -> None:
    """A 502 or 504 says that a gateway got no answer, not that Ropo One got no event; the error keeps saying so."""
    sandbox.script([Fault(status=status)])

    with pytest.raises(RopoResponseError) as caught:
        connect(sandbox).post_usageplace_event(EVENT)

    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert [expected, expected] == [caught.value.may_have_arrived, again.may_have_arrived]


@pytest.mark.parametrize("status", [502, 504])
def test_a_sign_in_a_gateway_lost_sight_of_leaves_no_event_open(
    sandbox: Sandbox, connect: Connect, status: int
) -> None:
    """A sign-in sends no event, however it ends."""
    sandbox.script_sign_in([Fault(status=status)])

    with pytest.raises(RopoServerError) as caught:
        connect(sandbox).post_usageplace_event(EVENT)

    assert not caught.value.may_have_arrived


def test_retry_after_may_be_a_date(sandbox: Sandbox, connect: Connect) -> None:
    """A ``Retry-After`` that is a date is counted from now."""
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    sandbox.script([Fault(status=503, headers={"Retry-After": f"{at:%a, %d %b %Y %H:%M:%S GMT}"})])

    with pytest.raises(RopoServerError) as caught:
        connect(sandbox).post_usageplace_event(EVENT)

    assert 55 < (caught.value.retry_after or 0) <= 60


# --- secrets -------------------------------------------------------------------------------------


def tell_all(quoted: str) -> bytes:
    said = f"{quoted} is wrong, {APICODE}, Bearer {TOKEN}, {', '.join(CUSTOMERS_DATA)}"
    return json.dumps({"title": said, "detail": "x" * 150 + said, "errorText": said}).encode()


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_an_error_about_an_event_tells_no_secrets(connect: Connect, status: int) -> None:
    """An answer that quotes token, API code and customer's data comes through without them."""
    with RawServer(Reply(http(status, tell_all("this")))) as server:
        (error,) = results([lambda: connect(server).post_usageplace_event(EVENT)])

    assert isinstance(error, RopoResponseError)
    assert status == error.status_code
    assert "this is wrong" in error.detail
    assert [] == [secret for secret in (APICODE, TOKEN, *CUSTOMERS_DATA) if secret in spoken(error)]


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        pytest.param("Anna Ek\n was not at  home", "'***' is too long", id="free text"),
        pytest.param("Anna", "'***' is too long", id="a name"),
        pytest.param("too", "'too' is too long", id="too short to tell anything"),
        pytest.param("Usage place connected", "'Usage place connected' is too long", id="the guide's wording"),
        pytest.param("Usage place disconnected", "'Usage place disconnected' is too long", id="its other wording"),
        pytest.param("Usage place connected by Anna", "'***' is too long", id="more than the guide's wording"),
    ],
)
def test_a_description_in_free_text_is_not_told(connect: Connect, description: str, expected: str) -> None:
    """A free text about a customer is not repeated in an error; the guide's own texts may be."""
    said = json.dumps({"title": f"'{description}' is too long"}).encode()
    with RawServer(Reply(http(400, said))) as server, pytest.raises(RopoRejectedError) as caught:
        connect(server).post_usageplace_event({**EVENT, "description": description})

    assert expected == caught.value.detail


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_an_error_about_the_sign_in_tells_no_secrets(connect: Connect, status: int) -> None:
    """An answer to the sign-in that quotes the API code comes through without it."""
    with RawServer(sign_in=Reply(http(status, tell_all("this")))) as server:
        (error,) = results([connect(server).sign_in])

    assert isinstance(error, RopoResponseError)
    assert "this is wrong" in error.detail
    assert APICODE not in spoken(error)


def test_a_refused_token_is_not_told(connect: Connect) -> None:
    """A 401 that quotes the token comes through without it."""
    with RawServer(Reply(http(401, tell_all("this")))) as server:
        (error,) = results([lambda: connect(server).post_usageplace_event(EVENT)])

    assert isinstance(error, RopoAuthenticationError)
    assert [] == [secret for secret in (APICODE, TOKEN, *CUSTOMERS_DATA) if secret in spoken(error)]


@pytest.mark.parametrize(
    ("server", "extra"),
    [
        pytest.param(RawServer(Reply(then="reset")), {}, id="no answer"),
        pytest.param(RawServer(Reply(then="hold")), {"timeout": 0.2}, id="silence"),
        pytest.param(RawServer(sign_in=Reply(then="reset")), {}, id="no answer to the sign-in"),
    ],
)
def test_an_error_without_an_answer_tells_no_secrets(
    connect: Connect, server: RawServer, extra: dict[str, Any]
) -> None:
    """What went unanswered is not quoted."""
    with server:
        (error,) = results([lambda: connect(server, extra=extra).post_usageplace_event(EVENT)])

    assert isinstance(error, RopoError)
    assert type(error) is type(pickle.loads(pickle.dumps(error)))  # noqa: S301 - our own
    assert [] == [secret for secret in (APICODE, TOKEN, *CUSTOMERS_DATA) if secret in spoken(error)]


# --- signing in ----------------------------------------------------------------------------------


def test_many_threads_sign_in_once(sandbox: Sandbox, connect: Connect) -> None:
    """Sixteen threads that start at once share one sign-in."""
    client = connect(sandbox)

    receipts = results([partial(client.post_usageplace_event, event(n)) for n in range(THREADS)])

    assert [Receipt(200)] * THREADS == receipts
    assert 1 == sandbox.sign_ins
    assert THREADS == len(sandbox.events)


def test_a_token_is_renewed_before_it_ends(sandbox: Sandbox, connect: Connect) -> None:
    """Shortly before the token's end, and not earlier, the next event signs in again; no 401 is needed."""
    clock = Clock()
    client = connect(sandbox, clock=clock.read)

    counts = []
    for number, passed in enumerate([0, 7000, 139, 1]):
        clock.now += passed
        client.post_usageplace_event(event(number))
        counts.append(sandbox.sign_ins)

    assert [1, 1, 1, 2] == counts
    assert [200] * 4 == [arrival.http_status for arrival in sandbox.arrivals]


def test_a_short_lived_token_is_renewed_by_its_own_claims(connect: Connect) -> None:
    """The token's own ``exp`` decides, not the documented two hours."""
    clock = Clock()
    with Sandbox(token_ttl=100) as sandbox:
        client = connect(sandbox, clock=clock.read)
        client.post_usageplace_event(event(1))
        clock.now += 90

        client.post_usageplace_event(event(2))

        assert 2 == sandbox.sign_ins


def test_an_opaque_token_is_good_for_two_hours(connect: Connect) -> None:
    """A token that is no JWT is used for the documented two hours, less a minute."""
    clock = Clock()
    with RawServer(sign_in=Reply(http(201, b'{"token": "opaque"}'))) as server:
        client = connect(server, clock=clock.read)

        for passed in (0, 7139, 1):
            clock.now += passed
            client.post_usageplace_event(EVENT)

    expected = ["/rest/token", *["/rest/usageplace/event"] * 2, "/rest/token", "/rest/usageplace/event"]
    assert expected == server.paths


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({"iat": 1_000, "exp": 4_600}, 3_600, id="an hour"),
        pytest.param({"exp": 1e30}, 7_200, id="beyond the calendar"),
    ],
)
def test_signing_in_says_until_when(connect: Connect, claims: dict[str, float], expected: int) -> None:
    """Signing in returns until when the token is good, by this machine's clock."""
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with RawServer(sign_in=Reply(http(201, json.dumps({"token": f"e30.{body}.c2ln"}).encode()))) as server:
        client = connect(server)

        until = client.sign_in()

    left = (until - dt.datetime.now(dt.UTC)).total_seconds()
    assert expected - 5 < left <= expected


def test_a_refused_token_is_replaced_and_the_same_event_sent_again(sandbox: Sandbox, connect: Connect) -> None:
    """A 401 is answered with one fresh token and the same event, unchanged."""
    client = connect(sandbox)
    client.post_usageplace_event(event(1))
    sandbox.script([Fault(status=401)])

    receipt = client.post_usageplace_event(event(2))

    assert Receipt(200) == receipt
    assert 2 == sandbox.sign_ins
    assert [(200, event(1)), (401, event(2)), (200, event(2))] == [
        (arrival.http_status, arrival.payload) for arrival in sandbox.arrivals
    ]


def test_a_token_refused_to_many_threads_is_replaced_once(connect: Connect) -> None:
    """When the server has forgotten the token, sixteen threads share one sign-in and every event arrives."""
    with Sandbox() as before:
        client = connect(before)
        client.sign_in()
    with Sandbox(port=int(before.url.rpartition(":")[2])) as after:
        receipts = results([partial(client.post_usageplace_event, event(n)) for n in range(THREADS)])

        assert [Receipt(200)] * THREADS == receipts
        assert 1 == after.sign_ins
        assert {f"e{n}" for n in range(THREADS)} == {payload["id"] for payload in after.events}
        assert 401 in {arrival.http_status for arrival in after.arrivals}


def test_a_fresh_token_refused_ends_it(sandbox: Sandbox, connect: Connect) -> None:
    """A 401 after one fresh token is final: two attempts, two sign-ins, and the remedy is named."""
    client = connect(sandbox)
    sandbox.script([Fault(status=401)] * 5)

    with pytest.raises(RopoAuthenticationError) as caught:
        client.post_usageplace_event(EVENT)

    assert [401, 401] == [arrival.http_status for arrival in sandbox.arrivals]
    assert 2 == sandbox.sign_ins
    assert 401 == caught.value.status_code
    assert "'ropo_test'" in str(caught.value)
    assert "Ropo support" in str(caught.value)


def test_wrong_credentials_are_asked_once_however_many_threads(connect: Connect) -> None:
    """A refused sign-in is asked once; every thread gets the refusal with the remedy, and no event leaves."""
    with RawServer(sign_in=Reply(http(400, b'{"errorId": 3, "errorText": "Unknown customer"}'))) as server:
        client = connect(server)

        errors = results([lambda: client.post_usageplace_event(EVENT)] * THREADS)

    assert ["/rest/token"] == server.paths
    assert {RopoAuthenticationError} == {type(error) for error in errors}
    for part in ("'ropo_test'", server.url, "(login)", "(password)", "Unknown customer"):
        assert part in str(errors[0])


def test_a_sign_in_that_fails_for_a_while_is_tried_again_by_the_next(sandbox: Sandbox, connect: Connect) -> None:
    """A failed sign-in is an error of its own class, and the next event signs in again."""
    sandbox.script_sign_in([Fault(status=503, headers={"Retry-After": "3"}), Fault(status=429)])
    client = connect(sandbox)

    outcomes = [results([lambda: client.post_usageplace_event(EVENT)])[0] for _ in range(3)]

    assert [RopoServerError, RopoRateLimitError, Receipt] == [type(outcome) for outcome in outcomes]
    assert 3.0 == outcomes[0].retry_after
    assert [EVENT] == sandbox.events


def test_a_page_instead_of_a_token_is_told(sandbox: Sandbox, connect: Connect) -> None:
    """A server that answers a sign-in with a web page is no Ropo One, and the message asks so."""
    sandbox.script_sign_in([Fault(status=200, headers=HTML, body=PAGE)])

    with pytest.raises(RopoServerError, match="is this a Ropo One server"):
        connect(sandbox).post_usageplace_event(EVENT)

    assert [] == sandbox.arrivals


def test_each_token_is_told_to_whom_it_may_concern(sandbox: Sandbox, connect: Connect) -> None:
    """``on_token`` hears of every new token before it is used, so that logs can leave it out."""
    told: list[str] = []
    client = connect(sandbox, on_token=told.append)
    client.sign_in()
    sandbox.script([Fault(status=401)])

    client.post_usageplace_event(EVENT)

    assert 2 == len(told) == len(set(told))
    assert [3, 3] == [len(token.split(".")) for token in told]
