"""The sandbox, used over HTTP as by the provider and by a browser."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_ropo.sandbox import Fault, Sandbox
from doubles import HANGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMMAND = [sys.executable, "-m", "airflow_provider_ropo.sandbox"]

EVENT = {"id": "e1", "usageplacecode": "RE12345", "status": "connected", "time": "2024-01-04 10:41:40"}

GUIDE_EXAMPLE = {
    "contract_no": "555555b",
    "customernumber": "A123456",
    "description": "Usage place disconnected",
    "id": "1a2b3c4d5",
    "invoices": [{"invoicenumber": "594294", "jobid": "1234"}],
    "status": "disconnected",
    "time": "2024-01-04 10:41:40",
    "usageplacecode": "643007572062443672",
}


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    """Share one sandbox: stopping a server takes longer than most tests."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def lenient() -> Iterator[Sandbox]:
    """Share a sandbox that takes the jobid as the documentation's examples write it."""
    with Sandbox(accept_jobid_string=True) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """Return the shared sandbox, with its state deleted."""
    running.clear()
    return running


def sign_in(url: str, **changes: object) -> requests.Response:
    pair = {"cid": "1000011", "apicode": "sandbox"} | changes
    return requests.post(f"{url}/rest/token", json=pair, timeout=5)


def post(url: str, body: object, token: str | None = None, timeout: float = 5) -> requests.Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {token or sign_in(url).json()['token']}"}
    return requests.post(
        f"{url}/rest/usageplace/event", data=data, headers=headers, timeout=timeout, allow_redirects=False
    )


