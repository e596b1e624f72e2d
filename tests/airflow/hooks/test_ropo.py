"""The hook through Airflow's own connections: from the environment, and as the Test button reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from airflow.models.connection import Connection as ServerConnection
from airflow.providers.common.compat.sdk import Connection, redact

from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.errors import RopoConfigurationError, RopoRejectedError, RopoServerError
from airflow_provider_ropo.event import UsageplaceEvent
from airflow_provider_ropo.hooks.ropo import RopoHook
from airflow_provider_ropo.sandbox import Fault, Sandbox

APICODE = "hunter2-hunter2"
ROW = {
    "id": "1a2b3c4d5",
    "usageplacecode": "643007572062443672",
    "status": "disconnected",
    "time": "2024-01-04 10:41:40",
    "customernumber": "A123456",
    "invoicenumber": "594294",
    "jobid": 1234,
}

Define = Callable[..., RopoHook]


@pytest.fixture
def define(monkeypatch: pytest.MonkeyPatch) -> Define:
    """Define the connection ``ropo_test`` in the environment, as JSON or as URI; return a hook that reads it."""

    def define(value: dict[str, Any] | str) -> RopoHook:
        text = value if isinstance(value, str) else json.dumps(value)
        monkeypatch.setenv("AIRFLOW_CONN_ROPO_TEST", text)
        return RopoHook("ropo_test")

    return define


@pytest.fixture
def sent_tokens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the tokens that requests have with them from now on, in order."""
    tokens: list[str] = []
    send = requests.adapters.HTTPAdapter.send

    def note(adapter: Any, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        if token := request.headers.get("Authorization", "").removeprefix("Bearer "):
            tokens.append(token)
        return send(adapter, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", note)
    return tokens


def connection(**fields: Any) -> dict[str, Any]:
    base = {"conn_type": "ropo", "host": "rc.ropo24.fi", "login": "1000011", "password": APICODE}
    return {**base, **fields}


def uri(host: str, *, rest: str = "", **extras: str) -> str:
    query = f"?{urlencode(extras)}" if extras else ""
    return f"ropo://1000011:{quote(APICODE)}@{host}/{rest}{query}"


def expected(server: str = "https://rc.ropo24.fi", **fields: Any) -> RopoSettings:
    return RopoSettings("ropo_test", server, "1000011", APICODE, **fields)


ALL_EXTRAS = {
    "timeout": 5,
    "jobid_as_string": True,
    "timezone": "Europe/Oslo",
    "verify": True,
    "destination": "https://old.ropo24.fi 1000011",
}
ALL_EXTRAS_READ: dict[str, Any] = {
    "timeout": 5.0,
    "jobid_as_string": True,
    "timezone": "Europe/Oslo",
    "destination": "https://old.ropo24.fi 1000011",
}
CONNECTIONS = [
    pytest.param(connection(), expected(), id="JSON"),
    pytest.param(connection(host="https://rc.ropo24.fi/rest"), expected(), id="JSON, host with all around"),
    pytest.param(connection(host="rc.ropo24.fi/rest/"), expected(), id="JSON, host with path"),
    pytest.param(connection(port=8443, schema="https"), expected("https://rc.ropo24.fi:8443"), id="JSON, port, schema"),
    pytest.param(connection(extra=ALL_EXTRAS), expected(**ALL_EXTRAS_READ), id="JSON, extra"),
    pytest.param(connection(extra=json.dumps(ALL_EXTRAS)), expected(**ALL_EXTRAS_READ), id="JSON, extra as text"),
    pytest.param(
        connection(extra={"timeout": 30, "timezone": None, "verify": "true", "allow_http": False}),
        expected(),
        id="JSON, extra as the form saves it",
    ),
    pytest.param(connection(host="http://[::1]:8099"), expected("http://[::1]:8099"), id="JSON, IPv6"),
    pytest.param(uri("rc.ropo24.fi"), expected(), id="URI"),
    pytest.param(uri("rc.ropo24.fi:8443"), expected("https://rc.ropo24.fi:8443"), id="URI, port"),
    pytest.param(uri("rc.ropo24.fi", rest="https"), expected(), id="URI, schema"),
    pytest.param(uri("rc.ropo24.fi", rest="rest"), expected(), id="URI, path"),
    pytest.param(uri("https%3A%2F%2Frc.ropo24.fi"), expected(), id="URI, host with scheme"),
    pytest.param(uri("https%3A%2F%2Frc.ropo24.fi%2Frest"), expected(), id="URI, host with all around"),
    pytest.param(
        uri("https%3A%2F%2Frc.ropo24.fi%3A8443"),
        expected("https://rc.ropo24.fi:8443"),
        id="URI, host with scheme and port",
    ),
    pytest.param(
        uri("rc.ropo24.fi", timeout="5", jobid_as_string="true", timezone="Europe/Oslo", destination="a b"),
        expected(**{**ALL_EXTRAS_READ, "destination": "a b"}),
        id="URI, extras",
    ),
    pytest.param(
        uri("rc.ropo24.fi", __extra__=json.dumps(ALL_EXTRAS)), expected(**ALL_EXTRAS_READ), id="URI, __extra__"
    ),
    pytest.param(uri("[::1]:8099", rest="http"), expected("http://[::1]:8099"), id="URI, IPv6"),
    pytest.param(
        f"ropo://https://1000011:{APICODE}@rc.ropo24.se:8443/",
        expected("https://rc.ropo24.se:8443", timezone="Europe/Stockholm"),
        id="URI of Airflow's with two schemes",
    ),
]


@pytest.mark.parametrize(("value", "found"), CONNECTIONS)
def test_a_connection_of_the_environment(define: Define, value: dict[str, Any] | str, found: RopoSettings) -> None:
    """A connection gives the same settings as JSON and as URI, in every form of the host and the extras."""
    assert found == define(value).settings


@pytest.mark.parametrize(("value", "found"), CONNECTIONS)
def test_a_connection_survives_airflows_round_trip(
    define: Define, value: dict[str, Any] | str, found: RopoSettings
) -> None:
    """A connection that Airflow converts to a URI and back, as its Test button does, gives the same settings."""
    hook = define(value)

    again = define(hook.get_connection("ropo_test").get_uri())

    assert found == again.settings


@pytest.mark.parametrize(
    ("value", "names"),
    [
        pytest.param(connection(host=""), ["Server (host)", "rc.ropo24.fi"], id="no host"),
        pytest.param(connection(login=""), ["Customer number (login)", "Ropo support"], id="no login"),
        pytest.param(connection(password=""), ["API code (password)", "Ropo support"], id="no password"),
        pytest.param(connection(schema="http"), ["Server (host)", "use https"], id="plain http"),
        pytest.param(connection(extra="{broken"), ["extra", "JSON"], id="extra no JSON"),
        pytest.param(connection(extra=["timeout"]), ["extra", "JSON"], id="extra a list"),
        pytest.param(connection(extra={"apicode": APICODE}), ["apicode", "timezone"], id="extra unknown"),
        pytest.param(uri("rc.ropo24.fi", timeout="soon"), ["timeout", "seconds"], id="timeout of a URI"),
    ],
)
def test_a_connection_that_cannot_work(define: Define, value: dict[str, Any] | str, names: list[str]) -> None:
    """The Test button, too, reports an invalid connection with the field and how to fix it."""
    hook = define(value)

    ok, message = hook.test_connection()

    assert ok is False
    assert [] == [name for name in names if name not in message]
    assert "ropo_test" not in message
    assert APICODE not in message


@pytest.mark.usefixtures("airflow_db")
def test_an_undefined_connection() -> None:
    """A missing connection is a configuration error that tells how to add it."""
    hook = RopoHook("ropo_nowhere")

    with pytest.raises(RopoConfigurationError) as caught:
        hook.get_conn()

    assert "'ropo_nowhere' is not defined" in str(caught.value)
    assert "add one of type Ropo One under Admin, Connections" in str(caught.value)
    assert (False, str(caught.value)) == hook.test_connection()


def test_the_constructor_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook can be constructed without its connection existing, and uses ``ropo_default`` by default."""
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", "no connection at all")

    hook = RopoHook()

    assert "ropo_default" == hook.ropo_conn_id
    assert {"settings", "_client"}.isdisjoint(vars(hook))


def test_the_connection_is_read_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first use the hook reads nothing more from Airflow, so that threads can share its client."""
    hook = RopoHook()
    client = hook.get_conn()
    monkeypatch.delenv("AIRFLOW_CONN_ROPO_DEFAULT")

    hook.post_usageplace_event(UsageplaceEvent.from_row(ROW))

    assert client is hook.get_conn()
    assert 1 == len(sandbox.events)


def test_testing_signs_in_and_posts_nothing(sandbox: Sandbox) -> None:
    """The test only signs in, and reports the server, the customer and until when the token is valid."""
    hook = RopoHook()

    ok, message = hook.test_connection()

    assert ok is True
    for part in (sandbox.url, "customer 1000011", "valid until 20", "Europe/Helsinki"):
        assert part in message
    assert 1 == sandbox.sign_ins
    assert [] == sandbox.arrivals
    assert "sandbox" not in message


def test_a_refused_sign_in_tells_what_to_fix(sandbox: Sandbox, define: Define) -> None:
    """A refused sign-in names the server, both fields and the answer; not the API code, nor the generated name."""
    hook = define(connection(host=sandbox.url))

    ok, message = hook.test_connection()

    assert ok is False
    for part in (sandbox.url, "Customer number (login)", "API code (password)", "HTTP 400"):
        assert part in message
    assert APICODE not in message
    assert "ropo_test" not in message
    assert [] == sandbox.arrivals


def test_a_server_that_is_not_there_fails_the_test(define: Define) -> None:
    """If no server answers, the test names the server and what to check."""
    hook = define(connection(host="http://127.0.0.1:1"))

    ok, message = hook.test_connection()

    assert ok is False
    assert message.startswith("signing in: http://127.0.0.1:1 cannot be reached")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(connection(host="http://127.0.0.1:1"), id="refused"),
        pytest.param(connection(host="nonexistent.invalid"), id="no such name"),
        pytest.param(connection(host="rc..ropo24.fi"), id="no address"),
        pytest.param(connection(extra={"timezone": "Europe/Nowhere"}), id="no such zone"),
        pytest.param(connection(extra={"verify": "/no/such/bundle"}), id="no bundle"),
        pytest.param("ropo://", id="nothing"),
    ],
)
def test_a_failed_test_names_no_made_up_connection(define: Define, value: dict[str, Any] | str) -> None:
    """Whatever fails, the Test button's message does not name the id of the copy that it tests."""
    ok, message = define(value).test_connection()

    assert ok is False
    assert "ropo_test" not in message
    assert "connection" not in message


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(status=400), id="refused"),
        pytest.param(Fault(status=502), id="gateway"),
        pytest.param(Fault(status=307, headers={"Location": "http://127.0.0.1:1/"}), id="redirect"),
        pytest.param(Fault(status=200, headers={"Content-Type": "text/html"}, body=b"<html>"), id="web page"),
        pytest.param(Fault(cut=True), id="cut off"),
    ],
)
def test_a_sign_in_that_fails_names_no_made_up_connection(sandbox: Sandbox, define: Define, fault: Fault) -> None:
    """However the sign-in fails, the message names the server and not the id of the copy that is tested."""
    sandbox.script_sign_in([fault])

    ok, message = define(connection(host=sandbox.url, password=sandbox.apicode)).test_connection()

    assert ok is False
    assert sandbox.url in message
    assert "ropo_test" not in message


