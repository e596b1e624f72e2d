"""The transport over real connections, to servers and proxies that behave as no real one should."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import ssl
import time
import traceback
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.api.transport import MAX_INTERIM_RESPONSES
from airflow_provider_ropo.errors import (
    RopoConfigurationError,
    RopoConnectError,
    RopoRejectedError,
    RopoServerError,
    RopoTimeoutError,
)
from airflow_provider_ropo.sandbox import Fault, Sandbox
from doubles import HANGS
from tests.api.calls import EVENT, Connect, event, results
from tests.api.raw_server import (
    ACCEPTED,
    ELSEWHERE,
    FLOOD,
    SIGNED_IN,
    SIGNED_IN_AND_CLOSED,
    TOKEN,
    RawServer,
    Reply,
    TunnelProxy,
    closed_port,
    http,
)


def behind(proxy: RawServer, monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    """Let the environment name a proxy for everything."""
    for name, value in {**dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy.url), **others}.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "interim",
    [
        pytest.param(http(100), id="100"),
        pytest.param(http(102), id="102"),
        pytest.param(http(103, Link="</style.css>; rel=preload"), id="103"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n", id="103 without headers"),
        pytest.param(http(199), id="199"),
        pytest.param(http(100) + http(102) + http(103), id="one of each"),
        pytest.param(http(103) * MAX_INTERIM_RESPONSES, id="as many as are read"),
    ],
)
def test_an_interim_response_is_read_past(connect: Connect, interim: bytes) -> None:
    """The last response counts, whatever number of interim ones precede it, and the connection stays good."""
    answers = [Reply(interim + http(400)), Reply(interim + ACCEPTED), Reply(ACCEPTED)]
    with RawServer(*answers, sign_in=Reply(interim + SIGNED_IN)) as server:
        client = connect(server)
        with pytest.raises(RopoRejectedError):
            client.post_usageplace_event(event(1))
        receipts = [client.post_usageplace_event(event(2)), client.post_usageplace_event(event(3))]

        assert [Receipt(200)] * 2 == receipts
        assert ["e1", "e2", "e3"] == [payload["id"] for payload in server.events]
        assert 1 == server.connections


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(http(101) + http(200)), id="another protocol"),
        pytest.param(Reply(http(103) + http(101) + http(200)), id="another protocol after an interim response"),
        pytest.param(Reply(http(103), "close"), id="closed after an interim response"),
        pytest.param(Reply(http(103), "hold"), id="silence after an interim response"),
        pytest.param(Reply(http(103) * (MAX_INTERIM_RESPONSES + 1) + http(200)), id="more than are read"),
    ],
)
def test_without_a_final_response_the_event_may_have_arrived(connect: Connect, reply: Reply) -> None:
    """Interim responses alone leave the event open, and what follows them is no other event's response."""
    with RawServer(reply, Reply(http(400)), Reply(ACCEPTED)) as server:
        client = connect(server, extra={"timeout": 0.5})
        with pytest.raises(RopoTimeoutError) as caught:
            client.post_usageplace_event(event(1))
        with pytest.raises(RopoRejectedError):
            client.post_usageplace_event(event(2))
        receipt = client.post_usageplace_event(event(3))

    assert caught.value.may_have_arrived
    assert Receipt(200) == receipt
    assert ["e1", "e2", "e3"] == [payload["id"] for payload in server.events]


@pytest.mark.parametrize("status", [600, 799, 999])
def test_a_status_nobody_knows_is_no_success(connect: Connect, status: int) -> None:
    """A status outside of HTTP's classes is an error of the server, with its number."""
    with RawServer(Reply(http(status), "close")) as server, pytest.raises(RopoServerError) as caught:
        connect(server).post_usageplace_event(EVENT)

    assert status == caught.value.status_code


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(sandbox: Sandbox, connect: Connect, status: int) -> None:
    """Where a redirect points to, nothing arrives; the event does not count as delivered."""
    with RawServer() as elsewhere:
        sandbox.script([Fault(status=status, headers={"Location": f"{elsewhere.url}/rest/usageplace/event"})])

        with pytest.raises(RopoServerError) as caught:
            connect(sandbox).post_usageplace_event(EVENT)

    assert status == caught.value.status_code
    assert 0 == elsewhere.connections


