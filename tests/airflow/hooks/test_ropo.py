"""The hook through Airflow's own connections: from the environment, and as the Test button reads them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
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


def connection(**fields: Any) -> dict[str, Any]:
    base = {"conn_type": "ropo", "host": "rc.ropo24.fi", "login": "1000011", "password": APICODE}
    return {**base, **fields}


def uri(host: str, *, rest: str = "", **extras: str) -> str:
    query = f"?{urlencode(extras)}" if extras else ""
    return f"ropo://1000011:{quote(APICODE)}@{host}/{rest}{query}"


def expected(server: str = "https://rc.ropo24.fi", **fields: Any) -> RopoSettings:
    return RopoSettings("ropo_test", server, "1000011", APICODE, **fields)


ALL_EXTRAS = {"timeout": 5, "jobid_as_string": True, "timezone": "Europe/Oslo", "verify": True}
ALL_EXTRAS_READ = {"timeout": 5.0, "jobid_as_string": True, "timezone": "Europe/Oslo"}
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
        uri("rc.ropo24.fi", timeout="5", jobid_as_string="true", timezone="Europe/Oslo"),
        expected(**ALL_EXTRAS_READ),
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
    """A connection means the same as JSON and as URI, in every form of the host and the extras."""
    assert found == define(value).settings


@pytest.mark.parametrize(("value", "found"), CONNECTIONS)
def test_a_connection_survives_airflows_round_trip(
    define: Define, value: dict[str, Any] | str, found: RopoSettings
) -> None:
    """A connection that Airflow turns into a URI and back, as its Test button does, means the same."""
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
    """What is wrong with a connection is told with its field and remedy, by the Test button too."""
    hook = define(value)

    ok, message = hook.test_connection()

    assert ok is False
    assert [] == [name for name in names if name not in message]
    assert "ropo_test" not in message
    assert APICODE not in message


@pytest.mark.usefixtures("airflow_db")
def test_a_connection_nobody_defined() -> None:
    """A connection that is not there is a configuration error that says how to add it."""
    hook = RopoHook("ropo_nowhere")

    with pytest.raises(RopoConfigurationError) as caught:
        hook.get_conn()

    assert "'ropo_nowhere' is not defined" in str(caught.value)
    assert "add one of type Ropo One under Admin, Connections" in str(caught.value)
    assert (False, str(caught.value)) == hook.test_connection()


def test_constructing_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook may be constructed where its connection does not exist, and for the usual connection by default."""
    monkeypatch.setenv("AIRFLOW_CONN_ROPO_DEFAULT", "no connection at all")

    hook = RopoHook()

    assert "ropo_default" == hook.ropo_conn_id
    assert {"settings", "_client"}.isdisjoint(vars(hook))


def test_the_connection_is_read_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first use the hook asks Airflow for nothing more, so that threads may share its client."""
    hook = RopoHook()
    client = hook.get_conn()
    monkeypatch.delenv("AIRFLOW_CONN_ROPO_DEFAULT")

    hook.post_usageplace_event(UsageplaceEvent.from_row(ROW))

    assert client is hook.get_conn()
    assert 1 == len(sandbox.events)


def test_testing_signs_in_and_posts_nothing(sandbox: Sandbox) -> None:
    """The test signs in only, and says at which server, as which customer, until when."""
    hook = RopoHook()

    ok, message = hook.test_connection()

    assert ok is True
    for part in (sandbox.url, "customer 1000011", "good until 20", "Europe/Helsinki"):
        assert part in message
    assert 1 == sandbox.sign_ins
    assert [] == sandbox.arrivals
    assert "sandbox" not in message


def test_a_refused_test_says_what_to_mend(sandbox: Sandbox, define: Define) -> None:
    """A refused sign-in names the server, both fields and what Ropo says; not the API code, nor a made-up name."""
    hook = define(connection(host=sandbox.url))

    ok, message = hook.test_connection()

    assert ok is False
    for part in (sandbox.url, "Customer number (login)", "API code (password)", "HTTP 400"):
        assert part in message
    assert APICODE not in message
    assert "ropo_test" not in message
    assert [] == sandbox.arrivals


def test_a_server_that_is_not_there_fails_the_test(define: Define) -> None:
    """Where no server answers, the test says which and what to check."""
    hook = define(connection(host="http://127.0.0.1:1"))

    ok, message = hook.test_connection()

    assert ok is False
    assert "http://127.0.0.1:1 cannot be reached" in message


def test_a_server_that_is_unwell_fails_the_test(sandbox: Sandbox) -> None:
    """A sign-in that fails for the moment fails the test, once, with the status."""
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
    """Airflow's own connection test, wherever it runs, finds the hook and gets its message."""
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


def test_trouble_that_passes_is_tried_again(sandbox: Sandbox) -> None:
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
    """A server that wants to be left alone for an hour gets its way: the error is raised at once."""
    sandbox.script([Fault(status=503, headers={"Retry-After": "3600"})])

    with pytest.raises(RopoServerError) as caught:
        RopoHook().post_usageplace_event(UsageplaceEvent.from_row(ROW))

    assert 3600 == caught.value.retry_after
    assert 1 == len(sandbox.arrivals)


def test_the_token_is_kept_out_of_logs(sandbox: Sandbox, tmp_path: Path) -> None:
    """Airflow's masker knows the token as soon as it is there, also after a renewal."""
    hook = RopoHook()
    hook.get_conn().sign_in()
    sandbox.script([Fault(status=401)])
    first = hook.get_conn()._token_cache.get()

    hook.post_usageplace_event(UsageplaceEvent.from_row(ROW))

    second = hook.get_conn()._token_cache.get()
    assert first.value != second.value
    assert ["Bearer ***"] * 2 == [redact(f"Bearer {token.value}") for token in (first, second)]


def test_nothing_secret_is_logged(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A delivery with its retries logs neither API code, token nor customer's data, at any level."""
    sandbox.script([Fault(status=503), Fault(status=401)])
    hook = RopoHook()
    with caplog.at_level(logging.DEBUG):
        hook.post_usageplace_event(UsageplaceEvent.from_row(ROW))

    token = hook.get_conn()._token_cache.get().value
    assert "attempt 1 of 5" in caplog.text
    assert [] == [secret for secret in (token, "A123456", "594294", '"apicode"') if secret in caplog.text]