@pytest.mark.parametrize("scheme", ["", "https://"])
def test_a_server_that_speaks_plain_http_fails_the_test(sandbox: Sandbox, define: Define, scheme: str) -> None:
    """A server addressed by https that speaks plain http is told how to be addressed, without a made-up name."""
    hook = define(connection(host=scheme + sandbox.url.removeprefix("http://")))

    ok, message = hook.test_connection()

    assert ok is False
    assert "write http:// before its name" in message
    assert "ropo_test" not in message


def test_a_server_with_a_fault_fails_the_test(sandbox: Sandbox) -> None:
    """A temporary failure of the sign-in fails the test, without another attempt, with the HTTP status."""
    sandbox.script_sign_in([Fault(status=503)])

    ok, message = RopoHook().test_connection()

    assert ok is False
    assert "HTTP 503" in message
    assert 0 == sandbox.sign_ins


@pytest.mark.filterwarnings("ignore:ProvidersManager.hooks is deprecated")
@pytest.mark.parametrize(
    "connection_class",
    [pytest.param(ServerConnection, id="on the API server"), pytest.param(Connection, id="on a worker")],
)
def test_the_test_button(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, connection_class: type[Any]) -> None:
    """Airflow's own connection test finds the hook and returns its message, in each process that runs it."""
    tested = connection_class(
        conn_id="tested", conn_type="ropo", host=sandbox.url, login=sandbox.cid, password=sandbox.apicode
    )
    monkeypatch.setenv("AIRFLOW_CONN_TESTED", tested.get_uri())

    ok, message = tested.test_connection()

    assert message.startswith(f"Signed in to {sandbox.url}")
    assert ok is True
    assert [] == sandbox.arrivals