@pytest.mark.parametrize(
    "location",
    [
        pytest.param(b"http://[bad", id="half an IPv6 address"),
        pytest.param(b"//[", id="half a host"),
        pytest.param(b"/\xe4\xff", id="no UTF-8"),
        pytest.param(b"http://elsewhere.example:99999999/", id="no port"),
        pytest.param(b"", id="nothing"),
    ],
)
@pytest.mark.parametrize("path", ["token", "usageplace/event"])
def test_a_redirect_to_nowhere_is_like_any_other(connect: Connect, location: bytes, path: str) -> None:
    """Where a redirect points to is not even looked at, so it may be no address at all."""
    redirect = Reply(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
    with RawServer(redirect, sign_in=redirect if path == "token" else Reply(SIGNED_IN)) as server:
        client = connect(server)

        with pytest.raises(RopoServerError) as caught:
            client.post_usageplace_event(EVENT)

        assert f"/rest/{path}" == server.paths[-1]
    assert 302 == caught.value.status_code


def test_a_redirected_sign_in_is_not_followed_either(sandbox: Sandbox, connect: Connect) -> None:
    """The credentials do not go where a redirect points to."""
    with RawServer() as elsewhere:
        sandbox.script_sign_in([Fault(status=307, headers={"Location": f"{elsewhere.url}/rest/token"})])

        with pytest.raises(RopoServerError):
            connect(sandbox).post_usageplace_event(EVENT)

    assert 0 == elsewhere.connections
    assert [] == sandbox.arrivals


# --- no answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(then="reset"), id="reset"),
        pytest.param(Reply(then="close"), id="closed without a word"),
        pytest.param(Reply(then="hold"), id="silence"),
        pytest.param(Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "close"), id="half an answer"),
        pytest.param(Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "hold"), id="stuck half-way"),
        pytest.param(
            Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "close"), id="half a chunk"
        ),
        pytest.param(Reply(b"SSH-2.0-OpenSSH_9.6\r\n", "close"), id="no HTTP"),
        pytest.param(Reply(http(200, b"no gzip", Content_Encoding="gzip")), id="an answer that cannot be unpacked"),
    ],
)
def test_without_a_whole_answer_the_event_may_have_arrived(connect: Connect, reply: Reply) -> None:
    """Once the event is sent, an incomplete response leaves its status open, and it is not sent again."""
    with RawServer(reply) as server:
        client = connect(server, extra={"timeout": 0.3})

        with pytest.raises(RopoTimeoutError) as caught:
            client.post_usageplace_event(EVENT)

    assert 1 == len(server.events)
    assert "'ropo_test'" in str(caught.value)
    assert server.url in str(caught.value)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # urllib3 leaves this socket to the garbage collector
def test_an_answer_of_two_lengths_is_no_matter_of_configuration(connect: Connect) -> None:
    """A header that makes no sense is the answer's: the event has left, and may have arrived."""
    with RawServer(Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nabcde")) as server:
        (result,) = map(type, results([lambda: connect(server).post_usageplace_event(EVENT)]))

        assert [EVENT] == server.events
    gc.collect()
    assert RopoTimeoutError is result


def test_the_timeout_is_kept(connect: Connect) -> None:
    """A server that never answers is waited for as long as the connection says, and named."""
    with RawServer(Reply(then="hold")) as server:
        client = connect(server, extra={"timeout": 0.3})
        client.sign_in()
        start = time.monotonic()

        with pytest.raises(RopoTimeoutError, match=r"within 0\.3 s"):
            client.post_usageplace_event(EVENT)

        assert time.monotonic() - start >= 0.3


DRIPPING = [
    pytest.param(Reply(b"", "drip"), id="before anything"),
    pytest.param(Reply(b"HTTP/1.1 200 O", "drip"), id="in the status line"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\nX-Slow: ", "drip"), id="in a header"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\n", "drip", b"X-More: 1\r\n"), id="header by header"),
    pytest.param(Reply(b"", "drip", http(103)), id="interim responses"),
    pytest.param(Reply(b"HTTP/1.1 103 Early Hints\r\n", "drip", b"X-More: 1\r\n"), id="in an interim response"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", "drip"), id="of a length"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\n\r\n", "drip"), id="of no length"),
    pytest.param(Reply(b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3e7\r\n", "drip"), id="in a chunk"),
    pytest.param(Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "drip"), id="before a chunk"),
    pytest.param(
        Reply(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "drip", b"X-More: 1\r\n"),
        id="in trailers",
    ),
]


