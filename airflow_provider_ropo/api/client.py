"""Client of Ropo One's two calls: sign in, and post an event."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_ropo.api.responses import Receipt, interpret_response, personal_data, read_token
from airflow_provider_ropo.api.settings import RopoSettings
from airflow_provider_ropo.api.tokens import Token, TokenCache, lifetime_of
from airflow_provider_ropo.api.transport import Transport
from airflow_provider_ropo.errors import (
    RopoAuthenticationError,
    RopoConnectError,
    RopoResponseError,
    RopoTransportError,
)


class RopoClient:
    """Client that signs in and posts events; safe to share between threads, each of which has connections of its own.

    :param settings: the server and the credentials.
    :param on_token: called with every new token, so that it can be kept out of logs.
    :param clock: returns seconds, from any start.
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
        self._token_cache = TokenCache(self._fetch_token, clock)
        self._transport = Transport(settings)

    def sign_in(self) -> dt.datetime:
        """Sign in, unless there is a valid token (``POST /token``, API reference "Auth").

        :return: when the token expires, by this machine's clock, in UTC.
        :raises RopoAuthenticationError: if Ropo One refuses the customer number or the API code.
        :raises RopoError: if there is no response, or one that makes no sense.
        """
        token = self._token_cache.get()
        left = token.issued + token.lifetime - self._clock()
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=left)

    def post_usageplace_event(self, payload: Mapping[str, Any]) -> Receipt:
        """Post one event, once (``POST /usageplace/event``, API reference "Usageplace").

        A 401 is answered with one fresh token and the same event again.

        :raises RopoError: the class tells whether the event was rejected, was not sent, or may have arrived.
        """
        token = self._token_cache.get()
        result = self._post_event(payload, token)
        if isinstance(result, RopoAuthenticationError):
            result = self._post_event(payload, self._token_cache.get(rejected=token))
        if isinstance(result, RopoAuthenticationError):
            raise self._named(
                result, "refuses even a fresh token; ask Ropo support whether this API code may post events"
            )
        if isinstance(result, RopoResponseError):
            raise result
        return result

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def _post_event(self, payload: Mapping[str, Any], token: Token) -> Receipt | RopoResponseError:
        response = self._transport.post("/rest/usageplace/event", payload, token.value)
        return interpret_response(*response, now=dt.datetime.now(dt.UTC), secrets=self._secrets(payload, token))

    def _secrets(self, payload: Mapping[str, Any], token: Token) -> Iterator[str]:
        """Yield what a response may quote and a log must not; only computed for a response with an error text."""
        yield token.value
        yield self._settings.apicode
        yield from personal_data(payload)

    def _fetch_token(self) -> Token:
        settings, issued = self._settings, self._clock()
        credentials = {"cid": settings.cid, "apicode": settings.apicode}
        try:
            response = self._transport.post("/rest/token", credentials)
        except RopoTransportError as error:
            # Even if the sign-in arrived, no event was sent with it.
            raise RopoConnectError(f"signing in: {error}") from None
        value = read_token(*response, now=dt.datetime.now(dt.UTC), secrets=(settings.apicode,))
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
