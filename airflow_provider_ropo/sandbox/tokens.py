"""The tokens of the sandbox: JSON Web Tokens as in Ropo developer documentation, guide "Authentication"."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TWO_HOURS = 7200
"""Seconds. "Token will expire in 2 hours" (Ropo developer documentation, API reference, page "Auth")."""


class TokenIssuer:
    """Issues tokens and verifies its own; the key exists only as long as this object."""

    def __init__(self, ttl: float = TWO_HOURS, clock: Callable[[], float] = time.time) -> None:
        self._ttl = ttl
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def issue(self, subject: str) -> str:
        """Return a token for this subject, different from every other one."""
        now = self._clock()
        claims = {"sub": subject, "iat": now, "exp": now + self._ttl, "jti": secrets.token_hex(8)}
        content = f"{_encode({'alg': 'HS256', 'typ': 'JWT'})}.{_encode(claims)}"
        return f"{content}.{self._sign(content.encode())}"

    def recognises(self, token: str) -> bool:
        """Return whether the token was issued here and has not expired."""
        content, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(content.encode()).encode(), signature.encode()):
            return False
        return bool(self._clock() < _decode(content.partition(".")[2])["exp"])

    def _sign(self, content: bytes) -> str:
        return _base64(hmac.digest(self._key, content, hashlib.sha256))


def _encode(part: Mapping[str, object]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _decode(part: str) -> dict[str, float]:
    decoded: dict[str, float] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded


def _base64(content: bytes) -> str:
    return urlsafe_b64encode(content).rstrip(b"=").decode()