@pytest.mark.parametrize("reply", DRIPPING)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_response_that_drips_is_given_up(
    connect: Connect, tls: ssl.SSLContext, authority: Path, reply: Reply, scheme: str
) -> None:
    """The timeout counts for the response as a whole: a server cannot stretch it, byte by byte."""
    with RawServer(reply, tls=tls if scheme == "https" else None) as server:
        client = connect(server, extra={"timeout": 0.3, "verify": str(authority)})
        client.sign_in()
        start = time.monotonic()

        with pytest.raises(RopoTimeoutError, match=r"within 0\.3 s") as caught:
            client.post_usageplace_event(EVENT)

        assert time.monotonic() - start >= 0.3
    assert caught.value.may_have_arrived


@pytest.mark.parametrize("reply", DRIPPING)
def test_a_sign_in_that_drips_is_given_up(connect: Connect, reply: Reply) -> None:
    """A token that comes byte by byte is not waited for beyond the timeout either."""
    with RawServer(sign_in=reply) as server, pytest.raises(RopoConnectError, match=r"signing in.*within 0\.3 s"):
        connect(server, extra={"timeout": 0.3}).sign_in()


def test_the_deadline_is_that_of_one_response(connect: Connect) -> None:
    """Responses that each take most of the timeout are each in time, on one connection."""
    slow = Reply(b"HTTP/1.1 200 OK\r\nX-Slow: ", "drip-and-end")
    with RawServer(slow) as server:
        client = connect(server, extra={"timeout": 0.6})

        receipts = [client.post_usageplace_event(event(number)) for number in range(3)]

        assert [Receipt(200)] * 3 == receipts
        assert 1 == server.connections


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Content-Length: %d" % FLOOD, id="of a length"),
        pytest.param(b"Connection: close", id="of no length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n%x" % FLOOD, id="in a chunk"),
    ],
)
def test_an_answer_without_end_is_not_read_to_its_end(connect: Connect, head: bytes) -> None:
    """Of a huge answer, the beginning counts; the rest is dropped, and the next event gets a new connection."""
    flood = Reply(b"HTTP/1.1 400 Bad\r\n" + head + b"\r\n\r\n", "flood")
    with RawServer(flood, Reply(ACCEPTED)) as server:
        client = connect(server)

        with pytest.raises(RopoRejectedError, match="HTTP 400"):
            client.post_usageplace_event(event(1))
        receipt = client.post_usageplace_event(event(2))

        assert 2 == server.connections
    assert Receipt(200) == receipt
    # What the machine's own buffers take, the server gets rid of.
    assert server.flooded < FLOOD / 4