def decoded(part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


# --- Signing in ---


def test_the_right_pair_gets_a_token_for_two_hours(sandbox: Sandbox) -> None:
    """The known customer number and API code get 201 and a JSON Web Token with the customer and the lifetime."""
    answer = sign_in(sandbox.url)

    header, claims, signature = answer.json()["token"].split(".")
    assert (201, ["token"]) == (answer.status_code, list(answer.json()))
    assert decoded(header) == {"alg": "HS256", "typ": "JWT"}
    assert decoded(claims)["sub"] == sandbox.cid
    assert decoded(claims)["exp"] - decoded(claims)["iat"] == pytest.approx(7200)
    assert time.time() == pytest.approx(decoded(claims)["iat"], abs=30)
    assert len(signature) == 43
    assert sandbox.sign_ins == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"cid": "1000012", "apicode": "sandbox"}', id="other customer"),
        pytest.param(b'{"cid": "1000011", "apicode": "Sandbox"}', id="wrong code"),
        pytest.param(b'{"cid": 1000011, "apicode": "sandbox"}', id="cid as a number"),
        pytest.param(b'{"cid": "1000011", "apicode": null}', id="apicode null"),
        pytest.param(b'{"cid": "1000011"}', id="no apicode"),
        pytest.param(b'{"apicode": "sandbox"}', id="no cid"),
        pytest.param(b'["1000011", "sandbox"]', id="array"),
        pytest.param(b"cid=1000011&apicode=sandbox", id="form"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_any_other_sign_in_is_refused(sandbox: Sandbox, body: bytes) -> None:
    """Everything but the right pair gets 400 with a number and a text, and does not count as a sign-in."""
    answer = requests.post(f"{sandbox.url}/rest/token", data=body, timeout=5)

    assert answer.status_code == 400
    assert {"errorId": int, "errorText": str} == {name: type(value) for name, value in answer.json().items()}
    assert "sandbox" not in answer.json()["errorText"]
    assert sandbox.sign_ins == 0


def test_every_token_is_another_one_and_stays_good(sandbox: Sandbox) -> None:
    """A second sign-in gives a new token and leaves the first one valid."""
    first, second = (sign_in(sandbox.url).json()["token"] for _ in range(2))

    answers = [post(sandbox.url, EVENT, token).status_code for token in (first, second)]

    assert first != second
    assert answers == [200, 200]


def test_cid_and_apicode_can_be_chosen() -> None:
    """A sandbox with its own pair knows that one only."""
    with Sandbox(cid="7", apicode="x'y") as other:
        assert sign_in(other.url, cid="7", apicode="x'y").status_code == 201
        assert sign_in(other.url).status_code == 400
        assert (other.cid, other.apicode) == ("7", "x'y")


# --- The bearer token ---


def forged(token: str) -> str:
    header, claims, signature = token.split(".")
    longer = {**decoded(claims), "exp": 99999999999}
    return ".".join([header, base64.urlsafe_b64encode(json.dumps(longer).encode()).decode(), signature])


def unsigned(token: str) -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=")
    return f"{header}.{token.split('.')[1]}."


@pytest.mark.parametrize(
    "authorization",
    [
        pytest.param(lambda _: None, id="missing"),
        pytest.param(lambda _: "Bearer", id="empty"),
        pytest.param(lambda _: "Bearer nonsense", id="nonsense"),
        pytest.param(lambda token: token, id="no scheme"),
        pytest.param(lambda token: f"Basic {token}", id="other scheme"),
        pytest.param(lambda token: f"Bearer {forged(token)}", id="forged"),
        pytest.param(lambda token: f"Bearer {unsigned(token)}", id="unsigned"),
        pytest.param(lambda _: "Bearer ä.ö".encode("latin-1"), id="not ASCII"),
    ],
)
def test_an_event_needs_a_token_of_the_sandbox(
    sandbox: Sandbox, authorization: Callable[[str], str | bytes | None]
) -> None:
    """Without a token of this sandbox the answer is 401 without content, and nothing is accepted."""
    value = authorization(sign_in(sandbox.url).json()["token"])
    headers = {} if value is None else {"Authorization": value}

    answer = requests.post(f"{sandbox.url}/rest/usageplace/event", json=EVENT, headers=headers, timeout=5)

    assert (401, b"") == (answer.status_code, answer.content)
    assert sandbox.events == []
    assert [401] == [arrival.http_status for arrival in sandbox.arrivals]


def test_a_token_of_another_sandbox_is_unknown(sandbox: Sandbox) -> None:
    """Each sandbox signs with a key of its own."""
    with Sandbox() as other:
        token = sign_in(other.url).json()["token"]

    assert post(sandbox.url, EVENT, token).status_code == 401


def test_a_token_expires() -> None:
    """After its time a token is refused, and a fresh one works."""
    with Sandbox(token_ttl=0.6) as brief:
        token = sign_in(brief.url).json()["token"]

        before = post(brief.url, EVENT, token).status_code
        time.sleep(0.65)
        after = post(brief.url, EVENT, token).status_code

        assert (200, 401) == (before, after)
        assert post(brief.url, EVENT).status_code == 200


# --- Taking an event in ---


def test_a_good_event_is_accepted_without_content(sandbox: Sandbox) -> None:
    """The guide's example, with the jobid as the schema has it, gets 200 and nothing else."""
    event = GUIDE_EXAMPLE | {"invoices": [{"invoicenumber": "594294", "jobid": 1234}]}

    answer = post(sandbox.url, event)

    assert (200, b"") == (answer.status_code, answer.content)
    assert sandbox.events == [event]


ACCEPTED = {
    "the least": {},
    "connected": {"status": "connected"},
    "disconnected": {"status": "disconnected"},
    "notdisconnected with a reason": {"status": "notdisconnected", "description": "Locked"},
    "no invoices": {"invoices": []},
    "two invoices": {"invoices": [{"jobid": 1, "invoicenumber": "0012"}, {"jobid": 2, "invoicenumber": "2"}]},
    "blank text that is not required": {"customernumber": "", "contract_no": " ", "description": ""},
    "leap day": {"time": "2024-02-29 23:59:59"},
    "Finnish letters": {"description": "Mittarihuone lukossa, ei päästy sisään"},
    "code like a word": {"usageplacecode": "unknown-7"},
}


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED)
def test_what_the_documentation_allows_is_accepted(sandbox: Sandbox, changes: dict[str, object]) -> None:
    """Every documented shape of an event gets 200 and is remembered as it was sent."""
    answer = post(sandbox.url, EVENT | changes)

    assert answer.status_code == 200
    assert sandbox.events == [EVENT | changes]


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "id null": ("id", {"id": None}),
    "id a number": ("id", {"id": 12}),
    "id blank": ("id", {"id": "  "}),
    "code a number": ("usageplacecode", {"usageplacecode": 643007572062443672}),
    "code empty": ("usageplacecode", {"usageplacecode": ""}),
    "customernumber a number": ("customernumber", {"customernumber": 123456}),
    "customernumber null": ("customernumber", {"customernumber": None}),
    "contract_no an object": ("contract_no", {"contract_no": {}}),
    "description null": ("description", {"description": None}),
    "description true": ("description", {"description": True}),
    "misspelt property": ("contractno", {"contractno": "555555b"}),
    "status capital": ("status", {"status": "Connected"}),
    "status unknown": ("status", {"status": "cut"}),
    "status padded": ("status", {"status": "connected "}),
    "status null": ("status", {"status": None}),
    "status an array": ("status", {"status": ["connected"]}),
    "notdisconnected without reason": ("description", {"status": "notdisconnected"}),
    "notdisconnected with blank reason": ("description", {"status": "notdisconnected", "description": " \n"}),
    "time with T": ("time", {"time": "2024-01-04T10:41:40"}),
    "time with zone": ("time", {"time": "2024-01-04 10:41:40+02:00"}),
    "time with fraction": ("time", {"time": "2024-01-04 10:41:40.5"}),
    "time without seconds": ("time", {"time": "2024-01-04 10:41"}),
    "time padded": ("time", {"time": "2024-01-04 10:41:40\n"}),
    "time short": ("time", {"time": "2024-1-4 10:41:40"}),
    "time in other digits": ("time", {"time": "٢٠٢٤-01-04 10:41:40"}),
    "no such day": ("time", {"time": "2023-02-29 10:41:40"}),
    "no such hour": ("time", {"time": "2024-01-04 24:00:00"}),
    "no such second": ("time", {"time": "2024-01-04 10:41:60"}),
    "time a number": ("time", {"time": 1704357700}),
    "invoices null": ("invoices", {"invoices": None}),
    "invoices an object": ("invoices", {"invoices": {"jobid": 1}}),
    "invoice a string": ("invoices[0]", {"invoices": ["594294"]}),
    "second invoice null": ("invoices[1]", {"invoices": [{}, None]}),
    "jobid a string": ("invoices[0].jobid", {"invoices": [{"jobid": "1234"}]}),
    "jobid true": ("invoices[0].jobid", {"invoices": [{"jobid": True}]}),
    "jobid 1234.0": ("invoices[0].jobid", {"invoices": [{"jobid": 1234.0}]}),
    "jobid null": ("invoices[0].jobid", {"invoices": [{"jobid": None}]}),
    "invoicenumber a number": ("invoices[0].invoicenumber", {"invoices": [{"invoicenumber": 594294}]}),
    "misspelt in an invoice": ("invoices[1].jobId", {"invoices": [{}, {"jobId": 1}]}),
}


