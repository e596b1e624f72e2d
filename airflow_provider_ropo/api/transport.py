"""HTTP transport to one server, with connections of each thread's own. The only file that knows ``requests``."""

from __future__ import annotations

import http.client
import io
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3.connection
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from airflow_provider_ropo import __version__
from airflow_provider_ropo.api.settings import RopoSettings, is_loopback
from airflow_provider_ropo.errors import RopoConfigurationError, RopoConnectError, RopoError, RopoTimeoutError
from airflow_provider_ropo.event.model import encode_json

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: The longest that each step of connecting may take, in seconds: reaching an address, a proxy's CONNECT, the TLS
#: handshake. Sending the request may take as long, and the whole response the connection's ``timeout`` from then on.
CONNECT_TIMEOUT = 10.0
#: The number of bytes of a response's body that are read; Ropo One's own are empty or a few lines.
MAX_BODY_SIZE = 65_536
#: The number of interim responses (1xx) that are read before one request's final response.
MAX_INTERIM_RESPONSES = 100


class RawResponse(NamedTuple):
    """HTTP response: status, headers (letter case aside) and the body, or its beginning."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


class _NotSent(StrEnum):
    """Why a request was certainly not sent: a note on the error, which urllib3 and requests wrap in their own."""

    UNREACHABLE = "not sent: no connection"
    NO_TLS = "not sent: no TLS"


class _DeadlineReader(io.RawIOBase):
    """Raw stream of a socket; all reads together take at most the timeout that the socket has now.

    The socket's own timeout starts anew with every byte, so a slow server could stretch it without end.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = time.monotonic() + sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Response with one deadline for status line, headers, interim responses and body; made once a request is sent.

    http.client also reads a proxy's answer to CONNECT with it.
    """

    def __init__(self, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineReader(sock))

    def _read_status(self) -> tuple[str, int, str]:
        """Read the final response's status line; http.client itself skips no interim response but 100."""
        for _ in range(MAX_INTERIM_RESPONSES + 1):
            status_line: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            # 101 is final: the connection speaks another protocol from there on.
            if not 100 <= status_line[1] < 200 or status_line[1] == http.HTTPStatus.SWITCHING_PROTOCOLS:  # noqa: PLR2004
                return status_line
            http.client.parse_headers(self.fp)
        raise http.client.HTTPException("too many interim responses")


class _Connection(urllib3.connection.HTTPConnection):
    """What :func:`_with_deadline` adds to a connection."""

    response_class = _Response

    def connect(self) -> None:
        """Connect; nothing of a request is sent before that is done, through a proxy's tunnel and TLS too."""
        try:
            super().connect()
        except Exception as error:
            error.add_note(_NotSent.NO_TLS if self._is_about_tls(error) else _NotSent.UNREACHABLE)
            raise

    def _is_about_tls(self, error: Exception) -> bool:
        if self.proxy is None:
            # Once there is a socket, the handshake is all that is left, however it breaks.
            return self.sock is not None
        # Before that, the proxy itself is not reached; after it, the proxy may still refuse the tunnel.
        return self.has_connected_to_proxy and isinstance(error, ssl.SSLError | urllib3.exceptions.SSLError)


def _with_deadline(connection_class: type[Any]) -> type[Any]:
    """Return a class of connections whose responses have one deadline; errors of connecting bear a `_NotSent`."""
    if issubclass(connection_class, _Connection):
        return connection_class
    return type(connection_class.__name__, (_Connection, connection_class), {})