def test_a_connection_that_is_never_taken_is_given_up(connect: Connect) -> None:
    """Where nobody takes the connection, the timeout counts too, and nothing has left."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        address = listening.getsockname()
        # The queue of connections nobody takes is full after these.
        waiting = [socket.socket() for _ in range(8)]
        for filler in waiting:
            filler.settimeout(0)
            filler.connect_ex(address)
        start = time.monotonic()

        with pytest.raises(RopoConnectError, match="cannot be reached"):
            connect(f"http://127.0.0.1:{address[1]}", extra={"timeout": 0.3}).post_usageplace_event(EVENT)

        assert time.monotonic() - start < HANGS
        for filler in waiting:
            filler.close()


def test_a_server_that_is_down_is_one_sentence(connect: Connect) -> None:
    """The traceback of a server that is down has one error, and its message one mention of the connection."""
    (error,) = results([lambda: connect(f"http://127.0.0.1:{closed_port()}").post_usageplace_event(EVENT)])

    trace = "".join(traceback.format_exception(error))
    assert 1 == trace.count("Traceback (most recent call last)")
    assert 1 == trace.count("ropo_test")


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        pytest.param(f"http://127.0.0.1:{closed_port()}", "Server (host)", id="refused"),
        pytest.param("nonexistent.invalid", "Server (host)", id="no such name"),
        pytest.param(f"https://127.0.0.1:{closed_port()}", "Server (host)", id="refused TLS"),
    ],
)
def test_a_server_that_cannot_be_reached(connect: Connect, host: str, remedy: str) -> None:
    """Where no connection comes about, nothing has left, and the error says what to check."""
    client = connect(host)

    with pytest.raises(RopoConnectError) as caught:
        client.post_usageplace_event(EVENT)

    assert "'ropo_test'" in str(caught.value)
    assert host in str(caught.value)
    assert remedy in str(caught.value)


def test_a_server_gone_after_signing_in_was_not_reached(connect: Connect) -> None:
    """An event for which no connection comes about has not left, also when signing in went well."""
    with RawServer(sign_in=Reply(SIGNED_IN_AND_CLOSED, "close")) as server:
        client = connect(server)
        client.sign_in()

    with pytest.raises(RopoConnectError):
        client.post_usageplace_event(EVENT)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(then="hold"), id="silence"),
        pytest.param(Reply(then="reset"), id="reset"),
        pytest.param(Reply(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{", "close"), id="half an answer"),
    ],
)
def test_a_sign_in_without_an_answer_leaves_no_event_open(connect: Connect, reply: Reply) -> None:
    """When the sign-in gets no answer, no event has left: that is safe to repeat."""
    with RawServer(sign_in=reply) as server:
        with pytest.raises(RopoConnectError, match="signing in"):
            connect(server, extra={"timeout": 0.3}).post_usageplace_event(EVENT)

        assert ["/rest/token"] == server.paths


@pytest.mark.parametrize(
    ("host", "proxy"),
    [
        pytest.param("a" * 70 + ".fi", "", id="a name too long"),
        pytest.param("https://rc..ropo24.fi", "", id="a name with an empty part"),
        pytest.param("https://rc.ropo24.fi", "http://", id="a proxy without a name"),
    ],
)
def test_an_address_that_is_none_is_a_matter_of_configuration(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, host: str, proxy: str
) -> None:
    """What cannot even be called is not tried again, and the message names the fix."""
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    client = connect(host)

    with pytest.raises(RopoConfigurationError, match=r"'ropo_test'.*check Server \(host\)"):
        client.sign_in()


# --- TLS -----------------------------------------------------------------------------------------


def test_tls_to_a_server_that_speaks_plain_http(sandbox: Sandbox, connect: Connect) -> None:
    """Https to a plain http port: nothing has left, and the message says how to address it."""
    client = connect(sandbox.url.removeprefix("http://"))

    with pytest.raises(RopoConnectError, match=r"TLS.*write http:// before its name in Server \(host\)$"):
        client.post_usageplace_event(EVENT)


def test_tls_to_a_server_elsewhere_that_speaks_plain_http(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox
) -> None:
    """Plain http beyond this machine needs ``allow_http`` too, and the message says so."""
    with TunnelProxy(int(sandbox.url.rpartition(":")[2])) as proxy:
        behind(proxy, monkeypatch)

        with pytest.raises(RopoConnectError, match=r"TLS.*write http:// .* turn on extra allow_http$"):
            connect(ELSEWHERE).post_usageplace_event(EVENT)


def test_tls_to_a_proxy_that_speaks_plain_http(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is wrongly addressed by https is no fault of the server's address."""
    with RawServer() as proxy:
        behind(proxy, monkeypatch, https_proxy=proxy.url.replace("http://", "https://"))

        with pytest.raises(RopoConnectError, match="this worker's proxies") as caught:
            connect(ELSEWHERE).post_usageplace_event(EVENT)

    assert "write http://" not in str(caught.value)