@pytest.mark.parametrize(("name", "changes"), REFUSED.values(), ids=REFUSED)
def test_what_breaks_the_schema_is_refused_by_name(sandbox: Sandbox, name: str, changes: dict[str, object]) -> None:
    """A break of the documented schema gets 400 and an HttpApiProblem that names exactly that property."""
    answer = post(sandbox.url, EVENT | changes)

    problem = answer.json()
    assert (400, "application/problem+json") == (answer.status_code, answer.headers["Content-Type"])
    assert set(problem) == {"status", "type", "title", "detail"}
    assert (400, "Invalid event") == (problem["status"], problem["title"])
    assert re.findall(r"(?:^|; )([^:;]+):", problem["detail"]) == [name]
    assert sandbox.events == []


@pytest.mark.parametrize("name", ["id", "usageplacecode", "status", "time"])
def test_four_properties_are_required(sandbox: Sandbox, name: str) -> None:
    """Stricter than the documentation: id, usage place, status and time are required."""
    answer = post(sandbox.url, {key: value for key, value in EVENT.items() if key != name})

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{name}: ")


def test_a_refusal_names_all_that_is_wrong_and_repeats_no_value(sandbox: Sandbox) -> None:
    """The detail names everything that must be fixed, without any value."""
    event = EVENT | {"customernumber": 98765, "time": "the 4th of May", "invoices": [{"jobid": "J-77"}]}

    detail = post(sandbox.url, event).json()["detail"]

    assert all(f"{name}: " in detail for name in ("customernumber", "time", "invoices[0].jobid"))
    assert not any(value in detail for value in ("98765", "May", "J-77", "RE12345"))


