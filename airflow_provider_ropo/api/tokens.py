"""Cache of the token that every call but the sign-in carries, renewed in time by one thread for all."""

from __future__ import annotations

import base64
import copy
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_ropo.errors import RopoAuthenticationError

#: "Token will expire in 2 hours" (Ropo One API, "Auth").
DOCUMENTED_LIFETIME = 7_200.0
#: A token is renewed this long before it ends, in seconds, or after nine tenths of a short life.
RENEWAL_MARGIN = 60.0
#: A token that claims to be good for longer counts its seconds in some unit of its own.
_LONGEST_LIFETIME = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Token:
    """Token and its lifetime.

    :param value: the JWT itself; never shown.
    :param lifetime: seconds from its issue.
    :param issued: the clock's reading just before it was requested.
    """

    value: str = field(repr=False)
    lifetime: float
    issued: float

    def needs_renewal(self, now: float) -> bool:
        """Return whether it is time to sign in again."""
        return now - self.issued >= self.lifetime - min(RENEWAL_MARGIN, self.lifetime / 10)


def lifetime_of(token: str, now: float) -> float:
    """Return the lifetime of a fresh JWT in seconds, from its own claims where it has them (RFC 7519).

    ``iat`` is preferred to the own clock, so that a worker whose clock is off does not sign in all the time.

    :param now: seconds since 1970.
    """
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        lifetime = float(claims["exp"]) - float(claims.get("iat", now))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return DOCUMENTED_LIFETIME
    return lifetime if 0 < lifetime <= _LONGEST_LIFETIME else DOCUMENTED_LIFETIME


class TokenCache:
    """Cache of one token for all threads; the first that needs a new one fetches it, the others wait for that.

    :param fetch: signs in and returns the new token.
    :param clock: returns seconds, from any start.
    """

    def __init__(self, fetch: Callable[[], Token], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._refusal: RopoAuthenticationError | None = None

    def get(self, *, rejected: Token | None = None) -> Token:
        """Return a valid token.

        :param rejected: a token that was refused; it is not handed out again.
        :raises RopoError: the error of signing in; a refusal is final, and raised to every later caller.
        """
        with self._lock:
            if self._refusal is not None:
                raise copy.copy(self._refusal)
            token = self._token
            if token is None or token is rejected or token.needs_renewal(self._clock()):
                try:
                    token = self._token = self._fetch()
                except RopoAuthenticationError as error:
                    # A copy is kept, and copies are raised: each raise adds its traceback to the error itself.
                    self._refusal = copy.copy(error)
                    raise
            return token