@pytest.mark.parametrize("then", ["reset", "close", "unwrap", "hold"])
def test_tls_that_breaks_after_the_event_leaves_it_open(
    connect: Connect, tls: ssl.SSLContext, authority: Path, then: str
) -> None:
    """However TLS breaks once the event has left, it may have arrived."""
    with RawServer(Reply(then=then), tls=tls) as server:
        client = connect(server, extra={"verify": str(authority), "timeout": 0.5})

        with pytest.raises(RopoTimeoutError):
            client.post_usageplace_event(EVENT)

        assert [EVENT] == server.events


@pytest.mark.parametrize("then", ["reset", "close", "hold"])
def test_a_handshake_that_never_ends_well_leaves_no_event_open(
    connect: Connect, tls: ssl.SSLContext, authority: Path, then: str
) -> None:
    """An event that waited for a TLS handshake has not left, however that broke."""
    with RawServer(tls=tls, sign_in=Reply(SIGNED_IN_AND_CLOSED, "close")) as server:
        client = connect(server, extra={"verify": str(authority), "timeout": 0.5})
        client.sign_in()
        server.refuse_tls(then)

        with pytest.raises(RopoConnectError, match="TLS"):
            client.post_usageplace_event(EVENT)

        assert [] == server.events


def test_a_certificate_nobody_vouches_for_is_refused(connect: Connect, tls: ssl.SSLContext) -> None:
    """A self-signed certificate is refused before anything is sent, and the message names ``verify``."""
    with RawServer(tls=tls) as server:
        with pytest.raises(RopoConnectError, match="verify"):
            connect(server).post_usageplace_event(EVENT)

        assert [] == server.requests


def test_a_certificate_for_another_name_is_refused(connect: Connect, tls: ssl.SSLContext, authority: Path) -> None:
    """A certificate is good for the names in it alone, also with the right bundle."""
    with RawServer(tls=tls) as server:
        client = connect(f"https://localhost:{server.port}", extra={"verify": str(authority)})

        with pytest.raises(RopoConnectError, match="TLS"):
            client.post_usageplace_event(EVENT)

        assert [] == server.requests


def test_verify_names_who_vouches(connect: Connect, tls: ssl.SSLContext, authority: Path) -> None:
    """With ``verify`` pointing to its authority, the server's certificate is accepted."""
    with RawServer(tls=tls) as server:
        connect(server, extra={"verify": str(authority)}).post_usageplace_event(EVENT)

        assert [EVENT] == server.events


