"""The client over real connections: to the sandbox, and to servers that behave as no real one should."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gc
import ipaddress
import json
import os
import pickle
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from airflow_provider_ropo.api.client import RopoClient
from airflow_provider_ropo.api.responses import Receipt
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.errors import (
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
from airflow_provider_ropo.sandbox import Fault, Sandbox

THREADS = 16
EVENT = {
    "id": "1a2b3c4d5",
    "usageplacecode": "643007572062443672",
    "customernumber": "A123456",
    "contract_no": "555555b",
    "invoices": [{"jobid": 123456, "invoicenumber": "594294"}],
    "time": "2024-01-04 10:41:40",
    "status": "disconnected",
    "description": "Usage place disconnected",
}
CUSTOMERS_DATA = ("A123456", "555555b", "123456", "594294")
APICODE = "hunter2-hunter2"
TOKEN = "e30.e30.c2lnbmF0dXJl"
PAGE = b"<!doctype html><html><body>Maintenance</body></html>"
HTML = {"Content-Type": "text/html"}
RESET = struct.pack("ii", 1, 0)
#: A name that only a proxy can make something of.
ELSEWHERE = "ropo.invalid"
FLOOD = 256 * 1024 * 1024

Connect = Callable[..., RopoClient]


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer as it goes over the wire."""
    lines = {"Content-Length": str(len(body)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body


SIGNED_IN = http(201, json.dumps({"token": TOKEN}).encode())
#: The same, told in a way that leaves no doubt that the next request needs a connection of its own.
SIGNED_IN_AND_CLOSED = http(201, json.dumps({"token": TOKEN}).encode(), Connection="close")
ACCEPTED = http(200)


@dataclass(frozen=True)
class Say:
    """What a server says to one request, and what it does to the connection then."""

    data: bytes = b""
    then: str = "keep"


class Transport:
    """A server on loopback that says, byte for byte, what a test wants, and remembers what it was told.

    :param answers: what it says to the coming events, the last one to all that follow.
    :param sign_in: what it says to sign-ins.
    """

    def __init__(self, *answers: Say, sign_in: Say = Say(SIGNED_IN), tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.flooded = 0
        self._answers = list(answers) or [Say(ACCEPTED)]
        self._sign_in = sign_in
        self._tls = tls
        self._handshake = "keep"
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for opened in (self._listening, *self._open):
            # Closing alone does not wake a thread that waits in it.
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()
        for thread in self._threads:
            thread.join(5)

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [line.split()[1] for line, _headers, _body in self.requests]

    @property
    def events(self) -> list[Any]:
        """The bodies of the events that came, in order."""
        return [json.loads(body) for line, _, body in self.requests if "/rest/usageplace/event" in line]

    def refuse_tls(self, then: str) -> None:
        """Break off the handshake of connections to come: reset, close, or hold still."""
        self._handshake = then

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._start(self._talk, connection)

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._tls and self._handshake != "keep":
                connection.recv(65536)
                self._leave(connection, self._handshake)
                connection.close()
                return
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            with connection.makefile("rb") as stream:
                while request := self._read(stream):
                    self.requests.append(request)
                    if not self._answer(connection, request):
                        break
        connection.close()

    def _leave(self, connection: socket.socket, how: str) -> None:
        if how == "hold":
            self._over.wait(10)
        if how == "drip":
            # Long enough to tell a deadline from patience, and not for ever.
            for _ in range(60):
                connection.sendall(b"0")
                self._over.wait(0.05)
        while how == "flood" and self.flooded < FLOOD:
            self.flooded += connection.send(bytes(65536))
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _read(self, stream: Any) -> tuple[str, dict[str, str], bytes] | None:
        line = stream.readline().decode().strip()
        if not line:
            return None
        headers = {}
        while header := stream.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.title()] = value.strip()
        return line, headers, stream.read(int(headers.get("Content-Length", 0)))

    def _answer(self, connection: socket.socket, request: tuple[str, dict[str, str], bytes]) -> bool:
        say = self._sign_in if "/rest/token" in request[0] else self._answers[0]
        if say is self._answers[0] and len(self._answers) > 1:
            del self._answers[0]
        connection.sendall(say.data)
        self._leave(connection, say.then)
        if say.then == "unwrap" and self._tls:
            # Plain text in the middle of TLS, as from a box on the way.
            with socket.socket(fileno=os.dup(connection.fileno())) as plain:
                plain.sendall(http(502))
        return say.then == "keep"


class Tunnel(Transport):
    """A proxy that lets the first connection through and refuses the later ones."""

    def __init__(self, target: int) -> None:
        super().__init__(Say(http(502), "close"))
        self._target = target

    def _answer(self, connection: socket.socket, request: tuple[str, dict[str, str], bytes]) -> bool:
        if len(self.requests) > 1:
            return super()._answer(connection, request)
        with socket.create_connection(("127.0.0.1", self._target)) as onward:
            connection.sendall(http(200))
            self._open.append(onward)
            self._start(self._pipe, onward, connection)
            self._pipe(connection, onward)
        return False

    def _pipe(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def read(self) -> float:
        """Tell the time."""
        return self.now


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine's own proxies and bundles are, the tests start without."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    """Share one sandbox: stopping a server takes longer than most tests."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """Return the shared sandbox, as good as new."""
    running.clear()
    return running


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make clients, and close them in the end."""
    clients: list[RopoClient] = []

    def make(server: Sandbox | Transport | str, *, extra: dict[str, Any] | None = None, **options: Any) -> RopoClient:
        settings = RopoSettings.from_connection(
            "ropo_test",
            host=server if isinstance(server, str) else server.url,
            login="1000011",
            password=server.apicode if isinstance(server, Sandbox) else APICODE,
            extra={"timeout": 2, **(extra or {})},
        )
        clients.append(RopoClient(settings, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate that vouches for itself, and its key, for 127.0.0.1 and the name behind a proxy."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A Ropo One of our own")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(ELSEWHERE)]
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    bundle = folder / "bundle.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return bundle


@pytest.fixture(scope="module")
def tls(authority: Path) -> ssl.SSLContext:
    """What a server needs that shows the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority, authority.with_name("key.pem"))
    return context


def behind(proxy: Transport, monkeypatch: pytest.MonkeyPatch, **others: str) -> None:
    """Let the environment name a proxy for everything."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        others[name] = proxy.url
    for name, value in others.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.upper(), value)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def event(number: int) -> dict[str, Any]:
    return {**EVENT, "id": f"e{number}", "usageplacecode": f"RE{number}"}


def results(calls: list[Callable[[], Any]]) -> list[Any]:
    """Return what each call gives, all started at once in a thread of its own, an error as it is."""
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], Any]) -> Any:
        barrier.wait()
        try:
            return call()
        except RopoError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


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
    with Transport() as wire:
        connect(wire).post_usageplace_event(EVENT)

    (sign_in, sign_in_headers, credentials), (post, post_headers, payload) = wire.requests
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
    """Each answer over the wire comes out as its one class, once: the client itself never tries again."""
    sandbox.script([fault])
    client = connect(sandbox)

    (result,) = results([lambda: client.post_usageplace_event(EVENT)])

    assert expected is type(result)
    assert fault.status == getattr(result, "status_code", None)
    assert 1 == len(sandbox.arrivals)
    if fault.headers.get("Retry-After"):
        assert 3.0 == result.retry_after


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
    """With a sign-in no event leaves, whatever became of it."""
    sandbox.script_sign_in([Fault(status=status)])

    with pytest.raises(RopoServerError) as caught:
        connect(sandbox).post_usageplace_event(EVENT)

    assert not caught.value.may_have_arrived


@pytest.mark.parametrize("interim", [101, 102, 103])
def test_an_interim_answer_is_not_the_last_word(connect: Connect, interim: int) -> None:
    """What a server says beforehand leaves open what becomes of the event, and is nobody else's answer."""
    with Transport(Say(http(interim) + http(200)), Say(http(400)), Say(ACCEPTED)) as wire:
        client = connect(wire)
        with pytest.raises(RopoTimeoutError) as caught:
            client.post_usageplace_event(EVENT)
        with pytest.raises(RopoRejectedError):
            client.post_usageplace_event(EVENT | {"id": "second"})
        receipt = client.post_usageplace_event(EVENT | {"id": "third"})

    assert caught.value.may_have_arrived
    assert Receipt(200) == receipt
    assert ["1a2b3c4d5", "second", "third"] == [event["id"] for event in wire.events]


@pytest.mark.parametrize("status", [600, 799, 999])
def test_a_status_nobody_knows_is_no_success(connect: Connect, status: int) -> None:
    """A status outside of HTTP's classes is trouble of the server, with its number."""
    with Transport(Say(http(status), "close")) as wire, pytest.raises(RopoServerError) as caught:
        connect(wire).post_usageplace_event(EVENT)

    assert status == caught.value.status_code


def test_retry_after_may_be_a_date(sandbox: Sandbox, connect: Connect) -> None:
    """A ``Retry-After`` that is a date is counted from now."""
    at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=60)
    sandbox.script([Fault(status=503, headers={"Retry-After": f"{at:%a, %d %b %Y %H:%M:%S GMT}"})])

    with pytest.raises(RopoServerError) as caught:
        connect(sandbox).post_usageplace_event(EVENT)

    assert 55 < (caught.value.retry_after or 0) <= 60


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(sandbox: Sandbox, connect: Connect, status: int) -> None:
    """Where a redirect points to, nothing arrives; the event does not count as delivered."""
    with Transport() as elsewhere:
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
    redirect = Say(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")
    with Transport(redirect, sign_in=redirect if path == "token" else Say(SIGNED_IN)) as wire:
        client = connect(wire)

        with pytest.raises(RopoServerError) as caught:
            client.post_usageplace_event(EVENT)

        assert f"/rest/{path}" == wire.paths[-1]
    assert 302 == caught.value.status_code


def test_a_redirected_sign_in_is_not_followed_either(sandbox: Sandbox, connect: Connect) -> None:
    """The credentials do not go where a redirect points to."""
    with Transport() as elsewhere:
        sandbox.script_sign_in([Fault(status=307, headers={"Location": f"{elsewhere.url}/rest/token"})])

        with pytest.raises(RopoServerError):
            connect(sandbox).post_usageplace_event(EVENT)

    assert 0 == elsewhere.connections
    assert [] == sandbox.arrivals


# --- no answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(Say(then="reset"), id="reset"),
        pytest.param(Say(then="close"), id="closed without a word"),
        pytest.param(Say(then="hold"), id="silence"),
        pytest.param(Say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "close"), id="half an answer"),
        pytest.param(Say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "hold"), id="stuck half-way"),
        pytest.param(Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "close"), id="half a chunk"),
        pytest.param(Say(b"SSH-2.0-OpenSSH_9.6\r\n", "close"), id="no HTTP"),
        pytest.param(Say(http(200, b"no gzip", Content_Encoding="gzip")), id="an answer that cannot be unpacked"),
    ],
)
def test_without_a_whole_answer_the_event_may_have_arrived(connect: Connect, say: Say) -> None:
    """Once the event has left, anything short of a whole answer leaves it open, and it is not sent again."""
    with Transport(say) as wire:
        client = connect(wire, extra={"timeout": 0.3})

        with pytest.raises(RopoTimeoutError) as caught:
            client.post_usageplace_event(EVENT)

    assert 1 == len(wire.events)
    assert "'ropo_test'" in str(caught.value)
    assert wire.url in str(caught.value)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # urllib3 leaves this socket to the garbage collector