def test_an_event_is_posted(sandbox: Sandbox) -> None:
    """The hook posts an event as the API reference has it."""
    event = UsageplaceEvent.from_row(ROW)

    receipt = RopoHook().post_usageplace_event(event)

    assert Receipt(200) == receipt
    assert [event.to_payload()] == sandbox.events
    assert [{"jobid": 1234, "invoicenumber": "594294"}] == sandbox.events[0]["invoices"]


def test_the_connection_decides_how_jobid_is_sent(define: Define) -> None:
    """With ``jobid_as_string`` an event's jobid is sent as the guide shows it."""
    with Sandbox(accept_jobid_string=True) as lenient:
        hook = define(connection(host=lenient.url, password=lenient.apicode, extra={"jobid_as_string": True}))

        hook.post_usageplace_event(UsageplaceEvent.from_row(ROW))

        assert "1234" == lenient.events[0]["invoices"][0]["jobid"]


def test_a_transient_failure_is_retried(sandbox: Sandbox) -> None:
    """After a 503 the same event, with the same id, is posted again."""
    sandbox.script([Fault(status=503, headers={"Retry-After": "0"}), Fault(status=503)])
    event = UsageplaceEvent.from_row(ROW)

    receipt = RopoHook().post_usageplace_event(event)

    assert Receipt(200) == receipt
    assert [503, 503, 200] == [arrival.http_status for arrival in sandbox.arrivals]
    assert [event.to_payload()] * 3 == [arrival.payload for arrival in sandbox.arrivals]