@pytest.mark.parametrize(
    ("jobid", "status"),
    [("1234", 200), (1234, 200), ("12a", 400), ("", 400), (True, 400), (None, 400)],
    ids=["digits", "integer", "letters", "empty", "true", "null"],
)
def test_a_jobid_may_be_text_where_it_is_allowed(lenient: Sandbox, jobid: object, status: int) -> None:
    """With accept_jobid_string the digits of the documentation's examples pass, and nothing else new does."""
    answer = post(lenient.url, EVENT | {"invoices": [{"jobid": jobid}]})

    assert answer.status_code == status


GOOD = json.dumps(EVENT).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"id=e1", id="form"),
        pytest.param(GOOD[:-1], id="cut short"),
        pytest.param(GOOD + b"{}", id="two documents"),
        pytest.param(GOOD[:-1] + b', "id": "e2"}', id="property twice"),
        pytest.param(GOOD[:-1] + b', "invoices": [{"jobid": 1, "jobid": 2}]}', id="property twice inside"),
        pytest.param(GOOD[:-1] + b', "invoices": [{"jobid": NaN}]}', id="NaN"),
        pytest.param(GOOD[:-1] + b', "invoices": [{"jobid": -Infinity}]}', id="Infinity"),
        pytest.param(GOOD[:-1] + b', "invoices": [{"jobid": 1e999}]}', id="beyond numbers"),
        pytest.param(GOOD.replace(b"RE12345", b"R\xe412345"), id="Latin-1"),
        pytest.param(GOOD.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b"[" * 100_000, id="too deep"),
    ],
)
def test_what_is_not_json_is_refused(sandbox: Sandbox, body: bytes) -> None:
    """A body that strict readers of JSON disagree about gets 400, and is remembered without a payload."""
    answer = post(sandbox.url, body)

    assert (400, "Not JSON") == (answer.status_code, answer.json()["title"])
    assert [(400, None)] == [(arrival.http_status, arrival.payload) for arrival in sandbox.arrivals]


@pytest.mark.parametrize("body", [[EVENT], None, "event", 1], ids=["array", "null", "string", "number"])
def test_an_event_is_an_object(sandbox: Sandbox, body: object) -> None:
    """Other JSON than an object is refused: there is no batch call."""
    answer = post(sandbox.url, json.dumps(body).encode())

    assert (400, "Invalid event") == (answer.status_code, answer.json()["title"])


def test_an_unknown_usage_place_is_refused(sandbox: Sandbox) -> None:
    """A usage place code that starts with UNKNOWN is the documented way to see a rejection."""
    answer = post(sandbox.url, EVENT | {"usageplacecode": "UNKNOWN-7"})

    assert (400, "Unknown usage place") == (answer.status_code, answer.json()["title"])
    assert sandbox.events == []


# --- Remembering ---


