"""HTTP: one server, reached over connections of each thread's own. The only file that knows ``requests``."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from airflow_provider_ropo import __version__
from airflow_provider_ropo.api.settings import RopoSettings, is_loopback
from airflow_provider_ropo.errors import RopoConfigurationError, RopoConnectError, RopoError, RopoTimeoutError

#: Seconds to wait for a connection; for an answer, the connection's own ``timeout``.
CONNECT_TIMEOUT = 10.0
#: So many bytes of an answer are read; Ropo One's own are empty or a few lines.
LONGEST_ANSWER = 65_536

_NEVER_LEFT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.NameResolutionError,
    # Not ProxyError: that is also what becomes of an event whose proxy hangs up without an answer.
)

_encode = json.JSONEncoder(allow_nan=False).encode


class RawResponse(NamedTuple):
    """What came back: status, headers (letter case aside) and the body, or its beginning."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes


class _Adapter(HTTPAdapter):
    """Reaches one server, always in the same way: proxy, CA bundle and connections are found once."""

    _way: Any = None

    def get_connection_with_tls_context(self, *request: Any, **options: Any) -> Any:  # noqa: ANN401 - requests' own
        """Return the connections to the server."""
        if self._way is None:
            self._way = super().get_connection_with_tls_context(*request, **options)
        return self._way

    def close(self) -> None:
        """Close the connections; the next request makes new ones."""
        self._way = None
        super().close()


class _ThreadSession:
    """One thread's way to the server: what no two posts differ in is worked out once."""

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
    """Posts to one server; safe to share between threads, each of which has connections of its own.

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
        """Post a JSON body, once, and return the answer.

        :raises RopoTransportError: if there is none; a :class:`RopoConnectError` if nothing left.
        :raises RopoConfigurationError: if the connection's settings make no request.
        """
        settings = self._settings
        try:
            answer = self._thread_session().post(path, _encode(body).encode(), token)
            return RawResponse(answer.status_code, answer.headers, _body(answer, settings.timeout))
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._transport_error(error) from None
        except OSError as error:
            # How requests says that a CA bundle is not there, before it connects.
            raise RopoConfigurationError(
                f"connection {settings.conn_id!r}: extra verify, or this worker's REQUESTS_CA_BUNDLE or "
                f"CURL_CA_BUNDLE, is no CA bundle ({type(error).__name__}); mend its path"
            ) from None

    def close(self) -> None:
        """Close every connection."""
        for line in list(self._sessions):
            line.close()

    def _thread_session(self) -> _ThreadSession:
        line: _ThreadSession | None = getattr(self._local, "line", None)
        if line is None:
            line = self._local.line = _ThreadSession(self._settings, self._environment)
            self._sessions.append(line)
        return line

    def _transport_error(self, error: Exception) -> RopoError:
        """Tell a request that never left from one that may have arrived; in doubt, it may have."""
        settings = self._settings
        where = f"connection {settings.conn_id!r}: {settings.server}"
        if isinstance(error, ValueError) and not isinstance(error, requests.exceptions.InvalidHeader):
            # InvalidURL, InvalidProxyURL, InvalidSchema: found out before anything is sent; a header is the answer's.
            return RopoConfigurationError(
                f"{where} cannot be called ({type(error).__name__}); check Server (host) and this worker's proxies"
            )
        for cause in _causes(error):
            if isinstance(cause, _NEVER_LEFT) or _is_refused_tunnel(cause):
                return RopoConnectError(
                    f"{where} cannot be reached ({type(cause).__name__}); "
                    "check Server (host), the network and this worker's proxies"
                )
            if isinstance(cause, OSError) and _is_before_tls(cause):
                reason = getattr(cause, "reason", None) or type(cause).__name__
                return RopoConnectError(
                    f"{where} and this worker do not agree on TLS ({reason}); check Server (host) and extra verify"
                )
        waited = f" within {settings.timeout:g} s" if isinstance(error, requests.Timeout) else ""
        return RopoTimeoutError(f"{where} gave no whole answer{waited} ({type(error).__name__})")


def _body(answer: requests.Response, timeout: float) -> bytes:
    """Read an answer's body, or its beginning: then the rest is dropped, and the connection with it.

    A timer hangs up, for the socket's own timeout starts anew with every byte that drips in.
    """
    if answer.status_code < 200:  # noqa: PLR2004 - HTTP's own
        # Not the last word, which is still to come: the next request must not take it for its own.
        answer.close()
        raise requests.ConnectionError
    body, late = bytearray(), threading.Event()
    if answer.raw.length_remaining == 0:
        # The usual answer, for which no timer is needed: there is nothing to read.
        answer.raw.release_conn()
        return b""
    with answer, _second_handle(answer) as line:
        alarm = threading.Timer(timeout, _hang_up, (line, late))
        alarm.start()
        try:
            for piece in answer.iter_content(1024):
                body += piece
                if len(body) >= LONGEST_ANSWER:
                    break
        finally:
            alarm.cancel()
            alarm.join()
            # Also without an error: to an answer of no announced length, hanging up looks like its end.
            if late.is_set():
                raise requests.ReadTimeout
    return bytes(body[:LONGEST_ANSWER])


def _second_handle(answer: requests.Response) -> socket.socket:
    """Return a socket that stays this connection's, even when the answer is read and its own is closed."""
    try:
        return socket.socket(fileno=os.dup(answer.raw.fileno()))
    except OSError as error:
        # Too many open files; the request has left all the same.
        raise requests.ConnectionError(error) from error


def _hang_up(line: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)


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


def _is_refused_tunnel(cause: BaseException) -> bool:
    """Tell whether a proxy said no to CONNECT, for which http.client has no class of its own."""
    return isinstance(cause, OSError) and str(cause).startswith("Tunnel connection failed")


def _is_before_tls(cause: OSError) -> bool:
    """Tell whether there was no TLS yet to send anything through: no CA bundle, or still the handshake.

    The same errors come later too, when they mean nothing of the kind: where they come from tells them apart.
    """
    return getattr(cause, "library", None) == "X509" or any(
        frame.f_code.co_name == "do_handshake" for frame, _thread_session in traceback.walk_tb(cause.__traceback__)
    )