def test_a_rejection_is_final(sandbox: Sandbox) -> None:
    """A rejected event is posted once and raised, with the event's id."""
    event = UsageplaceEvent.from_row({**ROW, "usageplacecode": "UNKNOWN1"})

    with pytest.raises(RopoRejectedError) as caught:
        RopoHook().post_usageplace_event(event)

    assert "1a2b3c4d5" == caught.value.event_id
    assert 400 == caught.value.status_code
    assert 1 == len(sandbox.arrivals)


def test_a_wait_that_is_too_long_is_not_waited(sandbox: Sandbox) -> None:
    """If the server asks for a wait of an hour, the error is raised at once."""
    sandbox.script([Fault(status=503, headers={"Retry-After": "3600"})])

    with pytest.raises(RopoServerError) as caught:
        RopoHook().post_usageplace_event(UsageplaceEvent.from_row(ROW))

    assert 3600 == caught.value.retry_after
    assert 1 == len(sandbox.arrivals)


def test_the_token_is_kept_out_of_logs(sandbox: Sandbox, sent_tokens: list[str]) -> None:
    """Airflow's masker knows the token as soon as it is there, also after a renewal."""
    sandbox.script([Fault(status=401)])

    RopoHook().post_usageplace_event(UsageplaceEvent.from_row(ROW))

    first, second = sent_tokens
    assert first != second
    assert ["Bearer ***"] * 2 == [redact(f"Bearer {token}") for token in (first, second)]


def test_nothing_secret_is_logged(sandbox: Sandbox, sent_tokens: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """A delivery with its retries logs neither API code, token nor customer's data, at any level."""
    sandbox.script([Fault(status=503), Fault(status=401)])

    with caplog.at_level(logging.DEBUG):
        RopoHook().post_usageplace_event(UsageplaceEvent.from_row(ROW))

    assert 2 == len(set(sent_tokens))
    assert "attempt 1 of 5" in caplog.text
    assert [] == [secret for secret in (*sent_tokens, "A123456", "594294", '"apicode"') if secret in caplog.text]