def test_a_repeated_id_is_accepted_and_marked(sandbox: Sandbox) -> None:
    """An id that was accepted before is accepted again; a refused one does not count as before."""
    for changes in ({"time": "never"}, {}, {"status": "disconnected"}, {"id": "e2"}):
        post(sandbox.url, EVENT | changes)

    seen = [(arrival.http_status, arrival.repeated) for arrival in sandbox.arrivals]

    assert seen == [(400, False), (200, False), (200, True), (200, False)]


def test_the_list_shows_accepted_events_in_the_order_of_arrival(sandbox: Sandbox) -> None:
    """GET /events gives what was accepted, oldest first, each with its number, moment and payload."""
    for changes in ({"id": "b"}, {"id": "x", "status": "?"}, {"id": "a"}):
        post(sandbox.url, EVENT | changes)

    listed = requests.get(f"{sandbox.url}/events", timeout=5).json()

    moment = datetime.fromisoformat(listed[0].pop("received_at"))
    assert (moment.utcoffset(), datetime.now(UTC) - moment < timedelta(seconds=30)) == (
        timedelta(0),
        True,
    )
    assert listed[0] == {
        "number": 1,
        "http_status": 200,
        "repeated": False,
        "problem": None,
        "payload": EVENT | {"id": "b"},
    }
    assert [(1, "b"), (3, "a")] == [(event["number"], event["payload"]["id"]) for event in listed]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", [1, 3, 4]),
        ("?all=true", [1, 2, 3, 4]),
        ("?limit=2", [1, 3]),
        ("?after=1", [3, 4]),
        ("?all=true&after=1&limit=2", [2, 3]),
        ("?all=true&newest=true", [4, 3, 2, 1]),
        ("?newest=true&limit=2", [4, 3]),
        ("?all=true&newest=true&after=2&limit=9", [4, 3]),
        ("?after=4", []),
        ("?after=99", []),
        ("?limit=0", []),
    ],
)
def test_the_list_can_be_narrowed(sandbox: Sandbox, query: str, numbers: list[int]) -> None:
    """The list can include refused events, and be limited by start, length and direction."""
    token = sign_in(sandbox.url).json()["token"]
    for status in ("connected", "?", "connected", "connected"):
        post(sandbox.url, EVENT | {"status": status}, token)

    listed = requests.get(f"{sandbox.url}/events{query}", timeout=5).json()

    assert numbers == [event["number"] for event in listed]


def test_refused_ones_are_listed_with_their_problem(sandbox: Sandbox) -> None:
    """A refused event is listed with its payload and the reason."""
    post(sandbox.url, EVENT | {"status": "?"})

    (listed,) = requests.get(f"{sandbox.url}/events?all=true", timeout=5).json()

    assert (400, EVENT | {"status": "?"}) == (listed["http_status"], listed["payload"])
    assert listed["problem"].startswith("status: ")


def test_half_a_surrogate_pair_does_not_break_the_list(sandbox: Sandbox) -> None:
    """Whatever JSON can carry comes back as JSON."""
    post(sandbox.url, GOOD.replace(b"RE12345", rb"\ud83d"))

    (listed,) = requests.get(f"{sandbox.url}/events", timeout=5).json()

    assert listed["payload"]["usageplacecode"] == "\ud83d"


def test_health_counts(sandbox: Sandbox) -> None:
    """GET /health counts sign-ins, accepted and refused events."""
    token = sign_in(sandbox.url).json()["token"]
    sign_in(sandbox.url)
    for changes in ({}, {}, {"time": "never"}):
        post(sandbox.url, EVENT | changes, token)

    answer = requests.get(f"{sandbox.url}/health", timeout=5)

    assert answer.json() == {"status": "ok", "sign_ins": 2, "accepted": 2, "refused": 1}


