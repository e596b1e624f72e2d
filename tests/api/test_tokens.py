"""How long a token is good, and that one is enough for all threads."""

from __future__ import annotations

import base64
import json
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from airflow_provider_ropo.api.tokens import DOCUMENTED_LIFETIME, Token, TokenCache, lifetime_of
from airflow_provider_ropo.errors import RopoAuthenticationError, RopoServerError
from doubles import FakeClock

NOW = 1_704_364_900.0
THREADS = 16


def jwt(claims: Any) -> str:
    return f"e30.{encode(json.dumps(claims).encode())}.c2ln"


def encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class SignIn:
    """Signs in: each time another token, or an error; counts how often it was asked."""

    def __init__(self, clock: FakeClock, *errors: Exception, lasts: float = 7200.0) -> None:
        self.asked = 0
        self._clock = clock
        self._errors = list(errors)
        self._lasts = lasts

    def ask(self) -> Token:
        """Sign in, which takes a moment."""
        self.asked += 1
        time.sleep(0.02)
        if self._errors:
            raise self._errors.pop(0)
        return Token(f"token {self.asked}", self._lasts, self._clock())


def at_once(call: Callable[[], Any]) -> list[Any]:
    """Return what the call gives to each of many threads that start together, an error as it is."""
    barrier = threading.Barrier(THREADS)

    def one(_number: int) -> Any:
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - it is the result
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, range(THREADS)))


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        pytest.param({"iat": NOW, "exp": NOW + 7200}, 7200.0, id="iat and exp"),
        pytest.param({"iat": NOW - 999, "exp": NOW - 399}, 600.0, id="by iat, whatever our clock says"),
        pytest.param({"exp": NOW + 300}, 300.0, id="exp alone, by our clock"),
        pytest.param({"iat": str(NOW), "exp": str(NOW + 300)}, 300.0, id="numbers as text"),
    ],
)
def test_a_token_says_how_long_it_is_good(claims: dict[str, Any], expected: float) -> None:
    """A JWT's own claims decide its life."""
    assert expected == lifetime_of(jwt(claims), NOW)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="empty"),
        pytest.param("opaque", id="no JWT"),
        pytest.param("a.b", id="two parts of nothing"),
        pytest.param("a.%%%%.c", id="no base64"),
        pytest.param("a.ä.c", id="no ASCII"),
        pytest.param(f"a.{encode(b'not json')}.c", id="no JSON"),
        pytest.param(f"a.{encode(bytes([255, 254, 200]))}.c", id="no UTF-8"),
        pytest.param(f"a.{encode(b'[' * 100_000)}.c", id="too deep"),
        pytest.param(jwt([1, 2]), id="a list"),
        pytest.param(jwt(None), id="null"),
        pytest.param(jwt({}), id="no claims"),
        pytest.param(jwt({"iat": NOW}), id="no exp"),
        pytest.param(jwt({"exp": None}), id="exp null"),
        pytest.param(jwt({"exp": "soon"}), id="exp words"),
        pytest.param(jwt({"exp": {"at": 1}}), id="exp object"),
        pytest.param(jwt({"exp": float("nan")}), id="exp NaN"),
        pytest.param(jwt({"exp": float("inf")}), id="exp infinite"),
        pytest.param(jwt({"exp": 10**400}), id="exp beyond a float"),
        pytest.param(jwt({"exp": 1e30}), id="exp beyond the calendar"),
        pytest.param(jwt({"exp": NOW * 1000}), id="exp in milliseconds"),
        pytest.param(jwt({"iat": NOW, "exp": NOW}), id="no life"),
        pytest.param(jwt({"iat": NOW, "exp": NOW - 1}), id="dead before it was born"),
        pytest.param(jwt({"exp": NOW - 1}), id="over, by a clock of ours that may be wrong"),
    ],
)
def test_a_token_that_does_not_say_is_good_for_two_hours(token: str) -> None:
    """Nonsense falls back to the documented life."""
    assert lifetime_of(token, NOW) == DOCUMENTED_LIFETIME