def test_an_answer_of_two_lengths_is_no_matter_of_configuration(connect: Connect) -> None:
    """A header that makes no sense is the answer's: the event has left, and may have arrived."""
    with Transport(Say(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nabcde")) as wire:
        (result,) = map(type, results([lambda: connect(wire).post_usageplace_event(EVENT)]))

        assert [EVENT] == wire.events
    gc.collect()
    assert RopoTimeoutError is result


def test_the_timeout_is_kept(connect: Connect) -> None:
    """A server that never answers is waited for as long as the connection says, and named."""
    with Transport(Say(then="hold")) as wire:
        client = connect(wire, extra={"timeout": 0.3})
        client.sign_in()
        start = time.monotonic()

        with pytest.raises(RopoTimeoutError, match=r"within 0\.3 s"):
            client.post_usageplace_event(EVENT)

        assert 0.3 <= time.monotonic() - start < 2


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n", id="of a length"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="of no length"),
        pytest.param(b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n3e7\r\n", id="in a chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", id="before a chunk"),
    ],
)
def test_an_answer_that_drips_is_given_up(connect: Connect, head: bytes) -> None:
    """The timeout counts for the body as a whole: a server cannot stretch it, byte by byte."""
    with Transport(Say(head, "drip")) as wire:
        client = connect(wire, extra={"timeout": 0.3})
        client.sign_in()
        start = time.monotonic()

        with pytest.raises(RopoTimeoutError, match=r"within 0\.3 s") as caught:
            client.post_usageplace_event(EVENT)

        assert 0.3 <= time.monotonic() - start < 1.5
    assert caught.value.may_have_arrived


def test_a_sign_in_that_drips_is_given_up(connect: Connect) -> None:
    """A token that comes byte by byte is not waited for beyond the timeout either."""
    with Transport(sign_in=Say(b"HTTP/1.1 201 Created\r\nContent-Length: 999\r\n\r\n", "drip")) as wire:
        start = time.monotonic()

        with pytest.raises(RopoConnectError, match=r"signing in.*within 0\.3 s"):
            connect(wire, extra={"timeout": 0.3}).sign_in()

        assert time.monotonic() - start < 1.5


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
    flood = Say(b"HTTP/1.1 400 Bad\r\n" + head + b"\r\n\r\n", "flood")
    with Transport(flood, Say(ACCEPTED)) as wire:
        client = connect(wire)

        with pytest.raises(RopoRejectedError, match="HTTP 400"):
            client.post_usageplace_event(event(1))
        receipt = client.post_usageplace_event(event(2))

        assert 2 == wire.connections
    assert Receipt(200) == receipt
    # What the machine's own buffers take, the server gets rid of.
    assert wire.flooded < FLOOD / 4


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

        assert time.monotonic() - start < 2
        for filler in waiting:
            filler.close()


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
    with Transport(sign_in=Say(SIGNED_IN_AND_CLOSED, "close")) as wire:
        client = connect(wire)
        client.sign_in()

    with pytest.raises(RopoConnectError):
        client.post_usageplace_event(EVENT)


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(Say(then="hold"), id="silence"),
        pytest.param(Say(then="reset"), id="reset"),
        pytest.param(Say(b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{", "close"), id="half an answer"),
    ],
)
def test_a_sign_in_without_an_answer_leaves_no_event_open(connect: Connect, say: Say) -> None:
    """When the sign-in gets no answer, no event has left: that is safe to repeat."""
    with Transport(sign_in=say) as wire:
        with pytest.raises(RopoConnectError, match="signing in"):
            connect(wire, extra={"timeout": 0.3}).post_usageplace_event(EVENT)

        assert ["/rest/token"] == wire.paths


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
    """What cannot even be called is not tried again, and the message says what to mend."""
    if proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    client = connect(host)

    with pytest.raises(RopoConfigurationError, match=r"'ropo_test'.*check Server \(host\)"):
        client.sign_in()


# --- TLS -----------------------------------------------------------------------------------------


def test_tls_to_a_server_that_speaks_none(sandbox: Sandbox, connect: Connect) -> None:
    """Https to a plain http port: nothing has left, and the message is about TLS."""
    client = connect(sandbox.url.replace("http://", "https://"))

    with pytest.raises(RopoConnectError, match="TLS"):
        client.post_usageplace_event(EVENT)


@pytest.mark.parametrize("then", ["reset", "close", "unwrap", "hold"])
def test_tls_that_breaks_after_the_event_leaves_it_open(
    connect: Connect, tls: ssl.SSLContext, authority: Path, then: str
) -> None:
    """However TLS breaks once the event has left, it may have arrived."""
    with Transport(Say(then=then), tls=tls) as wire:
        client = connect(wire, extra={"verify": str(authority), "timeout": 0.5})

        with pytest.raises(RopoTimeoutError):
            client.post_usageplace_event(EVENT)

        assert [EVENT] == wire.events


@pytest.mark.parametrize("then", ["reset", "close", "hold"])
def test_a_handshake_that_never_ends_well_leaves_no_event_open(
    connect: Connect, tls: ssl.SSLContext, authority: Path, then: str
) -> None:
    """An event that waited for a TLS handshake has not left, however that broke."""
    with Transport(tls=tls, sign_in=Say(SIGNED_IN_AND_CLOSED, "close")) as wire:
        client = connect(wire, extra={"verify": str(authority), "timeout": 0.5})
        client.sign_in()
        wire.refuse_tls(then)

        with pytest.raises(RopoConnectError, match="TLS"):
            client.post_usageplace_event(EVENT)

        assert [] == wire.events


def test_a_certificate_nobody_vouches_for_is_refused(connect: Connect, tls: ssl.SSLContext) -> None:
    """A self-signed certificate is refused before anything is sent, and the message names ``verify``."""
    with Transport(tls=tls) as wire:
        with pytest.raises(RopoConnectError, match="verify"):
            connect(wire).post_usageplace_event(EVENT)

        assert [] == wire.requests


def test_a_certificate_for_another_name_is_refused(connect: Connect, tls: ssl.SSLContext, authority: Path) -> None:
    """A certificate is good for the names in it alone, also with the right bundle."""
    with Transport(tls=tls) as wire:
        client = connect(f"https://localhost:{wire.port}", extra={"verify": str(authority)})

        with pytest.raises(RopoConnectError, match="TLS"):
            client.post_usageplace_event(EVENT)

        assert [] == wire.requests


def test_verify_names_who_vouches(connect: Connect, tls: ssl.SSLContext, authority: Path) -> None:
    """With ``verify`` pointing to its authority, the server's certificate is accepted."""
    with Transport(tls=tls) as wire:
        connect(wire, extra={"verify": str(authority)}).post_usageplace_event(EVENT)

        assert [EVENT] == wire.events


def test_the_environments_bundle_counts(
    connect: Connect, tls: ssl.SSLContext, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose environment names a CA bundle needs no ``verify``."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority))

    with Transport(tls=tls) as wire:
        connect(wire).post_usageplace_event(EVENT)

        assert [EVENT] == wire.events


def test_an_environment_bundle_that_is_not_there(
    connect: Connect, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle that is gone is a matter of configuration, and nothing is sent."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")

    with Transport(tls=tls) as wire:
        with pytest.raises(RopoConfigurationError, match=r"'ropo_test'.*REQUESTS_CA_BUNDLE"):
            connect(wire).post_usageplace_event(EVENT)

        assert [] == wire.requests


def test_a_bundle_spoiled_later_leaves_no_event_open(
    connect: Connect, tls: ssl.SSLContext, authority: Path, tmp_path: Path
) -> None:
    """A bundle that is no bundle any more stops an event before it has left."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(authority.read_bytes())
    with Transport(tls=tls, sign_in=Say(SIGNED_IN_AND_CLOSED, "close")) as wire:
        client = connect(wire, extra={"verify": str(bundle)})
        client.sign_in()
        bundle.write_text("spoiled")

        (result,) = results([lambda: client.post_usageplace_event(EVENT)])

        assert RopoConnectError is type(result)
        assert [] == wire.events


# --- secrets -------------------------------------------------------------------------------------


def tell_all(quoted: str) -> bytes:
    said = f"{quoted} is wrong, {APICODE}, Bearer {TOKEN}, {', '.join(CUSTOMERS_DATA)}"
    return json.dumps({"title": said, "detail": "x" * 150 + said, "errorText": said}).encode()


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_an_error_about_an_event_tells_no_secrets(connect: Connect, status: int) -> None:
    """An answer that quotes token, API code and customer's data comes through without them."""
    with Transport(Say(http(status, tell_all("this")))) as wire:
        (error,) = results([lambda: connect(wire).post_usageplace_event(EVENT)])

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
    """What somebody wrote about a customer does not come back in an error; what the guide says may."""
    said = json.dumps({"title": f"'{description}' is too long"}).encode()
    with Transport(Say(http(400, said))) as wire, pytest.raises(RopoRejectedError) as caught:
        connect(wire).post_usageplace_event({**EVENT, "description": description})

    assert expected == caught.value.detail


@pytest.mark.parametrize("status", [400, 401, 403, 500])
def test_an_error_about_the_sign_in_tells_no_secrets(connect: Connect, status: int) -> None:
    """An answer to the sign-in that quotes the API code comes through without it."""
    with Transport(sign_in=Say(http(status, tell_all("this")))) as wire:
        (error,) = results([connect(wire).sign_in])

    assert isinstance(error, RopoResponseError)
    assert "this is wrong" in error.detail
    assert APICODE not in spoken(error)


def test_a_refused_token_is_not_told(connect: Connect) -> None:
    """A 401 that quotes the token comes through without it."""
    with Transport(Say(http(401, tell_all("this")))) as wire:
        (error,) = results([lambda: connect(wire).post_usageplace_event(EVENT)])

    assert isinstance(error, RopoAuthenticationError)
    assert [] == [secret for secret in (APICODE, TOKEN, *CUSTOMERS_DATA) if secret in spoken(error)]


@pytest.mark.parametrize(
    ("wire", "extra"),
    [
        pytest.param(Transport(Say(then="reset")), {}, id="no answer"),
        pytest.param(Transport(Say(then="hold")), {"timeout": 0.2}, id="silence"),
        pytest.param(Transport(sign_in=Say(then="reset")), {}, id="no answer to the sign-in"),
    ],
)
def test_an_error_without_an_answer_tells_no_secrets(connect: Connect, wire: Transport, extra: dict[str, Any]) -> None:
    """What went unanswered is not quoted."""
    with wire:
        (error,) = results([lambda: connect(wire, extra=extra).post_usageplace_event(EVENT)])

    assert isinstance(error, RopoError)
    assert type(error) is type(pickle.loads(pickle.dumps(error)))  # noqa: S301 - our own
    assert [] == [secret for secret in (APICODE, TOKEN, *CUSTOMERS_DATA) if secret in spoken(error)]


# --- signing in ----------------------------------------------------------------------------------


def test_many_threads_sign_in_once(sandbox: Sandbox, connect: Connect) -> None:
    """Sixteen threads that start at once share one sign-in."""
    client = connect(sandbox)

    receipts = results([lambda n=n: client.post_usageplace_event(event(n)) for n in range(THREADS)])

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
    with Transport(sign_in=Say(http(201, b'{"token": "opaque"}'))) as wire:
        client = connect(wire, clock=clock.read)

        for passed in (0, 7139, 1):
            clock.now += passed
            client.post_usageplace_event(EVENT)

    expected = ["/rest/token", *["/rest/usageplace/event"] * 2, "/rest/token", "/rest/usageplace/event"]
    assert expected == wire.paths


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
    with Transport(sign_in=Say(http(201, json.dumps({"token": f"e30.{body}.c2ln"}).encode()))) as wire:
        client = connect(wire)

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
        receipts = results([lambda n=n: client.post_usageplace_event(event(n)) for n in range(THREADS)])

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
    with Transport(sign_in=Say(http(400, b'{"errorId": 3, "errorText": "Unknown customer"}'))) as wire:
        client = connect(wire)

        errors = results([lambda: client.post_usageplace_event(EVENT)] * THREADS)

    assert ["/rest/token"] == wire.paths
    assert {RopoAuthenticationError} == {type(error) for error in errors}
    for part in ("'ropo_test'", wire.url, "(login)", "(password)", "Unknown customer"):
        assert part in str(errors[0])


def test_a_sign_in_that_fails_for_a_while_is_tried_again_by_the_next(sandbox: Sandbox, connect: Connect) -> None:
    """Trouble at the sign-in is an error of its own class, and the next event signs in anew."""
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


# --- connections ---------------------------------------------------------------------------------


def test_netrc_does_not_replace_the_token(connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An entry for the server in ``~/.netrc`` changes neither of the two calls."""
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login intruder password intruder\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))

    with Transport() as wire:
        connect(wire).post_usageplace_event(EVENT)

    (_, sign_in, _), (_, post, _) = wire.requests
    assert "Authorization" not in sign_in
    assert f"Bearer {TOKEN}" == post["Authorization"]


def test_the_environments_proxy_is_used(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy named by the environment carries both calls."""
    with Transport() as proxy:
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
    with Transport() as proxy:
        behind(proxy, monkeypatch)

        with pytest.raises(RopoConnectError):
            connect(f"{scheme}://{host}:{closed_port()}").sign_in()

        assert 0 == proxy.connections


def test_no_proxy_is_respected(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that the environment excepts from its proxy is called directly."""
    with Transport() as proxy:
        behind(proxy, monkeypatch, no_proxy=f"example.com,{ELSEWHERE}")

        with pytest.raises(RopoConnectError, match="cannot be reached"):
            connect(f"http://{ELSEWHERE}", extra={"allow_http": True}).post_usageplace_event(EVENT)

        assert 0 == proxy.connections


def test_a_proxy_that_cannot_be_reached(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the proxy itself is not there, nothing has left."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")

    with pytest.raises(RopoConnectError, match=r"cannot be reached.*proxies"):
        connect(f"http://{ELSEWHERE}", extra={"allow_http": True}).post_usageplace_event(EVENT)


def test_a_proxy_that_refuses_the_way_leaves_no_event_open(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, authority: Path
) -> None:
    """An event whose tunnel the proxy refuses has not left."""
    with Transport(tls=tls, sign_in=Say(SIGNED_IN_AND_CLOSED, "close")) as wire, Tunnel(wire.port) as proxy:
        behind(proxy, monkeypatch)
        client = connect(f"https://{ELSEWHERE}:{wire.port}", extra={"verify": str(authority)})
        client.sign_in()

        (result,) = results([lambda: client.post_usageplace_event(EVENT)])

        assert [f"{ELSEWHERE}:{wire.port}"] * 2 == proxy.paths
        assert ["/rest/token"] == wire.paths
    assert RopoConnectError is type(result)


@pytest.mark.parametrize("then", ["reset", "close"])
def test_an_event_lost_behind_a_proxy_may_have_arrived(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext, authority: Path, then: str
) -> None:
    """When the way through a proxy breaks after the event has left, that is no refusal by the proxy."""
    with Transport(Say(then=then), tls=tls) as wire, Tunnel(wire.port) as proxy:
        behind(proxy, monkeypatch)
        client = connect(f"https://{ELSEWHERE}:{wire.port}", extra={"verify": str(authority)})

        with pytest.raises(RopoTimeoutError):
            client.post_usageplace_event(EVENT)

        assert [EVENT] == wire.events


def test_a_connection_is_used_again(connect: Connect) -> None:
    """Twenty events and the sign-in before them go through one connection."""
    with Transport() as wire:
        client = connect(wire)

        for number in range(20):
            client.post_usageplace_event(event(number))

        assert 21 == len(wire.requests)
        assert 1 == wire.connections


def test_a_connection_is_used_again_after_an_answer_with_words(connect: Connect) -> None:
    """An answer that is read to its end leaves its connection good, however it came, and beyond the timeout."""
    problem = json.dumps({"title": "Bad", "detail": "x" * 20_000}).encode()
    chunked = b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with Transport(Say(http(400, problem)), Say(chunked), Say(http(204)), Say(ACCEPTED)) as wire:
        client = connect(wire, extra={"timeout": 0.3})

        for number in range(5):
            with contextlib.suppress(RopoRejectedError):
                client.post_usageplace_event(event(number))
            time.sleep(0.2)

        assert 5 == len(wire.events)
        assert 1 == wire.connections


def test_each_thread_has_a_connection_of_its_own(connect: Connect) -> None:
    """Threads do not share connections: four of them use four, for as many events as they like."""
    with Transport() as wire:
        client = connect(wire)
        client.sign_in()

        def post(first: int) -> None:
            for number in range(first, first + 5):
                client.post_usageplace_event(event(number))

        results([lambda n=n: post(n * 10) for n in range(4)])

        assert 20 == len(wire.events)
        assert 1 + 4 == wire.connections


def test_a_kept_connection_that_the_server_closed_is_replaced(connect: Connect) -> None:
    """A server that closes idle connections costs a new connection, not an error."""
    with Transport(Say(ACCEPTED, "close")) as wire:
        client = connect(wire)

        for number in range(3):
            client.post_usageplace_event(event(number))
            time.sleep(0.05)

        assert 3 == len(wire.events)


def test_a_closed_client_can_be_used_again(connect: Connect) -> None:
    """Closing lets go of the connections, not of the client or its token."""
    with Transport() as wire:
        client = connect(wire)
        client.post_usageplace_event(event(1))
        client.close()

        client.post_usageplace_event(event(2))

        assert ["e1", "e2"] == [payload["id"] for payload in wire.events]
        assert 1 == wire.paths.count("/rest/token")
        assert 2 == wire.connections