def test_deleting_the_events_forgets_them(sandbox: Sandbox) -> None:
    """DELETE /events starts over, ids and counts included; tokens stay good."""
    token = sign_in(sandbox.url).json()["token"]
    post(sandbox.url, EVENT, token)

    answer = requests.delete(f"{sandbox.url}/events", timeout=5)

    assert (204, b"", []) == (answer.status_code, answer.content, sandbox.arrivals)
    assert post(sandbox.url, EVENT, token).status_code == 200
    assert [(1, False)] == [(arrival.number, arrival.repeated) for arrival in sandbox.arrivals]


def test_old_arrivals_are_forgotten_but_counted() -> None:
    """Only the newest arrivals are kept, so that a long demonstration does not fill the memory."""
    with Sandbox(keep=3) as small:
        token = sign_in(small.url).json()["token"]
        for number in range(1, 6):
            post(small.url, EVENT | {"id": str(number)}, token)

        later = requests.get(f"{small.url}/events?after=1", timeout=5).json()

        assert ["3", "4", "5"] == [event["id"] for event in small.events]
        assert [3, 4, 5] == [event["number"] for event in later]
        assert requests.get(f"{small.url}/health", timeout=5).json()["accepted"] == 5


# --- The page ---


def test_the_page_is_complete_in_itself(sandbox: Sandbox) -> None:
    """GET / is one page that loads nothing from elsewhere and never treats data as markup."""
    answer = requests.get(f"{sandbox.url}/", timeout=5)

    assert (200, "text/html; charset=utf-8") == (answer.status_code, answer.headers["Content-Type"])
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)[\w.]+", answer.text) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval", answer.text) == []


def test_the_summary_of_the_page(sandbox: Sandbox) -> None:
    """GET /summary gives the credentials, the counts and the moment from which they count."""
    for _ in range(2):
        post(sandbox.url, EVENT)

    before = requests.get(f"{sandbox.url}/summary", timeout=5).json()
    sandbox.clear()
    after = requests.get(f"{sandbox.url}/summary", timeout=5).json()

    since = before.pop("since")
    assert after["since"] > since
    assert before == {
        "cid": "1000011",
        "apicode": "sandbox",
        "sign_ins": 2,
        "accepted": 2,
        "refused": 0,
        "repeated": 1,
    }


# --- Trouble on demand ---


@pytest.mark.parametrize(
    ("fault", "status", "header", "body"),
    [
        (Fault(status=503, headers={"Retry-After": "7"}), 503, ("Retry-After", "7"), b""),
        (Fault(status=302, headers={"Location": "/login"}), 302, ("Location", "/login"), b""),
        (Fault(200, {"Content-Type": "text/html"}, b"<p>Hi"), 200, ("Content-Type", "text/html"), b"<p>Hi"),
        (Fault(status=400, body=b"<html>"), 400, ("Content-Type", None), b"<html>"),
        (Fault(status=400), 400, ("Content-Length", "0"), b""),
        (Fault(status=401), 401, ("Content-Length", "0"), b""),
    ],
    ids=["busy", "redirect", "page", "400 with a page", "400 empty", "401"],
)
def test_a_scripted_answer_is_given_once(
    sandbox: Sandbox, fault: Fault, status: int, header: tuple[str, str | None], body: bytes
) -> None:
    """A fault replaces one answer, its event is not accepted, and the next event is handled as usual."""
    sandbox.script([fault])

    answer = post(sandbox.url, EVENT)

    name, value = header
    assert (status, value, body) == (answer.status_code, answer.headers.get(name), answer.content)
    assert ([], status) == (sandbox.events, sandbox.arrivals[0].http_status)
    assert post(sandbox.url, EVENT).status_code == 200
    assert [EVENT] == sandbox.events


def test_a_faulty_answer_may_hide_an_accepted_event(sandbox: Sandbox) -> None:
    """With remember the event is accepted although its client gets an error."""
    sandbox.script([Fault(status=500, remember=True)])

    answer = post(sandbox.url, EVENT)

    assert (500, [EVENT]) == (answer.status_code, sandbox.events)