def test_the_environments_bundle_counts(
    connect: Connect, tls: ssl.SSLContext, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose environment names a CA bundle needs no ``verify``."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))

    with RawServer(tls=tls) as server:
        connect(server).post_usageplace_event(EVENT)

        assert [EVENT] == server.events


def test_an_environment_bundle_that_is_not_there(
    connect: Connect, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that is gone is a matter of configuration, and nothing is sent."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")

    with RawServer(tls=tls) as server:
        with pytest.raises(RopoConfigurationError, match=r"'ropo_test'.*REQUESTS_CA_BUNDLE"):
            connect(server).post_usageplace_event(EVENT)

        assert [] == server.requests


def test_a_bundle_spoiled_later_leaves_no_event_open(
    connect: Connect, tls: ssl.SSLContext, authority: Path, tmp_path: Path
) -> None:
    """A bundle that is no bundle any more stops an event before it has left."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.read_bytes())
    with RawServer(tls=tls, sign_in=Reply(SIGNED_IN_AND_CLOSED, "close")) as server:
        client = connect(server, extra={"verify": str(bundle)})
        client.sign_in()
        bundle.write_text("spoiled")

        (result,) = results([lambda: client.post_usageplace_event(EVENT)])

        assert RopoConnectError is type(result)
        assert [] == server.events


# --- connections ---------------------------------------------------------------------------------


def test_netrc_does_not_replace_the_token(connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An entry for the server in ``~/.netrc`` changes neither of the two calls."""
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login intruder password intruder\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    with RawServer() as server:
        connect(server).post_usageplace_event(EVENT)

    (_, sign_in, _), (_, post, _) = server.requests
    assert "Authorization" not in sign_in
    assert f"Bearer {TOKEN}" == post["Authorization"]


def test_the_environments_proxy_is_used(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy named by the environment carries both calls."""
    with RawServer() as proxy:
        behind(proxy, monkeypatch)

        connect(f"http://{ELSEWHERE}", extra={"allow_http": True}).post_usageplace_event(EVENT)

    assert [
        f"http://{ELSEWHERE}/rest/token",
        f"http://{ELSEWHERE}/rest/usageplace/event",
    ] == proxy.paths


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.8.8.8"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_stays_on_this_machine_goes_through_no_proxy(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, host: str, scheme: str
) -> None:
    """Plain http is for loopback because nobody else hears the API code there: so no proxy does."""
    with RawServer() as proxy:
        behind(proxy, monkeypatch)

        with pytest.raises(RopoConnectError):
            connect(f"{scheme}://{host}:{closed_port()}").sign_in()

        assert 0 == proxy.connections


def test_no_proxy_is_respected(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that the environment excepts from its proxy is called directly."""
    with RawServer() as proxy:
        behind(proxy, monkeypatch, no_proxy=f"example.com,{ELSEWHERE}")

        with pytest.raises(RopoConnectError, match="cannot be reached"):
            connect(f"http://{ELSEWHERE}", extra={"allow_http": True}).post_usageplace_event(EVENT)

        assert 0 == proxy.connections


def test_a_proxy_that_cannot_be_reached(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the proxy itself is not there, nothing has left."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")

    with pytest.raises(RopoConnectError, match=r"cannot be reached.*proxies"):
        connect(f"http://{ELSEWHERE}", extra={"allow_http": True}).post_usageplace_event(EVENT)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # ssl leaves a reset socket to the garbage collector
@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(Reply(http(502), "close"), id="502"),
        pytest.param(Reply(http(407)), id="407"),
        pytest.param(Reply(http(103) + http(503)), id="503 after an interim response"),
        pytest.param(Reply(http(101)), id="101"),
        pytest.param(Reply(then="close"), id="closed"),
        pytest.param(Reply(then="reset"), id="reset"),
        pytest.param(Reply(then="hold"), id="silence"),
        pytest.param(Reply(b"SSH-2.0-OpenSSH_9.6\r\n"), id="garbage"),
        pytest.param(Reply(b"\x00\xff" * 40_000 + b"\r\n"), id="a line too long"),
        pytest.param(Reply(b"HTTP/1.1 200 OK\r\n" + b"X" * 70_000), id="a header too long"),
        pytest.param(Reply(b"HTTP/1.1 200 OK\r\nX: ", "drip"), id="dripping"),
        pytest.param(Reply(ACCEPTED, "close"), id="closed after yes"),
        pytest.param(Reply(ACCEPTED, "reset"), id="reset after yes"),
        pytest.param(Reply(ACCEPTED + b"SSH-2.0-OpenSSH_9.6\r\n"), id="no TLS after yes"),
    ],
)
def test_a_proxy_that_opens_no_tunnel_leaves_no_event_open(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, authority: Path, refusal: Reply
) -> None:
    """An event for which the proxy opens no tunnel has not left, however that goes wrong, and soon."""
    with (
        RawServer(tls=tls, sign_in=Reply(SIGNED_IN_AND_CLOSED, "close")) as server,
        TunnelProxy(server.port, refusal) as proxy,
    ):
        behind(proxy, monkeypatch)
        client = connect(f"https://{ELSEWHERE}:{server.port}", extra={"verify": str(authority), "timeout": 0.5})
        client.sign_in()
        start = time.monotonic()

        (result,) = results([lambda: client.post_usageplace_event(EVENT)])

        assert time.monotonic() - start < HANGS
        assert [f"{ELSEWHERE}:{server.port}"] * 2 == proxy.paths
        assert ["/rest/token"] == server.paths
    kind = type(result)
    del result
    gc.collect()
    assert RopoConnectError is kind


