"""Ropo One's two calls: sign in, and post an event."""

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
        self._token_cache = TokenCache(self._fetch_token, clock)
        self._transport = Transport(settings)

    def sign_in(self) -> dt.datetime:
        """Make sure that there is a token (``POST /token``, API reference "Auth").

        :return: until when it is good, by this machine's clock, in UTC.
        :raises RopoAuthenticationError: if Ropo One refuses the customer number or the API code.
        :raises RopoError: if it gives no sensible answer.
        """
        token = self._token_cache.get()
        left = token.issued + token.lifetime - self._clock()
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=left)

    def post_usageplace_event(self, payload: Mapping[str, Any]) -> Receipt:
        """Post one event, once (``POST /usageplace/event``, API reference "Usageplace").

        A 401 is answered with one fresh token and the same event again.

        :raises RopoError: the one error of the tree that tells what happened.
        """
        token = self._token_cache.get()
        result = self._post_event(payload, token)
        if isinstance(result, RopoAuthenticationError):
            result = self._post_event(payload, self._token_cache.get(rejected=token))
        if isinstance(result, RopoAuthenticationError):
            raise self._named(result, "refuses even a fresh token; ask Ropo support whether the API code may report")
        if isinstance(result, RopoResponseError):
            raise result
        return result

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()

    def _post_event(self, payload: Mapping[str, Any], token: Token) -> Receipt | RopoResponseError:
        answer = self._transport.post("/rest/usageplace/event", payload, token.value)
        return interpret_response(*answer, now=dt.datetime.now(dt.UTC), secrets=self._secrets(payload, token))

    def _secrets(self, payload: Mapping[str, Any], token: Token) -> Iterator[str]:
        """Yield what an answer may quote and a log must not; worked out only where there is something to say."""
        yield token.value
        yield self._settings.apicode
        yield from personal_data(payload)

    def _fetch_token(self) -> Token:
        settings, issued = self._settings, self._clock()
        credentials = {"cid": settings.cid, "apicode": settings.apicode}
        try:
            answer = self._transport.post("/rest/token", credentials)
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
