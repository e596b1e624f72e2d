from __future__ import annotations

import copy
import pickle
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
    RopoResponseError,
    RopoServerError,
    RopoTimeoutError,
    RopoTransportError,
    RopoUnavailableError,
    SupersededError,
)

# Class, its parent, and whether another attempt is worth it.
TREE = [
    (RopoError, Exception, False),
    (RopoConfigurationError, RopoError, False),
    (InvalidRowError, RopoError, False),
    (RopoTransportError, RopoError, True),
    (RopoConnectError, RopoTransportError, True),
    (RopoTimeoutError, RopoTransportError, True),
    (RopoResponseError, RopoError, False),
    (RopoAuthenticationError, RopoResponseError, False),
    (RopoRateLimitError, RopoResponseError, True),
    (RopoRejectedError, RopoResponseError, False),
    (RopoServerError, RopoResponseError, True),
    (RopoUnavailableError, RopoError, True),
    (RopoLedgerError, RopoError, True),
    (SupersededError, RopoLedgerError, True),
    (DeliveriesFailedError, RopoError, False),
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
    DeliveriesFailedError("1 of 2", summary={"rows": 2, "delivered": 1}),
]


@pytest.mark.parametrize(("error", "parent", "transient"), TREE, ids=lambda value: getattr(value, "__name__", ""))
def test_tree(error: type[RopoError], parent: type[Exception], transient: bool) -> None:  # noqa: FBT001
    """Every error has its place in the tree, and says whether another attempt is worth it."""
    assert (parent, transient) == (error.__base__, error.transient)


def test_tree_is_whole() -> None:
    """No error class stands outside the tree that the tests and the documentation know."""
    defined = {value for value in vars(errors).values() if isinstance(value, type)}

    assert {error for error, _, _ in TREE} == {error for error in defined if issubclass(error, Exception)}


def test_tree_is_drawn() -> None:
    """The picture at the top of the file names every class."""
    drawing = errors.__doc__ or ""

    assert [] == [error.__name__ for error, _, _ in TREE if f" {error.__name__} " not in drawing]


def pickled(error: RopoError) -> RopoError:
    twin: RopoError = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    return twin


@pytest.mark.parametrize("error", [error for error, _, _ in TREE], ids=lambda error: error.__name__)
def test_only_silence_leaves_an_event_open(error: type[RopoError]) -> None:
    """By its class alone, only a request without an answer may have arrived."""
    assert (error is RopoTimeoutError) == error().may_have_arrived


@pytest.mark.parametrize("travel", [pickled, copy.copy])
def test_an_event_that_may_have_arrived_still_may_elsewhere(travel: Callable[[RopoError], RopoError]) -> None:
    """What one answer says about an event goes along with its error."""
    error = RopoServerError("a gateway got no answer", **RESPONSE)
    error.may_have_arrived = True

    twin = travel(error)

    assert twin.may_have_arrived
    assert not RopoServerError("another", **RESPONSE).may_have_arrived


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("travel", [pickled, copy.copy])
def test_errors_travel(error: RopoError, travel: Callable[[RopoError], RopoError]) -> None:
    """An error is the same, with all its data, after it went to another process."""
    twin = travel(error)

    assert type(error) is type(twin)
    assert str(error) == str(twin)
    assert vars(error) == vars(twin)


def test_invalid_row_names_row_column_and_reason() -> None:
    """A message about a row says which row, which column and why."""
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