def test_remembering_does_not_excuse_a_bad_event(sandbox: Sandbox) -> None:
    """An event that would be refused is not accepted with a fault either."""
    sandbox.script([Fault(status=500, remember=True)])

    post(sandbox.url, EVENT | {"status": "?"})

    assert sandbox.events == []


@pytest.mark.parametrize("remember", [True, False], ids=["after the event was taken in", "before"])
def test_a_connection_can_be_reset(sandbox: Sandbox, remember: bool) -> None:  # noqa: FBT001
    """A cut resets the client's connection without an answer; other connections stay open."""
    sandbox.script([Fault(cut=True, remember=remember)])
    token = sign_in(sandbox.url).json()["token"]

    # Not a requests session: that would quietly connect anew.
    with contextlib.closing(HTTPConnection(sandbox.url.removeprefix("http://"), timeout=5)) as bystander:
        bystander.request("GET", "/health")
        bystander.getresponse().read()
        with pytest.raises(requests.ConnectionError, match=r"[Rr]eset"):
            post(sandbox.url, EVENT, token)
        bystander.request("GET", "/health")
        still_served = bystander.getresponse().status

    assert still_served == 200
    assert ([EVENT] if remember else []) == sandbox.events
    assert [200 if remember else None] == [arrival.http_status for arrival in sandbox.arrivals]


def test_an_answer_can_come_too_late(sandbox: Sandbox) -> None:
    """A delayed answer times out at the client, while the event is accepted at once."""
    sandbox.script([Fault(delay=1)])
    token = sign_in(sandbox.url).json()["token"]

    with pytest.raises(requests.ReadTimeout):
        post(sandbox.url, EVENT, token, timeout=0.2)

    assert sandbox.events == [EVENT]


def test_a_fault_can_wait_for_its_usage_place(sandbox: Sandbox) -> None:
    """A fault for one usage place does not affect others, in any order of events."""
    sandbox.script([Fault(status=503, usageplacecode="B"), Fault(status=500)])

    answers = [post(sandbox.url, EVENT | {"usageplacecode": code}).status_code for code in "AABB"]

    assert answers == [500, 200, 503, 200]


def test_a_sign_in_can_fail_too(sandbox: Sandbox) -> None:
    """Scripted faults of the sign-in do not affect events, and do not count as sign-ins."""
    token = sign_in(sandbox.url).json()["token"]
    sandbox.script_sign_in([Fault(status=503)])

    answers = [
        post(sandbox.url, EVENT, token).status_code,
        sign_in(sandbox.url).status_code,
        sign_in(sandbox.url).status_code,
    ]

    assert (answers, sandbox.sign_ins) == ([200, 503, 201], 2)


def test_clearing_drops_unused_faults(sandbox: Sandbox) -> None:
    """Faults that one test did not use do not affect the next test."""
    sandbox.script([Fault(status=500)])
    sandbox.script_sign_in([Fault(status=500)])

    sandbox.clear()

    assert post(sandbox.url, EVENT).status_code == 200


# --- Running ---


def test_latency_delays_answers_side_by_side() -> None:
    """Every answer to an event is late by the latency; they do not queue behind each other."""
    with Sandbox(latency=0.3) as slow, ThreadPoolExecutor(8) as pool:
        token = sign_in(slow.url).json()["token"]

        start = time.monotonic()
        taken = list(pool.map(lambda _: post(slow.url, EVENT, token).elapsed.total_seconds(), range(8)))
        whole = time.monotonic() - start

    assert min(taken) >= 0.3
    assert whole < 8 * 0.3


def test_stopping_does_not_wait_for_late_answers() -> None:
    """A sandbox whose answers take a minute still stops at once."""
    with ThreadPoolExecutor(1) as pool:
        with Sandbox(latency=60) as slow:
            waiting = pool.submit(post, slow.url, EVENT)
            while not slow.arrivals:
                time.sleep(0.01)
            start = time.monotonic()

        assert time.monotonic() - start < HANGS
        assert waiting.result().status_code == 200


