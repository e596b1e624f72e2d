"""Ropo One over HTTP: the two calls. The only file that knows ``requests``."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3.exceptions
from requests.auth import AuthBase

from airflow_provider_ropo import __version__
from airflow_provider_ropo.answer import Receipt, classify, customers_data, read_token
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoConnectError,
    RopoError,
    RopoResponseError,
    RopoTimeoutError,
    RopoTransportError,
)
from airflow_provider_ropo.settings import RopoSettings, is_loopback
from airflow_provider_ropo.tokens import Token, TokenKeeper, lifetime_of

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


class _BearerAuth(AuthBase):
    """Sets the token; as an auth object, so that no ``~/.netrc`` puts another header in its place."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token.value}"
        return request


class _Session(requests.Session):
    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002 - requests' signature
        """See no redirect: requests takes a ``Location`` apart even where it is not to follow it."""
        return


class RopoClient:
    """Signs in and posts events; safe to share between threads, each of which has connections of its own.

    :param settings: where and as whom.
    :param on_token: told every new token, so that it can be kept out of logs.
    :param clock: seconds, from any start.
    """

    def __init__(
        self,
        settings: RopoSettings,
        *,
        on_token: Callable[[str], None] = lambda _token: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._on_token = on_token
        self._clock = clock
        self._keeper = TokenKeeper(self._fetch_token, clock)
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        # Proxies and certificate bundles of the environment, looked up once.
        self._environment = requests.Session().merge_environment_settings(
            settings.server, {}, stream=True, verify=settings.verify, cert=None
        )
        if is_loopback(urlsplit(settings.server).hostname or ""):
            # A proxy would carry the API code off this machine, and call itself under that name.
            self._environment["proxies"] = {}

    def sign_in(self) -> dt.datetime:
        """Make sure that there is a token (``POST /token``, API reference "Auth").

        :return: until when it is good, by this machine's clock, in UTC.
        :raises RopoAuthenticationError: if Ropo One refuses the customer number or the API code.
        :raises RopoError: if it gives no sensible answer.
        """
        token = self._keeper.get()
        left = token.issued + token.lifetime - self._clock()
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=left)

    def post_usageplace_event(self, payload: Mapping[str, Any]) -> Receipt:
        """Post one event, once (``POST /usageplace/event``, API reference "Usageplace").

        A 401 is answered with one fresh token and the same event again.

        :raises RopoError: the one error of the tree that tells what happened.
        """
        token = self._keeper.get()
        result = self._post_event(payload, token)
        if isinstance(result, RopoAuthenticationError):
            result = self._post_event(payload, self._keeper.get(instead_of=token))
        if isinstance(result, RopoAuthenticationError):
            raise self._named(result, "refuses even a fresh token; ask Ropo support whether the API code may report")
        if isinstance(result, RopoResponseError):
            raise result
        return result

    def close(self) -> None:
        """Close every connection."""
        while self._sessions:
            self._sessions.pop().close()

    def _post_event(self, payload: Mapping[str, Any], token: Token) -> Receipt | RopoResponseError:
        answer = self._post("/rest/usageplace/event", payload, _BearerAuth(token))
        secrets = (token.value, self._settings.apicode, *customers_data(payload))
        return classify(*answer, now=dt.datetime.now(dt.UTC), secrets=secrets)

    def _fetch_token(self) -> Token:
        settings, issued = self._settings, self._clock()
        credentials = {"cid": settings.cid, "apicode": settings.apicode}
        try:
            answer = self._post("/rest/token", credentials, None)
        except RopoTransportError as error:
            # Whatever became of the sign-in, no event left with it.
            raise RopoConnectError(f"signing in: {error}") from error
        value = read_token(*answer, now=dt.datetime.now(dt.UTC), secrets=(settings.apicode,))
        if isinstance(value, RopoAuthenticationError):
            raise self._named(
                value,
                "refuses the sign-in; check Server (host), Customer number (login) and API code (password)",
            )
        if isinstance(value, RopoResponseError):
            raise self._named(value, "did not sign in")
        self._on_token(value)
        return Token(value, lifetime_of(value, time.time()), issued)

    def _named(self, error: RopoResponseError, trouble: str) -> RopoResponseError:
        """Return the error with a message that names the connection and the remedy."""
        error.args = (f"connection {self._settings.conn_id!r}: {self._settings.server} {trouble}: {error}",)
        return error

    def _post(self, path: str, body: Mapping[str, Any], auth: AuthBase | None) -> tuple[int, Mapping[str, str], bytes]:
        settings = self._settings
        try:
            answer = self._session().post(
                settings.server + path,
                json=body,
                auth=auth,
                timeout=(min(CONNECT_TIMEOUT, settings.timeout), settings.timeout),
                allow_redirects=False,
                stream=True,
            )
            return answer.status_code, answer.headers, _body(answer, settings.timeout)
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise self._transport_error(error) from None
        except OSError as error:
            # How requests says that a CA bundle is not there, before it connects.
            raise RopoConfigurationError(
                f"connection {settings.conn_id!r}: extra verify, or this worker's REQUESTS_CA_BUNDLE or "
                f"CURL_CA_BUNDLE, is no CA bundle ({type(error).__name__}); mend its path"
            ) from None

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session()
            session.trust_env = False
            session.proxies = self._environment["proxies"]
            session.verify = self._environment["verify"]
            session.headers["User-Agent"] = f"airflow-provider-ropo/{__version__}"
            self._sessions.append(session)
        return session

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
    body, late = bytearray(), threading.Event()
    if answer.raw.length_remaining == 0:
        # The usual answer, for which no timer is needed.
        return answer.content
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
        frame.f_code.co_name == "do_handshake" for frame, _line in traceback.walk_tb(cause.__traceback__)
    )