def test_a_tunnel_that_a_proxy_hints_at_first(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, authority: Path
) -> None:
    """An interim response to CONNECT is read past as well."""
    with RawServer(tls=tls) as server, TunnelProxy(server.port, greeting=http(103) + ACCEPTED) as proxy:
        behind(proxy, monkeypatch)
        client = connect(f"https://{ELSEWHERE}:{server.port}", extra={"verify": str(authority)})

        assert Receipt(200) == client.post_usageplace_event(EVENT)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(then="close"), id="closed"),
        pytest.param(Reply(then="reset"), id="reset"),
        pytest.param(Reply(then="hold"), id="silence"),
        pytest.param(Reply(b"SSH-2.0-OpenSSH_9.6\r\n", "close"), id="garbage"),
    ],
)
def test_an_event_that_a_plain_http_proxy_took_may_have_arrived(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, reply: Reply
) -> None:
    """A proxy for plain http gets the event itself: it may have passed it on, whatever it answers."""
    with RawServer(reply) as proxy:
        behind(proxy, monkeypatch)
        client = connect(f"http://{ELSEWHERE}", extra={"allow_http": True, "timeout": 0.3})

        with pytest.raises(RopoTimeoutError):
            client.post_usageplace_event(EVENT)

        assert [EVENT] == proxy.events


@pytest.mark.parametrize("then", ["reset", "close"])
def test_an_event_lost_behind_a_proxy_may_have_arrived(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, authority: Path, then: str
) -> None:
    """When the way through a proxy breaks after the event has left, that is no refusal by the proxy."""
    with RawServer(Reply(then=then), tls=tls) as server, TunnelProxy(server.port) as proxy:
        behind(proxy, monkeypatch)
        client = connect(f"https://{ELSEWHERE}:{server.port}", extra={"verify": str(authority)})

        with pytest.raises(RopoTimeoutError):
            client.post_usageplace_event(EVENT)

        assert [EVENT] == server.events


def test_a_connection_is_used_again(connect: Connect) -> None:
    """Twenty events and the sign-in before them go through one connection."""
    with RawServer() as server:
        client = connect(server)

        for number in range(20):
            client.post_usageplace_event(event(number))

        assert 21 == len(server.requests)
        assert 1 == server.connections


def test_a_connection_is_used_again_after_an_answer_with_words(connect: Connect) -> None:
    """An answer that is read to its end leaves its connection good, however it came, and beyond the timeout."""
    problem = json.dumps({"title": "Bad", "detail": "x" * 20_000}).encode()
    chunked = b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with RawServer(Reply(http(400, problem)), Reply(chunked), Reply(http(204)), Reply(ACCEPTED)) as server:
        client = connect(server, extra={"timeout": 0.3})

        for number in range(5):
            with contextlib.suppress(RopoRejectedError):
                client.post_usageplace_event(event(number))
            time.sleep(0.2)

        assert 5 == len(server.events)
        assert 1 == server.connections


def test_each_thread_has_a_connection_of_its_own(connect: Connect) -> None:
    """Threads do not share connections: four of them use four, for as many events as they like."""
    with RawServer() as server:
        client = connect(server)
        client.sign_in()

        def post(first: int) -> None:
            for number in range(first, first + 5):
                client.post_usageplace_event(event(number))

        results([partial(post, n * 10) for n in range(4)])

        assert 20 == len(server.events)
        assert 1 + 4 == server.connections


def test_a_kept_connection_that_the_server_closed_is_replaced(connect: Connect) -> None:
    """A server that closes idle connections costs a new connection, not an error."""
    with RawServer(Reply(ACCEPTED, "close")) as server:
        client = connect(server)

        for number in range(3):
            client.post_usageplace_event(event(number))
            time.sleep(0.05)

        assert 3 == len(server.events)


def test_a_closed_client_can_be_used_again(connect: Connect) -> None:
    """Closing lets go of the connections, not of the client or its token."""
    with RawServer() as server:
        client = connect(server)
        client.post_usageplace_event(event(1))
        client.close()

        client.post_usageplace_event(event(2))

        assert ["e1", "e2"] == [payload["id"] for payload in server.events]
        assert 1 == server.paths.count("/rest/token")
        assert 2 == server.connections