class _Adapter(HTTPAdapter):
    """Adapter for one server: proxy, CA bundle and connection pool are looked up once."""

    _pool: Any = None

    def get_connection_with_tls_context(self, *request: Any, **options: Any) -> Any:
        """Return the pool of connections to the server."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*request, **options)
            self._pool.ConnectionCls = _with_deadline(self._pool.ConnectionCls)
        return self._pool

    def close(self) -> None:
        """Close the connections; the next request makes new ones."""
        self._pool = None
        super().close()


class _ThreadSession:
    """Session of one thread; what all posts have in common is prepared once."""

    def __init__(self, settings: RopoSettings, environment: Mapping[str, Any]) -> None:
        self._session = requests.Session()
        # Nothing is looked up again: no proxy, no CA bundle, and no ~/.netrc, which would replace the token.
        self._session.trust_env = False
        self._session.headers["User-Agent"] = f"airflow-provider-ropo/{__version__}"
        self._session.headers["Content-Type"] = "application/json"
        self._server = settings.server
        self._adapter = _Adapter()
        self._prepared: dict[str, requests.PreparedRequest] = {}
        self._options: dict[str, Any] = {
            "timeout": (min(CONNECT_TIMEOUT, settings.timeout), settings.timeout),
            "verify": environment["verify"],
            "proxies": environment["proxies"],
            "stream": True,
        }

    def post(self, path: str, body: bytes, token: str | None) -> requests.Response:
        """Post a JSON body; the adapter below the session follows no redirect and keeps no cookie."""
        request = self._prepared.get(path)
        if request is None:
            request = self._session.prepare_request(requests.Request("POST", self._server + path))
            self._prepared[path] = request
        request.body = body
        request.headers["Content-Length"] = str(len(body))
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
        return self._adapter.send(request, **self._options)

    def close(self) -> None:
        """Close the connections."""
        self._adapter.close()


class Transport:
    """HTTP transport to one server; safe to share between threads, each of which has connections of its own.

    :param settings: which server, and how to reach it.
    """

    def __init__(self, settings: RopoSettings) -> None:
        self._settings = settings
        self._local = threading.local()
        self._sessions: list[_ThreadSession] = []
        # Proxies and certificate bundles of the environment, looked up once.
        self._environment = requests.Session().merge_environment_settings(
            settings.server, {}, stream=True, verify=settings.verify, cert=None
        )
        if is_loopback(urlsplit(settings.server).hostname or ""):
            # A proxy would carry the API code off this machine, and call itself under that name.
            self._environment["proxies"] = {}

    def post(self, path: str, body: Mapping[str, Any], token: str | None = None) -> RawResponse:
        """Post a JSON body, once, and return the response.

        :raises RopoTransportError: if no complete response came in time; a :class:`RopoConnectError` if nothing was
            sent.
        :raises RopoConfigurationError: if no request can be made with the connection's settings.
        """
        settings = self._settings
        try:
            response = self._thread_session().post(path, encode_json(body).encode(), token)
            return RawResponse(response.status_code, response.headers, _read_body(response))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._transport_error(error) from None
        except OSError as error:
            # What requests raises for a CA bundle that is not there, before it connects.
            raise RopoConfigurationError(
                f"connection {settings.conn_id!r}: extra verify, or this worker's REQUESTS_CA_BUNDLE or "
                f"CURL_CA_BUNDLE, is no CA bundle ({type(error).__name__}); correct its path"
            ) from None

    def close(self) -> None:
        """Close every connection."""
        for session in list(self._sessions):
            session.close()

    def _thread_session(self) -> _ThreadSession:
        session: _ThreadSession | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _ThreadSession(self._settings, self._environment)
            self._sessions.append(session)
        return session

    def _transport_error(self, error: Exception) -> RopoError:
        """Return the error of a request that was never sent, or that may have arrived; in doubt, it may have."""
        settings = self._settings
        where = f"connection {settings.conn_id!r}: {settings.server}"
        if isinstance(error, ValueError) and not isinstance(error, requests.exceptions.InvalidHeader):
            # InvalidURL, InvalidProxyURL, InvalidSchema: found before anything is sent; a header is the response's.
            return RopoConfigurationError(
                f"{where} cannot be called ({type(error).__name__}); check Server (host) and this worker's proxies"
            )
        causes = list(_causes(error))
        for cause in causes:
            notes = getattr(cause, "__notes__", ())
            if _NotSent.UNREACHABLE in notes:
                return RopoConnectError(
                    f"{where} cannot be reached ({type(cause).__name__}); "
                    "check Server (host), the network and this worker's proxies"
                )
            if _NotSent.NO_TLS in notes:
                return RopoConnectError(f"{where} and this worker do not agree on TLS {self._tls_remedy(cause)}")
        if any(isinstance(cause, urllib3.exceptions.ReadTimeoutError) for cause in causes):
            return RopoTimeoutError(f"{where}: no complete response within {settings.timeout:g} s")
        return RopoTimeoutError(f"{where}: no complete response ({type(causes[-1]).__name__})")

    def _tls_remedy(self, error: BaseException) -> str:
        reason = next((cause.reason for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)
        remedy = "check Server (host) and extra verify"
        if reason == "WRONG_VERSION_NUMBER":
            # What came is not TLS; without a scheme, the address means https.
            remedy = "if the server speaks plain http, write http:// before its name in Server (host)"
            if not is_loopback(urlsplit(self._settings.server).hostname or ""):
                remedy += " and turn on extra allow_http"
        return f"({reason or type(error).__name__}); {remedy}"


def _read_body(response: requests.Response) -> bytes:
    """Read a response's body, or its beginning: then the rest is dropped, and the connection with it."""
    if response.status_code < 200:  # noqa: PLR2004 - HTTP's own
        # 101: what follows is not HTTP, and the next request must not take it for its own response.
        response.close()
        raise requests.ConnectionError(http.client.UnknownProtocol(response.reason))
    if response.raw.length_remaining == 0:
        # The usual response: there is nothing to read.
        response.raw.release_conn()
        return b""
    body = bytearray()
    with response:
        for piece in response.iter_content(1024):
            body += piece
            if len(body) >= MAX_BODY_SIZE:
                break
    return bytes(body[:MAX_BODY_SIZE])


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything inside it: urllib3 keeps the reason in ``reason`` or the arguments."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        current = waiting.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        # Not __context__: it may be an older error that has nothing to do with this request.
        waiting += [current.__cause__, getattr(current, "reason", None), *current.args]
