from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

from airflow_provider_ropo import errors
from airflow_provider_ropo.errors import (
    DeliveriesFailedError,
    InvalidRowError,
    RopoAuthenticationError,
    RopoConfigurationError,
    RopoConnectError,
    RopoError,
    RopoLedgerError,
    RopoRateLimitError,
    RopoRejectedError,
    RopoServerError,
    RopoTimeoutError,
    RopoUnavailableError,
    SupersededError,
)

ERRORS: list[type[RopoError]] = [
    each for each in vars(errors).values() if isinstance(each, type) and each.__module__ == errors.__name__
]
RESPONSE: dict[str, Any] = {"status_code": 400, "detail": "Bad: code", "retry_after": 2.5, "event_id": "e1"}

SAMPLES = [
    RopoError("it broke", event_id="e1"),
    RopoConfigurationError("connection 'ropo_default': password is empty"),
    InvalidRowError("row 7 (id e1)", "status", "is missing", event_id="e1"),
    RopoConnectError("no route", event_id="e1"),
    RopoTimeoutError("no answer in 30 s", event_id="e1"),
    RopoAuthenticationError("refused", **RESPONSE),
    RopoRateLimitError("slower", **RESPONSE),
    RopoRejectedError("no", **RESPONSE),
    RopoServerError("unwell", **RESPONSE),
    RopoUnavailableError("nothing gets through", retry_after=120.0),
    RopoLedgerError("the ledger could not be read"),
    SupersededError("a later try of this task instance is at work"),
    DeliveriesFailedError("1 of 2", summary={"rows": 2, "delivered": 1}),
]


def drawn_tree() -> list[tuple[str, str, bool]]:
    """Read the drawing in the module's docstring: each class's name, its parent's, and whether it is transient.

    A class that the drawing calls neither permanent nor transient is as its parent is.
    """
    tree: list[tuple[str, str, bool]] = []
    ancestors: list[tuple[str, bool]] = [("Exception", False)]
    for line in (errors.__doc__ or "").splitlines():
        if drawn := re.match(r"    ([│├└─ ]*)(\w+Error)\b(.*)", line):
            branch, name, words = drawn.groups()
            depth = 1 + len(branch) // 4
            parent, inherited = ancestors[depth - 1]
            said = re.search(r"\b(permanent|transient)$", words)
            transient = said[1] == "transient" if said else inherited
            ancestors[depth:] = [(name, transient)]
            tree.append((name, parent, transient))
    return tree


def test_tree_is_as_drawn() -> None:
    """Every error has the parent, and is as transient, as the drawing that the documentation shows."""
    actual = [(each.__name__, each.__mro__[1].__name__, each.transient) for each in ERRORS]

    assert sorted(drawn_tree()) == sorted(actual)


def pickled(error: RopoError) -> RopoError:
    twin: RopoError = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    return twin


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_only_silence_leaves_an_event_open(error: type[RopoError]) -> None:
    """By its class alone, only a request without an answer may have arrived."""
    assert (error is RopoTimeoutError) == error().may_have_arrived


@pytest.mark.parametrize("travel", [pickled, copy.copy])
def test_may_have_arrived_is_kept_in_a_copy(travel: Callable[[RopoError], RopoError]) -> None:
    """The flag ``may_have_arrived`` of one error is kept when the error is copied."""
    error = RopoServerError("a gateway got no answer", **RESPONSE)
    error.may_have_arrived = True

    twin = travel(error)

    assert twin.may_have_arrived
    assert not RopoServerError("another", **RESPONSE).may_have_arrived


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("travel", [pickled, copy.copy])
def test_errors_can_be_copied(error: RopoError, travel: Callable[[RopoError], RopoError]) -> None:
    """A copied or pickled error has the same class, message and data."""
    twin = travel(error)

    assert type(error) is type(twin)
    assert str(error) == str(twin)
    assert vars(error) == vars(twin)


def test_invalid_row_names_row_column_and_reason() -> None:
    """A message about a row names the row, the column and the reason."""
    error = InvalidRowError("row 7 (id e1)", "status", "is missing", event_id="e1")

    assert "row 7 (id e1): status: is missing" == str(error)
    assert ("row 7 (id e1)", "status", "is missing", "e1") == (
        error.row,
        error.column,
        error.reason,
        error.event_id,
    )


def test_summary_is_kept_as_it_was() -> None:
    """The counts in the final error do not change with the ones they came from."""
    counts = {"rows": 1}
    error = DeliveriesFailedError("0 of 1", summary=counts)

    counts["rows"] = 2

    assert {"rows": 1} == error.summary