def test_a_stopped_sandbox_is_gone_but_not_forgotten() -> None:
    """After the with block the port is free, and what was received can still be read."""
    with Sandbox() as brief:
        post(brief.url, EVENT)
    port = int(brief.url.rpartition(":")[2])

    with pytest.raises(requests.ConnectionError):
        requests.get(f"{brief.url}/health", timeout=5)
    with Sandbox(port=port) as again:
        assert again.url == brief.url
    assert brief.events == [EVENT]


def test_a_sender_that_hangs_up_is_no_error(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A request that ends halfway leads to no arrival and no traceback."""
    host, _, port = sandbox.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as sender:
        sender.sendall(b"POST /rest/usageplace/event HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")

    time.sleep(0.1)
    assert requests.get(f"{sandbox.url}/health", timeout=5).json()["refused"] == 0
    assert caplog.records == []


@contextlib.contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        try:
            yield running, running.stdout.readline()
        finally:
            running.kill()


def test_the_command_runs_a_sandbox() -> None:
    """The command prints its address and credentials in one line, accepts an event, and ends without an error."""
    options = ("--port", "0", "--cid", "42", "--apicode", "secret", "--accept-jobid-string")
    with process(*options) as (running, line):
        url = line.split("listens on ")[1].split()[0]
        token = sign_in(url, cid="42", apicode="secret").json()["token"]

        answer = post(url, GUIDE_EXAMPLE, token)
        listed = requests.get(f"{url}/events", timeout=5).json()
        running.send_signal(signal.SIGINT)
        rest, _ = running.communicate(timeout=5)

    assert answer.status_code == 200
    assert [GUIDE_EXAMPLE] == [event["payload"] for event in listed]
    assert ("(cid 42, apicode secret)" in line, f"{url}/" in line) == (True, True)
    assert (0, "Stopped.\n") == (running.returncode, rest)


def test_the_command_reports_a_port_in_use(sandbox: Sandbox) -> None:
    """A port in use ends the command with one clear line."""
    port = sandbox.url.rpartition(":")[2]

    ended = subprocess.run([*COMMAND, "--port", port], capture_output=True, text=True, timeout=10, check=False)

    assert ended.returncode == 1
    assert ended.stderr == f"Port {port} on 127.0.0.1 is in use: choose another with --port\n"


@pytest.mark.parametrize("option", ["--latency=-1", "--latency=nan", "--token-ttl=inf", "--token-ttl=soon"])
def test_the_command_refuses_nonsense_seconds(option: str) -> None:
    """Seconds are a finite number that is not negative."""
    ended = subprocess.run([*COMMAND, option], capture_output=True, text=True, timeout=10, check=False)

    assert ended.returncode == 2
    assert option.partition("=")[0] in ended.stderr


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
@pytest.mark.parametrize(
    "use",
    [
        "from airflow_provider_ropo.sandbox import Sandbox",
        "import runpy; runpy.run_module('airflow_provider_ropo.sandbox', run_name='__main__')",
    ],
    ids=["library", "command"],
)
def test_a_missing_extra_is_named(package: str, use: str) -> None:
    """Without the packages of the extra, library and command name what to install."""
    code = f"import sys; sys.modules[{package!r}] = None; sys.argv = ['sandbox', '--port', '0']; {use}"

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=False)

    assert ended.returncode == 1
    assert "pip install 'airflow-provider-ropo[sandbox]'" in ended.stderr


def test_the_sandbox_is_independent() -> None:
    """The sandbox loads nothing of the rest of the provider, of Airflow or of requests."""
    code = (
        "import sys, airflow_provider_ropo.sandbox.server, airflow_provider_ropo.sandbox.__main__\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] in ('airflow', 'requests') or"
        " name.startswith('airflow_provider_ropo.') and '.sandbox' not in name))"
    )

    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=10, check=True)

    assert ended.stdout.strip() == ""