@pytest.mark.parametrize(
    ("lifetime", "age", "expected"),
    [
        pytest.param(7200.0, 0.0, False, id="fresh"),
        pytest.param(7200.0, 7139.0, False, id="a minute and a bit before its end"),
        pytest.param(7200.0, 7140.0, True, id="a minute before its end"),
        pytest.param(7200.0, 9000.0, True, id="over"),
        pytest.param(10.0, 8.9, False, id="short-lived, before nine tenths"),
        pytest.param(10.0, 9.0, True, id="short-lived, after nine tenths"),
    ],
)
def test_a_token_is_due_before_it_ends(*, lifetime: float, age: float, expected: bool) -> None:
    """A token is renewed a minute before its end, or after nine tenths of a short life."""
    token = Token("t", lifetime, issued=1000.0)

    assert expected == token.needs_renewal(1000.0 + age)


def test_a_token_is_not_shown() -> None:
    """A token printed by accident does not show itself."""
    assert "hush" not in repr(Token("hush", 1.0, 0.0))


def test_many_threads_sign_in_once() -> None:
    """However many threads ask at once, one signs in and all get its token."""
    clock = FakeClock()
    sign_in = SignIn(clock)
    cache = TokenCache(sign_in.ask, clock)

    tokens = at_once(cache.get)

    assert sign_in.asked == 1
    assert {"token 1"} == {token.value for token in tokens}


def test_a_token_is_kept_until_it_is_due_and_then_renewed() -> None:
    """The same token is handed out until shortly before its end, then another."""
    clock = FakeClock()
    cache = TokenCache(SignIn(clock).ask, clock)

    first = cache.get()
    clock.now += 7139
    still = cache.get()
    clock.now += 1
    renewed = cache.get()

    assert [first.value, still.value, renewed.value] == ["token 1", "token 1", "token 2"]


def test_a_refused_token_is_replaced_once_for_all_threads() -> None:
    """Threads whose token was refused get one new token together, not one each."""
    clock = FakeClock()
    sign_in = SignIn(clock)
    cache = TokenCache(sign_in.ask, clock)
    refused = cache.get()

    tokens = at_once(lambda: cache.get(rejected=refused))

    assert sign_in.asked == 2
    assert {"token 2"} == {token.value for token in tokens}


def test_a_refusal_is_asked_for_once() -> None:
    """After a refused sign-in nobody asks again: every thread gets the refusal."""
    clock = FakeClock()
    sign_in = SignIn(clock, RopoAuthenticationError("no"))
    cache = TokenCache(sign_in.ask, clock)

    results = at_once(cache.get)

    assert sign_in.asked == 1
    assert {RopoAuthenticationError} == {type(result) for result in results}


def test_a_refusal_is_nobodys_to_change() -> None:
    """Each who asks gets a refusal of their own: what one raises, notes or changes, no other sees."""
    clock = FakeClock()
    refusal = RopoAuthenticationError("no", status_code=400, detail="Unknown")
    cache = TokenCache(SignIn(clock, refusal).ask, clock)

    told = []
    for _ in range(3):
        with pytest.raises(RopoAuthenticationError) as caught:
            cache.get()
        told.append("".join(traceback.format_exception(caught.value)))
        caught.value.args = ("something else",)
        caught.value.add_note("a note")

    assert told[1] == told[2]
    assert [text.splitlines()[-1].partition(": ")[2] for text in told] == ["no"] * 3


def test_trouble_at_sign_in_may_pass() -> None:
    """A sign-in that fails for another reason than a refusal is tried again by the next who asks."""
    clock = FakeClock()
    cache = TokenCache(SignIn(clock, RopoServerError("HTTP 503")).ask, clock)
    with pytest.raises(RopoServerError):
        cache.get()

    token = cache.get()

    assert token.value == "token 2"
